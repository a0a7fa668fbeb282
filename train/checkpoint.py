"""model.pt: plain containers and tensors only, so that it loads with `weights_only=True`."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mksgn.train.errors import BadInputError
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig

SCHEMA = "mksgn.model/1"


@dataclass
class TrainedModel:
    """A student with all that is needed to run it on raw clips. `training` tells source, split, seed, epochs, accuracy."""

    student: Student
    normaliser: StreamNormaliser
    training: dict[str, Any] = field(default_factory=dict)


def tool_versions(*names: str) -> dict[str, str]:
    """Versions of the tools that made a file: Python and the packages named, those that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def save_atomically(values: dict[str, Any], path: Path) -> None:
    """A file that is killed while it is written is never seen under its name."""
    temporary = path.with_name(path.name + ".part")
    torch.save(values, temporary)
    os.replace(temporary, path)


def save(model: TrainedModel, path: Path) -> None:
    save_atomically(
        {
            "schema": SCHEMA,
            "config": model.student.config.to_dict(),
            "normaliser": model.normaliser.to_dict(),
            "state": model.student.state_dict(),
            "training": model.training,
            "versions": tool_versions("mksgn", "torch", "numpy"),
        },
        path,
    )


def load(path: Path) -> TrainedModel:
    """Raises BadInputError, in one line, for a missing, truncated, foreign or hostile file; no code of the file is ever run."""
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; make one with mksgn-train --out DIR")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, runtime and EOF errors alike
        # torch's own text advises to load with weights_only=False: only what it found is passed on
        refusal = re.search(r"WeightsUnpickler error: (.*)", str(error))
        reason = (refusal.group(1) if refusal else str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise BadInputError(
            f"{path}: refused: not a file of plain tensors that loads with weights_only=True ({reason}); "
            "use a model.pt written by mksgn-train"
        ) from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise BadInputError(f"{path}: schema is {found!r}, expected {SCHEMA!r}; use a model.pt written by mksgn-train")
    try:
        student = Student(StudentConfig.from_dict(values["config"]))
        student.load_state_dict(values["state"])
        normaliser = StreamNormaliser.from_dict(values["normaliser"])
    except Exception as error:  # whatever the damage makes of a config or of a state
        raise BadInputError(
            f"{path}: incomplete or damaged model ({str(error).splitlines()[0][:160]}); train it again"
        ) from error
    return TrainedModel(student.eval(), normaliser, values.get("training", {}))
