"""Small runs for tests of the bench: a calibrated student's file, clips for it, and records without their times."""

import json
import multiprocessing
import signal
import time
from dataclasses import replace
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

from mksgn.bench.record import TIMES
from mksgn.bench.run import bench
from mksgn.bench.run_files import PROGRESS_FILE
from mksgn.bench.shards import Settings
from mksgn.deploy.benchmark.networks import paper_student
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import ClipSet, open_source
from tests.support import students


def student_files(folder: Path, **changes: Any) -> Path:
    """model.pt and model.nir of a small student, quantised; the path of the latter."""
    trained, _ = students.tiny(**{"frames": 8, "stream_channels": 2, "widths": (4, 8), **changes})
    checkpoint.save(trained, folder / "model.pt")
    graph = export_to_nir(folder / "model.pt", quantize=8, calibration=students.calibration(trained))
    files.write(graph, folder / "model.nir")
    return folder / "model.nir"


def real_student_file(folder: Path, clips: ClipSet) -> Path:
    """model.nir of an untrained student, its batch norms calibrated on some of the clips: it fires in all its parts."""
    student = paper_student(replace(clips, clips=clips.clips[::25]), 1, preset="demo", frames=12)
    files.write(student.graph, folder / "model.nir")
    return folder / "model.nir"


def some_clips(limit: int = 20) -> ClipSet:
    return open_source("synthetic", part="test", limit=limit, seed=3)


def without_times(folder: Path) -> dict[str, Any]:
    """run.json without its times."""
    run = json.loads((folder / "run.json").read_text())
    for name in TIMES:
        run["execution"].pop(name)
    return run


def killed_after(seconds: float, model: Path, out: Path, clips: ClipSet, settings: Settings, shard: int) -> bool:
    """Run in a child process, resuming what is in `out`, and kill it after `seconds`; whether it was still running."""
    child = _start(model, out, clips, settings, shard)
    child.join(seconds)
    return _kill(child)


def killed_at_first_shard(model: Path, out: Path, clips: ClipSet, settings: Settings, shard: int) -> bool:
    """Run in a child process and kill it as soon as a shard is saved; whether it was still running."""
    child = _start(model, out, clips, settings, shard)
    while child.is_alive() and not (out / PROGRESS_FILE).is_file():
        time.sleep(0.001)
    return _kill(child)


def _start(model: Path, out: Path, clips: ClipSet, settings: Settings, shard: int) -> ForkProcess:
    child = multiprocessing.get_context("fork").Process(
        target=bench, args=(model, clips, out, settings), kwargs={"seed": 3, "resume": True, "shard": shard}
    )
    child.start()
    return child


def _kill(child: ForkProcess) -> bool:
    child.kill()
    child.join()
    assert child.exitcode in (0, -signal.SIGKILL)
    return child.exitcode != 0


def timed(*args: Any, **kwargs: Any) -> float:
    start = time.monotonic()
    bench(*args, **kwargs)
    return time.monotonic() - start
