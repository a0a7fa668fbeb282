"""Compile any NIR graph into a program: the passes, in order, each verified."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nir
import numpy as np

from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.fixed_point import fixed_point
from mksgn.deploy.passes.graph_branches import merge_graph_branches
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.passes.loops import join_loops
from mksgn.deploy.program.program import Program
from mksgn.deploy.program.verify import Invariant, delays_compensate, groups_are_joined, integers_fit, verify
from mksgn.export.graph import files
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.graph.conventions import with_conventions
from mksgn.export.graph.metadata import json_of
from mksgn.export.graph.standard import standard_form
from mksgn.export.quantization.quantize import quantize

INGEST, FIXED_POINT = "ingest", "fixed-point"  # passes by name; the others are named where they are listed


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
    calibration: Arrays | None = None,
    after: Callable[[str, Program], None] = lambda name, program: None,
) -> Program:
    """Compile any NIR graph into a balanced program.

    Args:
        graph: a graph, or the path of its file.
        precision: "fixed" (Loihi's integers) or "float".
        dt: time step in seconds, for files that name none.
        if_dt: time step of IF and I; None: `dt`. 1.0 reads v += r x, as most files with IF mean it.
        analog: names of non-spiking inputs.
        reset: what a spike does to the membrane where the file does not say: "zero", "subtract" or
            "subtract-at-once" (mksgn/export/graph/conventions names the frameworks that mean it).
        v_init: where a membrane starts where the file does not say: "zero", "v_reset" or "leak".
        calibration: for "fixed" and a file that is not quantised: (samples, *input shape) or
            (samples, steps, *input shape), or a dict of either by input's name. The graph is
            quantised by export's own function, whose report is the program's `quantization`.
        after: called with name and result of each pass.

    Raises:
        BadInputError: the graph cannot be run; the stage that finds the fault names node, type,
            reason and remedy.
        PassError: a pass broke an invariant.
    """
    if precision not in ("fixed", "float"):
        raise DeployError(f"precision {precision!r}: choose fixed or float")
    for name, step in (("dt", dt), ("if_dt", if_dt)):
        if step is not None and not 0 < step < math.inf:
            raise DeployError(f"{name} {step}: expected a positive number of seconds")
    if not isinstance(graph, nir.NIRGraph):
        graph = files.read(Path(graph))
    graph = with_conventions(standard_form(graph), reset, v_init)
    if precision == "fixed" and json_of(graph, "quantization") is None:
        if calibration is None:
            raise DeployError(
                "the file is not quantised, and fixed point needs integers: export it with --quantize 8, "
                "give calibration samples, or run it with --precision float"
            )
        # what cannot run at all is named before anything is calibrated
        ingest(graph, dt=dt, if_dt=if_dt, analog=analog)
        graph = _quantised(graph, calibration, dt, if_dt, analog)
    program = ingest(graph, dt=dt, if_dt=if_dt, analog=analog)
    verify(program, INGEST)
    after(INGEST, program)
    established: tuple[Invariant, ...] = ()
    for compiler_pass in passes(precision):
        program = compiler_pass.transform(program)
        established += compiler_pass.establishes
        verify(program, compiler_pass.name, established)
        after(compiler_pass.name, program)
    return program


def passes(precision: str) -> tuple[Pass, ...]:
    """Return the passes after `ingest`, in order."""
    fixed = precision == "fixed"
    return (
        Pass("graph-branches", merge_graph_branches),
        Pass("loops", join_loops, (groups_are_joined,)),
        # Lava's float Processes take currents too: a program for the host alone runs there unsplit
        Pass("host-split", partial(host_split, empty_chip=fixed)),
        *((Pass(FIXED_POINT, _fixed_point, (integers_fit,)),) if fixed else ()),
        Pass("balance", balance, (delays_compensate,)),
    )


def _fixed_point(program: Program) -> Program:
    assert program.quantization is not None
    return fixed_point(program, program.quantization)


PASS_NAMES = (INGEST, *(compiler_pass.name for compiler_pass in passes("fixed")))


def _quantised(
    graph: nir.NIRGraph, calibration: Arrays, dt: float, if_dt: float | None, analog: tuple[str, ...]
) -> nir.NIRGraph:
    """Quantise to 8 bits by export's function; its units reach the program through the metadata."""
    steps = graph.metadata.get("steps")
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    arrays = arrays_by_input(calibration, inputs, "calibration of", error=DeployError)
    for name, x in arrays.items():
        node = graph.nodes[name]
        if x.ndim == len(node.input_type["input"]) + 2:
            steps = steps or x.shape[1]
        marked = name in analog or node.metadata.get("signal") == "analog"
        if not marked and np.isfinite(x).all() and not np.isin(x, (0, 1)).all():
            raise DeployError(
                f"calibration of {name}: spikes are 0 or 1, and other values were given; "
                f"name it in `analog` (--analog {name}) if it is a current"
            )
    if steps is None:
        raise DeployError(
            "the file does not say how many steps a sample has: give calibration with a step axis, "
            "(samples, steps, *input shape)"
        )
    marked_graph = nir.NIRGraph(
        {name: _analog(node) if name in analog else node for name, node in graph.nodes.items()},
        graph.edges,
        metadata={**graph.metadata, "steps": int(steps)},
        type_check=False,
    )
    return quantize(marked_graph, 8, arrays, int(steps), float(graph.metadata.get("dt", dt)), if_dt)[0]


def _analog(node: nir.NIRNode) -> nir.NIRNode:
    """Return the input marked as non-spiking."""
    marked = copy.copy(node)
    marked.metadata = {**node.metadata, "signal": "analog"}
    return marked
