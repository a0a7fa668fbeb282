"""Tiles of a group (runs of channels times frames times joints) and what each needs of a core's resources.

`output_axons` always holds the number of cores that each neuron reaches. An axis along which a
value does not change may have length 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import reduce

import numpy as np

from mksgn.deploy.placement import axons
from mksgn.deploy.placement.axons import Bounds, Choices
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.placement.connectivity import Edge, Group, Link, Shape
from mksgn.deploy.placement.work import Work


@dataclass(frozen=True)
class Source:
    """What is known of a group on the chip that is cut later: the cores its neurons reach, in total and at most."""

    size: int
    fewest: int  # cores, by neurons and synapses
    reached: int
    most: int

    @classmethod
    def of(cls, group: Group, output_axons: np.ndarray, chip: Chip) -> Source:
        bits = chip.bits_per_synapse * _TileSums(group.fan_in, group.shape).total
        fewest = -(-group.size // chip.neurons_per_core)
        if chip.synaptic_bits_per_core is not None:
            fewest = max(fewest, -(-bits // chip.synaptic_bits_per_core))
        return cls(group.size, fewest, _TileSums(output_axons, group.shape).total, int(output_axons.max()))

    def cores(self, reached: np.ndarray, most: np.ndarray, limit: int) -> np.ndarray:
        """Estimate the cores of the source if its neurons reach `reached` more cores in all, and one of them `most`.

        Because tiles are equal, the neuron that reaches most determines them.
        """
        evenly = (self.reached + reached) / limit
        return np.maximum(np.maximum(self.fewest, evenly), self.size * np.maximum(self.most, most) / limit)


def cut(
    group: Group, output_axons: np.ndarray, chip: Chip, sources: dict[str, Source], work: Work | None = None
) -> Bounds:
    """Choose the equal tiles that need the fewest cores, those of the sources included.

    A choice n cuts axis a into n_a nearly equal parts, which gives Π_a n_a tiles of one core each. With S for the
    groups that send here, pre(i) for the neurons that reach neuron i, and tiles(j) for the tiles that j reaches:

        minimise  Π_a n_a + Σ_{s ∈ sources} cores_s(n), then Σ_{s ∈ S} Σ_{j ∈ s} tiles(j), then n
        subject to, for each tile k,
                    |k| ≤ neurons per core
                    bits per synapse · Σ_{i ∈ k} fan_in(i) ≤ synaptic bits per core
                    |∪_{i ∈ k} pre(i)| ≤ input axons per core
                    Σ_{i ∈ k} output_axons(i) ≤ output axons per core

    The second aim is the number of cores that spikes have to reach. cores_s counts only where
    output axons are limited: then a source has more neurons per core if each of them reaches few
    tiles. A limit that a single neuron exceeds is raised to what that neuron needs, so that there
    is always a cut. Bounds computed for all choices at once leave few candidates; the first, in the
    order of the aims, that meets the exact constraints is the solution.

    Each of 2 x 2 neurons sees a row of its source. On cores of two neurons, tiles of a row let each
    source neuron reach one core instead of two:

    >>> from mksgn.deploy.placement.connectivity import Factor
    >>> row = (Factor(0, 0, np.eye(2, dtype=bool)), Factor(1, 1, np.ones((2, 2), dtype=bool)))
    >>> group = Group("b", (2, 2), (Edge("a", (2, 2), row, fan_in=np.full((1, 1), 2)),))
    >>> chip = Chip("tiny", cores=4, neurons_per_core=2, synaptic_bits_per_core=1024, source="none")
    >>> cut(group, np.zeros((1, 1), dtype=np.int64), chip, {})
    (array([0, 1, 2]), array([0, 2]))

    Args:
        output_axons: int64, broadcasts against the group's shape.
        sources: those of the group's sources that lie on the chip and are cut later, by name.
        work: the most that a tile may work in a time step; if every choice exceeds it, the least comes first.
    """
    limits = np.maximum(chip.capacities, single_neuron_needs(group, output_axons, chip))
    choices = [_splits(length) for length in group.shape]
    fan_in, out = _TileSums(group.fan_in, group.shape), _TileSums(output_axons, group.shape)
    cores = _product([[len(bounds) - 1 for bounds in splits] for splits in choices])
    neurons = _product([[int(np.diff(bounds).max()) for bounds in splits] for splits in choices])
    least, most = _input_axon_range(group, choices)
    possible = (
        (neurons <= limits[0])
        & (chip.bits_per_synapse * fan_in.total <= limits[1] * cores)
        & (least <= limits[2])
        & (out.total <= limits[3] * cores)
    )
    over = np.zeros(cores.shape)
    if work is not None:
        over = np.maximum(work.expected(group, choices, cores, neurons, out.total) - work.most, 0.0)
    needed, crossed = _costs(group, choices, cores, sources, chip.output_axons_per_core)
    candidates = np.argwhere(possible)
    order = np.lexsort((*candidates.T[::-1], crossed[possible], needed[possible], over[possible]))
    for index in candidates[order]:
        bounds = tuple(splits[i] for splits, i in zip(choices, index, strict=True))
        fits = chip.bits_per_synapse * fan_in.over(bounds).max() <= limits[1] and out.over(bounds).max() <= limits[3]
        if fits and (most[tuple(index)] <= limits[2] or input_axons(group, bounds).max() <= limits[2]):
            return bounds
    raise AssertionError(f"{group.name}: its neurons do not fit a core each")  # the limits were raised to that


def _costs(
    group: Group, choices: Choices, cores: np.ndarray, sources: dict[str, Source], output_axon_limit: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the aims of `cut` for every choice: cores including the sources', and cores that spikes have to reach."""
    needed, crossed = cores.astype(np.float64), np.zeros_like(cores)
    for name, edges in _by_source(group).items():
        links, _ = _links(edges)
        reached = sum((axons.reached(link, choices) for link in links), start=np.zeros_like(cores))
        crossed += reached
        if name in sources and links and output_axon_limit is not None:
            most = np.maximum.reduce(np.broadcast_arrays(*(axons.most_reached(link, choices) for link in links)))
            needed += sources[name].cores(reached, most, output_axon_limit)
    return needed, crossed


def single_neuron_needs(group: Group, output_axons: np.ndarray, chip: Chip) -> tuple[int, int, int, int]:
    """Return the most that any neuron needs of each of RESOURCES on a core of its own.

    Input axons are an upper bound if that is within the chip's limit.
    """
    single = tuple(np.arange(n + 1) for n in group.shape)
    _, most = _input_axon_range(group, [[bounds] for bounds in single])
    inputs = int(most.max())
    if chip.input_axons_per_core is not None and inputs > chip.input_axons_per_core:
        inputs = int(input_axons(group, single).max())
    return 1, chip.bits_per_synapse * int(group.fan_in.max()), inputs, int(output_axons.max())


def _product(factors: list[list[int]]) -> np.ndarray:
    """(choices per axis …): for every choice the product of one factor per axis."""
    return reduce(np.multiply.outer, [np.array(values, dtype=np.int64) for values in factors])


def _splits(length: int) -> list[np.ndarray]:
    """Return the bounds of cuts of an axis into nearly equal parts, the fewest of each length; the whole axis first."""
    counts = sorted({-(-length // longest) for longest in range(1, length + 1)})
    return [np.arange(count + 1) * length // count for count in counts]


def _input_axon_range(group: Group, choices: Choices) -> tuple[np.ndarray, np.ndarray]:
    """Bound the fullest tile's input axons from below and above for every choice of bounds, (choices per axis …)."""
    size = [len(splits) for splits in choices]
    least, most = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for edges in _by_source(group).values():
        links, others = _links(edges)
        per_link = [axons.fullest(link, choices) for link in links]
        sources = math.prod(edges[0].source_shape)
        if others:
            most += sources
        else:
            most += np.minimum(sum(per_link), sources)
            least += np.maximum.reduce(np.broadcast_arrays(*per_link))
    return least, most


def usage(group: Group, output_axons: np.ndarray, bounds: Bounds, chip: Chip) -> np.ndarray:
    """(tiles, RESOURCES) int64: what each tile needs, in the order of (channel, frame, joint)."""
    one = np.ones((1,) * len(group.shape), dtype=np.int64)
    needs = (
        _TileSums(one, group.shape).over(bounds),
        chip.bits_per_synapse * _TileSums(group.fan_in, group.shape).over(bounds),
        input_axons(group, bounds),
        _TileSums(output_axons, group.shape).over(bounds),
    )
    return np.stack([np.broadcast_to(x, parts(bounds)).ravel() for x in needs], axis=1)


class _TileSums:
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
    """Count the distinct neurons that reach each tile; broadcasts against the number of parts per axis."""
    total = np.zeros((1,) * len(group.shape), dtype=np.int64)
    for edges in _by_source(group).values():
        links, others = _links(edges)
        reach = axons.union([axons.to_parts(link, bounds) for link in links], "target", group.shape)
        for edge in others:
            reach = reach + _TileSums(edge.fan_in, group.shape).over(bounds)
        total = total + np.minimum(reach, np.prod(edges[0].source_shape))
    return total


def cores_reached(edges: list[Edge], target: Group, bounds: Bounds) -> np.ndarray:
    """Count the tiles of the target that each neuron of the edges' source reaches."""
    links, others = _links(edges)
    reached = axons.union([axons.to_parts(link, bounds) for link in links], "source", edges[0].source_shape)
    for edge in others:
        reached = reached + fan_out(edge)
    return np.minimum(reached, np.prod(parts(bounds)))


def fan_out(edge: Edge) -> np.ndarray:
    """Count the synapses that leave each source neuron."""
    if edge.fan_out is not None:
        return edge.fan_out
    assert edge.link is not None
    return axons.union([edge.link], "source", edge.source_shape)


def _links(edges: list[Edge]) -> tuple[list[Link], list[Edge]]:
    """Return the patterns of the edges, and the edges that have none."""
    return axons.maximal([e.link for e in edges if e.link is not None]), [e for e in edges if e.link is None]


def _by_source(group: Group) -> dict[str, list[Edge]]:
    by_source: dict[str, list[Edge]] = defaultdict(list)
    for edge in group.edges:
        by_source[edge.source].append(edge)
    return by_source


def edges_from(source: str, target: Group) -> list[Edge]:
    return [edge for edge in target.edges if edge.source == source]


def parts(bounds: Bounds) -> tuple[int, ...]:
    """Return the number of parts per axis."""
    return tuple(len(b) - 1 for b in bounds)


def tile_of(bounds: Bounds) -> np.ndarray:
    """Return the tile of each neuron, of the population's shape: int64, counted from 0."""
    tile = np.zeros((1,) * len(bounds), dtype=np.int64)
    for axis, edges in enumerate(bounds):
        part = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
        tile = tile * (len(edges) - 1) + part.reshape([-1 if i == axis else 1 for i in range(len(bounds))])
    return tile


def tile_sums(values: np.ndarray, bounds: Bounds) -> np.ndarray:
    """Sum (…, *shape) over each tile: (…, tiles)."""
    first = values.ndim - len(bounds)
    for axis, edges in enumerate(bounds):
        values = np.add.reduceat(values, edges[:-1], axis=first + axis)
    return values.reshape(*values.shape[:first], -1)
