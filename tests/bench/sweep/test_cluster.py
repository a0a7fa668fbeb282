"""Connecting to a cluster."""

import pytest

from mksgn.bench.sweep.grid import read
from mksgn.bench.sweep.sweep import sweep
from mksgn.common.errors import BadInputError


def test_no_scheduler_at_that_address(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mksgn.bench.sweep.cluster.CONNECT_S", 0.5)
    with pytest.raises(BadInputError, match=r"--scheduler tcp://127.0.0.1:9: no scheduler answers within 0.5 s"):
        sweep(read(folder / "grid.yaml"), tmp_path / "out", scheduler="tcp://127.0.0.1:9")
