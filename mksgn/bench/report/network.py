"""Geometry of the network's drawing: a bar for each population over its time steps, a line for each projection."""

from dataclasses import dataclass

from mksgn.bench.numbers import shortened
from mksgn.bench.record import Record
from mksgn.bench.report.charts import HEAD, LEFT, MOST_LETTERS, RIGHT, WIDTH, Label, Tick, nice_step
from mksgn.bench.schedule import Schedule

ROW, BAR = 16, 9
KINDS = 150  # width of the text after the last bar


@dataclass(frozen=True)
class Bar:
    """A population, from its first to its last time step of a sample."""

    label: Label
    left: float
    right: float
    place: str  # host or chip
    text: str  # kinds of its projections
    tooltip: str


@dataclass(frozen=True)
class Line:
    """A projection: down from its source's first step, then along the target's row."""

    points: tuple[tuple[float, float], ...]
    held: bool  # the spikes wait for another branch
    tooltip: str


@dataclass(frozen=True)
class NetworkChart:
    """The drawing, in SVG units."""

    bars: tuple[Bar, ...]
    lines: tuple[Line, ...]
    ticks: tuple[Tick, ...]
    bottom: float
    width: int = WIDTH
    steps: int = 0


def network_chart(record: Record) -> NetworkChart | None:
    """Lay out a record's schedule; None where it has none."""
    schedule, steps = record.schedule, record.execution.steps
    if schedule is None or not schedule.populations:
        return None
    last = max(population.depth for population in schedule.populations) + steps
    step = (RIGHT - KINDS - LEFT) / last
    rows = {population.name: number for number, population in enumerate(schedule.populations)}
    depths = {population.name: population.depth for population in schedule.populations}

    def y(name: str) -> float:
        return HEAD + ROW * (rows[name] + 0.5)

    kinds: dict[str, dict[str, None]] = {name: {} for name in rows}
    for projection in schedule.projections:
        kinds[projection.target][projection.kind.replace("_", " ")] = None
    bars = tuple(
        Bar(
            label=Label(shortened(p.name, MOST_LETTERS), p.name, y(p.name)),
            left=LEFT + step * p.depth,
            right=LEFT + step * (p.depth + steps),
            place=p.place,
            text=", ".join(kinds[p.name]) or p.kind,
            tooltip=f"{p.name}, on the {p.place}: steps {p.depth} to {p.depth + steps - 1}",
        )
        for p in schedule.populations
    )
    lines = []
    for (source, target, delay), names in _merged(schedule).items():
        x = LEFT + step * (depths[source] + 0.5)
        held = delay > 0
        end = y(target) - (2.5 if held else 0)
        waits = f", held back by {delay} step{'s' * (delay != 1)}" if held else ""
        points = ((x, y(source)), (x, end), (LEFT + step * depths[target], end))
        lines.append(Line(points, held, f"{source} → {target}: {', '.join(names)}{waits}"))
    every = max(1, round(nice_step(last, 10)))
    ticks = tuple(Tick(LEFT + step * number, str(number)) for number in range(0, last + 1, every))
    return NetworkChart(bars, tuple(lines), ticks, HEAD + ROW * len(rows), steps=steps)


def _merged(schedule: Schedule) -> dict[tuple[str, str, int], list[str]]:
    """Join parallel projections with the same delay, which would be drawn as one line."""
    merged: dict[tuple[str, str, int], list[str]] = {}
    for projection in schedule.projections:
        merged.setdefault((projection.source, projection.target, projection.delay), []).append(
            projection.kind.replace("_", " ")
        )
    return merged
