"""The folder of a run: its files, their order, and the log.

An unfinished run has run.log, and progress.npz with all counts so far. A finished run has run.json,
the record; spikes.npz, the spikes per neuron, the trains of the first bodies and the joints of the
first clip; and manifest.json with the hashes of these three. The manifest is written last: where it
exists, the run is finished. report.html and report.md are made from these files, and their hashes
are added to the manifest.
"""

from datetime import datetime, timezone
from pathlib import Path

from mksgn.bench.claims import Published
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.record import RUN_FILE
from mksgn.bench.report.facts import REPORT_FILES
from mksgn.bench.report.write import write_report
from mksgn.common.console import output
from mksgn.common.extras import MissingExtraError
from mksgn.deploy.run_folder import MANIFEST_FILE, SPIKES_FILE, update_manifest

LOG_FILE = "run.log"
PROGRESS_FILE = "progress.npz"
RUN_FILES = (RUN_FILE, SPIKES_FILE, LOG_FILE)


def clear(folder: Path) -> None:
    """Delete the files of an earlier run, the manifest first: without it nothing counts as finished."""
    for name in (MANIFEST_FILE, *RUN_FILES, *REPORT_FILES, PROGRESS_FILE):
        (folder / name).unlink(missing_ok=True)


def log(folder: Path, text: str) -> None:
    """Append a line to run.log."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    with open(folder / LOG_FILE, "a", encoding="utf-8") as file:
        file.write(f"{now} {text}\n")


def write_reports(
    folder: Path, models: list[EnergyModel] | None = None, claims: list[Published] | None = None
) -> list[Path]:
    """Write report.html and report.md, and update their hashes in the manifest if there is one.

    Args:
        folder: Folder of the run.
        models: Energy models to price the run with; None: those of the record.
        claims: Published figures to compare with; None: those of the record.

    Returns:
        Paths of the reports.

    Raises:
        BadInputError: The record cannot be read.
        MissingExtraError: A package of the extra `report` is not installed.
    """
    paths = write_report(folder, models=models, claims=claims)
    if (folder / MANIFEST_FILE).is_file():
        update_manifest(folder, [path.name for path in paths])
    return paths


def write_reports_if_possible(folder: Path) -> None:
    """Write the reports; without the packages of the extra `report`, print one line and leave them out."""
    try:
        write_reports(folder)
    except MissingExtraError as error:
        output.print(f"no report: {error}, then mksgn-bench report {folder}")
