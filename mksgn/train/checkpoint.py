"""model.pt and teacher.pt. They hold plain containers and tensors only, so that they load with
`weights_only=True`."""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as checked_dataclass

from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable
from mksgn.common.replacement import require_file
from mksgn.common.schemas import check_schema
from mksgn.common.validation import NO_OTHER_ENTRIES, Integer, Real, plain, raising_bad_input
from mksgn.common.writing import replacing_file
from mksgn.train import torch_file
from mksgn.train.choices import BITS, NO_MODEL
from mksgn.train.restored import check_like, check_plain, check_texts
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig

SCHEMA = "mksgn.model/1"
TEACHER_SCHEMA = "mksgn.teacher/1"

Network = TypeVar("Network", Student, Teacher)


@raising_bad_input("quantization")
@checked_dataclass(frozen=True, config=NO_OTHER_ENTRIES)
class Quantization:
    """How a student trained for quantisation is quantised.

    `bits` is the width of its weights, sign included. `scales` holds the integers per unit of the
    unquantised network, for each population and for the "readout". `exponents` holds the weight
    exponents, by weighted node of the exported graph; a node that is not listed has 0.
    """

    bits: Annotated[Integer, Field(ge=BITS[0], le=BITS[-1])]
    scales: dict[str, Annotated[Real, Field(gt=0)]]
    exponents: dict[str, Annotated[Integer, Field(ge=0, le=BITS[-1] - BITS[0])]] = field(default_factory=dict)

    def check(self, student: Student) -> None:
        """Raise BadInputError unless there is a scale for each population of this student."""
        if set(self.scales) != {*student.neurons(), "readout"}:
            raise BadInputError("quantization: its populations are not the student's")


@dataclass
class TrainedModel:
    """A student with what it needs to run on raw clips. `training` holds source, split, seed, epochs and
    accuracy. `quantization` is set after quantisation-aware training."""

    student: Student
    normaliser: StreamNormaliser
    training: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None  # the file that it was read from
    quantization: Quantization | None = None


@dataclass
class TrainedTeacher:
    """A teacher with what it needs to run on raw clips; `training` and `path` as for a student."""

    teacher: Teacher
    normaliser: StreamNormaliser
    training: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None


def tool_versions(*names: str) -> dict[str, str]:
    """Return the versions of Python and of each named package that is installed."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_atomically(values: dict[str, Any], path: Path) -> None:
    # an open file: given a path, torch writes its name into the archive, and the temporary name differs each time
    with replacing_file(path) as file:
        torch.save(values, file)


def save(model: TrainedModel, path: Path) -> None:
    quantization = {} if model.quantization is None else {"quantization": plain(model.quantization)}
    _save(SCHEMA, model.student, model.normaliser, model.training, path, **quantization)


def load(path: Path | str) -> TrainedModel:
    """Load a model.pt without running any code of the file.

    Raises:
        BadInputError: In one line, for a missing, truncated, foreign or hostile file.
    """
    path = Path(path)
    return _student(path, _read(path, SCHEMA))


def save_teacher(model: TrainedTeacher, path: Path) -> None:
    _save(TEACHER_SCHEMA, model.teacher, model.normaliser, model.training, path)


def load_teacher(path: Path) -> TrainedTeacher:
    """Load a teacher.pt; raises BadInputError as `load` does."""
    return _teacher(path, _read(path, TEACHER_SCHEMA))


def load_either(path: Path) -> TrainedModel | TrainedTeacher:
    """Load a teacher if the file holds one; otherwise act as `load`, whose error names the fault."""
    values = _read(path, SCHEMA)
    if isinstance(values, dict) and values.get("schema") == TEACHER_SCHEMA:
        return _teacher(path, values)
    return _student(path, values)


def _student(path: Path, values: Any) -> TrainedModel:
    built = _built(path, values, SCHEMA, lambda config: Student(StudentConfig(**config)))
    model = TrainedModel(*built, path=path)
    if "quantization" in values:
        try:
            model.quantization = Quantization(**values["quantization"])
            model.quantization.check(model.student)
        except Exception as error:  # a damaged entry raises almost any error
            raise _damaged(path, error) from error
    return model


def _teacher(path: Path, values: Any) -> TrainedTeacher:
    return TrainedTeacher(
        *_built(path, values, TEACHER_SCHEMA, lambda config: Teacher(TeacherConfig(**config))), path=path
    )


def _save(
    schema: str,
    network: Student | Teacher,
    normaliser: StreamNormaliser,
    training: dict,
    path: Path,
    **more: dict[str, Any],
) -> None:
    save_atomically(
        {
            "schema": schema,
            "config": network.config.to_dict(),
            "normaliser": normaliser.to_dict(),
            "state": network.state_dict(),
            "training": training,
            **more,
            "versions": tool_versions("mksgn", "torch", "numpy"),
        },
        path,
    )


MADE_BY = {SCHEMA: "a model.pt written by mksgn-train", TEACHER_SCHEMA: "a teacher.pt written by mksgn-train --teacher"}


def _read(path: Path, schema: str) -> Any:
    """Read a file of plain tensors; `schema`, the expected one, decides the remedy in errors."""
    require_file(path, NO_MODEL if schema == SCHEMA else "make one with mksgn-train --teacher --out DIR")
    return torch_file.read(path, f"use {MADE_BY[schema]}")


def _built(
    path: Path, values: Any, schema: str, build: Callable[[dict], Network]
) -> tuple[Network, StreamNormaliser, dict[str, Any]]:
    """Build the network in evaluation mode, its normaliser, and the facts of its training."""
    check_schema(path, values, schema, f"use {MADE_BY[schema]}")
    try:
        with torch.device("meta"):  # its tensors' shapes, without their values
            form = build(values["config"]).state_dict()
        check_like(values["state"], form, "state")
        network = build(values["config"])
        network.load_state_dict(values["state"])
        normaliser = StreamNormaliser.from_dict(values["normaliser"])
        training = values.get("training", {})
        check_training(training)
        check_plain(values.get("versions"), "versions")
    except Exception as error:  # a damaged config or state raises almost any error
        raise _damaged(path, error) from error
    own, of_normaliser = (network.config.graph, network.config.frames), (normaliser.graph, normaliser.frames)
    if own != of_normaliser:
        raise BadInputError(f"{path}: a normaliser of {of_normaliser} for a network of {own}; train it again")
    if normaliser.streams != network.config.streams:
        raise BadInputError(
            f"{path}: units of streams {normaliser.streams} for a network of {network.config.streams}; train it again"
        )
    return network.eval(), normaliser, training


def check_training(facts: Any) -> None:
    """Raise BadInputError unless the facts of a training are plain values, and the names among them are text."""
    check_plain(facts, "training")
    if not isinstance(facts, dict):
        raise BadInputError(f"training is of type {type(facts).__name__}, expected a dictionary")
    check_texts(facts, ("preset", "source", "split"), "training")


def _damaged(path: Path, error: Exception) -> BadInputError:
    reason = printable(first_line(error))[:160]
    return BadInputError(f"{path}: incomplete or damaged model ({reason}); train it again")
