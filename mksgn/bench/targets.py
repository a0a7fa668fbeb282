"""Single files that mksgn-bench writes, and what it may replace: an earlier output of the same command."""

from collections.abc import Callable
from pathlib import Path

from mksgn.bench.record_io import write_atomically
from mksgn.common.writing import check_replaceable, head_of


def check_markdown(path: Path | None, ours: Callable[[str], bool], *, overwrite: bool) -> None:
    """Raise BadInputError if a file other than an earlier comparison exists; `ours` recognises one by its beginning."""
    if path is not None:
        check_replaceable(path, ours(head_of(path)), "a comparison", overwrite=overwrite)


def write_new(path: Path, text: str, what: str, *, overwrite: bool) -> None:
    """Write a file that people edit; only identical text is replaced unasked. Raises as `check_markdown` does."""
    check_replaceable(path, head_of(path, len(text.encode()) + 1) == text, what, overwrite=overwrite)
    write_atomically(path, text)
