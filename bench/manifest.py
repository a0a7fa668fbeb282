"""manifest.json of a run, as far as the bench reads it again: which clips, which predictions, which files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mksgn.bench.record import RUN_FILE, ModelFile, Name, Sha256, one_line
from mksgn.deploy.record import MANIFEST_FILE, SPIKES_FILE, read_manifest
from mksgn.train.errors import BadInputError

VOUCHED = (RUN_FILE, SPIKES_FILE)  # a manifest that does not name these vouches for nothing


class Stated(BaseModel):
    """A part of manifest.json: what is read here; what else is there is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ManifestData(Stated):
    source: str
    split: str | None = None
    clips: list[str]
    labels: list[int] | None = None
    classes: list[str] | None = None
    seed: int | None = None


class Manifest(Stated):
    schema_id: str = Field(alias="schema")
    model: ModelFile
    parents: list[Sha256]
    data: ManifestData
    execution: dict[str, Any]
    environment: dict[str, str] = {}
    predictions: list[int]
    files: dict[Name, Sha256]


def load_manifest(folder: Path) -> Manifest:
    """manifest.json of a run's folder, its seal verified. Raises BadInputError in one line."""
    try:
        return Manifest.model_validate(read_manifest(folder))
    except ValidationError as error:
        raise BadInputError(f"{folder / MANIFEST_FILE}: {one_line(error)}") from error
