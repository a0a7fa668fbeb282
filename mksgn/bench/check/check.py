"""Check a run's folder: the manifest's seal, the hash of every file, and the agreement of the files.

The hashes show that nothing was changed since the run was written, but not who wrote it. So every
figure that follows from other figures is computed again (check.counts), and the model and its
parents are looked up (check.chain).
"""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from mksgn.bench.check.chain import check_chain
from mksgn.bench.check.counts import check_energies, check_predictions, check_spikes, check_totals
from mksgn.bench.check.findings import CheckResult
from mksgn.bench.check.placement import check_placement
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.manifest import VOUCHED, Manifest, load_manifest
from mksgn.bench.record import Record
from mksgn.bench.record_io import load
from mksgn.bench.run_files import PROGRESS_FILE, RUN_FILE
from mksgn.common.errors import BadInputError, without_path
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.run_files import MANIFEST_FILE, SPIKES_FILE
from mksgn.train.checkpoint import sha256


def check(
    folder: Path,
    *,
    near: Sequence[Path] = (),
    strict: bool = False,
    models: Sequence[EnergyModel] | None = None,
    chips: Sequence[Chip] | None = None,
) -> CheckResult:
    """Check a run's folder.

    Args:
        folder: Folder that `mksgn-bench run` wrote.
        near: Further files and folders in which the model and its parents may be found.
        strict: Make a model or parent that is not found a fault.
        models: Energy models to price with; None: the known ones.
        chips: Chips whose limits the record may state; None: the known ones.

    Raises:
        BadInputError: `folder` is not a folder. Faults of the record itself are in the result.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder}: no such folder; name the folder that mksgn-bench run wrote")
    result = CheckResult(folder)
    manifest = _manifest(result)
    if manifest is not None:
        _files(result, manifest)
    record = _record(result)
    if record is not None:
        check_totals(result, record)
        check_energies(result, record, models)
        check_placement(result, record, chips)
        check_spikes(result, record, folder / SPIKES_FILE)
    if record is not None and manifest is not None:
        _agree(result, record, manifest)
        check_predictions(result, record, manifest)
        check_chain(result, record, near=near, strict=strict)
    return result


def _manifest(result: CheckResult) -> Manifest | None:
    if not (result.folder / MANIFEST_FILE).is_file():
        unfinished = (result.folder / PROGRESS_FILE).is_file()
        remedy = "the run is not finished: resume it with --resume" if unfinished else "run the benchmark again"
        result.fault(MANIFEST_FILE, f"missing; {remedy}")
        return None
    try:
        manifest = load_manifest(result.folder)
    except BadInputError as error:
        result.fault(MANIFEST_FILE, without_path(error, result.folder / MANIFEST_FILE))
        return None
    result.checked.append(f"{MANIFEST_FILE}: the hash of its own contents")
    return manifest


def _files(result: CheckResult, manifest: Manifest) -> None:
    """Check the hashes of all files that the run wrote; remark on files that it did not write."""
    unchanged = 0
    for name, expected in manifest.files.items():
        path = result.folder / name
        if Path(name).name != name:
            result.fault(MANIFEST_FILE, f"files: {name!r} is not the name of a file in this folder")
        elif not path.is_file():
            result.fault(name, "missing, though the manifest lists it")
        elif (actual := sha256(path)) != expected:
            result.fault(name, f"changed since the run: sha256 {actual[:16]}…, the manifest states {expected[:16]}…")
        else:
            unchanged += 1
    result.checked.append(f"{unchanged} of {len(manifest.files)} files by their sha256")
    for name in VOUCHED:
        if name not in manifest.files:
            result.fault(MANIFEST_FILE, f"files: {name} is not listed, so it cannot be checked")
    known = {*manifest.files, MANIFEST_FILE}
    for path in sorted(result.folder.iterdir()):
        if path.name in known or not path.is_file():
            continue
        if path.name.endswith((".part", ".tmp")):
            result.remark(path.name, "left over by an interrupted writer; it can be deleted")
        elif path.name == PROGRESS_FILE:
            result.remark(path.name, "left over by an unfinished run")
        elif sha256(path) != manifest.model.sha256:
            result.remark(path.name, "not part of this run, since the manifest does not list it")


def _record(result: CheckResult) -> Record | None:
    try:
        record = load(result.folder / RUN_FILE)
    except BadInputError as error:
        result.fault(RUN_FILE, without_path(error, result.folder / RUN_FILE))
        return None
    result.checked.append(f"{RUN_FILE}: its schema")
    return record


def _agree(result: CheckResult, record: Record, manifest: Manifest) -> None:
    """Check that record and manifest state the same run."""
    execution = record.execution
    shared = ("model.sha256", "model.file", "parents", "data.source", "data.split")
    pairs = [(name, attrgetter(name)(record), attrgetter(name)(manifest)) for name in shared]
    pairs += [("data.clips", record.data.clips, len(manifest.data.clips)), ("seed", record.seed, manifest.data.seed)]
    for name in ("backend", "precision", "steps"):
        if name in manifest.execution:
            pairs.append((f"execution.{name}", getattr(execution, name), manifest.execution[name]))
    for name in sorted(record.environment.keys() & manifest.environment.keys()):
        pairs.append((f"environment.{name}", record.environment[name], manifest.environment[name]))
    for name, in_record, in_manifest in pairs:
        if in_record != in_manifest:
            result.fault(RUN_FILE, f"{name} is {in_record!r}, in {MANIFEST_FILE} {in_manifest!r}")
    result.checked.append(f"{RUN_FILE} and {MANIFEST_FILE} state the same run")
