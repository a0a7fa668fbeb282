"""A warm interpreter that imports once and forks for every piece of code that a test wants to see ended.

It reads a request per line, JSON [code, stdout file, stderr file], forks, and answers [pid] and, at the
end of the fork, [exit code, time of the end, seconds queued for a core].

A fork runs the code as the main program of a session of its own, whose process group is what a terminal
would send Ctrl-C to. It ends as an interpreter does: with its exit handlers, and by the signal that
an uncaught KeyboardInterrupt stands for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.paths import ROOT

# A background job of a shell inherits SIGINT as ignored, which Python would keep; Ctrl-C has to work here.
PRELUDE = f"""
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {[str(ROOT), *(p for p in sys.path if p)]!r}
"""
SERVE = """
import gc
gc.freeze()  # what was imported, which a fork would otherwise collect at its end, copying all of it
from tests.support import forking_interpreter
exec(forking_interpreter.next_code(), {"__name__": "__main__", **globals()})
"""


def queued_s(pid: int) -> float:
    """How long a process was ready to run without a core, because of other load on this machine."""
    return float(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def next_code() -> str:
    """Serve requests in the warm interpreter; return in each fork, with the code to run there."""
    for line in sys.stdin:
        code, *outputs = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for number, path in enumerate(["/dev/null", *outputs]):
                target = os.open(path, os.O_RDWR | os.O_CREAT)
                os.dup2(target, number)
                os.close(target)
            return code
        _answer(pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        ended, queued = time.monotonic(), queued_s(pid)
        _answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), ended, queued)
    return ""


def _answer(*values: Any) -> None:
    print(json.dumps(values), flush=True)


class Server:
    """The warm interpreter, as the tests see it. `imports` is what it imports once."""

    def __init__(self, imports: str) -> None:
        command = [sys.executable, "-c", PRELUDE + imports + SERVE]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.running: Fork | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end_fork()
        self.process.communicate()

    def fork(self, code: str, folder: Path) -> Fork:
        self.end_fork()
        self.running = Fork(self, code, folder)
        return self.running

    def end_fork(self) -> None:
        """Kill the fork of a test that failed before it saw the end."""
        if self.running:
            with suppress(ProcessLookupError):  # it has ended, and nobody asked how
                os.killpg(self.running.pid, signal.SIGKILL)
            self.running.end()

    def request(self, *values: Any) -> None:
        assert self.process.stdin
        print(json.dumps(values), file=self.process.stdin, flush=True)

    def answer(self) -> list[Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


class Fork:
    """One fork that runs a piece of code."""

    def __init__(self, server: Server, code: str, folder: Path) -> None:
        self.server, self.out, self.err = server, folder / "stdout", folder / "stderr"
        self.out.touch()
        server.request(code, str(self.out), str(self.err))
        (self.pid,) = server.answer()
        self.read = 0

    def line(self, within_s: float = 60.0) -> str:
        """Wait for the next line of its output."""
        limit = time.monotonic() + within_s
        while "\n" not in (text := self.out.read_text()[self.read :]):
            assert time.monotonic() < limit, self.errors()
            time.sleep(0.005)
        line = text.partition("\n")[0]
        self.read += len(line) + 1
        return line

    def errors(self) -> str:
        return self.err.read_text()

    def end(self) -> tuple[int, float, float]:
        """Wait for its end: exit code, the time of it, and for how long it had queued for a core in all."""
        code, ended, queued = self.server.answer()
        self.server.running = None
        return code, ended, queued
