"""mksgn/deploy/lava/guard/children: what a model raises, how it exits or crashes, and which process its parent is."""

import multiprocessing
import os
import signal
import threading
import time
from typing import Any

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
from tests.support.lava_guards import NAMES, SOON_S, clock_of, ends_soon, faulty, guard
from tests.support.leftovers import alive, children, eventually, nothing_left  # noqa: F401
from tests.support.tiers import one_in


@pytest.mark.parametrize(
    ("fault", "message"),
    one_in(
        3,
        [
            ("constructor:raise", "failed while starting: ValueError: the weights are bad"),
            ("before:raise", "failed in step 2: ValueError: the weights are bad"),
            ("after:raise", "failed in step 2: ValueError: the weights are bad"),
            ("stop:raise", "failed in step 4: ValueError: the weights are bad"),
            ("before:unpicklable", "failed in step 2: CannotPickleError: first line"),
            ("before:unprintable", "failed in step 2: UnprintableError"),
            ("before:long", "failed in step 2: ValueError: " + "long " * 40),
            ("before:memory", "failed in step 2: MemoryError: Unable to allocate 1.00 EiB for an array"),
            ("constructor:memory", "failed while starting: MemoryError: Unable to allocate 1.00 EiB for an array"),
            ("before:recursion", "failed in step 2: RecursionError: maximum recursion depth exceeded"),
            ("before:interrupt", "failed in step 2: KeyboardInterrupt"),
            ("before:sys.exit", "failed in step 2: SystemExit: 3"),
            ("before:sys.exit(0)", "failed in step 2: SystemExit: 0"),
            ("constructor:sys.exit", "failed while starting: SystemExit: 3"),
            ("before:os._exit", "ended by itself with exit code 7, last heard of in step 2"),
            ("before:os._exit(0)", "ended by itself with exit code 0, last heard of in step 2"),
            ("constructor:os._exit(0)", "ended by itself with exit code 0"),
            ("after:close", "ended by itself with exit code 1, last heard of in step 2"),
            ("before:segfault", "was killed by SIGSEGV, last heard of in step 2"),
            ("constructor:segfault", "was killed by SIGSEGV"),
            ("before:abort", "was killed by SIGABRT, last heard of in step 2"),
            ("after:SIGKILL", "was killed by SIGKILL, last heard of in step 2 (short of memory?)"),
            ("after:SIGTERM", "was killed by SIGTERM, last heard of in step 2"),
        ],
    ),
)
def test_a_model_fails(fault: str, message: str) -> None:
    source, relay, _ = faulty.chain(fault)
    with ends_soon(clock_of(relay)):
        with pytest.raises(LavaRuntimeError) as caught, guard(source) as runtime:
            runtime.run(4)
        text = str(caught.value)
    assert text.startswith(f"{NAMES['relay']} {message}")
    assert "\n" not in text
    assert len(text) < 300
    frames = caught.value.traceback
    assert ("in fail\n" in frames) == (" failed " in text or "SEGV" in text or "ABRT" in text)
    assert len(frames) < 11_000


def test_exit_codes_that_the_kernel_keeps() -> None:
    """An interpreter that ignores SIGCHLD never learns an exit code: the guard says so, and does not wait for one."""
    source, relay, _ = faulty.chain("before:os._exit")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        lost = pytest.raises(LavaRuntimeError, match=r"^Lava Process 'relay'.*its exit code is lost")
        with ends_soon(clock_of(relay)), lost, guard(source) as runtime:
            runtime.run(4)
        source, *_ = faulty.chain()
        with guard(source) as runtime:
            runtime.run(4)
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("fault", ["", "before:raise", "after:SIGKILL"])
def test_not_in_the_main_thread(fault: str) -> None:
    source, _, sink = faulty.chain(fault)
    outcome: list[Any] = []

    def use() -> None:
        try:
            with guard(source) as runtime:
                runtime.run(4)
                outcome.append(sink.total.get().tolist())
        except LavaRuntimeError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=use)
    began = time.monotonic()
    thread.start()
    thread.join(20)
    assert time.monotonic() - began < SOON_S
    assert outcome[0] == [4, 4, 4] if not fault else outcome[0].startswith(NAMES["relay"])


def in_a_daemon(fault: str, results: Any) -> None:
    source, _, sink = faulty.chain(fault)
    try:
        with guard(source) as runtime:
            runtime.run(4)
            results.send(sink.total.get().tolist())
    except LavaRuntimeError as error:
        results.send(str(error))
    assert multiprocessing.current_process().daemon
    results.send(len(children()))


@pytest.mark.parametrize("fault", ["", "before:raise"])
def test_in_a_daemon(fault: str) -> None:
    """A daemon, such as a worker of a pool, which multiprocessing denies children."""
    results, write = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=in_a_daemon, args=(fault, write), daemon=True)
    worker.start()
    outcome = results.recv()
    assert outcome == [4, 4, 4] if not fault else outcome.startswith(NAMES["relay"])
    assert results.recv() == 0
    worker.join(20)
    assert worker.exitcode == 0
    worker.close(), results.close(), write.close()


def test_a_daemon_that_is_killed_takes_its_children_along() -> None:
    def start(write: Any) -> None:
        source, *_ = faulty.chain("before:sleep")
        runtime = guard(source)
        runtime.start()
        write.send([child.pid for child in runtime._runtime.children])
        runtime.run(4)

    results, write = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=start, args=(write,), daemon=True)
    worker.start()
    pids = results.recv()
    assert len(alive(pids)) == 4
    worker.kill()
    assert not eventually(lambda: alive(pids), SOON_S)
    worker.join(20)
    worker.close(), results.close(), write.close()


def test_a_fork_of_the_parent_leaves_the_children_alone() -> None:
    source, _, sink = faulty.chain()
    with guard(source) as runtime:
        runtime.run(2)
        pid = os.fork()
        if pid == 0:
            runtime.stop()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        runtime.run(2)
        assert (sink.total.get() == 4).all()
