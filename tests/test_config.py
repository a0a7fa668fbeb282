"""What to train and how: presets, YAML files, and what is refused in them."""

import json
import re

import pytest

from mksgn.train.config import PRESETS, TrainConfig, load
from mksgn.train.errors import BadInputError
from mksgn.train.student import Student, StudentConfig


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
    student = Student(StudentConfig.from_dict({**config.student, "graph": "ntu-25", "classes": ["a", "b"]}))
    assert len(student.sgc) == len(student.stc) == 6
    assert student.fc.out_features == 2
    assert config.epochs >= 1


def test_presets_are_those_of_the_command_line():
    assert list(PRESETS) == ["demo", "small", "paper"]
    assert PRESETS["paper"]["student"]["widths"] == [64, 64, 128, 128, 256, 256]
    assert PRESETS["paper"]["student"]["heads"] == 8


def test_the_papers_preset_is_the_largest():
    sizes = []
    for preset in PRESETS.values():
        config = StudentConfig.from_dict({**preset["student"], "graph": "nw-ucla-20", "classes": ["a", "b"]})
        sizes.append(sum(p.numel() for p in Student(config).parameters()))
    assert sizes == sorted(sizes)


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
        ("epochs: [3\n", "no valid YAML"),
        ("\tepochs: 3\n", "no valid YAML"),
        (b"\xff\xfe\x00epochs", "no valid YAML"),
        ("- epochs\n- batch\n", "expected a mapping of entries such as epochs: 40"),
        ("forty\n", "expected a mapping of entries such as epochs: 40"),
        ("epochs: 0\n", "epochs is 0; it must be a whole number of at least 1"),
        ("batch: -4\n", "batch is -4; it must be a whole number of at least 1"),
        ("!!python/object/apply:os.getcwd []\n", "no valid YAML"),
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
    ],
)
def test_the_file_is_named(write, text, message):
    with pytest.raises(BadInputError, match=message):
        load(write(text))


def test_neither_a_preset_nor_a_file(tmp_path):
    with pytest.raises(BadInputError, match=r"config huge: neither a preset \(demo, small, paper\) nor a YAML file"):
        load("huge")
    for absent in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(BadInputError, match=re.escape(f"{absent}: neither a preset")):
            load(str(absent))


def test_epochs_of_the_command_line_are_checked_too():
    with pytest.raises(BadInputError, match="epochs is 0"):
        load("demo", epochs=0)
