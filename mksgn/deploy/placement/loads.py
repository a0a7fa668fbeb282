"""What each core does at each time step: messages, synaptic operations, neuron accesses, updates and spikes.

A time step of the chip lasts as long as its busiest core works, which neither sums over the network
nor means over the steps show. So the spikes of a run are counted by core and step.

Steps are the chip's: a population at depth d handles step t of a sample at step d + t. The messages
of a spike, and the synaptic operations that they cause, are counted in the step in which it is fired:
a synaptic delay holds back only what the spike adds to the membrane. Product units are neurons with a
step of their own; a coincidence is a spike of a unit, with one synaptic operation at the neuron that
sums the units. A spike that a logical delay carries beyond the sample's end is a message but not a
synaptic operation, as in event_counts. Graded values are not spikes and are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.place import Placement, PopulationPlacement
from mksgn.deploy.placement.tile_synapses import Reach, TileSynapses, reached_tiles, tile_synapses
from mksgn.deploy.placement.tiles import tile_of, tile_sums
from mksgn.deploy.program.program import Population, Product

# what is counted for a core; its synaptic operations by kind of synapse
EVENTS = ("messages_in", "dense", "sparse", "convolution", "accesses", "updates", "spikes", "messages_out")
COLUMN = {event: column for column, event in enumerate(EVENTS)}


@dataclass(frozen=True, eq=False)
class Messages:
    """Messages between the tiles of two populations.

    Attributes:
        sender: first core of the sending tiles.
        receiver: first core of the receiving tiles.
        first: the chip's time step of the first counts.
        count: (samples, steps, senders, receivers) int64.
        units: whether product units send them.
    """

    sender: int
    receiver: int
    first: int
    count: np.ndarray
    units: bool = False


@dataclass(frozen=True, eq=False)
class Loads:
    """Counts by core and time step, for samples that are each alone on the chip.

    Attributes:
        counts: (samples, steps, cores, EVENTS) int32, from the first step of a sample to the last step
            of its output. Every neuron is accessed at every step.
        messages: the cores' messages by sender and receiver, if cores have coordinates; else empty.
        steps: time steps S of a sample, fewer than those of `counts` by the latency.
    """

    counts: np.ndarray
    messages: tuple[Messages, ...]
    steps: int

    def streaming(self) -> np.ndarray:
        """Return (samples, S, cores, EVENTS): counts if each sample streams between samples that are like it.

        Step t stands for each step τ of the chip with τ mod S = t, once the pipeline is full.
        """
        samples, length, *rest = self.counts.shape
        rounds = -(-length // self.steps)
        padded = np.zeros((samples, rounds * self.steps, *rest), dtype=np.int32)
        padded[:, :length] = self.counts
        counts = padded.reshape(samples, rounds, self.steps, *rest).sum(1, dtype=np.int32)
        counts[..., COLUMN["accesses"]] = self.counts[:, : self.steps, :, COLUMN["accesses"]]
        return counts


def core_loads(placement: Placement, activity: Activity) -> Loads:
    """Count what every core of a placement does at every step of a run."""
    counting = _Counting(placement, activity, by_pair=placement.mesh is not None)
    synapses = tile_synapses(placement)
    for each in synapses:
        counting.synaptic_operations(each)
    for (source, target), reach in reached_tiles(synapses).items():
        counting.sent(source, target, reach)
    for population in placement.program.populations:
        if population.name in counting.placed:
            counting.neurons(population)
    return Loads(counting.counts, tuple(counting.messages), counting.steps)


def messages_over(
    reach: Reach, spikes: np.ndarray, sender: PopulationPlacement, receiver: PopulationPlacement, first: int
) -> Messages:
    """Count the messages of spikes, (samples, steps, neurons), by sending and receiving tile."""
    pairs = reach.pairs(spikes, tile_of(sender.bounds).ravel(), sender.cores)
    return messages_between(sender, receiver, first, pairs)


def messages_between(
    sender: PopulationPlacement, receiver: PopulationPlacement, first: int, pairs: np.ndarray
) -> Messages:
    """Add the cores to counts between tiles, (samples, steps, senders, receivers) int64."""
    return Messages(sender.first_core, receiver.first_core, first, pairs, sender.units_of is not None)


class _Counting:
    """The counts while they accumulate."""

    def __init__(self, placement: Placement, activity: Activity, *, by_pair: bool):
        self.program, self.activity, self.by_pair = placement.program, activity, by_pair
        self.samples, self.steps = activity.samples, activity.steps
        self.placed = {p.name: p for p in placement.populations}
        self.units = {p.units_of: p for p in placement.populations if p.units_of is not None}
        length = self.steps + max(p.chip_depth for p in self.program.populations)
        self.counts = np.zeros((self.samples, length, placement.cores, len(EVENTS)), dtype=np.int32)
        self.counts[..., COLUMN["accesses"]] = placement.usage[:, 0]
        self.messages: list[Messages] = []

    def add(self, event: str, placed: PopulationPlacement, first: int, count: np.ndarray) -> None:
        """Add counts (samples, steps, tiles), which begin at time step `first` of the chip."""
        cores = slice(placed.first_core, placed.first_core + placed.cores)
        self.counts[:, first : first + count.shape[1], cores, COLUMN[event]] += count.astype(np.int32)

    def sends(self, source: str) -> np.ndarray:
        """Return the spikes of a population, (samples, steps, neurons) float32."""
        return self.activity.spikes[source].reshape(self.samples, self.steps, -1).astype(np.float32)

    def synaptic_operations(self, synapses: TileSynapses) -> None:
        arriving = self.sends(synapses.source)[:, : max(0, self.steps - synapses.delay)]
        target, first = self.placed[synapses.target], self.program[synapses.source].chip_depth
        operations = synapses.reach.sums(arriving)
        self.add(synapses.kind, target, first, operations)
        if target.units_of is not None:  # a unit that both of its inputs reach is updated once: see `product`
            self.add("updates", target, self.program[target.units_of].chip_depth - 1, operations)

    def sent(self, source: str, target: str, reach: Reach) -> None:
        """Count a source's messages to the tiles of a target."""
        sender, receiver, spikes = self.placed.get(source), self.placed[target], self.sends(source)
        first = self.program[source].chip_depth
        self.add("messages_in", receiver, first, reach.sums(spikes, weighted=False))
        if sender is None:
            return
        out = (spikes * reach.tiles_reached).reshape(*spikes.shape[:2], *sender.shape)
        self.add("messages_out", sender, first, np.rint(tile_sums(out, sender.bounds)))
        if self.by_pair:
            self.messages.append(messages_over(reach, spikes, sender, receiver, first))

    def neurons(self, population: Population) -> None:
        """Count a population's spikes and updates, and what its product units do."""
        placed, updated = self.placed[population.name], self.activity.updated[population.name]
        self.add("updates", placed, population.chip_depth, tile_sums(updated.astype(np.int64), placed.bounds))
        if population.fires:
            fired = self.activity.spikes[population.name].astype(np.int64)
            self.add("spikes", placed, population.chip_depth, tile_sums(fired, placed.bounds))
        for projection in self.program.into(population.name):
            if isinstance(projection, Product):
                self.product(projection, population)

    def product(self, product: Product, population: Population) -> None:
        """Count the coincidences of a product's units: their spikes, messages, and what they add to the target."""
        units, target = self.units[population.name], self.placed[population.name]
        pairs = np.stack([self.coincidences(product, sample, units, target) for sample in range(self.samples)])
        first = population.chip_depth - 1
        self.add("spikes", units, first, pairs.sum(3))
        self.add("updates", units, first, -pairs.sum(3))
        self.add("sparse", target, first, pairs.sum(2))
        self.add("messages_in", target, first, pairs.sum(2))
        self.add("messages_out", units, first, pairs.sum(3))
        if self.by_pair:
            self.messages.append(messages_between(units, target, first, pairs))

    def coincidences(
        self, product: Product, sample: int, units: PopulationPlacement, target: PopulationPlacement
    ) -> np.ndarray:
        """Count the coincidences of one sample by tile of units and target, (steps, unit tiles, target tiles) int64.

        Both cut the same axes, but the target cuts some of them into fewer parts. A cell of their
        common refinement lies in one tile of each.
        """
        *first, stacked = [
            self.activity.arrived(product, index, sample).astype(np.int64) for index in range(len(product.sources))
        ]
        q, k, v = np.split(stacked, 3, axis=1)
        channels, heads = units.shape[0], product.heads
        width = channels // heads
        target_bounds = list(target.bounds)
        if product.part == "m":  # the target's channels are heads
            target_bounds[0] = target_bounds[0] * width
        else:  # the target sums over the keys
            target_bounds.append(np.array([0, units.shape[3]]))
        bounds = [np.union1d(a, b) for a, b in zip(units.bounds, target_bounds, strict=True)]
        if product.part == "m":
            left = np.add.reduceat(q, bounds[2][:-1], axis=3)[..., :, None]
            right = np.add.reduceat(k, bounds[3][:-1], axis=3)[..., None, :]
            cells = left * right
        else:
            maps = np.repeat(np.add.reduceat(first[0], bounds[2][:-1], axis=3), width, axis=1)
            cells = np.add.reduceat(maps * v[..., None, :], bounds[3][:-1], axis=4)
        for axis in (0, 1):
            cells = np.add.reduceat(cells, bounds[axis][:-1], axis=axis + 1)
        sender = _tile_of_cell(bounds, units.bounds)
        receiver = _tile_of_cell(bounds, target_bounds)
        pairs = np.zeros((len(cells), units.cores, target.cores), dtype=np.int64)
        for step, counts in zip(pairs, cells.reshape(len(cells), -1), strict=True):
            np.add.at(step, (sender.ravel(), receiver.ravel()), counts)
        return pairs


def _tile_of_cell(cells: list[np.ndarray], bounds: tuple[np.ndarray, ...] | list[np.ndarray]) -> np.ndarray:
    """Return the tile that each cell lies in, (cells per axis …) int64."""
    tile = np.zeros((1,) * len(bounds), dtype=np.int64)
    for axis, (starts, edges) in enumerate(zip(cells, bounds, strict=True)):
        part = np.searchsorted(edges, starts[:-1], side="right") - 1
        tile = tile * (len(edges) - 1) + part.reshape([-1 if i == axis else 1 for i in range(len(bounds))])
    return tile
