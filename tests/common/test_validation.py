"""Values from a user's file: numbers as YAML gives them, and configs refused in one line."""

import pytest
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mksgn.common.errors import BadInputError
from mksgn.common.validation import NO_OTHER_ENTRIES, Integer, Real, one_line, raising_bad_input
from mksgn.train.config import TrainConfig, load
from mksgn.train.student import StudentConfig

INTEGER, REAL = TypeAdapter(Integer), TypeAdapter(Real)


@raising_bad_input("settings")
@dataclass(frozen=True, config=NO_OTHER_ENTRIES)
class Settings:
    steps: Integer = Field(default=4, ge=1)
    rate: Real = 0.5


def test_yaml_text_in_scientific_notation_is_a_number():
    """PyYAML reads 6e-3 as text; the presets' own spelling must work in a file."""
    assert REAL.validate_python("6e-3") == 0.006
    assert INTEGER.validate_python("4") == INTEGER.validate_python("4e0") == 4
    assert isinstance(INTEGER.validate_python(4.0), int)
    assert isinstance(REAL.validate_python(4), float)


@pytest.mark.parametrize("value", ["many", None, True, [1], float("nan"), float("inf"), "inf", 1.5])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ValidationError, match="Input should be"):
        INTEGER.validate_python(value)


@pytest.mark.parametrize("value", ["many", None, False, [1], float("nan"), float("inf"), "inf"])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValidationError, match="Input should be"):
        REAL.validate_python(value)


def test_a_fault_is_one_line_with_its_place_and_the_number_of_others():
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, list[Integer]]).validate_python({"a": [1, "x"], "b": 3})
    assert one_line(caught.value).startswith("a.1: Input should be a valid integer")
    assert one_line(caught.value).endswith(" (and 1 more)")
    assert one_line(caught.value, show_value=True).endswith(" (and 1 more); got 'x'")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"steps": 0}, "settings: steps: Input should be greater than or equal to 1; got 0"),
        ({"steps": 0, "tempo": 1, "beat": 2}, "settings: unknown entries beat, tempo"),
    ],
)
def test_a_config_is_refused_as_bad_input(entries, message):
    with pytest.raises(BadInputError) as caught:
        Settings(**entries)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: many", "epochs: .*; got 'many'"),
        ("epochs: 1.5", "epochs: .*; got 1.5"),
        ("batch: 0", "batch: .*; got 0"),
        ("student: 5", "student: .*; got 5"),
        ("scale: 1", "scale: .*; got 1"),
        ("scale: [1]", r"scale\.1: Field required"),
        ("scale: [1, 2, 3]", "scale: Tuple should have at most 2 items"),
        ("scale: [a, b]", r"scale\.0: .*; got 'a'"),
        ("learning_rate: -1", "learning_rate: .*; got -1"),
        ("label_smoothing: 2", "label_smoothing: .* 0.99; got 2"),
        ("crop: 2", "crop: .* less than or equal to 1; got 2"),
        ("warmup: 2", "warmup: .* less than or equal to 1; got 2"),
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
    with pytest.raises(BadInputError, match=f"student config: {next(iter(changes))}.*: Input should be .*; got "):
        StudentConfig("ntu-25", ("a", "b"), **changes)
