"""Faults injected into small networks: each ends with an exception or an exit code, soon, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed (extra 'lava', Python 3.10)")
psutil = pytest.importorskip("psutil")

PROCESSES = Path(__file__).parent / "lava_processes"
sys.path.insert(0, str(PROCESSES))

from mksgn.deploy.lava.runtime import GuardedRuntime, LavaDeadlineError, LavaRuntimeError  # noqa: E402

# Ours first: Lava's own import fails if an earlier test has made multiprocessing settle on a start method.
# isort: split
import faulty  # noqa: E402
from lava.magma.core.model.py.model import PyLoihiModelToPyAsyncModel  # noqa: E402
from lava.magma.core.run_conditions import RunContinuous, RunSteps  # noqa: E402
from lava.magma.core.run_configs import Loihi2SimCfg  # noqa: E402

SOON_S = 5.0  # from the cause to the exception, on a machine that others use; 0.03 s if they do not
WALL_S = 30  # only protects the tests
TRACKER = resource_tracker._resource_tracker
MODEL_ERROR = "ValueError: the weights are bad"


def guard(process: Any, deadline_s: float = 20.0, **options: Any) -> GuardedRuntime:
    return GuardedRuntime(process, Loihi2SimCfg(select_tag="floating_pt", **options), deadline_s=deadline_s)


def alive(pids: list[int]) -> list[int]:
    """Those that are neither gone nor zombies, whom a killed parent leaves to be reaped by init."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


def children() -> set[int]:
    """Of this interpreter, but for multiprocessing's tracker, which others' tests may start."""
    return {child.pid for child in psutil.Process().children(recursive=True)} - {TRACKER._pid}


def pid_of(runtime: GuardedRuntime, name: str) -> int:
    return next(child.pid for child in runtime._runtime.children if name in child.label)


def unowned_segments() -> set[str]:
    """The names in /dev/shm that no process has mapped or open: others may be at work on this machine."""
    names = set(os.listdir("/dev/shm"))
    for process in Path("/proc").glob("[0-9]*") if names else ():
        with contextlib.suppress(OSError):
            used = (process / "maps").read_text() + " ".join(os.readlink(fd) for fd in (process / "fd").iterdir())
            names -= {name for name in names if name in used}
    return names


def eventually(empty: Callable[[], Any], within_s: float = 5.0) -> Any:
    """What `empty()` gives when it is empty, or when the time is up."""
    limit = time.monotonic() + within_s
    while (rest := empty()) and time.monotonic() < limit:
        time.sleep(0.02)
    return rest


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    TRACKER.ensure_running()
    before, segments = children(), unowned_segments()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    assert not children() - before
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert not eventually(lambda: unowned_segments() - segments)


def test_runs_go_on_where_the_last_ended() -> None:
    source, relay, sink = faulty.chain()
    calls: list[int] = []
    with guard(source) as runtime:
        runtime.run(3)
        runtime.run(2, progress=lambda: calls.append(runtime.steps))
        assert runtime.steps == 5
        assert (sink.total.get() == 5).all()
        relay.total.set(relay.total.get() * 10)
        assert (relay.total.get() == 50).all()
    assert set(calls) <= {3}


def test_progress_is_called_while_waiting() -> None:
    source, *_ = faulty.chain("before:pause")
    calls: list[float] = []
    with guard(source) as runtime:
        runtime.run(3, progress=lambda: calls.append(time.monotonic()))
    assert len(calls) >= 3


def test_async_models_count_on_too() -> None:
    models = {faulty.Source: faulty.PySource, faulty.Relay: faulty.PyRelay, faulty.Sink: faulty.PySink}
    source, _, sink = faulty.chain()
    converted = {process: PyLoihiModelToPyAsyncModel(model) for process, model in models.items()}
    with guard(source, exception_proc_model_map=converted) as runtime:
        runtime.run(3)
        runtime.run(2)
        assert (sink.total.get() == 5).all()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("constructor:raise", f"'relay' (Relay) failed while starting: {MODEL_ERROR}"),
        ("before:raise", f"'relay' (Relay) failed in step 2: {MODEL_ERROR}"),
        ("after:raise", f"'relay' (Relay) failed in step 2: {MODEL_ERROR}"),
        ("stop:raise", f"'relay' (Relay) failed in step 4: {MODEL_ERROR}"),
        ("before:unpicklable", "CannotPickleError: first line"),
        ("before:sys.exit", "SystemExit: 3"),
    ],
)
def test_a_model_raises(fault: str, message: str) -> None:
    source, *_ = faulty.chain(fault)
    began = time.monotonic()
    with pytest.raises(LavaRuntimeError) as caught, guard(source) as runtime:
        runtime.run(4)
    assert time.monotonic() - began < SOON_S
    assert str(caught.value).endswith(message)
    assert "\n" not in str(caught.value)
    assert "faulty.py" in caught.value.traceback
    assert f"in {'__init__' if 'constructor' in fault else '_stop' if 'stop' in fault else 'run_spk'}\n" in (
        caught.value.traceback
    )
    assert str(caught.value.__cause__).strip('\n"') == caught.value.traceback.strip('\n"')
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.traceback, again.exit_code) == (str(caught.value), caught.value.traceback, 2)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("constructor:os._exit", "'relay' (Relay) ended by itself with exit code 7"),
        ("before:os._exit", "'relay' (Relay) ended by itself with exit code 7, last heard of in step 2"),
        ("after:close", "'relay' (Relay) ended by itself with exit code"),
        ("before:segfault", "'relay' (Relay) was killed by SIGSEGV"),
    ],
)
def test_a_child_ends_without_a_word(fault: str, message: str) -> None:
    source, *_ = faulty.chain(fault)
    began = time.monotonic()
    with pytest.raises(LavaRuntimeError) as caught, guard(source) as runtime:
        runtime.run(4)
    assert time.monotonic() - began < SOON_S
    assert message in str(caught.value)
    assert ("string_at" in caught.value.traceback) == ("segfault" in fault)


@pytest.mark.parametrize("fault", ["constructor:loop", "before:loop", "after:sleep"])
def test_a_model_that_never_ends_meets_the_deadline(fault: str) -> None:
    source, *_ = faulty.chain(fault)
    began = time.monotonic()
    with pytest.raises(LavaDeadlineError, match=r"'relay'.*raise deadline_s") as caught, guard(source, 0.5) as runtime:
        runtime.run(4)
    assert 0.5 < time.monotonic() - began < 0.5 + SOON_S
    assert "in fail\n" in caught.value.traceback
    assert "runtime.py" not in caught.value.traceback


def test_a_process_that_does_not_send_meets_the_deadline() -> None:
    source, *_ = faulty.chain("silent:")
    with pytest.raises(LavaDeadlineError, match="all wait for a message"), guard(source, 0.5) as runtime:
        runtime.run(4)


def test_a_model_that_never_ends_when_asked_is_killed() -> None:
    source, *_ = faulty.chain("stop:loop")
    with guard(source) as runtime:
        runtime.run(4)
        began = time.monotonic()
    assert time.monotonic() - began < 2 + SOON_S


@pytest.mark.parametrize("victim", ["relay", "LoihiPyRuntimeService"])
@pytest.mark.parametrize("when", ["running", "idle", "stopping"])
def test_a_killed_child(victim: str, when: str) -> None:
    source, *_ = faulty.chain("before:sleep" if when == "running" else "")
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        os.kill(pid_of(runtime, victim), signal.SIGKILL)

    def use() -> None:
        with runtime:
            if when == "running":
                threading.Timer(0.2, kill).start()
                runtime.run(4)
            runtime.run(4)
            kill()
            if when == "idle":
                runtime.run(4)

    runtime = guard(source)
    with pytest.raises(LavaRuntimeError, match=rf"{victim}.*was killed by SIGKILL"):
        use()
    assert time.monotonic() - killed[0] < SOON_S


def test_there_is_no_manager_and_the_resource_tracker_is_not_needed() -> None:
    source, _, sink = faulty.chain()
    before = children()
    with guard(source) as runtime:
        assert len(children() - before) == 4  # three models and a service
        runtime.run(2)
        os.kill(TRACKER._pid, signal.SIGKILL)
        runtime.run(2)
        assert (sink.total.get() == 4).all()
    with pytest.warns(UserWarning, match="resource_tracker"):
        TRACKER.ensure_running()


def test_a_var_of_a_dead_child() -> None:
    source, relay, _ = faulty.chain()
    with guard(source) as runtime:
        runtime.run(2)
        os.kill(pid_of(runtime, "relay"), signal.SIGKILL)
        with pytest.raises(LavaRuntimeError, match=r"'relay'.*SIGKILL"):
            relay.total.get()


def test_use_after_the_end_and_before_the_start() -> None:
    source, relay, _ = faulty.chain()
    runtime = guard(source)
    runtime.stop()
    with pytest.raises(LavaRuntimeError, match="has not started"):
        runtime.run(1)
    runtime.start()
    with pytest.raises(LavaRuntimeError, match="starts once"):
        runtime.start()
    with pytest.raises(ValueError, match="at least 1"):
        runtime.run(0)
    with pytest.raises(LavaRuntimeError, match="RunSteps"):
        source.run(RunContinuous())
    runtime.run(1)
    for _ in range(2):
        runtime.stop()
        source.stop()
        with pytest.raises(LavaRuntimeError, match="has stopped"):
            runtime.run(1)
    with pytest.raises(LavaRuntimeError, match="has stopped"):
        source.run(RunSteps(1))  # the segmentation fault of stock Lava
    with pytest.raises(RuntimeError, match="not started"):
        relay.total.get()
    with pytest.raises(LavaRuntimeError, match="can't be compiled more than once"):
        guard(source).start()  # Lava's rule; a new network runs
    source, relay, _ = faulty.chain()
    with guard(source) as runtime:
        runtime.run(1)
        assert (relay.total.get() == 1).all()


def test_stopping_without_a_run_and_an_exception_of_the_users() -> None:
    source, *_ = faulty.chain()
    with guard(source):
        pass
    source, *_ = faulty.chain("stop:raise")
    with pytest.raises(KeyError), guard(source):
        raise KeyError

    def fails() -> None:
        raise KeyError

    source, *_ = faulty.chain("before:sleep")
    with pytest.raises(KeyError), guard(source) as runtime:
        runtime.run(4, progress=fails)


def test_an_unused_guard_that_is_collected_leaves_nothing() -> None:
    source, *_ = faulty.chain()
    runtime = guard(source)
    runtime.start()
    assert len(children()) >= 4
    del runtime


def test_a_network_that_does_not_compile() -> None:
    relay = faulty.Relay(name="alone")
    with pytest.raises(LavaRuntimeError, match=r"Lava cannot start 'alone': .*Error") as caught:
        GuardedRuntime(relay, Loihi2SimCfg(select_tag="no such tag")).start()
    assert "compile" in caught.value.traceback


@pytest.mark.parametrize("spare", [2, 6, 18])
def test_descriptors_run_out(spare: int) -> None:
    """Before the first child, and between children."""
    source, *_ = faulty.chain()
    runtime = guard(source)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = [number for number in range(len(used) + spare + 1) if number not in used][spare]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with pytest.raises(LavaRuntimeError, match=r"cannot start 'source': OSError: .*Too many open files"):
            runtime.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_ten_cycles_leak_nothing() -> None:
    for _ in range(10):  # the fixture counts
        source, *_ = faulty.chain()
        with guard(source) as runtime:
            runtime.run(2)


# What ends an interpreter, in an interpreter of its own.

PRELUDE = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(PROCESSES)!r})
"""
RUNNING = """
from mksgn.deploy.lava.runtime import GuardedRuntime, LavaRuntimeError
from faulty import chain
from lava.magma.core.run_configs import Loihi2SimCfg
network = chain("before:sleep")
runtime = GuardedRuntime(network[0], Loihi2SimCfg(select_tag="floating_pt"), deadline_s=20)
runtime.start()
print(*[child.pid for child in runtime._runtime.children], flush=True)
"""


RESTORE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def interpreter(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # a shell's background job hands SIGINT down ignored, which Python would keep: Ctrl-C has to mean something here
        [sys.executable, "-c", RESTORE + PRELUDE + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as in a terminal
    )


@pytest.mark.parametrize(
    ("number", "to_group", "repeat", "code", "exit_codes"),
    [
        (signal.SIGINT, True, 1, "runtime.run(4)", {-signal.SIGINT}),
        (signal.SIGINT, True, 5, "runtime.run(4)", {-signal.SIGINT}),
        (signal.SIGINT, False, 1, "runtime.run(4)", {-signal.SIGINT}),
        (signal.SIGTERM, False, 1, "runtime.run(4)", {-signal.SIGTERM}),
        (signal.SIGTERM, True, 1, "signal.signal(15, lambda *_: sys.exit(4)); runtime.run(4)", {4, 2}),
        (signal.SIGKILL, False, 1, "runtime.run(4)", {-signal.SIGKILL}),
        (signal.SIGKILL, False, 1, "time.sleep(20)", {-signal.SIGKILL}),
    ],
    ids=["Ctrl-C", "Ctrl-C five times", "SIGINT", "SIGTERM", "SIGTERM with a handler", "SIGKILL", "SIGKILL idle"],
)
def test_a_signal_to_the_interpreter(number: int, to_group: bool, repeat: int, code: str, exit_codes: set[int]) -> None:
    with interpreter(RUNNING + code) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 4
        time.sleep(0.2)
        began = time.monotonic()
        for _ in range(repeat):
            (os.killpg if to_group else os.kill)(process.pid, number)
            time.sleep(0.01 if repeat > 1 else 0)
        _, errors = process.communicate(timeout=WALL_S)
        assert time.monotonic() - began < 3 * SOON_S  # torch takes a second to be torn down, and more under load
    assert process.returncode in exit_codes, errors
    assert not eventually(lambda: alive(pids)), errors
    if number == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert "Fatal" not in errors


@pytest.mark.parametrize(
    ("code", "exit_code", "output"),
    [
        # Left running when the interpreter ends; a child that loops cannot keep it.
        (RUNNING + "sys.exit(6)", 6, ""),
        # Not started in the main thread: signals are not ours to handle there, and the children outlive the thread.
        (
            "threading.Thread(target=exec, args=('''" + RUNNING + "''', globals())).start()\n"
            "while 'runtime' not in globals() or not runtime._runtime: time.sleep(0.1)\n"
            "time.sleep(1); print(all(child.exitcode is None for child in runtime._runtime.children), flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)",
            -9,
            "True",
        ),
        # multiprocessing used before: the same start method is not refused, another is, with the remedy.
        ("import multiprocessing; multiprocessing.Queue()" + RUNNING + "runtime.stop(); print('fine')", 0, "fine"),
        (
            "import multiprocessing; multiprocessing.set_start_method('spawn')\n"
            "try: import mksgn.deploy.lava.runtime\n"
            "except Exception as error: print(type(error).__name__, error)",
            0,
            "LavaRuntimeError.*'fork', force",
        ),
        (
            RUNNING + "runtime.stop()\nimport multiprocessing; multiprocessing.set_start_method('spawn', force=True)\n"
            "try: GuardedRuntime(network[0], None).start()\n"
            "except LavaRuntimeError as error: print(error)",
            0,
            "multiprocessing.*fork",
        ),
    ],
    ids=["left running", "not in the main thread", "fork set before", "spawn set before", "spawn set later"],
)
def test_an_interpreter_of_its_own(code: str, exit_code: int, output: str) -> None:
    with interpreter(code) as process:
        printed, errors = process.communicate(timeout=WALL_S)
    assert process.returncode == exit_code, errors
    assert re.search(output, printed), errors
    pids = [int(word) for word in printed.split() if word.isdigit()]
    assert not eventually(lambda: alive(pids))


def test_dev_shm_is_full() -> None:
    """Semaphores lie there, nameless, for want of anything else in multiprocessing."""
    code = RUNNING.replace('chain("before:sleep")', "chain()").replace(
        "runtime.start()", "try: runtime.start()\nexcept LavaRuntimeError as error: sys.exit(str(error))"
    )
    script = 'mount -t tmpfs -o size=8k tmpfs /dev/shm && exec "$0" -c "$1"'
    process = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, sys.executable, PRELUDE + code],
        capture_output=True,
        text=True,
        timeout=WALL_S,
        check=False,
    )
    if "unshare" in process.stderr or "mount:" in process.stderr:
        pytest.skip(f"no /dev/shm of its own here: {process.stderr.strip()}")
    assert process.returncode == 1
    assert "Lava cannot start 'source': OSError: [Errno 28] No space left" in process.stderr
