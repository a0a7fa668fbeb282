"""A NIR graph on one level: nested graphs dissolved, their nodes named "outer.inner" (a "/" breaks the file, NIR.md)."""

from __future__ import annotations

from collections import Counter

import nir

from mksgn.export.errors import UnsupportedNodeError

Edges = list[tuple[str, str]]


def flatten(graph: nir.NIRGraph) -> nir.NIRGraph:
    """`graph` itself where it is flat already; else a new graph of the same nodes, the outer graph's metadata kept.

    A nested graph's Input and Output vanish, and their edges join. Where it has several, the outer edges name one: "sub.port". Raises
    UnsupportedNodeError for an edge that names none, or nothing that is there, for two nodes of one name, and for an edge that would be
    there twice.
    """
    if not any(isinstance(node, nir.NIRGraph) for node in graph.nodes.values()):
        return graph
    nodes: dict[str, nir.NIRNode] = {}
    edges: Edges = []
    ports: dict[str, tuple[list[str], list[str]]] = {}  # a nested graph's Inputs and Outputs, by their inner names
    for name, node in graph.nodes.items():
        inner = flatten(node) if isinstance(node, nir.NIRGraph) else None
        if inner is None:
            found = {name: node}
        else:
            found = {f"{name}.{n}": part for n, part in inner.nodes.items()}
            edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner.edges]
            ports[name] = (list(inner.inputs), list(inner.outputs))
        twice = sorted(set(nodes) & set(found))
        if twice:
            raise UnsupportedNodeError(
                f"node {twice[0]}: a node of a nested graph gets this name too; rename one of the two"
            )
        nodes |= found
    for source, target in graph.edges:
        edges.append(
            (_end(graph, nodes, ports, source, leaving=True), _end(graph, nodes, ports, target, leaving=False))
        )
    for name, both in ports.items():
        for port in (f"{name}.{p}" for kind in both for p in kind):
            edges = _joined(edges, port)
            del nodes[port]
    doubled = [edge for edge, times in Counter(edges).items() if times > 1]
    if doubled:
        a, b = doubled[0]
        raise UnsupportedNodeError(
            f"edge {a} → {b}: is there twice once nested graphs are dissolved, which NIR cannot say; put a Scale of ones into one"
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
                f"node {name}: the nested graph has {len(inner)} {kind} nodes ({', '.join(inner)}), and an edge names none; write "
                f'"{name}.PORT" into the edge'
            )
        return f"{name}.{inner[0]}"
    if any(name == f"{sub}.{port}" for sub, both in ports.items() for port in both[leaving]):
        return name
    raise UnsupportedNodeError(
        f"edge {'from' if leaving else 'to'} {name}: the graph has no such node, nor a nested {kind} of that name; correct the edge"
    )


def _joined(edges: Edges, port: str) -> Edges:
    """Without `port`: each edge into it joined with each edge out of it."""
    before, behind = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
    return [edge for edge in edges if port not in edge] + [(a, b) for a in before for b in behind]
