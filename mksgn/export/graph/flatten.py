"""Flatten nested NIR graphs: their nodes get the names "outer.inner" (a "/" breaks the file, NIR.md)."""

from collections import Counter

import nir

from mksgn.export.errors import UnsupportedNodeError

Edges = list[tuple[str, str]]


def flatten(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Put all nodes on one level.

    A nested graph's Input and Output vanish, and their edges join. Where it has several, the outer
    edges name one: "sub.port".

    Returns:
        `graph` itself if it is flat, else a new graph of the same nodes with the outer graph's metadata.

    Raises:
        UnsupportedNodeError: An edge that names no port, or nothing that exists; two nodes of one name;
            an edge that would exist twice.
    """
    if not any(isinstance(node, nir.NIRGraph) for node in graph.nodes.values()):
        return graph
    nodes: dict[str, nir.NIRNode] = {}
    edges: Edges = []
    ports: dict[str, tuple[list[str], list[str]]] = {}  # a nested graph's Inputs and Outputs, by their inner names
    for name, node in graph.nodes.items():
        flat = {name: node}
        if isinstance(node, nir.NIRGraph):
            inner = flatten(node)
            flat = {f"{name}.{n}": part for n, part in inner.nodes.items()}
            edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner.edges]
            ports[name] = (list(inner.inputs), list(inner.outputs))
        repeated = sorted(set(nodes) & set(flat))
        if repeated:
            raise UnsupportedNodeError(
                f"node {repeated[0]}: a node of a nested graph gets this name too; rename one of the two"
            )
        nodes |= flat
    for source, target in graph.edges:
        edges.append(
            (_end(graph, nodes, ports, source, leaving=True), _end(graph, nodes, ports, target, leaving=False))
        )
    for name, both in ports.items():
        for port in (f"{name}.{p}" for kind in both for p in kind):
            edges = _without_port(edges, port)
            del nodes[port]
    doubled = [edge for edge, times in Counter(edges).items() if times > 1]
    if doubled:
        a, b = doubled[0]
        raise UnsupportedNodeError(
            f"edge {a} → {b}: it exists twice once nested graphs are flattened, which NIR cannot say; put a Scale of "
            "ones into one"
        )
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def _end(
    graph: nir.NIRGraph,
    nodes: dict[str, nir.NIRNode],
    ports: dict[str, tuple[list[str], list[str]]],
    name: str,
    *,
    leaving: bool,
) -> str:
    """The node that an end of an outer edge means: itself, or a nested graph's port."""
    if name in nodes and name in graph.nodes:
        return name
    kind = "Output" if leaving else "Input"
    if name in ports:
        inner = ports[name][leaving]
        if len(inner) != 1:
            raise UnsupportedNodeError(
                f"node {name}: the nested graph has {len(inner)} {kind} nodes ({', '.join(inner)}), and an edge names "
                f'none; write "{name}.PORT" into the edge'
            )
        return f"{name}.{inner[0]}"
    if any(name == f"{sub}.{port}" for sub, both in ports.items() for port in both[leaving]):
        return name
    raise UnsupportedNodeError(
        f"edge {'from' if leaving else 'to'} {name}: the graph has no such node, nor a nested {kind} of that name; "
        "correct the edge"
    )


def _without_port(edges: Edges, port: str) -> Edges:
    """Join each edge into `port` with each edge out of it."""
    before, after = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
    return [edge for edge in edges if port not in edge] + [(a, b) for a in before for b in after]
