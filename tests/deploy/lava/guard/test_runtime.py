"""mksgn/deploy/lava/guard/runtime: runs, errors, and use at the wrong time."""

import os
import pickle
import subprocess
import sys
import threading

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

from mksgn.deploy.lava.guard.runtime import GuardedRuntime, LavaRuntimeError
from tests.support.lava_guards import faulty, guard
from tests.support.leftovers import children, nothing_left  # noqa: F401
from tests.support.paths import ROOT

# After the guard.
# isort: split
from lava.magma.core.model.py.model import PyLoihiModelToPyAsyncModel
from lava.magma.core.run_conditions import RunContinuous, RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg

WALL_S = 60  # only protects the tests


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


def test_async_models_count_on_too() -> None:
    models = {faulty.Source: faulty.PySource, faulty.Relay: faulty.PyRelay, faulty.Sink: faulty.PySink}
    source, _, sink = faulty.chain()
    converted = {process: PyLoihiModelToPyAsyncModel(model) for process, model in models.items()}
    with guard(source, exception_proc_model_map=converted) as runtime:
        runtime.run(3)
        runtime.run(2)
        assert (sink.total.get() == 5).all()


def test_an_error_brings_the_traceback_of_its_process_also_through_pickle() -> None:
    source, *_ = faulty.chain("before:raise")
    with pytest.raises(LavaRuntimeError) as caught, guard(source) as runtime:
        runtime.run(4)
    assert "faulty.py" in caught.value.traceback
    assert "in run_spk\n" in caught.value.traceback
    assert caught.value.traceback.endswith("\nValueError: the weights are bad\n")
    assert str(caught.value.__cause__).strip('\n"') == caught.value.traceback.strip('\n"')
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.traceback, again.exit_code) == (str(caught.value), caught.value.traceback, 2)


def test_the_parent_needs_no_thread_and_a_process_no_more_than_one() -> None:
    source, *_ = faulty.chain()
    threads = threading.active_count()
    with guard(source) as runtime:
        runtime.run(1)
        assert threading.active_count() == threads
        for child in runtime._runtime.children:
            assert len(os.listdir(f"/proc/{child.pid}/task")) == 1


def test_use_after_the_end_and_before_the_start() -> None:
    source, relay, _ = faulty.chain()
    runtime = guard(source)
    runtime.stop()
    with pytest.raises(LavaRuntimeError, match="has not started"):
        runtime.run(1)
    runtime.start()
    with pytest.raises(LavaRuntimeError, match="can be started only once"):
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


def test_stopping_without_a_run() -> None:
    source, *_ = faulty.chain()
    with guard(source):
        assert len(children()) >= 4


def test_a_network_that_does_not_compile() -> None:
    relay = faulty.Relay(name="alone")
    with pytest.raises(LavaRuntimeError, match=r"Lava cannot start 'alone': .*Error") as caught:
        GuardedRuntime(relay, Loihi2SimCfg(select_tag="no such tag")).start()
    assert "compile" in caught.value.traceback


PRELUDE = f"""
import multiprocessing, sys
sys.path[:0] = {[str(ROOT), *(p for p in sys.path if p)]!r}
"""
RUN = """
from tests.support.lava_guards import faulty, guard
from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
source, *_ = faulty.chain()
with guard(source) as runtime: runtime.run(2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["multiprocessing.Queue()", "multiprocessing.set_start_method('spawn')"])
def test_multiprocessing_used_before(before: str) -> None:
    """Whatever start method it has settled on stays, and Lava's processes are forked."""
    asked = "print(multiprocessing.get_start_method())\n"
    command = [sys.executable, "-c", f"{PRELUDE}{before}\n{asked}{RUN}{asked}"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=WALL_S, check=False)
    assert process.returncode == 0, process.stderr
    first, second = process.stdout.split()
    assert first == second
