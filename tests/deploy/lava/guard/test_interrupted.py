"""What ends an interpreter that runs Lava: signals to it, and its own end. It ends soon, and its children with it.

In interpreters of their own: small networks, the real network of leaves, and the public commands.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed (extra 'lava', Python 3.10)")
pytest.importorskip("psutil")

import psutil

from mksgn.export import export_to_nir
from mksgn.export.graph import files
from tests.support.leftovers import alive, eventually, nothing_left  # noqa: F401
from tests.support.paths import ROOT
from tests.support.students import calibration, tiny

ASKED_S = 2.0  # from Ctrl-C or SIGTERM to the end of the interpreter
SOON_S = 3.0  # from any other cause to the end of all
WALL_S = 60  # only protects the tests

# A shell's background job hands SIGINT down ignored, which Python would keep: Ctrl-C has to mean something here.
PRELUDE = f"""
import os, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {[str(ROOT), *(p for p in sys.path if p)]!r}
"""
RUNNING = """
from tests.support.lava_guards import faulty, guard
from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
network = faulty.chain("before:sleep")
runtime = guard(network[0])
runtime.start()
print(*[child.pid for child in runtime._runtime.children], flush=True)
"""


def begin(*command: str) -> subprocess.Popen[str]:
    """In a session of its own: its process group is what a terminal would send Ctrl-C to."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def interpreter(code: str) -> subprocess.Popen[str]:
    return begin(sys.executable, "-c", PRELUDE + code)


def queued_s(pid: int) -> float:
    """How long a process was ready to run and had no core: that is for others on this machine to answer for."""
    return float(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def end(process: subprocess.Popen[str], began: float, within_s: float, queued_before_s: float) -> tuple[str, str]:
    """What it still prints. It must end `within_s` of `began`, and all of its session with it."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    took = time.monotonic() - began - (queued_s(process.pid) - queued_before_s)
    printed, errors = process.communicate(timeout=WALL_S)
    assert took < within_s, f"{took:.2f} s, {errors}"
    assert not eventually(lambda: session(process.pid), SOON_S - took), errors
    return printed, errors


def session(leader: int) -> list[int]:
    """The living processes that `begin` started, whoever is their parent by now."""
    members = []
    for pid in psutil.pids():
        try:
            members += [pid] if os.getsid(pid) == leader else []
        except ProcessLookupError:
            continue
    return alive(members)


SIGINT, SIGTERM, SIGKILL = signal.SIGINT, signal.SIGTERM, signal.SIGKILL
TO_GROUP, TO_PARENT = os.killpg, os.kill


@pytest.mark.parametrize(
    ("number", "send", "repeat", "code", "exit_codes"),
    [
        (SIGINT, TO_GROUP, 1, "runtime.run(4)", {-SIGINT}),
        (SIGINT, TO_GROUP, 5, "runtime.run(4)", {-SIGINT}),
        (SIGINT, TO_PARENT, 1, "runtime.run(4)", {-SIGINT}),
        (SIGTERM, TO_PARENT, 1, "runtime.run(4)", {-SIGTERM}),
        (SIGTERM, TO_GROUP, 1, "signal.signal(15, lambda *_: sys.exit(4)); runtime.run(4)", {4, 2}),
        (SIGKILL, TO_PARENT, 1, "runtime.run(4)", {-SIGKILL}),
        (SIGKILL, TO_PARENT, 1, "time.sleep(20)", {-SIGKILL}),
    ],
    ids=["Ctrl-C", "Ctrl-C five times", "SIGINT", "SIGTERM", "SIGTERM with a handler", "SIGKILL", "SIGKILL idle"],
)
def test_a_signal_to_the_interpreter(
    number: int, send: Callable[[int, int], None], repeat: int, code: str, exit_codes: set[int]
) -> None:
    with interpreter(RUNNING + code) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 4
        time.sleep(0.2)
        began, queued = time.monotonic(), queued_s(process.pid)
        for _ in range(repeat):
            send(process.pid, number)
            time.sleep(0.01 if repeat > 1 else 0)
        _, errors = end(process, began, SOON_S if number == SIGKILL else ASKED_S, queued)
    assert process.returncode in exit_codes, errors
    if number == SIGINT:
        assert "KeyboardInterrupt" in errors
        assert "Fatal" not in errors


@pytest.mark.parametrize(
    ("code", "exit_code", "output"),
    [
        # Left running when the interpreter ends; a child that loops cannot keep it.
        (RUNNING + "print(time.monotonic()); sys.exit(6)", 6, ""),
        (RUNNING + "print(time.monotonic(), flush=True); os._exit(5)", 5, ""),
        (RUNNING + "print(time.monotonic(), flush=True); os.abort()", -signal.SIGABRT, ""),
        # Not started in the main thread: signals are not ours to handle there, and the children outlive the thread.
        (
            "threading.Thread(target=exec, args=('''" + RUNNING + "''', globals())).start()\n"
            "while 'runtime' not in globals() or not runtime._runtime: time.sleep(0.1)\n"
            "time.sleep(1); print(all(child.exitcode is None for child in runtime._runtime.children))\n"
            "print(time.monotonic(), flush=True); os.kill(os.getpid(), signal.SIGKILL)",
            -9,
            "True",
        ),
    ],
    ids=["exit", "os._exit", "abort", "SIGKILL, not in the main thread"],
)
def test_an_interpreter_that_ends_without_stopping(code: str, exit_code: int, output: str) -> None:
    with interpreter(code) as process:
        assert process.stdout
        lines = []
        while not re.fullmatch(r"\d+\.\d+\n", line := process.stdout.readline()):
            assert line, process.communicate()[1]
            lines.append(line)
        _, errors = end(process, float(line), SOON_S, queued_s(process.pid))
    assert process.returncode == exit_code, errors
    assert output in "".join(lines)


# --- the real network of leaves ----------------------------------------------------------------------------------------------

LEAVES = """
import json
import nir, numpy as np, torch
from tests.support.lava_guards import faulty
from tests.support.leftovers import holdings, unowned_segments
from mksgn.deploy import compile_graph, run
from mksgn.deploy.lava import network
from mksgn.deploy.lava.guard.errors import LavaRuntimeError

network.DEADLINE_S = 1.0
rng = np.random.default_rng(0)
def lif(n): return nir.LIF(tau=np.full(n, 2e-4), r=np.ones(n), v_leak=np.zeros(n), v_threshold=np.full(n, 0.5))
nodes = {"input": nir.Input({"input": np.array([6])}), "output": nir.Output({"output": np.array([6])})}
edges, last = [], "input"
for i in range(5):
    nodes[f"w{i}"] = nir.Affine(rng.normal(0, 1, (6, 6)).astype(np.float32), np.full(6, 0.2, np.float32))
    nodes[f"n{i}"] = lif(6)
    edges += [(last, f"w{i}"), (f"w{i}", f"n{i}")]
    last = f"n{i}"
graph = nir.NIRGraph(nodes, [*edges, (last, "output")])
spikes = (rng.random((12, 4, 6)) < 0.5).astype(np.float32)

def attempt(fault, at=3, construct=False):
    '''Run the network with a fault in the synapses of n3, and tell how that ended, how soon, and what is left.'''
    program = compile_graph(graph, precision="float", dt=1e-4)
    clock = np.frombuffer(__import__("mmap").mmap(-1, 8))
    projection, = program.into("n3")
    whole, calls = projection.current, [0]
    def current(*args, **kwargs):
        calls[0] += 1
        if fault and calls[0] == at:
            faulty.fail(fault, clock)
        return whole(*args, **kwargs)
    object.__setattr__(projection, "current", current)
    before = holdings()
    frames = ""
    try:
        spiked = sum(int(s.sum()) for s in run(program, {"input": spikes}, backend="lava").spikes.values())
        text = f"spikes {spiked}"
    except LavaRuntimeError as error:
        text, frames = str(error), error.traceback
    took = time.monotonic() - clock[0]
    del program, projection, whole, current
    after = holdings()
    left = [len(after.children - before.children), *(a - b for a, b in zip(after[1:], before[1:]))]
    print(json.dumps([fault, text, took, left, frames]), flush=True)
"""
LEAF_FAULTS = {
    "raise": "failed in step 7: ValueError: the weights are bad",
    "memory": "failed in step 7: MemoryError: Unable to allocate",
    "long": "failed in step 7: ValueError: long long",
    "sys.exit": "failed in step 7: SystemExit: 3",
    "os._exit(0)": "ended by itself with exit code 0",
    "segfault": "was killed by SIGSEGV",
    "SIGKILL": "was killed by SIGKILL",
    "loop": "has computed for",
    "SIGSTOP": "has been stopped from outside",
}


def test_faults_in_a_leaf_of_a_real_network() -> None:
    """One after the other in one interpreter, and the network still runs at the end as it did at the start."""
    attempts = "".join(f"attempt({fault!r})\n" for fault in ["", "", *LEAF_FAULTS, ""])
    with interpreter(LEAVES + attempts) as process:
        printed, errors = process.communicate(timeout=WALL_S)
    assert process.returncode == 0, errors
    (_, warm, *_), (_, spiked, _, left, _), *faults, (_, again, *_) = map(json.loads, printed.splitlines())
    assert warm == spiked == again
    assert int(spiked.split()[1]) > 20
    assert left == [0, 0, 0, 0]
    assert [fault for fault, *_ in faults] == list(LEAF_FAULTS)
    for fault, text, took, left, frames in faults:
        assert text.startswith("Lava Process 'n3' (Leaf) "), text
        assert LEAF_FAULTS[fault].split(" in step ")[0] in text
        assert "\n" not in text
        assert took < SOON_S + (1.0 if fault in ("loop", "SIGSTOP") else 0), fault
        assert left == [0, 0, 0, 0], fault
        assert ("in fail\n" in frames) == (" failed " in text or fault in ("segfault", "loop"))


# --- the public commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    student, _ = tiny(stream_channels=2, widths=(4, 8), frames=6)
    path = tmp_path_factory.mktemp("model") / "model.nir"
    files.write(export_to_nir(student, quantize=8, calibration=calibration(student, 4)), path)
    return path


DEPLOY = "from mksgn.deploy.cli import main; sys.argv = ['mksgn-deploy', {model!r}, *{options!r}]; main()"
BENCH = "from mksgn.bench.cli import main; sys.argv = ['mksgn-bench', 'run', {model!r}, *{options!r}]; main()"


@pytest.mark.parametrize(
    ("command", "number", "send", "exit_code"),
    [
        (DEPLOY, SIGINT, TO_GROUP, 130),
        (DEPLOY, SIGTERM, TO_PARENT, -SIGTERM),
        (BENCH, SIGINT, TO_GROUP, 130),
        (BENCH, SIGTERM, TO_GROUP, -SIGTERM),
    ],
    ids=["deploy Ctrl-C", "deploy SIGTERM", "bench Ctrl-C", "bench SIGTERM"],
)
def test_a_signal_to_a_command(
    command: str, number: int, send: Callable[[int, int], None], exit_code: int, model: Path, tmp_path: Path
) -> None:
    options = ["--data", "synthetic", "--limit", "1500", "--backend", "lava", "-o", str(tmp_path / "out")]
    code = command.format(model=str(model), options=options)
    with interpreter(code) as process:
        leaves = 0
        limit = time.monotonic() + WALL_S
        while leaves < 5 and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
            leaves = len(session(process.pid)) - 1
        time.sleep(0.3)
        assert process.poll() is None
        began, queued = time.monotonic(), queued_s(process.pid)
        send(process.pid, number)
        _, errors = end(process, began, SOON_S if number == SIGKILL else ASKED_S, queued)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= 1
    assert leaves >= 5


def test_a_killed_leaf_of_a_command(model: Path, tmp_path: Path) -> None:
    options = ["--data", "synthetic", "--limit", "1500", "--backend", "lava", "-o", str(tmp_path / "out")]
    with interpreter(DEPLOY.format(model=str(model), options=options)) as process:
        leaves: list[Any] = []
        while len(leaves) < 5 and process.poll() is None:
            time.sleep(0.05)
            leaves = session(process.pid)
        time.sleep(0.5)
        began, queued = time.monotonic(), queued_s(process.pid)
        os.kill(max(leaves), SIGKILL)
        _, errors = end(process, began, SOON_S, queued)
    assert process.returncode == 2
    assert re.match(r"mksgn-deploy: Lava.* was killed by SIGKILL", errors)
