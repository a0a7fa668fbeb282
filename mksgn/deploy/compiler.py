"""Compile any NIR graph into a program: the passes, in order, each verified."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nir

from mksgn.common.progress import track
from mksgn.deploy.choices import BALANCE, FIXED_POINT, GRAPH_BRANCHES, HOST_SPLIT, INGEST, LOOPS, PRECISIONS
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.fixed_point import fixed_point
from mksgn.deploy.passes.graph_branches import merge_graph_branches
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.passes.loops import join_loops
from mksgn.deploy.program.program import Program
from mksgn.deploy.program.verify import Invariant, delays_compensate, groups_are_joined, integers_fit, verify
from mksgn.deploy.torch_settings import threads
from mksgn.export.graph import files
from mksgn.export.graph.arrays import Arrays
from mksgn.export.graph.conventions import with_conventions
from mksgn.export.graph.metadata import json_of
from mksgn.export.graph.standard import standard_form
from mksgn.export.quantization.any_graph import quantize_any

NOT_QUANTISED = (
    "the file is not quantised, and fixed point needs integers: quantise it (mksgn-export FILE --to nir --quantize 8 "
    "--calibration npz:SAMPLES), give calibration samples (--calibration), or run it with --precision float"
)


@dataclass(frozen=True)
class Pass:
    """A named transformation of a program, and the invariants that hold from then on."""

    name: str
    transform: Callable[[Program], Program]
    establishes: tuple[Invariant, ...] = ()


def compile_graph(
    graph: nir.NIRGraph | str | Path,
    *,
    precision: str = "fixed",
    dt: float = 1e-4,
    if_dt: float | None = None,
    analog: tuple[str, ...] = (),
    reset: str = "zero",
    v_init: str = "zero",
    integration: str = "euler",
    spike_delay: int = 0,
    calibration: Arrays | None = None,
    steps: int | None = None,
    after: Callable[[str, Program], None] = lambda name, program: None,
) -> Program:
    """Compile any NIR graph into a balanced program.

    Args:
        graph: a graph, or the path of its file.
        precision: "fixed" (Loihi's integers) or "float".
        dt: time step in seconds, for files that name none.
        if_dt: time step of IF and I; None: `dt`. 1.0 reads v += r x, as most files with IF mean it.
        analog: names of non-spiking inputs.
        reset: what a spike does to the membrane if the file does not say: "zero", "subtract" or
            "subtract-at-once" (mksgn/export/choices names the frameworks that mean it).
        v_init: where a membrane starts if the file does not say: "zero", "v_reset" or "leak".
        integration: what a step does if the file does not say: "euler", "euler-unit", "euler-unit-current",
            "exponential" or "exponential-unit".
        spike_delay: steps until a spike leaves its neuron if the file does not say: 0 or 1.
        calibration: samples for "fixed" and an unquantised file, as in `quantize_any`, whose report
            becomes the program's `quantization`.
        steps: time steps of a sample, if neither the file nor the calibration's arrays say.
        after: called with the name and the result of each pass.

    Raises:
        BadInputError: the graph cannot be run; the error names node, type, reason and remedy.
        PassError: a pass broke an invariant.
    """
    _check_options(precision, dt, if_dt)
    threads.settle_after_fork()
    if not isinstance(graph, nir.NIRGraph):
        graph = files.read(Path(graph))
    if if_dt is None:  # a quantised file records the step with which its IF was integrated
        if_dt = graph.metadata.get("if_dt")
    open_points: dict[str, Any] = {"integration": integration, "spike_delay": spike_delay, "dt": dt, "if_dt": if_dt}
    graph = with_conventions(standard_form(graph), reset, v_init, **open_points)
    if precision == "fixed" and json_of(graph, "quantization") is None:
        if calibration is None:
            raise DeployError(NOT_QUANTISED)
        ingest(graph, dt=dt, if_dt=if_dt, analog=analog)  # reports what cannot run before anything is calibrated
        graph = quantize_any(graph, 8, calibration, dt=dt, if_dt=if_dt, analog=analog, steps=steps, error=DeployError)
    program = ingest(graph, dt=dt, if_dt=if_dt, analog=analog)
    verify(program, INGEST)
    after(INGEST, program)
    established: tuple[Invariant, ...] = ()
    every = passes(precision)
    for compiler_pass in track(every, len(every), "passes of the compiler"):
        program = compiler_pass.transform(program)
        established += compiler_pass.establishes
        verify(program, compiler_pass.name, established)
        after(compiler_pass.name, program)
    return program


def _check_options(precision: str, dt: float, if_dt: float | None) -> None:
    if precision not in PRECISIONS:
        raise DeployError(f"precision {precision!r}: choose {' or '.join(PRECISIONS)}")
    for name, step in (("dt", dt), ("if_dt", if_dt)):
        if step is not None and not 0 < step < math.inf:
            raise DeployError(f"{name} {step}: expected a positive number of seconds")


def passes(precision: str) -> tuple[Pass, ...]:
    """Return the passes after `ingest`, in order."""
    fixed = precision == "fixed"
    return (
        Pass(GRAPH_BRANCHES, merge_graph_branches),
        Pass(LOOPS, join_loops, (groups_are_joined,)),
        # Lava's float Processes also take currents: a program that is for the host alone runs there unsplit
        Pass(HOST_SPLIT, partial(host_split, empty_chip=fixed)),
        *((Pass(FIXED_POINT, _fixed_point, (integers_fit,)),) if fixed else ()),
        Pass(BALANCE, balance, (delays_compensate,)),
    )


def _fixed_point(program: Program) -> Program:
    assert program.quantization is not None
    return fixed_point(program, program.quantization)
