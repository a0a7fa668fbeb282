"""Tiles of a population: positions that are computed together, because they read the same sources."""

from functools import cached_property
from typing import Any

import numpy as np

from mksgn.deploy.kernels.blocks import Blocks

SLACK = 8  # events, and accumulators, that may be written after the last
TILE_BYTES = 1 << 18  # of accumulators: half of a core's second-level cache
ROUNDS = 32  # a population whose positions are connected through longer chains than this is cut anywhere

Parts = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # edges, first edge, sources, first source, by tile


class Tiles:
    """The tiles of a population, and what each reads.

    Attributes:
        targets: positions, int64, tile after tile.
        first_target: where each tile's begin, int64 (tiles + 1,).
        of_projection: per projection, the edges (block, source, target), with sources and targets as
            indices within the tile; where each tile's edges begin; the positions of the sources; and
            where each tile's sources begin.
    """

    def __init__(
        self, blocks: list[Blocks], positions: int, steps: int, channels: int, accumulator: Any, inputs: list[int]
    ):
        """Cut positions into tiles.

        Args:
            blocks: of each projection.
            positions: number of target positions.
            steps: steps of a sample.
            channels: of a target position's accumulators.
            accumulator: their dtype.
            inputs: channels of each projection's source.
        """
        self.steps, self.channels, self.inputs = steps, channels, inputs
        row_bytes = steps * channels * np.dtype(accumulator).itemsize
        label = _connected(blocks, positions)
        order = np.argsort(label, kind="stable")
        limit = max(1, TILE_BYTES // max(1, row_bytes))
        cuts = _cuts(np.unique(label, return_counts=True)[1], limit)
        self.targets, self.first_target = order, cuts
        self.samples = max(1, limit // int(np.diff(cuts).max()))  # samples of one task
        tile = np.empty(positions, np.int64)
        tile[order] = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))
        place = np.empty(positions, np.int64)
        place[order] = np.arange(positions) - cuts[tile[order]]
        self.of_projection = [_parts(b.edges, tile, place, len(cuts) - 1) for b in blocks]

    @property
    def nothing(self) -> Parts:
        """A projection without edges."""
        begins = np.zeros(len(self.first_target), np.int64)
        return np.zeros((0, 3), np.int32), begins, np.zeros(0, np.int64), begins

    def tasks(self, samples: int, threads: int) -> np.ndarray:
        """Return (tile, first sample, end of samples) rows, at least one for each thread if possible."""
        tiles = len(self.first_target) - 1
        each = min(self.samples, max(1, -(-samples * tiles // threads)))
        rows = [(tile, n, min(n + each, samples)) for tile in range(tiles) for n in range(0, samples, each)]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    def scratch(self, samples: int, accumulator: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Allocate what `run_tiles` needs for tasks of that many samples: accumulators, and a tile's events."""
        targets, sources, events = self._largest
        runs = samples * self.steps
        return (
            np.empty(runs * targets * self.channels + SLACK, accumulator)[:-SLACK].reshape(-1, self.channels),
            np.empty(runs * sources + 1, np.int64),
            np.empty(runs * events + SLACK, np.int32),
        )

    @cached_property
    def _largest(self) -> tuple[int, int, int]:
        """The most targets, sources and events of any tile, for one step of a sample."""
        sources = [int(np.diff(parts[3]).max()) for parts in self.of_projection]
        events = [n * c for n, c in zip(sources, self.inputs, strict=True)]
        return int(np.diff(self.first_target).max()), max(sources, default=0), max(events, default=0)


def _connected(blocks: list[Blocks], positions: int) -> np.ndarray:
    """Label target positions: those that share a source, directly or through others, get the same label."""
    label = np.arange(positions)
    ends = [(b.edges[:, 1], b.edges[:, 2]) for b in blocks]
    for _ in range(ROUNDS):
        before = label.copy()
        for sources, targets in ends:
            of_source = np.full(int(sources.max(initial=-1)) + 1, positions)
            np.minimum.at(of_source, sources, label[targets])
            np.minimum.at(label, targets, of_source[sources])
        if np.array_equal(label, before):
            return label
    return np.zeros(positions, np.int64)


def _cuts(sizes: np.ndarray, limit: int) -> np.ndarray:
    """Return where tiles begin: each holds as many whole parts of these sizes as fit; a larger part is cut."""
    cuts, filled = [0], 0
    for size in sizes.tolist():
        if filled and filled + size > limit:
            cuts.append(cuts[-1] + filled)
            filled = 0
        while size > limit:
            cuts.append(cuts[-1] + limit)
            size -= limit
        filled += size
    if filled:
        cuts.append(cuts[-1] + filled)
    return np.array(cuts, dtype=np.int64)


def _parts(edges: np.ndarray, tile: np.ndarray, place: np.ndarray, tiles: int) -> Parts:
    """Sort edges by tile, then block; number each tile's sources."""
    of_tile = tile[edges[:, 2]]
    order = np.argsort(of_tile, kind="stable")
    edges, of_tile = edges[order], of_tile[order]
    first_edge = np.searchsorted(of_tile, np.arange(tiles + 1))
    span = int(edges[:, 1].max(initial=0)) + 1
    keys, index = np.unique(of_tile * span + edges[:, 1], return_inverse=True)
    first_source = np.searchsorted(keys // span, np.arange(tiles + 1))
    local = np.stack([edges[:, 0], index - first_source[of_tile], place[edges[:, 2]]], axis=1)
    return local.astype(np.int32), first_edge, keys % span, first_source
