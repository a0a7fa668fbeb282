"""A program as a table: where and when each population runs."""

from rich.table import Table

from mksgn.common.console import output
from mksgn.deploy.passes.schedule import Window, schedule
from mksgn.deploy.program.program import Population, Program

SAMPLES = 3  # samples in the picture
PICTURE_LIMIT = 96  # time steps
LOOP = "↺"


def describe(program: Program, steps: int) -> None:
    """Print a row per population, and below when each handles the first samples."""
    windows = schedule(program, SAMPLES, steps)
    title = f"{program.precision} point, one sample every {steps} steps, latency {program.latency}"
    table = Table(title=title, title_justify="left")
    left = ("population", "kind", "location", "shape")
    for heading in (*left, "depth", "delays", "reset offset", "first sample's window"):
        table.add_column(heading, justify="left" if heading in (*left, "delays") else "right")
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
    """Synaptic delays, and the edges of a loop with their logical delay."""
    delays = []
    for projection in program.into(population.name):
        for index, source in enumerate(projection.sources):
            delay = program.synaptic_delay(projection, index)
            if program[source].group == population.group:
                edge = f"{LOOP}{projection.logical_delay}" if projection.logical_delay else "in the same step"
                delays.append(f"{source} {edge}")
            elif delay:
                delays.append(f"{source} +{delay}")
    return ", ".join(dict.fromkeys(delays)) or "–"


def _picture(program: Program, windows: dict[str, Window]) -> None:
    """Print when each population handles samples; populations of the same depth share a line."""
    length = max(window.end for window in windows.values())
    if length > PICTURE_LIMIT:
        output.print(f"(no picture of {length} time steps: more than {PICTURE_LIMIT})")
        return
    lines: dict[int, list[str]] = {}
    for population in program.populations:
        lines.setdefault(population.depth, []).append(population.name)
    output.print(f"time step → (digits: the sample that is handled; {SAMPLES} samples)")
    for _, names in sorted(lines.items()):
        window = windows[names[0]]
        marks = "".join(
            str((t - window.offset) // window.period + 1) if window.inside(t) else "·" for t in range(length)
        )
        output.print(f"  {marks}  {', '.join(names)}", markup=False, highlight=False, soft_wrap=True)
