"""The order in which the nodes of a flat NIR graph are evaluated within one time step.

A loop is cut at the spikes of a neuron: a neuron that is evaluated no later than one whose spikes it
reads gets those of the step before. Linear nodes take no time, wherever they are in a loop, so that
their biases, and other signals that join there, arrive in the same step.
"""

from collections.abc import Iterable
from contextlib import suppress

import networkx
import nir

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import GRADED, LINEAR, SPIKING
from mksgn.export.graph.nodes import SpikingSelfAttention

NEURONS = (*SPIKING, *GRADED, SpikingSelfAttention)  # a loop may be opened at these
MEMORYLESS = (*LINEAR, nir.Threshold)  # and not at these; a Delay belongs to the path on which it lies


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
    one that no other feeds is opened at a neuron: the first by name that something evaluated reaches
    through linear nodes, or else the first. A Threshold between it and the loop's other neurons
    comes before it. Of the neurons that come later, it reads the spikes of the step before.

    Raises:
        UnsupportedNodeError: A loop without a neuron.
    """
    sources = sources_of(graph)
    waiting = {name: set(names) for name, names in sorted(sources.items())}
    targets: dict[str, list[str]] = {name: [] for name in sources}
    for name, missing in waiting.items():
        for source in missing:
            targets[source].append(name)
    ready, order = [name for name, missing in waiting.items() if not missing], []
    while waiting:
        ready = ready or _opening(graph, sources, waiting)
        order += ready
        for name in ready:
            del waiting[name]
        freed = []
        for source in ready:
            for name in targets[source]:
                if name in waiting:
                    waiting[name].remove(source)
                    if not waiting[name]:
                        freed.append(name)
        ready = sorted(freed)
    return order


def _opening(graph: nir.NIRGraph, sources: dict[str, list[str]], waiting: dict[str, set[str]]) -> list[str]:
    """The nodes at which the first loop is opened: a neuron, after the Thresholds that it reads."""
    edges = networkx.DiGraph((source, name) for name, missing in waiting.items() for source in missing)
    loops = networkx.condensation(edges)
    first = sorted(n for loop in loops if not loops.in_degree(loop) for n in loops.nodes[loop]["members"])
    neurons = [name for name in first if isinstance(graph.nodes[name], NEURONS)]
    if not neurons:
        raise UnsupportedNodeError(
            f"nodes {', '.join(_loop(graph, first))}: a loop without a population in it; put one there"
        )
    ahead = {name: _memoryless_before(graph, waiting, name) for name in neurons}
    reached = [n for n in neurons if any(len(waiting[m]) < len(set(sources[m])) for m in (n, *ahead[n]))]
    neuron = (reached or neurons)[0]
    read = edges.subgraph(ahead[neuron])
    if not networkx.is_directed_acyclic_graph(read):
        loop = ", ".join(_loop(graph, ahead[neuron]))
        raise UnsupportedNodeError(f"nodes {loop}: a loop without a population in it; put one there")
    ordered = networkx.lexicographical_topological_sort(read)
    return [*(name for name in ordered if not isinstance(graph.nodes[name], LINEAR)), neuron]


def _memoryless_before(graph: nir.NIRGraph, waiting: dict[str, set[str]], name: str) -> set[str]:
    """The waiting nodes without memory through which signals reach a node within the step."""
    found: set[str] = set()
    new = waiting[name]
    while new:
        found |= (new := {n for n in new if isinstance(graph.nodes[n], MEMORYLESS)} - found)
        new = {source for n in new for source in waiting[n]}
    return found


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
