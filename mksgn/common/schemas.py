"""What the file formats of all stages share: base models, reading YAML, JSON Schemas, faults in one line."""

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from mksgn.common import yaml_text
from mksgn.common.errors import BadInputError
from mksgn.common.quoting import printable, quoted
from mksgn.common.validation import one_line

LARGEST = 1e100  # no quantity of a file is near it or its inverse; products and quotients of three stay floats


def _at_most(value: float) -> float:
    if value > LARGEST:
        raise ValueError(f"{value} exceeds {LARGEST:g}, the upper limit for computing energies and times")
    return value


def _at_least(value: float) -> float:
    if value < 1 / LARGEST:
        raise ValueError(f"{value} is below {1 / LARGEST:g}, the lower limit for computing energies and times")
    return value


Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0), AfterValidator(_at_most)]
Positive = Annotated[float, Field(gt=0), AfterValidator(_at_most), AfterValidator(_at_least)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, StringConstraints(min_length=1)]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Evidence = Literal["measured", "simulated", "derived", "declared", "unstated"]  # declared: without a method


class StrictModel(BaseModel):
    """Base of every file that a stage defines: immutable, no unknown fields, no NaN or infinity.

    The docstring under a field becomes its description in the JSON Schema.
    """

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )


class LenientModel(BaseModel):
    """Base of what is read from another stage's file: immutable, unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Named(Protocol):
    @property
    def name(self) -> str: ...


File = TypeVar("File", bound=BaseModel)
Entry = TypeVar("Entry", bound=Named)


def read_yaml(path: Path, kind: type[File]) -> File:
    """Read a YAML file into its pydantic model.

    Raises:
        BadInputError: The file cannot be read or does not fit the model. The message is one line:
            file, name of the entry, field, fault and value.
    """
    content, expected = yaml_text.read(path), ""
    if "schema_id" in kind.model_fields:
        (expected,) = get_args(kind.model_fields["schema_id"].annotation)
        if isinstance(content, dict) and isinstance(content.get("schema"), str):
            check_schema(path, content, expected, "name a file of that schema")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        of_the_whole = expected and len(error.errors(include_url=False, include_context=False)[0]["loc"]) <= 1
        form = f"; docs/formats.md links to an example of {expected}" if of_the_whole else ""
        raise BadInputError(f"{path}: {_fault(content, error)}{form}") from error


def check_schema(place: object, content: Any, expected: str, remedy: str) -> None:
    """Raise BadInputError unless a file's content states the schema that this version reads.

    Args:
        place: The file.
        content: What it holds, with its schema under "schema".
        expected: Such as "mksgn.run/1".
        remedy: What to do with a file of an earlier or foreign schema; a later one needs a later mksgn.
    """
    found = content.get("schema") if isinstance(content, dict) else None
    if found == expected:
        return
    family, _, number = expected.partition("/")
    start, _, given = found.partition("/") if isinstance(found, str) else ("", "", "")
    newer = start == family and given.isascii() and given.isdigit() and (len(given), given) > (len(number), number)
    remedy = "it was written by a newer mksgn: install that" if newer else remedy
    wanted = "expected" if start.startswith("mksgn.") and start != family else "this version reads"
    raise BadInputError(f"{place}: schema is {quoted(found)}, {wanted} {expected!r}; {remedy}")


def _fault(content: Any, error: ValidationError) -> str:
    """Return the first fault, with the name of the entry that contains it and the value given there."""
    first = error.errors(include_url=False, include_context=False)[0]
    location = first["loc"]
    try:
        named = content[location[0]][location[1]]["name"]
    except (TypeError, KeyError, IndexError):  # a fault of the whole file, or an entry without a name
        named = None
    name = f"{printable(named)[:120]}: " if isinstance(named, str) else ""
    return name + one_line(error, show_value=True)


def each_of(keys: Collection[str]) -> AfterValidator:
    """Return a validator that a dict has all of `keys`, which its type names but does not require."""

    def check(values: dict[str, Any]) -> dict[str, Any]:
        if missing := [key for key in keys if key not in values]:
            raise ValueError(f"Input should have {', '.join(keys)}; {missing[0]} is missing")
        return values

    return AfterValidator(check)


def unique(entries: Iterable[tuple[Path, Entry]], what: str) -> list[Entry]:
    """List the entries of several files, given with the file of each.

    Raises:
        BadInputError: Two entries have the same name.
    """
    by_name: dict[str, Entry] = {}
    for path, entry in entries:
        if entry.name in by_name:
            raise BadInputError(f"{path}: {what} named {entry.name!r} exists already; choose another name")
        by_name[entry.name] = entry
    return list(by_name.values())


def json_schema_of(kind: type[BaseModel], title: str, mode: Literal["validation", "serialization"]) -> str:
    """Return the JSON Schema of a file as text.

    Args:
        kind: Model of the whole file.
        title: Name of the schema with its version.
        mode: `validation` for a file that a person writes, where fields with a default are
            optional; `serialization` for a file that a command writes, where every field is
            present, if only as null.
    """
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **kind.model_json_schema(by_alias=True, mode=mode),
        "title": title,
    }
    return json.dumps(schema, indent=2, ensure_ascii=False)
