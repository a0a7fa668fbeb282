"""Format a chip comparison as tables and sentences for the terminal."""

from rich.table import Table

from mksgn.bench.chip_counts.comparison import ChipComparison
from mksgn.common.tables import table

COUNTER_HEADINGS = ("population", "counter", "record", "chip", "difference", "ratio", "explanation")
ENERGY_HEADINGS = ("energy model", "record", "measured", "measured / record", "left out by the model")
LEFT_ALIGNED = ("counter", "explanation", "left out by the model")


def tables(comparison: ChipComparison, *, every: bool = False) -> list[Table]:
    """Return the counters that differ (`every`: all counters) and the energy models, each table only if it has rows."""
    counters = [
        (
            row.population,
            row.counter,
            f"{row.record:,}",
            f"{row.chip:,.10g}",
            f"{row.difference:+,.10g}",
            "–" if row.ratio is None else f"{row.ratio:.4g}",
            row.note,
        )
        for row in comparison.rows
        if every or not row.same
    ]
    energies = [
        (
            row.model,
            f"{'≥ ' if row.bound else ''}{row.record_mJ:.6f}",
            f"{row.measured_mJ:.6f} ({row.part})",
            f"{'≤ ' if row.bound else ''}{row.ratio:.4g}",
            ", ".join(row.left_out) or "nothing",
        )
        for row in comparison.energies
    ]
    title = "counters over the run" if every else "counters over the run that differ"
    parts = ((title, COUNTER_HEADINGS, counters), (f"mJ per {comparison.unit}", ENERGY_HEADINGS, energies))
    return [table(title, headings, rows, LEFT_ALIGNED) for title, headings, rows in parts if rows]


def sentences(comparison: ChipComparison) -> list[str]:
    """Summarise the comparison: equal counters, the first population that differs, omissions, and energy."""
    same = sum(row.same for row in comparison.rows)
    lines = [f"{same} of {len(comparison.rows)} counters are equal."]
    if comparison.first is not None:
        first = comparison.first
        lines.append(
            f"Look at {first.population} first: of the populations that were read, it is the first in network order "
            f"whose spikes differ ({first.chip:,.10g} on the chip, {first.record:,} in the record). "
            "Later differences may follow from it."
        )
    elif any(row.counter == "spikes" and row.population != "totals" for row in comparison.rows):
        lines.append("Every population that was read fires as often as in the record.")
    else:
        lines.append("No population's spikes were read, so the first population that differs cannot be located.")
    if comparison.missing:
        lines.append(f"Not compared, because the file does not list them: {', '.join(comparison.missing)}.")
    if comparison.on_host:
        lines.append(f"Not compared, because the host computes them: {', '.join(comparison.on_host)}.")
    return [*lines, comparison.verdict]
