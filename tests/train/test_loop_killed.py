"""Trainings killed by SIGKILL in each of six phases: the files always load, and resuming ends in
the undisturbed weights.

Each mksgn-train runs in a process of its own, forked from a helper that has imported torch: this
file, run as a script. The helper kills at the moment that the test asks for, and ends with the
test; its trainings end with the helper.
"""

import contextlib
import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mksgn.train import checkpoint, cli
from mksgn.train.datasets import synthetic
from tests.support.paths import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the helper ends its trainings as Linux does"),
]

TINY = """
student: {frames: 4, stream_channels: 2, widths: [4, 8], heads: 2, kernel: 3}
teacher: {frames: 4, widths: [2, 2, 2, 2, 3, 3, 3, 4, 4, 4], kernel: 3}
batch: 12
"""
PARTIAL = ".state.pt.*.part"  # the state while it is written
LONGEST = 100  # seconds that a training may take here


# the helper, in a process of its own


def end_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def serve(parent: int) -> None:
    """Run a training for each order, a line of JSON; answer how it ended."""
    end_with(parent)
    synthetic.DEFAULT_LIMIT["test"] = 8  # held-out clips
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # this and the next import what all trainings need
    with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
        sys.argv = ["mksgn-train", "--data", "none"]
        cli.main()
    helper = os.getpid()
    for line in sys.stdin:
        order = json.loads(line)
        before = signature(order)
        training = os.fork()
        if training == 0:
            run(order, helper)
        print(json.dumps(watch(training, order, before)), flush=True)


def run(order: dict, helper: int) -> None:
    code = 70
    try:
        end_with(helper)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        sys.argv = ["mksgn-train", *order["arguments"]]
        cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        os._exit(code)


def signature(order: dict) -> tuple[int, int] | None:
    """Identify the watched file, the first of a pattern's, and its state."""
    if order["file"] is None:
        return None
    watched = Path(order["file"])
    try:
        status = min(watched.parent.glob(watched.name)).stat()
    except (FileNotFoundError, ValueError):  # of none
        return None
    return status.st_ino, status.st_mtime_ns


def watch(training: int, order: dict, before: tuple[int, int] | None) -> dict:
    """Kill the training `order["delay"]` seconds after the watched file changed and has more than
    `lines` lines (or after the start)."""
    start, due = time.perf_counter(), None if order["file"] else 0.0
    while True:
        passed = time.perf_counter() - start
        if due is None and signature(order) not in (None, before):
            lines = Path(order["file"]).read_bytes().count(b"\n") if order["lines"] is not None else 0
            due = passed if order["lines"] is None or lines > order["lines"] else None
        if (order["delay"] is not None and due is not None and passed >= due + order["delay"]) or passed > LONGEST:
            os.kill(training, signal.SIGKILL)  # only this process waits for it: the number is still its own
        ended, status = os.waitpid(training, os.WNOHANG)
        if ended:
            return {"code": os.waitstatus_to_exitcode(status), "seconds": passed}
        time.sleep(0.0003)


# the tests


class Trainings:
    """Trainings of one config in one folder, one after the other."""

    def __init__(self, helper, out, config, *arguments, name="model.pt"):
        self.helper, self.out, self.log, self.network = helper, out, out.with_suffix(".log"), name
        settings = out.with_suffix(".yaml")
        settings.write_text(TINY + config)
        self.arguments = [settings, "--data", "synthetic", "--limit", 24, "--seed", 3, "--out", out, *arguments]

    def go(self, *arguments, file=None, lines=None, delay=None):
        """Run the command to its end or, with a delay, until it is killed; return exit code and
        seconds."""
        order = {
            "arguments": [*map(str, self.arguments), *arguments],
            "file": file and str(self.out / file),
            "lines": lines,
            "delay": delay,
            "log": str(self.log),
        }
        self.helper.stdin.write(json.dumps(order) + "\n")
        self.helper.stdin.flush()
        answer = json.loads(self.helper.stdout.readline())
        assert answer["seconds"] < LONGEST
        return answer["code"], answer["seconds"]

    def finish(self, *arguments):
        code, _ = self.go(*arguments)
        assert code == 0, self.log.read_text()

    def lines(self):
        path = self.out / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def state(self):
        """Load what a training resumes from, or None."""
        path = self.out / "state.pt"
        return torch.load(path, weights_only=True) if path.exists() else None

    def saved(self):
        load = checkpoint.load if self.network == "model.pt" else checkpoint.load_teacher
        return load(self.out / self.network)


@pytest.fixture(scope="module")
def helper():
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.train.test_loop_killed", str(os.getpid())],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # sums in one order only, so that equal means bitwise equal
    )
    yield process
    process.kill()
    process.wait()


def without_time(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def differences(a, b, place=""):
    """List the places in which two containers of numbers and tensors differ in any bit."""
    if isinstance(a, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [place]
    if isinstance(a, dict):
        if list(a) != list(b):
            return [place]
        return [difference for key in a for difference in differences(a[key], b[key], f"{place}.{key}")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [place]
        pairs = enumerate(zip(a, b, strict=True))
        return [difference for n, pair in pairs for difference in differences(*pair, f"{place}[{n}]")]
    return [] if a == b else [place]


def assert_sound(trainings, whole):
    """Check that every file loads after a kill, and agrees with the undisturbed training up to some
    epoch."""
    state, expected = trainings.state(), without_time(whole.lines())
    done = 0 if state is None else len(state["metrics"])
    if state is not None:
        assert without_time(state["metrics"]) == expected[:done]
    written = trainings.lines()
    assert without_time(written) == expected[: len(written)]
    assert len(written) <= done + 1
    if (trainings.out / trainings.network).exists():
        assert done == len(expected)
        assert differences(network(trainings), network(whole)) == []
    return done


def network(trainings):
    saved = trainings.saved()
    return (saved.student if trainings.network == "model.pt" else saved.teacher).state_dict()


def assert_same_end(trainings, whole):
    assert len(network(whole)) > 10
    assert differences(network(trainings), network(whole)) == []
    assert trainings.saved().training == whole.saved().training
    assert trainings.saved().normaliser == whole.saved().normaliser
    states = trainings.state(), whole.state()
    for part in ("objective", "optimizer", "schedule"):
        assert differences(states[0][part], states[1][part]) == []
    assert without_time(trainings.lines()) == without_time(whole.lines()) == without_time(states[0]["metrics"])
    assert trainings.lines() == states[0]["metrics"]


def killed(trainings, whole, moment, share):
    """Resume until `moment` and kill `share` of an epoch (of the setup, for "start") later; return
    the number of epochs kept."""
    state = trainings.state()
    done = 0 if state is None else len(state["metrics"])
    epoch = float(np.median([line["seconds"] for line in whole.lines()]))
    if moment == "start":
        code, _ = trainings.go("--resume", delay=share * whole.setup)
    elif moment == "line":
        code, _ = trainings.go("--resume", file="metrics.jsonl", lines=done, delay=share * epoch)
    else:
        code, _ = trainings.go("--resume", file=moment, delay=share * epoch)
    assert code == -signal.SIGKILL, trainings.log.read_text()
    return assert_sound(trainings, whole)


def undisturbed(helper, out, config, *arguments, name="model.pt"):
    trainings = Trainings(helper, out, config, *arguments, name=name)
    code, seconds = trainings.go()
    assert code == 0, trainings.log.read_text()
    trainings.setup = max(0.1, seconds - sum(line["seconds"] for line in trainings.lines()))
    return trainings


def test_a_training_killed_in_every_phase_ends_in_the_undisturbed_weights(helper, tmp_path):
    """Before the first epoch's line; within an epoch; while state.pt is written; between an epoch's
    line and its state."""
    config = "epochs: 12\n"
    whole = undisturbed(helper, tmp_path / "whole", config)
    often = Trainings(helper, tmp_path / "often", config)
    moments = [("start", 0.5), ("state.pt", 0.5), (PARTIAL, 0.0), ("line", 0.0)]
    kept = [killed(often, whole, *moment) for moment in moments]
    for _ in range(5):  # the partial file exists for a hundredth of a second
        if not list(often.out.glob(PARTIAL)):
            kept.append(killed(often, whole, PARTIAL, 0.0))
    assert list(often.out.glob(PARTIAL))
    assert kept == sorted(kept)  # no finished epoch is lost
    assert kept[0] == 0
    assert kept[1] >= 1
    assert kept[-1] < 12
    often.finish("--resume")
    assert_same_end(often, whole)
    assert not list(often.out.glob(".*"))


def test_a_training_killed_at_or_after_its_end_gets_its_model(helper, tmp_path):
    """While the model is written, and after it."""
    config = "epochs: 2\n"
    whole = undisturbed(helper, tmp_path / "whole", config)
    for file in (".model.pt.*.part", "model.pt"):
        ended = Trainings(helper, tmp_path / file.replace("*", ""), config)
        code, _ = ended.go(file=file, delay=0.0)
        assert code in (-signal.SIGKILL, 0)  # the process may have ended first
        assert_sound(ended, whole)
        ended.finish("--resume")
        assert_same_end(ended, whole)


@pytest.fixture(scope="module")
def taught(helper, tmp_path_factory):
    """A teacher, trained undisturbed."""
    return undisturbed(
        helper, tmp_path_factory.mktemp("teacher") / "whole", "epochs: 5\n", "--teacher", name="teacher.pt"
    )


def interrupt_and_finish(helper, whole, out, config, *arguments, name="model.pt"):
    often = Trainings(helper, out, config, *arguments, name=name)
    kept = [killed(often, whole, *moment) for moment in (("state.pt", 0.5), (PARTIAL, 0.0), ("line", 0.2))]
    assert 1 <= kept[-1] < 8
    often.finish("--resume")
    assert_same_end(often, whole)
    return often


def test_a_teacher_s_training_is_resumed_exactly(helper, taught, tmp_path):
    config = "epochs: 9\n"
    whole = undisturbed(helper, tmp_path / "whole", config, "--teacher", name="teacher.pt")
    often = interrupt_and_finish(helper, whole, tmp_path / "often", config, "--teacher", name="teacher.pt")
    assert sorted(path.name for path in often.out.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "state.pt",
        "teacher.pt",
    ]
    assert differences(network(taught), network(whole)) != []  # which is not much: 5 epochs instead of 9


@pytest.mark.parametrize(
    "config", ["precision: float32\n", "precision: mixed\noptimizer: sgd\nschedule: step\nrate_weight: 0.1\n"]
)
def test_distillation_is_resumed_exactly(helper, taught, tmp_path, config):
    config += "epochs: 9\n"
    arguments = ("--distill", taught.out / "teacher.pt")
    whole = undisturbed(helper, tmp_path / "whole", config, *arguments)
    often = interrupt_and_finish(helper, whole, tmp_path / "often", config, *arguments)
    losses = {"cross_entropy", "soft_label", "feature"} | ({"rate"} if "rate" in config else set())
    assert all(set(line["losses"]) == losses for line in often.lines())
    assert any(name.startswith("distillation.translate") for name in often.state()["objective"])  # resumed, too
    assert often.saved().training["teacher"]["source"] == "synthetic"


def test_a_distillation_is_not_resumed_with_another_teacher_or_none(helper, taught, tmp_path):
    trainings = Trainings(helper, tmp_path / "out", "epochs: 4\n", "--distill", taught.out / "teacher.pt")
    code, _ = trainings.go(file="state.pt", delay=0.0)
    assert code == -signal.SIGKILL
    other = undisturbed(helper, tmp_path / "other", "epochs: 1\n", "--teacher", name="teacher.pt")
    given = trainings.arguments
    for replacement in ([*given[:-1], other.out / "teacher.pt"], given[:-2]):
        trainings.arguments = replacement
        assert trainings.go("--resume")[0] == 2
        assert "belongs to another training (teacher_digest" in trainings.log.read_text().splitlines()[-1]


if __name__ == "__main__":
    serve(int(sys.argv[1]))
