"""Faults injected into the guard: children that are killed, in every phase of a run."""

import os
import signal
import time

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
from tests.support.lava_guards import NAMES, clock_of, ends_soon, faulty, guard, once, pid_of
from tests.support.leftovers import TRACKER, children, nothing_left  # noqa: F401
from tests.support.tiers import one_in


@pytest.mark.parametrize("victim", one_in(2, ["source", "relay", "sink", "service"]))
@pytest.mark.parametrize("when", ["starting", "running", "idle", "stopping"])
def test_a_child_is_killed(victim: str, when: str) -> None:
    source, relay, _ = faulty.chain({"running": "before:sleep", "starting": "constructor:pause"}.get(when, ""))
    runtime, clock = guard(source), clock_of(relay)

    def kill() -> None:
        assert runtime._runtime
        child = next(child for child in runtime._runtime.children if child.label == NAMES[victim])
        os.kill(child.pid or 0, signal.SIGKILL)
        clock[0] = time.monotonic()

    def ready() -> bool:
        """Whether the relay has reached its fault, and the victim has been forked."""
        return (
            bool(clock[0])
            and runtime._runtime is not None
            and any(child.label == NAMES[victim] and child.pid for child in runtime._runtime.children)
        )

    def use() -> None:
        if when == "starting":
            once(ready, kill)
        with runtime:
            if when == "running":
                once(ready, kill)
                runtime.run(4)
            runtime.run(4)
            kill()
            if when == "idle":
                runtime.run(4)

    with ends_soon(clock), pytest.raises(LavaRuntimeError) as caught:
        use()
    assert str(caught.value).startswith(f"{NAMES[victim]} was killed by SIGKILL")


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


def test_a_var_of_a_dead_child() -> None:
    source, relay, _ = faulty.chain()
    with guard(source) as runtime:
        runtime.run(2)
        os.kill(pid_of(runtime, "relay"), signal.SIGKILL)
        with pytest.raises(LavaRuntimeError, match=r"'relay'.*SIGKILL"):
            relay.total.get()
