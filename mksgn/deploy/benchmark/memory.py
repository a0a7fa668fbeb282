"""Memory of this process and its children while something runs: PSS, which shares out what they have in common, and shared memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY_S = 0.1


class Peak:
    """Largest sums seen, in bytes."""

    def __init__(self) -> None:
        self.pss = self.shared = 0
        self.processes = 0

    def look(self) -> None:
        family = [os.getpid(), *_descendants(os.getpid())]
        fields = [_rollup(pid) for pid in family]
        self.pss = max(self.pss, sum(f.get("Pss", 0) for f in fields))
        self.shared = max(self.shared, sum(f.get("Pss_Shmem", 0) for f in fields))
        self.processes = max(self.processes, len(family))


@contextmanager
def watched() -> Iterator[Peak]:
    """Look at the memory every EVERY_S until the block ends."""
    peak, done = Peak(), threading.Event()

    def look() -> None:
        while not done.wait(EVERY_S):
            peak.look()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _descendants(ancestor: int) -> list[int]:
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()  # behind the name, which may hold anything
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, new = set[int](), {ancestor}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return sorted(found)


def _rollup(pid: int) -> dict[str, int]:
    """Bytes by name of /proc/PID/smaps_rollup; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}
