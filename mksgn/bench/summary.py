"""The summary of a run on a terminal: counts by population, energies, claims, parity and speed."""

from collections.abc import Iterable, Iterator
from math import floor, log10

from rich.table import Table

from mksgn.bench import ann
from mksgn.bench.energy_models import model_named
from mksgn.bench.numbers import energy, fraction, share, unit_of_energy, words
from mksgn.bench.record import EnergyEntry, Record
from mksgn.bench.report.timing import between, duration
from mksgn.bench.step_time import EVENT_WORDS, PlacementTime
from mksgn.bench.theory import Theory, theory_of
from mksgn.common.console import output
from mksgn.common.tables import table
from mksgn.common.words import counted
from mksgn.deploy.choices import PRECISION_TITLES

ANN_MODEL = "horowitz45-int8"


def show(record: Record, torch_top1: float | None) -> None:
    """Print the summary of a run.

    Args:
        record: The run.
        torch_top1: Top-1 of the unquantised student in torch; None if unknown.
    """
    theory = theory_of(record)
    output.print(_layers_table(record, theory))
    for line in (*_figures(record, theory, torch_top1), *_claim_lines(record), *_parity_lines(record)):
        output.print(line)
    if (placement := record.placement) is not None:
        cores = f"{counted(placement.cores, 'core')} on {counted(placement.chips, 'chip')}"
        output.print(f"placement: {cores}; {placement.fit.text(placement.chip)}")
    for line in timing_lines(record):
        output.print(line)
    execution, spread = record.execution, ""
    if execution.repeats > 1:
        spread = f" ({execution.seconds_min:.1f} to {execution.seconds_max:.1f} s in {execution.repeats} repetitions)"
    speed = f"{execution.seconds:.1f} s{spread}, {execution.clips_per_second:.1f} {record.unit}s/s"
    output.print(
        f"latency: {counted(execution.latency_steps, 'step')} to the first output; simulated on this host in {speed}, start included"
    )


def lines(record: Record) -> str:
    """Return accuracy, counts and energies of a run as text, a line each."""
    return "\n".join(_figures(record, theory_of(record), None))


def energy_lines(entries: Iterable[EnergyEntry], unit: str, theory_mJ: float | None = None) -> Iterator[str]:
    """Yield the energies of a sample in one unit, a line for each model, and then what they leave out.

    Args:
        entries: An energy under each energy model. Those of models that price none of its events are left out.
        unit: What a sample is called.
        theory_mJ: Energy by the paper's formula, with the run's firing rates; None: no line.
    """
    entries = [entry for entry in entries if entry.terms]
    notes = list(dict.fromkeys(_left_out(entry) for entry in entries))
    rows = [
        (entry.model, ">=" if entry.total_mJ is None else "", entry.priced_mJ, f"{entry.evidence:<9}  [{note + 1}]")
        for entry, note in ((entry, notes.index(_left_out(entry))) for entry in entries)
    ]
    if theory_mJ is not None:
        rows.append(("theory", "", theory_mJ, "paper's formula, measured rates"))
    energies = [mj for _, _, mj, _ in rows]
    symbol, per_mj = unit_of_energy(energies)
    decimals = _decimals(mj * per_mj for mj in energies)
    width = max((len(model) for model, *_ in rows), default=0)
    yield f"energy per {unit}, {symbol}{' (>= a lower bound)' if any(bound for _, bound, *_ in rows) else ''}:"
    for model, bound, mj, text in rows:
        yield f"  {model:<{width}}  {bound:>2} {mj * per_mj:12,.{decimals}f}   {text}"
    for number, note in enumerate(notes, 1):
        yield f"  [{number}] {note}"


def timing_lines(record: Record) -> Iterator[str]:
    """Yield the time on the chip, a line for each timing model and placement, and what limits it."""
    for timing in record.timing:
        for row in timing.placements:
            where = f"{counted(row.cores, 'core')} of {timing.chip}, {row.place}"
            if row.step_us is None or row.latency_us is None or row.samples_per_second is None:
                most = f"{row.busiest['messages_in']:,.0f} messages in, {_operations(row):,.0f} synaptic operations of one kind"
                yield f"{timing.model}: busiest of {where}, per step: {most}; no latencies, so no time"
                continue
            yield (
                f"{timing.model}: {where}: step {duration(row.step_us)}, latency {duration(row.latency_us)}, "
                f"{between(row.samples_per_second)} {record.unit}s/s; bound by {binding_text(row)}"
            )


def binding_text(row: PlacementTime) -> str:
    """Say what limits most steps of a placement."""
    first = row.binding[0]
    return f"{first.population} ({EVENT_WORDS[first.event]}, {first.share:.0%} of the step time)"


def _operations(row: PlacementTime) -> float:
    return max(row.busiest[kind] for kind in ("dense", "sparse", "convolution"))


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


def _figures(record: Record, theory: Theory, torch_top1: float | None) -> Iterator[str]:
    """Yield accuracies, counts and energies."""
    execution, rows = record.execution, []
    if record.accuracy is not None:
        if torch_top1 is not None:
            rows.append(("top-1 in torch, unquantised", f"{torch_top1:.1%}"))
        how = f"{execution.backend}, {PRECISION_TITLES[execution.precision]}"
        rows.append((f"top-1 in {how}", f"{record.accuracy.top1:.1%}"))
    rows.append((f"spikes per {record.unit} on the chip", f"{record.totals.spikes:,.0f}"))
    rows.append((f"syn_ops per {record.unit}", f"{record.totals.syn_ops:,.0f}"))
    yield from (f"{label:<32} {text:>12}" for label, text in rows)
    yield from energy_lines(record.energy, record.unit, theory.energy_mJ)
    yield from _ann_lines(record)


def _ann_lines(record: Record) -> Iterator[str]:
    """Yield the firing rates at which an ANN of the same shape costs more, in INT8, without and with memory."""
    models = [model_named(name) for name in (ANN_MODEL, ann.MEMORY_MODEL)]
    rows = [row for row in ann.comparison(record, models) if row.model == ANN_MODEL]
    if not rows:
        return
    rate = rows[0].total.rate
    here = "" if rate is None else f"; mean input rate {share(rate)}"
    bits = ann.activation_bits(record.execution.steps)
    yield f"against an ANN of the same shape (INT8 weights, {bits}-bit activations{here}) this network costs less:"
    for row in rows:
        others = row.without_products
        without = "" if others is None else f"; without product units, at {others.limit}"
        yield f"  in {'arithmetic and memory' if row.memory else 'arithmetic alone'}: at {row.total.limit}{without}"


def _claim_lines(record: Record) -> Iterator[str]:
    """Yield the published figures for which this run has a figure of its own."""
    rows = [claim for claim in record.claims if claim.measured is not None]
    if rows:
        yield "published figures (the report has the verdicts, and the figures of other data):"
    for claim in rows:
        published, here = (_in_unit(value, claim.unit) for value in (claim.published, claim.measured))
        yield f"  {claim.name}: {published}; this run {here}"


def _parity_lines(record: Record) -> Iterator[str]:
    if (parity := record.parity) is None:
        return
    rounding = f" ({parity.rounding:,} of rounding)" if parity.rounding else ""
    mismatches = counted(parity.mismatches, "mismatch")
    yield f"parity against {parity.against}: {mismatches}{rounding} in {parity.decisions:,} decisions"


def _left_out(entry: EnergyEntry) -> str:
    """Say what an energy does not contain, in words."""
    parts = {
        "no price for": entry.unpriced,
        "a lower bound for": [*entry.lower_bounds],
        "left out on purpose:": entry.excludes,
    }
    return "; ".join(f"{what} {words(events)}" for what, events in parts.items() if events)


def _decimals(values: Iterable[float]) -> int:
    """Return how many decimals show three digits of the smallest value in a column, at most six."""
    least = min((value for value in values if value > 0), default=1.0)
    return min(6, max(0, 2 - floor(log10(least))))


def _in_unit(value: float | None, unit: str) -> str:
    return (
        fraction(value)
        if unit == "fraction" and value is not None
        else energy(value).replace("\N{NO-BREAK SPACE}", " ")
    )
