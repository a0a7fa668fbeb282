"""Write report.html and report.md into a run's folder.

facts        what both reports state          page, markdown   the two reports
templates    their common rendering           charts           geometry of the charts
price_range  energies of the first screen     network          drawing of the network and its schedule
answers      its questions                    timing           time on the chip, if a record has it
clip         the sample clip's skeleton       raster           its spikes as images
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from mksgn.bench.claims import Published
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.record_io import load, write_atomically
from mksgn.bench.report.facts import facts_of
from mksgn.bench.run_files import REPORT_FILES, RUN_FILE
from mksgn.common.errors import BadInputError
from mksgn.common.extras import require
from mksgn.common.progress import track
from mksgn.common.schemas import LenientModel
from mksgn.common.validation import one_line
from mksgn.deploy.run_files import MANIFEST_FILE
from mksgn.deploy.run_folder import read_manifest


def write_report(
    run_dir: Path | str,
    *,
    models: Sequence[EnergyModel] | None = None,
    claims: Sequence[Published] | None = None,
    manifest: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> list[Path]:
    """Write report.html and report.md of a run.

    Args:
        run_dir: The run's folder. Its run.json is not changed.
        models: Energy models to price the run with; None takes the energies that run.json states.
        claims: Published figures to evaluate; None takes those that run.json states.
        manifest: What manifest.json will state, if it is not written yet; None reads it from the folder, if it exists.
        out: Folder for the reports; None: the run's.

    Returns:
        The paths of the two reports.

    Raises:
        BadInputError: The record, the manifest or the spikes cannot be read.
        MissingExtraError: The packages of the extra `report` are not installed.
    """
    require("a report", "report", "jinja2", "PIL")
    from mksgn.bench.report import markdown, page
    from mksgn.bench.report.clip import clip_of

    run_dir = Path(run_dir)
    if manifest is None:
        manifest = manifest_of(run_dir)
    facts = facts_of(load(run_dir / RUN_FILE), manifest, models, claims)
    renderings = (lambda: page.render(facts, clip_of(run_dir, manifest)), lambda: markdown.render(facts))
    paths = [(out or run_dir) / name for name in REPORT_FILES]
    for path, rendering in track([*zip(paths, renderings, strict=True)], len(paths), "reports written"):
        write_atomically(path, rendering())
    return paths


class _Data(LenientModel):
    clips: list[str] = Field(default_factory=list)
    labels: list[int] | None = None
    classes: list[str] | None = None
    graph: str | None = None


class _Reported(LenientModel):
    """What the reports state of a manifest, all of it optional."""

    data: _Data = _Data()
    predictions: list[int] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)


def manifest_of(run_dir: Path) -> Mapping[str, Any]:
    """Read what the reports state of a folder's manifest; empty if there is none. Raises BadInputError."""
    path = run_dir / MANIFEST_FILE
    if not path.is_file():
        return {}
    try:
        manifest = read_manifest(run_dir)
        _Reported.model_validate(manifest, strict=True)
        return manifest
    except ValidationError as error:
        raise BadInputError(f"{path}: {one_line(error)}") from error
