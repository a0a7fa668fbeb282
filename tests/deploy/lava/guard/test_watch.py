"""mksgn/deploy/lava/guard/watch: deadlines of models that never end, stopped children, progress and signals."""

import os
import signal
import threading
import time

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import LavaDeadlineError
from tests.support.lava_guards import (
    DEADLINE_S,
    NAMES,
    SOON_S,
    clock_of,
    ends_soon,
    faulty,
    guard,
    handlers,
    once,
    pid_of,
)
from tests.support.leftovers import eventually, nothing_left  # noqa: F401
from tests.support.tiers import one_in


@pytest.mark.parametrize(
    ("fault", "message"),
    one_in(
        2,
        [
            ("constructor:loop", "has computed for .* s.*; if it may take so long, raise deadline_s"),
            ("before:loop", "has computed for .* s, last heard of in step 2; if it may take so long, raise deadline_s"),
            ("after:sleep", "has computed for .* s, last heard of in step 2; if it may take so long, raise deadline_s"),
            ("before:SIGSTOP", "has been stopped from outside, for example by SIGSTOP, .* last heard of in step 2"),
            ("constructor:SIGSTOP", "has been stopped from outside, for example by SIGSTOP"),
        ],
    ),
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
    with pytest.raises(LavaDeadlineError, match="all are waiting for a message"), guard(source, DEADLINE_S) as runtime:
        runtime.run(4)
    assert DEADLINE_S < time.monotonic() - began < DEADLINE_S + SOON_S


@pytest.mark.slow
def test_processes_that_chatter_meet_the_deadline_of_their_steps() -> None:
    """Each message is progress, so that only the limit of the whole call can end endless messages."""
    source, relay, _ = faulty.chain("before:chatter")
    deadline = pytest.raises(LavaDeadlineError, match=r"4 steps have taken longer than 4 times deadline_s, 0\.5 s")
    with ends_soon(clock_of(relay), later_s=4 * DEADLINE_S), deadline, guard(source, DEADLINE_S) as runtime:
        runtime.run(4)


@pytest.mark.parametrize("victim", one_in(2, ["source", "relay", "sink", "service"]))
def test_a_child_is_stopped_while_it_waits(victim: str) -> None:
    source, relay, _ = faulty.chain()
    with guard(source, DEADLINE_S) as runtime:
        runtime.run(2)
        os.kill(pid_of(runtime, NAMES[victim]), signal.SIGSTOP)
        clock_of(relay)[0] = time.monotonic()
        with ends_soon(clock_of(relay), later_s=DEADLINE_S), pytest.raises(LavaDeadlineError) as caught:
            runtime.run(2)
    assert str(caught.value).startswith(f"{NAMES[victim]} has been stopped from outside")


def test_progress_raises() -> None:
    source, relay, _ = faulty.chain("before:sleep")

    def fails() -> None:
        if clock_of(relay)[0]:
            raise KeyError("progress")

    with ends_soon(clock_of(relay)), pytest.raises(KeyError, match="progress"), guard(source) as runtime:
        runtime.run(4, progress=fails)


def test_a_handler_that_does_not_raise_interrupts_nothing() -> None:
    before = threading.active_count()
    source, relay, sink = faulty.chain("before:pause")
    caught: list[int] = []
    with handlers(signal.SIGINT, lambda number, _: caught.append(number)), guard(source) as runtime:
        once(lambda: clock_of(relay)[0], lambda: os.kill(os.getpid(), signal.SIGINT))
        runtime.run(4)
        assert (sink.total.get() == 4).all()
    assert caught == [signal.SIGINT]
    assert not eventually(lambda: threading.active_count() > before)


def test_progress_is_called_while_waiting() -> None:
    source, *_ = faulty.chain("before:pause")
    calls: list[float] = []
    with guard(source) as runtime:
        runtime.run(3, progress=lambda: calls.append(time.monotonic()))
    assert len(calls) >= 3
