"""The parts of a run's manifest.json that the bench reads: clips, predictions, and the hashes of the files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from mksgn.bench.record import ModelFile
from mksgn.bench.run_files import RUN_FILE
from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted
from mksgn.common.schemas import LenientModel, Name, Sha256
from mksgn.common.validation import one_line
from mksgn.common.words import counted
from mksgn.deploy.run_files import MANIFEST_FILE, SPIKES_FILE
from mksgn.deploy.run_folder import read_manifest
from mksgn.train.checkpoint import sha256

VOUCHED = (RUN_FILE, SPIKES_FILE)  # files that every manifest must list


class ManifestData(LenientModel):
    """The clips of a run, in order."""

    source: str
    split: str | None = None
    graph: str | None = None
    clips: list[str]
    digests: list[str] = Field(default_factory=list)
    labels: list[int] | None = None
    classes: list[str] | None = None
    seed: int | None = None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | None) -> list[str] | None:
        # accuracy is stored by class name
        for name, times in Counter(classes or ()).items():
            if times > 1:
                raise ValueError(f"class {quoted(name)} is named twice")
        return classes


class Manifest(LenientModel):
    """What a finished run states about its inputs and its files. `run` is the identity for --resume."""

    schema_id: str = Field(alias="schema")
    model: ModelFile
    parents: list[Sha256]
    data: ManifestData
    run: dict[str, Any] = Field(default_factory=dict)
    execution: dict[str, Any]
    environment: dict[str, str] = Field(default_factory=dict)
    predictions: list[int]
    files: dict[Name, Sha256]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        clips = len(self.data.clips)
        for name, values in (("predictions", self.predictions), ("labels", self.data.labels)):
            if values is not None and len(values) != clips:
                raise ValueError(f"{len(values)} {name} for {counted(clips, 'clip')}")
        return self


def verified(folder: Path) -> Manifest | None:
    """Read the manifest of a finished run and check the hashes of its record and spikes.

    Returns:
        The manifest; None if there is none, which means that the run is not finished.

    Raises:
        BadInputError: The manifest is invalid, or a file was changed since the run.
    """
    if not (folder / MANIFEST_FILE).is_file():
        return None
    manifest = load_manifest(folder)
    for name in VOUCHED:
        if not (folder / name).is_file() or sha256(folder / name) != manifest.files.get(name):
            raise BadInputError(f"{folder / name}: changed since the run; see mksgn-bench check {folder}")
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """Read manifest.json of a run's folder and verify its seal. Raises BadInputError in one line."""
    try:
        return Manifest.model_validate(read_manifest(folder))
    except ValidationError as error:
        raise BadInputError(f"{folder / MANIFEST_FILE}: {one_line(error)}") from error
