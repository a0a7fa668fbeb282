"""One small run for all tests of this folder."""

from pathlib import Path

import pytest

from mksgn.bench.record import Record
from mksgn.bench.record_io import load
from tests.support.bench_folders import make_run


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def record(folder) -> Record:
    return load(folder)
