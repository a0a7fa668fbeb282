"""Waiting for children, none of whom can be trusted to answer: for a message, a failure, a deadline or a signal."""

from __future__ import annotations

import multiprocessing.connection
import os
import signal
import tempfile
import time
from collections.abc import Callable
from typing import NoReturn

from mksgn.deploy.lava.guard import children as children_module
from mksgn.deploy.lava.guard.channels import MESSAGES, STEP
from mksgn.deploy.lava.guard.children import Child
from mksgn.deploy.lava.guard.errors import LavaDeadlineError, LavaRuntimeError

TICK_S = 0.05  # how often a wait looks at the children and at the deadline, and calls `progress`
GRACE_S = 1.0  # how long the cause of a failure may be heard of after its consequence
DUMP_CHARS = 10_000


class Watch:
    """Over `children`, which grow while they are started. `dump` is where they write their stacks when they crash."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s, self._limit, self._steps = deadline_s, float("inf"), 0
        self.children: list[Child] = []
        self.dump = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed by `close`)
        self.progress: Callable[[], None] | None = None
        self.stopping = False
        self._doubt: tuple[float, LavaRuntimeError] | None = None

    def close(self) -> None:
        self.dump.close()
        self.children.clear()
        self._doubt = None  # an error that was raised holds the frames that it passed

    def limit_to(self, steps: int | None) -> None:
        """From now on, allow `steps` times the deadline in all, because Processes may chatter without end; None: for ever."""
        self._steps = steps or 0
        self._limit = time.monotonic() + steps * self.deadline_s if steps else float("inf")

    def wait(self, arrived: Callable[[float], bool], patience_s: float | None = None) -> None:
        """Return when `arrived(seconds)`, which may take so long to say no; raise LavaRuntimeError if that cannot be.

        Raises LavaDeadlineError after `patience_s` without any message between children; it is `deadline_s` if not given.
        """
        patience_s = self.deadline_s if patience_s is None else patience_s
        seen, since = -1, time.monotonic()
        while not arrived(TICK_S):
            self.raise_failure()
            now = time.monotonic()
            passed = sum(child.counters[MESSAGES] + child.ready + child.closed for child in self.children)
            if passed != seen:
                seen, since = passed, now
            if now > self._limit:
                raise LavaDeadlineError(
                    f"{self._steps} steps have taken longer than {self._steps} times deadline_s, {self.deadline_s:g} s, though "
                    "Lava's Processes exchange messages all the time; if they may take so long, raise deadline_s"
                )
            if now - since > patience_s:
                self._raise_deadline(now - since)
            if self.progress:
                self.progress()

    def heard(self, condition: Callable[[Child], bool], seconds: float) -> bool:
        """Whether `condition` holds for every child, at once or when one of them has said something within `seconds`."""
        if not all(map(condition, self.children)):
            multiprocessing.connection.wait([c.reader for c in self.children if not c.closed], seconds)
            for child in self.children:
                child.listen()
        return all(map(condition, self.children))

    def doubt(self, error: LavaRuntimeError) -> None:
        """`error` is raised, unless its cause is heard of soon."""
        self._doubt = self._doubt or (time.monotonic(), error)

    def raise_failure(self) -> None:
        """Raise what a child has reported, else how one has died."""
        over = {child for child in self.children if child.ended()}  # looked at first: its last words are in its pipe
        for child in self.children:
            child.listen()
        for child in self.children:
            if child.error:
                error, certain = LavaRuntimeError(child.failure(), child.error[2]), not child.service
            elif child in over and not (self.stopping and child.exitcode in (0, None)):
                error = LavaRuntimeError(child.epitaph(), self.read_dump(0))
                # Lava's service reports an error, and ends in good order, before the Process at fault has told us.
                certain = child.exitcode != 0
            else:
                continue
            if certain:
                raise error
            self.doubt(error)
        if self._doubt and time.monotonic() - self._doubt[0] > GRACE_S:
            raise self._doubt[1]

    def _raise_deadline(self, waited_s: float) -> NoReturn:
        """Name the Process that computes while the others wait for it, with its stack."""
        for child in self.children:
            if child.stopped():
                raise LavaDeadlineError(
                    f"{child.label} has been stopped from outside, as by SIGSTOP, and the others have waited for it for "
                    f"{waited_s:.1f} s, last heard of in step {child.counters[STEP]}"
                )
        busy = [child for child in self.children if child.computes()]
        if not busy:
            raise LavaDeadlineError(
                f"no Lava Process has sent anything for {waited_s:.1f} s, all wait for a message: "
                "look for a circle of connections, or a Process that does not send in every step"
            )
        before = os.fstat(self.dump.fileno()).st_size
        os.kill(busy[0].pid or 0, signal.SIGUSR1)
        time.sleep(2 * TICK_S)  # its faulthandler needs a few milliseconds
        raise LavaDeadlineError(
            f"{busy[0].label} has computed for {waited_s:.1f} s, last heard of in step {busy[0].counters[STEP]}"
            f"{f', as have {len(busy) - 1} others' if busy[1:] else ''}; if it may take so long, raise deadline_s",
            self.read_dump(before),
        )

    def read_dump(self, offset: int) -> str:
        text = os.pread(self.dump.fileno(), DUMP_CHARS, offset).decode(errors="replace")
        return text.partition(f'  File "{children_module.__file__}"')[
            0
        ]  # what is below is the guard's and the parent's
