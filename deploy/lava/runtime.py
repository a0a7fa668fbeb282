"""The guard around Lava's runtime: every run ends with a result or a Python exception, and leaves nothing behind.

Lava runs each Process as an operating-system process. Stock Lava waits for ever when one fails, loses its traceback
and leaks shared memory. Three measures, against each of these:

- Channels lie in anonymous shared memory, which children inherit through fork. It has no name in /dev/shm, so that
  no death, however sudden, leaves a segment; and no manager process that somebody could kill.
- Each child reports over a pipe of its own, which the kernel closes when it dies. Every wait in the parent watches
  these pipes, the children's message counters and a deadline.
- Children ignore Ctrl-C, which is the parent's to act on, and die with the parent, by SIGTERM and SIGKILL too.

All reliance on Lava's internals is here. lava-nc 0.10.0 is its last release, so that they do not move.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import mmap
import multiprocessing
import os
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from multiprocessing.util import Finalize
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from mksgn.train.errors import MksgnError

TICK_S = 0.1  # how often a wait looks at the deadline and at exit codes, and calls `progress`
GRACE_S = 1.0  # how long the cause of a failure may be heard of after its consequence
STOP_S = 2.0  # how long children may take to end when asked; then they are killed
KILL_S = 5.0  # how long the kernel may take to end a killed child
TEXT_CHARS = 10_000  # of a traceback: fits a pipe's buffer, so that neither side waits for the other
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
MESSAGES, WAITS, STEP = range(3)  # a child's counters: messages passed, whether it waits for one, its time step


class _ChildTraceback(Exception):  # noqa: N818
    """Shows a child's traceback above the parent's, as concurrent.futures does."""


class LavaRuntimeError(MksgnError):
    """A Process failed, or Lava could not run. `str()` is one line; `traceback` is the child's, or empty."""

    exit_code = 2

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message, traceback)  # both, so that pickling keeps both
        self.traceback = traceback
        if traceback:
            self.__cause__ = _ChildTraceback(f'\n"""\n{traceback}"""')

    def __str__(self) -> str:
        return str(self.args[0])


class LavaDeadlineError(LavaRuntimeError):
    """No Process has made progress for the whole deadline."""


def _require_fork() -> None:
    method = multiprocessing.get_start_method(allow_none=True)
    if method not in (None, "fork"):
        raise LavaRuntimeError(
            f"multiprocessing is set to start processes by {method!r}, but Lava's channels are inherited through fork: "
            "call multiprocessing.set_start_method('fork', force=True) first"
        )


_require_fork()
if "lava.magma.runtime.message_infrastructure.multiprocessing" not in sys.modules:
    # That module sets 'fork' while it is imported, which raises if a method is set already, even the same one.
    multiprocessing.set_start_method(None, force=True)

from lava.magma.compiler.channels import pypychannel  # noqa: E402
from lava.magma.core.process.message_interface_enum import ActorType  # noqa: E402
from lava.magma.core.process.process import AbstractProcess  # noqa: E402
from lava.magma.core.run_conditions import RunSteps  # noqa: E402
from lava.magma.core.run_configs import RunConfig  # noqa: E402
from lava.magma.runtime.message_infrastructure.multiprocessing import MultiProcessing  # noqa: E402
from lava.magma.runtime.mgmt_token_enums import MGMT_COMMAND, MGMT_RESPONSE, enum_equal, enum_to_np  # noqa: E402
from lava.magma.runtime.runtime import Runtime  # noqa: E402
from lava.magma.runtime.runtime_services.runtime_service import AsyncPyRuntimeService  # noqa: E402

_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # looked up before any fork; absent outside Linux


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back SIGINT and SIGTERM where their handler could raise, and deliver them afterwards.

    For the places where an exception would lose track of a child. Handlers run in the main thread only. A child
    forked meanwhile inherits the harmless handler, so that Ctrl-C cannot reach it before it ignores it.
    """
    held: list[int] = []
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):
                before[number] = signal.signal(number, lambda caught, _: held.append(caught))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for caught in dict.fromkeys(held):
            signal.raise_signal(caught)


class _Memory:
    """Stands in for Lava's SharedMemoryManager; of its segments, Lava's ports use `buf` alone."""

    def __init__(self) -> None:
        self.segments: list[SimpleNamespace] = []

    def create_shared_memory(self, size: int) -> SimpleNamespace:
        self.segments.append(SimpleNamespace(buf=memoryview(mmap.mmap(-1, size))))  # -1: anonymous; shared
        return self.segments[-1]

    def release(self) -> None:
        """Let go, not close: Lava's arrays point into the maps, and to close one under an array is a segfault."""
        for segment in self.segments:
            segment.buf = None


class _Child(ForkProcess):
    """One Process model, or runtime service, in its operating-system process; for Lava's SystemProcess."""

    def __init__(self, label: str, builder: Any, dump: IO[bytes]) -> None:
        super().__init__(name=label, daemon=True)
        self.label, self.builder, self.dump = label, builder, dump
        self.reader, self.writer = multiprocessing.Pipe(duplex=False)
        self.counters = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")
        self.parent_pid, self.in_main = os.getpid(), threading.current_thread() is threading.main_thread()
        self.ready, self.closed = False, False
        self.error: tuple[str, int, str] | None = None  # first line, time step, traceback

    def run(self) -> None:
        """In the child: build the model, say so, run it; report what it raises."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the parent's handler
        self._die_with_parent()
        faulthandler.enable(self.dump, all_threads=False)  # for a crash in native code
        faulthandler.register(signal.SIGUSR1, self.dump, all_threads=False)  # for a loop, when the parent asks
        model = None
        try:
            model = self.builder.build()
            self._count(model)
            self.writer.send(None)
            model.start()
        except BaseException as error:  # SystemExit too
            text = _first_line(traceback.format_exception_only(type(error), error)[-1])
            self.writer.send((text, getattr(model, "time_step", 0), traceback.format_exc()[-TEXT_CHARS:]))
            sys.stdout.flush()
            os._exit(1)  # at once, whatever threads the model has

    def _die_with_parent(self) -> None:
        # The kernel's signal comes when the forking *thread* ends, so it suits the main thread alone.
        if self.in_main and _PRCTL:
            _PRCTL(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        else:
            threading.Thread(target=self._follow_parent, daemon=True).start()
        if os.getppid() != self.parent_pid:  # it died before the kernel was asked
            os._exit(1)

    def _follow_parent(self) -> None:
        while os.getppid() == self.parent_pid:
            time.sleep(TICK_S)
        os._exit(1)

    def _count(self, model: Any) -> None:
        """Count messages, and mark waiting, in the four methods where all of Lava waits; in this child only."""
        counters = self.counters

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def passing(*args: Any) -> Any:
                counters[WAITS] = 1
                result = call(*args)
                counters[WAITS] = 0
                counters[MESSAGES] += 1
                counters[STEP] = getattr(model, "time_step", 0)
                return result

            return passing

        for name in ("CspSendPort.send", "CspRecvPort.recv", "CspRecvPort.peek", "CspSelector.select"):
            port, method = getattr(pypychannel, name.split(".")[0]), name.split(".")[1]
            setattr(port, method, counted(getattr(port, method)))

    def listen(self) -> None:
        """In the parent: take the message, or the end, that made the pipe readable."""
        try:
            self.error, self.ready = self.reader.recv(), True
        except (EOFError, OSError):
            self.closed = True

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether the process is over and reaped; by the kernel where SIGCHLD is ignored, without an exit code."""
        limit = time.monotonic() + within_s
        while self.exitcode is None:
            try:
                os.kill(self.pid or 0, 0)
            except ProcessLookupError:
                return True
            if time.monotonic() >= limit:
                return False
            time.sleep(0.001)
        return True

    def epitaph(self) -> str:
        """How a child that reported no error ended."""
        self.ended(within_s=GRACE_S)  # the pipe closes a moment before the exit code is there
        code, step = self.exitcode, self.counters[STEP]
        last = f", last heard of in step {step}" if step else ""
        if code is None or code >= 0:
            return f"{self.label} ended by itself with exit code {code}{last}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"{self.label} was killed by {name}{last}{' (short of memory?)' if name == 'SIGKILL' else ''}"

    def bury(self) -> None:
        """Wait until a killed process is gone, and close its pipes; one that never started has only these."""
        if self.pid:
            self.ended(within_s=KILL_S)
        with contextlib.suppress(ValueError):  # no exit code: stuck in the kernel, or reaped by it
            self.close()
        self.reader.close()


class _Infrastructure(MultiProcessing):
    """Lava's message infrastructure with our memory and our children."""

    def __init__(self, labels: dict[int, str], dump: IO[bytes]) -> None:
        super().__init__()
        self._labels, self._dump = labels, dump

    def start(self) -> None:
        self._smm = _Memory()

    def build_actor(self, target_fn: Any, builder: Any, exception_q: Any = None) -> _Child:
        """Fork one child. Lava's target and queue are not used: they report too little, and too late."""
        child = _Child(self._labels.get(id(builder)) or f"Lava's {builder.rs_class.__name__}", builder, self._dump)
        with _signals_held():
            self._actors.append(child)
            try:
                child.start()
            finally:
                child.writer.close()  # so that the child's is the only one
        return child


class _Runtime(Runtime):
    """Lava's Runtime with guarded waits. What goes past GuardedRuntime (Var.get, Process.stop) comes here too."""

    def __init__(self, executable: Any, deadline_s: float) -> None:
        super().__init__(executable, ActorType.MultiProcessing)
        self._owner, self._deadline_s, self._limit = os.getpid(), deadline_s, float("inf")
        self._stopping = self._destroyed = False
        self._doubt: tuple[float, LavaRuntimeError] | None = None
        self._resources = contextlib.ExitStack()
        self.exception_q: list[Any] = []
        self.progress: Callable[[], None] | None = None
        self.steps = 0

    def __del__(self) -> None:
        """Nothing: Lava's waits for children, which may be gone. GuardedRuntime's finaliser kills them."""

    @property
    def children(self) -> list[_Child]:
        return self._messaging_infrastructure.actors if self._messaging_infrastructure else []

    def _build_message_infrastructure(self) -> None:
        builders = self._executable.proc_builders
        labels = {id(builders[it]): f"Lava Process {it.name!r} ({type(it).__name__})" for it in builders}
        self._messaging_infrastructure = _Infrastructure(labels, self._dump)
        self._messaging_infrastructure.start()

    def initialize(self, node_cfg_idx: int = 0) -> None:
        """The steps of Lava's, but for its wait, which a child that dies early makes endless."""
        try:
            own = self._resources.enter_context  # closed by destroy
            self._dump = own(tempfile.TemporaryFile(buffering=0))  # noqa: SIM115  (children write their stacks)
            self._selector = own(selectors.DefaultSelector())
            self._wake, self._woken = map(own, socket.socketpair())  # Lava's port threads end a select through it
            self._wake.setblocking(False)
            self._selector.register(self._woken, selectors.EVENT_READ)
            self._build_watchdog_manager()
            self._build_message_infrastructure()
            self._build_channels()
            self._build_sync_channels()
            self._build_processes()
            self._build_runtime_services()
            self.exception_q.clear()  # unused, two descriptors each
            self._start_ports()
            for child in self.children:
                self._selector.register(child.reader, selectors.EVENT_READ, child)
            self._wait(lambda: all(child.ready for child in self.children))
            self._is_initialized = True
        except BaseException:
            self.destroy()
            raise

    def _start_ports(self) -> None:
        """Put a guarded wait before the calls of Lava's ports that could block."""
        super()._start_ports()

        def guarded(port: Any, call: Callable[..., Any]) -> Callable[..., Any]:
            def waiting(*args: Any) -> Any:
                self._wait(port.probe)  # true: the call will not block
                return call(*args)

            return waiting

        for port in (*self.runtime_to_service, *self.service_to_runtime):
            port.observer = self._end_wait  # called by the port's thread when probe has turned true
            name = "send" if port in self.runtime_to_service else "recv"
            setattr(port, name, guarded(port, getattr(port, name)))

    def _end_wait(self) -> None:
        with contextlib.suppress(OSError):  # full: the wait ends anyway; closed: nobody waits
            self._wake.send(b"\0")

    def _wait(self, done: Callable[[], bool], patience_s: float | None = None) -> None:
        """Return when `done()`; on a failure, a deadline or a signal, clean up and raise."""
        patience_s = self._deadline_s if patience_s is None else patience_s
        seen, since = -1, time.monotonic()
        try:
            while not done():
                events = self._selector.select(TICK_S)
                for key, _ in events:
                    if key.data is None:
                        self._woken.recv(4096)
                        continue
                    key.data.listen()
                    if key.data.closed:
                        self._selector.unregister(key.fileobj)
                self._raise_failure(every=not events)
                now = time.monotonic()
                passed = sum(child.counters[MESSAGES] + child.ready + child.closed for child in self.children)
                if passed != seen:
                    seen, since = passed, now
                if now - since > patience_s or now > self._limit:
                    self._raise_deadline(now - since)
                if self.progress:
                    self.progress()
        except BaseException:
            self.destroy()
            raise

    def _raise_failure(self, every: bool) -> None:
        """Raise what a child has reported, else how one has died. `every`: ask the kernel, not only the pipes."""
        for child in self.children:
            if child.error:
                text, step, child_traceback = child.error
                raise LavaRuntimeError(
                    f"{child.label} failed {f'in step {step}' if step else 'while starting'}: {text}", child_traceback
                )
        for child in self.children:
            if child.closed or (every and child.ended()):
                error = LavaRuntimeError(child.epitaph(), self._read_dump(0))
                if child.exitcode != 0:
                    raise error
                if not self._stopping:
                    self._doubt = self._doubt or (time.monotonic(), error)
        # Lava's service reports an error, and ends in good order, before the Process at fault has told us.
        if self._doubt and time.monotonic() - self._doubt[0] > GRACE_S:
            raise self._doubt[1]

    def _raise_deadline(self, waited_s: float) -> NoReturn:
        """Name the Process that computes while the others wait for it, with its stack."""
        busy = [child for child in self.children if not child.counters[WAITS] and not child.ended()]
        if not busy:
            raise LavaDeadlineError(
                f"no Lava Process has sent anything for {waited_s:.1f} s, all wait for a message: "
                "look for a circle of connections, or a Process that does not send in every step"
            )
        before = os.fstat(self._dump.fileno()).st_size
        os.kill(busy[0].pid or 0, signal.SIGUSR1)
        time.sleep(TICK_S)  # its faulthandler needs a few milliseconds
        raise LavaDeadlineError(
            f"{busy[0].label} has computed for {waited_s:.1f} s, last heard of in step {busy[0].counters[STEP]}"
            f"{f', as have {len(busy) - 1} others' if busy[1:] else ''}; if it may take so long, raise deadline_s",
            self._read_dump(before),
        )

    def _read_dump(self, offset: int) -> str:
        text = os.pread(self._dump.fileno(), TEXT_CHARS, offset).decode(errors="replace")
        return text.partition(f'  File "{__file__}"')[0]  # what is below is the guard's and the parent's

    def start(self, run_condition: Any) -> None:
        """Run some steps and wait for their end."""
        if not self._is_initialized:
            raise LavaRuntimeError("Lava's runtime has stopped: make a new GuardedRuntime")
        if not isinstance(run_condition, RunSteps):
            raise LavaRuntimeError(f"Lava's runtime is guarded for RunSteps, not {type(run_condition).__name__}")
        steps = run_condition.num_steps
        try:
            self._is_started = self._is_running = True
            self._limit = time.monotonic() + self._deadline_s * steps  # Processes may chatter without end
            services = self._executable.runtime_service_builders.values()
            for port, service in zip(self.runtime_to_service, services, strict=True):  # Lava's order, as in set_var
                # Models converted to Lava's async protocol count from their first step, not from the last run.
                from_first = issubclass(service.rs_class, AsyncPyRuntimeService)
                port.send(enum_to_np(self.steps + steps if from_first else steps))
            for port in self.service_to_runtime:
                answer = port.recv()
                if not enum_equal(answer, MGMT_RESPONSE.DONE):
                    text = f"Lava's runtime service broke off, with the answer {int(answer[0])}"
                    self._doubt = (time.monotonic(), LavaRuntimeError(text))
                    self._wait(lambda: False)  # for the cause
            self._limit, self._is_running = float("inf"), False
            self.steps += steps
        except BaseException:
            self.destroy()
            raise

    def stop(self) -> None:
        """Ask idle children to end, so that they flush their output; kill what is left."""
        try:
            if self._is_initialized and not self._is_running and os.getpid() == self._owner:
                self._stopping = True
                for port in self.runtime_to_service:
                    port.send(MGMT_COMMAND.STOP)
                self._wait(lambda: all(child.closed for child in self.children), STOP_S)
        except LavaDeadlineError:
            pass
        finally:
            self.destroy()

    def destroy(self) -> None:
        """Kill every child and release everything. Safe at any time, repeatedly, at exit and in forked processes."""
        if self._destroyed or os.getpid() != self._owner:
            return
        with _signals_held():
            for child in self.children:
                if child.pid:
                    child.kill()
            for child in self.children:
                child.bury()
            self._destroyed = True
            self._is_initialized = self._is_started = self._is_running = False
            for port in self._open_ports:
                port.join()  # drops its semaphores, and ends its thread, which the runtime's own have
            for port in self._open_ports:
                if port.thread:
                    port.thread.join(GRACE_S)
                port._array = []  # the last references into channel memory: Lava keeps every Process for ever
            if self._messaging_infrastructure:
                self.children.clear()
                self._messaging_infrastructure.smm.release()
            self._open_ports.clear()
            self.exception_q.clear()
            self._resources.close()


class GuardedRuntime:
    """Runs a network of Lava Processes: ends with a result, or with a Python exception and nothing left behind.

    >>> with GuardedRuntime(process, Loihi2SimCfg(select_tag="fixed_pt")) as runtime:
    ...     runtime.run(16)
    ...     runtime.run(16)    # goes on where the first ended

    A Process that raises, crashes, ends or is killed raises LavaRuntimeError: from `start`, from `run` or, after the
    last run, from `stop`. If none makes progress for `deadline_s`, LavaDeadlineError names the one that the others
    wait for. Ctrl-C raises KeyboardInterrupt after the clean-up. Whatever ends the interpreter ends the children.
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
        # 4 slots a channel for Lava's 64: less memory, and faster. Lava's watchdog would start processes of its own.
        self._compile_config = {"pypy_channel_size": 4, **(compile_config or {}), "use_watchdog": False}
        self._runtime: _Runtime | None = None

    def __enter__(self) -> GuardedRuntime:
        self.start()
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: Any) -> None:
        try:
            self.stop()
        except LavaRuntimeError:
            if exception_type is None:  # else the exception on its way tells more
                raise

    @property
    def steps(self) -> int:
        """The time steps run so far, in finished calls of `run`."""
        return self._runtime.steps if self._runtime else 0

    def start(self) -> None:
        """Compile the network and start its Processes; return when every model is constructed."""
        if self._runtime:
            raise LavaRuntimeError("a GuardedRuntime starts once: make a new one")
        _require_fork()
        try:
            executable = self._process.compile(self._run_config, self._compile_config)
            self._runtime = _Runtime(executable, self._deadline_s)
            # When this object is collected, or at exit before multiprocessing joins its children.
            self._finalizer = Finalize(self, self._runtime.destroy, exitpriority=10)
            executable.assign_runtime_to_all_processes(self._runtime)
            self._runtime.initialize()
        except MksgnError:
            raise
        except Exception as error:
            text = f"Lava cannot start {self._process.name!r}: {type(error).__name__}: {_first_line(str(error))}"
            raise LavaRuntimeError(text, traceback.format_exc()) from error

    def run(self, steps: int, progress: Callable[[], None] | None = None) -> None:
        """Run `steps` time steps after those already run, and wait for their end.

        `progress` is called about every 0.1 s meanwhile. For the deadline, any message between Processes is progress;
        in all, a call may take `steps` times `deadline_s`.
        """
        if not self._runtime:
            raise LavaRuntimeError("Lava's runtime has not started: call start(), or use a with statement")
        if steps < 1:
            raise ValueError(f"steps is {steps}, must be at least 1")
        self._runtime.progress = progress
        try:
            self._runtime.start(RunSteps(num_steps=steps, blocking=True))
        finally:
            self._runtime.progress = None

    def stop(self) -> None:
        """End all Processes. May be called at any time and repeatedly; `run` raises LavaRuntimeError afterwards."""
        if self._runtime:
            self._runtime.stop()
            self._finalizer.cancel()
