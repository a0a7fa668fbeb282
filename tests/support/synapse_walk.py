"""The synapses of a NIR graph, tap by tap, for the brute-force oracle: NumPy and nir only, nothing of deploy.

A signal has shape (channels, *place). A linear node is a dict of taps, (place in, place out, delay)
-> Block, where a block connects every channel with every channel. Nodes in series are composed tap
by tap, so a linear path between two populations is one projection. It has one synapse for each pair
of neurons (and delay) that any path joins, and the synapse's weight is the sum over these paths. A
weight of zero is a synapse; an adjacency that is zero in every subset is none. Two linear paths
between the same populations are two projections, each with its own synapses.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

import nir
import numpy as np

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from tests.support import euler_oracle

SPIKING = (nir.LIF, nir.IF, nir.CubaLIF, nir.Threshold)
GRADED = (nir.LI, nir.I, nir.CubaLI)
Place = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Connections from every channel to every channel, arrays of shape (to, from).

    `paths` is the int64 number of paths, `nonzero` of those over non-zero weights, `weight` the float64 sum.
    """

    paths: np.ndarray
    nonzero: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, exists: np.ndarray, weight: np.ndarray) -> Block:
        return cls(exists.astype(np.int64), (exists & (weight != 0)).astype(np.int64), weight)

    @property
    def exists(self) -> np.ndarray:
        return self.paths > 0

    def then(self, after: Block) -> Block:
        return Block(after.paths @ self.paths, after.nonzero @ self.nonzero, after.weight @ self.weight)

    def plus(self, other: Block) -> Block:
        return Block(self.paths + other.paths, self.nonzero + other.nonzero, self.weight + other.weight)


Taps = dict[tuple[Place, Place, int], Block]


@dataclass(frozen=True, eq=False)
class Projection:
    """`shift`: number of edges on the path from a node that is evaluated later, each a delay of one step; `nodes` are
    the linear nodes on it, from the target back.
    """

    source: str
    target: str
    taps: Taps
    shift: int
    nodes: tuple[nir.NIRNode, ...] = ()


def diagonal(values: np.ndarray) -> Block:
    values = np.asarray(values, np.float64)
    return Block.of(np.eye(len(values), dtype=bool), np.diag(values))


def pair(values, axes: int) -> Place:
    return tuple(int(n) for n in np.broadcast_to(np.asarray(values), (axes,)))


def places(shape) -> itertools.product:
    return itertools.product(*(range(n) for n in shape[1:]))


def compose(first: Taps, second: Taps) -> Taps:
    from_place = defaultdict(list)
    for (start, end, delay), block in second.items():
        from_place[start].append((end, delay, block))
    products: dict[tuple[int, int], Block] = {}
    taps: Taps = {}
    for (start, middle, early), block in first.items():
        for end, late, after in from_place[middle]:
            pair_of_blocks = (id(block), id(after))
            if pair_of_blocks not in products:
                products[pair_of_blocks] = block.then(after)
            key, product = (start, end, early + late), products[pair_of_blocks]
            taps[key] = taps[key].plus(product) if key in taps else product
    return {key: block for key, block in taps.items() if block.exists.any()}


# --- linear nodes: shape in -> (shape out, taps)


def convolution(node, shape) -> tuple[Place, Taps]:
    weight = np.asarray(node.weight, np.float64)
    outputs, per_group, *kernel = weight.shape
    axes, groups = len(kernel), int(node.groups)
    stride, dilation = pair(node.stride, axes), pair(node.dilation, axes)
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if isinstance(node.padding, str):
        before = [span // 2 if node.padding == "same" else 0 for span in spans]
        total = [span if node.padding == "same" else 0 for span in spans]
    else:
        before = list(pair(node.padding, axes))
        total = [2 * p for p in before]
    after = tuple((n + t - span - 1) // s + 1 for n, t, span, s in zip(shape[1:], total, spans, stride, strict=True))
    group_of_output = np.arange(outputs) // (outputs // groups)
    exists = group_of_output[:, None] == np.arange(shape[0])[None] // per_group
    blocks = {}
    for tap in itertools.product(*(range(k) for k in kernel)):
        full = np.zeros((outputs, shape[0]))
        for o in range(outputs):
            full[o, exists[o]] = weight[(o, slice(None), *tap)]
        blocks[tap] = Block.of(exists, full)
    taps: Taps = {}
    for end in places((outputs, *after)):
        for tap, block in blocks.items():
            start = tuple(e * s - b + k * d for e, s, b, k, d in zip(end, stride, before, tap, dilation, strict=True))
            if all(0 <= i < n for i, n in zip(start, shape[1:], strict=True)):
                taps[start, end, 0] = block
    return (outputs, *after), taps


def graph_convolution(node: GraphConv, shape) -> tuple[Place, Taps]:
    adjacency, weight = np.asarray(node.adjacency, np.float64), np.asarray(node.weight, np.float64)
    everywhere = np.ones(weight.shape[1:], dtype=bool)
    taps: Taps = {}
    for i, j in itertools.product(range(shape[2]), repeat=2):
        if adjacency[:, i, j].any():
            merged = sum(a * w for a, w in zip(adjacency[:, i, j], weight, strict=True))
            block = Block.of(everywhere, merged)
            taps.update({((t, i), (t, j), 0): block for t in range(shape[1])})
    return (weight.shape[1], *shape[1:]), taps


def pooling(node, shape) -> tuple[Place, Taps]:
    kernel, stride, padding = (pair(x, len(shape) - 1) for x in (node.kernel_size, node.stride, node.padding))
    block = diagonal(np.full(shape[0], 1 / np.prod(kernel) if isinstance(node, nir.AvgPool2d) else 1.0))
    after = tuple((n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True))
    taps: Taps = {}
    for end in places((shape[0], *after)):
        for tap in itertools.product(*(range(k) for k in kernel)):
            start = tuple(e * s - p + k for e, s, p, k in zip(end, stride, padding, tap, strict=True))
            if all(0 <= i < n for i, n in zip(start, shape[1:], strict=True)):
                taps[start, end, 0] = block
    return (shape[0], *after), taps


def dense(node, shape) -> tuple[Place, Taps]:
    """A matrix on a vector, on the last of several axes, or a matrix for each index of the other axes."""
    weight = np.asarray(node.weight, np.float64)
    if len(shape) == 1:
        return (len(weight),), {((), (), 0): Block.of(np.ones(weight.shape, dtype=bool), weight)}
    weight = np.broadcast_to(weight, (*shape[:-1], *weight.shape[-2:]))
    taps: Taps = {}
    for lead in places(shape[:-1]):
        for o, i in itertools.product(*(range(n) for n in weight.shape[-2:])):
            taps[(*lead, i), (*lead, o), 0] = diagonal(weight[(slice(None), *lead, o, i)])
    return (*shape[:-1], weight.shape[-2]), taps


def flattened(node: nir.Flatten, shape) -> tuple[Place, Taps]:
    start, end = int(node.start_dim) % len(shape), int(node.end_dim) % len(shape)
    if start == 0:
        size = int(np.prod(shape[1 : end + 1]))
        taps: Taps = {}
        for place in places(shape):
            merged = int(np.ravel_multi_index(place[:end], shape[1 : end + 1])) if end else 0
            select = np.zeros((shape[0] * size, shape[0]), dtype=bool)
            select[np.arange(shape[0]) * size + merged, np.arange(shape[0])] = True
            taps[place, place[end:], 0] = Block.of(select, select.astype(np.float64))
        return (shape[0] * size, *shape[end + 1 :]), taps
    same = diagonal(np.ones(shape[0]))
    merged_shape = (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])
    taps = {}
    for place in places(shape):
        merged = int(np.ravel_multi_index(place[start - 1 : end], shape[start : end + 1]))
        taps[place, (*place[: start - 1], merged, *place[end:]), 0] = same
    return merged_shape, taps


def each_by_itself(values: np.ndarray, shape) -> Taps:
    values = np.broadcast_to(np.asarray(values, np.float64), shape)
    if (values == values.flat[0]).all():
        same = diagonal(np.full(shape[0], values.flat[0]))
        return {(place, place, 0): same for place in places(shape)}
    return {(place, place, 0): diagonal(values[(slice(None), *place)]) for place in places(shape)}


def delaying(steps: np.ndarray, shape) -> Taps:
    steps = np.broadcast_to(steps, shape)
    taps: Taps = {}
    for place in places(shape):
        own = steps[(slice(None), *place)]
        for delay in np.unique(own):
            exists = np.diag(own == delay)
            taps[place, place, int(delay)] = Block.of(exists, exists.astype(np.float64))
    return taps


# --- the graph


class Walk:
    """Populations with their shapes in the order of evaluation, inputs included; projections; biases.

    An Output after linear nodes makes a read-out, named after the last of them. Attention NODE gives
    the populations NODE.m and NODE.z and no projection, since its units are counted separately;
    `attention[NODE]` is its source population.
    """

    def __init__(self, graph: nir.NIRGraph, dt: float):
        self.nodes, self.dt = graph.nodes, dt
        self.sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
        self.order = self._evaluation_order()
        self.populations: dict[str, Place] = {}
        self.projections: list[Projection] = []
        self.bias: dict[str, np.ndarray] = {}
        self.attention: dict[str, str] = {}
        self.readouts: set[str] = set()
        self._seen: dict[str, tuple[Place, Taps]] = {}
        for name in self.order:
            self._enter(name, graph.nodes[name])

    def _enter(self, name: str, node: nir.NIRNode) -> None:
        if isinstance(node, nir.Input):
            self.populations[name] = self.shape(name)
        elif isinstance(node, SpikingSelfAttention):
            (source,) = self.sources[name]
            channels, frames, joints = self.shape(name)
            self.attention[name] = self.sends(source)
            self.populations[f"{name}.m"] = (node.heads, frames, joints, joints)
            self.populations[f"{name}.z"] = (channels, frames, joints)
        elif isinstance(node, SPIKING + GRADED):
            self._listen(name, self.sources[name], name)
        elif isinstance(node, nir.Output) and not all(self._population(s) for s in self.sources[name]):
            only = self.sources[name][0] if len(self.sources[name]) == 1 else name
            if only not in self.populations:  # two outputs may have one read-out
                self.readouts.add(only)
                self._listen(only, self.sources[name], name)

    def _listen(self, population: str, sources: list[str], node: str) -> None:
        shape = self.shape(node)
        self.populations[population], self.bias[population] = shape, np.zeros(shape)
        nothing = each_by_itself(1.0, shape)
        for source in sources:
            self._back(source, nothing, population, node)

    def _back(self, name: str, after: Taps, target: str, reader: str, nodes: tuple[nir.NIRNode, ...] = ()) -> None:
        """Follow node `name`, whose output reaches `target` by `after`, back to its source populations."""
        if self._population(name):
            shift = int(not self._before(name, reader))
            self.projections.append(Projection(self.sends(name), target, after, shift, nodes))
            return
        shape, taps = self.linear(name)
        node = self.nodes[name]
        if hasattr(node, "bias"):
            bias = np.asarray(node.bias, np.float64)
            last = isinstance(node, nir.Affine) and len(shape) > 1
            full = np.broadcast_to(bias if last or bias.ndim > 1 else bias.reshape(-1, *[1] * (len(shape) - 1)), shape)
            for (start, end, _), block in after.items():
                self.bias[target][(slice(None), *end)] += block.weight @ full[(slice(None), *start)]
        through = compose(taps, after)
        for source in self.sources[name]:
            self._back(source, through, target, reader, (*nodes, node))

    def linear(self, name: str) -> tuple[Place, Taps]:
        if name not in self._seen:
            self._seen[name] = self._linear(self.nodes[name], self.shape(self.sources[name][0]))
        return self._seen[name]

    def _linear(self, node: nir.NIRNode, shape: Place) -> tuple[Place, Taps]:
        if isinstance(node, nir.Conv1d | nir.Conv2d):
            return convolution(node, shape)
        if isinstance(node, GraphConv):
            return graph_convolution(node, shape)
        if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
            return pooling(node, shape)
        if isinstance(node, nir.Affine | nir.Linear):
            return dense(node, shape)
        if isinstance(node, nir.Flatten):
            return flattened(node, shape)
        if isinstance(node, nir.Scale):
            return shape, each_by_itself(node.scale, shape)
        if isinstance(node, nir.Delay):
            return shape, delaying(np.rint(np.asarray(node.delay, np.float64) / self.dt).astype(int), shape)
        raise NotImplementedError(f"{type(node).__name__}: the oracle has no synapses for it")

    def shape(self, name: str) -> Place:
        node = self.nodes[name]
        if isinstance(node, nir.Input):
            return tuple(int(n) for n in node.input_type["input"])
        if isinstance(node, SPIKING + GRADED):
            return tuple(np.shape(node.r if hasattr(node, "r") else node.threshold))
        if isinstance(node, SpikingSelfAttention):
            stacked, *rest = self.shape(self.sources[name][0])
            return (stacked // 3, *rest)
        if isinstance(node, nir.Output):
            return self.shape(self.sources[name][0])
        return self.linear(name)[0]

    def sends(self, name: str) -> str:
        return f"{name}.z" if isinstance(self.nodes[name], SpikingSelfAttention) else name

    def _population(self, name: str) -> bool:
        return isinstance(self.nodes[name], (nir.Input, SpikingSelfAttention, *SPIKING, *GRADED))

    def _before(self, source: str, target: str) -> bool:
        return self.order.index(source) < self.order.index(target)

    def _evaluation_order(self) -> list[str]:
        return euler_oracle.evaluation_order(self.nodes, self.sources)
