"""mksgn/bench/run: a run's folder; resumed after any crash, a run ends the same; what is not resumed."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mksgn.bench.energy_models import known_models
from mksgn.bench.evaluation import EvaluationOptions
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import read_manifest, read_train
from mksgn.export.errors import ParityError
from mksgn.export.verification import verify
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets import ClipSet
from tests.support.bench_runs import (
    killed_after,
    killed_at_first_shard,
    some_clips,
    student_files,
    timed,
    without_times,
)
from tests.support.tiers import one_in

SETTINGS = Settings()
MOMENTS = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return student_files(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    seconds = timed(model, some_clips(), out, SETTINGS, seed=3, shard=1)
    return out, seconds


def test_the_folder_holds_what_it_should_and_the_hashes_are_true(undisturbed, model):
    out, _ = undisturbed
    manifest = read_manifest(out)
    assert sorted(p.name for p in out.iterdir()) == sorted([*manifest["files"], "manifest.json"])
    assert set(manifest["files"]) == {"run.json", "spikes.npz", "run.log", "report.html", "report.md"}
    assert {name: sha256(out / name) for name in manifest["files"]} == manifest["files"]
    assert manifest["model"] == {"file": "model.nir", "sha256": sha256(model)}
    assert manifest["machine"]["cores"] >= 1
    assert len(manifest["data"]["clips"]) == len(set(manifest["data"]["clips"])) == 20
    assert manifest["data"]["labels"] == some_clips().labels.tolist()
    run = without_times(out)
    right = np.array(manifest["predictions"]) == some_clips().labels
    assert run["accuracy"]["correct"] == right.sum()
    assert np.array(run["accuracy"]["confusion"]).sum() == 20
    assert run["parity"]["mismatches"] == 0 < run["parity"]["decisions"]
    depths = {row["name"]: row["depth"] for row in run["schedule"]["populations"]}
    assert max(depths.values()) == run["execution"]["latency_steps"]
    assert {layer["name"] for layer in run["layers"]} < set(depths)  # and the input
    chip = {row["name"] for row in run["schedule"]["populations"] if row["place"] == "chip"}
    for edge in run["schedule"]["projections"]:
        if edge["target"] in chip:  # branches of different length meet in the same step
            steps = 2 if edge["kind"] == "product" else 1  # its units are neurons on the chip
            assert depths[edge["source"]] + steps + edge["delay"] == depths[edge["target"]]


def test_the_sample_is_the_first_body_s_joints_frame_for_frame(undisturbed):
    out, _ = undisturbed
    with np.load(out / "spikes.npz") as arrays:
        joints = arrays["sample/joints"]
    first = some_clips().clips[0].joints[0]
    assert joints.shape == (8, first.shape[1], 3)
    assert np.array_equal(joints[0], first[0])
    assert np.array_equal(joints[-1], first[-1])


@pytest.fixture(scope="module")
def interrupted(model, tmp_path_factory):
    """The folder of a run that was killed after its first clips."""
    out = tmp_path_factory.mktemp("interrupted")
    assert killed_at_first_shard(model, out, some_clips(), SETTINGS, shard=1)
    return out


@pytest.mark.slow
@pytest.mark.serial
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_any_moment_and_resumed_it_ends_the_same(model, undisturbed, tmp_path, moment):
    """SIGKILL in each sixth of the time from the first clip to the manifest, in the second twice, then --resume."""
    expected, seconds = undisturbed
    random.seed(moment)
    for _ in range(2 if moment == 1 else 1):
        part = 0.1 + 0.9 * (moment + random.random()) / MOMENTS
        killed_after(part * seconds, model, tmp_path, some_clips(), SETTINGS, shard=1)
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, resume=True, shard=1)
    assert without_times(tmp_path) == without_times(expected)
    for population in ("ssc", "block2_stc"):
        trains = [read_train(out / "spikes.npz", population) for out in (tmp_path, expected)]
        assert np.array_equal(*trains)
    read_manifest(tmp_path)
    assert not list(tmp_path.glob("progress*")) + list(tmp_path.glob("*.part"))


def test_an_interrupted_run_is_resumed(model, interrupted, tmp_path):
    """The test above would prove nothing if every run were over before it is killed, or nothing of it were kept."""
    out = tmp_path / "run"
    shutil.copytree(interrupted, out)
    assert (out / "progress.npz").is_file()
    assert not (out / "manifest.json").exists()
    bench(model, some_clips(), out, SETTINGS, seed=3, resume=True, shard=1)
    assert "resuming: " in (out / "run.log").read_text()


@pytest.mark.slow
def test_a_run_in_lava_is_resumed_too(model, undisturbed, tmp_path):
    pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    expected, _ = undisturbed
    call = [sys.executable, "-m", "mksgn.bench.cli", "run", model, "--data", "synthetic", "--limit", 20, "--seed", 3]
    call += ["--backend", "lava", "--shard", 10, "--resume", "-o", tmp_path]
    process = subprocess.Popen(list(map(str, call)), stdout=subprocess.DEVNULL)
    while not (tmp_path / "progress.npz").is_file() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    resumed = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=True)
    assert "resuming: 10 of 20 clips are done" in resumed.stdout
    in_lava, emulated = without_times(tmp_path), without_times(expected)
    # a run in Lava is compared with the emulator too
    assert in_lava.pop("parity")["decisions"] == 2 * emulated.pop("parity")["decisions"]
    assert in_lava["execution"].pop("backend") == "lava"
    assert emulated["execution"].pop("backend") == "emulator"
    assert in_lava == emulated


@pytest.mark.parametrize("size", one_in(3, [7, 3, 64]))
def test_the_size_of_a_shard_changes_nothing_in_fixed_point(model, undisturbed, tmp_path, size):
    expected, _ = undisturbed
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, shard=size)
    assert without_times(tmp_path) == without_times(expected)


def test_resume_on_an_absent_an_empty_and_a_finished_folder(model, undisturbed, tmp_path):
    expected, _ = undisturbed
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        bench(model, some_clips(), tmp_path / name, SETTINGS, seed=3, resume=True, shard=1)
        assert without_times(tmp_path / name) == without_times(expected)
    before = {p.name: p.read_bytes() for p in (tmp_path / "empty").iterdir()}
    bench(model, some_clips(), tmp_path / "empty", SETTINGS, seed=3, resume=True, shard=1)
    assert {p.name: p.read_bytes() for p in (tmp_path / "empty").iterdir()} == before


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"settings": Settings(compare=0)}, "begun with compare null, now 0"),
        ({"settings": Settings(precision="float")}, 'begun with precision "fixed", now "float"'),
        ({"seed": 4}, "begun with seed 3, now 4"),
        ({"clips": 19}, "begun with clips 20, now 19"),
        ({"shard": 2}, "begun with shard 1, now 2"),
    ],
)
@pytest.mark.parametrize("finished", one_in(2, [False, True]))
def test_another_run_is_not_resumed(model, undisturbed, interrupted, tmp_path, change, fault, finished):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0] if finished else interrupted, out)
    request = {"settings": SETTINGS, "seed": 3, "clips": 20, "shard": 1} | change
    with pytest.raises(BadInputError, match=fault):
        bench(model, some_clips(request.pop("clips")), out, resume=True, **request)


def other_joints(clips: ClipSet) -> ClipSet:
    """Other joints for the same number of clips with the same labels."""
    return replace(clips, clips=[replace(clip, joints=clip.joints + np.float32(0.25)) for clip in clips.clips])


@pytest.mark.parametrize("finished", [False, True])
def test_other_clips_with_the_same_labels_are_not_resumed(model, undisturbed, interrupted, tmp_path, finished):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0] if finished else interrupted, out)
    with pytest.raises(BadInputError, match="clip 0 has changed since it was run"):
        bench(model, other_joints(some_clips()), out, SETTINGS, seed=3, shard=1, resume=True)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (EvaluationOptions("loihi1"), 'begun with chip "loihi2", now "loihi1"'),
        (EvaluationOptions(models=known_models()[:3]), "begun with energy_models "),
        (EvaluationOptions(claims=[]), "begun with claims "),
    ],
)
def test_a_finished_run_is_not_returned_for_another_chip_or_other_prices(model, undisturbed, options, fault):
    expected, _ = undisturbed
    with pytest.raises(BadInputError, match=fault):
        bench(model, some_clips(), expected, SETTINGS, seed=3, shard=1, resume=True, options=options)


def test_a_finished_run_that_was_changed_is_not_returned(model, undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
    (out / "run.json").write_text((out / "run.json").read_text().replace('"syn_ops": ', '"syn_ops": 1'))
    with pytest.raises(BadInputError, match=r"run\.json: changed since the run"):
        bench(model, some_clips(), out, SETTINGS, seed=3, shard=1, resume=True)


def test_a_run_that_cannot_begin_leaves_what_was_there(model, undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
    with pytest.raises(BadInputError, match="has 1 classes, the model 12"):
        bench(model, replace(some_clips(), classes=("wave",)), out, SETTINGS, seed=3, overwrite=True)
    assert without_times(out) == without_times(undisturbed[0])
    assert read_manifest(out)


def test_spikes_that_differ_end_in_an_error_each_time(model, tmp_path, monkeypatch):
    """Torch is given a wrong spike: the record is written, and a resumed run fails like the first."""
    honest = verify.torch_spikes

    def one_more(*arguments):
        spikes, logits = honest(*arguments)
        return {name: x ^ (np.arange(x.size) == 5).reshape(x.shape) for name, x in spikes.items()}, logits

    monkeypatch.setattr(verify, "torch_spikes", one_more)
    for _ in range(2):
        with pytest.raises(ParityError, match="decisions differ from torch, first in ssc"):
            bench(model, some_clips(4), tmp_path, SETTINGS, seed=3, resume=True)
    assert without_times(tmp_path)["parity"]["first"] == {"layer": "ssc", "clip": 0, "step": 0}


def test_a_damaged_progress_is_named_and_a_new_run_clears_it(model, undisturbed, tmp_path):
    expected, _ = undisturbed
    (tmp_path / "progress.npz").write_bytes(b"PK no zip")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"progress\.npz: cannot be read .* start over"):
        bench(model, some_clips(), tmp_path, SETTINGS, seed=3, resume=True, shard=1)
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, shard=1, overwrite=True)
    assert without_times(tmp_path) == without_times(expected)
    assert not (tmp_path / "progress.npz").exists()


def test_repetitions_give_a_spread_and_no_other_count(model, undisturbed, tmp_path):
    expected, _ = undisturbed
    record = bench(model, some_clips(), tmp_path, Settings(repeats=3), seed=3)
    assert record.execution.repeats == 3
    assert 0 < record.execution.seconds_min <= record.execution.seconds <= record.execution.seconds_max
    assert len(read_manifest(tmp_path)["execution"]["seconds"]) == 3
    again = without_times(tmp_path)
    again["execution"]["repeats"] = 1
    assert again == without_times(expected)


def test_the_chip_changes_the_cores_only(model, undisturbed, tmp_path):
    expected, _ = undisturbed
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, options=EvaluationOptions("loihi1"))
    loihi1, loihi2 = without_times(tmp_path), without_times(expected)
    assert loihi1["placement"]["chip"] == "loihi1"
    assert loihi1["totals"]["syn_ops"] == loihi2["totals"]["syn_ops"]
    assert [row["spikes"] for row in loihi1["layers"]] == [row["spikes"] for row in loihi2["layers"]]


def test_a_manifest_that_was_changed_is_refused(undisturbed, tmp_path):
    expected, _ = undisturbed
    text = (expected / "manifest.json").read_text()
    for changed in (text.replace("synthetic", "synthetix", 1), text.replace("\n", "\n ", 1), text[:-1]):
        (tmp_path / "manifest.json").write_text(changed)
        with pytest.raises(BadInputError, match="changed since it was written"):
            read_manifest(tmp_path)
    assert json.loads(text)["schema"] == "mksgn.manifest/1"
