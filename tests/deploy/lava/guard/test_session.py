"""mksgn/deploy/lava/guard/session: stopping and cleaning up, whatever interrupts it, and cycles that leak nothing."""

import gc
import os
import random
import signal
import subprocess
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
from tests.support.lava_guards import NAMES, SOON_S, clock_of, ends_soon, faulty, guard, handlers, once, pid_of
from tests.support.leftovers import alive, eventually, holdings, nothing_left  # noqa: F401


@pytest.mark.slow
def test_a_model_that_never_ends_when_asked_is_killed() -> None:
    source, relay, _ = faulty.chain("stop:loop")
    with ends_soon(clock_of(relay)), guard(source) as runtime:
        runtime.run(4)


@pytest.mark.slow
def test_a_stopped_child_does_not_keep_the_guard_from_stopping() -> None:
    source, relay, _ = faulty.chain()
    with guard(source) as runtime, ends_soon(clock_of(relay)):
        runtime.run(2)
        os.kill(pid_of(runtime, NAMES["sink"]), signal.SIGSTOP)
        clock_of(relay)[0] = time.monotonic()
        runtime.stop()


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
    once(lambda: clock[0], stop)
    with ends_soon(clock), pytest.raises(LavaRuntimeError, match="stopped by another thread"):
        runtime.run(4)
    assert not eventually(lambda: threading.active_count() > before)


def leave(number: int, frame: Any) -> None:
    raise SystemExit(40 + number)


def test_signals_in_the_middle_of_the_clean_up_are_delivered_after_it() -> None:
    """Both handlers raise; both are restored, and both have run."""
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


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_at_any_moment_of_a_life(number: int) -> None:
    """One random moment in each sixth of the time from compiling to after stopping: an exception, and nothing left."""
    chance = random.Random(int(number))
    source, *_ = faulty.chain()
    began = time.monotonic()
    with guard(source) as runtime:
        runtime.run(2)
    life_s = time.monotonic() - began
    interrupted = 0
    with handlers(signal.SIGINT, signal.default_int_handler), handlers(signal.SIGTERM, leave):
        for sixth in range(6):
            source, *_ = faulty.chain()
            runtime = guard(source)
            before = holdings()
            wait_s = 1.2 * life_s * (sixth + chance.random()) / 6
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
    assert interrupted > 2


def resident_bytes() -> int:
    """Memory in pages that only this interpreter uses."""
    fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return 1024 * (int(fields["Private_Dirty"].split()[0]) + int(fields["Private_Clean"].split()[0]))


@pytest.mark.slow
def test_twenty_cycles_leak_nothing() -> None:
    """Not even Lava's own lists of all Processes keep a network that is no longer used: it is collected."""

    def cycle() -> weakref.ref[Any]:
        source, _, sink = faulty.chain()
        with guard(source) as runtime:
            runtime.run(2)
            assert (sink.total.get() == 2).all()
        return weakref.ref(source)

    for _ in range(10):
        cycle()
    before, bytes_before = holdings(), resident_bytes()
    networks = [cycle() for _ in range(20)]
    assert holdings() == before
    assert not [network for network in networks if network()]
    assert resident_bytes() - bytes_before < 20 * (1 << 20) // 50
