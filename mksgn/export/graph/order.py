"""The order in which the nodes of a flat NIR graph are evaluated within one time step.

A loop is cut at the spikes of a neuron: a neuron that reads the spikes of one evaluated no earlier than
itself gets those of the previous step. Linear nodes take no time, wherever they are in a loop, so their
biases, and other signals that join there, arrive in the same step.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress

import networkx
import nir

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import GRADED, LINEAR, SPIKING
from mksgn.export.graph.loops import Edges, Key, Loops
from mksgn.export.graph.nodes import SpikingSelfAttention

NEURONS = (*SPIKING, *GRADED, SpikingSelfAttention)  # a loop may be opened at these
MEMORYLESS = (*LINEAR, nir.Threshold)  # but not at these; a Delay belongs to the path on which it lies


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
    """Order the nodes so that each follows its sources, independently of the order in the file.

    Nodes whose sources have all been evaluated come next, sorted by name. If only loops are left, a loop
    that no other feeds is opened at a neuron: the first by name that evaluated nodes reach through nodes
    without memory, or else the first by name. A Threshold between this neuron and the loop's other neurons comes
    before it. From neurons that come later, it reads the spikes of the previous step.

    Raises:
        UnsupportedNodeError: A loop without a neuron.
    """
    sources = {name: set(names) for name, names in sorted(sources_of(graph).items())}
    targets: dict[str, list[str]] = {name: [] for name in sources}
    for name, needed in sources.items():
        for source in needed:
            targets[source].append(name)
    waiting = {name: set(needed) for name, needed in sources.items()}
    ready, order = [name for name, missing in waiting.items() if not missing], []
    openings: _Openings | None = None  # most graphs have no loop
    while waiting:
        if not ready:
            openings = openings or _Openings(graph, sources, targets, waiting)
            ready = openings.next()
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
        if openings:
            openings.leave(ready)
        ready = sorted(freed)
    return order


class _Openings:
    """The nodes at which loops are opened, found as waiting nodes are evaluated, in the time of a few passes."""

    def __init__(self, graph: nir.NIRGraph, sources: Edges, targets: Edges, waiting: Mapping[str, set[str]]) -> None:
        self._nodes, self._graph, self._targets, self._waiting = graph.nodes, graph, targets, waiting
        self._reached: set[str] = set()
        self._clean: set[str] = set()  # memoryless nodes before which no Threshold waits
        self._left: list[str] = []
        partly = [name for name, missing in waiting.items() if len(missing) < len(sources[name])]
        self._reach(partly)
        self._loops = Loops(waiting, sources, targets, self._key)

    def _key(self, name: str) -> Key | None:
        return (name not in self._reached, name) if isinstance(self._nodes[name], NEURONS) else None

    def _reach(self, names: Iterable[str]) -> list[str]:
        """Mark nodes, and those that they lead to through nodes without memory; return the newly marked ones."""
        new = [name for name in dict.fromkeys(names) if name not in self._reached]
        self._reached.update(new)
        for name in new:  # grows
            if isinstance(self._nodes[name], MEMORYLESS):
                more = [n for n in self._targets[name] if n in self._waiting and n not in self._reached]
                self._reached.update(more)
                new += more
        return new

    def leave(self, names: list[str]) -> None:
        """Note which nodes have been evaluated."""
        self._left += names

    def next(self) -> list[str]:
        """Return the nodes at which the next loop is opened: a neuron, after the Thresholds that it reads.

        Raises:
            UnsupportedNodeError: A loop without a neuron.
        """
        left, self._left = self._left, []
        reached = self._reach(n for name in left for n in self._targets[name] if n in self._waiting)
        self._loops.leave(left)  # after marking what is reached, to find roots far from it
        for name in reached:
            self._loops.lower(name)
        neuron = self._loops.first()
        if neuron is None:
            raise self._unopened(self._loops.unfed())
        return [*self._thresholds(neuron), neuron]

    def _thresholds(self, neuron: str) -> list[str]:
        """Return the Thresholds that a neuron reads within the step, each after those that it reads itself."""
        new = self._memoryless_before(neuron, self._clean)
        self._clean |= new  # the Thresholds among them are evaluated now
        if all(isinstance(self._nodes[name], LINEAR) for name in new) and networkx.is_directed_acyclic_graph(
            self._edges(new)
        ):
            return []
        ahead = self._memoryless_before(neuron, set())
        read = self._edges(ahead)
        if not networkx.is_directed_acyclic_graph(read):
            raise self._unopened(ahead)
        ordered = networkx.lexicographical_topological_sort(read)
        return [name for name in ordered if not isinstance(self._nodes[name], LINEAR)]

    def _memoryless_before(self, name: str, without: set[str]) -> set[str]:
        """Return the waiting nodes without memory through which signals reach a node within the step."""
        found: set[str] = set()
        new = self._waiting[name]
        while new:
            found |= (new := {n for n in new if isinstance(self._nodes[n], MEMORYLESS)} - found - without)
            new = {source for n in new for source in self._waiting[n]}
        return found

    def _edges(self, names: set[str]) -> networkx.DiGraph:
        edges = networkx.DiGraph((source, name) for name in names for source in self._waiting[name] & names)
        edges.add_nodes_from(names)
        return edges

    def _unopened(self, names: Iterable[str]) -> UnsupportedNodeError:
        loop = ", ".join(_loop(self._graph, names))
        return UnsupportedNodeError(f"nodes {loop}: a loop without a population in it; put one there")


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
    """Return the nodes of one loop among `names`, in signal order from the first by name; [] if there is no loop."""
    with suppress(networkx.NetworkXNoCycle):
        edges = networkx.DiGraph(sorted(graph.edges)).subgraph(names)
        loop = [source for source, _ in networkx.find_cycle(edges, source=sorted(edges))]
        first = loop.index(min(loop))
        return loop[first:] + loop[:first]
    return []
