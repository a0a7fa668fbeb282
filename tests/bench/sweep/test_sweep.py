"""A sweep gives the same records from any number of workers, and loses and repeats nothing if one dies."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from mksgn.bench.check.check import check
from mksgn.bench.energy_models import known_models
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.bench.sweep import sweep as sweeps
from mksgn.bench.sweep.grid import read
from mksgn.bench.sweep.pareto import rows
from mksgn.bench.sweep.sweep import sweep
from mksgn.common.errors import BadInputError
from mksgn.common.lock import locked
from mksgn.deploy.run_folder import environment
from mksgn.export.graph import files
from mksgn.train.datasets import open_source
from mksgn.train.datasets.arrays import open_arrays
from tests.support import graphs as net
from tests.support.bench_runs import without_times
from tests.support.full_disk import content_of, full_disk
from tests.support.sweep_grids import GRID


def counts(out: Path) -> dict[str, dict]:
    return {p.name: without_times(p) for p in sorted((out / "points").iterdir())}


def half(records: dict[str, dict]) -> dict[str, dict]:
    """Return the records of half.yaml's points, the half of the grid that takes less time."""
    return {label: record for label, record in records.items() if "-S2-" in label}


def test_every_point_of_the_grid_has_a_record(folder, one_worker):
    out, records = one_worker
    grid = read(folder / "grid.yaml")
    assert grid.axes.points == len(records) == 8
    assert list(records)[:3] == ["tiny-S2-th1-b8-loihi2", "tiny-S2-th1-b8-loihi1", "tiny-S2-th1.2-b8-loihi2"]
    assert sorted(p.name for p in (out / "points").iterdir()) == sorted(records)
    assert {r.execution.steps for r in records.values()} == {2, 4}
    assert {r.placement.chip for r in records.values() if r.placement} == {"loihi1", "loihi2"}
    assert all(r.data.clips == 12 and r.parity and r.parity.mismatches == 0 for r in records.values())
    spikes = [records[f"tiny-S4-th{threshold}-b8-loihi2"].totals.spikes for threshold in ("1", "1.2")]
    assert spikes[0] > spikes[1] > 0
    assert not list((out / "progress").glob("*")) if (out / "progress").is_dir() else True


def test_a_point_equals_the_record_of_an_ordinary_run(folder, one_worker):
    out, _ = one_worker
    network = out / "networks" / "tiny-S2-th1.2-b8.nir"
    clips = open_source("synthetic", part="test", limit=12)
    bench(network, clips, folder / "single", Settings(compare=8), seed=0)
    single, point = without_times(folder / "single"), counts(out)["tiny-S2-th1.2-b8-loihi2"]
    single["model"]["file"] = "model.nir"
    assert point == single


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_give_the_same_records(folder, one_worker):
    out, _ = one_worker
    killed = []

    def kill_one() -> None:
        """Kill a worker when the first network is built, while its shards run."""
        networks = folder / "killed" / "networks"
        while not list(networks.glob("*.nir")):
            time.sleep(0.01)
        workers = [p for p in psutil.Process().children(recursive=True) if "multiprocessing" in " ".join(p.cmdline())]
        for worker in workers:
            if not worker.children() and "resource_tracker" not in " ".join(worker.cmdline()):
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.pid)
                return

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    sweep(read(folder / "half.yaml"), folder / "killed", workers=2)
    killer.join(10)
    assert len(killed) == 1
    assert counts(folder / "killed") == half(counts(out))


@pytest.mark.slow
def test_a_killed_sweep_continues(folder, one_worker, in_this_process):
    out, _ = one_worker
    code = (
        "import sys; from pathlib import Path; from mksgn.bench.sweep.grid import read\n"
        "from mksgn.bench.sweep.sweep import sweep\n"
        "if __name__ == '__main__': sweep(read(Path(sys.argv[1])), Path(sys.argv[2]), workers=1)"
    )
    script, resumed = folder / "sweep_once.py", folder / "resumed"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, folder / "half.yaml", resumed], start_new_session=True)
    while not list(resumed.glob("points/*-loihi?/manifest.json")) and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {p.parent.name: p.stat().st_mtime_ns for p in resumed.glob("points/*-loihi?/manifest.json")}
    assert 0 < len(done) < 4
    with pytest.raises(BadInputError, match=r"holds an unfinished sweep \(.*continue it with --resume"):
        sweep(read(folder / "half.yaml"), resumed, workers=1)
    sweep(read(folder / "half.yaml"), resumed, workers=1, resume=True)
    assert counts(resumed) == half(counts(out))
    for name, written in done.items():
        assert (resumed / "points" / name / "manifest.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_few_shards_are_in_flight_and_clips_are_dropped(folder, one_worker, tmp_path, monkeypatch, in_this_process):
    out, _ = one_worker
    submitted, held, add = [], [], sweeps._Runner._add
    submit = sweeps._Runner._submit

    def counting_submit(runner, label, function, *arguments):
        submitted.append(function.__name__)
        return submit(runner, label, function, *arguments)

    def counting_add(runner, label, shard):
        add(runner, label, shard)
        held.append((submitted.count("execute") - len(held) - 1, sum(map(len, runner.shards))))

    monkeypatch.setattr(sweeps, "SHARDS_PER_THREAD", 2)
    monkeypatch.setattr(sweeps, "CLIPS_ON_WORKERS", 4)
    monkeypatch.setattr(sweeps._Runner, "_submit", counting_submit)
    monkeypatch.setattr(sweeps._Runner, "_add", counting_add)
    grid = read(folder / "half.yaml").model_copy(update={"shard": 2})
    sweep(grid, tmp_path / "few", workers=1)
    assert submitted.count("execute") == 2 * 12 // 2  # two variants, twelve clips
    assert {shards for shards, _ in held} == {0, 1}  # without the one that is submitted for the one just added
    assert max(clips for _, clips in held) == 4
    assert counts(tmp_path / "few") == half(counts(out))


def test_a_finished_sweep_starts_no_cluster(folder, one_worker, monkeypatch):
    out, records = one_worker
    monkeypatch.setattr("mksgn.bench.sweep.sweep.connected", lambda *_: pytest.fail("a cluster was started"))
    assert sweep(read(folder / "grid.yaml"), out, resume=True) == records
    other = read(folder / "grid.yaml").model_copy(update={"limit": 6})
    with pytest.raises(BadInputError, match="begun with limit 12, now 6"):
        sweep(other, out, resume=True)


def test_a_sweep_stays_while_another_writes_and_on_a_full_disk(folder, one_worker, tmp_path, in_this_process):
    grid, out = read(folder / "half.yaml"), tmp_path / "out"
    shutil.copytree(one_worker[0], out)
    before = content_of(out)
    with locked(out), pytest.raises(BadInputError, match="is writing to it; wait until it ends"):
        sweep(grid, out, overwrite=True)
    with full_disk(), pytest.raises((BadInputError, OSError), match="File too large"):
        sweep(grid, out, overwrite=True)
    kept = content_of(out)
    assert {name: kept[name] for name in before} == before


def test_an_error_of_a_task_reaches_the_user(folder, tmp_path, in_this_process):
    (tmp_path / "model.pt").write_bytes(b"no model")
    (tmp_path / "grid.yaml").write_text(GRID)
    with pytest.raises(BadInputError, match=r"model\.pt: refused: not a file of plain tensors"):
        sweep(read(tmp_path / "grid.yaml"), tmp_path / "out", workers=1)


def test_progress_with_other_clips_is_refused(folder, one_worker, tmp_path, monkeypatch):
    grid, out = read(folder / "grid.yaml"), tmp_path / "out"
    shutil.copytree(one_worker[0], out)
    for point in (out / "points").iterdir():
        (point / "manifest.json").unlink()

    def moved(*arguments, **more):
        clips = open_source(*arguments, **more)
        return replace(clips, clips=[replace(clip, joints=clip.joints + np.float32(0.25)) for clip in clips.clips])

    monkeypatch.setattr(sweeps, "open_data", moved)
    with pytest.raises(BadInputError, match="begun with joints "):
        sweep(grid, out, workers=1, resume=True)


class Cluster:
    """A client of two workers, one with other versions."""

    def __init__(self, **versions):
        self.versions = versions

    def run(self, function):
        return {"tcp://a": function(), "tcp://b": {**function(), **self.versions}}


def test_a_worker_of_another_version_is_refused():
    here = environment()
    sweeps._check_versions(Cluster(), here)
    with pytest.raises(
        BadInputError, match=r"worker tcp://b: torch 9\.9, here .*; install the same versions on all workers"
    ):
        sweeps._check_versions(Cluster(torch="9.9"), here)


@pytest.mark.slow
def test_any_network_on_labelled_arrays_is_swept(tmp_path):
    """Bits and steps of another framework's network; a point is the record of an ordinary run of its file."""
    rng = np.random.default_rng(0)
    graph = net.chain(
        ("input", net.inp(6, analog=False)),
        ("0", net.affine(rng.normal(0, 0.6, (8, 6)), rng.normal(0, 0.1, 8))),
        ("1", net.lif(8, threshold=0.5)),
        ("2", net.linear(rng.normal(0, 0.6, (3, 8)))),
        ("3", net.lif(3, threshold=0.3)),
        ("output", net.out(3)),
    )
    graph.metadata = {}
    files.write(graph, tmp_path / "net.nir")
    x = rng.random((20, 6), dtype=np.float32)
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x[:10], y_test=np.arange(10) % 3, y_train=np.zeros(20))
    (tmp_path / "grid.yaml").write_text(
        f"""
schema: mksgn.sweep/1
data: npz:{tmp_path / "x.npz"}
shard: 4
analog: [input]
axes:
  model: {{net: net.nir}}
  steps: [3, 7]
  bits: [4, 8]
"""
    )
    grid = read(tmp_path / "grid.yaml")
    records = sweep(grid, tmp_path / "out", workers=1)
    assert list(records) == [f"net-S{steps}-th1-b{bits}-loihi2" for steps in (3, 7) for bits in (4, 8)]
    points = rows(grid, records, known_models())
    assert [(row.steps, row.bits) for row in points] == [(3, 4), (3, 8), (7, 4), (7, 8)]
    assert points[0].spikes < points[2].spikes
    network, data = tmp_path / "out" / "networks" / "net-S7-th1-b8.nir", open_arrays(grid.data)
    bench(network, data, tmp_path / "single", replace(grid.settings, compare=8), seed=None)
    single = without_times(tmp_path / "single")
    single["model"]["file"] = "model.nir"
    assert counts(tmp_path / "out")["net-S7-th1-b8-loihi2"] == single
    assert sweep(grid, tmp_path / "out", workers=1, resume=True) == records
    for out in (tmp_path / "out" / "points").iterdir():
        check(out, near=[tmp_path / "net.nir", tmp_path / "out" / "networks"], strict=True).raise_faults()
