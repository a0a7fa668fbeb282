"""NIR's neurons as Lava computes them: forward Euler with the file's dt, weights as the file has them.

The membrane potential is counted in units of the current, v / gain (mksgn/export/graph/membranes), so
that threshold and reset are v / gain too, and v_leak becomes a bias (NIR.md).
"""

from dataclasses import dataclass

import nir
import numpy as np

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program.neurons import FloatNeuron
from mksgn.export.graph.kinds import CURRENT_BASED, FIRING, LEAKLESS
from mksgn.export.graph.membranes import PerNeuron, membrane_of
from mksgn.export.loihi import one_if_shared

Array = np.ndarray


@dataclass(frozen=True)
class Converted:
    """A neuron node's equation, and what one unit of its membrane is worth in the file's units."""

    neuron: FloatNeuron
    unit: Array
    fires: bool


def convert(name: str, node: nir.NIRNode, dt: float, if_dt: float | None, bias: Array) -> Converted:
    """Convert a neuron node.

    Args:
        name: The node's name, for errors.
        node: Any of kinds.NEURONS.
        dt: Time step, seconds.
        if_dt: Time step of IF and I in place of `dt`, seconds.
        bias: What the linear nodes before it add at every step.

    Raises:
        DeployError: A time constant below dt, or a threshold and a resting potential that are both below 0.
    """
    if isinstance(node, nir.Threshold):
        return Converted(FloatNeuron(1.0, compact(node.threshold), compact(bias)), np.ones(1, dtype=np.float32), True)
    membrane = membrane_of(node, dt, np.float64(dt if if_dt is None else if_dt))
    gain, leak = np.asarray(membrane.gain), membrane.leak
    if not isinstance(node, LEAKLESS):
        _check_decay(name, "tau_mem" if isinstance(node, CURRENT_BASED) else "tau", membrane.decay)
    if isinstance(node, CURRENT_BASED):
        _check_decay(name, "tau_syn", membrane.current_decay)
    current_decay = one_if_shared(np.asarray(membrane.current_decay)) if isinstance(node, CURRENT_BASED) else None
    fires = isinstance(node, FIRING)
    threshold = np.asarray(node.v_threshold, dtype=np.float64) if fires else None
    reset = np.asarray(node.v_reset, dtype=np.float64) if fires else np.zeros(1)
    if threshold is not None and np.any((threshold < 0) & (leak < 0)):
        raise DeployError(
            f"node {name}: v_threshold ({threshold.min():.4g}) lies below 0, where its state starts, and v_leak below "
            "0 too: shift the node's potentials so that it rests at 0"
        )
    unit, factor, drive = gain, None, bias
    if np.any(gain <= 0):  # cannot scale the membrane, which stays in the file's units
        unit, factor, drive = np.ones(1), compact(gain), bias * gain
    resting = leak / unit
    taken = None if membrane.subtract is None else compact(membrane.subtract / unit)
    neuron = FloatNeuron(
        decay=one_if_shared(np.asarray(membrane.decay)),
        threshold=None if threshold is None else compact(threshold / unit),
        bias=compact(resting + drive if current_decay is None else resting),
        current_decay=current_decay,
        input_bias=None if current_decay is None or not np.any(bias) else compact(drive),
        gain=factor,
        reset=compact(reset / unit) if np.any(reset) and taken is None else None,
        subtract=None if membrane.in_next_step else taken,
        subtract_next=taken if membrane.in_next_step else None,
        initial=compact(membrane.initial / unit) if np.any(membrane.initial) else None,
    )
    return Converted(neuron, compact(unit), fires)


def _check_decay(name: str, parameter: str, decay: PerNeuron) -> None:
    if not np.all((decay > 0) & (decay <= 1)):
        raise DeployError(
            f"node {name}: dt/{parameter} runs from {np.min(decay):.4g} to {np.max(decay):.4g}, outside (0, 1]: the "
            "time step is longer than the time constant; set --dt"
        )


def compact(x: Array) -> Array:
    """Convert to float32, and reduce to length 1 each axis along which nothing changes."""
    x = np.asarray(x, dtype=np.float32)
    for axis in range(x.ndim):
        first = np.take(x, [0], axis=axis)
        if np.array_equal(np.broadcast_to(first, x.shape), x):
            x = first
    return np.array(x)
