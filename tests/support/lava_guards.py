"""What the tests of Lava's guard share: import this before anything of Lava, and `faulty` through it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

PROCESSES = Path(__file__).parent / "lava_processes"
sys.path.insert(0, str(PROCESSES))

from mksgn.deploy.lava.guard.runtime import GuardedRuntime  # noqa: E402

# Ours first: Lava's own import fails if an earlier test has made multiprocessing settle on a start method.
# isort: split
import faulty  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402

__all__ = ["faulty", "guard", "pid_of"]


def guard(process: Any, deadline_s: float = 20.0, **options: Any) -> GuardedRuntime:
    return GuardedRuntime(process, Loihi2SimCfg(select_tag="floating_pt", **options), deadline_s=deadline_s)


def pid_of(runtime: GuardedRuntime, name: str) -> int:
    assert runtime._runtime
    return next(child.pid or 0 for child in runtime._runtime.children if name in child.label)
