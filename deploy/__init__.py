"""Third stage: a NIR graph, ours or not → a program of populations and projections → spikes, emulated or in Lava."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import nir
import numpy as np

from mksgn.deploy import emulator
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Execution
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.fixed_point import fixed_point
from mksgn.deploy.passes.graph_branches import merge_graph_branches
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.passes.loops import join_loops
from mksgn.deploy.program import Program
from mksgn.export import files
from mksgn.export.flat import flatten
from mksgn.export.metadata import json_of
from mksgn.export.quantize import quantize

__all__ = ["Execution", "Program", "compile_graph", "run"]


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
    not quantised yet needs `calibration` for "fixed": (clips, *input shape), or (clips, steps, *input shape), or a dict of either by
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
    if precision == "float" and all(p.place == "host" for p in program.populations):
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
    arrays = {name: _numbers(f"calibration of {name}", x) for name, x in arrays.items()}
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
            "the file does not say how many steps a clip has: give calibration with a step axis, (clips, steps, *input shape)"
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


def run(
    program: Program,
    inputs: np.ndarray | dict[str, np.ndarray],
    *,
    backend: str = "emulator",
    record: bool = True,
    progress: Callable[[int], None] = lambda clips: None,
    device: str = "cpu",
) -> Execution:
    """Run clips through a program; each starts with all state at 0.

    `inputs` is (clips, steps, *input shape), or a dict of such arrays by input's name. `backend` is "emulator" or "lava".
    `device` is the emulator's, "cuda" where there is one. `record = False` keeps counters and outputs only. `progress` is called
    with the number of clips just finished.
    """
    named = inputs if isinstance(inputs, dict) else {population.name: inputs for population in program.inputs[:1]}
    named = {name: _numbers(f"input {name}", x) for name, x in named.items()}
    _check_inputs(program, named)
    if backend == "emulator":
        return emulator.execute(program, named, record=record, progress=progress, device=device)
    if backend == "lava":
        try:
            from mksgn.deploy.lava import network
        except ImportError as error:
            raise DeployError(
                f"backend lava: Lava cannot be imported ({error}); it needs Python 3.10 and pip install 'mksgn[lava]', "
                "or use --backend emulator"
            ) from error
        return network.execute(program, named, record=record, progress=progress)
    raise DeployError(f"backend {backend!r}: choose emulator or lava")


def _numbers(what: str, x: np.ndarray) -> np.ndarray:
    """Lists and tensors too."""
    found = np.asarray(x)
    if found.dtype.kind not in "biuf":
        raise DeployError(f"{what}: holds {found.dtype}, expected numbers")
    return found


def _check_inputs(program: Program, inputs: dict[str, np.ndarray]) -> None:
    wanted = {population.name: population.shape for population in program.inputs}
    if set(inputs) != set(wanted):
        raise DeployError(f"inputs {', '.join(sorted(inputs)) or 'none'}: the program has {', '.join(sorted(wanted))}")
    lengths = {x.shape[:2] for x in inputs.values()}
    for name, x in inputs.items():
        if x.shape[2:] != wanted[name] or x.ndim < 2 or 0 in x.shape:
            raise DeployError(
                f"input {name}: shape {x.shape}, expected (clips, steps, {', '.join(map(str, wanted[name]))})"
            )
        if not np.isfinite(x).all():
            clip, step = (int(i) for i in np.argwhere(~np.isfinite(x))[0][:2])
            raise DeployError(
                f"input {name}: clip {clip}, step {step} holds a value that is not finite; repair or leave out the clip"
            )
        if name not in program.analog and not np.isin(x, (0, 1)).all():
            raise DeployError(
                f"input {name}: spikes are 0 or 1, and other values were given; name it in `analog` if it is a current"
            )
    if len(lengths) != 1:
        raise DeployError(f"inputs differ in clips or steps: {sorted(lengths)}")
