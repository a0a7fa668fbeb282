"""Flatten nested NIR graphs: their nodes get the names "outer.inner" (a "/" breaks the file, NIR.md)."""

from collections import Counter

import nir

from mksgn.export.errors import UnsupportedNodeError

Edges = list[tuple[str, str]]


def flatten(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Put all nodes on one level.

    A nested graph's Input and Output vanish, and the edges at each are joined. If it has several, the
    outer edges name one: "sub.port".

    Returns:
        `graph` itself if it is flat, else a new graph of the same nodes with the outer graph's metadata.

    Raises:
        UnsupportedNodeError: An edge names no port, or no existing node; two nodes would have one name;
            an edge would exist twice.
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
        repeated = sorted(n for n in flat if n in nodes)
        if repeated:
            raise UnsupportedNodeError(
                f"node {repeated[0]}: a node of a nested graph gets this name too; rename one of the two"
            )
        nodes |= flat
    named = tuple({f"{name}.{port}" for name, both in ports.items() for port in both[kind]} for kind in (0, 1))
    for source, target in graph.edges:
        edges.append(
            (
                _end(graph, nodes, ports, named[1], source, leaving=True),
                _end(graph, nodes, ports, named[0], target, leaving=False),
            )
        )
    in_order = [f"{name}.{port}" for name, both in ports.items() for kind in both for port in kind]
    edges = _without_ports(edges, in_order)
    for port in in_order:
        del nodes[port]
    doubled = [edge for edge, times in Counter(edges).items() if times > 1]
    if doubled:
        a, b = doubled[0]
        raise UnsupportedNodeError(
            f"edge {a} → {b}: it exists twice once nested graphs are flattened, which NIR cannot represent; put a "
            "Scale of ones into one of the two"
        )
    return nir.NIRGraph(nodes, edges, metadata=dict(graph.metadata), type_check=False)


def _end(
    graph: nir.NIRGraph,
    nodes: dict[str, nir.NIRNode],
    ports: dict[str, tuple[list[str], list[str]]],
    named: set[str],
    name: str,
    *,
    leaving: bool,
) -> str:
    """Return the node that an end of an outer edge means: itself, or a nested graph's port; `named` has all ports."""
    if name in nodes and name in graph.nodes:
        return name
    kind = "Output" if leaving else "Input"
    if name in ports:
        inner = ports[name][leaving]
        if len(inner) != 1:
            raise UnsupportedNodeError(
                f"node {name}: the nested graph has {len(inner)} {kind} nodes ({', '.join(inner)}), and an edge "
                f'does not say which; write "{name}.PORT" into the edge'
            )
        return f"{name}.{inner[0]}"
    if name in named:
        return name
    raise UnsupportedNodeError(
        f"edge {'from' if leaving else 'to'} {name}: the graph has no such node, nor a nested {kind} of that name; "
        "correct the edge"
    )


def _without_ports(edges: Edges, ports: list[str]) -> Edges:
    """Join each edge into a port with each edge out of it, port by port."""
    kept: dict[int, tuple[str, str]] = dict(enumerate(edges))
    before: dict[str, list[int]] = {port: [] for port in ports}
    after: dict[str, list[int]] = {port: [] for port in ports}

    def index(number: int, edge: tuple[str, str]) -> None:
        for end, numbers in zip(edge, (after, before), strict=True):
            if end in numbers:
                numbers[end].append(number)

    for number, edge in kept.items():
        index(number, edge)
    free = len(edges)  # the next edge's number
    for port in ports:
        entering, leaving = ([n for n in numbers[port] if n in kept] for numbers in (before, after))
        joined = [(kept[a][0], kept[b][1]) for a in entering for b in leaving]
        for n in (*entering, *leaving):
            kept.pop(n, None)
        for edge in joined:
            kept[free] = edge
            index(free, edge)
            free += 1
    return list(kept.values())
