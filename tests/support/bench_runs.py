"""Small runs for the bench's tests: a settled student's file, clips for it, and records without what may differ."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mksgn.bench.record import TIMES
from mksgn.bench.run import bench
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
    """model.nir of an untrained student whose batch norms are settled on some of the clips: alive, with all its parts."""
    found = paper_student(replace(clips, clips=clips.clips[::25]), 1, preset="demo", frames=12)
    files.write(found.graph, folder / "model.nir")
    return folder / "model.nir"


def some_clips(limit: int = 20) -> ClipSet:
    return open_source("synthetic", part="test", limit=limit, seed=3)


def without_times(folder: Path) -> dict[str, Any]:
    """run.json but for times."""
    run = json.loads((folder / "run.json").read_text())
    for name in TIMES:
        run["execution"].pop(name)
    return run


def killed_after(seconds: float, model: Path, out: Path, clips: ClipSet, settings: Settings, shard: int) -> bool:
    """Run in a child, going on with what is in `out`, and kill it after so long; whether it was still running."""
    child = multiprocessing.get_context("fork").Process(
        target=bench, args=(model, clips, out, settings), kwargs={"seed": 3, "resume": True, "shard": shard}
    )
    child.start()
    child.join(seconds)
    alive = child.is_alive()
    if alive:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert alive or child.exitcode == 0
    return alive


def timed(*args: Any, **kwargs: Any) -> float:
    start = time.monotonic()
    bench(*args, **kwargs)
    return time.monotonic() - start
