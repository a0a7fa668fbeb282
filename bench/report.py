"""report.html from a run's folder: one self-contained page, for readers who do not know the code.

The page is data/report.html (jinja2, everything escaped); charts are inline SVG, whose geometry is computed here and
whose colours follow the page (light, dark, print). No script, no font, no request: it opens without a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mksgn.bench.claims import SUPERSCRIPT, percent, published_claims, reprice, significant
from mksgn.bench.energy_models import DATA, known_models
from mksgn.bench.record import RUN_FILE, Record, load, write_atomically
from mksgn.bench.theory import PAPER_MODEL, theory_of

REPORT_FILE = "report.html"
WIDTH, PLOT_LEFT, PLOT_RIGHT = 960, 240, 800  # SVG units: labels, plot, room for the values
BAR, GAP, TOP = 13, 9, 26
BACKENDS = {"lava": "Lava", "emulator": "the emulator"}
PRECISIONS = {"fixed": "fixed point", "float": "floating point"}


@dataclass(frozen=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A bar or a dot: its end on the axis, the value in words, and its series (a CSS class)."""

    x: float
    y: float
    text: str
    series: str


@dataclass(frozen=True)
class Row:
    label: str
    full_label: str
    y: float  # middle of the row
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Chart:
    title: str
    caption: str
    rows: tuple[Row, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[Tick, ...] = ()  # reference values across all rows
    legend: tuple[tuple[str, str], ...] = ()  # series, text
    bottom: float = 0.0

    width: int = WIDTH
    left: int = PLOT_LEFT
    right: int = PLOT_RIGHT
    bar: int = BAR


def write_report(run_dir: Path | str) -> Path:
    """Render run_dir/run.json into run_dir/report.html and return that path. Raises BadInputError for a bad record."""
    run_dir = Path(run_dir)
    path = run_dir / REPORT_FILE
    write_atomically(path, render(load(run_dir / RUN_FILE)))
    return path


def render(record: Record) -> str:
    """The page for one run."""
    environment = Environment(
        loader=FileSystemLoader(DATA), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, amount=amount, millijoule=millijoule, share=share, percent=percent)
    environment.filters["breakable"] = breakable
    return environment.get_template(REPORT_FILE).render(_context(record)).lstrip()


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}"


def amount(value: float | None) -> str:
    """A per-clip mean: whole from 1000 on, else three significant digits."""
    if value is None:
        return "–"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return significant(value)


def millijoule(value: float | None) -> str:
    """An energy in mJ, so that all of them compare at a glance."""
    return "–" if value is None else f"{amount(value)} mJ"


def share(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def breakable(name: str) -> Markup:
    """A dotted name that may break after its dots."""
    return Markup(".<wbr>").join(name.split("."))


def _context(record: Record) -> dict[str, Any]:
    """Everything that the page shows, beside the record itself."""
    theory = theory_of(record)
    models = {model.name: model for model in known_models()}
    own = next((entry for entry in record.energy if entry.model == PAPER_MODEL), None)
    published = next((claim for claim in record.claims if claim.unit == "mJ"), None)
    figures = published_claims()
    reference = next(figure.reference_mJ for figure in figures if figure.reference_mJ is not None)
    clips = record.data.clips
    rates = [[(layer.firing_rate, share(layer.firing_rate), "measured")] for layer in record.layers]
    deliveries = [[(row.syn_ops, amount(row.syn_ops), "measured")] for row in theory.layers]
    both = [
        [(row.theory_sops, amount(row.theory_sops), "theory"), (row.syn_ops, amount(row.syn_ops), "measured")]
        for row in theory.layers
    ]
    names = [layer.name for layer in record.layers]
    return {
        "record": record,
        "theory": theory,
        "models": models,
        "own": own,
        "published": published,
        "reference_mJ": reference,
        "repriced": reprice(figures[0], reference, list(models.values())),
        "repriced_figure": figures[0],
        "backend": BACKENDS[record.execution.backend],
        "precision": PRECISIONS[record.execution.precision],
        "paper_model": PAPER_MODEL,
        "layers": list(zip(record.layers, theory.layers, strict=True)),
        "layer_energy_mJ": math.fsum(row.measured_mJ for row in theory.layers),
        "spikes": sum(layer.spikes for layer in record.layers) / clips,
        "clips": clips,
        "charts": {
            "rates": bars("Firing rate", "Spikes per neuron and step, %.", names, rates, "%"),
            "syn_ops": bars("Synaptic operations", "Deliveries per clip.", names, deliveries),
            "theory": bars(
                "Theory and measured",
                "Synaptic operations per clip.",
                names,
                both,
                legend=(("theory", "theory: the paper's formula"), ("measured", "measured: events of this run")),
            ),
            "energy": _energy_chart(record, published.published if published else None, reference),
        },
    }


def bars(
    title: str,
    caption: str,
    labels: Sequence[str],
    rows: Sequence[Sequence[tuple[float, str, str]]],
    unit: str = "",
    legend: tuple[tuple[str, str], ...] = (),
) -> Chart:
    """Horizontal bars from 0 on a linear axis: per label one or more (value, text, series)."""
    highest = max((value for row in rows for value, _, _ in row), default=0.0) or 1.0
    step = _nice_step(highest)
    end = step * math.ceil(highest / step - 1e-9)
    scale = (PLOT_RIGHT - PLOT_LEFT) / end
    placed, y = [], float(TOP)
    for label, row in zip(labels, rows, strict=True):
        marks = tuple(
            Mark(PLOT_LEFT + value * scale, y + BAR * number, text, series)
            for number, (value, text, series) in enumerate(row)
        )
        placed.append(Row(_shorten(label), label, y + BAR * len(row) / 2, marks))
        y += BAR * len(row) + GAP
    values = [step * number for number in range(round(end / step) + 1)]
    ticks = tuple(Tick(PLOT_LEFT + value * scale, _tick_text(value, unit)) for value in values)
    return Chart(title, caption, tuple(placed), ticks, legend=legend, bottom=y)


def _energy_chart(record: Record, published: float | None, reference: float) -> Chart:
    """Every model on one logarithmic axis: totals, lower bounds, anchors; the published figure and the GCN as lines."""
    anchors = {model.name: model.anchor for model in known_models() if model.anchor}
    found: list[tuple[str, float, str, str]] = []
    for entry in record.energy:
        anchor = anchors.get(entry.model)
        if entry.total_mJ is not None:
            found.append((entry.model, entry.total_mJ, millijoule(entry.total_mJ), "total"))
        elif anchor is not None:
            text = f"{anchor.energy_per_inference_mJ:g} mJ, {anchor.network}"
            found.append((entry.model, anchor.energy_per_inference_mJ, text, "anchor"))
        else:
            found.append((entry.model, entry.priced_mJ, f"≥ {millijoule(entry.priced_mJ)}", "bound"))
    lines = [(reference, f"GCN, over {reference:g} mJ")] + (
        [(published, f"published {published:g} mJ")] if published else []
    )
    positive = [value for _, value, _, _ in found if value > 0] + [value for value, _ in lines]
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 1e-9)
    scale = (PLOT_RIGHT - PLOT_LEFT) / (high - low)

    def at(value: float) -> float:
        return PLOT_LEFT + scale * (math.log10(value) - low) if value > 0 else float(PLOT_LEFT)

    rows, y = [], TOP + 42.0
    for name, value, text, series in found:
        rows.append(Row(_shorten(name), name, y, (Mark(at(value), y, text, series),)))
        y += BAR + GAP + 4
    ticks = tuple(Tick(at(10.0**power), _power_text(power)) for power in range(low, high + 1))
    return Chart(
        "Energy per clip under every model",
        "mJ, logarithmic.",
        tuple(rows),
        ticks,
        lines=tuple(Tick(at(value), text) for value, text in sorted(lines)),
        legend=(
            ("total", "total"),
            ("bound", "lower bound: events are unpriced"),
            ("anchor", "measured, other network"),
        ),
        bottom=y,
    )


def _power_text(power: int) -> str:
    return f"{10.0**power:g}" if power > -4 else f"10{str(power).translate(SUPERSCRIPT)}"


def _nice_step(highest: float) -> float:
    """1, 2 or 5 times a power of ten, so that at most five steps reach the highest value."""
    power = 10.0 ** math.floor(math.log10(highest / 5))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * 5 >= highest * (1 - 1e-9))


def _tick_text(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:g} %"
    for divisor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= divisor:
            return f"{value / divisor:g}{suffix}"
    return f"{value:g}"


def _shorten(label: str, most: int = 32) -> str:
    """A long name with its middle left out; the full one is in the row's title."""
    half = (most - 1) // 2
    return label if len(label) <= most else f"{label[:half]}…{label[-half:]}"
