"""Faults injected into the guard: resources that run out while Lava starts: processes, descriptors, shared memory."""

import contextlib
import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
from tests.support.lava_guards import SOON_S, faulty, guard
from tests.support.leftovers import holdings, nothing_left  # noqa: F401
from tests.support.paths import ROOT


@pytest.mark.parametrize("successes", [0, 1, 3])
def test_fork_fails(successes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source, *_ = faulty.chain()
    fork, left = os.fork, [successes]

    def failing() -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    monkeypatch.setattr(os, "fork", failing)
    began = time.monotonic()
    with pytest.raises(LavaRuntimeError, match=r"cannot start 'source': BlockingIOError: .*temporarily unavailable"):
        guard(source).start()
    assert time.monotonic() - began < SOON_S


@pytest.mark.slow
def test_the_user_may_have_no_more_processes() -> None:
    """The kernel itself refuses a fork; root has no such limit, so that the interpreter first becomes nobody."""
    if os.getuid() != 0:
        pytest.skip("only root can become nobody")
    code = f"""
import os, resource, sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from tests.support import lava_guards
from mksgn.deploy.lava.guard.errors import LavaRuntimeError
source, *_ = lava_guards.faulty.chain()
with lava_guards.guard(source): pass  # imports what "nobody" may not read
source, *_ = lava_guards.faulty.chain()
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
os.setgid(65534); os.setuid(65534)
try: lava_guards.guard(source).start()
except LavaRuntimeError as error: sys.exit(str(error))
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 1, process.stderr
    assert "Lava cannot start 'source': BlockingIOError: [Errno 11] Resource temporarily unavailable" in process.stderr


def test_descriptors_run_out() -> None:
    """With one more to spare each time until there are enough: at every place where one is taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    refusals = 0
    for spare in range(40):
        source, *_ = faulty.chain()
        runtime = guard(source)
        before = holdings(collect=False)
        free = [number for number in range(before.descriptors + 50) if not Path(f"/proc/self/fd/{number}").exists()]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[spare], hard))
        began = time.monotonic()
        try:
            with contextlib.suppress(LavaRuntimeError), runtime:
                break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert time.monotonic() - began < SOON_S
        assert holdings(collect=False)[:3] == before[:3], f"{spare} to spare"
        refusals += 1
    assert 5 < refusals < 39


@pytest.mark.slow
def test_dev_shm_is_full() -> None:
    """The semaphores of multiprocessing lie there, without names."""
    code = f"""
import sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from tests.support import lava_guards
from mksgn.deploy.lava.guard.errors import LavaRuntimeError
source, *_ = lava_guards.faulty.chain()
try: lava_guards.guard(source).start()
except LavaRuntimeError as error: sys.exit(str(error))
"""
    script = 'mount -t tmpfs -o size=8k tmpfs /dev/shm && exec "$0" -c "$1"'
    command = ["unshare", "--mount", "sh", "-c", script, sys.executable, code]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unshare" in process.stderr or "mount:" in process.stderr:
        pytest.skip(f"no /dev/shm of its own here: {process.stderr.strip()}")
    assert process.returncode == 1
    assert "Lava cannot start 'source': OSError: [Errno 28] No space left" in process.stderr
