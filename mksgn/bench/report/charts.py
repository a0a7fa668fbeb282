"""Geometry of the page's charts in SVG units. data/report_charts.html draws them, data/report.css colours them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mksgn.bench import numbers
from mksgn.bench.energy_models import Anchor
from mksgn.bench.numbers import SUPERSCRIPT, shortened
from mksgn.bench.record import EnergyEntry

WIDTH, LEFT, RIGHT = 960, 214, 946  # of the drawing, and of the plot area, to the right of the labels
GUTTER = 22  # between panels
VALUES = 74  # width of the text after the longest bar
ROW, BAR = 20, 12
HEAD = 40  # height of a panel's title and axis
MOST_LETTERS = 30  # of a label; its tooltip is the full name
SQUARES = 48  # up to this many cores of a layer are drawn one by one
ENERGY_ROW, LINE_TEXT = 26, 14
ENERGY_VALUES = 150


@dataclass(frozen=True)
class Tick:
    """A tick of an axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Column:
    """The data of one panel: a value of 0 or more and its text for each label. None prints the text alone."""

    title: str
    values: Sequence[float | None]
    texts: Sequence[str]
    unit: str = ""  # "%" for fractions
    marks: Sequence[float | None] = ()  # a second value for each label, drawn as a line across its bar
    end: float | None = None  # of the axis, unless a value is larger; None: the next round number
    squares: bool = False  # draw whole numbers as that many squares


@dataclass(frozen=True)
class Bar:
    """A bar from the panel's left edge to x."""

    x: float
    text: str
    mark: float | None
    over: bool  # the value exceeds the given end of the axis
    squares: int


@dataclass(frozen=True)
class Panel:
    """A column of bars with its own axis."""

    title: str
    left: float
    ticks: tuple[Tick, ...]
    bars: tuple[Bar | None, ...]  # None if there is no value
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    """The label of a row."""

    short: str
    full: str
    y: float  # centre of the row


@dataclass(frozen=True)
class BarChart:
    """Labelled rows with one or more panels side by side."""

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
    """Lay out horizontal bars on linear axes that start at 0.

    Args:
        name: Suffix of the figure's id.
        title: Title of the figure.
        caption: Sentence after the title.
        labels: One for each row.
        columns: One for each panel, with a value for each label.
        legend: Pairs of a series and its text.
    """
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
class EnergyPoint:
    """One energy model's value on the logarithmic axis."""

    label: Label
    series: str  # "total", "bound", "anchor" or "none"
    x: float
    every_step: float | None  # the total with the first layer charged at every step
    text: str


@dataclass(frozen=True)
class EnergyChart:
    """All energy models on one logarithmic axis, with vertical lines for published figures."""

    rows: tuple[EnergyPoint, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[tuple[float, float, str, str], ...]  # x of the line; y, text-anchor and text of its label
    top: float
    bottom: float
    left: float
    right: float


def energy_chart(
    energy: Sequence[EnergyEntry], anchors: Mapping[str, Anchor], lines: Sequence[tuple[float, str]]
) -> EnergyChart:
    """Lay out totals, lower bounds where events have no price, and anchors.

    Args:
        energy: The run under every model.
        anchors: By model, the measurement of another network as a whole.
        lines: mJ and label of each published figure.
    """
    points: list[tuple[str, str, float, float | None, str]] = []
    for entry in energy:
        anchor = anchors.get(entry.model)
        if entry.total_mJ is not None:
            points.append(
                (entry.model, "total", entry.total_mJ, entry.total_every_step_mJ, numbers.energy(entry.total_mJ))
            )
        elif anchor is not None:
            text = f"{anchor.energy_per_inference_mJ:g} mJ, {anchor.network}"
            points.append((entry.model, "anchor", anchor.energy_per_inference_mJ, None, text))
        elif entry.terms:
            points.append((entry.model, "bound", entry.priced_mJ, None, f"≥ {numbers.energy(entry.priced_mJ)}"))
        else:
            points.append((entry.model, "none", 0.0, None, "no price for this run"))
    values = [value for _, _, once, every, _ in points for value in (once, every) if value]
    values += [value for value, _ in lines]
    low, high = math.floor(math.log10(min(values, default=1.0))), math.ceil(math.log10(max(values, default=1.0)))
    high = max(high, low + 1)
    right = RIGHT - ENERGY_VALUES
    scale = (right - LEFT) / (high - low)

    def at(value: float) -> float:
        return LEFT + scale * (math.log10(value) - low) if value > 0 else float(LEFT)

    top = 22.0 + LINE_TEXT * len(lines)
    rows = []
    for number, (name, series, once, every, text) in enumerate(points):
        label = Label(shortened(name, MOST_LETTERS), name, top + ENERGY_ROW * (number + 0.5))
        rows.append(EnergyPoint(label, series, at(once), at(every) if every and every != once else None, text))
    placed = []
    for number, (value, text) in enumerate(sorted(lines)):
        side = "end" if at(value) > (LEFT + right) / 2 else "start"
        placed.append((at(value), 31.0 + LINE_TEXT * number, side, text))
    ticks = tuple(Tick(at(10.0**power), power_text(power)) for power in range(low, high + 1))
    return EnergyChart(tuple(rows), ticks, tuple(placed), top, top + ENERGY_ROW * len(rows), LEFT, right)


def nice_step(highest: float, steps: int) -> float:
    """Return the least of 1, 2 or 5 times a power of ten of which at most `steps` reach the highest value."""
    power = 10.0 ** math.floor(math.log10(highest / steps))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power * steps >= highest * (1 - 1e-9))


def tick_text(value: float, unit: str) -> str:
    """Return a tick's text, with a suffix for thousands, millions and billions."""
    if unit == "%":
        return f"{100 * value:g} %"
    for divisor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= divisor:
            return f"{value / divisor:g}{suffix}"
    return f"{value:g}"


def power_text(power: int) -> str:
    """Return a power of ten as a tick's text."""
    return f"{10.0**power:g}" if -4 < power < 5 else f"10{str(power).translate(SUPERSCRIPT)}"
