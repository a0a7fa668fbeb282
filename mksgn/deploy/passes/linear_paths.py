"""What reaches a node through linear nodes: a sum of ways, each from one population by operators and delays, and of biases.

Linear nodes and delays commute with sums, so that any feed-forward net of them between populations is such a sum. A bias that
comes through a delay, or over an edge that closes a loop, begins at a later step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import nir
import numpy as np
import torch

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program import operators as ops
from mksgn.export.errors import ExportError
from mksgn.export.graph.nodes import GraphConv
from mksgn.export.lowering.fold import per_edge
from mksgn.export.reference.nodes import delay_steps

LINEAR = (
    nir.Affine,
    nir.Linear,
    nir.Scale,
    nir.Conv1d,
    nir.Conv2d,
    nir.SumPool2d,
    nir.AvgPool2d,
    nir.Flatten,
    nir.Delay,
    GraphConv,
)
WAYS_LIMIT = 256  # into one node

Shape = ops.Shape


@dataclass(frozen=True)
class Way:
    """From one population, or input: operators in the signal's order, late by `shift` steps; `nodes` passed, in order."""

    source: str
    operators: ops.Operators = ()
    shift: int = 0
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signal:
    """`biases`: (first step, array of `shape`), of which there is at most one for each first step."""

    shape: Shape
    ways: tuple[Way, ...] = ()
    biases: dict[int, np.ndarray] = field(default_factory=dict)

    def late(self, steps: int) -> Signal:
        if not steps:
            return self
        ways = tuple(replace(way, shift=way.shift + steps) for way in self.ways)
        return replace(self, ways=ways, biases={first + steps: bias for first, bias in self.biases.items()})

    def through(self, name: str, *operators: ops.Operator) -> Signal:
        try:
            shape = ops.out_shape(operators, self.shape)
        except DeployError as error:
            raise DeployError(f"node {name}: {error}") from None
        ways = tuple(replace(way, operators=way.operators + operators, nodes=(*way.nodes, name)) for way in self.ways)
        biases = {first: _linear(operators, bias, shape) for first, bias in self.biases.items()}
        return Signal(shape, ways, biases)

    def plus(self, bias: np.ndarray | None) -> Signal:
        if bias is None:
            return self
        now = np.broadcast_to(bias, self.shape).astype(np.float32)
        return replace(self, biases=self.biases | {0: self.biases[0] + now if 0 in self.biases else now})


def _linear(operators: ops.Operators, bias: np.ndarray, shape: Shape) -> np.ndarray:
    # no operator has an offset of its own: what is 0 before it is 0 behind it
    if not bias.any():
        return np.zeros(shape, dtype=np.float32)
    return ops.apply(operators, torch.from_numpy(bias[None])).numpy()[0]


def total(name: str, signals: list[Signal]) -> Signal:
    """The sum of signals of one shape."""
    shapes = {signal.shape for signal in signals}
    if len(shapes) > 1:
        raise DeployError(f"node {name}: edges of different shapes lead into it: {', '.join(map(str, sorted(shapes)))}")
    biases: dict[int, np.ndarray] = {}
    for signal in signals:
        for first, bias in signal.biases.items():
            biases[first] = biases[first] + bias if first in biases else bias
    ways = tuple(way for signal in signals for way in signal.ways)
    if len(ways) > WAYS_LIMIT:
        raise DeployError(
            f"node {name}: {len(ways)} ways through linear nodes lead into it, more than {WAYS_LIMIT}; put a population between them"
        )
    return Signal(shapes.pop(), ways, biases)


class Signals:
    """The signal that each node of a flat graph puts out, found once."""

    def __init__(self, graph: nir.NIRGraph, order: list[str], dt: float, shape_of: Callable[[str], Shape]):
        """`shape_of` gives what a node that is not linear puts out, and `order` is that of evaluation."""
        self.graph, self.dt, self.shape_of = graph, dt, shape_of
        self.position = {name: i for i, name in enumerate(order)}
        self.sources = {name: sorted({a for a, b in graph.edges if b == name}) for name in graph.nodes}
        self.found: dict[str, Signal] = {}
        self.used: set[str] = set()  # linear nodes that lead somewhere
        self.open: list[str] = []

    def into(self, name: str) -> Signal:
        """The sum over the edges into a node."""
        if not self.sources[name]:
            raise DeployError(f"node {name}: no edge leads into it; connect it, or leave it out")
        arriving = []
        for source in self.sources[name]:
            closes = (
                self.position[source] >= self.position[name]
            )  # it is evaluated later: its value of the step before is seen
            arriving.append(self.of(source).late(int(closes)))
        return total(name, arriving)

    def of(self, name: str) -> Signal:
        node = self.graph.nodes[name]
        if not isinstance(node, LINEAR):
            return Signal(self.shape_of(name), (Way(name),))
        self.used.add(name)
        if name not in self.found:
            if name in self.open:
                raise DeployError(
                    f"nodes {', '.join(self.open[self.open.index(name) :])}: a loop without a population in it; put one there"
                )
            self.open.append(name)
            self.found[name] = self._linear(name, node, self.into(name))
            self.open.pop()
        return self.found[name]

    def _linear(self, name: str, node: nir.NIRNode, arriving: Signal) -> Signal:
        if isinstance(node, nir.Delay):
            return self._delayed(name, node, arriving)
        if isinstance(node, nir.AvgPool2d):
            kernel = _pair(node.kernel_size)
            mean = np.full(1, 1.0 / (kernel[0] * kernel[1]), dtype=np.float32)
            pool = ops.SumPool(kernel, _pair(node.stride), _pair(node.padding))
            return arriving.through(name, pool, ops.Scale(mean))
        signal = arriving.through(name, _operator(name, node))
        bias = getattr(node, "bias", None)
        if bias is not None and isinstance(node, nir.Conv1d | nir.Conv2d | GraphConv):
            bias = np.asarray(bias).reshape(-1, *(1,) * (len(signal.shape) - 1))
        return signal.plus(bias)

    def _delayed(self, name: str, node: nir.Delay, arriving: Signal) -> Signal:
        try:
            steps = delay_steps(node, name, self.dt)
        except ExportError as error:
            raise DeployError(str(error)) from None
        if steps.size != 1 and steps.shape != arriving.shape:
            raise DeployError(f"node {name}: Delay takes {steps.shape}, its source has {arriving.shape}")
        if np.ptp(steps) == 0:
            late = arriving.late(int(steps.flat[0]))
            return replace(late, ways=tuple(replace(way, nodes=(*way.nodes, name)) for way in late.ways))
        steps = np.broadcast_to(steps, arriving.shape)
        each = [arriving.through(name, ops.Mask(steps == n)).late(int(n)) for n in np.unique(steps)]
        return total(name, each)


def _operator(name: str, node: nir.NIRNode) -> ops.Operator:
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        axes = node.weight.ndim - 2
        stride, dilation = _tuple(node.stride, axes), _tuple(node.dilation, axes)
        padding, behind = _padding(name, node, stride, dilation)
        return ops.Conv(node.weight, stride, padding, dilation, int(node.groups), behind)
    if isinstance(node, GraphConv):
        edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
        _, source, target = np.nonzero(edges)
        return ops.GraphConv(weight.astype(np.float32), source, target, node.adjacency.shape[1])
    if isinstance(node, nir.Affine | nir.Linear):
        return ops.Dense(node.weight)
    if isinstance(node, nir.SumPool2d):
        return ops.SumPool(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding))
    if isinstance(node, nir.Scale):
        return ops.Scale(np.asarray(node.scale))
    return ops.Flatten(int(node.start_dim), int(node.end_dim))


def _padding(
    name: str, node: nir.NIRNode, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zeros on both sides of each axis, and what comes on top behind it."""
    kernel = node.weight.shape[2:]
    none = (0,) * len(kernel)
    if not isinstance(node.padding, str):
        return _tuple(node.padding, len(kernel)), none
    if node.padding == "valid":
        return none, none
    if node.padding != "same" or set(stride) != {1}:
        raise DeployError(f"node {name}: padding {node.padding!r} needs stride 1; write the padding as numbers")
    spread = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(n // 2 for n in spread), tuple(n % 2 for n in spread)


def _tuple(x: object, axes: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.broadcast_to(np.asarray(x), (axes,)))


def _pair(x: object) -> tuple[int, int]:
    a, b = _tuple(x, 2)
    return a, b
