"""What a guarded run of Lava could leave behind in the interpreter that ran it and on the machine, counted."""

from __future__ import annotations

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
gc.freeze()  # what has been imported stays: to look through it again at every count takes most of a test


class Holdings(NamedTuple):
    """Of this interpreter: child processes, threads, open descriptors, maps of shared memory (channels, semaphores)."""

    children: frozenset[int]
    threads: int
    descriptors: int
    maps: int


def children() -> frozenset[int]:
    """But for multiprocessing's tracker, which others' tests may start."""
    return frozenset(child.pid for child in psutil.Process().children(recursive=True)) - {TRACKER._pid}


def shared_maps() -> int:
    """Anonymous and named alike: in /proc/PID/maps, the permissions of a shared map end in s."""
    return sum(line.split()[1].endswith("s") for line in Path("/proc/self/maps").read_text().splitlines())


def holdings(collect: bool = True) -> Holdings:
    for _ in range(2 if collect else 0):  # Lava's Processes have finalisers: what they hold goes in the second round
        gc.collect()
    return Holdings(children(), threading.active_count(), len(os.listdir("/proc/self/fd")), shared_maps())


def alive(pids: Iterable[int]) -> list[int]:
    """Those that are neither gone nor zombies, whom a killed parent leaves to be reaped by init."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


def unowned_segments() -> set[str]:
    """The names in /dev/shm that no process has mapped or open: others may be at work on this machine."""
    names = set(os.listdir("/dev/shm"))
    for process in Path("/proc").glob("[0-9]*") if names else ():
        with contextlib.suppress(OSError):
            used = (process / "maps").read_text() + " ".join(os.readlink(fd) for fd in (process / "fd").iterdir())
            names -= {name for name in names if name in used}
    return names


def eventually(empty: Callable[[], Any], within_s: float = 5.0) -> Any:
    """What `empty()` gives when it is empty, or when the time is up."""
    limit = time.monotonic() + within_s
    while (rest := empty()) and time.monotonic() < limit:
        time.sleep(0.01)
    return rest


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Around every test of the file that imports it."""
    TRACKER.ensure_running()
    before, segments = holdings(), unowned_segments()
    yield
    after = holdings()
    assert not after.children - before.children
    assert after[1:3] == before[1:3], "threads, descriptors"
    assert after.maps <= before.maps
    assert not eventually(lambda: unowned_segments() - segments)
