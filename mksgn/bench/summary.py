"""What a run says on a terminal: counts by population, energies, claims, parity, speed."""

from __future__ import annotations

from rich.table import Table

from mksgn.bench import theory
from mksgn.bench.record import Record
from mksgn.common.console import output


def show(record: Record, in_torch: float | None) -> None:
    """`in_torch`: top-1 of the unquantised student, where it is known."""
    clips = record.data.clips
    formula = theory.theory_of(record)
    rows = {row.name: row for row in formula.layers}
    table = Table(title=f"per clip, over {clips} clips of {record.data.source}", title_justify="left")
    for heading in ("population", "firing rate", "spikes", "syn_ops", "theory SOPs", "uJ at 0.9 pJ"):
        table.add_column(heading, justify="left" if heading == "population" else "right")
    for layer in record.layers:
        row = rows[layer.name]
        table.add_row(
            layer.name,
            f"{layer.firing_rate:.2%}",
            f"{layer.spikes / clips:,.0f}",
            f"{layer.syn_ops / clips:,.0f}" if layer.place == "chip" else f"{row.macs:,.0f} MACs",
            f"{row.theory_sops:,.0f}" if layer.place == "chip" else "–",
            f"{row.measured_mJ * 1e3:,.3f}",
        )
    output.print(table)
    execution, totals = record.execution, record.totals
    if record.accuracy is not None:
        if in_torch is not None:
            output.print(f"top-1 in torch, unquantised            {in_torch:7.1%}")
        output.print(
            f"top-1 in {execution.backend + ', ' + execution.precision + ' point':<30}{record.accuracy.top1:7.1%}"
        )
    output.print(f"spikes per clip                        {totals.spikes:14,.0f}")
    output.print(f"syn_ops per clip                       {totals.syn_ops:14,.0f}")
    for entry in record.energy:
        if entry.total_mJ is not None:
            note = f"{entry.evidence}; excludes {', '.join(entry.excludes)}"
            output.print(f"energy per clip, {entry.model:<22}{entry.total_mJ:14.6f} mJ   ({note})")
        elif entry.terms:
            note = f"{entry.evidence}; no price: {', '.join(entry.unpriced)}"
            output.print(f"energy per clip, {entry.model:<19} >= {entry.priced_mJ:13.6f} mJ   ({note})")
    output.print(
        f"energy per clip, theory               {formula.energy_mJ:15.6f} mJ   (paper's formula, measured rates)"
    )
    for claim in record.claims:
        here = "–" if claim.measured is None else f"{claim.measured:.4g}"
        output.print(
            f"{claim.name}: published {claim.published:g} {claim.unit}, this run {here} (verdict in the report)"
        )
    if record.parity is not None:
        parity = record.parity
        output.print(
            f"parity against {parity.against}: {parity.mismatches} mismatches in {parity.decisions:,} decisions"
        )
    spread = ""
    if execution.repeats > 1:
        spread = f" ({execution.seconds_min:.1f} to {execution.seconds_max:.1f} s in {execution.repeats} repetitions)"
    speed = f"{execution.seconds:.1f} s{spread}, {execution.clips_per_second:.1f} clips/s on this host"
    output.print(f"{speed}; latency {execution.latency_steps} steps")
