"""The folder of a run: its files, their order, and the log.

An unfinished run has run.log, and progress.npz with all counts so far. A finished run has run.json,
the record; spikes.npz, the spikes per neuron, the trains of the first bodies and the joints of the
first clip; and manifest.json with the hashes of these three. The manifest is written last: where it
exists, the run is finished. report.html and report.md are made from these files, and their hashes
are added to the manifest.

A run over an earlier one is written into the hidden folder .run.draft, and replaces the earlier one at the end.
"""

from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path

from mksgn.bench.claims import Published
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.report.write import write_report
from mksgn.bench.run_files import LOG_FILE, REPORT, REPORT_FILES
from mksgn.common.console import output, wrote
from mksgn.common.errors import BadInputError
from mksgn.common.extras import MissingExtraError
from mksgn.common.writing import append
from mksgn.deploy.run_files import MANIFEST_FILE
from mksgn.deploy.run_folder import read_manifest, update_manifest
from mksgn.train.checkpoint import sha256


def check_model(folder: Path, name: str, sha: str) -> None:
    """Raise BadInputError if a run's network would overwrite a file that is not the network of a run here."""
    path = folder / name
    if not path.is_file() or sha256(path) == sha:
        return
    try:
        former = read_manifest(folder).get("model")
    except BadInputError:
        former = None
    if former != {"file": name, "sha256": sha256(path)}:
        raise BadInputError(
            f"{path}: exists, and is not the network of a run in this folder; move it away, or choose another folder"
        )


def log(folder: Path, text: str) -> None:
    """Append a line to run.log."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    append(folder / LOG_FILE, f"{now} {text}\n")


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
    with REPORT.writing(folder, overwrite=True) if folder.is_dir() else nullcontext(folder) as place:
        names = render_reports(folder, place, models, claims)
    return [folder / name for name in names]


def write_reports_if_possible(folder: Path, named: Path) -> None:
    """Write the reports into a run's folder that this process has locked, or into a draft of `named`.

    Without the packages of the extra `report`, print one line and leave them out.
    """
    try:
        render_reports(folder, folder)
    except MissingExtraError as error:
        output.print(f"no report: {error}, then mksgn-bench report {named}")


def show_place(folder: Path) -> None:
    """Print where a run's report is, if it has one; with --quiet, where the run is."""
    page = folder / REPORT_FILES[0]
    if output.quiet:
        wrote(folder)
    elif page.is_file():
        wrote(page, word="report: ")


def render_reports(
    folder: Path, place: Path, models: list[EnergyModel] | None = None, claims: list[Published] | None = None
) -> list[str]:
    """Write the reports of a run's folder, and its manifest, into `place`; return their names."""
    names = [path.name for path in write_report(folder, models=models, claims=claims, out=place)]
    if (folder / MANIFEST_FILE).is_file():
        update_manifest(folder, names, out=place)
    return names
