"""The chain of a run's parents: model.nir, the model.pt that it was exported from, and its teacher.

Files are recognised by their sha256, whatever their name. A file that is not found does not break
the chain: it is listed as not checked, unless the check is strict.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mksgn.bench.check.findings import CheckResult
from mksgn.bench.record import Record
from mksgn.bench.run_files import RUN_FILE
from mksgn.common.errors import BadInputError
from mksgn.common.progress import track
from mksgn.export.graph import files
from mksgn.train.checkpoint import load_either, sha256

MODELS = (".nir", ".pt", ".net", ".h5", ".hdf5")  # files that can be a model or its parent


def check_chain(result: CheckResult, record: Record, *, near: Sequence[Path] = (), strict: bool = False) -> None:
    """Look for the run's model and its parents.

    Args:
        result: Receives the findings; its folder and the parent folder are searched.
        record: The run.
        near: Further files and folders to search.
        strict: Make a file that is not found a fault.
    """
    candidates = list(_candidates([result.folder, *near, result.folder.resolve().parent]))
    hashes = {path: sha256(path) for path in track(candidates, len(candidates), "files hashed")}
    absent = result.fault if strict else result.skip
    model = _with_hash(hashes, record.model.sha256)
    if model is None:
        _explain_absence(result, record, hashes, set(_candidates([result.folder, *near])), strict)
        linked = False
    else:
        linked = _parent_of_model(result, record, model)
    for digest in record.parents:
        parent = _with_hash(hashes, digest)
        if parent is None:
            absent("parent", f"sha256 {digest[:16]}… not found; name its folder (--near)")
        else:
            result.checked.append(f"parent: {parent} is the file that the run names")
            _parent_of_checkpoint(result, parent)
    if not record.parents and not linked:
        absent(RUN_FILE, "parents: the run states none")


def _candidates(places: Iterable[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for place in places:
        if not place.exists():
            raise BadInputError(f"{place}: no such file or folder; name where the model and its parents are (--near)")
        for path in sorted(place.iterdir()) if place.is_dir() else [place]:
            if path.suffix in MODELS and path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _with_hash(hashes: dict[Path, str], digest: str) -> Path | None:
    return next((path for path, actual in hashes.items() if actual == digest), None)


def _explain_absence(
    result: CheckResult, record: Record, hashes: dict[Path, str], named: set[Path], strict: bool
) -> None:
    """Report that no file is the model. A file of its name in `named` is a fault: it was changed."""
    expected = f"sha256 {record.model.sha256[:16]}…"
    for path, actual in hashes.items():
        if path.name == record.model.file and path in named:
            result.fault(path.name, f"{path} is not the run's model: sha256 {actual[:16]}…, the run names {expected}")
            return
    text = f"{record.model.file} ({expected}) not found; name its folder (--near)"
    (result.fault if strict else result.skip)("model", text)


def _parent_of_model(result: CheckResult, record: Record, model: Path) -> bool:
    """Check the parent that the model's metadata names. Returns True if the chain ends with the model."""
    try:
        parent = files.read(model).metadata.get("parent")
    except BadInputError as error:
        result.fault("model", str(error))
        return True
    expected = [] if parent is None else [parent]
    if expected != record.parents:
        result.fault(RUN_FILE, f"parents are {record.parents}, {model} names {expected}")
    result.checked.append(f"model: {model} is the file that was run")
    if parent is None:
        result.remark("model", f"{model} names no parent: the chain begins with it")
    return parent is None


def _parent_of_checkpoint(result: CheckResult, parent: Path) -> None:
    """Report what a student states about its teacher: its training, without a hash of its file."""
    if parent.suffix != ".pt":
        result.remark("parent", f"{parent} is not a checkpoint of mksgn: the chain begins with it")
        return
    try:
        training = load_either(parent).training
    except BadInputError as error:
        result.fault("parent", str(error))
        return
    teacher = training.get("teacher")
    if teacher is None:
        result.remark("parent", f"{parent} was trained without a teacher: the chain begins with it")
        return
    result.skip("teacher", f"{parent} describes its teacher's training without a hash of the file")
