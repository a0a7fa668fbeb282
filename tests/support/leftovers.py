"""Counts what a guarded run of Lava could leave behind in its interpreter and on the machine."""

import contextlib
import gc
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

TRACKER = resource_tracker._resource_tracker


class Holdings(NamedTuple):
    """Child processes, threads, open descriptors and shared memory maps of this interpreter."""

    children: frozenset[int]
    threads: int
    descriptors: int
    maps: int


def children() -> frozenset[int]:
    """All but multiprocessing's tracker, which other tests may start."""
    return frozenset(child.pid for child in psutil.Process().children(recursive=True)) - {TRACKER._pid}


def shared_maps() -> int:
    """Count anonymous and named maps: in /proc/PID/maps, the permissions of a shared map end in s."""
    return sum(line.split()[1].endswith("s") for line in Path("/proc/self/maps").read_text().splitlines())


def holdings(collect: bool = True) -> Holdings:
    for _ in range(
        2 if collect else 0
    ):  # Lava's Processes have finalisers: what they hold is freed in the second round
        gc.collect()
    return Holdings(children(), threading.active_count(), len(os.listdir("/proc/self/fd")), shared_maps())


def alive(pids: Iterable[int]) -> list[int]:
    """The processes that have not ended; zombies, which a killed parent leaves to init, have."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


def unowned_segments() -> set[str]:
    """The names in /dev/shm that no process has mapped or open; those of other programs in use do not count."""
    names = set(os.listdir("/dev/shm"))
    for process in Path("/proc").glob("[0-9]*") if names else ():
        with contextlib.suppress(OSError):
            used = (process / "maps").read_text() + " ".join(os.readlink(fd) for fd in (process / "fd").iterdir())
            names -= {name for name in names if name in used}
    return names


def eventually(empty: Callable[[], Any], within_s: float = 5.0) -> Any:
    """Call `empty` until its result is false or the time is up; return the last result."""
    limit = time.monotonic() + within_s
    while (rest := empty()) and time.monotonic() < limit:
        time.sleep(0.01)
    return rest


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Assert after every test of a file that imports this that the test left nothing behind."""
    TRACKER.ensure_running()
    before, segments = holdings(), unowned_segments()
    yield
    after = holdings()
    assert not after.children - before.children
    assert after[1:3] == before[1:3], "threads, descriptors"
    assert after.maps <= before.maps
    assert not eventually(lambda: unowned_segments() - segments)
