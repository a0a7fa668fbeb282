"""Read and write run.json."""

import json
from pathlib import Path

from pydantic import ValidationError

from mksgn.bench.record import SCHEMA, Record
from mksgn.bench.run_files import RUN_FILE
from mksgn.common.errors import BadInputError
from mksgn.common.json_text import parsed
from mksgn.common.reading import RECORD_BYTES, read_bytes
from mksgn.common.replacement import settle
from mksgn.common.schemas import check_schema
from mksgn.common.validation import one_line
from mksgn.common.writing import write_text


def load(path: Path | str) -> Record:
    """Read a run.json.

    Args:
        path: The file, or the folder of a run that contains it.

    Raises:
        BadInputError: The file cannot be read or is not a valid record. The message is one line:
            file, field, fault.
    """
    path = Path(path)
    path = path / RUN_FILE if path.is_dir() else path
    settle(path.parent)
    text = read_bytes(path, RECORD_BYTES, "name a run's folder, or its run.json")
    content = parsed(text, path, "run the benchmark again", nonfinite=True)  # the model names the field
    check_schema(path, content, SCHEMA, "run the benchmark again")
    try:
        return Record.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise BadInputError(f"{path}: {one_line(error)}") from error


def save(record: Record, path: Path | str) -> None:
    """Write a record atomically, as indented JSON with the fields in the order of the models."""
    write_atomically(Path(path), json.dumps(record.model_dump(by_alias=True), indent=2, ensure_ascii=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that readers see either the old content or the new one.

    Raises:
        BadInputError: The folder cannot be written.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be written ({error.strerror})") from error
