"""A small student, a grid of its variants, and the grid's sweep by one worker."""

from pathlib import Path

import pytest

from mksgn.bench.sweep.grid import read
from mksgn.bench.sweep.sweep import sweep
from tests.support.bench_runs import student_files
from tests.support.sweep_grids import GRID


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sweep")
    student_files(out)
    (out / "grid.yaml").write_text(GRID)
    return out


@pytest.fixture(scope="session")
def one_worker(folder):
    out = folder / "one"
    return out, sweep(read(folder / "grid.yaml"), out, workers=1)
