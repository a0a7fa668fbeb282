"""A Process model, or a runtime service of Lava, in an OS process that reports how it ends.

parent                                          child
------                                          -----
Child(...)       -- fork (start) ------------>  run: build the model, _report(), model.start()
listen           <-- lines of JSON in a pipe -  _report(text, time step, traceback)
ended, stopped, computes: what the kernel       _die_with_parent, _follow_parent
  and the shared counters say
failure, describe_exit: the message for the user
reap: after the end
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import multiprocessing.process
import os
import signal
import sys
import threading
import time
import traceback
from multiprocessing.context import ForkProcess
from multiprocessing.popen_fork import Popen
from pathlib import Path
from typing import IO, Any

from mksgn.common.errors import first_line
from mksgn.deploy.lava.guard.channels import STEP, WAITS, count_in_child, new_counters
from mksgn.deploy.lava.guard.os_signals import reset_signals_in_child, signals_held

FOLLOW_S = 0.1  # how often a child that the kernel does not notify checks for its parent
KILL_S = 5.0  # how long the kernel may take to end a killed child
TEXT_CHARS = 5_000  # kept of a traceback's beginning, and of its end
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

_PRCTL = getattr(ctypes.CDLL(None), "prctl", None)  # looked up before any fork; absent outside Linux


class _Fork(Popen):
    """The Popen of multiprocessing without its two pipes, which a failing fork would leak."""

    def _launch(self, child: Child) -> None:
        self.sentinel = child.reader
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = child._bootstrap()  # type: ignore[attr-defined]
            finally:
                os._exit(code)


class Child(ForkProcess):
    """Replaces Lava's SystemProcess. It ignores Ctrl-C, which the parent handles, and dies with the parent.

    It reports over its own pipe in lines of JSON: [] when its model is built, [text, time step,
    traceback] when the model raises. The kernel closes the pipe when it dies. `service` marks
    Lava's runtime services, whose errors follow from a model's.
    """

    _Popen = _Fork

    def __init__(self, label: str, service: bool, builder: Any, dump: IO[bytes]) -> None:
        super().__init__(name=label, daemon=True)
        self.label, self.service, self.builder, self.dump = label, service, builder, dump
        self.parent_pid, self.in_main = os.getpid(), threading.current_thread() is threading.main_thread()
        self.ready, self.closed = False, False
        self.error: tuple[str, int, str] | None = None  # one line, time step, traceback
        self.counters = new_counters()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)
        self._unread = b""

    def start(self) -> None:
        """Fork, even in a daemon: multiprocessing forbids it children, which could outlive it; these cannot."""
        reap_late()
        config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        daemon = config.pop("daemon", None)
        with signals_held():
            try:
                super().start()
            finally:
                os.close(self.writer)  # so that the child holds the only one
                if daemon is not None:
                    config["daemon"] = daemon

    def run(self) -> None:
        """In the child: build the model, report that, run it; report what it raises."""
        reset_signals_in_child()
        _forget_executors()
        self._die_with_parent()
        faulthandler.enable(self.dump, all_threads=False)  # for a crash in native code
        faulthandler.register(signal.SIGUSR1, self.dump, all_threads=False)  # for an endless loop, when the parent asks
        model = None
        try:
            model = self.builder.build()
            count_in_child(self.counters, model)
            self._report()
            model.start()
        except BaseException as error:  # SystemExit too
            text, step, frames = _one_line(error), getattr(model, "time_step", 0), traceback.format_exc()
            if len(frames) > 2 * TEXT_CHARS:  # the calls are at its beginning, the error at its end
                frames = f"{frames[:TEXT_CHARS]}\n[...]\n{frames[-TEXT_CHARS:]}"
            self._report(text, int(step), frames)
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(1)  # at once, whatever threads the model has

    def _report(self, *words: Any) -> None:
        line = json.dumps(words).encode() + b"\n"
        while line:
            line = line[os.write(self.writer, line) :]

    def _die_with_parent(self) -> None:
        # The kernel sends the signal when the forking *thread* ends, so only the main thread can
        # use it.
        if self.in_main and _PRCTL:
            _PRCTL(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        else:
            threading.Thread(target=self._follow_parent, daemon=True).start()
        if os.getppid() != self.parent_pid:  # it died before the kernel was asked
            os._exit(1)

    def _follow_parent(self) -> None:
        while os.getppid() == self.parent_pid:
            time.sleep(FOLLOW_S)
        os._exit(1)

    def listen(self) -> None:
        """In the parent: read the child's reports, without waiting."""
        while not self.closed:
            try:
                received = os.read(self.reader, 1 << 16)
            except BlockingIOError:
                break
            self.closed = not received
            self._unread += received
        *lines, self._unread = self._unread.split(b"\n")
        for words in map(json.loads, lines):
            if words:
                self.error = (words[0], words[1], words[2])
            else:
                self.ready = True

    def ended(self, within_s: float = 0.0) -> bool:
        """Return whether the process ends within `within_s`. If SIGCHLD is ignored, there is no exit code."""
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

    def stopped(self) -> bool:
        """Return whether the process is stopped, as by SIGSTOP or a debugger; False if there is no /proc."""
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] in "tT"
        return False

    def computes(self) -> bool:
        """Return whether the process is alive and not waiting for a message."""
        return not self.counters[WAITS] and not self.ended()

    def failure(self) -> str:
        """Describe the error that it reported in one line, with its name."""
        assert self.error
        text, step, _ = self.error
        when = "while starting" if not self.ready else f"in step {step}" if step else ""
        return f"{self.label} failed{when and ' '}{when}: {text}"

    def describe_exit(self) -> str:
        """Describe how a process that reported no error ended."""
        code, step = self.exitcode, self.counters[STEP]
        last = f", last heard of in step {step}" if step else ""
        if code is None:
            return (
                f"{self.label} ended by itself{last}; its exit code is lost, because this interpreter ignores SIGCHLD"
            )
        if code >= 0:
            return f"{self.label} ended by itself with exit code {code}{last}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"{self.label} was killed by {name}{last}{' (short of memory?)' if name == 'SIGKILL' else ''}"

    def reap(self) -> None:
        """Wait for the end of a killed process and close its pipe; one that never started has only the pipe."""
        if self.pid:
            self.ended(within_s=KILL_S)
        try:
            self.close()
        except ValueError:
            # No exit code: stuck in the kernel, or reaped by it. Multiprocessing would wait for one
            # at exit.
            multiprocessing.process._children.discard(self)  # type: ignore[attr-defined]
            if self.pid and not _reaped(self.pid):
                _late.add(self.pid)
        if self.reader >= 0:
            os.close(self.reader)
            self.reader, self.closed = -1, True


_late: set[int] = set()  # process ids, not Child objects, which would keep their shared memory


def reap_late() -> None:
    """Collect the exit codes of killed processes that ended only after KILL_S; otherwise they remain as zombies."""
    _late.difference_update([pid for pid in _late if _reaped(pid)])


def _reaped(pid: int) -> bool:
    """Collect a process's exit code if it has ended. One that is not, or no longer, a child has none to collect."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _forget_executors() -> None:
    """Forget the parent's thread and process pools: of their threads, only the one that forked exists here.

    At exit, Python would make that thread wait for itself, and fail. A model's own pools are made later.
    """
    for name, threads in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        module = sys.modules.get(f"concurrent.futures.{name}")
        if module is not None:
            getattr(module, threads).clear()


def _one_line(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # str() of an error may itself fail
        text = ""
    line = first_line(Exception(text)) if text.strip() else ""
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
