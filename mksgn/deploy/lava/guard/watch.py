"""Waiting in the parent for children that may never answer: for a message, a failure, a deadline or a signal.

    parent's OS process: Watch                 a child's OS process: Child.run
    --------------------------                 -------------------------------
    poll_reports     <-- pipe (JSON lines) --  built, or the error that it raised
    wait             <-- shared counters ----  messages passed, whether it waits, its time step
    read_dump        <-- dump file ----------  its stack, after a crash or SIGUSR1
    Child.ended      <-- kernel -------------  exit code, or the signal that killed it

Every method here runs in the parent.
"""

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

TICK_S = 0.05  # how often a wait checks the children and the deadline, and calls `progress`
GRACE_S = 1.0  # how long after its consequence the cause of a failure may be reported
DUMP_CHARS = 10_000


class Watch:
    """Watches `children`, a list that grows while they are started; on a crash they write their stacks to `dump`."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s, self._limit, self._steps = deadline_s, float("inf"), 0
        self.children: list[Child] = []
        self.dump = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed by `close`)
        self.progress: Callable[[], None] | None = None
        self.stopping = False
        self._suspected: tuple[float, LavaRuntimeError] | None = None

    def close(self) -> None:
        self.dump.close()
        self.children.clear()
        self._suspected = None  # an error that was raised keeps its frames alive

    def limit_to(self, steps: int | None) -> None:
        """Allow `steps` times the deadline in all, as Processes may exchange messages endlessly; None: no limit."""
        self._steps = steps or 0
        self._limit = time.monotonic() + steps * self.deadline_s if steps else float("inf")

    def wait(self, arrived: Callable[[float], bool], patience_s: float | None = None) -> None:
        """Return once `arrived` returns True.

        Args:
            arrived: called with the seconds for which it may block before it returns False.
            patience_s: how long the children may go without a message; `deadline_s` if not given.

        Raises:
            LavaRuntimeError: a child failed.
            LavaDeadlineError: there was no message for `patience_s`.
        """
        patience_s = self.deadline_s if patience_s is None else patience_s
        last_count, since = -1, time.monotonic()
        while not arrived(TICK_S):
            self.raise_failure()
            now = time.monotonic()
            count = sum(child.counters[MESSAGES] + child.ready + child.closed for child in self.children)
            if count != last_count:
                last_count, since = count, now
            if now > self._limit:
                raise LavaDeadlineError(
                    f"{self._steps} steps have taken longer than {self._steps} times deadline_s, "
                    f"{self.deadline_s:g} s, though Lava's Processes exchange messages; if they may take so long, raise deadline_s"
                )
            if now - since > patience_s:
                self._raise_deadline(now - since)
            if self.progress:
                self.progress()

    def poll_reports(self, condition: Callable[[Child], bool], seconds: float) -> bool:
        """Return whether `condition` holds for every child, at once or after reports that arrive within `seconds`."""
        if not all(map(condition, self.children)):
            multiprocessing.connection.wait([c.reader for c in self.children if not c.closed], seconds)
            for child in self.children:
                child.listen()
        return all(map(condition, self.children))

    def suspect(self, error: LavaRuntimeError) -> None:
        """Raise `error` after GRACE_S, unless its cause is reported by then."""
        self._suspected = self._suspected or (time.monotonic(), error)

    def raise_failure(self) -> None:
        """Raise the error that a child has reported, or else one that says how a child has ended."""
        ended = {
            child for child in self.children if child.ended()
        }  # before its pipe is read, which has its last report
        for child in self.children:
            child.listen()
        for child in self.children:
            if child.error:
                error, certain = LavaRuntimeError(child.failure(), child.error[2]), not child.service
            elif child in ended and not (self.stopping and child.exitcode in (0, None)):
                error = LavaRuntimeError(child.describe_exit(), self.read_dump(0))
                # Lava's service reports an error and ends normally before the Process at fault has
                # reported.
                certain = child.exitcode != 0
            else:
                continue
            if certain:
                raise error
            self.suspect(error)
        if self._suspected and time.monotonic() - self._suspected[0] > GRACE_S:
            raise self._suspected[1]

    def _raise_deadline(self, waited_s: float) -> NoReturn:
        """Raise the error that names the Process for which the others wait, with its stack."""
        for child in self.children:
            if child.stopped():
                raise LavaDeadlineError(
                    f"{child.label} has been stopped from outside, for example by SIGSTOP, and the others have waited "
                    f"for it for {waited_s:.1f} s, last heard of in step {child.counters[STEP]}"
                )
        busy = [child for child in self.children if child.computes()]
        if not busy:
            raise LavaDeadlineError(
                f"no Lava Process has sent anything for {waited_s:.1f} s, all are waiting for a message: "
                "look for a cycle of connections, or a Process that does not send in every step"
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
        # The frames below are the guard's and the parent's.
        return text.partition(f'  File "{children_module.__file__}"')[0]
