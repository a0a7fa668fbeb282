"""The guard around Lava's runtime: every run ends with a result or a Python exception, and leaves nothing behind.

Lava runs each Process as an OS process. If one fails, stock Lava waits forever, loses its traceback
and leaks shared memory. The guard prevents this:

- `channels`: messages are in anonymous shared memory, inherited through fork, and need no thread.
- `children`: each reports over its own pipe, leaves Ctrl-C to the parent, and dies with the parent.
- `watch`: every wait in the parent checks these pipes, the counters of messages and a deadline.
- `session`: Lava's own Runtime, with these.

Only these files rely on Lava's internals, which no longer change: lava-nc 0.10.0 is its last
release.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from multiprocessing.util import Finalize
from typing import Any

from mksgn.common.errors import MksgnError, first_line
from mksgn.deploy.lava.guard.errors import LavaDeadlineError, LavaRuntimeError
from mksgn.deploy.lava.guard.os_signals import signals_held
from mksgn.deploy.lava.guard.session import LavaSession, forget
from mksgn.deploy.lava.guard.turns import turns

# After start_method, which the imports above have run.
# isort: split
from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import RunConfig

__all__ = ["GuardedRuntime", "LavaDeadlineError", "LavaRuntimeError"]


class GuardedRuntime:
    """Runs a network of Lava Processes; ends with a result or a Python exception, and leaves nothing behind.

    >>> with GuardedRuntime(process, Loihi2SimCfg(select_tag="fixed_pt")) as runtime:
    ...     runtime.run(16)
    ...     runtime.run(16)    # continues where the first ended

    A Process that raises, crashes, ends or is killed raises LavaRuntimeError: from `start`, from
    `run` or, after the last run, from `stop`. If none makes progress for `deadline_s`,
    LavaDeadlineError names the one that the others wait for. Ctrl-C raises KeyboardInterrupt after
    the clean-up. Whatever ends the interpreter ends the children.
    """

    def __init__(
        self,
        process: AbstractProcess,
        run_config: RunConfig,
        *,
        compile_config: dict[str, Any] | None = None,
        deadline_s: float = 60.0,
    ) -> None:
        self._process, self._run_config, self._deadline_s = process, run_config, deadline_s
        # 4 messages per channel instead of Lava's 64: less memory, and faster. Lava's watchdog
        # would start processes.
        self._compile_config = {"pypy_channel_size": 4, **(compile_config or {}), "use_watchdog": False}
        self._runtime: LavaSession | None = None

    def __enter__(self) -> GuardedRuntime:
        self.start()
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: Any) -> None:
        try:
            self.stop()
        except LavaRuntimeError:
            if exception_type is None:  # else the exception that ends the block says more
                raise

    @property
    def steps(self) -> int:
        """The time steps run so far, in finished calls of `run`."""
        return self._runtime.steps if self._runtime else 0

    def start(self) -> None:
        """Compile the network and start its Processes; return when every model is constructed."""
        if self._runtime:
            raise LavaRuntimeError("a GuardedRuntime can be started only once: make a new one")
        try:
            with turns.take():
                self._compile_and_fork()
        except BaseException as error:
            self._end()
            forget(find_processes(self._process))
            if isinstance(error, MksgnError) or not isinstance(error, Exception):
                raise
            text = f"Lava cannot start {self._process.name!r}: {type(error).__name__}: {first_line(error)}"
            raise LavaRuntimeError(text, traceback.format_exc()) from error

    def _compile_and_fork(self) -> None:
        executable = self._process.compile(self._run_config, self._compile_config)
        with signals_held():  # until the finaliser knows what to release
            self._runtime = LavaSession(executable, self._deadline_s)
            # When this object is collected, or at exit before multiprocessing joins its children.
            self._finalizer = Finalize(self, self._runtime.destroy, exitpriority=10)
        executable.assign_runtime_to_all_processes(self._runtime)
        self._runtime.initialize()

    def run(self, steps: int, progress: Callable[[], None] | None = None) -> None:
        """Run `steps` more time steps and wait for their end.

        For the deadline, any message between Processes counts as progress; in total, a call may take
        `steps` times `deadline_s`.

        Args:
            steps: at least 1.
            progress: called about twenty times a second.
        """
        if not self._runtime:
            raise LavaRuntimeError("Lava's runtime has not started: call start(), or use a with statement")
        if steps < 1:
            raise ValueError(f"steps is {steps}, must be at least 1")
        self._runtime.watch.progress = progress
        try:
            self._runtime.start(RunSteps(num_steps=steps, blocking=True))
        finally:
            self._runtime.watch.progress = None  # it may hold a reference to this object

    def stop(self) -> None:
        """End all Processes. May be called at any time and repeatedly; `run` raises LavaRuntimeError afterwards."""
        try:
            if self._runtime:
                self._runtime.stop()
        finally:
            self._end()

    def _end(self) -> None:
        if self._runtime:
            self._runtime.destroy()
            self._finalizer.cancel()
