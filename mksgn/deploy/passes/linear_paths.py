"""The synaptic current of a node: a sum over linear paths, each from one population, and of biases.

A bias that comes through a delay starts at a later time step; one in a loop does not, because a loop
is cut at the spikes of a neuron.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import nir
import numpy as np
import torch

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program import operators as ops
from mksgn.export.graph.kinds import CONVOLUTIONS, DENSE
from mksgn.export.graph.nodes import GraphConv, f32, ints
from mksgn.export.graph.paths import LinearPath, LinearPaths, delayed, extended, joined
from mksgn.export.lowering.fold import per_edge
from mksgn.export.reference.nodes import delay_steps

Shape = ops.Shape


@dataclass(frozen=True)
class OperatorPath(LinearPath):
    """A linear path as operators, in the order of the signal; `delay` includes those of Delay nodes."""

    operators: ops.Operators = ()

    def arrived(self, more_delay: int) -> OperatorPath:
        operators = tuple(operator for _, added in self.passed() for operator in added)
        return replace(super().arrived(more_delay), operators=operators)


@dataclass(frozen=True)
class Signal:
    """What a node sends or receives; `biases` maps first time steps to arrays of `shape`."""

    shape: Shape
    paths: tuple[OperatorPath, ...] = ()
    biases: dict[int, np.ndarray] = field(default_factory=dict)

    def late(self, steps: int) -> Signal:
        if not steps:
            return self
        biases = {first + steps: bias for first, bias in self.biases.items()}
        return replace(self, paths=delayed(self.paths, steps), biases=biases)

    def through(self, name: str, *operators: ops.Operator) -> Signal:
        try:
            shape = ops.out_shape(operators, self.shape)
        except DeployError as error:
            raise DeployError(f"node {name}: {error}") from None
        biases = {first: _apply(operators, bias, shape) for first, bias in self.biases.items()}
        return Signal(shape, extended(self.paths, name, operators), biases)

    def plus(self, bias: np.ndarray | None) -> Signal:
        if bias is None:
            return self
        now = np.broadcast_to(bias, self.shape).astype(np.float32)
        return replace(self, biases=self.biases | {0: self.biases[0] + now if 0 in self.biases else now})


def _apply(operators: ops.Operators, bias: np.ndarray, shape: Shape) -> np.ndarray:
    # operators have no offset of their own: 0 stays 0
    if not bias.any():
        return np.zeros(shape, dtype=np.float32)
    return ops.apply(operators, torch.from_numpy(bias[None])).numpy()[0]


class Signals(LinearPaths):
    """The signal that each node of a flat graph sends; `into` gives the one that it receives."""

    def __init__(self, graph: nir.NIRGraph, order: list[str], dt: float, shape_of: Callable[[str], Shape]) -> None:
        """`shape_of` gives the output shape of nodes that are not linear; `order` is the order of evaluation."""
        super().__init__(graph, set(map(tuple, graph.edges)), order)
        self.dt, self.shape_of = dt, shape_of

    def start(self, name: str) -> Signal:
        return Signal(self.shape_of(name), (OperatorPath(name),))

    def retimed(self, value: Signal, retime: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Signal:
        return replace(value, paths=retime(value.paths))

    def join(self, name: str, values: list[Signal]) -> Signal:
        shapes = {signal.shape for signal in values}
        if len(shapes) > 1:
            raise DeployError(
                f"node {name}: edges of different shapes lead into it: {', '.join(map(str, sorted(shapes)))}"
            )
        biases: dict[int, np.ndarray] = {}
        for signal in values:
            for first, bias in signal.biases.items():
                biases[first] = biases[first] + bias if first in biases else bias
        return Signal(shapes.pop(), joined(name, (signal.paths for signal in values)), biases)

    def through(self, name: str, node: nir.NIRNode, value: Signal) -> Signal:
        if isinstance(node, nir.Delay):
            return self._delayed(name, node, value)
        if isinstance(node, nir.AvgPool2d):
            kernel = ints(node.kernel_size, 2)
            mean = np.full(1, 1.0 / (kernel[0] * kernel[1]), dtype=np.float32)
            return value.through(name, _pool(node), ops.Scale(mean))
        signal = value.through(name, _operator(name, node))
        bias = getattr(node, "bias", None)
        if bias is not None and isinstance(node, CONVOLUTIONS):
            bias = np.asarray(bias).reshape(-1, *(1,) * (len(signal.shape) - 1))
        return signal.plus(bias)

    def _delayed(self, name: str, node: nir.Delay, signal: Signal) -> Signal:
        steps = delay_steps(node, name, self.dt)
        if steps.size != 1 and steps.shape != signal.shape:
            raise DeployError(f"node {name}: Delay takes {steps.shape}, its source has {signal.shape}")
        if np.ptp(steps) == 0:
            late = signal.late(int(steps.flat[0]))
            return replace(late, paths=extended(late.paths, name))
        steps = np.broadcast_to(steps, signal.shape)
        return self.join(name, [signal.through(name, ops.Mask(steps == n)).late(int(n)) for n in np.unique(steps)])


def _operator(name: str, node: nir.NIRNode) -> ops.Operator:
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        axes = node.weight.ndim - 2
        stride, dilation = ints(node.stride, axes), ints(node.dilation, axes)
        padding, extra_end_padding = _padding(name, node, stride, dilation)
        return ops.Conv(node.weight, stride, padding, dilation, int(node.groups), extra_end_padding)
    if isinstance(node, GraphConv):
        edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
        _, source, target = np.nonzero(edges)
        return ops.GraphConv(f32(weight), source, target, node.adjacency.shape[1])
    if isinstance(node, DENSE):
        return ops.Dense(node.weight)
    if isinstance(node, nir.SumPool2d):
        return _pool(node)
    if isinstance(node, nir.Scale):
        return ops.Scale(np.asarray(node.scale))
    return ops.Flatten(int(node.start_dim), int(node.end_dim))


def _pool(node: nir.SumPool2d | nir.AvgPool2d) -> ops.SumPool:
    kernel, stride, padding = ((a, b) for a, b in (ints(x, 2) for x in (node.kernel_size, node.stride, node.padding)))
    return ops.SumPool(kernel, stride, padding)


def _padding(
    name: str, node: nir.NIRNode, stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the zeros on both sides of each axis, and the additional ones at its end."""
    kernel = node.weight.shape[2:]
    none = (0,) * len(kernel)
    if not isinstance(node.padding, str):
        return ints(node.padding, len(kernel)), none
    if node.padding == "valid":
        return none, none
    if node.padding != "same" or set(stride) != {1}:
        raise DeployError(f"node {name}: padding {node.padding!r} needs stride 1; write the padding as numbers")
    spread = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(n // 2 for n in spread), tuple(n % 2 for n in spread)
