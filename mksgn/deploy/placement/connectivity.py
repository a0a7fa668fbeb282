"""Connectivity axis by axis: a placement counts axons and synapses from it without listing a single synapse.

Convolution, graph convolution, pooling, dense layers and attention's products connect channels with
channels, frames with frames and joints with joints. Whether two neurons are connected is therefore
a product of small Boolean matrices, one for each axis; the paper's 1.5 billion synapses need a few
hundred of them. Every weight counts, zeros too: a chip stores them.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Population, Product, Program, Projection, SynapseKind

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Factor:
    """Which places of two axes are connected. An axis of None has one place."""

    target: int | None
    source: int | None
    matrix: np.ndarray  # bool, (places of the target's axis, places of the source's axis)


# Two neurons are connected where every factor is 1; each axis of target and source is in exactly
# one factor.
Link = tuple[Factor, ...]
MOST_OWN = 1024  # most places of an axis connected one to one; beyond that, synapses are counted instead
# A source axis, and which of its places (second axis) each place of the result sees; None: each its own, without a
# matrix, which for 80,000 places would take 6 GB.
AxisMap = tuple[int, np.ndarray | None]


@dataclass(frozen=True, eq=False)
class Edge:
    """All that a group receives from one source through one projection.

    `link` is None where the axes do not separate: then `fan_out`, the synapses per source neuron,
    bounds the axons. `fan_in` holds the synapses per target neuron; an axis along which it does not
    change may have length 1.
    """

    source: str
    source_shape: Shape
    link: Link | None
    fan_in: np.ndarray
    fan_out: np.ndarray | None = None
    kind: SynapseKind = "sparse"


@dataclass(frozen=True, eq=False)
class Group:
    """Neurons that are cut into tiles together: a population's, or the units of one of its products."""

    name: str
    shape: Shape
    edges: tuple[Edge, ...]
    units_of: str | None = None

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def fan_in(self) -> np.ndarray:
        """Synapses per neuron, int64; broadcasts against the shape."""
        total = np.zeros((1,) * len(self.shape), dtype=np.int64)
        for edge in self.edges:
            total = total + edge.fan_in
        return total


def groups(program: Program) -> list[Group]:
    """List what lies on the chip in the program's order; a product's units come before their target."""
    placed = []
    for population in program.populations:
        if population.location == "host" or population.kind == "input":
            continue
        edges = []
        for projection in program.into(population.name):
            if isinstance(projection, Product):
                units = _units(program, projection, population)
                placed.append(units)
                edges.append(_from_units(units, projection, population))
            else:
                edges.append(_edge(program, projection))
        placed.append(Group(population.name, population.shape, tuple(edges)))
    return placed


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
    return Edge(projection.source, shape, pattern, fan_in, fan_out, projection.synapse_kind)


def link(operators: ops.Operators, shape: Shape) -> Link | None:
    """Find the connectivity pattern of a chain of operators on (*shape); None if it is no product over the axes.

    A mask's zeros are ignored, so that a link with a mask is an upper bound. The result is also None where more than
    MOST_OWN places of an axis are connected one to one: their matrix would grow with the square of the neurons.
    """
    # Per axis of the operators' result so far: the source axes that Flatten has merged into it.
    lengths = shape
    axes: list[list[AxisMap]] = [[(axis, None)] for axis in range(len(shape))]
    summed: list[tuple[int, np.ndarray]] = []  # source axes that no axis of the result depends on
    for operator in operators:
        if isinstance(operator, ops.Flatten):
            start, end = operator.start % len(shape), operator.end % len(shape)
            axes[start : end + 1] = [[axis_map for axis in axes[start : end + 1] for axis_map in axis]]
        for axis, matrix in _patterns(operator, shape).items():
            if len(axes[axis]) == 1:
                ((source, before),) = axes[axis]
                axes[axis] = [(source, _then(matrix, before))]
            elif matrix.all():  # every place of a merged axis: any place of each axis in it
                reached: list[tuple[int, np.ndarray]] = [
                    (
                        source,
                        np.ones((1, lengths[source]), dtype=bool) if m is None else np.any(m, axis=0, keepdims=True),
                    )
                    for source, m in axes[axis]
                ]
                (source, first), *others = reached
                axes[axis] = [(source, np.repeat(first, len(matrix), axis=0))]
                summed += others
            else:
                return None
        shape = operator.out_shape(shape)
    return _factors(axes, summed, lengths)


def _factors(axes: list[list[AxisMap]], summed: list[tuple[int, np.ndarray]], lengths: Shape) -> Link | None:
    """Return a factor per source axis; None if an axis merges several longer than 1, which a cut does not separate."""
    factors = [Factor(None, source, matrix) for source, matrix in summed]
    for axis, maybe in enumerate(axes):
        if any(m is None and lengths[source] > MOST_OWN for source, m in maybe):
            return None
        axis_maps = [(source, np.eye(lengths[source], dtype=bool) if m is None else m) for source, m in maybe]
        longer = [axis_map for axis_map in axis_maps if len(axis_map[1]) > 1] or axis_maps[:1]
        if len(longer) > 1:
            return None
        factors += [Factor(axis if axis_map is longer[0] else None, *axis_map) for axis_map in axis_maps]
    return tuple(factors)


def _then(second: np.ndarray, first: np.ndarray | None) -> np.ndarray:
    if first is None:
        return second
    return (second.astype(np.float32) @ first.astype(np.float32)) > 0


def _patterns(operator: ops.Operator, shape: Shape) -> dict[int, np.ndarray]:
    """Return which places before the operator each place after it sees, by changed axis: bool, (after, before)."""
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


def _taps(length: int, kernel: int, stride: int, padding: int, dilation: int, extra: int = 0) -> np.ndarray:
    """Return which places each window sees: bool, (windows, length). `extra` zeros follow the padding at the end."""
    windows = (length + 2 * padding + extra - dilation * (kernel - 1) - 1) // stride + 1
    seen = np.zeros((windows, length), dtype=bool)
    for window in range(windows):
        places = window * stride - padding + dilation * np.arange(kernel)
        seen[window, places[(places >= 0) & (places < length)]] = True
    return seen


def _units(program: Program, product: Product, population: Population) -> Group:
    """Make a product's units: one per (channel, frame, query, key), with a synapse from each of two inputs."""
    stacked, frames, joints = program[product.sources[-1]].shape
    channels = stacked // 3
    same, none = np.eye(channels, dtype=bool), np.zeros((channels, channels), dtype=bool)
    frame, joint = np.eye(frames, dtype=bool), np.eye(joints, dtype=bool)

    def from_qkv(part: int, axis: int) -> Edge:
        """Make the edge from q, k or v (part 0, 1 or 2), whose joint is the unit's query (axis 2) or key (axis 3)."""
        third = np.concatenate([same if i == part else none for i in range(3)], axis=1)
        other = np.ones((joints, 1), dtype=bool)  # any other joint
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
    """Make the edge from a product's units: each unit has one synapse, to the neuron that sums it."""
    channels, frames, joints, _ = units.shape
    frame, joint = np.eye(frames, dtype=bool), np.eye(joints, dtype=bool)
    if product.part == "m":  # summed over the channels of a head
        heads = _heads(channels, product.heads).T
        link = (Factor(0, 0, heads), Factor(1, 1, frame), Factor(2, 2, joint), Factor(3, 3, joint))
        fan_in = _constant(channels // product.heads, 4)
    else:  # summed over the keys
        channel = np.eye(channels, dtype=bool)
        keys = np.ones((1, joints), dtype=bool)
        link = (Factor(0, 0, channel), Factor(1, 1, frame), Factor(2, 2, joint), Factor(None, 3, keys))
        fan_in = _constant(joints, 3)
    return Edge(units.name, units.shape, link, fan_in)


def _heads(channels: int, heads: int) -> np.ndarray:
    """Return which head a channel belongs to: bool, (channels, heads)."""
    return np.repeat(np.eye(heads, dtype=bool), channels // heads, axis=0)


def _constant(value: int, axes: int) -> np.ndarray:
    return np.full((1,) * axes, value, dtype=np.int64)
