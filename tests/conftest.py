"""The tiers of the suite, the tests that run alone, and what every test shares.

`make test` runs the fast tier: `--fast` leaves out the tests marked `slow` and lowers the number of
examples of each property. `make test-all` runs everything, and so does pytest without options; `make
test-random` runs the same properties on other examples each time. `--slow-part K/N` is the fast tier with everything of
every N-th file, the K-th of them; N runs with K from 0 to N - 1 are `make test-all`.

All run most tests in parallel, and then the tests marked `serial` in a process
of their own.
"""

import gc
import importlib
import importlib.util
import math
import os
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.pop("COLUMNS", None)  # xdist gives its workers one; what is printed is as wide as in a pipe

import pytest
import torch
from hypothesis import settings

from mksgn.common import progress

# Two workers share two cores, so that no single example has a meaningful deadline.
# A submission does not fail by chance: the same examples each time, unless make test-random asks for others.
settings.register_profile("all", derandomize="MKSGN_RANDOM" not in os.environ, deadline=None)
settings.register_profile("fast", max_examples=6, derandomize=True, deadline=None)

# `nothing_left` compares threads, descriptors and shared memory before and after a test; `helper` is the
# process whose trainings are killed at given moments.
SERIAL_FIXTURES = {"nothing_left", "helper"}
# Where they are: `-m serial` need not import all other files.
SERIAL_PLACES = (
    "tests/deploy/lava/guard/",
    "tests/bench/test_run.py",
    "tests/train/test_loop_killed.py",
    "tests/test_soak.py",
    "tests/test_killed.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="skip slow tests and draw fewer examples of each property")
    parser.addoption("--slow-part", metavar="K/N", help="--fast, with everything of the K-th of N parts of the files")


def pytest_configure(config: pytest.Config) -> None:
    part = config.getoption("--slow-part")
    if part and not re.fullmatch(r"\d+/[1-9]\d*", part):
        raise pytest.UsageError(f"--slow-part {part}: expected K/N, such as 0/4")
    settings.load_profile("all" if _whole(config, "") else "fast")
    # As in the commands. Without it, each worker and each child process would start a thread per core.
    torch.set_num_threads(1)
    # What a test prints does not depend on how fast this machine is.
    progress.LINE_AFTER_S = math.inf
    if os.environ.get("MKSGN_LAVA") and not importlib.util.find_spec("lava"):
        raise pytest.UsageError("lava-nc is not installed, and its tests would be skipped: make setup")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files without serial tests where only these are run; None: as usual."""
    if config.getoption("markexpr") != "serial" or not collection_path.name.startswith("test_"):
        return None
    here = collection_path.relative_to(config.rootpath).as_posix()
    return True if collection_path.is_file() and not here.startswith(SERIAL_PLACES) else None


def _whole(config: pytest.Config, name: str) -> bool:
    """Whether everything of a file runs, by its path from here; of no file: whether everything of all files does."""
    if part := config.getoption("--slow-part"):
        number, parts = map(int, part.split("/"))
        return bool(name) and zlib.crc32(name.encode()) % parts == number % parts
    return not config.getoption("--fast")


def _name(path: Path, config: pytest.Config) -> str:
    return path.relative_to(config.rootpath).as_posix()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> None:
    """Choose the number of examples of a file's properties, before it is imported."""
    settings.load_profile("all" if _whole(parent.config, _name(module_path, parent.config)) else "fast")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if SERIAL_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("serial")
        if item.get_closest_marker("serial") and not item.nodeid.startswith(SERIAL_PLACES):
            raise pytest.UsageError(
                f"{item.nodeid}: a serial test outside SERIAL_PLACES (tests/conftest.py); add its file"
            )
    slow = [item for item in items if item.get_closest_marker("slow") and not _whole(config, _name(item.path, config))]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in {*slow}]
    # Files with a time limit of their own take longest. They come first, so that no worker is alone with one at the end; a
    # file's tests stay together, because they share what its fixtures make.
    long = {item.path for item in items if item.get_closest_marker("timeout")}
    items.sort(key=lambda item: item.path not in long)


def pytest_collection_finish() -> None:
    # Modules and collected tests stay: a test that counts what it left would spend its time on examining them again.
    gc.freeze()


@pytest.fixture
def run_command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `mksgn-STAGE ARGUMENTS` in this process; check its exit code and return what it printed."""

    def run(stage: str, *arguments: object, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", [f"mksgn-{stage}", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"mksgn.{stage}.cli").main()
        printed = capfd.readouterr()
        assert ended.value.code == code, printed.out + printed.err
        return printed

    return run
