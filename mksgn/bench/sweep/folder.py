"""The folder of a sweep: what is replaced together, and the request from which --resume continues."""

import json
from pathlib import Path
from typing import Any

from mksgn.bench.progress import REMEDY, check_same
from mksgn.bench.record_io import write_atomically
from mksgn.bench.run_files import GRID_FILE
from mksgn.common import json_text
from mksgn.common.errors import BadInputError
from mksgn.common.writing import remove_temporaries


def begin(place: Path, out: Path, request: dict[str, Any]) -> None:
    """Write the request into a new folder, or check that the request of the resumed one is the same."""
    path = place / GRID_FILE
    if not path.is_file():
        write_atomically(path, json.dumps(request, indent=2) + "\n")
        return
    begun = json_text.read(path, REMEDY)
    if not isinstance(begun, dict):
        raise BadInputError(f"{path}: is not the request of a sweep; {REMEDY}")
    check_same(out, begun, json.loads(json.dumps(request)))
    for name in ("points", "networks", "progress"):
        remove_temporaries(place / name, "*")


def pictures(folder: Path) -> tuple[str, ...]:
    """Name the pictures of a sweep, one for each of its energy models."""
    return tuple(sorted(path.name for path in folder.glob("pareto-*.png")))
