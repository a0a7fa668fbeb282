"""A program as a table or as JSON: where and when each population runs."""

import math
from pathlib import Path
from typing import Any

from rich.table import Table

from mksgn.common.console import output, table
from mksgn.deploy.passes.schedule import Window, schedule
from mksgn.deploy.program.neurons import FixedNeuron, Neuron
from mksgn.deploy.program.program import Population, Program
from mksgn.deploy.program.text import value_range
from mksgn.export.loihi import SUB_UNITS
from mksgn.train.checkpoint import sha256

SCHEMA = "mksgn.program/1"

SAMPLES = 3  # samples in the picture
PICTURE_LIMIT, NAMES_WIDTH = 96, 24  # time steps, and the least columns for the names beside them
LOOP = "↺"


def describe(program: Program, steps: int | None) -> None:
    """Print a row per population, and below when each handles the first samples.

    Args:
        program: a balanced program.
        steps: of a sample; None: not known, and no schedule is printed.
    """
    windows = {} if steps is None else schedule(program, SAMPLES, steps)
    every = "steps of a sample not known" if steps is None else f"one sample every {steps} steps"
    units = f" ({program.unit_steps} in product units, which take no step below)" if program.unit_steps else ""
    left = ("population", "kind", "location", "shape")
    rows = [
        (
            population.name,
            population.kind,
            population.location,
            " x ".join(map(str, population.shape)),
            str(population.depth),
            _delays(program, population),
            str(population.depth if (window := windows.get(population.name)) is None else window.offset),
            "–" if window is None else f"{window.offset} … {window.offset + window.period - 1}",
            _neuron(population.neuron),
        )
        for population in program.populations
    ]
    title = f"{program.precision} point, {every}, latency {program.latency}{units}"
    headings = (*left, "depth", "delays", "reset offset", "first sample's window", "neuron")
    output.print(table(title, headings, rows, left=(*left, "delays", "neuron")))
    if steps is None:
        output.print("(give --inputs, or a file that says how many steps a sample has, for its window)")
    else:
        _picture(program, windows)


def document(model: Path, program: Program, steps: int | None) -> dict[str, Any]:
    """Return the rows of `describe` for JSON, by the names of run.json where that has them.

    Args:
        model: the program's file.
        program: a balanced program.
        steps: of a sample; None: not known, and there are no windows.
    """
    windows = {} if steps is None else schedule(program, SAMPLES, steps)
    populations = []
    for population in program.populations:
        window = windows.get(population.name)
        populations.append(
            {
                "name": population.name,
                "kind": population.kind,
                "place": population.location,
                "shape": list(population.shape),
                "neurons": math.prod(population.shape),
                "depth": population.depth,
                "delays": _delay_texts(program, population),
                "reset_offset": population.depth if window is None else window.offset,
                "window": None if window is None else [window.offset, window.offset + window.period - 1],
                "neuron": None if population.neuron is None else _neuron(population.neuron),
            }
        )
    return {
        "schema": SCHEMA,
        "model": {"file": model.name, "sha256": sha256(model)},
        "execution": {"precision": program.precision, "steps": steps, "latency_steps": program.latency},
        "layers": populations,
    }


def _neuron(neuron: Neuron | None) -> str:
    """How a population resets, and where it starts if not at 0."""
    if neuron is None or (neuron.vth if isinstance(neuron, FixedNeuron) else neuron.threshold) is None:
        reset = "–"
    elif neuron.subtract is not None:
        reset = "subtracts at once"
    elif neuron.subtract_next is not None:
        reset = "subtracts in the next step"
    else:
        reset = "resets to 0" if getattr(neuron, "reset", None) is None else "resets to v_reset"
    if neuron is None or neuron.initial is None:
        return reset
    per_unit = SUB_UNITS if isinstance(neuron, FixedNeuron) else 1
    return f"{reset}, starts at {value_range(neuron.initial / per_unit)} weight units"


def _delays(program: Program, population: Population) -> str:
    return ", ".join(_delay_texts(program, population)) or "–"


def _delay_texts(program: Program, population: Population) -> list[str]:
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
    return list(dict.fromkeys(delays))


def _picture(program: Program, windows: dict[str, Window]) -> None:
    """Print when each population handles samples; populations of the same depth share a line."""
    length = max(window.end for window in windows.values())
    most = min(PICTURE_LIMIT, output.width - NAMES_WIDTH)
    if length > most:
        output.print(f"(no picture of {length} time steps: more than {most})")
        return
    lines: dict[int, list[str]] = {}
    for population in program.populations:
        lines.setdefault(population.depth, []).append(population.name)
    output.print(f"time step → (digits: the sample that is handled; {SAMPLES} samples)")
    picture = Table.grid(padding=(0, 0, 0, 2))
    picture.add_column(no_wrap=True)
    picture.add_column(overflow="fold")
    for _, names in sorted(lines.items()):
        window = windows[names[0]]
        marks = "".join(
            str((t - window.offset) // window.period + 1) if window.inside(t) else "·" for t in range(length)
        )
        picture.add_row(marks, ", ".join(names))
    output.print(picture)
