"""mksgn-train as a user meets it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mksgn.common.lock import locked
from mksgn.train import checkpoint, cli, config, describe
from mksgn.train.datasets import synthetic
from mksgn.train.streams import STREAMS, StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import body_inputs
from tests.support.full_disk import content_of, full_disk

TINY = "student: {frames: 4, stream_channels: 2, widths: [4], heads: 2, kernel: 3}\nepochs: 2\nbatch: 4\n"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(synthetic.DEFAULT_LIMIT, "test", 24)  # held-out clips

    def with_arguments(*arguments):
        monkeypatch.setattr(sys, "argv", ["mksgn-train", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, *capsys.readouterr()

    return with_arguments


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def assert_one_line(result, said):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("mksgn-train: ")
    assert said in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not set("╭│╰─") & set(err)  # no panel


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch-count", "3"], "No such option: --epoch-count"),
        (["--epochs", "0"], "Invalid value for '--epochs'"),
        (["--epochs", "many"], "Invalid value for '--epochs'"),
        (["--limit", "0"], "Invalid value for '--limit'"),
        (["--seed", "-1"], "Invalid value for '--seed'"),
        (["demo", "small"], "unexpected extra argument"),
        (["huge"], "config huge: neither a preset (demo, small, base, frugal, paper) nor a YAML file"),
        (["absent.yaml"], "config absent.yaml: neither a preset"),
        (["--data", "kinetics:clips"], "unknown source 'kinetics:clips': use one of synthetic, nw-ucla:PATH"),
        (["--data", "nw-ucla"], "source 'nw-ucla' must have the form nw-ucla:PATH"),
        (["--data", "nw-ucla:absent"], "absent is not a folder"),
        (["--split", "xview"], "synthetic has no split 'xview': use one of synthetic"),
        (["--device", "tpu"], "--device tpu: not available here; use cpu"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr_and_2(run, tmp_path, arguments, said):
    assert_one_line(run(*arguments), said)
    assert list(tmp_path.iterdir()) == []  # nothing was begun


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: [3\n", "not YAML"),
        ("colour: red\n", "unknown entries colour"),
        ("epochs: 0\n", "epochs: Input should be greater than or equal to 1; got 0"),
    ],
)
def test_a_config_file_that_is_wrong_is_one_line_too(run, tiny, text, said):
    tiny.write_text(text)
    assert_one_line(run(tiny), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("student: {colour: red}\n", "student config: unknown entries colour"),
        ("student: {heads: 3}\n", "is not a multiple of heads 3"),
        ("student: {attention: softmax}\n", "attention: Input should be 'self', 'token' or 'none'; got 'softmax'"),
    ],
)
def test_a_student_that_cannot_be_built_is_one_line_too(run, tiny, text, said):
    tiny.write_text(text)
    code, _, err = run(tiny, "--limit", 4)
    assert_one_line((code, "", err), said)


def test_help_shows_an_example(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert "Example: mksgn-train demo --data synthetic --out runs/demo" in out
    assert not set("╭│╰") & set(out)
    for option in ("[CONFIG]", "--data", "--out", "--split", "--epochs", "--limit", "--seed", "--resume", "--device"):
        assert option in out


def test_a_finished_training_stays_until_another_one_is_finished(run, tiny, tmp_path):
    out = tmp_path / "run"
    arguments = (tiny, "--out", out, "--limit", 4, "--epochs", 1)
    assert run(*arguments)[0] == 0
    before = content_of(out)
    said = (
        f"{out}: holds a finished training (model.pt, state.pt, metrics.jsonl and 1 more); continue it with --resume, replace it "
        "with --overwrite, or choose another folder with --out"
    )
    assert_one_line(run(*arguments, "--seed", 1), said)
    with locked(out):
        code, _, err = run(*arguments, "--seed", 1, "--overwrite")
    assert code == 2
    assert "is writing to it; wait until it ends, or choose another folder" in err
    with full_disk(16384):
        code, _, err = run(*arguments, "--seed", 1, "--overwrite")
    assert code == 2
    assert err.startswith(f"mksgn-train: {out}/.training.draft/state.pt: ")
    assert err.count("\n") == 1
    assert content_of(out) == before
    assert run(*arguments, "--seed", 1, "--overwrite")[0] == 0
    assert checkpoint.load(out / "model.pt").training["seed"] == 1
    assert sorted(content_of(out)) == sorted(before)
    (out / "state.pt").unlink()
    assert_one_line(run(*arguments, "--resume"), "without state.pt, from which --resume continues")


def test_it_trains_says_so_and_resumes(run, tiny, tmp_path):
    out = tmp_path / "run"
    arguments = (tiny, "--out", out, "--limit", 12, "--seed", 3)
    code, said, err = run(*arguments)
    assert (code, err) == (0, "")
    lines = said.splitlines()
    assert lines[0] == "training custom on 12 clips of synthetic, 12 classes"
    assert [line.split("loss")[0].strip() for line in lines[1:3]] == ["epoch   1/2", "epoch   2/2"]
    assert "held-out" in lines[2]
    digest = checkpoint.sha256(out / "model.pt")
    assert f"sha256 {digest[:16]}" in "".join(lines[3:])
    model = checkpoint.load(out / "model.pt")
    assert model.training["seed"] == 3
    assert model.training["clips"] == 12
    assert json.loads((out / "config.json").read_text())["epochs"] == 2
    again = run(*arguments, "--resume")
    assert (again[0], again[2]) == (0, "")
    assert "epoch" not in again[1]
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_as_a_module_it_is_the_same_command(tmp_path):
    """In a process of its own, where nothing but the exit code and the two streams is left."""
    command = [sys.executable, "-m", "mksgn.train", "--data", "kinetics:clips"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert_one_line((done.returncode, done.stdout, done.stderr), "unknown source 'kinetics:clips'")


# entries of the config, on the command line


def test_set_changes_entries_of_the_config_and_of_the_student(run, tiny, tmp_path):
    out = tmp_path / "run"
    changes = (
        "student.attention=none",
        "student.streams=[bone, joint]",
        "batch=6",
        "optimizer=sgd",
        "learning_rate=1e-2",
    )
    code, _, err = run(tiny, "--out", out, "--limit", 6, *(word for change in changes for word in ("--set", change)))
    assert (code, err) == (0, "")
    values = json.loads((out / "config.json").read_text())
    assert (values["batch"], values["optimizer"], values["learning_rate"]) == (6, "sgd", 0.01)
    assert values["student"]["attention"] == "none"
    assert values["student"]["widths"] == [4]  # what was not changed
    config = checkpoint.load(out / "model.pt").student.config
    assert config.attention == "none"
    assert config.streams == ("joint", "bone")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("batch", "--set batch: expected KEY=VALUE, such as batch=16 or student.attention=none"),
        ("colour=red", "unknown entries colour"),
        ("schedule=linear", "schedule: Input should be 'cosine' or 'step'; got 'linear'"),
        ("network.heads=2", "--set network.heads=2: expected KEY=VALUE"),
    ],
)
def test_a_change_that_is_wrong_is_one_line_too(run, tiny, tmp_path, change, said):
    assert_one_line(run(tiny, "--out", tmp_path / "run", "--set", change), said)
    assert not (tmp_path / "run").exists()


# the teacher


TAUGHT = TINY + "teacher: {frames: 5, widths: [2, 2, 2, 2, 3, 3, 3, 4, 4, 4], kernel: 3}\n"


@pytest.fixture
def taught(tmp_path):
    path = tmp_path / "taught.yaml"
    path.write_text(TAUGHT)
    return path


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_teacher_and_a_student_at_once_are_refused(run, tmp_path):
    """Before the teacher's file is looked for."""
    result = run("--teacher", "--distill", tmp_path / "absent.pt", "--out", tmp_path / "run")
    assert_one_line(result, "--teacher trains a teacher, --distill a student: give one of them")
    assert not (tmp_path / "run").exists()


def test_a_student_learns_from_a_teacher_and_tells_its_losses_apart(run, taught, tmp_path):
    shared = ("--limit", 12, "--seed", 1)
    code, said, err = run(taught, "--teacher", "--out", tmp_path / "teacher", *shared)
    assert (code, err) == (0, "")
    assert said.startswith("training the teacher of custom on 12 clips")
    file = tmp_path / "teacher" / "teacher.pt"
    assert f"sha256 {checkpoint.sha256(file)[:16]}" in said
    assert not (tmp_path / "teacher" / "model.pt").exists()
    streams = ("joint", "bone", "joint_motion", "bone_motion")
    lines = lines_of(tmp_path / "teacher")
    assert len(lines) == 2
    for line in lines:
        assert list(line["losses"]) == [f"cross_entropy_{name}" for name in streams]
        assert line["loss"] == pytest.approx(sum(line["losses"].values()))
    teacher = checkpoint.load_teacher(file)
    assert teacher.training["held_out_top1"] == lines[-1]["held_out_top1"]
    assert "held_out_firing_rate" not in lines[-1]  # nothing fires in it

    before = checkpoint.sha256(file)
    changes = ("soft_label_weight=2", "feature_weight=0.5", "rate_weight=0.25")
    changes = [word for change in changes for word in ("--set", change)]
    code, said, err = run(taught, "--distill", file, "--out", tmp_path / "student", *shared, *changes)
    assert (code, err) == (0, "")
    assert checkpoint.sha256(file) == before
    weights = {"cross_entropy": 1.0, "soft_label": 2.0, "feature": 0.5, "rate": 0.25}
    for line, printed in zip(lines_of(tmp_path / "student"), said.splitlines()[1:], strict=False):
        assert list(line["losses"]) == list(weights)
        assert all(value > 0 for value in line["losses"].values())
        assert line["loss"] == pytest.approx(
            sum(weights[name] * value for name, value in line["losses"].items()), rel=1e-5
        )
        told = "  ".join(f"{name} {value:.3f}" for name, value in line["losses"].items())
        assert f"loss {line['loss']:.3f} ({told})" in printed
    model = checkpoint.load(tmp_path / "student" / "model.pt")
    assert model.training["teacher"] == teacher.training
    assert not any("translate" in name for name in model.student.state_dict())

    code, _, err = run(taught, "--out", tmp_path / "alone", *shared)
    assert (code, err) == (0, "")
    alone = checkpoint.load(tmp_path / "alone" / "model.pt")
    assert [list(line["losses"]) for line in lines_of(tmp_path / "alone")] == [["cross_entropy"]] * 2
    assert "teacher" not in alone.training
    ours, theirs = model.student.state_dict(), alone.student.state_dict()
    assert list(ours) == list(theirs)
    assert any((ours[name] != theirs[name]).any() for name in ours)  # it was heard
    # and a training of another teacher cannot be gone on with
    code, _, err = run(taught, "--out", tmp_path / "student", *shared, *changes, "--resume")
    assert code == 2
    assert "teacher_digest" in err


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("nothing", "absent.pt: no such file"),
        (
            "a student",
            "schema is 'mksgn.model/1', expected 'mksgn.teacher/1'; use a teacher.pt written by mksgn-train --teacher",
        ),
        ("another's", "teacher"),
    ],
)
def test_what_cannot_teach_is_one_line_too(run, taught, tmp_path, made, said):
    file = tmp_path / "absent.pt"
    if made == "a student":
        run(taught, "--limit", 4, "--epochs", 1, "--out", tmp_path / "made")
        file = tmp_path / "made" / "model.pt"
    elif made == "another's":
        file, normaliser = tmp_path / "teacher.pt", StreamNormaliser("nw-ucla-20", 4, dict.fromkeys(STREAMS, 0.01))
        teacher = Teacher(TeacherConfig("nw-ucla-20", ("a", "b"), frames=4, widths=(2,) * 10, kernel=3))
        checkpoint.save_teacher(checkpoint.TrainedTeacher(teacher, normaliser), file)
        said = "teacher's graph: nw-ucla-20, student's graph: ntu-25; train a teacher on the same data"
    code, _, err = run(taught, "--distill", file, "--limit", 4, "--out", tmp_path / "run")
    assert_one_line((code, "", err), said)
    assert not (tmp_path / "run" / "model.pt").exists()


# what a network is


def rows_of(said):
    """The cells of each row of the table, by the layer's name."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in said.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in rows}


def cells_of(rows):
    """The same, of what mksgn/train/describe found."""
    percent = "{:.2%}".format
    return {
        row.name: [
            " × ".join(map(str, row.shape)), f"{row.parameters:,}", f"{row.macs:,}", str(row.passes),
            *("–" if value is None else percent(value) for value in (row.rate, row.unreachable)),
        ]
        for row in rows
    }  # fmt: skip


def test_describe_prints_a_row_for_each_population_and_trains_nothing(run, tmp_path):
    code, said, err = run("demo", "--describe", "--limit", 6, "--seed", 2)
    assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert said.startswith("demo, untrained, seed 2; 6 clips of synthetic, ntu-25")
    rows = rows_of(said)
    populations = ("sgc", "qkv", "attention.m", "attention.z", "proj", "stc")
    assert list(rows) == ["ssc", "smf", *(f"block{i}_{p}" for i in range(1, 7) for p in populations), "readout"]
    for name, (_, _, _, passes, rate, _) in rows.items():
        assert passes == ("1" if name in ("ssc", "readout") else "4")
        assert rate == "–" if name == "readout" else 2 < float(rate.rstrip("%")) < 30  # as training finds it
    student = Student(StudentConfig("ntu-25", synthetic.CLASSES, **config.PRESETS["demo"]["student"]))
    macs = sum(int(row[2].replace(",", "")) * int(row[3]) for row in rows.values())
    fixed = sum(int((m.mask == 0).sum()) for m in student.modules() if hasattr(m, "mask"))  # off the skeleton's edges
    learnt = sum(p.numel() for p in student.parameters()) - fixed
    total = f"{learnt:,} parameters; {macs:,} MACs per body of a clip"
    assert said.splitlines()[-1] == total
    again = run("demo", "--describe", "--limit", 6, "--seed", 2)
    assert again[1] == said
    without = run("demo", "--describe", "--limit", 6, "--seed", 2, "--set", "student.attention=none")[1]
    assert set(rows_of(without)) == {name for name in rows if not any(p in name for p in ("qkv", "attention", "proj"))}


def test_describe_without_a_config_prints_every_preset(run, monkeypatch):
    tiny = {"student": {"frames": 4, "stream_channels": 2, "widths": [4], "heads": 2}}
    monkeypatch.setattr(config, "PRESETS", {"one": tiny, "two": {"student": {**tiny["student"], "attention": "none"}}})
    code, said, err = run("--describe", "--limit", 2)
    assert (code, err) == (0, "")
    assert [line.split(",")[0] for line in said.splitlines() if "untrained" in line] == ["one", "two"]
    assert said.count("MACs per body of a clip") == 2
    assert said.count("block1_qkv") == 1


def test_describe_prints_a_trained_model_on_the_test_part(run, tiny, tmp_path):
    run(tiny, "--out", tmp_path / "run", "--limit", 12)
    file = tmp_path / "run" / "model.pt"
    code, said, err = run(file, "--describe", "--limit", 5, "--seed", 7)
    assert (code, err) == (0, "")
    assert " ".join(said.split("┌")[0].split()).startswith(f"{file}, trained; 5 clips of synthetic, ntu-25")
    model = checkpoint.load(file)
    clips = synthetic.read(5, "test", seed=7).clips
    rows = describe.student_layers(model.student, torch.from_numpy(body_inputs(clips, model.normaliser)[0]))
    expected = cells_of(rows)
    assert rows_of(said) == expected
    for branch in (model.student.stc[0].conv, model.student.stc[0].skip):
        torch.nn.init.zeros_(branch.bn.weight)
        torch.nn.init.zeros_(branch.bn.bias)
    checkpoint.save(model, tmp_path / "dead.pt")
    said = run(tmp_path / "dead.pt", "--describe", "--limit", 5)[1]
    assert said.splitlines()[-1] == f"block1_stc: none of its {4 * 4 * 25} neurons can reach the threshold"


@pytest.mark.slow
def test_describe_prints_a_teacher(run, taught, tmp_path):
    code, said, err = run(taught, "--teacher", "--describe")
    assert (code, err) == (0, "")
    assert "the teacher of" in said
    torch.manual_seed(0)
    values = {"frames": 5, "widths": (2, 2, 2, 2, 3, 3, 3, 4, 4, 4), "kernel": 3}
    expected = describe.teacher_layers(Teacher(TeacherConfig("ntu-25", synthetic.CLASSES, **values)))
    assert rows_of(said) == cells_of(expected)
    assert list(rows_of(said)) == [*(f"layer{i}" for i in range(1, 11)), "readout"]
    run(taught, "--teacher", "--out", tmp_path / "run", "--limit", 4, "--epochs", 1)
    file = tmp_path / "run" / "teacher.pt"
    code, of_file, err = run(file, "--teacher", "--describe")
    assert (code, err) == (0, "")
    assert rows_of(of_file) == rows_of(said)
    assert_one_line(run(file, "--describe"), "schema is 'mksgn.teacher/1', expected 'mksgn.model/1'")


def test_describe_refuses_clips_of_another_skeleton(run, tmp_path):
    student = Student(StudentConfig("nw-ucla-20", ("a", "b"), frames=4, stream_channels=2, widths=(4,), heads=2))
    normaliser = StreamNormaliser("nw-ucla-20", 4, dict.fromkeys(STREAMS, 0.01))
    checkpoint.save(checkpoint.TrainedModel(student, normaliser), tmp_path / "model.pt")
    assert_one_line(run(tmp_path / "model.pt", "--describe"), "give clips of nw-ucla-20")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """The folder of a model that the command trained, once for all tests of this file."""
    out = tmp_path_factory.mktemp("trained")
    (out / "tiny.yaml").write_text(TINY + "learning_rate: 0.01\nrate_phase: 0.5\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mksgn-train", f"{out}/tiny.yaml", "--out", f"{out}/start", "--limit", "12"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert caught.value.code == 0
    return out / "start"


@pytest.fixture
def fine_tuned(start, tmp_path):
    """A copy of the model, to be trained on."""
    return Path(shutil.copytree(start, tmp_path / "start")) / "model.pt"


def test_a_model_is_trained_on_for_few_bits_with_its_own_settings(run, fine_tuned, tmp_path):
    code, said, err = run(fine_tuned, "--quantization-aware", 4, "--limit", 12, "--epochs", 1, "--out", tmp_path / "q")
    assert (code, err) == (0, "")
    assert said.startswith(f"training {fine_tuned}, quantised to 4 bits, on 12 clips of synthetic")
    model, settings = checkpoint.load(tmp_path / "q" / "model.pt"), json.loads((tmp_path / "q/config.json").read_text())
    assert model.quantization.bits == settings["quantization_aware"] == 4
    assert model.training["start"] == checkpoint.load(fine_tuned).training
    changed = {"epochs": 1, "learning_rate": 0.05 * 0.01, "rate_phase": 0.0, "quantization_aware": 4}
    before = json.loads((fine_tuned.parent / "config.json").read_text())
    assert settings == before | changed
    again = run(
        tmp_path / "q/model.pt", "--quantization-aware", 2, "--limit", 12, "--epochs", 1, "--out", tmp_path / "2"
    )
    assert (again[0], again[2]) == (0, "")  # from 4 bits to 2
    assert checkpoint.load(tmp_path / "2" / "model.pt").quantization.bits == 2
    rate = json.loads((tmp_path / "2/config.json").read_text())["learning_rate"]
    assert rate == pytest.approx(0.3 * 0.01)  # of the first training, not of the one for 4 bits


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MODEL"], "is already trained; continue training with --quantization-aware BITS"),
        (["demo", "--quantization-aware", 4], "--quantization-aware starts from a trained model, and CONFIG is demo"),
        (["absent.pt", "--quantization-aware", 4], "absent.pt: no such file; make one with mksgn-train --out DIR"),
        (["MODEL", "--quantization-aware", 9], "Invalid value for '--quantization-aware'"),
        (["MODEL", "--quantization-aware", 4, "--teacher"], "which has no spikes and is not quantised"),
        (
            ["MODEL", "--quantization-aware", 4, "--out", "start"],
            "--out start: holds the model that the training starts",
        ),
        (["MODEL", "--quantization-aware", 4, "--set", "rate_phase=0.5"], "set rate_phase=0 (now 0.5)"),
        (["MODEL", "--quantization-aware", 4, "--set", "precision=mixed"], "set precision=float32"),
        (
            ["MODEL", "--quantization-aware", 4, "--set", "student.heads=4"],
            "is already trained, its networks can't be changed",
        ),
        (["demo", "--set", "quantization_aware=4"], "give both or neither"),
    ],
)
def test_what_a_quantisation_aware_training_lacks_is_named(run, fine_tuned, arguments, said):
    arguments = [fine_tuned if argument == "MODEL" else argument for argument in arguments]
    code, _, err = run(*arguments, *(["--limit", 4] if "give both" in said else []))
    assert_one_line((code, "", err), said)
    assert checkpoint.load(fine_tuned).quantization is None


def test_without_a_config_the_model_s_preset_is_taken_or_asked_for(run, fine_tuned, tmp_path):
    (fine_tuned.parent / "config.json").unlink()
    code, _, err = run(fine_tuned, "--quantization-aware", 4, "--limit", 12, "--out", tmp_path / "q")
    assert_one_line((code, "", err), "how it was trained is not known; put its config.json next to it")
    settings = config.load_for_fine_tuning(fine_tuned, "demo", 4)
    assert (settings.preset, settings.epochs, settings.quantization_aware) == ("demo", config.FINE_TUNING_EPOCHS, 4)
    assert settings.learning_rate == pytest.approx(config.fine_tuning_rate(4) * 1e-2)
