"""Populations onto cores: each is cut into tiles, as few as keep every core inside the chip's limits.

A core holds neurons of one population, or product units of one population. A tile is a run of channels times a run of frames times
a run of joints, all tiles of a population as equal as whole numbers allow. Tiles need fewer cores than runs of the flattened index:
neurons of all channels at a few places share their inputs, while a thousand neurons of one channel see the whole layer before.

What is held against the limits, per core:
- neurons, product units included;
- synaptic bits: 8 per synapse, stored where it ends, zero weights too; nothing is shared between neurons;
- input axons: distinct neurons that reach the core, whatever their number of synapses there;
- output axons: over the core's neurons, the cores that each of them reaches.
The axons are exact but for masks (a delay per neuron) and merged axes (Flatten before a population), where they are upper bounds. What
the host sends counts as input axons; read-outs send nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mksgn.deploy.placement import tiles
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.placement.connectivity import Group, Shape, groups
from mksgn.deploy.placement.tiles import RESOURCES, WEIGHT_BITS, Bounds, core_limits
from mksgn.deploy.program.program import Population, Program

ATTEMPTS = 8  # at loops, whose cuts depend on each other


@dataclass(frozen=True, eq=False)
class PopulationPlacement:
    """One instance's population, or the product units of one, and its cores in the order of (channel, frame, joint)."""

    name: str
    shape: Shape
    bounds: Bounds  # per axis: first index of each part, and the axis's length
    first_core: int
    synapses: int  # that end here
    fan_in: int  # synapses of the neuron that has most
    usage: np.ndarray  # (cores, RESOURCES) int64
    cores_reached: np.ndarray  # by each neuron; an axis along which it does not change may have length 1
    units_of: str | None  # the population that these product units lead to

    @property
    def neurons(self) -> int:
        return int(self.usage[:, 0].sum())

    @property
    def cores(self) -> int:
        return len(self.usage)

    def core_of(self) -> np.ndarray:
        """The core of each neuron, int64 of the population's shape."""
        core = np.zeros((1,) * len(self.shape), dtype=np.int64)
        for axis, edges in enumerate(self.bounds):
            part = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
            core = core * (len(edges) - 1) + part.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
        return np.broadcast_to(core + self.first_core, self.shape)


@dataclass(frozen=True)
class Overflow:
    """Neurons that no core holds, even alone."""

    name: str
    quantity: str
    value: int  # of the neuron that needs most
    limit: int


@dataclass(frozen=True, eq=False)
class Placement:
    """One instance of a program on a chip's cores; needing several chips is no violation, `overflows` are."""

    chip: Chip
    program: Program
    populations: tuple[PopulationPlacement, ...]
    overflows: tuple[Overflow, ...]
    # by source and target: cores of the target that each neuron of the source reaches; the host's populations are sources too
    reached: dict[tuple[str, str], np.ndarray]

    @property
    def cores(self) -> int:
        return sum(p.cores for p in self.populations)

    @property
    def chips(self) -> int:
        return -(-self.cores // self.chip.cores)

    @cached_property
    def usage(self) -> np.ndarray:
        """(cores, RESOURCES) int64."""
        return np.concatenate([np.zeros((0, len(RESOURCES)), dtype=np.int64), *(p.usage for p in self.populations)])

    @property
    def limits(self) -> list[tuple[str, int, int | None]]:
        """(quantity, largest value on any core, limit of the chip or None where none is published)."""
        most = self.usage.max(axis=0, initial=0)
        return [
            (f"{resource} per core", int(value), limit)
            for resource, value, limit in zip(RESOURCES, most, core_limits(self.chip), strict=True)
        ]


def synapses(program: Program, population: Population) -> int:
    """Synapses that end in a population, or in its product units."""
    total = 0
    for projection in program.into(population.name):
        total += sum(int(fan_out.sum()) for fan_out in program.fan_outs(projection))
    return total


def place(program: Program, chip: Chip) -> Placement:
    """One instance of the program on as few cores as equal tiles of its populations need.

    From the last population to the first, because a neuron's output axons follow from its targets' tiles. Inside a loop they follow
    from the tiles of the attempt before, and at last from the synapses, each of which reaches one core at most.
    """
    found = groups(program)
    cuts: dict[str, Bounds] = {}
    for attempt in range(ATTEMPTS):
        cuts, looped = _cut_all(found, chip, cuts, bounded=attempt == ATTEMPTS - 1)
        placement = _placement(program, chip, found, cuts)
        if not looped or not any(_crowded(p, chip) for p in placement.populations):
            break
    return placement


def _cut_all(
    found: list[Group], chip: Chip, before: dict[str, Bounds], *, bounded: bool
) -> tuple[dict[str, Bounds], bool]:
    """Tiles of every group, and whether some lead back to groups cut earlier, whose tiles of the attempt `before` stand in."""
    cuts: dict[str, Bounds] = {}
    sent = {group.name: _none(group) for group in found}  # cores that each neuron reaches
    looped = False
    for group in reversed(found):
        for target in found:
            edges = tiles.between(group.name, target)
            if not edges or target.name in cuts:
                continue
            looped = True
            if bounded:
                sent[group.name] = sent[group.name] + sum(tiles.fan_out(edge) for edge in edges)
            elif target.name in before:
                sent[group.name] = sent[group.name] + tiles.cores_reached(edges, target, before[target.name])
        sources = {
            source.name: tiles.Source.of(source, sent[source.name], chip)
            for source in found
            if source.name not in cuts and source is not group and tiles.between(source.name, group)
        }
        cuts[group.name] = tiles.cut(group, sent[group.name], chip, sources)
        for source in sources:
            edges = tiles.between(source, group)
            sent[source] = sent[source] + tiles.cores_reached(edges, group, cuts[group.name])
    return cuts, looped


def _none(group: Group) -> np.ndarray:
    return np.zeros((1,) * len(group.shape), dtype=np.int64)


def _placement(program: Program, chip: Chip, found: list[Group], cuts: dict[str, Bounds]) -> Placement:
    placed: list[PopulationPlacement] = []
    overflows: list[Overflow] = []
    reached = {
        (source, target.name): tiles.cores_reached(tiles.between(source, target), target, cuts[target.name])
        for target in found
        for source in dict.fromkeys(edge.source for edge in target.edges)
    }
    first = 0
    for group in found:
        bounds = cuts[group.name]
        sent = sum((cores for (source, _), cores in reached.items() if source == group.name), start=_none(group))
        usage = np.stack(
            [np.broadcast_to(x, tiles.parts(bounds)).ravel() for x in tiles.usage(group, sent, bounds)], axis=1
        )
        total = int(usage[:, 1].sum()) // WEIGHT_BITS
        most = int(group.fan_in.max())
        each = PopulationPlacement(group.name, group.shape, bounds, first, total, most, usage, sent, group.units_of)
        placed.append(each)
        first += each.cores
        for resource, values, limit in zip(RESOURCES, tiles.alone(group, sent, chip), core_limits(chip), strict=True):
            if limit is not None and values > limit:
                overflows.append(Overflow(group.name, resource, values, limit))
    return Placement(chip, program, tuple(placed), tuple(overflows), reached)


def _crowded(placed: PopulationPlacement, chip: Chip) -> bool:
    """Whether a core of several neurons is over a limit."""
    limits = np.array([np.inf if limit is None else limit for limit in core_limits(chip)])
    return bool(((placed.usage > limits).any(axis=1) & (placed.usage[:, 0] > 1)).any())
