"""Lava from threads, loops and forked pools, and under other start methods: the same spikes, and nothing left behind."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy import compile_graph, run
from mksgn.deploy.lava.guard import children
from mksgn.deploy.lava.guard.os_signals import signals_held
from mksgn.deploy.lava.guard.turns import turns
from tests.support.graphs import spikes
from tests.support.lava_guards import faulty, guard
from tests.support.leftovers import eventually, nothing_left  # noqa: F401
from tests.support.programs import simple


def decided(seed: int = 0) -> int:
    """Run a network in Lava and in the emulator, and return how many decisions were the same."""
    program, x = compile_graph(simple(), precision="float"), spikes(np.random.default_rng(seed), 3, 4, 2)
    emulated, lava = run(program, x), run(program, x, backend="lava")
    assert emulated.spikes.keys() == lava.spikes.keys()
    for name, train in emulated.spikes.items():
        np.testing.assert_array_equal(lava.spikes[name], train)
    return sum(train.size for train in emulated.spikes.values())


DECISIONS = 3 * 4 * 2


def in_a_pool() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(decided).result()


def in_a_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(decided()))
    thread.start()
    thread.join()
    return found[0]


def to_thread() -> int:
    return asyncio.run(asyncio.to_thread(decided))


def in_a_loop() -> int:
    """As a cell of a Jupyter notebook is run."""

    async def cell() -> int:
        return decided()

    return asyncio.run(cell())


@pytest.mark.parametrize("place", [in_a_pool, in_a_thread, to_thread, in_a_loop], ids=lambda place: place.__name__)
def test_the_same_spikes_anywhere(place: Callable[[], int]) -> None:
    assert place() == DECISIONS


def test_threads_take_turns() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(decided, range(4))) == [DECISIONS] * 4


@pytest.mark.slow
def test_two_guards_in_two_threads() -> None:
    """Processes of a user's own, which start in turns and run at the same time."""
    both = threading.Barrier(2)

    def totals() -> bool:
        source, relay, _ = faulty.chain()
        with guard(source) as runtime:
            both.wait(20)
            runtime.run(3)
            return bool((relay.total.get() == 3).all())

    with ThreadPoolExecutor(2) as pool:
        assert [future.result() for future in [pool.submit(totals) for _ in range(2)]] == [True, True]


def test_a_turn_is_free_in_a_fork_and_for_the_thread_that_has_it() -> None:
    taken, done = threading.Event(), threading.Event()

    def take() -> None:
        with turns.take(), turns.take():
            taken.set()
            done.wait(20)

    thread = threading.Thread(target=take)
    thread.start()
    taken.wait(20)
    try:
        process = multiprocessing.get_context("fork").Process(target=turns.take().__enter__)
        process.start()
        process.join(10)
        assert process.exitcode == 0, "waits for a thread that is not there"
    finally:
        process.kill()
        process.join()
        process.close()
        done.set()
        thread.join()


@pytest.mark.parametrize("executor", [True, False], ids=["executor", "pool"])
def test_a_forked_pool(executor: bool) -> None:
    decided()  # so that everything is imported and used before the fork
    fork = multiprocessing.get_context("fork")
    if executor:
        with ProcessPoolExecutor(1, mp_context=fork) as pool:
            assert pool.submit(decided).result(60) == DECISIONS
        return
    with fork.Pool(1) as pool:  # whose workers are daemons
        assert pool.map_async(decided, range(2)).get(60) == [DECISIONS] * 2
        pool.close()
        pool.join()


def test_a_start_method_of_the_programs_own_stays() -> None:
    source, relay, _ = faulty.chain()
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with guard(source) as runtime:
            runtime.run(2)
            assert (relay.total.get() == 2).all()
        assert multiprocessing.get_start_method() == "spawn"
    finally:
        multiprocessing.set_start_method(before, force=True)


def signal_masks(pid: int | None) -> dict[str, int]:
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(lines[name], 16) for name in ("SigBlk", "SigIgn")}


def test_ctrl_c_reaches_no_child_of_a_thread() -> None:
    """A child inherits the block of the forking thread, and lifts it once it ignores SIGINT."""

    def masks() -> tuple[set[Any], set[Any], list[dict[str, int]]]:
        source, *_ = faulty.chain()
        with signals_held():
            held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with guard(source) as runtime:
            children = [signal_masks(child.pid) for child in runtime._runtime.children]
        return held, signal.pthread_sigmask(signal.SIG_BLOCK, ()), children

    with ThreadPoolExecutor(1) as pool:
        held, after, children = pool.submit(masks).result()
    assert {signal.SIGINT, signal.SIGTERM} <= held
    assert not {signal.SIGINT, signal.SIGTERM} & after
    sigint = 1 << (signal.SIGINT - 1)
    assert len(children) == 4
    assert all(not mask["SigBlk"] & sigint and mask["SigIgn"] & sigint for mask in children)


def test_a_child_that_ends_late_is_no_zombie_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed process needs a core to end: on a busy machine, nobody waits for it any more by then."""
    monkeypatch.setattr(children, "KILL_S", -1.0)
    monkeypatch.setattr(children.Child, "kill", lambda child: None)
    source, *_ = faulty.chain()
    runtime = guard(source)
    runtime.start()
    late = [child.pid or 0 for child in runtime._runtime.children]
    runtime._runtime.destroy()
    for pid in late:
        os.kill(pid, signal.SIGKILL)

    def left() -> list[int]:
        children.reap_late()
        return [pid for pid in late if Path(f"/proc/{pid}").exists()]

    assert len(late) == 4
    assert not eventually(left, 60)
