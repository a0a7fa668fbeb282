"""Every command killed over a finished folder: the old files are all there, or the new ones are complete.

A moment is a share of the command's time, or of its changes of names in the folder: an audit hook counts them, and kills
at one of them. MKSGN_KILLS=50 takes 50 moments of either kind for each command; the suite takes few.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mksgn.bench.manifest import verified
from mksgn.common.replacement import settle
from mksgn.deploy.run_folder import read_manifest
from mksgn.export.graph import files
from mksgn.train import checkpoint
from tests.support.bench_runs import student_files
from tests.support.forking_interpreter import Server
from tests.support.sweep_grids import GRID

pytestmark = [pytest.mark.slow, pytest.mark.serial]

KILLS = int(os.environ.get("MKSGN_KILLS", "0"))
TINY = "student: {frames: 4, stream_channels: 2, widths: [4], heads: 2, kernel: 3}\nepochs: 2\nbatch: 4\n"

IMPORTS = """
import os
os.environ["OMP_NUM_THREADS"] = "1"
import torch
from contextlib import nullcontext
from mksgn.train.datasets import synthetic
synthetic.DEFAULT_LIMIT["test"] = 12
import mksgn.train.cli, mksgn.export.cli, mksgn.deploy.cli, mksgn.bench.cli
import mksgn.train.command, mksgn.train.loop, mksgn.export.command, mksgn.deploy.command, mksgn.bench.summary
import mksgn.bench.sweep.command, mksgn.bench.sweep.sweep
import mksgn.bench.report.page, mksgn.bench.report.markdown, matplotlib.figure, distributed
torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])
"""
RUN = """
import os, signal, sys, threading
folder, limit, count, lock = {folder!r}, {limit!r}, 0, threading.Lock()

def watch(event, arguments):
    global count
    if event not in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open") or not running:
        return
    path = arguments[0]
    if not isinstance(path, (str, bytes, os.PathLike)) or not (
        os.fspath(path).startswith(folder) or (event != "open" and not os.path.isabs(path))
    ):
        return
    with lock:
        count += 1
        if count == limit:
            os.kill(os.getpid(), signal.SIGKILL)

running = True
sys.addaudithook(watch)
if {sweeps!r}:
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0",
        scheduler_kwargs={{"dashboard": False}},
    )
    mksgn.bench.sweep.sweep.connected = lambda *_: nullcontext(distributed.Client(cluster))
sys.argv = {arguments!r}
code = 1
try:
    {module}.main()
except SystemExit as end:
    code = end.code
running = False
print("changes", count, flush=True)
sys.stderr.flush()
os._exit(code or 0)
"""


@dataclass(frozen=True)
class Command:
    """A command over a finished folder.

    `first` makes the folder, `again` is what is killed; `complete` says whether the new files are complete in a folder in
    which some of the old ones are gone. `single` files are replaced one by one.
    """

    module: str
    first: tuple[str, ...]
    again: tuple[str, ...]
    complete: Callable[[Path], bool]
    single: bool = False


def run_is_complete(folder: Path) -> bool:
    manifest = verified(folder)
    return manifest is not None and len(manifest.data.clips) == 4 and reports_are_complete(folder)


def reports_are_complete(folder: Path) -> bool:
    listed = read_manifest(folder)["files"]
    named = {"run.json", "spikes.npz", "run.log", "report.html", "report.md"}
    return set(listed) == named and all(checkpoint.sha256(folder / name) == sha for name, sha in listed.items())


def training_is_complete(folder: Path) -> bool:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert json.loads((folder / "config.json").read_text())["epochs"] == 2
    seed = checkpoint.load(folder / "model.pt").training["seed"]
    return (folder / "state.pt").is_file() and len(lines) == 2 and seed == 1


def deployment_is_complete(folder: Path) -> bool:
    manifest = read_manifest(folder)
    files_ = manifest["files"]
    return manifest["data"]["clips"] == 4 and all(checkpoint.sha256(folder / n) == sha for n, sha in files_.items())


def sweep_is_complete(folder: Path) -> bool:
    assert json.loads((folder / "grid.json").read_text())["limit"] == 8
    points = {row["label"] for row in json.loads((folder / "sweep.json").read_text())["points"]}
    assert {path.name for path in (folder / "points").iterdir()} == points
    return all(verified(folder / "points" / label) for label in points) and (folder / "sweep.md").is_file()


def export_is_complete(folder: Path) -> bool:
    files.read(folder / "model.nir")
    return json.loads((folder / "parity.json").read_text())["schema"].startswith("mksgn.parity/")


def is_template(folder: Path) -> bool:
    return "Fill in what was read" in (folder / "counts.yaml").read_text()


SHORT = ("--data", "synthetic", "--backend", "emulator")
COMMANDS = {
    "train": Command(
        "mksgn.train.cli",
        ("tiny.yaml", "--limit", "12", "--out", "OUT"),
        ("tiny.yaml", "--limit", "12", "--seed", "1", "--out", "OUT", "--overwrite"),
        training_is_complete,
    ),
    "export": Command(
        "mksgn.export.cli",
        ("model.pt", "--calibration", "synthetic", "--verify", "2", "-o", "OUT/model.nir"),
        ("model.pt", "--calibration", "synthetic", "--quantize", "6", "--verify", "2", "-o", "OUT/model.nir"),
        export_is_complete,
        single=True,
    ),
    "deploy": Command(
        "mksgn.deploy.cli",
        ("model.nir", *SHORT, "--limit", "3", "-o", "OUT"),
        ("model.nir", *SHORT, "--limit", "4", "--check", "-o", "OUT", "--overwrite"),
        deployment_is_complete,
    ),
    "run": Command(
        "mksgn.bench.cli",
        ("run", "model.nir", *SHORT, "--limit", "3", "-o", "OUT"),
        ("run", "model.nir", *SHORT, "--limit", "4", "--shard", "1", "-o", "OUT", "--overwrite"),
        run_is_complete,
    ),
    "report": Command(
        "mksgn.bench.cli",
        ("run", "model.nir", *SHORT, "--limit", "3", "-o", "OUT"),
        ("report", "OUT", "--energy-model", "prices.yaml"),
        reports_are_complete,
    ),
    "compare-chip": Command(
        "mksgn.bench.cli",
        ("compare-chip", "finished", "--template", "OUT/counts.yaml"),
        ("compare-chip", "finished", "--template", "OUT/counts.yaml", "--overwrite"),
        is_template,
        single=True,
    ),
    "sweep": Command(
        "mksgn.bench.cli",
        ("sweep", "grid.yaml", "-o", "OUT"),
        ("sweep", "shorter.yaml", "-o", "OUT", "--overwrite"),
        sweep_is_complete,
    ),
}


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("distributed")
    pytest.importorskip("matplotlib")
    with Server(IMPORTS) as server:
        yield server


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, server):
    folder = tmp_path_factory.mktemp("killed")
    student_files(folder)
    (folder / "tiny.yaml").write_text(TINY)
    grid = GRID.replace("[2, 4]", "[2]").replace("[1.0, 1.2]", "[1.0]").replace("model.pt", str(folder / "model.pt"))
    (folder / "grid.yaml").write_text(grid)
    (folder / "shorter.yaml").write_text(grid.replace("limit: 12", "limit: 8"))
    shutil.copy("examples/own_chip/energy_models.yaml", folder / "prices.yaml")
    run = COMMANDS["run"]
    killed(server, folder, run.module, run.first, folder / "finished")
    return folder


def killed(server, inputs, module, arguments, out, *, limit=None, delay=None):
    """Run a command, kill it at a change or after a delay; its seconds and the number of its changes, None if killed."""
    named = [str(inputs / word) if (inputs / word).is_file() else word.replace("OUT", str(out)) for word in arguments]
    named = [str(inputs / word) if word == "finished" else word for word in named]
    code = RUN.format(
        folder=str(out), limit=limit, sweeps="sweep" in arguments, arguments=[module, *named], module=module
    )
    before = time.monotonic()
    logs = inputs / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    fork = server.fork(code, logs)
    if delay is not None:
        time.sleep(delay)
        with suppress(ProcessLookupError):  # it was over before
            os.killpg(fork.pid, signal.SIGKILL)
    code, ended, _ = fork.end()
    if code == -signal.SIGKILL:
        return None
    assert code == 0, fork.errors()
    return ended - before, int(fork.out.read_text().rsplit(" ", 1)[1])


def content(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    names = {str(path.relative_to(folder)): path for path in found}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(".")}


def moments(kind: str, whole: tuple[float, int], count: int) -> list[dict]:
    """Shares of the whole in the middle of equal strata."""
    shares = (np.arange(count) + 0.5) / count
    if kind == "time":
        return [{"delay": float(share * whole[0])} for share in shares]
    return [{"limit": 1 + int(share * whole[1])} for share in shares]


@pytest.mark.timeout(3600 if KILLS else 240)
@pytest.mark.parametrize("kind", ["change", "time"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_loses_nothing(server, inputs, tmp_path, name, kind):
    command, finished, out = COMMANDS[name], tmp_path / "finished", tmp_path / "out"
    finished.mkdir()
    killed(server, inputs, command.module, command.first, finished)
    (finished / "notes.txt").write_text("mine")
    old = content(finished)
    shutil.copytree(finished, out)
    whole = killed(server, inputs, command.module, command.again, out)
    assert whole is not None
    outcomes = {"old": 0, "new": 0, "over": 0}
    for moment in moments(kind, whole, KILLS or {"change": 4, "time": 2}[kind]):
        shutil.rmtree(out)
        shutil.copytree(finished, out)
        ended = killed(server, inputs, command.module, command.again, out, **moment)
        settle(out)
        now = content(out)
        assert now["notes.txt"] == b"mine"
        kept = all(now.get(file) == data for file, data in old.items())
        if not kept:
            assert command.complete(out), f"{moment}: {sorted(now)}"
        outcomes["over" if ended else "old" if kept else "new"] += 1
    print(f"{name} by {kind}: {outcomes}")
    assert outcomes["over"] < sum(outcomes.values())
