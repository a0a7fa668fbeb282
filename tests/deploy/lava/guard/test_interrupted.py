"""What ends an interpreter that runs Lava: signals to it, and its own end. It ends soon, and its children with it.

Most cases run in forks of a warm interpreter (tests/support/forking_interpreter). The real network of leaves, one
end of an interpreter, and one Ctrl-C and one SIGTERM through the public commands get interpreters of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("lava.magma", reason="lava-nc is not installed: make setup")
pytest.importorskip("psutil")

import psutil

from mksgn.export import export_to_nir
from mksgn.export.graph import files
from tests.support.forking_interpreter import PRELUDE, Fork, Server, queued_s
from tests.support.leftovers import alive, eventually, nothing_left  # noqa: F401
from tests.support.students import calibration, tiny

ASKED_S = 2.0  # from Ctrl-C or SIGTERM to the end of the interpreter
SOON_S = 3.0  # from any other cause to the end of all
WALL_S = 60  # only protects the tests

IMPORTS = """
import mksgn.bench.cli, mksgn.bench.run, mksgn.bench.summary, mksgn.deploy.cli, mksgn.deploy.command
from tests.support.lava_guards import faulty, guard
from mksgn.deploy.lava import network as _network
from mksgn.deploy.lava.guard.runtime import LavaRuntimeError
"""
# The relay notes in the clock when its fault begins: then all children are at work.
RUNNING = """
from tests.support.lava_guards import clock_of, faulty, guard
network = faulty.chain("before:sleep")
runtime = guard(network[0])
runtime.start()
def announce():
    while not clock_of(network[1])[0]: time.sleep(0.005)
    print("asleep", flush=True)
print(*[child.pid for child in runtime._runtime.children], flush=True)
"""
NOW = """
from tests.support.forking_interpreter import queued_s
print(time.monotonic(), queued_s(os.getpid()), flush=True)
"""
RUN = "threading.Thread(target=announce, daemon=True).start(); runtime.run(4)"


@pytest.fixture(scope="module")
def warm() -> Iterator[Server]:
    with Server(IMPORTS) as server:
        yield server


def interpreter(code: str) -> subprocess.Popen[str]:
    """A fresh interpreter, in a session of its own: its process group is what a terminal would send Ctrl-C to."""
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def end(process: subprocess.Popen[str], began: float, within_s: float, queued_before_s: float) -> tuple[str, str]:
    """Return what it still prints. It must end `within_s` of `began`, and all of its session with it."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    took = time.monotonic() - began - (queued_s(process.pid) - queued_before_s)
    printed, errors = process.communicate(timeout=WALL_S)
    assert took < within_s, f"{took:.2f} s, {errors}"
    assert not eventually(lambda: session(process.pid), SOON_S - took), errors
    return printed, errors


def end_fork(fork: Fork, began: float, within_s: float, queued_before_s: float) -> tuple[int, str]:
    """Return its exit code and its errors. It must end `within_s` of `began`, and all of its session with it."""
    code, ended, queued = fork.end()
    took = ended - began - (queued - queued_before_s)
    assert took < within_s, f"{took:.2f} s, {fork.errors()}"
    assert not eventually(lambda: session(fork.pid), SOON_S - took), fork.errors()
    return code, fork.errors()


def session(leader: int) -> list[int]:
    """The living processes of a session, whoever is their parent by now."""
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
        (SIGINT, TO_GROUP, 1, RUN, {-SIGINT}),
        (SIGINT, TO_GROUP, 5, RUN, {-SIGINT}),
        (SIGINT, TO_PARENT, 1, RUN, {-SIGINT}),
        (SIGTERM, TO_PARENT, 1, RUN, {-SIGTERM}),
        (SIGTERM, TO_GROUP, 1, "signal.signal(15, lambda *_: sys.exit(4)); " + RUN, {4, 2}),
        (SIGKILL, TO_PARENT, 1, RUN, {-SIGKILL}),
        (SIGKILL, TO_PARENT, 1, "print('idle', flush=True); time.sleep(20)", {-SIGKILL}),
    ],
    ids=["Ctrl-C", "Ctrl-C five times", "SIGINT", "SIGTERM", "SIGTERM with a handler", "SIGKILL", "SIGKILL idle"],
)
def test_a_signal_to_the_interpreter(
    number: int,
    send: Callable[[int, int], None],
    repeat: int,
    code: str,
    exit_codes: set[int],
    warm: Server,
    tmp_path: Path,
) -> None:
    fork = warm.fork(RUNNING + code, tmp_path)
    assert len(fork.line().split()) == 4
    assert fork.line() in ("asleep", "idle")
    began, queued = time.monotonic(), queued_s(fork.pid)
    send(fork.pid, number)
    with suppress(ProcessLookupError):  # it may end at the first, before the others are sent
        for _ in range(repeat - 1):
            time.sleep(0.01)
            send(fork.pid, number)
    exit_code, errors = end_fork(fork, began, SOON_S if number == SIGKILL else ASKED_S, queued)
    assert exit_code in exit_codes, errors
    if number == SIGINT:
        assert "KeyboardInterrupt" in errors
        assert "Fatal" not in errors


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # Left running when the interpreter ends; a child that loops cannot keep it.
        (RUNNING + NOW + "sys.exit(6)", 6),
        (RUNNING + NOW + "os._exit(5)", 5),
        (RUNNING + NOW + "os.abort()", -signal.SIGABRT),
        # Not started in the main thread, where signals are not the guard's to handle; the children outlive the thread.
        (
            "thread = threading.Thread(target=exec, args=('''" + RUNNING + "''', globals()))\n"
            "thread.start(); thread.join(); time.sleep(0.3)\n"
            "assert all(child.exitcode is None for child in runtime._runtime.children)\n"
            + NOW
            + "os.kill(os.getpid(), signal.SIGKILL)",
            -SIGKILL,
        ),
    ],
    ids=["exit", "os._exit", "abort", "SIGKILL, not in the main thread"],
)
def test_a_fork_that_ends_without_stopping(code: str, expected: int, warm: Server, tmp_path: Path) -> None:
    fork = warm.fork(code, tmp_path)
    assert len(fork.line().split()) == 4
    began, queued = map(float, fork.line().split())
    exit_code, errors = end_fork(fork, began, SOON_S, queued)
    assert exit_code == expected, errors


@pytest.mark.slow
def test_an_interpreter_that_ends_without_stopping() -> None:
    with interpreter(RUNNING + NOW + "sys.exit(6)") as process:
        assert process.stdout
        assert len(process.stdout.readline().split()) == 4
        began, queued = map(float, process.stdout.readline().split())
        _, errors = end(process, began, SOON_S, queued)
    assert process.returncode == 6, errors


# --- the real network of leaves -----------------------------------------------------------------------------

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


@pytest.mark.slow
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


# --- the public commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    student, _ = tiny(stream_channels=2, widths=(4, 8), frames=6)
    path = tmp_path_factory.mktemp("model") / "model.nir"
    files.write(export_to_nir(student, quantize=8, calibration=calibration(student, 4)), path)
    return path


DEPLOY = "from mksgn.deploy.cli import main; sys.argv = ['mksgn-deploy', {model!r}, *{options!r}]; main()"
BENCH = "from mksgn.bench.cli import main; sys.argv = ['mksgn-bench', 'run', {model!r}, *{options!r}]; main()"


def command_code(command: str, model: Path, folder: Path) -> str:
    options = ["--data", "synthetic", "--limit", "1500", "--backend", "lava", "-o", str(folder / "out")]
    return command.format(model=str(model), options=options)


def wait_for_leaves(leader: int) -> list[int]:
    """The leaves of a command that streams samples through Lava."""
    limit = time.monotonic() + WALL_S
    while len(leaves := [pid for pid in session(leader) if pid != leader]) < 5 and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.3)  # some time steps
    assert len(leaves) >= 5
    return leaves


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number", "send", "expected"),
    [(DEPLOY, SIGINT, TO_GROUP, 130), pytest.param(BENCH, SIGTERM, TO_GROUP, -SIGTERM, marks=pytest.mark.slow)],
    ids=["deploy Ctrl-C", "bench SIGTERM"],
)
def test_a_signal_to_a_command(
    command: str, number: int, send: Callable[[int, int], None], expected: int, model: Path, tmp_path: Path
) -> None:
    with interpreter(command_code(command, model, tmp_path)) as process:
        wait_for_leaves(process.pid)
        assert process.poll() is None
        began, queued = time.monotonic(), queued_s(process.pid)
        send(process.pid, number)
        _, errors = end(process, began, ASKED_S, queued)
    assert process.returncode == expected, errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "number", "send", "expected"),
    [(DEPLOY, SIGTERM, TO_PARENT, -SIGTERM), pytest.param(BENCH, SIGINT, TO_GROUP, 130, marks=pytest.mark.slow)],
    ids=["deploy SIGTERM", "bench Ctrl-C"],
)
def test_a_signal_to_a_fork_with_a_command(
    command: str,
    number: int,
    send: Callable[[int, int], None],
    expected: int,
    model: Path,
    warm: Server,
    tmp_path: Path,
) -> None:
    fork = warm.fork(command_code(command, model, tmp_path), tmp_path)
    wait_for_leaves(fork.pid)
    began, queued = time.monotonic(), queued_s(fork.pid)
    send(fork.pid, number)
    exit_code, errors = end_fork(fork, began, ASKED_S, queued)
    assert exit_code == expected, errors
    assert "Traceback" not in errors
    assert len(errors.splitlines()) <= 1


@pytest.mark.slow
def test_a_killed_leaf_of_a_command(model: Path, warm: Server, tmp_path: Path) -> None:
    fork = warm.fork(command_code(DEPLOY, model, tmp_path), tmp_path)
    leaves = wait_for_leaves(fork.pid)
    began, queued = time.monotonic(), queued_s(fork.pid)
    os.kill(max(leaves), SIGKILL)
    exit_code, errors = end_fork(fork, began, SOON_S, queued)
    assert exit_code == 2
    assert errors.startswith("mksgn-deploy: Lava")
    assert " was killed by SIGKILL" in errors
