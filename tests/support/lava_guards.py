"""What the tests of Lava's guard share: import this before anything of Lava, and `faulty` through it.

The time of a failure is measured from the fault, which notes it in a clock, to the exception.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROCESSES = Path(__file__).parent / "lava_processes"
sys.path.insert(0, str(PROCESSES))

from mksgn.deploy.lava.guard.runtime import GuardedRuntime  # noqa: E402

# The guard first: Lava's own import fails if an earlier test has made multiprocessing settle on a start method.
# isort: split
import faulty  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402

__all__ = ["DEADLINE_S", "NAMES", "SOON_S", "clock_of", "ends_soon", "faulty", "guard", "handlers", "once", "pid_of"]

SOON_S = 3.0  # from the cause to the exception; 0.05 s on an idle machine
DEADLINE_S = 0.5
NAMES = {"source": "Lava Process 'source' (Source)", "relay": "Lava Process 'relay' (Relay)"}
NAMES |= {"sink": "Lava Process 'sink' (Sink)", "service": "Lava's LoihiPyRuntimeService"}


def guard(process: Any, deadline_s: float = 20.0, **options: Any) -> GuardedRuntime:
    return GuardedRuntime(process, Loihi2SimCfg(select_tag="floating_pt", **options), deadline_s=deadline_s)


def pid_of(runtime: GuardedRuntime, name: str) -> int:
    assert runtime._runtime
    return next(child.pid or 0 for child in runtime._runtime.children if name in child.label)


def clock_of(relay: Any) -> Any:
    """Where the relay notes when it fails: an array of one time, 0 until then."""
    return relay.proc_params["clock"]


@contextlib.contextmanager
def ends_soon(clock: Any, later_s: float = 0.0) -> Iterator[None]:
    """Assert that the block ends within SOON_S of the time in `clock`, plus `later_s`."""
    yield
    assert 0 < clock[0] <= time.monotonic() < clock[0] + later_s + SOON_S


def once(condition: Callable[[], Any], action: Callable[[], Any]) -> None:
    """Run `action` in another thread as soon as `condition` holds."""

    def wait() -> None:
        limit = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < limit
            time.sleep(0.005)
        action()

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def handlers(number: int, handler: Callable[..., Any]) -> Iterator[None]:
    """Handle a signal by `handler` within the block, and assert that it still does at the end."""
    before = signal.signal(number, handler)
    try:
        yield
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
