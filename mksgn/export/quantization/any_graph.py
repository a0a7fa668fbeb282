"""Quantise any graph; its file may leave open what a student's states: steps, time step, kind of its inputs."""

import copy
from collections.abc import Collection
from typing import Any

import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.export.choices import EULER, ZERO
from mksgn.export.errors import ExportError
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.graph.conventions import with_conventions
from mksgn.export.graph.standard import standard_form
from mksgn.export.quantization.quantize import quantize


def quantize_any(
    graph: nir.NIRGraph,
    bits: int,
    calibration: Arrays,
    *,
    dt: float = 1e-4,
    if_dt: float | None = None,
    analog: Collection[str] = (),
    reset: str = ZERO,
    v_init: str = ZERO,
    integration: str = EULER,
    spike_delay: int = 0,
    steps: int | None = None,
    weight_exponents: bool = True,
    error: type[BadInputError] = ExportError,
) -> nir.NIRGraph:
    """Return a flat, quantised copy; its metadata holds the scales, the steps and the time steps.

    Args:
        graph: Any graph; it is not changed.
        bits: Width of the weights, 2 to 8.
        calibration: (samples, *input shape) or (samples, steps, *input shape), or a dict of either by
            input name.
        dt: Time step in seconds, for files that name none.
        if_dt: Time step of IF and I; None: `dt`.
        analog: Names of non-spiking inputs.
        reset: What a spike does to the membrane where the file does not say.
        v_init: Where a membrane starts where the file does not say.
        integration: What a step does where the file does not say.
        spike_delay: Steps until a spike leaves its neuron, where the file does not say.
        steps: Time steps of a sample; None: what the file says, else the calibration's.
        weight_exponents: Whether each projection's weights get an exponent of their own, below 8 bits.
        error: Class of the errors that this function raises itself.

    Raises:
        BadInputError: The calibration does not fit, or the quantiser refuses the graph.
    """
    open_points: dict[str, Any] = {"integration": integration, "spike_delay": spike_delay, "dt": dt, "if_dt": if_dt}
    graph = with_conventions(standard_form(graph), reset, v_init, **open_points)
    inputs = [name for name, node in graph.nodes.items() if isinstance(node, nir.Input)]
    arrays = arrays_by_input(calibration, inputs, "calibration of", error=error)
    steps = steps or graph.metadata.get("steps")
    for name, x in arrays.items():
        node = graph.nodes[name]
        if x.ndim == len(node.input_type["input"]) + 2:
            steps = steps or x.shape[1]
        if name not in analog and node.metadata.get("signal") != "analog":
            _check_spikes(name, x, error)
    if steps is None:
        raise error(
            "the file does not say how many steps a sample has: give calibration with a step axis, "
            "(samples, steps, *input shape), or --steps"
        )
    dt = float(graph.metadata.get("dt", dt))
    marked_graph = nir.NIRGraph(
        {name: _analog(node) if name in analog else node for name, node in graph.nodes.items()},
        graph.edges,
        metadata={**graph.metadata, "steps": int(steps), "dt": dt, **({} if if_dt is None else {"if_dt": if_dt})},
        type_check=False,
    )
    return quantize(marked_graph, bits, arrays, int(steps), dt, if_dt, weight_exponents=weight_exponents)[0]


def _check_spikes(name: str, x: np.ndarray, error: type[BadInputError]) -> None:
    """Check that an input's samples are spikes."""
    if np.isfinite(x).all() and not np.isin(x, (0, 1)).all():
        raise error(
            f"calibration of {name}: spikes are 0 or 1, and other values were given; "
            f"name it in `analog` (--analog {name}) if it is a current"
        )


def _analog(node: nir.NIRNode) -> nir.NIRNode:
    """Return the input marked as non-spiking."""
    marked = copy.copy(node)
    marked.metadata = {**node.metadata, "signal": "analog"}
    return marked
