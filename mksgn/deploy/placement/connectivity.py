"""Who is connected to whom, axis by axis: what a placement counts axons and synapses from, without listing a single synapse.

Convolution, graph convolution, pooling, dense layers and attention's products connect channels with channels, frames with frames and
joints with joints. So whether two neurons are connected is a product of small Boolean matrices, one for each axis, and the paper's
1.5 billion synapses need a few hundred of them. Every weight counts, zeros too: a chip stores them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Population, Product, Program, Projection

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Factor:
    """matrix (places on the target's axis, places on the source's axis) of bool; an axis of None has one place."""

    target: int | None
    source: int | None
    matrix: np.ndarray


Link = tuple[Factor, ...]  # connected where every factor is; each axis of target and source is in exactly one factor


@dataclass(frozen=True, eq=False)
class Edge:
    """All that a group receives from one source through one projection.

    `link` is None where the axes do not separate: then `fan_out`, synapses per source neuron, bounds the axons. `fan_in` is
    synapses per target neuron; an axis along which it does not change may have length 1.
    """

    source: str
    source_shape: Shape
    link: Link | None
    fan_in: np.ndarray
    fan_out: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Group:
    """Neurons that are cut onto cores together: a population's, or the units of one of its products."""

    name: str
    shape: Shape
    edges: tuple[Edge, ...]
    units_of: str | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def fan_in(self) -> np.ndarray:
        """Synapses per neuron; broadcasts against the shape."""
        total = np.zeros((1,) * len(self.shape), dtype=np.int64)
        for edge in self.edges:
            total = total + edge.fan_in
        return total


def groups(program: Program) -> list[Group]:
    """What lies on the chip, in the program's order; the units of a product before the population that they lead to."""
    found = []
    for population in program.populations:
        if population.location == "host" or population.kind == "input":
            continue
        edges = []
        for projection in program.into(population.name):
            if isinstance(projection, Product):
                units = _units(program, projection, population)
                found.append(units)
                edges.append(_from_units(units, projection, population))
            else:
                edges.append(_edge(program, projection))
        found.append(Group(population.name, population.shape, tuple(edges)))
    return found


def _edge(program: Program, projection: Projection) -> Edge:
    shape = program[projection.source].shape
    ones = ops.with_weights(projection.operators, np.ones_like)
    with torch.no_grad():
        fan_in = np.rint(ops.apply(ones, torch.ones((1, *shape)))[0].numpy()).astype(np.int64)
    pattern = link(projection.operators, shape)
    (fan_out,) = program.fan_outs(projection) if pattern is None else (None,)
    for axis in range(fan_in.ndim):
        if (fan_in == fan_in.take([0], axis)).all():
            fan_in = fan_in.take([0], axis)
    return Edge(projection.source, shape, pattern, fan_in, fan_out)


def link(operators: ops.Operators, shape: Shape) -> Link | None:
    """The pattern of a chain of operators on (*shape); None where it is no product over the axes.

    A mask's holes are ignored, so that there a link is an upper bound.
    """
    # per axis of what the operators have made so far: the sources' axes merged into it, each with its matrix
    axes: list[list[tuple[int, np.ndarray]]] = [[(i, np.eye(n, dtype=bool))] for i, n in enumerate(shape)]
    summed: list[tuple[int, np.ndarray]] = []  # source axes of which no target axis is left
    for operator in operators:
        if isinstance(operator, ops.Flatten):
            start, end = operator.start % len(shape), operator.end % len(shape)
            axes[start : end + 1] = [[part for axis in axes[start : end + 1] for part in axis]]
        else:
            for i, matrix in _patterns(operator, shape).items():
                parts = axes[i]
                if len(parts) == 1:
                    axes[i] = [(parts[0][0], _then(matrix, parts[0][1]))]
                elif matrix.all():  # every place of a merged axis: any of each axis in it
                    first, *others = [(axis, m.any(0, keepdims=True)) for axis, m in parts]
                    axes[i] = [(first[0], np.repeat(first[1], len(matrix), axis=0))]
                    summed += others
                else:
                    return None
        shape = operator.out_shape(shape)
    factors = [Factor(None, axis, matrix) for axis, matrix in summed]
    for i, parts in enumerate(axes):
        long = [part for part in parts if len(part[1]) > 1] or parts[:1]
        if len(long) > 1:
            return None  # several axes merged into one, which a cut does not separate
        factors += [Factor(i if part is long[0] else None, *part) for part in parts]
    return tuple(factors)


def _then(second: np.ndarray, first: np.ndarray) -> np.ndarray:
    return (second.astype(np.float32) @ first.astype(np.float32)) > 0


def _patterns(operator: ops.Operator, shape: Shape) -> dict[int, np.ndarray]:
    """Axis → (places after, places before) of bool; an axis that is not named stays as it is."""
    last = len(shape) - 1
    if isinstance(operator, ops.Conv):
        outputs, inputs = operator.weight.shape[0] // operator.groups, operator.weight.shape[1]
        channels = np.kron(np.eye(operator.groups, dtype=bool), np.ones((outputs, inputs), dtype=bool))
        windows = zip(
            operator.weight.shape[2:],
            operator.stride,
            operator.padding,
            operator.dilation,
            operator.extra_end_padding,
            strict=False,
        )
        return {0: channels} | {i: _taps(shape[i], *window) for i, window in enumerate(windows, start=1)}
    if isinstance(operator, ops.SumPool):
        windows = zip(operator.kernel, operator.stride, operator.padding, (1, 1), (0, 0), strict=True)
        return {i: _taps(shape[i], *window) for i, window in enumerate(windows, start=last - 1)}
    if isinstance(operator, ops.GraphConv):
        joints = np.zeros((operator.joints, operator.joints), dtype=bool)
        joints[operator.target, operator.source] = True
        return {0: np.ones(operator.weight.shape[1:], dtype=bool), 2: joints}
    if isinstance(operator, ops.Dense):
        return {last: np.ones(operator.weight.shape[-2:], dtype=bool)}
    return {}  # Scale and Mask: neuron by neuron


def _taps(length: int, kernel: int, stride: int, padding: int, dilation: int, behind: int = 0) -> np.ndarray:
    """(windows, length): which places a window sees."""
    windows = (length + 2 * padding + behind - dilation * (kernel - 1) - 1) // stride + 1
    seen = np.zeros((windows, length), dtype=bool)
    for window in range(windows):
        places = window * stride - padding + dilation * np.arange(kernel)
        seen[window, places[(places >= 0) & (places < length)]] = True
    return seen


def _units(program: Program, product: Product, population: Population) -> Group:
    """One unit per (channel, frame, query, key), with a synapse from each of its two inputs."""
    stacked, frames, joints = program[product.sources[-1]].shape
    channels = stacked // 3
    each, none = np.eye(channels, dtype=bool), np.zeros((channels, channels), dtype=bool)
    frame, joint = np.eye(frames, dtype=bool), np.eye(joints, dtype=bool)

    def from_qkv(part: int, axis: int) -> Edge:
        """q, k or v, whose joint is the unit's query (axis 2) or key (axis 3)."""
        third = np.concatenate([each if i == part else none for i in range(3)], axis=1)
        other = np.ones((joints, 1), dtype=bool)  # whatever the other joint is
        link = (Factor(0, 0, third), Factor(1, 1, frame), Factor(axis, 2, joint), Factor(5 - axis, None, other))
        return Edge(product.sources[-1], (stacked, frames, joints), link, _constant(1, 4))

    if product.part == "m":
        edges = (from_qkv(0, 2), from_qkv(1, 3))
    else:
        heads = _heads(channels, product.heads)
        maps = (Factor(0, 0, heads), Factor(1, 1, frame), Factor(2, 2, joint), Factor(3, 3, joint))
        shape = program[product.sources[0]].shape
        edges = (Edge(product.sources[0], shape, maps, _constant(1, 4)), from_qkv(2, 3))
    return Group(f"{population.name} units", (channels, frames, joints, joints), edges, units_of=population.name)


def _from_units(units: Group, product: Product, population: Population) -> Edge:
    """Each unit's coincidence is one synapse of the neuron that sums it."""
    channels, frames, joints, _ = units.shape
    frame, joint = np.eye(frames, dtype=bool), np.eye(joints, dtype=bool)
    if product.part == "m":  # summed over the channels of a head
        heads = _heads(channels, product.heads).T
        link = (Factor(0, 0, heads), Factor(1, 1, frame), Factor(2, 2, joint), Factor(3, 3, joint))
        fan_in = _constant(channels // product.heads, 4)
    else:  # summed over the keys
        each = np.eye(channels, dtype=bool)
        keys = np.ones((1, joints), dtype=bool)
        link = (Factor(0, 0, each), Factor(1, 1, frame), Factor(2, 2, joint), Factor(None, 3, keys))
        fan_in = _constant(joints, 3)
    return Edge(units.name, units.shape, link, fan_in)


def _heads(channels: int, heads: int) -> np.ndarray:
    """(channels, heads): which head a channel is of."""
    return np.repeat(np.eye(heads, dtype=bool), channels // heads, axis=0)


def _constant(value: int, axes: int) -> np.ndarray:
    return np.full((1,) * axes, value, dtype=np.int64)
