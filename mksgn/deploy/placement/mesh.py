"""Where a placement's cores lie on the chip's mesh, and the tiles that its messages cross.

Cores fill the tiles one after the other, and tiles follow each other down the first column of the
mesh, up the next, and so on. So successive populations, which exchange most messages, lie side by
side. A message goes along its row first and then along its column. If a network takes several chips,
it is not known how these are joined, and there are no coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mksgn.deploy.placement.loads import Loads, Messages, messages_over
from mksgn.deploy.placement.place import Placement
from mksgn.deploy.placement.tile_synapses import reached_tiles, tile_synapses

Hop = Literal["within_tile", "east_west", "north_south"]


@dataclass(frozen=True)
class Hops:
    """Messages between cores, without those from the host, by what they cross; counts over all samples.

    Attributes:
        within_tile: messages between cores of one tile.
        east_west: tiles crossed along rows.
        north_south: tiles crossed along columns.
        busiest_link: mean over the time steps of the messages on the mesh's busiest link.
    """

    within_tile: int
    east_west: int
    north_south: int
    busiest_link: float


def coordinates(placement: Placement) -> np.ndarray | None:
    """Return the column and row of each core's tile, (cores, 2) int64; None without a mesh, or on several chips."""
    mesh = placement.mesh
    if mesh is None:
        return None
    tile = np.arange(placement.cores) // mesh.cores_per_tile
    column, row = np.divmod(tile, mesh.rows)
    return np.stack([column, np.where(column % 2, mesh.rows - 1 - row, row)], axis=1)


def hops(placement: Placement, messages: tuple[Messages, ...], steps: int) -> Hops | None:
    """Count what messages cross; None where the cores have no coordinates.

    Args:
        placement: the network on a chip's cores.
        messages: of `loads.core_loads`.
        steps: time steps S of a sample; samples follow each other without a pause.
    """
    at, mesh = coordinates(placement), placement.mesh
    if at is None or mesh is None:
        return None
    samples = len(messages[0].count) if messages else 0
    # messages east, west, south and north across the link that follows each tile
    links = np.zeros((4, samples, steps, mesh.columns, mesh.rows), dtype=np.int64)
    for message in messages:
        _add_links(links, message, *_ends(at, message), steps)
    busiest = float(links.max((0, 3, 4), initial=0).mean()) if samples else 0.0
    return Hops(busiest_link=busiest, **crossed(at, messages))


def crossed(at: np.ndarray, messages: Iterable[Messages]) -> dict[Hop, int]:
    """Count what messages between cores cross, given the cores' coordinates."""
    within = east_west = north_south = 0
    for message in messages:
        start, end = _ends(at, message)
        across = np.abs(start[:, None] - end[None])
        total = message.count.sum((0, 1))
        within += int(total[(across == 0).all(2)].sum())
        east_west += int((total * across[..., 0]).sum())
        north_south += int((total * across[..., 1]).sum())
    return {"within_tile": within, "east_west": east_west, "north_south": north_south}


def _ends(at: np.ndarray, message: Messages) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of the senders and of the receivers."""
    senders, receivers = message.count.shape[2:]
    return at[message.sender : message.sender + senders], at[message.receiver : message.receiver + receivers]


def hops_of_run(
    placement: Placement, per_neuron: Mapping[str, np.ndarray], coincidences: Mapping[str, int], counted: Loads
) -> dict[Hop, int] | None:
    """Count what the messages of a whole run cross; None where the cores have no coordinates.

    Spikes per neuron give it exactly. For product units only the sum is known: their messages are
    taken to cross the same as in the counted samples, in proportion.

    Args:
        placement: the network on a chip's cores.
        per_neuron: spikes of the run, of the population's shape, by population.
        coincidences: of the run, by population.
        counted: loads of some samples of the run.
    """
    at = coordinates(placement)
    if at is None:
        return None
    placed = {p.name: p for p in placement.populations}
    messages = [
        messages_over(reach, per_neuron[source].reshape(1, 1, -1), placed[source], placed[target], 0)
        for (source, target), reach in reached_tiles(tile_synapses(placement)).items()
        if source in placed
    ]
    total = crossed(at, messages)
    for units in placement.populations:
        if units.units_of is None:
            continue
        own = [m for m in counted.messages if m.units and m.sender == units.first_core]
        seen = sum(int(m.count.sum()) for m in own)
        for hop, count in crossed(at, own).items():
            total[hop] += round(count * coincidences[units.units_of] / seen) if seen else 0
    return total


def _add_links(links: np.ndarray, message: Messages, start: np.ndarray, end: np.ndarray, steps: int) -> None:
    """Add messages to the links that they use: along the sender's row, then along the receiver's column."""
    when = (message.first + np.arange(message.count.shape[1])) % steps
    for s, (column, row) in enumerate(start):
        for r, (to_column, to_row) in enumerate(end):
            count = message.count[:, :, s, r]
            if (column, row) == (to_column, to_row) or not count.any():
                continue
            for x in range(min(column, to_column), max(column, to_column)):
                links[0 if to_column > column else 1, :, :, x, row][:, when] += count
            for y in range(min(row, to_row), max(row, to_row)):
                links[2 if to_row > row else 3, :, :, to_column, y][:, when] += count
