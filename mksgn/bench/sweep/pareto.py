"""Results of a sweep: a row for each point, and the Pareto front of accuracy and energy as table and picture."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mksgn.bench.energy_models import EnergyModel, price
from mksgn.bench.numbers import percent, significant
from mksgn.bench.record import Record
from mksgn.bench.record_io import write_atomically
from mksgn.bench.run_files import REPORT_FILES
from mksgn.bench.sweep.grid import Grid, Point
from mksgn.bench.sweep.picture import draw
from mksgn.common.tables import table

SCHEMA = "mksgn.sweep_result/1"
HEADINGS = ("point", "top-1", "mJ per {unit}", "spikes", "syn_ops", "latency", "cores", "mismatches", "limits")


@dataclass(frozen=True)
class Energy:
    """Energy per sample; a lower bound if the model has no price for an event that occurred."""

    mJ: float  # noqa: N815 - a unit
    lower_bound: bool


@dataclass(frozen=True)
class Row:
    """One point: its coordinates and its results. Counts are means per sample."""

    label: str
    model: str
    steps: int
    threshold: float
    bits: int
    chip: str
    top1: float
    spikes: float
    syn_ops: float
    latency_steps: int
    cores: int
    chips: int
    mismatches: int | None  # with another execution, on the samples that were compared
    energy: dict[str, Energy]
    unit: str = "clip"  # what a sample is called
    fit: str = "fits"  # or "not checked", "exceeds": Fit.state
    limits: str = ""  # the same in words, with the limits


def rows(grid: Grid, records: dict[str, Record], models: list[EnergyModel]) -> list[Row]:
    """Return the rows of a grid in its order.

    Args:
        grid: The grid.
        records: Its points' records by label.
        models: Energy models to price them with.
    """
    return [_row(point, records[point.label], models) for point in grid.points()]


def _row(point: Point, record: Record, models: list[EnergyModel]) -> Row:
    assert record.accuracy is not None
    assert record.placement is not None
    entries = [price(model, record.totals, steps=record.execution.steps) for model in models]
    priced = {entry.model: Energy(entry.priced_mJ, entry.total_mJ is None) for entry in entries if entry.terms}
    return Row(
        label=point.label,
        model=point.variant.model,
        steps=record.execution.steps,
        threshold=point.variant.threshold,
        bits=point.variant.bits,
        chip=point.chip,
        top1=record.accuracy.top1,
        spikes=record.totals.spikes,
        syn_ops=record.totals.syn_ops,
        latency_steps=record.totals.latency_steps,
        cores=record.placement.cores,
        chips=record.placement.chips,
        mismatches=None if record.parity is None else record.parity.mismatches,
        energy=priced,
        unit=record.unit,
        fit=record.placement.fit.state,
        limits=record.placement.fit.text(point.chip),
    )


def front(points: list[Row], model: str) -> list[Row]:
    """Return the Pareto-optimal points under an energy model, by increasing energy."""
    priced = [row for row in points if model in row.energy]
    return sorted(
        (row for row in priced if not any(_dominates(other, row, model) for other in priced)),
        key=lambda row: (row.energy[model].mJ, row.label),
    )


def _dominates(one: Row, other: Row, model: str) -> bool:
    """Whether a point is at least as accurate for at most the energy, and better in one of the two."""
    if one.energy[model].lower_bound and not other.energy[model].lower_bound:
        return False  # the true energy may be higher
    a, b = one.energy[model].mJ, other.energy[model].mJ
    return one.top1 >= other.top1 and a <= b and (one.top1 > other.top1 or a < b)


def write(out: Path, grid: Grid, points: list[Row]) -> list[Path]:
    """Write sweep.json, sweep.md and a picture for each energy model, and return their paths."""
    models = dict.fromkeys(model for row in points for model in row.energy)
    fronts = {model: front(points, model) for model in models}
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "grid": grid.model_dump(mode="json", by_alias=True, exclude={"axes": {"model"}}),
        "points": [asdict(row) for row in points],
        "fronts": {model: [row.label for row in best] for model, best in fronts.items()},
    }
    paths = [out / "sweep.json", out / "sweep.md"]
    write_atomically(paths[0], json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    write_atomically(paths[1], markdown(points, fronts))
    for model, best in fronts.items():
        paths.append(out / f"pareto-{re.sub(r'[^A-Za-z0-9_.+-]', '_', model)}.png")
        draw(points, best, model, paths[-1])
    return paths


def front_table(points: list[Row], model: str) -> Table:
    """Return all points under one energy model as a table for the terminal; those on the front are marked."""
    best = {row.label for row in front(points, model)}
    cells = [_cells(row, model, "* " if row.label in best else "  ") for row in points if model in row.energy]
    return table(f"accuracy and energy under {model}; * on the Pareto front", _headings(points), cells)


def _headings(points: list[Row]) -> tuple[str, ...]:
    return tuple(heading.format(unit=points[0].unit) for heading in HEADINGS)


def _cells(row: Row, model: str, mark: str) -> tuple[str, ...]:
    energy = row.energy[model]
    return (
        f"{mark}{row.label}",
        percent(row.top1),
        f"{'≥ ' if energy.lower_bound else ''}{significant(energy.mJ)}",
        f"{row.spikes:,.0f}",
        f"{row.syn_ops:,.0f}",
        f"{row.latency_steps}",
        f"{row.cores}",
        "–" if row.mismatches is None else f"{row.mismatches}",
        row.fit.upper() if row.fit == "not checked" else row.fit,
    )


def fits(points: list[Row]) -> list[str]:
    """Say what does not simply fit its chip, with one line for all points to which the same applies."""
    labels: dict[str, list[str]] = {}
    for row in points:
        if row.fit != "fits":
            labels.setdefault(row.limits, []).append(row.label)
    return [
        f"{', '.join(names) if len(names) < len(points) else 'all points'}: {text}" for text, names in labels.items()
    ]


def tables_and_notes(points: list[Row], models: Iterable[str]) -> Iterator[Table | str]:
    """Yield what a terminal shows of a sweep: a table under each energy model, and what does not fit."""
    yield from (front_table(points, model) for model in models)
    yield from fits(points)


def markdown(points: list[Row], fronts: dict[str, list[Row]]) -> str:
    """Return a table for each energy model in GitHub's Markdown."""
    lines = []
    for model, best in fronts.items():
        labels = {row.label for row in best}
        lines += [f"## {model}", "", f"| {' | '.join(_headings(points))} |", "|---" * len(HEADINGS) + "|"]
        for row in points:
            if model in row.energy:
                name, *figures = _cells(row, model, "")
                mark = "**front** " if row.label in labels else ""
                link = f"[{name}](points/{name}/{REPORT_FILES[0]})"
                lines.append(f"| {' | '.join((mark + link, *figures))} |")
        lines.append("")
    lines += [f"- {line}" for line in fits(points)]
    return "\n".join(lines)
