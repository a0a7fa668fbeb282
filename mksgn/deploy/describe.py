"""A program as tables: where and when each population runs, and how it was quantised."""

from __future__ import annotations

from rich.table import Table

from mksgn.common.console import output
from mksgn.deploy.passes.schedule import Window, schedule
from mksgn.deploy.program.program import Population, Program

CLIPS = 3  # in the picture
PICTURE_LIMIT = 96  # time steps
LOOP = "↺"


def describe(program: Program, steps: int) -> None:
    """A row per population, and below it when it handles the first clips: one digit a time step, the clip's number."""
    windows = schedule(program, CLIPS, steps)
    table = Table(
        title=f"{program.precision} point, one clip every {steps} steps, latency {program.latency}",
        title_justify="left",
    )
    left = ("population", "kind", "place", "shape", "delays")
    for heading in ("population", "kind", "place", "shape", "depth", "delays", "reset offset", "first clip's window"):
        table.add_column(heading, justify="left" if heading in left else "right")
    for population in program.populations:
        window = windows[population.name]
        table.add_row(
            population.name,
            population.kind,
            population.location,
            " x ".join(map(str, population.shape)),
            str(population.depth),
            _delays(program, population),
            str(window.offset),
            f"{window.offset} … {window.offset + window.period - 1}",
        )
    output.print(table)
    _picture(program, windows)


def _delays(program: Program, population: Population) -> str:
    """What the chip holds back for it, and edges that close a loop."""
    found = []
    for projection in program.into(population.name):
        for index, source in enumerate(projection.sources):
            delay = program.synaptic_delay(projection, index)
            if program[source].group == population.group:
                found.append(
                    f"{source} {LOOP}{projection.logical_delay}"
                    if projection.logical_delay
                    else f"{source} in the same step"
                )
            elif delay:
                found.append(f"{source} +{delay}")
    return ", ".join(dict.fromkeys(found)) or "–"


def _picture(program: Program, windows: dict[str, Window]) -> None:
    """Populations of one depth share a line."""
    length = max(window.end for window in windows.values())
    if length > PICTURE_LIMIT:
        output.print(f"(no picture of {length} time steps: more than {PICTURE_LIMIT})")
        return
    lines: dict[int, list[str]] = {}
    for population in program.populations:
        lines.setdefault(population.depth, []).append(population.name)
    output.print(f"time step → (digits: the clip that is handled; {CLIPS} clips)")
    for _, names in sorted(lines.items()):
        window = windows[names[0]]
        marks = "".join(
            str((t - window.offset) // window.period + 1) if window.inside(t) else "·" for t in range(length)
        )
        output.print(f"  {marks}  {', '.join(names)}", markup=False, highlight=False, soft_wrap=True)
