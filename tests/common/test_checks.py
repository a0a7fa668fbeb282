"""Numbers from a user's file: taken as they are meant, refused in one line."""

import pytest

from mksgn.common.checks import number
from mksgn.common.errors import BadInputError
from mksgn.train.config import TrainConfig, load
from mksgn.train.student import StudentConfig


def test_yaml_text_in_scientific_notation_is_a_number():
    """PyYAML reads 6e-3 as text; the presets' own spelling must work in a file."""
    assert number("x", "6e-3", 0, 1) == 0.006
    assert number("x", "4", 1, whole=True) == 4
    assert isinstance(number("x", 4.0, 1, whole=True), int)


@pytest.mark.parametrize("value", ["many", None, True, [1], float("nan"), float("inf"), "inf", -1, 1.5])
def test_what_is_no_whole_number_in_range_is_named(value):
    with pytest.raises(BadInputError, match=r"epochs is .*; it must be a whole number of at least 1"):
        number("epochs", value, 1, whole=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: many", "epochs is 'many'"),
        ("epochs: 1.5", "epochs is 1.5"),
        ("batch: 0", "batch is 0"),
        ("student: 5", "student is 5"),
        ("scale: 1", "scale is 1"),
        ("scale: [1]", "two numbers"),
        ("scale: [a, b]", "scale is 'a'"),
        ("learning_rate: -1", "learning_rate is -1"),
        ("label_smoothing: 2", "label_smoothing is 2"),
        ("crop: 2", "from 0 to 1"),
        ("warmup: 2", "from 0 to 1"),
        ("3: 4", "unknown entries 3"),
    ],
)
def test_a_config_file_with_a_bad_entry(tmp_path, line, message):
    (tmp_path / "c.yaml").write_text(line + "\n")
    with pytest.raises(BadInputError, match=message) as caught:
        load(str(tmp_path / "c.yaml"))
    assert "\n" not in str(caught.value)


def test_a_config_file_with_good_entries(tmp_path):
    (tmp_path / "c.yaml").write_text("learning_rate: 6e-3\nscale: [0.9, 1.1]\nstudent: {frames: 8}\n")
    config = load(str(tmp_path / "c.yaml"))
    assert (config.learning_rate, config.scale, config.student) == (0.006, (0.9, 1.1), {"frames": 8})
    assert TrainConfig(**{**config.to_dict(), "preset": "x"}).scale == (0.9, 1.1)


@pytest.mark.parametrize(
    "changes",
    [{"widths": [0]}, {"widths": [-4]}, {"widths": 16}, {"tau": 0}, {"tau": -1}, {"frames": 1.5}, {"heads": "two"}],
)
def test_a_student_that_cannot_be_built(changes):
    with pytest.raises(BadInputError, match=f"{next(iter(changes)).rstrip('s')}.* is .*; it must be"):
        StudentConfig("ntu-25", ("a", "b"), **changes)
