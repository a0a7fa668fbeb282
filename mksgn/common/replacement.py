"""A set of files in a folder that is replaced as a whole: the old files stay until the new ones are complete.

The new files are written into a draft, a hidden folder inside the folder, so that they are on the same disk. The new
set takes effect at the moment when the draft is renamed. A process that dies before leaves the old set, and the draft,
from which work can continue; one that dies after leaves files that `settle` puts into place when the folder is next
written into or read.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mksgn.common.errors import BadInputError
from mksgn.common.lock import locked
from mksgn.common.quoting import quoted
from mksgn.common.reading import open_file, read_text
from mksgn.common.words import first_three
from mksgn.common.writing import is_folder, is_temporary, remove, remove_temporaries, replacing, to_disk

KINDS = ("training", "run", "deployment", "report", "sweep")
JOURNAL_FILE = "journal.json"  # in a complete draft: the files that are removed when it takes effect
_JOURNAL_BYTES = 1 << 20  # of a few names


@dataclass(frozen=True)
class FileSet:
    """Files that a command writes together.

    Attributes:
        kind: One of `KINDS`.
        names: Their names, in the order in which messages list them.
        results: Those that only a finished set has.
        resumable: Those from any of which --resume continues; empty where the command has no --resume.
        option: The command's option that names another folder.
        what: What messages call it; the kind by default.
    """

    kind: str
    names: tuple[str, ...]
    results: tuple[str, ...]
    resumable: tuple[str, ...] = ()
    option: str = "-o"
    what: str = ""

    def present(self, folder: Path) -> list[str]:
        return [name for name in self.names if os.path.lexists(folder / name)]

    def check(self, folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        """Raise BadInputError if existing files would be lost, unless `resume` or `overwrite` allows it."""
        there = self.present(folder)
        begun = bool(self.resumable) and is_folder(draft(folder, self.kind))
        if overwrite or not (there or begun) or (resume and (begun or self._continues(there))):
            return
        finished = any(os.path.lexists(folder / name) for name in self.results)
        held = first_three(there) if there else f"in {draft(folder, self.kind).name}"
        continues = "" if resume or not self.resumable else "continue it with --resume, "
        lacking = f" without {' or '.join(self.resumable)}, from which --resume continues" if resume else ""
        raise BadInputError(
            f"{folder}: holds {'a finished' if finished else 'an unfinished'} {self.what or self.kind} ({held}){lacking}; "
            f"{continues}replace it with --overwrite, or choose another folder with {self.option}"
        )

    def _continues(self, there: list[str]) -> bool:
        """Tell whether --resume loses nothing: there is a state to continue from, or no result."""
        return any(name in self.resumable for name in there) or not any(name in self.results for name in there)

    @contextmanager
    def writing(
        self,
        folder: Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        old: Callable[[Path], Iterable[str]] = lambda folder: (),
    ) -> Iterator[Path]:
        """Yield the folder to write the files into: `folder` itself, or a draft if it holds earlier ones.

        The draft takes effect at the end. After an error it is kept if --resume can continue from it, else removed.

        Args:
            folder: Where the files will be; made if it does not exist.
            resume: Continue an unfinished draft, or what is in the folder.
            overwrite: Replace what is there.
            old: Names of further files that are removed when the draft takes effect.

        Raises:
            BadInputError: As `check` and `writing_into`.
        """
        self.check(folder, resume=resume, overwrite=overwrite)  # before a folder or a lock is made
        with writing_into(folder, *self.names):
            place = self._place(folder, resume=resume, overwrite=overwrite)
            remove_temporaries(place, *self.names)
            try:
                yield place
            except BaseException:
                if place != folder and not any((place / name).is_file() for name in self.resumable):
                    discard(folder, self.kind)
                raise
            if place != folder:
                commit(folder, self.kind, {*self.names, *old(folder)})

    def begun(self, folder: Path) -> Path:
        """Return where --resume continues: the draft if there is one, else the folder itself."""
        return draft(folder, self.kind) if is_folder(draft(folder, self.kind)) else folder

    def _place(self, folder: Path, *, resume: bool, overwrite: bool) -> Path:
        self.check(folder, resume=resume, overwrite=overwrite)
        if resume and not overwrite:
            return self.begun(folder)
        discard(folder, self.kind)
        return begin(folder, self.kind) if self.present(folder) or not self.resumable else folder


@contextmanager
def writing_into(folder: Path, *names: str) -> Iterator[None]:
    """Make a folder if needed and keep other writers out of it; first complete what a killed one left.

    Args:
        folder: The folder.
        names: Files whose temporary ones a killed writer may have left there.

    Raises:
        BadInputError: Another process writes into it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise BadInputError(f"{folder}: is a file; name a folder") from error
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be created ({error.strerror}); choose another folder") from error
    with locked(folder):
        _settle(folder)
        remove_temporaries(folder, *names)
        yield


def draft(folder: Path, kind: str) -> Path:
    """Return the path of a folder's draft, whether or not it exists."""
    return folder / f".{kind}.draft"


def begin(folder: Path, kind: str) -> Path:
    """Make a new, empty draft in a locked folder; an unfinished one is discarded."""
    discard(folder, kind)
    draft(folder, kind).mkdir()
    return draft(folder, kind)


def discard(folder: Path, kind: str) -> None:
    remove(draft(folder, kind))


def commit(folder: Path, kind: str, old: Iterable[str]) -> None:
    """Let the draft of a locked folder take effect.

    Args:
        folder: The folder.
        kind: The draft's kind.
        old: Names of the files that it replaces; those that the draft does not hold itself are removed.
    """
    new, complete = draft(folder, kind), _complete(folder, kind)
    for left in [path for path in new.iterdir() if is_temporary(path.name)]:
        remove(left)
    removed = sorted(set(old) - set(os.listdir(new)))
    with replacing(new / JOURNAL_FILE) as temporary:
        temporary.write_text(json.dumps(removed) + "\n", encoding="utf-8")
    if not is_folder(complete):
        complete.unlink(missing_ok=True)
    os.replace(new, complete)
    to_disk(folder)
    _put_into_place(folder, complete)


def settle(folder: Path) -> None:
    """Put into place what a killed process had completed, before the folder is read.

    Raises:
        BadInputError: Another process is doing so, or the journal is damaged.
    """
    if any(os.path.lexists(_complete(folder, kind)) for kind in KINDS):
        with locked(folder):
            _settle(folder)


def require_file(path: Path, remedy: str) -> None:
    """Refuse a file that cannot be opened, before anything slow begins.

    Args:
        path: The file; it may be in a set that a killed process had completed.
        remedy: What to do where there is no such file.

    Raises:
        BadInputError: As `open_file` and `settle` do.
    """
    settle(path.parent)
    open_file(path, None, remedy).close()


def _settle(folder: Path) -> None:
    for kind in KINDS:
        complete = _complete(folder, kind)
        if is_folder(complete):
            _put_into_place(folder, complete)


def _complete(folder: Path, kind: str) -> Path:
    return folder / f".{kind}.complete"


def _put_into_place(folder: Path, complete: Path) -> None:
    """Do what remains to be done; any part of it may have been done before."""
    for name in _removed(complete / JOURNAL_FILE):
        remove(folder / name)
    for path in sorted(complete.iterdir()):
        if path.name == JOURNAL_FILE:
            continue
        target = folder / path.name
        if is_folder(target) or path.is_dir():
            remove(target)
        os.replace(path, target)
    to_disk(folder)
    (complete / JOURNAL_FILE).unlink(missing_ok=True)
    complete.rmdir()


def _removed(journal: Path) -> list[str]:
    if not journal.exists():  # it is the last file to be removed
        return []
    try:
        names = json.loads(read_text(journal, _JOURNAL_BYTES))
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{journal}: damaged ({error}); remove its folder") from error
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_plain(name) for name in names):
        raise BadInputError(
            f"{journal}: names {quoted(names)}, expected files of its own folder; remove {journal.parent}"
        )
    return names


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and "\0" not in name
