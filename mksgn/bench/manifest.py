"""manifest.json of a run, as far as the bench reads it again: which clips, which predictions, which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from mksgn.bench.record import RUN_FILE, ModelFile
from mksgn.bench.schemas import LenientModel, Name, Sha256
from mksgn.common.errors import BadInputError
from mksgn.common.validation import one_line
from mksgn.deploy.run_folder import MANIFEST_FILE, SPIKES_FILE, read_manifest
from mksgn.train.checkpoint import sha256

VOUCHED = (RUN_FILE, SPIKES_FILE)  # a manifest that does not name these vouches for nothing


class ManifestData(LenientModel):
    source: str
    split: str | None = None
    clips: list[str]
    digests: list[str] = Field(default_factory=list)
    labels: list[int] | None = None
    classes: list[str] | None = None
    seed: int | None = None


class Manifest(LenientModel):
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
        for what, found in (("predictions", self.predictions), ("labels", self.data.labels)):
            if found is not None and len(found) != clips:
                raise ValueError(f"{len(found)} {what} for {clips} clips")
        return self


def verified(folder: Path) -> Manifest | None:
    """The manifest of a folder, with record and spikes as it vouches for them; None where there is none: the run is not finished."""
    if not (folder / MANIFEST_FILE).is_file():
        return None
    manifest = load_manifest(folder)
    for name in VOUCHED:
        if not (folder / name).is_file() or sha256(folder / name) != manifest.files.get(name):
            raise BadInputError(f"{folder / name}: changed since the run; see mksgn-bench check {folder}")
    return manifest


def load_manifest(folder: Path) -> Manifest:
    """manifest.json of a run's folder, its seal verified. Raises BadInputError in one line."""
    try:
        return Manifest.model_validate(read_manifest(folder))
    except ValidationError as error:
        raise BadInputError(f"{folder / MANIFEST_FILE}: {one_line(error)}") from error
