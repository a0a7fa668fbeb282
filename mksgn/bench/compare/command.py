"""The work of mksgn-bench compare on two runs; mksgn/bench/compare/recordings.py has that on a recording."""

from pathlib import Path

from mksgn.bench.compare import tables
from mksgn.bench.compare.gate import Bounds, evaluate_bounds, raise_missed
from mksgn.bench.compare.runs import compare_folders
from mksgn.bench.record_io import write_atomically
from mksgn.common.console import output, print_json


def compare_and_show(
    reference: Path, run_folder: Path, bounds: Bounds, allowed: tuple[bool, bool], page: Path | None, *, json_only: bool
) -> None:
    """Compare two runs, print the comparison, and write it to `page` as Markdown, if that is given.

    Args:
        reference: Folder of the reference run, or its run.json.
        run_folder: The same of the other run.
        bounds: What the other run may be worse by.
        allowed: Whether the samples may differ, and whether the prices of an energy model may.
        page: File of the Markdown.
        json_only: Print JSON in place of tables.

    Raises:
        BadInputError: A run cannot be read, or the two cannot be compared.
        BoundMissedError: A bound is missed.
    """
    comparison = compare_folders(reference, run_folder)
    verdicts = evaluate_bounds(comparison, bounds, *allowed)
    if page is not None:
        write_atomically(page, tables.markdown(comparison, verdicts))
    if json_only:
        print_json(tables.document(comparison, verdicts))
    else:
        for part in (*tables.tables(comparison, verdicts), *tables.sentences(comparison)):
            output.print(part)
    raise_missed(comparison, verdicts)
