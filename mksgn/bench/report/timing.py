"""The time on the chip as the page states it, of records that have it (`timing`)."""

from dataclasses import dataclass

from mksgn.bench.numbers import counted, percent, significant
from mksgn.bench.record import Record
from mksgn.bench.step_time import EVENT_WORDS, PlacementTime, Span, Timing


@dataclass(frozen=True)
class TimeOnChip:
    """The time on the chip in words.

    Attributes:
        value: The latency of one body, with its unit; None where no model has latencies.
        note: What it is of, and the model that it comes from.
        bound_by: What takes most of the time, in a word or two.
        limited_by: A sentence on what takes the time.
        where: Chip, cores and model.
        timings: All of the record's.
    """

    value: str | None
    note: str
    bound_by: str
    limited_by: str
    where: str
    timings: tuple[Timing, ...]


def timing_of(record: Record) -> TimeOnChip | None:
    """Return a record's time on the chip, under the first model that has latencies and its fastest placement."""
    if not record.timing:
        return None
    timed = [
        (timing, row)
        for timing in record.timing
        for row in timing.placements
        if row.step_us is not None and row.latency_us is not None and row.samples_per_second is not None
    ]
    if not timed:
        return TimeOnChip(None, "no timing model with latencies", "", "", "", tuple(record.timing))
    first = timed[0][0]
    timing, row = min(
        (pair for pair in timed if pair[0] is first), key=lambda pair: pair[1].step_us.lower if pair[1].step_us else 0.0
    )
    assert row.latency_us is not None
    assert row.samples_per_second is not None
    where = f"{counted(row.cores, 'core')} on {counted(row.chips, 'chip')} of {timing.chip}, {row.place}"
    note = (
        f"latency of one body in an empty pipeline, {timing.latency_steps} + {timing.steps} steps; streaming "
        f"{between(row.samples_per_second)} {record.unit}s/s; {where}; a model's time ({timing.model}), from "
        f"{counted(timing.bodies, 'counted body')}"
    )
    bound_by = f"{EVENT_WORDS[row.binding[0].event].capitalize()}." if row.binding else ""
    modelled = f"Modelled by {timing.model} on {where}"
    return TimeOnChip(duration(row.latency_us), note, bound_by, limited_by(row), modelled, tuple(record.timing))


def limited_by(row: PlacementTime) -> str:
    """Say what binds most of the steps of a placement; empty without latencies."""
    if not row.binding:
        return ""
    first, *others = row.binding
    text = f"The busiest core belongs to {first.population} in {percent(first.share)} of the step time"
    shown = others[:2]
    if shown:
        rest = 1 - first.share - sum(b.share for b in shown)
        text += f", to {' and '.join(f'{b.population} in {percent(b.share)}' for b in shown)}"
        text += f", to others in {percent(rest)}" if rest > 0.005 else ""
    return f"{text}."


def between(span: Span) -> str:
    """Format a lower bound and an estimate of numbers."""
    return f"{significant(span.lower)} to {significant(span.estimate)}"


def duration(span: Span) -> str:
    """Format a lower bound and an estimate in µs, as ms where they are long."""
    unit, factor = ("ms", 1e-3) if span.lower >= 1e3 else ("µs", 1.0)
    return f"{significant(span.lower * factor)} to {significant(span.estimate * factor)} {unit}"
