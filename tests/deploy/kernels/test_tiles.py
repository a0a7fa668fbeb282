"""Tiles hold every target and every edge once, and what shares sources is together where it fits."""

import numpy as np
import pytest

from mksgn.deploy.kernels import tiles
from mksgn.deploy.kernels.blocks import blocks_of
from tests.deploy.kernels import networks as net

SHAPE = (3, 6, 5)


def some_blocks(kind: str):
    rng = np.random.default_rng(0)
    paths = {
        "columns": net.conv(rng, SHAPE, 4, (3, 1), padding=(1, 0)),
        "frames": net.graph_conv(rng, SHAPE, 4, 9),
        "map": net.conv(rng, SHAPE, 4, (3, 3), padding=(1, 1)),
        "single": net.conv(rng, SHAPE, 4, (1, 1)),
    }
    return blocks_of((paths[kind],), SHAPE)


@pytest.mark.parametrize("limit", [1, 4, 7, 13, 1000])
@pytest.mark.parametrize("kind", ["columns", "frames", "map", "single"])
def test_every_target_and_edge_once(monkeypatch, kind, limit):
    blocks = some_blocks(kind)
    monkeypatch.setattr(tiles, "TILE_BYTES", limit)
    cut = tiles.Tiles([blocks], 30, 1, 1, np.int8, [3])
    assert sorted(cut.targets) == list(range(30))
    assert np.diff(cut.first_target).max() <= limit
    ((edges, first_edge, sources, first_source),) = cut.of_projection
    seen = []
    for tile in range(len(cut.first_target) - 1):
        targets = cut.targets[cut.first_target[tile] : cut.first_target[tile + 1]]
        own = sources[first_source[tile] : first_source[tile + 1]]
        part = edges[first_edge[tile] : first_edge[tile + 1]]
        assert (np.diff(part[:, 0]) >= 0).all()
        seen += [(b, own[s], targets[t]) for b, s, t in part.tolist()]
    assert sorted(seen) == sorted(map(tuple, blocks.edges.tolist()))


@pytest.mark.parametrize(("kind", "tiles_of"), [("columns", 5), ("single", 5), ("map", 5)])
def test_what_shares_sources_is_together(monkeypatch, kind, tiles_of):
    monkeypatch.setattr(tiles, "TILE_BYTES", 6)
    cut = tiles.Tiles([some_blocks(kind)], 30, 1, 1, np.int8, [3])
    assert len(cut.first_target) - 1 == tiles_of
    if kind == "columns":
        first = cut.targets[: cut.first_target[1]]
        assert len(set(first % 5)) == 1  # one joint, all frames


@pytest.mark.parametrize(("samples", "threads"), [(1, 1), (7, 2), (64, 3)])
def test_tasks_cover_each_sample_of_each_tile_once(monkeypatch, samples, threads):
    monkeypatch.setattr(tiles, "TILE_BYTES", 64)
    cut = tiles.Tiles([some_blocks("frames")], 30, 1, 1, np.int8, [3])
    tasks = cut.tasks(samples, threads)
    covered = [(tile, n) for tile, first, end in tasks.tolist() for n in range(first, end)]
    assert sorted(covered) == [(tile, n) for tile in range(len(cut.first_target) - 1) for n in range(samples)]
    assert len(tasks) >= min(threads, samples * (len(cut.first_target) - 1))
