"""Tiles of a population: a run of channels times a run of frames times a run of joints, and what each holds of a core's resources.

`sent` is everywhere the cores that each neuron reaches; an axis along which a value does not change may have length 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from mksgn.deploy.placement import axons
from mksgn.deploy.placement.axons import Bounds
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.placement.connectivity import Edge, Group, Link, Shape

WEIGHT_BITS = 8
RESOURCES = ("neurons", "synaptic bits", "input axons", "output axons")


def core_limits(chip: Chip) -> tuple[int | None, ...]:
    """What one core holds of each of RESOURCES; None where it has not been published."""
    return (
        chip.neurons_per_core,
        chip.synaptic_bits_per_core,
        chip.input_axons_per_core,
        chip.output_axons_per_core,
    )


@dataclass(frozen=True)
class Source:
    """What a group on the chip that is cut later needs, as far as it is known: the cores that its neurons reach, in all and at most."""

    size: int
    fewest: int  # cores, by neurons and synapses
    reached: int
    most: int

    @classmethod
    def of(cls, group: Group, sent: np.ndarray, chip: Chip) -> Source:
        bits = WEIGHT_BITS * _Sums(group.fan_in, group.shape).total
        fewest = max(-(-group.size // chip.neurons_per_core), -(-bits // chip.synaptic_bits_per_core))
        return cls(group.size, fewest, _Sums(sent, group.shape).total, int(sent.max()))

    def cores(self, reached: np.ndarray, most: np.ndarray, output_axons: int) -> np.ndarray:
        """An estimate, were so many more cores reached. Equal tiles follow the neuron that reaches most."""
        evenly = (self.reached + reached) / output_axons
        return np.maximum(np.maximum(self.fewest, evenly), self.size * np.maximum(self.most, most) / output_axons)


def cut(group: Group, sent: np.ndarray, chip: Chip, sources: dict[str, Source]) -> Bounds:
    """The equal tiles that need fewest cores, their sources' included; of several ways the one that fewest spikes have to cross.

    Where output axons are limited, a source has more neurons per core if each of them reaches few tiles. A limit that a single neuron
    exceeds is raised to what that neuron needs, so that there is always a cut.
    """
    needs = alone(group, sent, chip)
    limits = [math.inf if m is None else max(m, need) for m, need in zip(core_limits(chip), needs, strict=True)]
    choices = [_splits(length) for length in group.shape]
    fan_in, out = _Sums(group.fan_in, group.shape), _Sums(sent, group.shape)
    cores = _product([[len(b) - 1 for b in each] for each in choices])
    neurons = _product([[int(np.diff(b).max()) for b in each] for each in choices])
    least, most = _input_axon_range(group, choices)
    possible = (
        (neurons <= limits[0])
        & (WEIGHT_BITS * fan_in.total <= limits[1] * cores)
        & (least <= limits[2])
        & (out.total <= limits[3] * cores)
    )
    crossed = np.zeros_like(cores)
    needed = cores.astype(np.float64)
    for name, edges in _by_source(group).items():
        links, _ = _links(edges)
        reached = sum((axons.reached(link, choices) for link in links), start=np.zeros_like(cores))
        crossed += reached
        if name in sources and links and chip.output_axons_per_core is not None:
            most_reached = np.maximum.reduce(
                np.broadcast_arrays(*(axons.most_reached(link, choices) for link in links))
            )
            needed += sources[name].cores(reached, most_reached, chip.output_axons_per_core)
    indices = np.argwhere(possible)
    order = np.lexsort((*indices.T[::-1], crossed[possible], needed[possible]))
    for index in indices[order]:
        bounds = tuple(each[i] for each, i in zip(choices, index, strict=True))
        if (
            WEIGHT_BITS * fan_in.over(bounds).max() <= limits[1]
            and out.over(bounds).max() <= limits[3]
            and (most[tuple(index)] <= limits[2] or input_axons(group, bounds).max() <= limits[2])
        ):
            return bounds
    raise AssertionError(f"{group.name}: its neurons do not fit a core each")  # the limits were raised to that


def alone(group: Group, sent: np.ndarray, chip: Chip) -> tuple[int, int, int, int]:
    """The most that any neuron needs of each of RESOURCES, on a core of its own. Axons: an upper bound where that is within limits."""
    single = tuple(np.arange(n + 1) for n in group.shape)
    _, most = _input_axon_range(group, [[b] for b in single])
    inputs = int(most.max())
    if chip.input_axons_per_core is not None and inputs > chip.input_axons_per_core:
        inputs = int(input_axons(group, single).max())
    return 1, WEIGHT_BITS * int(group.fan_in.max()), inputs, int(sent.max())


def _product(factors: list[list[int]]) -> np.ndarray:
    """(choices per axis …): for every choice the product of one factor per axis."""
    return reduce(np.multiply.outer, [np.array(each, dtype=np.int64) for each in factors])


def _splits(length: int) -> list[np.ndarray]:
    """Bounds of each way to cut an axis into nearly equal parts, as few as their longest part allows; the whole axis first."""
    counts = sorted({-(-length // longest) for longest in range(1, length + 1)})
    return [np.arange(count + 1) * length // count for count in counts]


def _input_axon_range(group: Group, choices: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Bounds, from below and above, of the fullest tile's input axons for every choice of bounds, (choices per axis …)."""
    size = [len(each) for each in choices]
    least, most = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for edges in _by_source(group).values():
        links, others = _links(edges)
        each = [axons.fullest(link, choices) for link in links]
        sources = math.prod(edges[0].source_shape)
        if others:
            most += sources
        else:
            most += np.minimum(sum(each), sources)
            least += np.maximum.reduce(np.broadcast_arrays(*each))
    return least, most


def usage(group: Group, sent: np.ndarray, bounds: Bounds) -> tuple[np.ndarray, ...]:
    """Each of RESOURCES per tile, of a shape that broadcasts against the number of parts per axis."""
    one = np.ones((1,) * len(group.shape), dtype=np.int64)
    return (
        _Sums(one, group.shape).over(bounds),
        WEIGHT_BITS * _Sums(group.fan_in, group.shape).over(bounds),
        input_axons(group, bounds),
        _Sums(sent, group.shape).over(bounds),
    )


class _Sums:
    """Sums of a value per neuron over tiles, from one array of prefix sums; axes of length 1 stand for equal values."""

    def __init__(self, values: np.ndarray, shape: Shape):
        self.full = [n == m for n, m in zip(values.shape, shape, strict=True)]
        for axis, full in enumerate(self.full):
            if full:
                values = np.cumsum(values, axis=axis)
        self.prefix = np.pad(values, [(1, 0) if full else (0, 0) for full in self.full])
        self.total = int(self.over(tuple(np.array([0, n]) for n in shape)).item())

    def over(self, bounds: Bounds) -> np.ndarray:
        corners = [b if full else np.zeros(1, dtype=np.int64) for b, full in zip(bounds, self.full, strict=True)]
        tiles = self.prefix[np.ix_(*corners)]
        for axis, full in enumerate(self.full):
            if full:
                tiles = np.diff(tiles, axis=axis)
            else:
                tiles = tiles * np.diff(bounds[axis]).reshape([-1 if i == axis else 1 for i in range(len(bounds))])
        return tiles


def input_axons(group: Group, bounds: Bounds) -> np.ndarray:
    total = np.zeros((1,) * len(group.shape), dtype=np.int64)
    for edges in _by_source(group).values():
        links, others = _links(edges)
        reach = axons.union([axons.cut(link, bounds) for link in links], "target", group.shape)
        for edge in others:
            reach = reach + _Sums(edge.fan_in, group.shape).over(bounds)
        total = total + np.minimum(reach, np.prod(edges[0].source_shape))
    return total


def cores_reached(edges: list[Edge], target: Group, bounds: Bounds) -> np.ndarray:
    """By each neuron of the edges' source."""
    links, others = _links(edges)
    reached = axons.union([axons.cut(link, bounds) for link in links], "source", edges[0].source_shape)
    for edge in others:
        reached = reached + fan_out(edge)
    return np.minimum(reached, np.prod(parts(bounds)))


def fan_out(edge: Edge) -> np.ndarray:
    """Synapses that leave each source neuron."""
    if edge.fan_out is not None:
        return edge.fan_out
    assert edge.link is not None
    return axons.union([edge.link], "source", edge.source_shape)


def _links(edges: list[Edge]) -> tuple[list[Link], list[Edge]]:
    """The patterns of the edges, and the edges that have none."""
    return axons.maximal([e.link for e in edges if e.link is not None]), [e for e in edges if e.link is None]


def _by_source(group: Group) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = defaultdict(list)
    for edge in group.edges:
        found[edge.source].append(edge)
    return found


def between(source: str, target: Group) -> list[Edge]:
    return [edge for edge in target.edges if edge.source == source]


def parts(bounds: Bounds) -> tuple[int, ...]:
    return tuple(len(b) - 1 for b in bounds)
