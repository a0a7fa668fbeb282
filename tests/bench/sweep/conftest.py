"""A small student, a grid of its variants, and the grid's sweep by one worker in this process."""

from contextlib import nullcontext
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from mksgn.bench.sweep.grid import read
from mksgn.bench.sweep.sweep import sweep
from tests.support.bench_runs import student_files
from tests.support.sweep_grids import GRID

CONNECTED = "mksgn.bench.sweep.sweep.connected"


@pytest.fixture(scope="package")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sweep")
    student_files(out)
    (out / "grid.yaml").write_text(GRID)
    (out / "half.yaml").write_text(GRID.replace("steps: [2, 4]", "steps: [2]"))
    return out


@pytest.fixture(scope="package")
def client():
    """One worker in this process: no process has to import torch."""
    options = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, **options) as cluster, Client(cluster) as one:
        yield one


@pytest.fixture(scope="package")
def one_worker(folder, client):
    out = folder / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CONNECTED, lambda *_: nullcontext(client))
        return out, sweep(read(folder / "grid.yaml"), out)


@pytest.fixture
def in_this_process(client, monkeypatch) -> None:
    """Sweeps of this test use the worker in this process."""
    monkeypatch.setattr(CONNECTED, lambda *_: nullcontext(client))
