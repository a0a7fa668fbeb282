"""Faults injected into small networks: each ends with a Python exception that names the Process, soon, and nothing is left.

The time is measured from the fault, which notes it, to the exception. The guard has no shared-memory manager and needs no
resource tracker, so that of its helpers only Lava's runtime service can be killed; a tracker of the user's is killed too.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed (extra 'lava', Python 3.10)")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import LavaDeadlineError, LavaRuntimeError
from tests.support.lava_guards import faulty, guard, pid_of
from tests.support.leftovers import TRACKER, alive, children, eventually, holdings, nothing_left  # noqa: F401
from tests.support.paths import ROOT

SOON_S = 3.0  # from the cause to the exception; 0.05 s on an idle machine
DEADLINE_S = 0.5
NAMES = {"source": "Lava Process 'source' (Source)", "relay": "Lava Process 'relay' (Relay)"}
NAMES |= {"sink": "Lava Process 'sink' (Sink)", "service": "Lava's LoihiPyRuntimeService"}


@contextlib.contextmanager
def ends_soon(clock: Any, later_s: float = 0.0) -> Iterator[None]:
    """The block must end within SOON_S of what `clock` tells, and of a deadline after it."""
    yield
    assert 0 < clock[0] <= time.monotonic() < clock[0] + later_s + SOON_S


def clock_of(relay: Any) -> Any:
    return relay.proc_params["clock"]


# --- what a model can do -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
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


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("constructor:loop", "has computed for .* s.*; if it may take so long, raise deadline_s"),
        ("before:loop", "has computed for .* s, last heard of in step 2; if it may take so long, raise deadline_s"),
        ("after:sleep", "has computed for .* s, last heard of in step 2; if it may take so long, raise deadline_s"),
        ("before:SIGSTOP", "has been stopped from outside, as by SIGSTOP, .* last heard of in step 2"),
        ("constructor:SIGSTOP", "has been stopped from outside, as by SIGSTOP"),
    ],
)
def test_a_model_goes_on_for_ever(fault: str, message: str) -> None:
    source, relay, _ = faulty.chain(fault)
    deadline = pytest.raises(LavaDeadlineError, match=message)
    with ends_soon(clock_of(relay), later_s=DEADLINE_S), deadline as caught, guard(source, DEADLINE_S) as runtime:
        runtime.run(4)
    assert time.monotonic() > clock_of(relay)[0] + DEADLINE_S
    assert str(caught.value).startswith(NAMES["relay"])
    assert ("in fail\n" in caught.value.traceback) == ("SIGSTOP" not in fault)
    assert "children.py" not in caught.value.traceback


def test_a_process_that_does_not_send() -> None:
    source, *_ = faulty.chain("silent:")
    began = time.monotonic()
    with pytest.raises(LavaDeadlineError, match="all wait for a message"), guard(source, DEADLINE_S) as runtime:
        runtime.run(4)
    assert DEADLINE_S < time.monotonic() - began < DEADLINE_S + SOON_S


def test_processes_that_chatter_meet_the_deadline_of_their_steps() -> None:
    """Each message is progress, so that only the limit of the whole call can end a ring in which one never goes home."""
    source, relay, _ = faulty.chain("before:chatter")
    deadline = pytest.raises(LavaDeadlineError, match=r"4 steps have taken longer than 4 times deadline_s, 0\.5 s")
    with ends_soon(clock_of(relay), later_s=4 * DEADLINE_S), deadline, guard(source, DEADLINE_S) as runtime:
        runtime.run(4)


def test_a_model_that_never_ends_when_asked_is_killed() -> None:
    source, relay, _ = faulty.chain("stop:loop")
    with ends_soon(clock_of(relay)), guard(source) as runtime:
        runtime.run(4)


# --- what can be done to a child ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["source", "relay", "sink", "service"])
@pytest.mark.parametrize("when", ["starting", "running", "idle", "stopping"])
def test_a_child_is_killed(victim: str, when: str) -> None:
    source, relay, _ = faulty.chain({"running": "before:sleep", "starting": "constructor:pause"}.get(when, ""))
    runtime, clock = guard(source), clock_of(relay)

    def kill() -> None:
        assert runtime._runtime
        child = next(child for child in runtime._runtime.children if child.label == NAMES[victim])
        os.kill(child.pid or 0, signal.SIGKILL)
        clock[0] = time.monotonic()

    def use() -> None:
        timer = threading.Timer(0.25, kill)
        if when == "starting":
            timer.start()
        with runtime:
            if when == "running":
                timer.start()
                runtime.run(4)
            runtime.run(4)
            kill()
            if when == "idle":
                runtime.run(4)

    with ends_soon(clock), pytest.raises(LavaRuntimeError) as caught:
        use()
    assert str(caught.value).startswith(f"{NAMES[victim]} was killed by SIGKILL")


@pytest.mark.parametrize("victim", ["source", "relay", "sink", "service"])
def test_a_child_is_stopped_while_it_waits(victim: str) -> None:
    source, relay, _ = faulty.chain()
    with guard(source, DEADLINE_S) as runtime:
        runtime.run(2)
        os.kill(pid_of(runtime, NAMES[victim]), signal.SIGSTOP)
        clock_of(relay)[0] = time.monotonic()
        with ends_soon(clock_of(relay), later_s=DEADLINE_S), pytest.raises(LavaDeadlineError) as caught:
            runtime.run(2)
    assert str(caught.value).startswith(f"{NAMES[victim]} has been stopped from outside")


def test_a_stopped_child_does_not_keep_the_guard_from_stopping() -> None:
    source, relay, _ = faulty.chain()
    with guard(source) as runtime, ends_soon(clock_of(relay)):
        runtime.run(2)
        os.kill(pid_of(runtime, NAMES["sink"]), signal.SIGSTOP)
        clock_of(relay)[0] = time.monotonic()
        runtime.stop()


def test_all_children_are_killed_at_once() -> None:
    source, relay, _ = faulty.chain()
    with guard(source) as runtime:
        runtime.run(2)
        for name in NAMES.values():
            os.kill(pid_of(runtime, name), signal.SIGKILL)
        clock_of(relay)[0] = time.monotonic()
        with ends_soon(clock_of(relay)), pytest.raises(LavaRuntimeError, match="was killed by SIGKILL"):
            runtime.run(2)


def test_there_is_no_manager_and_killing_the_resource_tracker_makes_no_difference() -> None:
    source, _, sink = faulty.chain()
    before = children()
    with guard(source) as runtime:
        assert len(children() - before) == 4  # three models and a service: no manager
        runtime.run(2)
        os.kill(TRACKER._pid, signal.SIGKILL)
        runtime.run(2)
        assert (sink.total.get() == 4).all()
    with pytest.warns(UserWarning, match="resource_tracker"):
        TRACKER.ensure_running()


def test_exit_codes_that_the_kernel_keeps() -> None:
    """Who ignores SIGCHLD never learns an exit code: the guard says so, and does not wait for one."""
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


# --- what can go wrong in the parent -----------------------------------------------------------------------------------------


def test_progress_raises() -> None:
    source, relay, _ = faulty.chain("before:sleep")

    def fails() -> None:
        if clock_of(relay)[0]:
            raise KeyError("progress")

    with ends_soon(clock_of(relay)), pytest.raises(KeyError, match="progress"), guard(source) as runtime:
        runtime.run(4, progress=fails)


def test_the_block_raises() -> None:
    def use() -> None:
        with guard(source) as runtime:
            runtime.run(1)
            raise KeyError("mine")

    source, *_ = faulty.chain("stop:raise")
    began = time.monotonic()
    with pytest.raises(KeyError, match="mine"):
        use()
    assert time.monotonic() - began < SOON_S


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


def test_the_user_may_have_no_more_processes() -> None:
    """The kernel's own refusal; root has no such limit, so that an interpreter becomes nobody first."""
    if os.getuid() != 0:
        pytest.skip("only root can become nobody")
    code = f"""
import os, resource, sys
sys.path[:0] = {[str(ROOT), *sys.path]!r}
from tests.support import lava_guards
from mksgn.deploy.lava.guard.errors import LavaRuntimeError
source, *_ = lava_guards.faulty.chain()
with lava_guards.guard(source): pass  # imports what nobody may not read
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
    """With ever more of them to spare, until there are enough: at every place where one is taken."""
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


def test_dev_shm_is_full() -> None:
    """Semaphores lie there, nameless, for want of anything else in multiprocessing."""
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


def test_collected_without_stop() -> None:
    source, *_ = faulty.chain()
    runtime = guard(source)
    runtime.start()
    runtime.run(2)
    pids = [child.pid for child in runtime._runtime.children]
    assert len(alive(pids)) == 4
    began = time.monotonic()
    del runtime
    gc.collect()
    assert not alive(pids)
    assert time.monotonic() - began < SOON_S


def test_stopped_by_another_thread() -> None:
    before = threading.active_count()  # other tests' libraries may keep threads of their own
    source, relay, _ = faulty.chain("before:sleep")
    runtime, clock = guard(source), clock_of(relay)

    def stop() -> None:
        clock[0] = time.monotonic()
        runtime.stop()

    runtime.start()
    threading.Timer(0.2, stop).start()
    with ends_soon(clock), pytest.raises(LavaRuntimeError, match="stopped by another thread"):
        runtime.run(4)
    assert not eventually(lambda: threading.active_count() > before)


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
    """A worker of a pool, which multiprocessing lets have no children."""
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


def test_two_networks_of_which_one_fails() -> None:
    source, _, sink = faulty.chain()
    failing, relay, _ = faulty.chain("before:SIGKILL")
    with guard(source) as runtime:
        runtime.run(2)
        killed = pytest.raises(LavaRuntimeError, match=r"'relay'.*SIGKILL")
        with ends_soon(clock_of(relay)), guard(failing) as other:
            runtime.run(1)
            with killed:
                other.run(4)
        runtime.run(2)
        assert (sink.total.get() == 5).all()


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


# --- signals to this interpreter ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def handlers(number: int, handler: Callable[..., Any]) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)


def leave(number: int, frame: Any) -> None:
    raise SystemExit(40 + number)


def test_signals_in_the_middle_of_the_clean_up_are_delivered_after_it() -> None:
    """Both handlers raise; both are back, and both have run."""
    source, *_ = faulty.chain()
    ran: list[int] = []

    def raising(number: int, frame: Any) -> None:
        ran.append(number)
        raise SystemExit(40 + number)

    with handlers(signal.SIGTERM, raising), handlers(signal.SIGINT, raising):
        runtime = guard(source)
        runtime.start()
        memory = runtime._runtime._messaging_infrastructure.smm
        release = memory.release

        def interrupted() -> None:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
            release()

        memory.release = interrupted
        with pytest.raises(SystemExit):
            runtime.stop()
    assert sorted(ran) == [signal.SIGINT, signal.SIGTERM]


def test_a_handler_that_does_not_raise_interrupts_nothing() -> None:
    before = threading.active_count()
    source, _, sink = faulty.chain("before:pause")
    caught: list[int] = []
    with handlers(signal.SIGINT, lambda number, _: caught.append(number)), guard(source) as runtime:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        runtime.run(4)
        assert (sink.total.get() == 4).all()
    assert caught == [signal.SIGINT]
    assert not eventually(lambda: threading.active_count() > before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_at_any_moment_of_a_life(number: int) -> None:
    """A dozen random moments, from compiling to the end of stopping: an exception, and nothing left, whenever it comes."""
    chance = random.Random(int(number))
    source, *_ = faulty.chain()
    began = time.monotonic()
    with guard(source) as runtime:
        runtime.run(2)
    life_s = time.monotonic() - began
    interrupted = 0
    with handlers(signal.SIGINT, signal.default_int_handler), handlers(signal.SIGTERM, leave):
        for _ in range(12):
            source, *_ = faulty.chain()
            runtime = guard(source)
            before = holdings()
            wait_s = chance.uniform(0, 1.2 * life_s)
            script = f"read go; sleep {wait_s:.4f}; date +%s.%N; kill -{int(number)} {os.getpid()}"
            killer = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert killer.stdin
            assert killer.stdout
            try:
                try:
                    killer.stdin.close()  # go
                    with runtime:
                        runtime.run(2)
                finally:
                    killer.wait()
            except (KeyboardInterrupt, SystemExit):
                interrupted += 1
                assert time.time() - float(killer.stdout.read()) < 2.0
            killer.wait()  # again, if that was when it came
            runtime.stop()
            killer.stdout.close()
            assert holdings()[:3] == before[:3]
    assert interrupted > 5


# --- again and again ---------------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    """What the interpreter alone holds: pages that it shares with nobody."""
    fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return 1024 * (int(fields["Private_Dirty"].split()[0]) + int(fields["Private_Clean"].split()[0]))


def test_fifty_cycles_leak_nothing() -> None:
    """Not even Lava's own lists of all Processes: a network that nobody uses any more is collected."""

    def cycle() -> weakref.ref[Any]:
        source, _, sink = faulty.chain()
        with guard(source) as runtime:
            runtime.run(2)
            assert (sink.total.get() == 2).all()
        return weakref.ref(source)

    for _ in range(5):
        cycle()
    before, bytes_before = holdings(), resident_bytes()
    networks = [cycle() for _ in range(50)]
    assert holdings() == before
    assert not [network for network in networks if network()]
    assert resident_bytes() - bytes_before < 1 << 20
