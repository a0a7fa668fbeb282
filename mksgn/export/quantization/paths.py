"""Find the linear paths into each population and rewrite the graph: each path gets one weighted node of its own.

Loihi's synapses hold one integer weight each, in units of their target population. `canonicalize_paths`
therefore turns average pools into sum pools, moves scalar scales into weights, merges weighted nodes in series,
inserts synapses of weight 1 where a path has none, and copies nodes that several paths share.
"""

import copy
from collections import Counter
from dataclasses import dataclass, replace

import nir
import numpy as np
import torch

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import GRADED, LINEAR, SPIKING, WEIGHTED
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.graph.order import evaluation_order
from mksgn.export.graph.paths import LinearPaths, source_shape
from mksgn.export.graph.weights import bias_of, merged, scaled
from mksgn.export.reference.nodes import linear

TARGETS = (*SPIKING, *GRADED, nir.Output)

Chain = list[tuple[str, nir.NIRNode]]  # names and nodes, in the order of the signal
Factors = list[tuple[int, float]]  # scalar factors on a chain, each with the number of nodes before it


@dataclass(frozen=True)
class WeightedPath:
    """A linear path with one weighted node between weightless ones (pooling, flattening, delays).

    Attributes:
        source: The population, attention node or input that the path starts from.
        before: Weightless nodes before the weighted one, in the order of the signal.
        weighted: The weighted node.
        after: Weightless nodes after it.
        late: 1 if the path closes a loop, so that the source's spikes arrive one time step later.
    """

    source: str
    before: tuple[str, ...]
    weighted: str
    after: tuple[str, ...]
    late: int = 0


@dataclass(frozen=True)
class _Path:
    """A linear path with its nodes, which rewriting replaces."""

    source: str
    chain: Chain
    target: str

    def first_weighted(self) -> int:
        """Return the index of the first weighted node, or the length of the chain."""
        return next((i for i, (_, node) in enumerate(self.chain) if isinstance(node, WEIGHTED)), len(self.chain))


def linear_paths(graph: nir.NIRGraph) -> LinearPaths:
    """Make the walk along all linear paths of a flat graph, once for many targets."""
    return LinearPaths(graph, graph.edges, evaluation_order(graph))


def weighted_paths(graph: nir.NIRGraph, target: str, walk: LinearPaths | None = None) -> list[WeightedPath]:
    """Find the paths into `target` of a graph from `canonicalize_paths`; none if it outputs spikes without weights.

    `walk` is the one along the graph's paths, if it has been made already.
    """
    paths = []
    for path in (walk or linear_paths(graph)).into(target):
        weighted = [i for i, name in enumerate(path.nodes) if isinstance(graph.nodes[name], WEIGHTED)]
        if not weighted:
            return []
        at = weighted[0]
        paths.append(WeightedPath(path.source, path.nodes[:at], path.nodes[at], path.nodes[at + 1 :], path.delay))
    return paths


def canonicalize_paths(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Rewrite a flat graph so that each path has one weighted node, which no other path shares.

    Returns `graph` itself if that is so already.

    Raises:
        UnsupportedNodeError: Weighted nodes in series that do not merge, a source whose output is not
            spikes, idle nodes, or more paths than PATHS_LIMIT.
    """
    walk, paths, kept = linear_paths(graph), [], set()
    for target, node in sorted(graph.nodes.items()):
        if isinstance(node, TARGETS):
            into = [_Path(p.source, [(n, graph.nodes[n]) for n in p.nodes], target) for p in walk.into(target)]
            _check_graded(graph, target, into)
            paths += into
        elif isinstance(node, nir.Threshold | SpikingSelfAttention):
            kept |= {name for path in walk.into(target) for name in path.nodes}
    uses = Counter(name for path in paths for name, _ in path.chain) + Counter(kept)
    idle = sorted(name for name, node in graph.nodes.items() if isinstance(node, LINEAR) and name not in uses)
    if idle:
        raise UnsupportedNodeError(f"node {', '.join(idle)}: leads to no population and no output; leave it out")
    counted: dict[tuple[str, int], int] = {}
    weighing = {path.target for path in paths if not _needs_no_weights(path)}
    plain = set(graph.outputs) - weighing
    rewritten = []
    for path in paths:
        own = _bias_once(path, counted)
        rewritten.append(own if path.target in plain else replace(own, chain=_one_weighted_node(graph, own)))
    same = all(new.chain == old.chain for new, old in zip(rewritten, paths, strict=True))
    shared = any(uses[name] > 1 for path in rewritten for name, _ in path.chain[path.first_weighted() :])
    return graph if same and not shared else _with_own_nodes(graph, rewritten, uses, kept)


def _check_graded(graph: nir.NIRGraph, target: str, paths: list[_Path]) -> None:
    """Check that a membrane potential leads only to an Output, and directly."""
    direct = isinstance(graph.nodes[target], nir.Output) and len(paths) == 1 and not paths[0].chain
    graded = [path.source for path in paths if isinstance(graph.nodes[path.source], GRADED)]
    if graded and not direct:
        kind = type(graph.nodes[graded[0]]).__name__
        raise UnsupportedNodeError(
            f"node {graded[0]}: {kind} outputs its membrane, and Loihi's synapses (here into {target}) take "
            "spikes; let it lead to an Output alone, or give it a threshold"
        )


def _needs_no_weights(path: _Path) -> bool:
    """Return whether an Output takes the spikes of this path, at most pooled, flattened or delayed."""
    return all(isinstance(node, nir.SumPool2d | nir.Flatten | nir.Delay) for _, node in path.chain)


def _bias_once(path: _Path, counted: dict[tuple[str, int], int]) -> _Path:
    """Where paths join at a node, give its bias to the first of them only.

    `counted` numbers the routes from a node to a target seen so far, by the node's name and the rest of the route.
    """
    chain: Chain = []
    onward = counted.setdefault((path.target, -1), len(counted))
    for name, node in reversed(path.chain):
        again = (name, onward) in counted
        onward = counted.setdefault((name, onward), len(counted))
        biased = again and isinstance(node, WEIGHTED) and np.any(bias_of(node))
        chain.append((name, scaled(node, 1.0, 0.0) if biased else node))
    return replace(path, chain=chain[::-1])


def _one_weighted_node(graph: nir.NIRGraph, path: _Path) -> Chain:
    """Return the path's chain with one weighted node, and sums in place of averages."""
    chain, scales = _without_scalar_scales(path.chain)
    chain, areas = _with_sum_pools(chain)
    chain = _with_weights(graph, path, chain)
    chain = _with_factors(chain, sorted(scales + areas, key=lambda factor: factor[0]))
    return _in_one_node(chain)


def _without_scalar_scales(chain: Chain) -> tuple[Chain, Factors]:
    """Remove Scales by one number, which commute with any node, unless one is the only weighted node."""
    if sum(isinstance(node, WEIGHTED) for _, node in chain) < 2:
        return chain, []
    rest: Chain = []
    factors: Factors = []
    for name, node in chain:
        if isinstance(node, nir.Scale) and np.ptp(node.scale) == 0:
            factors.append((len(rest), float(node.scale.flat[0])))
        else:
            rest.append((name, node))
    return rest, factors


def _with_sum_pools(chain: Chain) -> tuple[Chain, Factors]:
    """Replace average pools with sum pools and factors of 1 / area."""
    rest: Chain = []
    factors: Factors = []
    for i, (name, node) in enumerate(chain):
        if isinstance(node, nir.AvgPool2d):
            factors.append((i, 1 / float(np.prod(np.broadcast_to(node.kernel_size, 2)))))
            pool = nir.SumPool2d(node.kernel_size, node.stride, node.padding)
            pool.input_type, pool.output_type, pool.metadata = node.input_type, node.output_type, node.metadata
            node = pool
        rest.append((name, node))
    return rest, factors


def _with_weights(graph: nir.NIRGraph, path: _Path, chain: Chain) -> Chain:
    """Append a Scale of ones, "source_target_synapse", to a chain without weights."""
    if any(isinstance(node, WEIGHTED) for _, node in chain):
        return chain
    name = f"{path.source}_{path.target}_synapse"
    while name in graph.nodes:
        name += "_"
    ones = np.ones(shape_after(graph, path.source, chain), dtype=np.float32)
    return [*chain, (name, nir.Scale(ones))]


def _with_factors(chain: Chain, factors: Factors) -> Chain:
    """Multiply the factors into the first weighted node: all scale its weights, those after it also its bias."""
    if not factors:
        return chain
    at = next(i for i, (_, node) in enumerate(chain) if isinstance(node, WEIGHTED))
    weight = float(np.prod([factor for _, factor in factors]))
    bias = float(np.prod([factor for i, factor in factors if i > at]))
    return [(name, scaled(node, weight, bias) if i == at else node) for i, (name, node) in enumerate(chain)]


def _in_one_node(chain: Chain) -> Chain:
    """Merge weighted nodes in series, named after the last that is not a Scale. Raises UnsupportedNodeError."""
    merged_chain: Chain = []
    for name, node in chain:
        last, before = merged_chain[-1] if merged_chain else ("", None)
        if isinstance(node, WEIGHTED) and isinstance(before, WEIGHTED):
            one = merged(before, node)
            if one is None:
                raise _in_series(last, name)
            scale = isinstance(node, nir.Scale)
            one.metadata = (before if scale else node).metadata
            merged_chain[-1] = (last if scale else name, one)
        else:
            merged_chain.append((name, node))
    weighted = [name for name, node in merged_chain if isinstance(node, WEIGHTED)]
    if len(weighted) > 1:
        raise _in_series(weighted[0], weighted[1])
    return merged_chain


def _in_series(first: str, second: str) -> UnsupportedNodeError:
    return UnsupportedNodeError(
        f"nodes {first} and {second}: two weighted nodes in series have no integer form; merge them into one, or put a "
        "population between them"
    )


@torch.no_grad()
def shape_after(graph: nir.NIRGraph, source: str, chain: Chain) -> tuple[int, ...]:
    """Return the shape of a source's signal after a chain of linear nodes."""
    x = torch.zeros(1, *source_shape(graph, source))
    for name, node in chain:
        x = x if isinstance(node, nir.Delay) else linear(node, name, x)
    return tuple(x.shape[1:])


def _with_own_nodes(graph: nir.NIRGraph, paths: list[_Path], uses: Counter[str], kept: set[str]) -> nir.NIRGraph:
    """Rebuild the graph from its paths; a node that several of them use is copied for each as "node_target".

    Nodes before the first weighted one stay shared: they hold no numbers in the target's unit. Those
    in `kept` lead to the host's nodes, or to attention, and stay as they are.
    """
    nodes = {name: node for name, node in graph.nodes.items() if name in kept or not isinstance(node, LINEAR)}
    edges = [(a, b) for a, b in graph.edges if a in nodes and b in nodes and not isinstance(graph.nodes[b], TARGETS)]
    taken = set(graph.nodes)
    for path in paths:
        last, first = path.source, path.first_weighted()
        for i, (name, node) in enumerate(path.chain):
            own = name
            if i >= first and (uses[name] > 1 or name not in graph.nodes):
                own = f"{name}_{path.target}" if name in graph.nodes else name
                number = 2
                while own in taken:
                    own, number = f"{name}_{path.target}_{number}", number + 1
                taken.add(own)
                node = copy.copy(node)
            if own in kept and isinstance(node, nir.SumPool2d) and node is not graph.nodes[own]:
                own = f"{own}_sum"  # the host's nodes still need the average
            nodes[own] = node
            edges.append((last, own))
            last = own
        edges.append((last, path.target))
    return nir.NIRGraph(nodes, list(dict.fromkeys(edges)), metadata=dict(graph.metadata), type_check=False)


def pooled(graph: nir.NIRGraph, weightless: tuple[str, ...]) -> int:
    """Return how many values the pooling nodes among these add up into one."""
    kernels = [graph.nodes[n].kernel_size for n in weightless if isinstance(graph.nodes[n], nir.SumPool2d)]
    return int(np.prod([np.prod(np.broadcast_to(kernel, 2)) for kernel in kernels]))
