"""The summary of a run on a terminal: counts by population, energies, claims, parity and speed."""

from collections.abc import Iterator

from rich.table import Table

from mksgn.bench import ann
from mksgn.bench.energy_models import model_named
from mksgn.bench.numbers import counted, fraction, share
from mksgn.bench.record import EnergyEntry, Record
from mksgn.bench.report.facts import PRECISION_TITLES
from mksgn.bench.step_time import EVENT_WORDS, PlacementTime
from mksgn.bench.theory import Theory, theory_of
from mksgn.common.console import output
from mksgn.common.tables import table

ANN_MODEL = "horowitz45-int8"


def show(record: Record, torch_top1: float | None) -> None:
    """Print the summary of a run.

    Args:
        record: The run.
        torch_top1: Top-1 of the unquantised student in torch; None if unknown.
    """
    theory = theory_of(record)
    output.print(_layers_table(record, theory))
    for label, text in _figures(record, theory, torch_top1):
        output.print(f"{label:<38} {text}")
    for claim in record.claims:
        here = "–" if claim.measured is None else _in_unit(claim.measured, claim.unit)
        published = _in_unit(claim.published, claim.unit)
        output.print(f"{claim.name}: published {published}, this run {here} (verdict in the report)")
    if (parity := record.parity) is not None:
        mismatches = f"{parity.mismatches:,} mismatch{'' if parity.mismatches == 1 else 'es'}"
        rounding = f" ({parity.rounding:,} of rounding)" if parity.rounding else ""
        output.print(f"parity against {parity.against}: {mismatches}{rounding} in {parity.decisions:,} decisions")
    if (placement := record.placement) is not None:
        cores = f"{counted(placement.cores, 'core')} on {counted(placement.chips, 'chip')}"
        output.print(f"placement: {cores}; {placement.fit.text(placement.chip)}")
    for line in timing_lines(record):
        output.print(line)
    execution, spread = record.execution, ""
    if execution.repeats > 1:
        spread = f" ({execution.seconds_min:.1f} to {execution.seconds_max:.1f} s in {execution.repeats} repetitions)"
    speed = f"{execution.seconds:.1f} s{spread}, {execution.clips_per_second:.1f} {record.unit}s/s on this host"
    output.print(f"{speed}; latency {counted(execution.latency_steps, 'step')}")


def timing_lines(record: Record) -> Iterator[str]:
    """Yield the time on the chip, a line for each timing model and placement, and what binds it."""
    for timing in record.timing:
        for row in timing.placements:
            where = f"{counted(row.cores, 'core')} of {timing.chip}, {row.place}"
            if row.step_us is None or row.latency_us is None or row.samples_per_second is None:
                most = f"{row.busiest['messages_in']:,.0f} messages in, {_operations(row):,.0f} synaptic operations of one kind"
                yield f"{timing.model}: busiest of {where}, per step: {most}; no latencies, so no time"
                continue
            step, latency, rate = row.step_us, row.latency_us, row.samples_per_second
            yield (
                f"{timing.model}: {where}: step {step.lower:.1f} to {step.estimate:.1f} µs, latency "
                f"{latency.lower / 1e3:.2f} to {latency.estimate / 1e3:.2f} ms, {rate.lower:,.0f} to {rate.estimate:,.0f} "
                f"{record.unit}s/s; bound by {binding_text(row)}"
            )


def binding_text(row: PlacementTime) -> str:
    """Say what binds most of the steps of a placement."""
    first = row.binding[0]
    return f"{first.population} ({EVENT_WORDS[first.event]}, {first.share:.0%} of the step time)"


def _operations(row: PlacementTime) -> float:
    return max(row.busiest[kind] for kind in ("dense", "sparse", "convolution"))


def lines(record: Record) -> str:
    """Return accuracy, counts and energies of a run as text, a line each."""
    return "\n".join(f"{label:<40} {text}" for label, text in _figures(record, theory_of(record), None))


def _layers_table(record: Record, theory: Theory) -> Table:
    clips = record.data.clips
    title = f"per {record.unit}, over {counted(clips, record.unit)} of {record.data.source}"
    headings = ("population", "firing rate", "spikes", "syn_ops", "theory SOPs", "µJ at 0.9 pJ")
    result = table(title, headings)
    for layer, row in zip(record.layers, theory.layers, strict=True):
        on_chip = layer.place == "chip"
        result.add_row(
            layer.name,
            f"{layer.firing_rate:.2%}",
            f"{layer.spikes / clips:,.0f}",
            f"{layer.syn_ops / clips:,.0f}" if on_chip else f"{row.macs:,.0f} MACs",
            f"{row.theory_sops:,.0f}" if on_chip else "–",
            f"{row.measured_mJ * 1e3:,.3f}",
        )
    return result


def _figures(record: Record, theory: Theory, torch_top1: float | None) -> list[tuple[str, str]]:
    """Accuracies, counts and energies: a label and a text for each line."""
    execution, rows = record.execution, []
    if record.accuracy is not None:
        if torch_top1 is not None:
            rows.append(("top-1 in torch, unquantised", f"{torch_top1:7.1%}"))
        how = f"{execution.backend}, {PRECISION_TITLES[execution.precision]}"
        rows.append((f"top-1 in {how}", f"{record.accuracy.top1:7.1%}"))
    rows.append((f"spikes per {record.unit}", f"{record.totals.spikes:14,.0f}"))
    rows.append((f"syn_ops per {record.unit}", f"{record.totals.syn_ops:14,.0f}"))
    rows += [energy_line(entry, record.unit) for entry in record.energy if entry.terms]
    rows.append(
        (f"energy per {record.unit}, theory", f"{_millijoule(theory.energy_mJ)}   (paper's formula, measured rates)")
    )
    return rows + _ann_lines(record)


def _ann_lines(record: Record) -> list[tuple[str, str]]:
    """The break-even rate against an ANN of the same shape, in INT8, without and with memory."""
    models = [model_named(name) for name in (ANN_MODEL, ann.MEMORY_MODEL)]
    lines = []
    for row in (row for row in ann.comparison(record, models) if row.model == ANN_MODEL):
        label = f"break-even rate, INT8, {'memory' if row.memory else 'arithmetic'}"
        rate = "" if row.total.rate is None else f"; measured {share(row.total.rate)}"
        bits = ann.activation_bits(record.execution.steps)
        without = "" if row.without_products is None else f"; without product units {row.without_products.limit}"
        lines.append((label, f"  {row.total.limit}   (an ANN of {bits}-bit activations{rate}{without})"))
    return lines


def energy_line(entry: EnergyEntry, unit: str) -> tuple[str, str]:
    """Return the label and the text of an energy per sample, which is called `unit`."""
    if entry.total_mJ is None:
        parts = {"no price": entry.unpriced, "lower bound": [*entry.lower_bounds]}
        bound, note = ">=", "; ".join(f"{what}: {', '.join(events)}" for what, events in parts.items() if events)
    else:
        bound, note = "", f"excludes {', '.join(entry.excludes)}"
    label = f"energy per {unit}, {entry.model:<19}{bound:>2}"
    return label, f"{_millijoule(entry.priced_mJ)}   ({entry.evidence}; {note})"


def _millijoule(energy: float) -> str:
    """Format an energy in a column; a small network's has too many zeros for fixed decimals."""
    return f"{energy:14.6f} mJ" if energy >= 1e-4 or energy == 0 else f"{energy:14.3e} mJ"


def _in_unit(value: float, unit: str) -> str:
    return fraction(value) if unit == "fraction" else f"{value:.4g} {unit}"
