"""The time on the chip as the page states it, for records that have it (`timing`)."""

from dataclasses import dataclass

from mksgn.bench.numbers import share, significant
from mksgn.bench.record import Record
from mksgn.bench.step_time import EVENT_WORDS, PlacementTime, Span, Timing
from mksgn.common.words import counted


@dataclass(frozen=True)
class TimeOnChip:
    """The time on the chip in words.

    Attributes:
        value: The latency of one body, with its unit; None where no model has latencies.
        note: What the value refers to, and the model that it comes from.
        bound_by: What takes most of the time, in a word or two.
        limited_by: A sentence on what takes the time.
        where: Chip, cores and model.
        chip: The chip whose latencies they are.
        timings: All timings of the record.
    """

    value: str | None
    note: str
    bound_by: str
    limited_by: str
    where: str
    chip: str
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
        return TimeOnChip(None, "no timing model with latencies", "", "", "", "", tuple(record.timing))
    first = timed[0][0]
    timing, row = min(
        (pair for pair in timed if pair[0] is first), key=lambda pair: pair[1].step_us.lower if pair[1].step_us else 0.0
    )
    assert row.latency_us is not None
    assert row.samples_per_second is not None
    where = f"{counted(row.cores, 'core')} on {counted(row.chips, 'chip')} of {timing.chip}, {row.place}"
    note = (
        f"latency by {timing.model}, {timing.latency_steps} + {timing.steps} steps; streaming, "
        f"{between(row.samples_per_second)} {record.unit}s/s on {counted(row.chips, 'chip')} of {timing.chip}"
    )
    bound_by = f"{EVENT_WORDS[row.binding[0].event].capitalize()}." if row.binding else ""
    modelled = f"Modelled by {timing.model} on {where}"
    return TimeOnChip(
        duration(row.latency_us), note, bound_by, limited_by(row), modelled, timing.chip, tuple(record.timing)
    )


def limited_by(row: PlacementTime) -> str:
    """Say whose cores set the time of a step; empty without latencies."""
    if not row.binding:
        return ""
    shares: dict[str, float] = {}
    for binding in row.binding:
        shares[binding.population] = shares.get(binding.population, 0.0) + binding.share
    (first, part), *others = sorted(shares.items(), key=lambda item: -item[1])
    text = f"The busiest core, which sets the time of a step, is one of {first} in {share(part)} of the time"
    shown = others[:2]
    text += "".join(f", of {name} in {share(part)}" for name, part in shown)
    rest = 1 - part - sum(part for _, part in shown)
    return f"{text}{f', of others in {share(rest)}' if rest > 0.005 else ''}."


def between(span: Span) -> str:
    """Format a lower bound and an estimate of numbers."""
    return f"{significant(span.lower)} to {significant(span.estimate)}"


def duration(span: Span) -> str:
    """Format a lower bound and an estimate in µs, as ms where they are long."""
    unit, factor = ("ms", 1e-3) if span.lower >= 1e3 else ("µs", 1.0)
    return f"{significant(span.lower * factor)} to {significant(span.estimate * factor)} {unit}"
