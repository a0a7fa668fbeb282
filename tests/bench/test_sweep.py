"""mksgn/bench/sweep: the grid's points, the same records from any number of workers, and nothing lost or counted twice when one dies."""

import json
import os
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

from mksgn.bench.energy_models import model_named
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.bench.sweep import pareto
from mksgn.bench.sweep import sweep as sweeps
from mksgn.bench.sweep.grid import Grid, read, size
from mksgn.bench.sweep.sweep import sweep
from mksgn.bench.sweep.variants import graph_of, scale_thresholds, with_steps
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import environment
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs
from tests.support.bench_runs import student_files, without_times

GRID = """
schema: mksgn.sweep/1
data: synthetic
limit: 24
shard: 4
calibration: 8
axes:
  model: {tiny: model.pt}
  steps: [2, 4]
  threshold: [1.0, 1.2]
  bits: [8]
  chip: [loihi2, loihi1]
energy_models: [horowitz45-fp32, davies2018-loihi1]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("sweep")
    student_files(out)
    (out / "grid.yaml").write_text(GRID)
    return out


@pytest.fixture(scope="module")
def one_worker(folder):
    out = folder / "one"
    return out, sweep(read(folder / "grid.yaml"), out, workers=1)


def counts(out: Path) -> dict[str, dict]:
    return {p.name: without_times(p) for p in sorted((out / "points").iterdir())}


def test_a_point_for_each_place_on_the_grid(folder, one_worker):
    out, records = one_worker
    grid = read(folder / "grid.yaml")
    assert size(grid) == len(records) == 8
    assert list(records)[:3] == ["tiny-S2-th1-b8-loihi2", "tiny-S2-th1-b8-loihi1", "tiny-S2-th1.2-b8-loihi2"]
    assert sorted(p.name for p in (out / "points").iterdir()) == sorted(records)
    assert {r.execution.steps for r in records.values()} == {2, 4}
    assert {r.placement.chip for r in records.values() if r.placement} == {"loihi1", "loihi2"}
    assert all(r.data.clips == 24 and r.parity and r.parity.mismatches == 0 for r in records.values())
    spikes = [records[f"tiny-S4-th{threshold}-b8-loihi2"].totals.spikes for threshold in ("1", "1.2")]
    assert spikes[0] > spikes[1] > 0
    assert not list((out / "progress").glob("*")) if (out / "progress").is_dir() else True


def test_a_point_is_the_record_of_an_ordinary_run(folder, one_worker):
    out, _ = one_worker
    network = out / "networks" / "tiny-S2-th1.2-b8.nir"
    clips = open_source("synthetic", part="test", limit=24)
    bench(network, clips, folder / "single", Settings(compare=8), seed=0)
    single, point = without_times(folder / "single"), counts(out)["tiny-S2-th1.2-b8-loihi2"]
    single["model"]["file"] = "model.nir"
    assert point == single


def test_two_workers_give_the_same_records(folder, one_worker):
    out, _ = one_worker
    sweep(read(folder / "grid.yaml"), folder / "two", workers=2)
    assert counts(folder / "two") == counts(out)


def test_a_worker_killed_in_the_middle_changes_nothing(folder, one_worker):
    out, _ = one_worker
    killed = []

    def kill_one() -> None:
        """As soon as the first network is built: its shards are being run."""
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
    sweep(read(folder / "grid.yaml"), folder / "killed", workers=2)
    killer.join(10)
    assert len(killed) == 1
    assert counts(folder / "killed") == counts(out)


def test_a_killed_sweep_goes_on(folder, one_worker):
    out, _ = one_worker
    code = (
        "import sys; from pathlib import Path; from mksgn.bench.sweep import sweep; from mksgn.bench.sweep.grid import read\n"
        "if __name__ == '__main__': sweep(read(Path(sys.argv[1])), Path(sys.argv[2]), workers=1)"
    )
    script, resumed = folder / "sweep_once.py", folder / "resumed"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, script, folder / "grid.yaml", resumed], start_new_session=True)
    while not list(resumed.glob("points/*-loihi?/manifest.json")) and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "over before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {p.parent.name: p.stat().st_mtime_ns for p in resumed.glob("points/*-loihi?/manifest.json")}
    assert 0 < len(done) < 8
    with pytest.raises(BadInputError, match="holds a sweep already; go on with --resume"):
        sweep(read(folder / "grid.yaml"), resumed, workers=1)
    sweep(read(folder / "grid.yaml"), resumed, workers=1, resume=True)
    assert counts(resumed) == counts(out)
    for name, written in done.items():
        assert (resumed / "points" / name / "manifest.json").stat().st_mtime_ns == written


def test_a_finished_sweep_starts_no_cluster(folder, one_worker, monkeypatch):
    out, records = one_worker
    monkeypatch.setattr("mksgn.bench.sweep.sweep.connected", lambda *_: pytest.fail("a cluster was started"))
    assert sweep(read(folder / "grid.yaml"), out, resume=True) == records
    other = read(folder / "grid.yaml").model_copy(update={"limit": 12})
    with pytest.raises(BadInputError, match="begun with limit 24, now 12"):
        sweep(other, out, resume=True)


def test_an_error_of_a_task_reaches_the_user(folder, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"no model")
    (tmp_path / "grid.yaml").write_text(GRID)
    with pytest.raises(BadInputError, match=r"model\.pt: refused: not a file of plain tensors"):
        sweep(read(tmp_path / "grid.yaml"), tmp_path / "out", workers=1)


def test_no_scheduler_at_that_address(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("mksgn.bench.sweep.cluster.CONNECT_S", 0.5)
    with pytest.raises(BadInputError, match=r"--scheduler tcp://127.0.0.1:9: no scheduler answers within 0.5 s"):
        sweep(read(folder / "grid.yaml"), tmp_path / "out", scheduler="tcp://127.0.0.1:9")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("bits: [8]", "bits: [9]"), "axes.bits.0: Input should be less than or equal to 8"),
        (("bits: [8]", "bits: []"), "axis bits is empty"),
        (("steps: [2, 4]", "steps: [2, 2]"), "axis steps names a value twice"),
        (("loihi1]", "loihi3]"), "loihi3"),
        (("tiny:", "a/b:"), "axes.model.a/b"),
        (("limit: 24", "limt: 24"), "limt: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_grid_is_named_in_one_line(tmp_path, change, fault):
    (tmp_path / "grid.yaml").write_text(GRID.replace(*change))
    with pytest.raises(BadInputError, match=fault) as error:
        read(tmp_path / "grid.yaml")
    assert "\n" not in str(error.value)


def test_variants_keep_the_weights_and_change_what_they_say(folder):
    trained = checkpoint.load(folder / "model.pt")
    again = with_steps(trained, 6)
    assert again.student.config.steps == 6
    assert all((again.student.state_dict()[name] == x).all() for name, x in trained.student.state_dict().items())
    plain, scaled = export_to_nir(trained), export_to_nir(trained)
    scale_thresholds(scaled, 1.5)
    for name, node in plain.nodes.items():
        for field in ("v_threshold", "threshold_m", "threshold_z"):
            if hasattr(node, field):
                assert np.allclose(
                    getattr(scaled.nodes[name], field), 1.5 * np.asarray(getattr(node, field)), rtol=1e-6
                )
        if hasattr(node, "weight"):
            assert np.array_equal(node.weight, scaled.nodes[name].weight)


def test_the_variant_that_changes_nothing_is_the_export(folder):
    """The same weights, scales and thresholds as mksgn-export writes."""
    grid = read(folder / "grid.yaml")
    variant = next(grid.variants()).model_copy(update={"steps": None, "threshold": 1.0})
    trained = checkpoint.load(folder / "model.pt")
    samples, _ = body_inputs(open_source("synthetic", part="train", limit=8).clips, trained.normaliser)
    found, wanted = graph_of(variant, samples), files.read(folder / "model.nir")
    assert found.nodes.keys() == wanted.nodes.keys()
    for name, node in wanted.nodes.items():
        for field in ("weight", "bias", "v_threshold", "threshold_m"):
            if hasattr(node, field):
                assert np.array_equal(np.asarray(getattr(found.nodes[name], field)), np.asarray(getattr(node, field)))


def row(label: str, top1: float, energy: float, bound: bool = False) -> pareto.Row:
    return pareto.Row(
        label, "m", 4, 1.0, 8, "loihi2", top1, 10.0, 20.0, 5, 3, 1, 0, {"e": pareto.Energy(energy, bound)}
    )


def test_the_front_is_what_nothing_beats():
    points = [
        row("a", 0.5, 1.0),
        row("b", 0.6, 2.0),
        row("c", 0.6, 3.0),
        row("d", 0.4, 1.0),
        row("e", 0.9, 9.0),
        row("f", 0.6, 2.0),
    ]
    assert [x.label for x in pareto.front(points, "e")] == ["a", "b", "f", "e"]
    assert pareto.front(points, "another") == []


def test_a_lower_bound_does_not_beat_a_total():
    points = [row("bound", 0.5, 1.0, bound=True), row("total", 0.5, 2.0), row("higher bound", 0.4, 1.5, bound=True)]
    assert [x.label for x in pareto.front(points, "e")] == ["bound", "total"]


def test_progress_of_other_clips_is_not_gone_on_with(folder, tmp_path, monkeypatch):
    grid = read(folder / "grid.yaml")
    sweep(grid, tmp_path, workers=1)
    for point in (tmp_path / "points").iterdir():
        (point / "manifest.json").unlink()

    def moved(*arguments, **more):
        found = open_source(*arguments, **more)
        return replace(found, clips=[replace(clip, joints=clip.joints + np.float32(0.25)) for clip in found.clips])

    monkeypatch.setattr(sweeps, "open_source", moved)
    with pytest.raises(BadInputError, match="begun with joints "):
        sweep(grid, tmp_path, workers=1, resume=True)


def test_tables_and_pictures(folder, one_worker):
    out, records = one_worker
    grid = read(folder / "grid.yaml")
    points = pareto.rows(grid, records, [model_named(name) for name in grid.energy_models])
    paths = pareto.write(out, grid, points)
    assert [p.name for p in paths] == [
        "sweep.json",
        "sweep.md",
        "pareto-horowitz45-fp32.png",
        "pareto-davies2018-loihi1.png",
    ]
    result = json.loads(paths[0].read_text())
    assert [p["label"] for p in result["points"]] == list(records)
    assert set(result["fronts"]["horowitz45-fp32"]) <= set(records)
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    text = paths[1].read_text()
    assert text.count("| tiny-") + text.count("| **front** tiny-") == 16
    assert "≥ " in text.split("davies2018-loihi1")[1]
    assert "≥ " not in text.split("davies2018-loihi1")[0]


def test_grids_have_defaults(tmp_path):
    (tmp_path / "grid.yaml").write_text("schema: mksgn.sweep/1\ndata: synthetic\naxes: {model: {a: a.pt}}\n")
    grid = read(tmp_path / "grid.yaml")
    assert isinstance(grid, Grid)
    assert [p.label for p in grid.points()] == ["a-th1-b8-loihi2"]


class Cluster:
    """What Dask's client says of its workers."""

    def __init__(self, **found):
        self.found = found

    def run(self, function):
        return {"tcp://a": function(), "tcp://b": {**function(), **self.found}}


def test_a_worker_of_another_version_is_refused():
    here = environment()
    sweeps._check_versions(Cluster(), here)
    with pytest.raises(
        BadInputError, match=r"worker tcp://b: torch 9\.9, here .*; install the same versions on all workers"
    ):
        sweeps._check_versions(Cluster(torch="9.9"), here)
