"""The order in which the nodes of a flat NIR graph are evaluated within one time step."""

from collections.abc import Iterable
from contextlib import suppress

import networkx
import nir

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import GRADED, SPIKING
from mksgn.export.graph.nodes import SpikingSelfAttention

NEURONS = (*SPIKING, *GRADED, SpikingSelfAttention)  # a loop may be opened at these, as at a Delay


def sources_of(graph: nir.NIRGraph) -> dict[str, list[str]]:
    """List the sources of each node, in the order of the graph's edges.

    Raises:
        UnsupportedNodeError: An edge names a node that does not exist.
    """
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        for end in (source, target):
            if end not in sources:
                raise UnsupportedNodeError(f"edge {source} → {target}: the graph has no node {end}; correct the edge")
        sources[target].append(source)
    return sources


def evaluation_order(graph: nir.NIRGraph) -> list[str]:
    """Order the nodes such that each follows its sources, independently of the order in the file.

    Nodes whose sources have all been evaluated come next, sorted by name. If only loops are left,
    one node is evaluated early, with what it has so far: the first neuron by name that has an
    evaluated source, or else the first neuron or Delay. The edges into it from later nodes carry
    the value of the previous time step.

    Raises:
        UnsupportedNodeError: A loop contains neither a neuron nor a Delay.
    """
    sources = sources_of(graph)
    waiting = {name: set(names) for name, names in sorted(sources.items())}
    order: list[str] = []
    while waiting:
        ready = [name for name, missing in waiting.items() if not missing]
        if not ready:
            openable = [n for n in waiting if isinstance(graph.nodes[n], (*NEURONS, nir.Delay))]
            neurons = [n for n in openable if isinstance(graph.nodes[n], NEURONS)]
            reached = [n for n in neurons if len(waiting[n]) < len(set(sources[n]))]
            ready = (reached or openable)[:1]
        if not ready:
            raise UnsupportedNodeError(
                f"nodes {', '.join(_loop(graph, waiting))}: a loop without a neuron or Delay has no order of "
                "evaluation; put one into it"
            )
        order += ready
        for name in ready:
            del waiting[name]
        for missing in waiting.values():
            missing.difference_update(ready)
    return order


def feed_forward_order(graph: nir.NIRGraph) -> list[str]:
    """Return the `evaluation_order` of a graph without recurrent loops.

    Raises:
        UnsupportedNodeError: The graph has a loop; the message lists the nodes of one.
    """
    loop = _loop(graph, graph.nodes)
    if loop:
        kinds = ", ".join(f"{name} ({type(graph.nodes[name]).__name__})" for name in loop)
        raise UnsupportedNodeError(f"nodes {kinds}: a recurrent loop cannot be run here; unroll it or cut it")
    return evaluation_order(graph)


def _loop(graph: nir.NIRGraph, names: Iterable[str]) -> list[str]:
    """Return the nodes of one loop among `names`, in the direction of the signal from its first by name, or none."""
    with suppress(networkx.NetworkXNoCycle):
        edges = networkx.DiGraph(sorted(graph.edges)).subgraph(names)
        loop = [source for source, _ in networkx.find_cycle(edges, source=sorted(edges))]
        first = loop.index(min(loop))
        return loop[first:] + loop[:first]
    return []
