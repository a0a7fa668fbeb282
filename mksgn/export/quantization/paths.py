"""The ways into each population and Output, and a graph rewritten so that each way has one weighted node, which is its own.

A way leads from a population, attention or an input through linear nodes and delays. Where two join at a linear node, that node is
copied for each; a node that several targets need is copied per target, "node_target", so that each gets integers of its target's unit.
AvgPool2d becomes SumPool2d, its 1/area going into the weights; a way without weights gets a Scale of ones, "source_target_synapse".
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import nir
import numpy as np
import torch

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import GRADED, SPIKING
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.graph.order import evaluation_order
from mksgn.export.graph.weights import WEIGHTED, bias_of, merged, scaled
from mksgn.export.reference.nodes import linear

WEIGHTLESS = (nir.SumPool2d, nir.AvgPool2d, nir.Flatten, nir.Delay)
TARGETS = (*SPIKING, *GRADED, nir.Output)
SPIKE_SOURCES = (nir.Input, *SPIKING, SpikingSelfAttention, nir.Threshold)

Chain = list[tuple[str, nir.NIRNode]]  # names and nodes, in the signal's order


@dataclass(frozen=True)
class Branch:
    """One way into a population: `source` (a population, attention or an input), and on the way one weighted node between
    weightless ones (pooling, flattening, delays), in the order that the signal takes. `lag`: edges on it that close a loop, and so show
    the step before."""

    source: str
    before: tuple[str, ...]
    weighted: str
    behind: tuple[str, ...]
    lag: int = 0


@dataclass
class _Way:
    source: str
    chain: Chain
    target: str


def branches(graph: nir.NIRGraph, target: str) -> list[Branch]:
    """The ways into `target` of a graph that `canonicalize_paths` gave; none where what it shows has no weights."""
    place = {name: i for i, name in enumerate(evaluation_order(graph))}
    found = []
    for source, names in _paths(graph, target):
        at = [i for i, name in enumerate(names) if isinstance(graph.nodes[name], WEIGHTED)]
        if not at:
            return []
        hops = [source, *names, target]
        lag = sum(place[a] >= place[b] for a, b in pairwise(hops))
        found.append(Branch(source, tuple(names[: at[0]]), names[at[0]], tuple(names[at[0] + 1 :]), lag))
    return found


def canonicalize_paths(graph: nir.NIRGraph) -> nir.NIRGraph:
    """`graph` itself, a flat one, where every way is so already. Raises UnsupportedNodeError: node, reason, remedy."""
    ways, kept, changed = [], set(), False
    for target in sorted(graph.nodes):
        node = graph.nodes[target]
        if isinstance(node, TARGETS):
            found = [
                _Way(source, [(n, graph.nodes[n]) for n in names], target) for source, names in _paths(graph, target)
            ]
            _check(graph, target, found)
            ways += found
        elif isinstance(node, nir.Threshold | SpikingSelfAttention):
            kept |= {n for _, names in _paths(graph, target) for n in names}
    times = Counter(name for way in ways for name, _ in way.chain) + Counter(kept)
    lost = sorted(n for n, node in graph.nodes.items() if isinstance(node, WEIGHTED + WEIGHTLESS) and n not in times)
    if lost:
        raise UnsupportedNodeError(f"node {', '.join(lost)}: leads to no population and no output; leave it out")
    counted: set[tuple[str, ...]] = set()
    rewritten = []
    for way in ways:
        chain = _integer_chain(graph, _bias_once(way, counted), plain=_shows_plain(graph, way.target, ways))
        changed |= [name for name, _ in chain] != [name for name, _ in way.chain]
        changed |= any(a is not b for (_, a), (_, b) in zip(chain, way.chain))  # noqa: B905  of one length, or changed
        at = next((i for i, (_, node) in enumerate(chain) if isinstance(node, WEIGHTED)), len(chain))
        changed |= any(times[name] > 1 for name, _ in chain[at:])
        rewritten.append((way, chain, at))
    return _rebuilt(graph, rewritten, times, kept) if changed else graph


def _paths(graph: nir.NIRGraph, target: str) -> list[tuple[str, list[str]]]:
    """Each source that leads to `target`, and the linear nodes on the way, in the signal's order; ordered by the last one's name."""
    found = []
    for name in sorted(a for a, b in graph.edges if b == target):
        node = graph.nodes[name]
        if isinstance(node, WEIGHTED + WEIGHTLESS):
            before = _paths(graph, name)
            if not before:
                raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")
            found += [(source, [*names, name]) for source, names in before]
        elif isinstance(node, SPIKE_SOURCES + GRADED):
            found.append((name, []))
        else:
            raise UnsupportedNodeError(
                f"node {name}: {type(node).__name__} before {target} cannot be quantised; leave it out"
            )
    return found


def sources_of(graph: nir.NIRGraph, target: str) -> set[str]:
    """The populations, attentions and inputs that lead to `target` through linear nodes."""
    return {source for source, _ in _paths(graph, target)}


def _check(graph: nir.NIRGraph, target: str, ways: list[_Way]) -> None:
    output = isinstance(graph.nodes[target], nir.Output)
    if not ways and output:
        raise UnsupportedNodeError(f"output {target}: no edge leads into it; connect it, or leave it out")
    for way in ways:
        if isinstance(graph.nodes[way.source], GRADED) and not (output and len(ways) == 1 and not way.chain):
            kind = type(graph.nodes[way.source]).__name__
            raise UnsupportedNodeError(
                f"node {way.source}: {kind} shows its membrane, and Loihi's synapses (here into {target}) take spikes; let it lead to "
                "an Output alone, or give it a threshold"
            )


def _shows_plain(graph: nir.NIRGraph, target: str, ways: list[_Way]) -> bool:
    """Whether an Output shows spikes, pooled or flattened at most, and needs no weights."""
    plain = (nir.SumPool2d, nir.Flatten, nir.Delay)
    into = [way for way in ways if way.target == target]
    return isinstance(graph.nodes[target], nir.Output) and all(
        isinstance(n, plain) for way in into for _, n in way.chain
    )


def _bias_once(way: _Way, counted: set[tuple[str, ...]]) -> _Way:
    """Where ways join at a node, its bias belongs to the first of them alone."""
    chain: Chain = []
    for i, (name, node) in enumerate(way.chain):
        onward = (*(n for n, _ in way.chain[i:]), way.target)
        again, biased = onward in counted, np.any(bias_of(node)) and isinstance(node, WEIGHTED)
        counted.add(onward)
        chain.append((name, scaled(node, 1.0, 0.0) if again and biased else node))
    return _Way(way.source, chain, way.target)


def _integer_chain(graph: nir.NIRGraph, way: _Way, *, plain: bool) -> Chain:
    """The same with at most one weighted node, and sums for averages."""
    if plain:
        return way.chain
    chain: Chain = []
    factors: list[tuple[int, float]] = []  # how many nodes of `chain` lie before each, and the factor
    several = sum(isinstance(node, WEIGHTED) for _, node in way.chain) > 1
    for name, node in way.chain:
        if isinstance(node, nir.AvgPool2d):
            factors.append((len(chain), 1 / float(np.prod(np.broadcast_to(node.kernel_size, 2)))))
            pool = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
            pool.input_type, pool.output_type, pool.metadata = node.input_type, node.output_type, node.metadata
            chain.append((name, pool))
        elif several and isinstance(node, nir.Scale) and np.ptp(node.scale) == 0:  # passes through any node
            factors.append((len(chain), float(node.scale.flat[0])))
        else:
            chain.append((name, node))
    if not any(isinstance(node, WEIGHTED) for _, node in chain):
        name = f"{way.source}_{way.target}_synapse"
        while name in graph.nodes:
            name += "_"
        ones = np.ones(_shape_behind(graph, way.source, chain), dtype=np.float32)
        chain.append((name, nir.Scale(ones)))
    at = next(i for i, (_, node) in enumerate(chain) if isinstance(node, WEIGHTED))
    behind = float(np.prod([f for i, f in factors if i > at]))
    name, node = chain[at]
    if factors:
        node = scaled(node, float(np.prod([f for _, f in factors])), behind)
    while at + 1 < len(chain) and isinstance(chain[at + 1][1], WEIGHTED):
        after, other = chain.pop(at + 1)
        one = merged(node, other)
        if one is None:
            raise _series(name, after)
        one.metadata = (node if isinstance(other, nir.Scale) else other).metadata
        name, node = (name if isinstance(other, nir.Scale) else after), one
    for after, other in chain[at + 1 :]:
        if isinstance(other, WEIGHTED):
            raise _series(name, after)
    chain[at] = name, node
    return chain


def _series(first: str, second: str) -> UnsupportedNodeError:
    return UnsupportedNodeError(
        f"nodes {first} and {second}: two weighted nodes in series have no integer form; merge them into one, or put a "
        "population between them"
    )


def shape_of(graph: nir.NIRGraph, name: str) -> tuple[int, ...]:
    """What a population, attention or an input shows."""
    node = graph.nodes[name]
    if isinstance(node, nir.Input):
        return tuple(int(n) for n in node.input_type["input"])
    if isinstance(node, SpikingSelfAttention):
        stacked, *rest = shape_of(graph, next(a for a, b in graph.edges if b == name))
        return (stacked // 3, *rest)
    return np.shape(node.threshold if isinstance(node, nir.Threshold) else node.r)


@torch.no_grad()
def _shape_behind(graph: nir.NIRGraph, source: str, chain: Chain) -> tuple[int, ...]:
    x = torch.zeros(1, *shape_of(graph, source))
    for name, node in chain:
        x = x if isinstance(node, nir.Delay) else linear(node, name, x)
    return tuple(x.shape[1:])


def _rebuilt(
    graph: nir.NIRGraph, ways: list[tuple[_Way, Chain, int]], times: Counter[str], kept: set[str]
) -> nir.NIRGraph:
    nodes = {n: node for n, node in graph.nodes.items() if n in kept or not isinstance(node, WEIGHTED + WEIGHTLESS)}
    edges = [(a, b) for a, b in graph.edges if a in nodes and b in nodes and not isinstance(graph.nodes[b], TARGETS)]
    taken = set(graph.nodes)
    for way, chain, at in ways:
        last = way.source
        for i, (name, node) in enumerate(chain):
            own = name
            if i >= at and (times[name] > 1 or name not in graph.nodes):
                own = f"{name}_{way.target}" if name in graph.nodes else name
                number = 2
                while own in taken:
                    own, number = f"{name}_{way.target}_{number}", number + 1
                taken.add(own)
                node = copy.copy(node)
            if own in kept and isinstance(node, nir.SumPool2d) and node is not graph.nodes[own]:
                own = f"{own}_sum"  # an average that a host's node still needs
            nodes[own] = node
            edges.append((last, own))
            last = own
        edges.append((last, way.target))
    return nir.NIRGraph(nodes, list(dict.fromkeys(edges)), metadata=dict(graph.metadata), type_check=False)


def pooled(graph: nir.NIRGraph, weightless: tuple[str, ...]) -> int:
    """How many values the pooling nodes among these add up into one."""
    kernels = [graph.nodes[n].kernel_size for n in weightless if isinstance(graph.nodes[n], nir.SumPool2d)]
    return int(np.prod([np.prod(np.broadcast_to(kernel, 2)) for kernel in kernels]))
