"""mksgn/bench/run: a run's folder; that it goes on after any crash and ends the same; what it refuses to go on with."""

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
from mksgn.bench.run import Judges, bench
from mksgn.bench.shards import Settings
from mksgn.common.errors import BadInputError
from mksgn.deploy.run_folder import read_manifest, read_train
from mksgn.export.errors import ParityError
from mksgn.export.verification import verify
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets import ClipSet
from tests.support.bench_runs import killed_after, some_clips, student_files, timed, without_times

SETTINGS = Settings()
MOMENTS = 20


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


def test_the_sample_is_the_first_body_s_joints_frame_for_frame(undisturbed):
    out, _ = undisturbed
    with np.load(out / "spikes.npz") as arrays:
        joints = arrays["sample/joints"]
    first = some_clips().clips[0].joints[0]
    assert joints.shape == (8, first.shape[1], 3)
    assert np.array_equal(joints[0], first[0])
    assert np.array_equal(joints[-1], first[-1])


@pytest.mark.parametrize(("moment", "times"), [(i, 1 + (i % 5 == 0)) for i in range(MOMENTS)])
def test_killed_at_a_random_moment_and_resumed_it_ends_the_same(model, undisturbed, tmp_path, moment, times):
    """SIGKILL once or twice, anywhere from the first clip to the manifest, then --resume."""
    wanted, seconds = undisturbed
    random.seed(moment)
    for _ in range(times):
        killed_after(random.uniform(0.1, 1.0) * seconds, model, tmp_path, some_clips(), SETTINGS, shard=1)
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, resume=True, shard=1)
    assert without_times(tmp_path) == without_times(wanted)
    for population in ("ssc", "block2_stc"):
        assert np.array_equal(
            read_train(tmp_path / "spikes.npz", population), read_train(wanted / "spikes.npz", population)
        )
    read_manifest(tmp_path)
    assert not list(tmp_path.glob("progress*")) + list(tmp_path.glob("*.part"))


def test_the_moments_do_interrupt_runs(model, undisturbed, tmp_path):
    """The test above would prove nothing if every run were over before it is killed, or nothing of it were kept."""
    _, seconds = undisturbed
    assert killed_after(0.5 * seconds, model, tmp_path, some_clips(), SETTINGS, shard=1)
    assert (tmp_path / "progress.npz").is_file()
    assert not (tmp_path / "manifest.json").exists()
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, resume=True, shard=1)
    assert "going on: " in (tmp_path / "run.log").read_text()


def test_a_run_in_lava_goes_on_too(model, undisturbed, tmp_path):
    pytest.importorskip("lava", reason="Lava needs Python 3.10")
    wanted, _ = undisturbed
    call = [sys.executable, "-m", "mksgn.bench.cli", "run", model, "--data", "synthetic", "--limit", 20, "--seed", 3]
    call += ["--backend", "lava", "--shard", 10, "--resume", "-o", tmp_path]
    begun = subprocess.Popen(list(map(str, call)), stdout=subprocess.DEVNULL)
    while not (tmp_path / "progress.npz").is_file() and begun.poll() is None:
        time.sleep(0.01)
    begun.kill()
    assert begun.wait() == -signal.SIGKILL
    done = subprocess.run(list(map(str, call)), capture_output=True, text=True, check=True)
    assert "going on: 10 of 20 clips are done" in done.stdout
    found, other = without_times(tmp_path), without_times(wanted)
    assert found.pop("parity")["decisions"] == 2 * other.pop("parity")["decisions"]  # the emulator is asked too
    assert found["execution"].pop("backend") == "lava"
    assert other["execution"].pop("backend") == "emulator"
    assert found == other


def test_the_size_of_a_shard_changes_nothing_in_fixed_point(model, undisturbed, tmp_path):
    wanted, _ = undisturbed
    for size in (3, 7, 64):
        bench(model, some_clips(), tmp_path / str(size), SETTINGS, seed=3, shard=size)
        assert without_times(tmp_path / str(size)) == without_times(wanted)


def test_resume_on_an_absent_an_empty_and_a_finished_folder(model, undisturbed, tmp_path):
    wanted, _ = undisturbed
    (tmp_path / "empty").mkdir()
    for name in ("absent", "empty"):
        bench(model, some_clips(), tmp_path / name, SETTINGS, seed=3, resume=True, shard=1)
        assert without_times(tmp_path / name) == without_times(wanted)
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
@pytest.mark.parametrize("finished", [False, True])
def test_another_run_is_not_gone_on_with(model, undisturbed, tmp_path, change, fault, finished):
    wanted, seconds = undisturbed
    out = tmp_path / "run"
    if finished:
        shutil.copytree(wanted, out)
    else:
        assert killed_after(0.5 * seconds, model, out, some_clips(), SETTINGS, shard=1)
    asked = {"settings": SETTINGS, "seed": 3, "clips": 20, "shard": 1} | change
    with pytest.raises(BadInputError, match=fault):
        bench(
            model, some_clips(asked["clips"]), out, asked["settings"], seed=asked["seed"], shard=asked["shard"], resume=True
        )  # fmt: skip


def other_joints(clips: ClipSet) -> ClipSet:
    """As many clips with the same labels, from elsewhere."""
    return replace(clips, clips=[replace(clip, joints=clip.joints + np.float32(0.25)) for clip in clips.clips])


@pytest.mark.parametrize("finished", [False, True])
def test_other_clips_with_the_same_labels_are_not_gone_on_with(model, undisturbed, tmp_path, finished):
    wanted, seconds = undisturbed
    out = tmp_path / "run"
    if finished:
        shutil.copytree(wanted, out)
    else:
        assert killed_after(0.5 * seconds, model, out, some_clips(), SETTINGS, shard=1)
    with pytest.raises(BadInputError, match="clip 0 has other joints than when it was run"):
        bench(model, other_joints(some_clips()), out, SETTINGS, seed=3, shard=1, resume=True)


@pytest.mark.parametrize(
    ("judges", "fault"),
    [
        (Judges("loihi1"), 'begun with chip "loihi2", now "loihi1"'),
        (Judges(models=known_models()[:3]), "begun with energy_models "),
        (Judges(claims=[]), "begun with claims "),
    ],
)
def test_a_finished_run_is_not_given_back_for_another_chip_or_other_prices(model, undisturbed, judges, fault):
    wanted, _ = undisturbed
    with pytest.raises(BadInputError, match=fault):
        bench(model, some_clips(), wanted, SETTINGS, seed=3, shard=1, resume=True, judges=judges)


def test_a_finished_run_that_was_changed_is_not_given_back(model, undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
    (out / "run.json").write_text((out / "run.json").read_text().replace('"syn_ops": ', '"syn_ops": 1'))
    with pytest.raises(BadInputError, match=r"run\.json: changed since the run"):
        bench(model, some_clips(), out, SETTINGS, seed=3, shard=1, resume=True)


def test_a_run_that_cannot_begin_leaves_what_was_there(model, undisturbed, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(undisturbed[0], out)
    with pytest.raises(BadInputError, match="has 1 classes, the model 12"):
        bench(model, replace(some_clips(), classes=("wave",)), out, SETTINGS, seed=3)
    assert without_times(out) == without_times(undisturbed[0])
    assert read_manifest(out)


def test_spikes_that_differ_end_in_an_error_each_time(model, tmp_path, monkeypatch):
    """Torch is told to see a spike where there is none: the record is written, and a resumed run fails as the first did."""
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
    wanted, _ = undisturbed
    (tmp_path / "progress.npz").write_bytes(b"PK no zip")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"progress\.npz: damaged .* start anew"):
        bench(model, some_clips(), tmp_path, SETTINGS, seed=3, resume=True, shard=1)
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, shard=1)
    assert without_times(tmp_path) == without_times(wanted)


def test_repetitions_give_a_spread_and_no_other_count(model, undisturbed, tmp_path):
    wanted, _ = undisturbed
    record = bench(model, some_clips(), tmp_path, Settings(repeats=3), seed=3)
    assert record.execution.repeats == 3
    assert 0 < record.execution.seconds_min <= record.execution.seconds <= record.execution.seconds_max
    assert len(read_manifest(tmp_path)["execution"]["seconds"]) == 3
    again = without_times(tmp_path)
    again["execution"]["repeats"] = 1
    assert again == without_times(wanted)


def test_the_chip_changes_the_cores_only(model, undisturbed, tmp_path):
    wanted, _ = undisturbed
    bench(model, some_clips(), tmp_path, SETTINGS, seed=3, judges=Judges("loihi1"))
    found, other = without_times(tmp_path), without_times(wanted)
    assert found["placement"]["chip"] == "loihi1"
    assert found["totals"]["syn_ops"] == other["totals"]["syn_ops"]
    assert [row["spikes"] for row in found["layers"]] == [row["spikes"] for row in other["layers"]]


def test_a_manifest_that_was_changed_is_refused(undisturbed, tmp_path):
    wanted, _ = undisturbed
    text = (wanted / "manifest.json").read_text()
    for changed in (text.replace("synthetic", "synthetix", 1), text.replace("\n", "\n ", 1), text[:-1]):
        (tmp_path / "manifest.json").write_text(changed)
        with pytest.raises(BadInputError, match="changed since it was written"):
            read_manifest(tmp_path)
    assert json.loads(text)["schema"] == "mksgn.manifest/1"
