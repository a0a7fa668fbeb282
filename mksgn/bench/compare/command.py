"""What mksgn-bench compare does, with two runs or with a run and a recording."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from mksgn.bench.compare import recordings, tables
from mksgn.bench.compare.gate import Bounds, evaluate_bounds, raise_missed
from mksgn.bench.compare.runs import compare_folders
from mksgn.bench.record_io import write_atomically
from mksgn.common.console import output, print_json


def compare_runs(
    reference: Path, run_folder: Path, bounds: Bounds, allowed: tuple[bool, bool], page: Path | None, *, as_json: bool
) -> None:
    """Compare two runs, print the comparison, and write it to `page` as Markdown, if that is given.

    Args:
        reference: Folder of the reference run, or its run.json.
        run_folder: The same for the other run.
        bounds: By how much the other run may be worse.
        allowed: Whether the samples may differ, and whether the prices of an energy model may.
        page: File of the Markdown.
        as_json: Print JSON in place of tables.

    Raises:
        BadInputError: A run cannot be read, or the two cannot be compared.
        BoundMissedError: A bound is missed.
    """
    comparison = compare_folders(reference, run_folder)
    verdicts = evaluate_bounds(comparison, bounds, *allowed)
    document = tables.document(comparison, verdicts) if as_json else None
    parts: list[Table | str] = [*tables.tables(comparison, verdicts), *tables.sentences(comparison)]
    show(parts, document, tables.markdown(comparison, verdicts), page)
    raise_missed(comparison, verdicts)


def compare_recordings(reference: Path, run_folder: Path, bounds: Bounds, page: Path | None, *, as_json: bool) -> None:
    """Compare a run with a recording, print the comparison, and write it to `page` as Markdown, if that is given.

    Raises:
        BadInputError: As `recordings.compare` and `recordings.check_bounds`.
        BoundMissedError: The two differ, and `bounds` allow no difference.
    """
    recordings.check_bounds(bounds)
    comparison = recordings.compare(reference, run_folder)
    document = recordings.document(comparison) if as_json else None
    parts: list[Table | str] = [*recordings.tables(comparison), *recordings.sentences(comparison)]
    show(parts, document, recordings.markdown(comparison), page)
    if bounds.identical:
        recordings.raise_different(comparison, f"{run_folder} compared with {reference}")


def show(parts: Iterable[Table | str], document: dict[str, Any] | None, markdown: str, page: Path | None) -> None:
    """Print a comparison, and write it to `page`, if that is given.

    Args:
        parts: Its tables and sentences.
        document: The same for --json, printed instead of `parts`; None: print `parts`.
        markdown: The same for `page`.
        page: File of the Markdown.
    """
    if page is not None:
        write_atomically(page, markdown)
    if document is not None:
        print_json(document)
        return
    for part in parts:
        output.print(part)
