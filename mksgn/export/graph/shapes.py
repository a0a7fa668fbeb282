"""The output shapes of nodes, and the shapes of all signals of a flat graph."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import nir
import numpy as np

from mksgn.export.graph.kinds import CONVOLUTIONS, DENSE, NEURONS, POOLING
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, ints
from mksgn.export.graph.order import sources_of

Shape = tuple[int, ...]
NOT_PARAMETERS = ("input_type", "output_type", "metadata")
ELEMENTWISE = (*NEURONS, nir.Scale, nir.Delay)  # their parameters broadcast to the signal


def parameters_of(node: nir.NIRNode) -> dict[str, Any]:
    """Return a node's own fields by name, without its types and metadata."""
    return {f.name: getattr(node, f.name) for f in fields(node) if f.name not in NOT_PARAMETERS}


def broadcast(value: Any, shape: Shape) -> np.ndarray | None:
    """Broadcast a parameter to a signal's shape; None if it does not fit.

    A single number fits any signal. Other parameters have as many axes as the signal, each of its size or of size 1;
    additional leading axes of size 1 are dropped.
    """
    array = np.asarray(value)
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    if array.size > 1 and array.ndim != len(shape):
        return None
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        return None


def output_shape(node: nir.NIRNode, shape: Shape) -> Shape | None:
    """Return the output shape of a linear node, neuron or attention for the input `shape`; None if it does not fit."""
    if isinstance(node, ELEMENTWISE):
        fit = all(broadcast(value, shape) is not None for value in parameters_of(node).values())
        return shape if fit else None
    if isinstance(node, DENSE):
        return _after_dense(np.shape(node.weight), shape)
    if isinstance(node, CONVOLUTIONS):
        return _after_convolution(node, shape)
    if isinstance(node, POOLING):
        kernel, stride, padding = (ints(x, 2) for x in (node.kernel_size, node.stride, node.padding))
        spatial = _windows(shape[1:], kernel, stride, padding, (1, 1)) if len(shape) == 3 else None
        return None if spatial is None else (shape[0], *spatial)
    if isinstance(node, nir.Flatten):
        start, end = (int(d) + (len(shape) if d < 0 else 0) for d in (node.start_dim, node.end_dim))
        if not 0 <= start <= end < len(shape):
            return None
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])
    if isinstance(node, SpikingSelfAttention):
        return (shape[0] // 3, *shape[1:]) if len(shape) == 3 else None
    return None


def _after_dense(weight: Shape, shape: Shape) -> Shape | None:
    """Return the shape after (…, O, I) on the last axis, with one matrix for each index of the axes before it."""
    if not shape or shape[-1] != weight[-1]:
        return None
    try:
        return (*np.broadcast_shapes(weight[:-2], shape[:-1]), weight[-2])
    except ValueError:
        return None


def _after_convolution(node: nir.NIRNode, shape: Shape) -> Shape | None:
    if isinstance(node, GraphConv):
        fits = len(shape) == 3 and (shape[0], shape[2]) == (node.weight.shape[2], node.adjacency.shape[1])
        return (node.weight.shape[1], *shape[1:]) if fits else None
    outputs, inputs, *kernel = np.shape(node.weight)
    axes = len(kernel)
    if len(shape) != axes + 1 or shape[0] != inputs * int(node.groups):
        return None
    stride, dilation = ints(node.stride, axes), ints(node.dilation, axes)
    if isinstance(node.padding, str) and node.padding == "same":
        return (outputs, *shape[1:])
    padding = (0,) * axes if isinstance(node.padding, str) else ints(node.padding, axes)
    spatial = _windows(shape[1:], tuple(kernel), stride, padding, dilation)
    return None if spatial is None else (outputs, *spatial)


def _windows(size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape | None:
    """Count the windows of a kernel that fit along each axis."""
    counts = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return counts if min(counts) > 0 else None


@dataclass
class Signals:
    """Input shapes of each node that an Input reaches, and how far they are from NIR's own types."""

    into: dict[str, Shape] = field(default_factory=dict)
    elementwise: int = 0  # neurons, Scales and Delays whose shape is not their signal's
    last_axis: int = 0  # matrices that act on the last of several axes
    shared: int = 0  # elementwise nodes with a single number, which fit any signal

    @property
    def untyped(self) -> int:
        """The number of deviations from NIR's types; matrices count if elementwise nodes leave a shape open."""
        return self.elementwise + (self.last_axis if self.shared else 0)

    def enter(self, name: str, node: nir.NIRNode, shape: Shape) -> None:
        """Note that a signal of this shape enters a node."""
        self.into[name] = shape
        if isinstance(node, DENSE):
            weight = np.shape(node.weight)
            self.last_axis += shape != (*weight[:-2], weight[-1])
        elif isinstance(node, ELEMENTWISE):
            shapes = {np.shape(x) for x in parameters_of(node).values() if np.size(x) > 1}
            self.elementwise += bool(shapes - {shape})
            self.shared += not shapes and math.prod(shape) > 1


def infer_shapes(graph: nir.NIRGraph, inputs: Mapping[str, Shape]) -> Signals | None:
    """Follow the signals of a flat graph from its Inputs, visiting each node once.

    Args:
        graph: The graph.
        inputs: The shape of each Input.

    Returns:
        The shapes, or None if a node does not take its signal, or two signals that join differ.
    """
    sources = sources_of(graph)
    targets: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for name, before in sources.items():
        for source in before:
            targets[source].append(name)
    signals, out = Signals(), dict(inputs)
    waiting = deque(inputs)
    while waiting:
        source = waiting.popleft()
        for name in targets[source]:
            node = graph.nodes[name]
            if name in signals.into:
                if signals.into[name] != out[source]:
                    return None
                continue
            try:
                signals.enter(name, node, out[source])
                if isinstance(node, (nir.Output, nir.Input)):
                    continue
                shape = output_shape(node, out[source])
            except (ArithmeticError, AttributeError, IndexError, TypeError, ValueError):  # damaged fields
                shape = None
            if shape is None:
                return None
            out[name] = shape
            waiting.append(name)
    return signals
