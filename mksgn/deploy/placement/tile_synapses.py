"""The synapses from each neuron of a source to each tile of a target: a placement's connections, tile by tile.

For any spikes, they give the synaptic operations of a core and the messages that it receives. They
are exact for every projection: the number of paths from a source neuron to a tile is the gradient of
the tile's sum with every weight replaced by 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch

from mksgn.deploy.placement.connectivity import Link, groups
from mksgn.deploy.placement.place import Placement
from mksgn.deploy.placement.tiles import Bounds, parts, tile_of
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Product, SynapseKind

BYTES_AT_ONCE = 2**26  # of a target's values in one backward pass


@dataclass(frozen=True, eq=False)
class Reach:
    """Which tiles of a target each neuron of a source reaches: a sparse matrix (tiles, neurons), entry by entry.

    Attributes:
        shape: tiles and neurons.
        tile: of each entry, int64; likewise `neuron`.
        paths: synapses of the neuron that end in the tile.
    """

    shape: tuple[int, int]
    tile: np.ndarray
    neuron: np.ndarray
    paths: np.ndarray

    def sums(self, spikes: np.ndarray, *, weighted: bool = True) -> np.ndarray:
        """Sum spikes (…, neurons) by tile, each counted once per path or just once: (…, tiles) int64."""
        rows = spikes.reshape(-1, spikes.shape[-1])
        found = np.empty((len(rows), self.shape[0]), dtype=np.int64)
        for row, values in zip(found, rows, strict=True):
            weights = values[self.neuron] * self.paths if weighted else values[self.neuron]
            row[:] = np.rint(np.bincount(self.tile, weights, self.shape[0]))
        return found.reshape(*spikes.shape[:-1], -1)

    def pairs(self, spikes: np.ndarray, sender: np.ndarray, senders: int) -> np.ndarray:
        """Sum spikes (…, neurons) by sending tile, (neurons,), and by reached tile: (…, senders, tiles) int64."""
        rows = spikes.reshape(-1, spikes.shape[-1])
        index = sender[self.neuron] * self.shape[0] + self.tile
        size = senders * self.shape[0]
        found = [np.rint(np.bincount(index, values[self.neuron], size)).astype(np.int64) for values in rows]
        return np.stack(found).reshape(*spikes.shape[:-1], senders, -1)

    @property
    def tiles_reached(self) -> np.ndarray:
        """Number of tiles that each neuron reaches, (neurons,) int64."""
        return np.bincount(self.neuron, minlength=self.shape[1])


@dataclass(frozen=True, eq=False)
class TileSynapses:
    """Synapses from one source to the tiles of one target.

    Attributes:
        target: a placed population, or its product units.
        delay: steps by which a spike arrives late within the sample.
    """

    source: str
    target: str
    kind: SynapseKind
    delay: int
    reach: Reach


def tile_synapses(placement: Placement) -> tuple[TileSynapses, ...]:
    """List the synapses that carry spikes and end on the chip; for products, those that end in their units."""
    program = placement.program
    placed = {p.name: p for p in placement.populations}
    units = {group.units_of: group for group in groups(program) if group.units_of is not None}
    found = []
    for population in program.populations:
        for projection in program.into(population.name) if population.name in placed else ():
            if not all(program.sends_spikes(source) for source in projection.sources):
                continue
            delays = [program.arrival_delay(projection, i) for i in range(len(projection.sources))]
            if isinstance(projection, Product):
                group = units[population.name]
                for edge in group.edges:
                    assert edge.link is not None  # a product's axes always separate
                    reach = _of_link(edge.link, placed[group.name].bounds, edge.source_shape)
                    delay = delays[projection.sources.index(edge.source)]
                    found.append(TileSynapses(edge.source, group.name, projection.synapse_kind, delay, reach))
            else:
                shape = program[projection.source].shape
                reach = _of_operators(projection.operators, shape, placed[population.name].bounds)
                found.append(
                    TileSynapses(projection.source, population.name, projection.synapse_kind, delays[0], reach)
                )
    return tuple(found)


def reached_tiles(synapses: Iterable[TileSynapses]) -> dict[tuple[str, str], Reach]:
    """Return which tiles of a target each neuron of a source reaches over any projection, once each."""
    reached: dict[tuple[str, str], Reach] = {}
    for each in synapses:
        ends, reach = (each.source, each.target), each.reach
        if ends in reached:
            other = reached[ends]
            entries = np.union1d(reach.tile * reach.shape[1] + reach.neuron, other.tile * reach.shape[1] + other.neuron)
            tile, neuron = np.divmod(entries, reach.shape[1])
            reach = Reach(reach.shape, tile, neuron, np.ones(len(tile), dtype=np.float32))
        reached[ends] = reach
    return reached


def _of_operators(operators: ops.Operators, shape: tuple[int, ...], bounds: Bounds) -> Reach:
    """Count the synapses from each neuron of `shape` to each tile."""
    ones = ops.with_weights(operators, np.ones_like)
    owner = tile_of(bounds)
    tiles, size = math.prod(parts(bounds)), math.prod(shape)
    at_once = max(1, BYTES_AT_ONCE // (4 * max(owner.size, size)))
    entries = []
    for first in range(0, tiles, at_once):
        which = np.arange(first, min(tiles, first + at_once))
        inside = torch.from_numpy(owner == which.reshape(-1, *(1,) * owner.ndim))
        with torch.enable_grad():
            x = torch.zeros((len(which), *shape), requires_grad=True)
            ops.apply(ones, x).backward(inside.float())
        assert x.grad is not None
        paths = np.rint(x.grad.reshape(len(which), -1).numpy())
        tile, neuron = np.nonzero(paths)
        entries.append((tile + first, neuron, paths[tile, neuron]))
    tile, neuron, paths = (np.concatenate(column) for column in zip(*entries, strict=True))
    return Reach((tiles, size), tile, neuron, paths)


def _of_link(link: Link, bounds: Bounds, shape: tuple[int, ...]) -> Reach:
    """Count the same for neurons that are connected by one product over the axes."""
    tile_strides, neuron_strides = _strides(parts(bounds)), _strides(shape)
    tiles, neurons, paths = [], [], []
    for factor in link:
        matrix = factor.matrix.astype(np.float32)
        if factor.target is not None:
            matrix = np.add.reduceat(matrix, bounds[factor.target][:-1], axis=0)
        part, place = np.nonzero(matrix)
        tiles.append(part * (0 if factor.target is None else tile_strides[factor.target]))
        neurons.append(place * (0 if factor.source is None else neuron_strides[factor.source]))
        paths.append(matrix[part, place])
    size = (math.prod(parts(bounds)), math.prod(shape))
    tile, neuron = (reduce(np.add.outer, x).ravel() for x in (tiles, neurons))
    return Reach(size, tile, neuron, reduce(np.multiply.outer, paths).ravel())


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
