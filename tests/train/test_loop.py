"""The training loop: what it writes, that a seed decides it, and that a resumed training is the
uninterrupted one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train import checkpoint, distill, resume
from mksgn.train.config import TrainConfig
from mksgn.train.datasets import synthetic
from mksgn.train.evaluate import predict, top1
from mksgn.train.loop import train, train_teacher
from mksgn.train.optimizers import weight_groups
from mksgn.train.student import Student, StudentConfig
from mksgn.train.transforms import body_inputs
from tests.support.full_disk import content_of

CONFIG = TrainConfig(
    student={"frames": 4, "stream_channels": 2, "widths": [4, 8], "heads": 2, "kernel": 3}, epochs=2, batch=4
)
SMALL_TEACHER = replace(CONFIG, teacher={"frames": 4, "widths": [4] * 10, "kernel": 3})
TRAINING, HELD_OUT = synthetic.read(12, "train"), synthetic.read(8, "test")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums in one order only, so that equal means bitwise equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Interrupted(Exception):  # noqa: N818
    pass


def run(out, config=CONFIG, stop_after=None, **options):
    def report(line):
        if line["epoch"] == stop_after:
            raise Interrupted

    return train(config, TRAINING, HELD_OUT, out, report=report, **options)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def without_time(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same_weights(a, b):
    a, b = a.student.state_dict(), b.student.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a), [name for name in a if not torch.equal(a[name], b[name])]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted training and its folder."""
    out = tmp_path_factory.mktemp("runs") / "deep" / "whole"
    return run(out), out


# what it writes


def test_a_training_leaves_its_files(whole):
    model, out = whole
    assert {file.name for file in out.iterdir()} == {"model.pt", "metrics.jsonl", "config.json", "state.pt"}
    saved = checkpoint.load(out / "model.pt")
    assert_same_weights(saved, model)
    assert saved.normaliser == model.normaliser
    assert saved.student.config.classes == TRAINING.classes
    assert saved.student.config.graph == TRAINING.graph
    assert saved.training == model.training


def test_a_line_per_epoch_with_a_finite_loss(whole):
    lines = metrics(whole[1])
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert np.isfinite(line["loss"])
        assert line["loss"] > 0
        assert 0 <= line["train_top1"] <= 1
        assert line["seconds"] > 0
    assert 0 <= lines[-1]["held_out_top1"] <= 1


def test_the_config_is_written_whole(whole):
    values = json.loads((whole[1] / "config.json").read_text())
    assert values["student"] == whole[0].student.config.to_dict()
    assert {**values, "student": CONFIG.student} == CONFIG.to_dict()


def test_the_facts_of_the_training_are_kept_with_the_model(whole):
    model, out = whole
    x, clip_of = body_inputs(HELD_OUT.clips, model.normaliser)
    rate = model.training["held_out_firing_rate"]
    spikes = {}
    model.student(torch.from_numpy(x), spikes)
    assert rate == pytest.approx(float(sum(s.sum() for s in spikes.values()) / sum(s.numel() for s in spikes.values())))
    accuracy = top1(predict(model.student, x, clip_of, len(HELD_OUT)), HELD_OUT.labels)
    assert model.training == {
        "preset": "custom", "source": "synthetic", "split": "synthetic", "seed": 0, "epochs": 2, "clips": 12,
        "held_out_clips": 8, "held_out_top1": accuracy, "held_out_firing_rate": rate, "processes": 1,
    }  # fmt: skip
    assert metrics(out)[-1]["held_out_top1"] == accuracy


def test_the_weights_are_those_of_the_last_epoch(whole):
    model, out = whole
    state = torch.load(out / "state.pt", weights_only=True)
    assert state["metrics"] == metrics(out)
    weights = model.student.state_dict()
    assert all(torch.equal(state["objective"][f"network.{name}"], value) for name, value in weights.items())


def test_the_progress_is_reported(tmp_path):
    lines = []
    train(CONFIG, TRAINING, HELD_OUT, tmp_path, report=lines.append)
    assert lines == metrics(tmp_path)


def test_held_out_clips_are_tried_every_fourth_epoch_and_in_the_last(tmp_path):
    run(tmp_path, replace(CONFIG, epochs=6))
    assert [line["epoch"] for line in metrics(tmp_path) if "held_out_top1" in line] == [4, 6]


def test_a_benchmark_s_test_part_is_tried_once_at_the_end(tmp_path):
    train(replace(CONFIG, epochs=5), TRAINING, replace(HELD_OUT, validation=False), tmp_path)
    assert [line["epoch"] for line in metrics(tmp_path) if "held_out_top1" in line] == [5]


def test_copies_of_training_clips_are_counted_and_left_out(tmp_path):
    copied = replace(HELD_OUT, clips=[*HELD_OUT.clips[:5], *TRAINING.clips[:3]])
    model = train(CONFIG, TRAINING, copied, tmp_path)
    assert model.training["held_out_copies"] == 3
    x, clip_of = body_inputs(copied.clips, model.normaliser)
    hit = predict(model.student, x, clip_of, 8).argmax(1).numpy() == copied.labels
    assert model.training["held_out_top1"] == pytest.approx(hit.mean())
    assert model.training["held_out_top1_without_copies"] == pytest.approx(hit[:5].mean())


# what decides it


def test_the_same_seed_gives_the_same_weights(whole, tmp_path):
    torch.manual_seed(99)  # whatever the global generator was used for before
    torch.rand(7)
    assert_same_weights(run(tmp_path), whole[0])
    assert without_time(metrics(tmp_path)) == without_time(metrics(whole[1]))


def test_another_seed_gives_other_weights(whole, tmp_path):
    other = run(tmp_path, seed=1)
    assert not torch.equal(other.student.fc.weight, whole[0].student.fc.weight)
    assert other.training["seed"] == 1


def test_held_out_clips_have_no_part_in_training(whole, tmp_path):
    other = train(CONFIG, TRAINING, synthetic.read(3, "test", seed=5), tmp_path)
    assert_same_weights(other, whole[0])
    assert other.normaliser == whole[0].normaliser


@pytest.mark.slow
def test_it_learns(tmp_path):
    """A dozen clips, one per class: the loss falls well below that of guessing, log 12 = 2.48."""
    still = {"crop": 1.0, "rotate_degrees": 0.0, "scale": (1.0, 1.0), "label_smoothing": 0.0}
    student = {**CONFIG.student, "frames": 8, "widths": [16], "stream_channels": 8}
    run(tmp_path, replace(CONFIG, epochs=30, learning_rate=2e-2, student=student, **still))
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert losses[0] > 2.2
    assert losses[-1] < 2.0


def test_synapses_decay_and_gains_do_not():
    """Decay on a gain, a norm or a bias would silence populations."""
    student = Student(StudentConfig("ntu-25", TRAINING.classes, frames=4, widths=(8,), stream_channels=2))
    decayed, kept = weight_groups(student, 0.25)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.25, 0.0)
    names = {id(p): name for name, p in student.named_parameters()}
    assert sorted(names[id(p)] for p in decayed["params"] + kept["params"]) == sorted(names.values())
    decayed = {names[id(p)] for p in decayed["params"]}
    assert {name for name in names.values() if name.endswith(("conv.weight", "adjacency", "graph.weight"))} <= decayed
    assert not [name for name in decayed if "bn" in name or "gain" in name or name.endswith("bias")]


# resuming


def test_a_resumed_training_is_the_uninterrupted_one(whole, tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, stop_after=1)
    assert not (tmp_path / "model.pt").exists()
    assert [line["epoch"] for line in metrics(tmp_path)] == [1]
    torch.manual_seed(99)
    assert_same_weights(run(tmp_path, resume=True), whole[0])
    assert without_time(metrics(tmp_path)) == without_time(metrics(whole[1]))
    assert_same_weights(checkpoint.load(tmp_path / "model.pt"), whole[0])
    states = [torch.load(out / "state.pt", weights_only=True) for out in (tmp_path, whole[1])]
    assert states[0]["schedule"] == states[1]["schedule"]


def test_a_line_that_was_written_before_the_state_is_not_counted_twice(whole, tmp_path, monkeypatch):
    """Killed between the two: the epoch is done again."""
    save = resume.save_atomically

    def killed(values, path):
        if len(values["metrics"]) == 2:
            raise Interrupted
        save(values, path)

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_atomically", killed)
        with pytest.raises(Interrupted):
            run(tmp_path)
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 2]
    assert_same_weights(run(tmp_path, resume=True), whole[0])
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 2]


@pytest.mark.parametrize("folder", ["absent/deeper", "empty"])
def test_resuming_nothing_is_starting(whole, tmp_path, folder):
    (tmp_path / "empty").mkdir()
    assert_same_weights(run(tmp_path / folder, resume=True), whole[0])


def test_resuming_a_finished_training_changes_nothing(whole, tmp_path):
    run(tmp_path)
    before = metrics(tmp_path), checkpoint.load(tmp_path / "model.pt")
    lines = []
    again = train(CONFIG, TRAINING, HELD_OUT, tmp_path, resume=True, report=lines.append)
    assert lines == []  # no epoch was run
    assert metrics(tmp_path) == before[0]
    assert_same_weights(again, whole[0])
    assert again.training == before[1].training


def test_a_finished_training_that_lost_its_model_gets_it_back(whole, tmp_path):
    run(tmp_path)
    (tmp_path / "model.pt").unlink()
    run(tmp_path, resume=True)
    assert_same_weights(checkpoint.load(tmp_path / "model.pt"), whole[0])


def test_an_unfinished_training_is_given_up_on_demand_only(whole, tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, seed=1, stop_after=1)
    with pytest.raises(BadInputError, match=r"holds an unfinished training .* --resume, replace it with --overwrite"):
        run(tmp_path)
    assert len(metrics(tmp_path)) == 1
    assert_same_weights(run(tmp_path, overwrite=True), whole[0])
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 2]
    assert not list(tmp_path.glob(".*"))


def test_a_finished_training_stays_whole_until_the_next_is(whole, tmp_path):
    run(tmp_path, seed=1)
    (tmp_path / "teacher.pt").write_bytes(b"a teacher that a student may learn from")
    before = content_of(tmp_path)
    with pytest.raises(Interrupted):
        run(tmp_path, overwrite=True, stop_after=1)
    assert {name: data for name, data in content_of(tmp_path).items() if not name.startswith(".")} == before
    assert_same_weights(run(tmp_path, resume=True), whole[0])
    assert [line["epoch"] for line in metrics(tmp_path)] == [1, 2]
    assert sorted(content_of(tmp_path)) == sorted(before)


# what is refused


def test_after_a_phase_of_rates_the_student_spikes(tmp_path):
    config = replace(CONFIG, rate_phase=0.5)
    model = run(tmp_path / "whole", config)
    assert [line.get("phase") for line in metrics(tmp_path / "whole")] == ["rates", None]
    spikes = {}
    inputs, _ = body_inputs(HELD_OUT.clips, model.normaliser)
    with torch.no_grad():
        model.student(torch.from_numpy(inputs), spikes)
    assert all(len(s) == 4 and ((s == 0) | (s == 1)).all() for s in spikes.values())
    with pytest.raises(Interrupted):
        run(tmp_path / "resumed", config, stop_after=1)
    assert_same_weights(model, run(tmp_path / "resumed", config, resume=True))
    assert without_time(metrics(tmp_path / "resumed")) == without_time(metrics(tmp_path / "whole"))


def test_a_teacher_of_another_split_is_refused(tmp_path):
    """It may have learnt from the clips that are held out here."""
    teacher = train_teacher(replace(SMALL_TEACHER, epochs=1), TRAINING, HELD_OUT, tmp_path / "teacher")
    student = train(replace(CONFIG, epochs=1), TRAINING, HELD_OUT, tmp_path / "student", teacher=teacher)
    assert student.training["teacher"]["seed"] == 0
    other = replace(TRAINING, split="view1-2")
    with pytest.raises(BadInputError, match=r"trained on split synthetic, the student is on view1-2.*--split view1-2"):
        train(CONFIG, other, HELD_OUT, tmp_path / "out", teacher=teacher)


def test_resuming_on_other_clips_is_refused(tmp_path):
    with pytest.raises(Interrupted):
        run(tmp_path, stop_after=1)
    other = replace(TRAINING, clips=synthetic.read(12, "train", 1).clips)
    with pytest.raises(BadInputError, match=r"belongs to another training .*clips_digest"):
        train(CONFIG, other, HELD_OUT, tmp_path, resume=True)


@pytest.mark.parametrize("empty", ["training", "held_out"])
def test_nothing_to_train_on_is_refused(tmp_path, empty):
    sets = {"training": TRAINING, "held_out": HELD_OUT}
    sets[empty] = replace(sets[empty], clips=[])
    with pytest.raises(BadInputError, match="synthetic: nothing to train on or to validate with"):
        train(CONFIG, sets["training"], sets["held_out"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(distill, "cross_entropy", lambda logits, labels, config: logits.sum(1) * float("nan"))
    with pytest.raises(BadInputError, match=r"epoch 1: the loss is not finite; lower learning_rate \(now 1.0\)"):
        run(tmp_path, replace(CONFIG, learning_rate=1.0))
    assert not (tmp_path / "model.pt").exists()
    assert metrics(tmp_path) == []


def test_resuming_another_training_or_a_damaged_one_is_refused(tmp_path):
    held_out = synthetic.read(4, "test")

    def go(limit, resume=True, **changes):
        config = replace(CONFIG, **changes)
        return train(config, synthetic.read(limit, "train"), held_out, tmp_path, resume=resume)

    go(8, resume=False)
    go(8)  # finished already
    with pytest.raises(BadInputError, match=r"belongs to another training \(batch 4 → 8\)"):
        go(8, batch=8)
    with pytest.raises(BadInputError, match="clips 8 → 9"):
        go(9)
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(BadInputError, match=r"refused: .* start over with --overwrite"):
        go(8)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="is a file; name a folder"):
        train(CONFIG, synthetic.read(8, "train"), held_out, tmp_path / "file")


# quantisation-aware


@pytest.mark.parametrize("distilled", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_quantisation_aware_training_is_resumed_bitwise(whole, tmp_path, distilled):
    config = replace(CONFIG, quantization_aware=4, rate_weight=0.3, rate_cost="synapses", learning_rate=1e-3)
    options = {"start": whole[0]}
    if distilled:
        options["teacher"] = train_teacher(SMALL_TEACHER, TRAINING, HELD_OUT, tmp_path / "teacher")
    uninterrupted = run(tmp_path / "whole", config, **options)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", config, stop_after=1, **options)
    resumed = run(tmp_path / "cut", config, resume=True, **options)
    assert_same_weights(resumed, uninterrupted)
    assert resumed.quantization == uninterrupted.quantization
    assert without_time(metrics(tmp_path / "cut")) == without_time(metrics(tmp_path / "whole"))
    assert set(metrics(tmp_path / "cut")[0]["losses"]) >= {"cross_entropy", "rate"}
    assert checkpoint.load(tmp_path / "cut" / "model.pt").quantization == uninterrupted.quantization
    assert not torch.equal(resumed.student.fc.weight, whole[0].student.fc.weight)


@pytest.mark.slow
def test_a_quantisation_aware_training_is_not_resumed_from_another_start_or_width(whole, tmp_path):
    config = replace(CONFIG, quantization_aware=4, epochs=1)
    run(tmp_path, config, start=whole[0])
    other = run(tmp_path / "other", seed=1)
    with pytest.raises(BadInputError, match=r"belongs to another training .start_digest"):
        run(tmp_path, config, start=other, resume=True)
    with pytest.raises(BadInputError, match=r"belongs to another training .quantization_aware 4 → 3"):
        run(tmp_path, replace(config, quantization_aware=3), start=whole[0], resume=True)


def test_a_quantisation_aware_training_needs_its_model_s_data(whole, tmp_path):
    config, classes = replace(CONFIG, quantization_aware=4), ("a", "b")
    with pytest.raises(BadInputError, match=r"the model's classes: .*; name the data that it was trained on"):
        train(config, replace(TRAINING, classes=classes), HELD_OUT, tmp_path, start=whole[0])
    with pytest.raises(BadInputError, match=r"the model was trained on split synthetic, the student is on view1-2"):
        train(config, replace(TRAINING, split="view1-2"), HELD_OUT, tmp_path, start=whole[0])
    with pytest.raises(BadInputError, match="give both or neither"):
        train(CONFIG, TRAINING, HELD_OUT, tmp_path, start=whole[0])
