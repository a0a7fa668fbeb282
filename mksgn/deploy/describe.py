"""A program as a table or as JSON: where and when each population runs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mksgn.common.console import output
from mksgn.common.tables import table
from mksgn.deploy.choices import PRECISION_TITLES
from mksgn.deploy.passes.schedule import Window, schedule
from mksgn.deploy.program.neurons import FixedNeuron, Neuron
from mksgn.deploy.program.program import Population, Program
from mksgn.deploy.program.text import value_range
from mksgn.export.choices import SUBTRACT, SUBTRACT_AT_ONCE, ZERO
from mksgn.export.loihi import SUB_UNITS
from mksgn.train.checkpoint import sha256

SCHEMA = "mksgn.program/1"

SAMPLES = 3  # samples in the picture
PICTURE_LIMIT, NAMES_WIDTH = 96, 24  # time steps; fewest columns for the names next to them
LOOP = "↺"
RESETS = {ZERO: "resets to 0", SUBTRACT: "subtracts in the next step", SUBTRACT_AT_ONCE: "subtracts at once"}


def describe(program: Program, steps: int | None) -> None:
    """Print a row per population, and below them when each handles the first samples.

    Args:
        program: a balanced program.
        steps: steps of a sample; None: not known, and no schedule is printed.
    """
    windows = {} if steps is None else schedule(program, SAMPLES, steps)
    every = "number of steps per sample unknown" if steps is None else f"one sample every {steps} steps"
    units = f" ({program.unit_steps} in product units, which take no step below)" if program.unit_steps else ""
    left = ("population", "kind", "location", "shape")
    rows = [
        (
            population.name,
            population.kind,
            population.location,
            " x ".join(map(str, population.shape)),
            str(population.depth),
            ", ".join(map(str, _delays(program, population))) or "–",
            str(population.depth if (window := windows.get(population.name)) is None else window.offset),
            "–" if window is None else f"{window.offset} … {window.offset + window.period - 1}",
            _neuron(population.neuron),
        )
        for population in program.populations
    ]
    title = f"{PRECISION_TITLES[program.precision]}, {every}, latency {program.latency}{units}"
    headings = (*left, "depth", "delays", "reset offset", "first sample's window", "neuron")
    output.print(table(title, headings, rows, left=(*left, "delays", "neuron")))
    if steps is None:
        output.print("(give --inputs, or a file that says how many steps a sample has, for its window)")
    else:
        _picture(program, windows)


def document(model: Path, program: Program, steps: int | None) -> dict[str, Any]:
    """Return the rows of `describe` for JSON, under the names of run.json where it has them.

    Args:
        model: the program's file.
        program: a balanced program.
        steps: steps of a sample; None: not known, and there are no windows.
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
                "delays": [
                    {"from": delay.source, "steps": delay.steps, "loop": delay.loop}
                    for delay in _delays(program, population)
                ],
                "reset_offset": population.depth if window is None else window.offset,
                "window": None if window is None else [window.offset, window.offset + window.period - 1],
                "neuron": None if population.neuron is None else _neuron_fields(population.neuron),
            }
        )
    return {
        "schema": SCHEMA,
        "model": {"file": model.name, "sha256": sha256(model)},
        "execution": {"precision": program.precision, "steps": steps, "latency_steps": program.latency},
        "layers": populations,
    }


def _neuron(neuron: Neuron | None) -> str:
    """Say how a population resets, and where it starts if not at 0."""
    how = None if neuron is None else _reset(neuron)
    reset = "–" if how is None else RESETS[how]
    if getattr(neuron, "reset", None) is not None and how == ZERO:
        reset = "resets to v_reset"
    if neuron is None or neuron.initial is None:
        return reset
    return f"{reset}, starts at {value_range(neuron.initial / _per_unit(neuron))} weight units"


def _neuron_fields(neuron: Neuron) -> dict[str, Any]:
    """Return the same for JSON, with the smallest and the largest value over the population, in weight units."""
    reset, unit = _reset(neuron), _per_unit(neuron)
    lowered = neuron.subtract if neuron.subtract_next is None else neuron.subtract_next
    return {
        "reset": reset,
        "threshold": _bounds(_threshold(neuron)),
        "v_reset": _bounds(getattr(neuron, "reset", None), 0.0) if reset == ZERO else None,
        "subtracted": None if lowered is None else _bounds(lowered / unit),
        "v_init": _bounds(None if neuron.initial is None else neuron.initial / unit, 0.0),
    }


def _reset(neuron: Neuron) -> str | None:
    """Return what a spike does to the membrane, as a value of --reset; None: the population never fires."""
    if _threshold(neuron) is None:
        return None
    if neuron.subtract is not None:
        return SUBTRACT_AT_ONCE
    return ZERO if neuron.subtract_next is None else SUBTRACT


def _threshold(neuron: Neuron) -> np.ndarray | None:
    return neuron.vth if isinstance(neuron, FixedNeuron) else neuron.threshold


def _per_unit(neuron: Neuron) -> int:
    """Return the units of a membrane potential per weight unit."""
    return SUB_UNITS if isinstance(neuron, FixedNeuron) else 1


def _bounds(x: np.ndarray | None, default: float | None = None) -> list[float] | None:
    if x is None:
        return None if default is None else [default, default]
    return [float(np.min(x)), float(np.max(x))]


@dataclass(frozen=True)
class Delay:
    """Steps by which a spike of `source` is delayed; in a loop these are the file's own."""

    source: str
    steps: int
    loop: bool

    def __str__(self) -> str:
        if not self.loop:
            return f"{self.source} +{self.steps}"
        return f"{self.source} {LOOP}{self.steps}" if self.steps else f"{self.source} in the same step"


def _delays(program: Program, population: Population) -> list[Delay]:
    """List the synaptic delays, and the edges of a loop with their logical delay."""
    delays = []
    for projection in program.into(population.name):
        for index, source in enumerate(projection.sources):
            if program[source].group == population.group:
                delays.append(Delay(source, projection.logical_delay, True))
            elif delay := program.synaptic_delay(projection, index):
                delays.append(Delay(source, delay, False))
    return list(dict.fromkeys(delays))


def _picture(program: Program, windows: dict[str, Window]) -> None:
    """Print when each population handles samples; populations of the same depth share a line."""
    length = max(window.end for window in windows.values())
    most = min(PICTURE_LIMIT, output.width - NAMES_WIDTH)
    if length > most:
        output.print(f"(no picture: {length} time steps, the limit is {most})")
        return
    lines: dict[int, list[str]] = {}
    for population in program.populations:
        lines.setdefault(population.depth, []).append(population.name)
    output.print(f"time step → (digits: the sample being processed; {SAMPLES} samples)")
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
