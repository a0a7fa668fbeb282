"""Third stage: a NIR graph, ours or not → a program of populations and projections → spikes, emulated or in Lava."""

from __future__ import annotations

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
from mksgn.deploy.program import Program
from mksgn.export import files
from mksgn.export.metadata import json_of
from mksgn.export.quantize import quantize

__all__ = ["Execution", "Program", "compile_graph", "run"]


def compile_graph(
    graph: nir.NIRGraph | str | Path,
    *,
    precision: str = "fixed",
    dt: float = 1e-4,
    analog: tuple[str, ...] = (),
    calibration: np.ndarray | None = None,
) -> Program:
    """Any NIR graph, or the path of one, as a balanced program.

    `precision` is "fixed" (Loihi's integers) or "float". `dt` in seconds holds for files that name none. `analog` names inputs
    that are not spikes. A file that is not quantised yet needs `calibration`, (clips, *input shape), for "fixed"; it is quantised
    by export's own function. Raises DeployError: node, type, reason, remedy.
    """
    if precision not in ("fixed", "float"):
        raise DeployError(f"precision {precision!r}: choose fixed or float")
    if not isinstance(graph, nir.NIRGraph):
        graph = files.read(Path(graph))
    if precision == "fixed" and json_of(graph, "quantization") is None:
        steps = graph.metadata.get("steps")
        if calibration is None or steps is None:
            raise DeployError(
                "the file is not quantised, and fixed point needs integers: export it with --quantize 8, give calibration clips, "
                "or run it with --precision float"
            )
        graph, _ = quantize(graph, 8, calibration, int(steps), float(graph.metadata.get("dt", dt)))
    program = host_split(merge_graph_branches(ingest(graph, dt=dt, analog=analog)))
    if precision == "fixed":
        program = fixed_point(program, json_of(graph, "quantization"))
    return balance(program)


def run(
    program: Program,
    inputs: np.ndarray | dict[str, np.ndarray],
    *,
    backend: str = "emulator",
    record: bool = True,
    progress: Callable[[int], None] = lambda clips: None,
) -> Execution:
    """Run clips through a program; each starts from rest.

    `inputs` is (clips, steps, *input shape), or a dict of such arrays by input's name. `backend` is "emulator" or "lava".
    `record = False` keeps counters and outputs only. `progress` is called with the number of clips just finished.
    """
    named = inputs if isinstance(inputs, dict) else {population.name: inputs for population in program.inputs[:1]}
    _check_inputs(program, named)
    if backend == "emulator":
        return emulator.execute(program, named, record=record, progress=progress)
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


def _check_inputs(program: Program, inputs: dict[str, np.ndarray]) -> None:
    wanted = {population.name: population.shape for population in program.inputs}
    if set(inputs) != set(wanted):
        raise DeployError(f"inputs {', '.join(sorted(inputs)) or 'none'}: the program has {', '.join(sorted(wanted))}")
    lengths = {x.shape[:2] for x in inputs.values()}
    for name, x in inputs.items():
        if x.shape[2:] != wanted[name] or x.ndim < 3 or 0 in x.shape:
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
