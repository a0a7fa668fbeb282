"""docs/compatibility.md: which schema is read, which is refused by name, and that none changes unnoticed.

tests/data/schemas has a file of each schema, by name and number; what follows the number says of which version it is.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from mksgn.bench.chip_counts import counts
from mksgn.bench.claims import ClaimsFile
from mksgn.bench.energy_models import ModelsFile
from mksgn.bench.manifest import Manifest, load_manifest
from mksgn.bench.progress import Progress
from mksgn.bench.record import Record
from mksgn.bench.record_io import load
from mksgn.bench.sweep import grid
from mksgn.bench.timing_models import ModelsFile as TimingFile
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import read_yaml
from mksgn.deploy.placement.chip_file import ChipsFile
from mksgn.deploy.run_folder import UNSEALED, _seal
from mksgn.export.graph import files
from mksgn.train.checkpoint import load as load_model
from mksgn.train.checkpoint import load_teacher
from mksgn.train.student import StudentConfig
from mksgn.train.teacher import TeacherConfig
from tests.support.refusals import refusal

FOLDER = Path(__file__).parent / "data" / "schemas"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "hashes.json")
PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"


def manifest_in(path: Path) -> Manifest:
    return load_manifest(path.parent)


READERS: dict[str, Callable[[Path], object]] = {
    "chip_counts": counts.read,
    "chips": lambda path: read_yaml(path, ChipsFile),
    "claims": lambda path: read_yaml(path, ClaimsFile),
    "energy_models": lambda path: read_yaml(path, ModelsFile),
    "manifest": manifest_in,
    "model": load_model,
    "nir": files.read,
    "progress": Progress.load,
    "run": load,
    "sweep": grid.read,
    "teacher": load_teacher,
    "timing_models": lambda path: read_yaml(path, TimingFile),
}
REFUSED = {("progress", "1"), ("progress", "2"), ("progress", "3")}  # the table's last column


def parts_of(path: Path) -> tuple[str, str]:
    """Name and number of a file's schema."""
    match = re.match(r"([a-z_]+)-(\d+)", path.name)
    assert match, path
    return match[1], match[2]


def as_named(path: Path, folder: Path) -> Path:
    """Copy a file to the name that its reader expects."""
    name = "manifest.json" if path.name.startswith("manifest") else path.name
    return Path(shutil.copy(path, folder / name))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_of_every_schema_is_read_or_refused_by_name(path, tmp_path):
    name, number = parts_of(path)
    copy = as_named(path, tmp_path)
    if (name, number) in REFUSED:
        said = rf"schema is 'mksgn\.{name}/{number}', this version reads 'mksgn\.{name}/\d+'; ."
        assert re.search(said, refusal(lambda: READERS[name](copy)))
    else:
        READERS[name](copy)


def with_schema(path: Path, schema: str) -> None:
    """Write another schema into a file, which stays as it is otherwise."""
    if path.suffix == ".pt":
        torch.save({**torch.load(path, weights_only=True), "schema": schema}, path)
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "schema": schema}))
    else:
        content = {**json.loads(path.read_text()), "schema": schema}
        if "sha256" in content:  # a manifest's seal
            draft = json.dumps({**content, "sha256": UNSEALED})
            path.write_text(draft.replace(UNSEALED, _seal(draft), 1))
        else:
            path.write_text(json.dumps(content))


@pytest.mark.parametrize("number", [2, 10])
@pytest.mark.parametrize("name", sorted({*READERS} - {"nir", "progress"}))
def test_an_unknown_newer_schema_is_refused_by_name_with_a_remedy(name, number, tmp_path):
    path = as_named(next(path for path in FILES if parts_of(path)[0] == name), tmp_path)
    with_schema(path, f"mksgn.{name}/1")
    READERS[name](path)  # it is the schema that makes the difference
    with_schema(path, f"mksgn.{name}/{number}")
    message = refusal(lambda: READERS[name](path))
    assert f"schema is 'mksgn.{name}/{number}'" in message
    assert f"'mksgn.{name}/1'; " in message
    assert message.endswith("; it was written by a newer mksgn: install that")


def test_an_older_schema_is_not_taken_for_a_newer_one(tmp_path):
    path = as_named(FOLDER / "run-1.json", tmp_path)
    for schema in ("mksgn.run/0", "mksgn.sweep/2", "mksgn.run/", "mksgn.run/²", "2", "", 7, None, ["mksgn.run/2"]):
        with_schema(path, schema)
        assert re.search(r"(reads|expected) 'mksgn\.run/1'; run the benchmark again$", refusal(lambda: load(path)))


SCHEMAS: dict[str, Any] = {
    "mksgn.chip_counts/1": counts.ChipCounts,
    "mksgn.chips/1": ChipsFile,
    "mksgn.claims/1": ClaimsFile,
    "mksgn.energy_models/1": ModelsFile,
    "mksgn.manifest/1": Manifest,
    "mksgn.model/1": StudentConfig,
    "mksgn.run/1": Record,
    "mksgn.sweep/1": grid.Grid,
    "mksgn.teacher/1": TeacherConfig,
    "mksgn.timing_models/1": TimingFile,
}


NO_FORM = {"title", "description", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
NO_FORM |= {"minItems", "maxItems", "minLength", "maxLength", "pattern"}


def fields_of(schema: Any) -> Any:
    """A JSON Schema without its prose and the ranges of its numbers; a field may have one of these names."""
    if isinstance(schema, dict):
        return {
            key: fields_of(value)
            for key, value in schema.items()
            if key not in NO_FORM or isinstance(value, dict | list)
        }
    return [fields_of(value) for value in schema] if isinstance(schema, list) else schema


def hash_of(kind: Any) -> str:
    text = json.dumps(fields_of(TypeAdapter(kind).json_schema(by_alias=True)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_schema_changes_with_its_number(schema):
    """Read docs/compatibility.md, "How it is held", before you change a hash."""
    assert json.loads((FOLDER / "hashes.json").read_text())[schema] == hash_of(SCHEMAS[schema])


def test_a_field_more_or_of_another_type_changes_the_hash():
    class Wider(Record):
        more: int | None = None

    class Other(Record):
        seed: str | None  # type: ignore[assignment]

    class Described(Record):
        """Prose."""

        seed: int | None
        """More prose."""

    assert len({hash_of(Record), hash_of(Wider), hash_of(Other)}) == 3
    assert hash_of(Described) == hash_of(Record)


def test_the_page_lists_every_schema_that_a_file_of_the_package_states():
    stated = set()
    for path in (Path(files.__file__).parents[2]).rglob("*.py"):
        stated |= set(re.findall(r'"(mksgn\.[a-z_-]+/\d+)"', path.read_text(encoding="utf-8")))
    listed = set(re.findall(r"`(mksgn\.[a-z_-]+/\d+)`", PAGE.read_text(encoding="utf-8")))
    assert stated - listed == set()
    assert listed - stated <= {"mksgn.run/2"}


def test_every_schema_that_is_read_has_a_file():
    assert {parts_of(path)[0] for path in FILES} == set(READERS)


def test_a_refusal_is_bad_input():
    with pytest.raises(BadInputError):
        Progress.load(FOLDER / "progress-1.npz")
