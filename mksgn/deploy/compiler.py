"""Compile any NIR graph, ours or not, into a program: the passes, in order."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import nir
import numpy as np

from mksgn.deploy.arrays import as_numbers
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.fixed_point import fixed_point
from mksgn.deploy.passes.graph_branches import merge_graph_branches
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.passes.loops import join_loops
from mksgn.deploy.program.program import Program
from mksgn.export.graph import files
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.metadata import json_of
from mksgn.export.quantization.quantize import quantize


def compile_graph(
    graph: nir.NIRGraph | str | Path,
    *,
    precision: str = "fixed",
    dt: float = 1e-4,
    if_dt: float | None = None,
    analog: tuple[str, ...] = (),
    calibration: np.ndarray | dict[str, np.ndarray] | None = None,
) -> Program:
    """Any NIR graph, or the path of one, as a balanced program.

    `precision` is "fixed" (Loihi's integers) or "float". `dt` in seconds holds for files that name none; `if_dt` is the step of IF
    and I (None: dt; 1.0 reads v += r x, as most files with IF mean it). `analog` names inputs that are not spikes. A file that is
    not quantised yet needs `calibration` for "fixed": (samples, *input shape), or (samples, steps, *input shape), or a dict of either by
    input's name; it is quantised by export's own function, whose report is the program's `quantization`. Raises BadInputError, by
    whichever stage finds the fault: node, type, reason, remedy.
    """
    if precision not in ("fixed", "float"):
        raise DeployError(f"precision {precision!r}: choose fixed or float")
    for name, step in (("dt", dt), ("if_dt", if_dt)):
        if step is not None and not 0 < step < math.inf:
            raise DeployError(f"{name} {step}: expected a positive number of seconds")
    if not isinstance(graph, nir.NIRGraph):
        graph = files.read(Path(graph))
    if precision == "fixed" and json_of(graph, "quantization") is None:
        if calibration is None:
            raise DeployError(
                "the file is not quantised, and fixed point needs integers: export it with --quantize 8, give calibration clips, "
                "or run it with --precision float"
            )
        # what cannot run at all is named before anything is calibrated
        ingest(graph, dt=dt, if_dt=if_dt, analog=analog)
        graph = _quantised(graph, calibration, dt, if_dt, analog)
    whole = join_loops(merge_graph_branches(ingest(graph, dt=dt, if_dt=if_dt, analog=analog)))
    program = host_split(whole)
    if precision == "float" and all(p.location == "host" for p in program.populations):
        program = whole  # float Processes take currents too: better than nothing to run
    if precision == "fixed":
        program = fixed_point(program, json_of(graph, "quantization"))
    return balance(program)


def _quantised(
    graph: nir.NIRGraph,
    calibration: np.ndarray | dict[str, np.ndarray],
    dt: float,
    if_dt: float | None,
    analog: tuple[str, ...],
) -> nir.NIRGraph:
    graph = flatten(graph)
    steps = graph.metadata.get("steps")
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    arrays = calibration if isinstance(calibration, dict) else dict.fromkeys(inputs[:1], calibration)
    arrays = {name: as_numbers(f"calibration of {name}", x) for name, x in arrays.items()}
    for name in set(inputs) & set(arrays):
        node, x = graph.nodes[name], arrays[name]
        if x.ndim == len(node.input_type["input"]) + 2:
            steps = steps or x.shape[1]
        marked = name in analog or node.metadata.get("signal") == "analog"
        if not marked and np.isfinite(x).all() and not np.isin(x, (0, 1)).all():
            raise DeployError(
                f"calibration of {name}: spikes are 0 or 1, and other values were given; name it in `analog` (--analog {name}) if it is a "
                "current"
            )
    if steps is None:
        raise DeployError(
            "the file does not say how many steps a sample has: give calibration with a step axis, (samples, steps, *input shape)"
        )
    marked_graph = nir.NIRGraph(
        {name: _analog(node) if name in analog else node for name, node in graph.nodes.items()},
        graph.edges,
        metadata={**graph.metadata, "steps": int(steps)},
        type_check=False,
    )
    return quantize(marked_graph, 8, arrays, int(steps), float(graph.metadata.get("dt", dt)), if_dt)[0]


def _analog(node: nir.NIRNode) -> nir.NIRNode:
    """The same input, marked as no spikes."""
    marked = copy.copy(node)
    marked.metadata = {**node.metadata, "signal": "analog"}
    return marked
