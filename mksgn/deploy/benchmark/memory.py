"""Memory of this process and its children while something runs.

PSS divides shared pages among the processes that map them, so that a sum over processes counts each
once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

INTERVAL_S = 0.1


class Peak:
    """The largest sums over the process tree so far, in bytes."""

    def __init__(self) -> None:
        self.pss = self.shared = self.processes = 0

    def sample(self) -> None:
        """Measure once."""
        this = psutil.Process()
        rollups = [_rollup(process.pid) for process in (this, *this.children(recursive=True))]
        self.pss = max(self.pss, sum(rollup.get("Pss", 0) for rollup in rollups))
        self.shared = max(self.shared, sum(rollup.get("Pss_Shmem", 0) for rollup in rollups))
        self.processes = max(self.processes, len(rollups))


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Sample the memory every INTERVAL_S until the block ends."""
    peak, done = Peak(), threading.Event()

    def sample() -> None:
        while not done.wait(INTERVAL_S):
            peak.sample()

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _rollup(pid: int) -> dict[str, int]:
    """Read /proc/PID/smaps_rollup: bytes by field; empty for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    pairs = (line.split(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}
