"""What to train and how: presets, YAML files, and what is refused in them."""

import json
import re

import pytest

from mksgn.common.errors import BadInputError
from mksgn.train.config import PRESETS, TrainConfig, load
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import TeacherConfig
from tests.support.refusals import refusal


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "settings.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return to_file


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_loads_and_builds_a_student(name):
    config = load(name)
    assert config.preset == name
    assert config.to_dict()["student"] == PRESETS[name]["student"]
    student = Student(StudentConfig(**{**config.student, "graph": "ntu-25", "classes": ["a", "b"]}))
    assert len(student.sgc) == len(student.stc) == 6
    assert student.fc.out_features == 2
    assert config.epochs >= 1


def test_presets_are_those_of_the_command_line():
    assert list(PRESETS) == ["demo", "small", "base", "frugal", "paper"]
    assert PRESETS["paper"]["student"]["widths"] == [64, 64, 128, 128, 256, 256]
    assert PRESETS["paper"]["student"]["heads"] == 8


def test_the_papers_preset_is_the_largest():
    sizes = {}
    for name, preset in PRESETS.items():
        config = StudentConfig(**{**preset["student"], "graph": "nw-ucla-20", "classes": ["a", "b"]})
        sizes[name] = sum(p.numel() for p in Student(config).parameters())
    assert max(sizes, key=sizes.__getitem__) == "paper"
    assert min(sizes, key=sizes.__getitem__) == "demo"


def test_a_yaml_file_has_the_entries_of_a_preset(write):
    config = load(
        write("epochs: 3\nbatch: 8\nlearning_rate: 0.01\nscale: [0.9, 1.1]\nstudent: {frames: 4, heads: 2}\n")
    )
    assert config == TrainConfig(
        epochs=3, batch=8, learning_rate=0.01, scale=(0.9, 1.1), student={"frames": 4, "heads": 2}
    )
    assert config.preset == "custom"
    assert isinstance(config.scale, tuple)


def test_what_a_yaml_file_leaves_out_is_the_default(write):
    assert load(write("epochs: 5\n")) == TrainConfig(epochs=5)
    assert load(write("")) == load(write("# nothing yet\n")) == TrainConfig()


def test_epochs_of_the_command_line_win(write):
    assert load("demo", epochs=2).epochs == 2
    assert load("demo", epochs=2).student == load("demo").student
    assert load(write("epochs: 5\n"), epochs=7).epochs == 7
    assert load("demo").epochs == PRESETS["demo"]["epochs"]


def test_loading_leaves_the_presets_alone(write):
    before = json.dumps(PRESETS)
    load("small", epochs=1)
    load(write("scale: [1, 2]\n"))
    assert json.dumps(PRESETS) == before


def test_a_config_can_be_written_as_json_and_read_as_yaml(write):
    config = load("small")
    assert load(write(json.dumps({**config.to_dict()}))) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\ncolour: red\ndepth: 2\n", "unknown entries colour, depth"),
        ("epochs: [3\n", "not YAML"),
        ("\tepochs: 3\n", "not YAML"),
        (b"\xff\xfe\x00epochs", "is not UTF-8"),
        ("[]\n", "expected a mapping of entries such as epochs: 40"),
        ("epochs: 3\nepochs: 4\n", "line 2, column 1: key 'epochs' is given twice"),
        ("- epochs\n- batch\n", "expected a mapping of entries such as epochs: 40"),
        ("forty\n", "expected a mapping of entries such as epochs: 40"),
        ("epochs: 0\n", "epochs: Input should be greater than or equal to 1; got 0"),
        ("batch: -4\n", "batch: Input should be greater than or equal to 1; got -4"),
        ("!!python/object/apply:os.getcwd []\n", "not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line(write, text, message):
    with pytest.raises(BadInputError, match=message) as caught:
        load(write(text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\ncolour: red\n", r"settings\.yaml"),
        ("epochs: [3\n", r"settings\.yaml"),
        ("forty\n", r"settings\.yaml"),
        ("epochs: 0\n", r"settings\.yaml"),
    ],
)
def test_the_file_is_named(write, text, message):
    with pytest.raises(BadInputError, match=message):
        load(write(text))


def test_neither_a_preset_nor_a_file(tmp_path):
    with pytest.raises(
        BadInputError, match=r"config huge: neither a preset \(demo, small, base, frugal, paper\) nor a YAML file"
    ):
        load("huge")
    for absent in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(BadInputError, match=re.escape(f"{absent}: neither a preset")):
            load(str(absent))


def test_epochs_of_the_command_line_are_checked_too():
    with pytest.raises(BadInputError, match="epochs: Input should be greater than or equal to 1; got 0"):
        load("demo", epochs=0)


# changes of the command line


def test_changes_are_yaml_and_win_over_the_preset(write):
    before = json.dumps(PRESETS)
    changes = ["batch=16", "learning_rate=6e-3", "scale=[0.9, 1.1]", "student.attention=none", "teacher.kernel=7"]
    config = load("demo", changes=changes)
    assert (config.batch, config.learning_rate, config.scale) == (16, 0.006, (0.9, 1.1))
    assert config.student == {**PRESETS["demo"]["student"], "attention": "none"}
    assert config.teacher == {**PRESETS["demo"]["teacher"], "kernel": 7}
    assert config.preset == "demo"
    rest = {"batch", "learning_rate", "scale", "student", "teacher"}
    default = load("demo").to_dict()
    assert all(value == default[name] for name, value in config.to_dict().items() if name not in rest)
    assert json.dumps(PRESETS) == before


def test_changes_win_over_a_file_and_epochs_over_changes(write):
    file = write("epochs: 5\nbatch: 8\nstudent: {frames: 4, heads: 2}\n")
    config = load(file, changes=["epochs=6", "student.heads=4", "milestones=[0.5]", "student.streams=[joint, bone]"])
    assert config == TrainConfig(
        epochs=6, batch=8, milestones=(0.5,), student={"frames": 4, "heads": 4, "streams": ["joint", "bone"]}
    )
    assert load(file, epochs=2, changes=["epochs=6"]).epochs == 2
    assert load(file, changes=["batch=1", "batch=2"]).batch == 2  # the last one
    assert load(write("epochs: 5\n"), changes=["student.heads=4"]).student == {"heads": 4}
    assert load(write("student:\n"), changes=["student.heads=4"]).student == {"heads": 4}


def test_a_value_may_hold_an_equals_sign():
    with pytest.raises(BadInputError, match="optimizer: Input should be 'adamw' or 'sgd'; got 'a=b'"):
        load("demo", changes=["optimizer=a=b"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch", "--set batch: expected KEY=VALUE, such as batch=16 or student.attention=none"),
        ("", "--set : expected KEY=VALUE"),
        ("preset=paper", "--set preset=paper: expected KEY=VALUE"),
        ("student={heads: 2}", r"--set student=\{heads: 2\}: expected KEY=VALUE"),
        ("teacher={}", r"--set teacher=\{\}: expected KEY=VALUE"),
        ("scale.low=1", r"--set scale\.low=1: expected KEY=VALUE"),
        ("batch=[3", r"--set batch=\[3: not YAML \(line "),
        ("colour=red", "^demo: config: unknown entries colour"),
        ("batch=", "config: batch: Input should be a valid integer; got None"),
        ("batch=0", "config: batch: Input should be greater than or equal to 1; got 0"),
        ("batch=true", "config: batch: Input should be a number; got True"),
    ],
)
def test_a_change_that_is_none_is_refused_in_one_line(change, message):
    with pytest.raises(BadInputError, match=message) as caught:
        load("demo", changes=[change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("optimizer", "adam", "optimizer: Input should be 'adamw' or 'sgd'; got 'adam'"),
        ("schedule", "linear", "schedule: Input should be 'cosine' or 'step'; got 'linear'"),
        ("precision", "float16", "precision: Input should be 'float32' or 'mixed'; got 'float16'"),
        ("precision", 32, "precision: Input should be 'float32' or 'mixed'; got 32"),
        ("milestones", 0.6, r"milestones: Input should be a valid tuple; got 0\.6"),
        ("milestones", [0.6, 1.5], r"milestones\.1: Input should be less than or equal to 1; got 1\.5"),
        ("milestones", [-0.1], r"milestones\.0: Input should be greater than or equal to 0; got -0\.1"),
        ("milestones", ["late"], r"milestones\.0: Input should be a valid number, .*; got 'late'"),
        ("soft_label_weight", -1, "soft_label_weight: Input should be greater than or equal to 0; got -1"),
        ("feature_weight", "much", "feature_weight: Input should be a valid number, .*; got 'much'"),
        ("rate_weight", float("inf"), "rate_weight: Input should be a finite number; got inf"),
        ("rate_weight", float("nan"), "rate_weight: Input should be a finite number; got nan"),
        ("temperature", 0, r"temperature: Input should be greater than or equal to 0\.001; got 0"),
        ("temperature", 1e4, "temperature: Input should be less than or equal to 1000; got 10000"),
        ("teacher", [64], "teacher: Input should be a valid dictionary"),
        ("student", "small", "student: Input should be a valid dictionary; got 'small'"),
    ],
)
def test_entries_of_optimizer_and_distillation_are_checked(entry, value, message):
    with pytest.raises(BadInputError, match="^config: " + message) as caught:
        TrainConfig(**{entry: value})
    assert "\n" not in str(caught.value)


def test_the_defaults_of_the_distillation_are_the_page_s():
    config = TrainConfig()
    assert config.temperature == 4.0
    assert config.soft_label_weight > 0
    assert config.feature_weight > 0
    assert config.rate_weight == 0.0  # energy is steered only where asked for
    assert config.precision == "float32"
    assert config.clip_gradient == 3.0


def test_the_new_entries_survive_json(write):
    given = {
        "optimizer": "sgd", "schedule": "step", "milestones": [0.4, 0.7], "precision": "mixed",
        "soft_label_weight": 2.0,
        "feature_weight": 0.5, "temperature": 3.0, "rate_weight": 0.1, "teacher": {"kernel": 5},
    }  # fmt: skip
    config = load(write(json.dumps(given)))
    values = json.loads(json.dumps(config.to_dict()))
    assert {name: values[name] for name in given} == given
    assert load(write(json.dumps(values))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_a_teacher(name):
    config = TeacherConfig(**{**load(name).teacher, "graph": "ntu-25", "classes": ["a", "b"]})
    assert config.frames == (16 if name in ("base", "frugal") else PRESETS[name]["student"]["frames"])
    assert [i for i, stride in enumerate(config.strides) if stride == 2] == [4, 7]


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("frames", 10**12, "frames: Input should be less than or equal to 4096"),
        ("frames", "9" * 400, "frames"),
        ("widths", [10**9], "widths.0: Input should be less than or equal to 4096"),
        ("widths", [8] * 65, "at most 64"),
        ("widths", [4096] * 64, "weights, the limit is 268,435,456; use fewer or smaller widths"),
        ("heads", 10**9, "heads"),
        ("kernel", 10**9 + 1, "kernel"),
        ("steps", 10**9, "steps: Input should be less than or equal to 1024"),
        ("stream_channels", 10**9, "stream_channels"),
        ("tau", 1e300, "tau"),
        ("classes", ["x"] * 10_001, "classes"),
    ],
)
def test_sizes_beyond_a_bound_are_refused_before_anything_is_built(entry, value, message):
    values = {"graph": "ntu-25", "classes": ["a", "b"], "attention": "none", entry: value}
    assert message in refusal(lambda: StudentConfig(**values))


def test_a_body_that_would_not_fit_is_refused():
    values = {"graph": "ntu-25", "classes": ["a", "b"], "frames": 4096, "steps": 1024, "widths": (64,)}
    assert "decisions of a layer for one body, the limit is 1,073,741,824" in refusal(lambda: StudentConfig(**values))


def test_a_teacher_that_would_not_fit_is_refused():
    values = {"graph": "ntu-25", "classes": ["a", "b"], "widths": (4096,) * 10}
    assert "weights, the limit is" in refusal(lambda: TeacherConfig(**values))


@pytest.mark.parametrize("change", ["epochs=100000", "batch=1000000000", "epochs=1e300"])
def test_trainings_without_end_are_refused(change):
    refusal(lambda: load("demo", changes=[change]))
