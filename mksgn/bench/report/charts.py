"""Geometry of the page's charts, in SVG units; the template draws them, the page's style colours them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mksgn.bench.energy_models import Anchor
from mksgn.bench.numbers import SUPERSCRIPT, millijoule, shortened
from mksgn.bench.record import EnergyEntry

WIDTH, LEFT, RIGHT = 960, 214, 946  # of the drawing, and of what is plotted: labels stand before it
GUTTER = 22  # between two panels
VALUES = 74  # room for a value's text behind the longest bar
ROW, BAR = 20, 12
HEAD = 40  # a panel's title and its axis
MOST_LETTERS = 30  # of a label; the full one is its title
SQUARES = 48  # cores of one layer up to which each is drawn
ENERGY_ROW, LINE_TEXT = 26, 14
ENERGY_VALUES = 150


@dataclass(frozen=True)
class Tick:
    x: float
    text: str


@dataclass(frozen=True)
class Column:
    """What one panel shows: a value for each label, from 0 on, with its text. None: the text alone."""

    title: str
    values: Sequence[float | None]
    texts: Sequence[str]
    unit: str = ""  # % for fractions
    marks: Sequence[float | None] = ()  # a second value for each label, a line across its bar
    end: float | None = None  # of the axis, if no value is larger; None: the next round number
    squares: bool = False  # whole numbers, drawn one by one


@dataclass(frozen=True)
class Bar:
    x: float  # its end
    text: str
    mark: float | None
    over: bool  # past the axis's given end
    squares: int


@dataclass(frozen=True)
class Panel:
    title: str
    left: float
    ticks: tuple[Tick, ...]
    bars: tuple[Bar | None, ...]  # None: no value
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    short: str
    full: str
    y: float  # middle of the row


@dataclass(frozen=True)
class BarChart:
    """Rows with a label each, and one or more panels beside each other."""

    name: str
    title: str
    caption: str
    labels: tuple[Label, ...]
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str], ...]  # series, text
    bottom: float


def bar_chart(
    name: str,
    title: str,
    caption: str,
    labels: Sequence[str],
    columns: Sequence[Column],
    legend: Sequence[tuple[str, str]] = (),
) -> BarChart:
    """Horizontal bars on linear axes from 0."""
    rows = tuple(
        Label(shortened(label, MOST_LETTERS), label, HEAD + ROW * (number + 0.5)) for number, label in enumerate(labels)
    )
    width = (RIGHT - LEFT - GUTTER * (len(columns) - 1)) / len(columns)
    panels = tuple(_panel(column, LEFT + number * (width + GUTTER), width) for number, column in enumerate(columns))
    return BarChart(name, title, caption, rows, panels, tuple(legend), HEAD + ROW * len(rows))


def _panel(column: Column, left: float, width: float) -> Panel:
    marks = column.marks or [None] * len(column.values)
    highest = max((value for value in (*column.values, *marks) if value is not None), default=0.0) or 1.0
    one_by_one = column.squares and highest <= SQUARES
    given = SQUARES if one_by_one else column.end
    step = nice_step(max(highest, given or 0.0), 5 if width > 400 else 3)
    end = given if given is not None and highest <= given else step * math.ceil(highest / step - 1e-9)
    scale = (width - VALUES) / end
    bars = tuple(
        None
        if value is None
        else Bar(
            left + value * scale,
            text,
            None if mark is None else left + mark * scale,
            column.end is not None and value > column.end,
            round(value) if one_by_one else 0,
        )
        for value, text, mark in zip(column.values, column.texts, marks, strict=True)
    )
    ticks = (step * number for number in range(math.floor(end / step + 1e-9) + 1))
    return Panel(
        column.title,
        left,
        tuple(Tick(left + value * scale, tick_text(value, column.unit)) for value in ticks),
        bars,
        tuple(column.texts),
    )


@dataclass(frozen=True)
class EnergyRow:
    label: Label
    series: str  # total, bound, anchor
    x: float
    every_step: float | None  # the total with the first layer charged at every step
    text: str


@dataclass(frozen=True)
class EnergyChart:
    """Every model on one logarithmic axis, the published figures as lines across it."""

    rows: tuple[EnergyRow, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[tuple[float, float, str, str], ...]  # x; of the text: y, which end of it, the text
    top: float
    bottom: float
    left: float
    right: float


def energy_chart(
    energy: Sequence[EnergyEntry], anchors: Mapping[str, Anchor], lines: Sequence[tuple[float, str]]
) -> EnergyChart:
    """Totals, lower bounds where events are unpriced, and networks measured whole; `lines`: mJ and text."""
    found: list[tuple[str, str, float, float | None, str]] = []
    for entry in energy:
        anchor = anchors.get(entry.model)
        if entry.total_mJ is not None:
            found.append((entry.model, "total", entry.total_mJ, entry.total_every_step_mJ, millijoule(entry.total_mJ)))
        elif anchor is not None:
            text = f"{anchor.energy_per_inference_mJ:g} mJ, {anchor.network}"
            found.append((entry.model, "anchor", anchor.energy_per_inference_mJ, None, text))
        elif entry.terms:
            found.append((entry.model, "bound", entry.priced_mJ, None, f"≥ {millijoule(entry.priced_mJ)}"))
        else:
            found.append((entry.model, "none", 0.0, None, "prices nothing here"))
    values = [value for _, _, once, every, _ in found for value in (once, every) if value]
    values += [value for value, _ in lines]
    low, high = math.floor(math.log10(min(values, default=1.0))), math.ceil(math.log10(max(values, default=1.0)))
    high = max(high, low + 1)
    right = RIGHT - ENERGY_VALUES
    scale = (right - LEFT) / (high - low)

    def at(value: float) -> float:
        return LEFT + scale * (math.log10(value) - low) if value > 0 else float(LEFT)

    top = 22.0 + LINE_TEXT * len(lines)
    rows = []
    for number, (name, series, once, every, text) in enumerate(found):
        label = Label(shortened(name, MOST_LETTERS), name, top + ENERGY_ROW * (number + 0.5))
        rows.append(EnergyRow(label, series, at(once), at(every) if every and every != once else None, text))
    placed = []
    for number, (value, text) in enumerate(sorted(lines)):
        side = "end" if at(value) > (LEFT + right) / 2 else "start"
        placed.append((at(value), 31.0 + LINE_TEXT * number, side, text))
    ticks = tuple(Tick(at(10.0**power), _power_text(power)) for power in range(low, high + 1))
    return EnergyChart(tuple(rows), ticks, tuple(placed), top, top + ENERGY_ROW * len(rows), LEFT, right)


def nice_step(highest: float, steps: int) -> float:
    """1, 2 or 5 times a power of ten, so that at most `steps` of them reach the highest value."""
    power = 10.0 ** math.floor(math.log10(highest / steps))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * steps >= highest * (1 - 1e-9))


def tick_text(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:g} %"
    for divisor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= divisor:
            return f"{value / divisor:g}{suffix}"
    return f"{value:g}"


def _power_text(power: int) -> str:
    return f"{10.0**power:g}" if -4 < power < 5 else f"10{str(power).translate(SUPERSCRIPT)}"
