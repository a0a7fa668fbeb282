"""The order of evaluation as its rule says it, with all loops found anew at each opening: slow, and plain."""

import networkx
import nir

from mksgn.export.graph.kinds import LINEAR
from mksgn.export.graph.order import MEMORYLESS, NEURONS, sources_of


def evaluation_order(graph: nir.NIRGraph) -> list[str] | None:
    """Return the order, or None where a loop has no population."""
    sources = {name: set(names) for name, names in sources_of(graph).items()}
    waiting = {name: set(names) for name, names in sources.items()}
    order: list[str] = []
    while waiting:
        ready = sorted(name for name, missing in waiting.items() if not missing)
        ready = ready or _opening(graph, sources, waiting)
        if not ready:
            return None
        order += ready
        waiting = {name: missing - set(ready) for name, missing in waiting.items() if name not in ready}
    return order


def _opening(graph: nir.NIRGraph, sources: dict[str, set[str]], waiting: dict[str, set[str]]) -> list[str]:
    edges = networkx.DiGraph((source, name) for name, missing in waiting.items() for source in missing)
    loops = networkx.condensation(edges)
    unfed = sorted(n for loop in loops if not loops.in_degree(loop) for n in loops.nodes[loop]["members"])
    neurons = [name for name in unfed if isinstance(graph.nodes[name], NEURONS)]
    reached = [n for n in neurons if any(len(waiting[m]) < len(sources[m]) for m in (n, *_before(graph, waiting, n)))]
    if not neurons:
        return []
    neuron = (reached or neurons)[0]
    read = edges.subgraph(_before(graph, waiting, neuron))
    if not networkx.is_directed_acyclic_graph(read):
        return []
    ordered = networkx.lexicographical_topological_sort(read)
    return [*(name for name in ordered if not isinstance(graph.nodes[name], LINEAR)), neuron]


def _before(graph: nir.NIRGraph, waiting: dict[str, set[str]], name: str) -> set[str]:
    found: set[str] = set()
    new = waiting[name]
    while new:
        found |= (new := {n for n in new if isinstance(graph.nodes[n], MEMORYLESS)} - found)
        new = {source for n in new for source in waiting[n]}
    return found
