"""A chip's counters beside a record's, as tables and sentences on a terminal."""

from __future__ import annotations

from rich.table import Table

from mksgn.bench.chip_counts.comparison import Beside, Row


def tables(found: Beside, *, every: bool = False) -> list[Table]:
    """Counters that differ (`every`: all of them), and the measured energy beside each price list."""
    shown = []
    rows = [row for row in found.rows if every or not row.same]
    if rows:
        table = Table(title="counters over the run" + ("" if every else " that differ"), title_justify="left")
        for heading in ("population", "counter", "record", "chip", "difference", "ratio", "what explains it"):
            left = heading in ("population", "counter", "what explains it")
            table.add_column(heading, justify="left" if left else "right", overflow="fold")
        for row in rows:
            table.add_row(*_cells(row))
        shown.append(table)
    if found.energies:
        table = Table(title="mJ per clip", title_justify="left")
        for heading in ("price list", "record", "measured", "measured / record", "left out by the list"):
            left = heading.startswith(("price", "left"))
            table.add_column(heading, justify="left" if left else "right", overflow="fold")
        for line in found.energies:
            table.add_row(
                line.model,
                f"{'≥ ' if line.bound else ''}{line.ours_mJ:.6f}",
                f"{line.measured_mJ:.6f} ({line.part})",
                f"{'≤ ' if line.bound else ''}{line.ratio:.4g}",
                ", ".join(line.left_out) or "nothing",
            )
        shown.append(table)
    return shown


def sentences(found: Beside) -> list[str]:
    same = sum(row.same for row in found.rows)
    said = [f"{same} of {len(found.rows)} counters are equal."]
    if found.first is not None:
        first = found.first
        said.append(
            f"Look at {first.population} first: of the populations that were read, the first in the network's order with other "
            f"spikes ({first.theirs:,.10g} on the chip, {first.ours:,} in the record). What comes after it may follow from it."
        )
    elif any(row.counter == "spikes" and row.population != "totals" for row in found.rows):
        said.append("Every population that was read fires as often as in the record.")
    else:
        said.append("No population's spikes were read: where a difference begins cannot be said.")
    if found.missing:
        said.append(f"Not compared, as the file does not have them: {', '.join(found.missing)}.")
    if found.on_host:
        said.append(f"Not compared, as they are computed on the host: {', '.join(found.on_host)}.")
    return [*said, found.verdict]


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "–" if row.ratio is None else f"{row.ratio:.4g}"
    return (
        row.population, row.counter, f"{row.ours:,}", f"{row.theirs:,.10g}", f"{row.difference:+,.10g}", ratio, row.note,
    )  # fmt: skip
