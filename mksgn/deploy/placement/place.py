"""Place a program on a chip: cut each population into tiles, as few as keep every core within the chip's limits.

The files of this folder, in the order in which placing uses them:
- `connectivity`: which neurons are connected, axis by axis, and the groups of neurons to be cut;
- `chips`: the limits of a chip and of its cores;
- `axons`: how many distinct neurons reach a core, and how many cores a neuron reaches;
- `tiles`: the best cut of one group, and what its tiles need;
- `place`: the cuts of all groups, from the last to the first;
- `check`: what does not fit; `utilisation`: how full the cores are.

A core holds neurons of one population, or product units of one population. A tile is a run of
channels times a run of frames times a run of joints; all tiles of a population are as equal as
whole numbers allow. Tiles need fewer cores than runs of the flattened index: neurons of all
channels at a few places share their inputs, whereas a thousand neurons of one channel see the whole
previous layer.

Each core is checked against four limits:
- neurons, product units included;
- synaptic bits: of each synapse (8 unless the chip has others), zero weights too, at its target; neurons share nothing;
- input axons: distinct neurons that reach the core, whatever their number of synapses there;
- output axons: the sum over the core's neurons of the cores that each of them reaches.
Axons are exact except for masks (a delay per neuron) and merged axes (Flatten before a population),
where they are upper bounds. What the host sends counts as input axons; read-outs send nothing.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mksgn.deploy.placement import tiles
from mksgn.deploy.placement.chip_file import Mesh
from mksgn.deploy.placement.chips import CORES_REACHED, RESOURCES, Chip
from mksgn.deploy.placement.connectivity import Group, Shape, groups
from mksgn.deploy.placement.tiles import Bounds
from mksgn.deploy.placement.work import Work
from mksgn.deploy.program.program import Population, Program

ATTEMPTS = 8  # to cut recurrent loops, whose cuts depend on each other


@dataclass(frozen=True, eq=False)
class PopulationPlacement:
    """A population of one instance, or the product units of one; its cores in the order of (channel, frame, joint)."""

    name: str
    shape: Shape
    bounds: Bounds  # per axis: first index of each part, and the axis's length
    first_core: int
    synapses: int  # that end here
    fan_in: int  # synapses of the neuron that has the most
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
        """Return the core of each neuron: int64, of the population's shape."""
        return np.broadcast_to(tiles.tile_of(self.bounds) + self.first_core, self.shape)


@dataclass(frozen=True)
class Overflow:
    """Neurons of a population or of product units that no core can hold, even one neuron per core."""

    name: str
    quantity: str
    value: int  # of the neuron that needs the most
    limit: int


@dataclass(frozen=True, eq=False)
class Placement:
    """One instance of a program on a chip's cores. `overflows` are violations; needing several chips is not."""

    chip: Chip
    program: Program
    populations: tuple[PopulationPlacement, ...]
    overflows: tuple[Overflow, ...]
    # By source (host populations too) and target: cores of the target that each neuron of the
    # source reaches.
    reached: dict[tuple[str, str], np.ndarray]

    @property
    def cores(self) -> int:
        return sum(p.cores for p in self.populations)

    @property
    def chips(self) -> int:
        return -(-self.cores // self.chip.cores)

    @property
    def mesh(self) -> Mesh | None:
        """The mesh on which the cores have coordinates; None without one, or on several chips."""
        return self.chip.mesh if self.chips <= 1 else None

    @cached_property
    def usage(self) -> np.ndarray:
        """(cores, RESOURCES) int64."""
        return np.concatenate([np.zeros((0, len(RESOURCES)), dtype=np.int64), *(p.usage for p in self.populations)])

    @property
    def limits(self) -> list[tuple[str, int, int | None]]:
        """For each resource: its name, the largest value on any core, and the chip's limit (None: not published).

        If the chip limits the cores that one neuron reaches, these come last.
        """
        most = self.usage.max(axis=0, initial=0)
        rows = [
            (f"{resource} per core", int(value), limit)
            for resource, value, limit in zip(RESOURCES, most, self.chip.core_limits, strict=True)
        ]
        if self.chip.cores_per_neuron is not None:
            reached = max((int(p.cores_reached.max(initial=0)) for p in self.populations), default=0)
            rows.append((CORES_REACHED, reached, self.chip.cores_per_neuron))
        return rows


def synapses(program: Program, population: Population) -> int:
    """Count the synapses that end in a population or in its product units."""
    return sum(
        int(fan_out.sum()) for projection in program.into(population.name) for fan_out in program.fan_outs(projection)
    )


def place(program: Program, chip: Chip, work: Work | None = None, on_chip: list[Group] | None = None) -> Placement:
    """Place one instance of the program on as few cores as equal tiles of its populations need.

    With `work`, on as few as keep every tile's work in a time step within its bound. `on_chip` are
    the program's groups, if they are already known.

    Groups are cut from the last to the first, because a neuron's output axons follow from its
    targets' tiles. Inside a loop they follow from the tiles of the previous attempt; in the last
    attempt they follow from the synapses, each of which reaches one core at most.
    """
    on_chip = groups(program) if on_chip is None else on_chip
    cuts: dict[str, Bounds] = {}
    for attempt in range(ATTEMPTS):
        cuts, looped = _cut_all(on_chip, chip, cuts, work, bounded=attempt == ATTEMPTS - 1)
        placement = _placement(program, chip, on_chip, cuts)
        if not looped or not any(_overfull(p, chip) for p in placement.populations):
            break
    return placement


def cores_needed(on_chip: list[Group], chip: Chip, work: Work) -> int:
    """Count the cores that a placement would need, without making it."""
    cuts, _ = _cut_all(on_chip, chip, {}, work, bounded=False)
    return sum(math.prod(tiles.parts(bounds)) for bounds in cuts.values())


def _cut_all(
    on_chip: list[Group], chip: Chip, previous: dict[str, Bounds], work: Work | None, *, bounded: bool
) -> tuple[dict[str, Bounds], bool]:
    """Cut every group; also say whether, because of a loop, some were cut with the `previous` attempt's cuts."""
    cuts: dict[str, Bounds] = {}
    output_axons = {group.name: _zeros(group) for group in on_chip}
    by_name, targets = {group.name: group for group in on_chip}, _targets(on_chip)
    looped = False
    for group in reversed(on_chip):
        for target in targets.get(group.name, ()):
            if target.name in cuts:
                continue
            edges = tiles.edges_from(group.name, target)
            looped = True
            if bounded:
                output_axons[group.name] = output_axons[group.name] + sum(tiles.fan_out(edge) for edge in edges)
            elif target.name in previous:
                reached = tiles.cores_reached(edges, target, previous[target.name])
                output_axons[group.name] = output_axons[group.name] + reached
        feeding = dict.fromkeys(edge.source for edge in group.edges)
        sources = {
            name: tiles.Source.of(by_name[name], output_axons[name], chip)
            for name in feeding
            if name in by_name and name not in cuts and name != group.name
        }
        cuts[group.name] = tiles.cut(group, output_axons[group.name], chip, sources, work)
        for source in sources:
            reached = tiles.cores_reached(tiles.edges_from(source, group), group, cuts[group.name])
            output_axons[source] = output_axons[source] + reached
    return cuts, looped


def _targets(on_chip: list[Group]) -> dict[str, list[Group]]:
    """Return the groups that each source sends to, in their order."""
    targets: dict[str, list[Group]] = {}
    for target in on_chip:
        for source in dict.fromkeys(edge.source for edge in target.edges):
            targets.setdefault(source, []).append(target)
    return targets


def _zeros(group: Group) -> np.ndarray:
    return np.zeros((1,) * len(group.shape), dtype=np.int64)


def _placement(program: Program, chip: Chip, on_chip: list[Group], cuts: dict[str, Bounds]) -> Placement:
    placed, overflows = [], []
    reached = {
        (source, target.name): tiles.cores_reached(tiles.edges_from(source, target), target, cuts[target.name])
        for target in on_chip
        for source in dict.fromkeys(edge.source for edge in target.edges)
    }
    axons_of: dict[str, list[np.ndarray]] = {}
    for (source, _), cores in reached.items():
        axons_of.setdefault(source, []).append(cores)
    first_core = 0
    for group in on_chip:
        name, bounds = group.name, cuts[group.name]
        output_axons = sum(axons_of.get(name, ()), start=_zeros(group))
        usage = tiles.usage(group, output_axons, bounds, chip)
        total, most = int(usage[:, 1].sum()) // chip.bits_per_synapse, int(group.fan_in.max())
        placed.append(
            PopulationPlacement(name, group.shape, bounds, first_core, total, most, usage, output_axons, group.units_of)
        )
        first_core += placed[-1].cores
        needs = tiles.single_neuron_needs(group, output_axons, chip)
        for resource, need, limit in zip(RESOURCES, needs, chip.core_limits, strict=True):
            if limit is not None and need > limit:
                overflows.append(Overflow(name, resource, need, limit))
    return Placement(chip, program, tuple(placed), tuple(overflows), reached)


def _overfull(placed: PopulationPlacement, chip: Chip) -> bool:
    """Return whether a core of several neurons exceeds a limit."""
    return bool(((placed.usage > chip.capacities).any(axis=1) & (placed.usage[:, 0] > 1)).any())
