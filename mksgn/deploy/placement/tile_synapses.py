"""The synapses from each neuron of a source to each tile of a target: a placement's connections, tile by tile.

From them follow, for any spikes, the synaptic operations of a core and the messages that it receives.
They are exact for every projection: the number of paths from a source neuron to a tile is the
gradient of the tile's sum with every weight replaced by 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from mksgn.deploy.placement.connectivity import Link, groups
from mksgn.deploy.placement.place import Placement, PopulationPlacement
from mksgn.deploy.placement.tiles import Bounds, parts, tile_of
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Product, SynapseKind

BYTES_AT_ONCE = 2**26  # of a target's values in one backward pass


@dataclass(frozen=True, eq=False)
class TileSynapses:
    """Synapses from one source to the tiles of one target.

    Attributes:
        target: a placed population, or its product units.
        delay: steps by which a spike arrives late within the sample.
        count: (tiles, source neurons) float32: whole numbers, to be multiplied with spikes.
    """

    source: str
    target: str
    kind: SynapseKind
    delay: int
    count: np.ndarray


def tile_synapses(placement: Placement) -> tuple[TileSynapses, ...]:
    """List the synapses of spikes that end on the chip, of products those that end in their units."""
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
                    assert edge.link is not None  # of a product, the axes separate
                    count = _of_link(edge.link, placed[group.name].bounds)
                    delay = delays[projection.sources.index(edge.source)]
                    found.append(TileSynapses(edge.source, group.name, projection.synapse_kind, delay, count))
            else:
                shape = program[projection.source].shape
                count = _of_operators(projection.operators, shape, placed[population.name].bounds)
                found.append(
                    TileSynapses(projection.source, population.name, projection.synapse_kind, delays[0], count)
                )
    return tuple(found)


def reached_tiles(synapses: Iterable[TileSynapses]) -> dict[tuple[str, str], np.ndarray]:
    """Which tiles of a target each neuron of a source reaches, over any projection: (tiles, neurons) float32, 0 or 1."""
    reached: dict[tuple[str, str], np.ndarray] = {}
    for each in synapses:
        ends = each.source, each.target
        reached[ends] = (each.count > 0) | reached.get(ends, np.zeros((), dtype=bool))
    return {ends: tiles.astype(np.float32) for ends, tiles in reached.items()}


def _of_operators(operators: ops.Operators, shape: tuple[int, ...], bounds: Bounds) -> np.ndarray:
    """Count the synapses from each neuron of `shape` to each tile, (tiles, neurons)."""
    ones = ops.with_weights(operators, np.ones_like)
    owner = tile_of(bounds)
    tiles, size = math.prod(parts(bounds)), math.prod(shape)
    at_once = max(1, BYTES_AT_ONCE // (4 * max(owner.size, size)))
    count = np.zeros((tiles, size), dtype=np.float32)
    for first in range(0, tiles, at_once):
        which = np.arange(first, min(tiles, first + at_once))
        inside = torch.from_numpy(owner == which.reshape(-1, *(1,) * owner.ndim))
        with torch.enable_grad():
            x = torch.zeros((len(which), *shape), requires_grad=True)
            ops.apply(ones, x).backward(inside.float())
        assert x.grad is not None
        count[which] = np.rint(x.grad.reshape(len(which), -1).numpy())
    return count


def _of_link(link: Link, bounds: Bounds) -> np.ndarray:
    """Count the same where neurons are connected by one product over the axes: (tiles, neurons)."""
    targets, sources = len(bounds), len(link) - sum(f.source is None for f in link)
    count = np.ones((1,) * (targets + sources), dtype=np.float32)
    for factor in link:
        matrix = factor.matrix.astype(np.float32)
        if factor.target is not None:
            matrix = np.add.reduceat(matrix, bounds[factor.target][:-1], axis=0)
        size = [1] * (targets + sources)
        if factor.target is not None:
            size[factor.target] = len(matrix)
        if factor.source is not None:
            size[targets + factor.source] = matrix.shape[1]
        count = count * matrix.reshape(size)
    return count.reshape(math.prod(parts(bounds)), -1)


def pairs_of_tiles(fans: np.ndarray, spikes: np.ndarray, sender: PopulationPlacement | None) -> np.ndarray:
    """Sum spikes by the tile that sends and the tile that they reach.

    Args:
        fans: (receivers, neurons), 1 where a neuron reaches a tile.
        spikes: (…, neurons) float32.
        sender: the neurons' population; None: the host, as one.

    Returns:
        (…, senders, receivers) float32.
    """
    if sender is None:
        return (spikes @ fans.T)[..., None, :]
    owner = tile_of(sender.bounds).ravel()
    sums = [spikes[..., owner == tile] @ fans[:, owner == tile].T for tile in range(sender.cores)]
    return np.stack(sums, axis=-2)
