"""Grids of sweeps: defaults, and faults in one line."""

import pytest

from mksgn.bench.sweep.grid import Grid, read
from mksgn.common.errors import BadInputError
from mksgn.deploy.placement.chips import known_chips
from tests.support.paths import EXAMPLES
from tests.support.sweep_grids import GRID


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("bits: [8]", "bits: [9]"), "axes.bits.0: Input should be less than or equal to 8"),
        (("bits: [8]", "bits: []"), "axis bits is empty"),
        (("steps: [2, 4]", "steps: [2, 2]"), "axis steps names a value twice"),
        (("loihi1]", "loihi3]"), "loihi3"),
        (("tiny:", "a/b:"), "axes.model.a/b"),
        (("limit: 12", f"limit: 12\nseed: {1 << 64}"), "seed: Input should be less than or equal to 2147483648"),
        (("limit: 12", "limit: 12\nseed: -1"), "seed: Input should be greater than or equal to 0"),
        (("shard: 4", f"shard: {1 << 64}"), "shard: Input should be less than or equal to 2147483648"),
        (
            ("threshold: [1.0, 1.2]", f"threshold: [{', '.join(f'1.{i:04}' for i in range(2501))}]"),
            "axes: .*10,004 points, the limit is 10,000; shorten an axis, or make several grids",
        ),
        (("limit: 12", "limt: 12"), "limt: Extra inputs are not permitted"),
    ],
)
def test_a_fault_in_a_grid_is_reported_in_one_line(tmp_path, change, fault):
    (tmp_path / "grid.yaml").write_text(GRID.replace(*change))
    with pytest.raises(BadInputError, match=fault) as error:
        read(tmp_path / "grid.yaml")
    assert "\n" not in str(error.value)


def test_a_grid_may_name_a_chip_of_a_file(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID.replace("loihi2, loihi1]", "loihi2, our-chip]"))
    with pytest.raises(BadInputError, match=r"grid.yaml: axes.chip: chip 'our-chip' is not known.* --chip-file"):
        read(tmp_path / "grid.yaml")
    grid = read(tmp_path / "grid.yaml", known_chips([EXAMPLES / "own_chip" / "chip.yaml"]))
    assert {point.chip for point in grid.points()} == {"loihi2", "our-chip"}


def test_grids_have_defaults(tmp_path):
    (tmp_path / "grid.yaml").write_text("schema: mksgn.sweep/1\ndata: synthetic\naxes: {model: {a: a.pt}}\n")
    grid = read(tmp_path / "grid.yaml")
    assert isinstance(grid, Grid)
    assert [p.label for p in grid.points()] == ["a-th1-b8-loihi2"]
