"""A neuron node's equation in units of its weights, for the quantiser and the compiler.

With gain = dt/tau r (LIF, LI), dt r (IF, I) or dt/tau_mem r dt/tau_syn w_in (CubaLIF, CubaLI), v / gain
is the membrane potential in units of the weights. Its threshold is v_threshold / gain, and v_leak adds
v_leak (dt/tau) / gain to it at each step, as Loihi's bias does (NIR.md).
"""

from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from mksgn.export.choices import SUBTRACT
from mksgn.export.graph.conventions import initial_of, reset_of, subtracted
from mksgn.export.graph.kinds import CURRENT_BASED, LEAKLESS

PerNeuron = float | np.ndarray  # a float where all neurons share it


@dataclass(frozen=True)
class Membrane:
    """The constants of forward Euler: u ← u - current_decay u + gain a, v ← v - decay v + u + leak."""

    gain: PerNeuron
    decay: PerNeuron  # dt / tau_mem; 0: no leak
    current_decay: PerNeuron  # dt / tau_syn; 1: no memory in the current
    leak: np.ndarray  # of the population's shape, in the file's units
    initial: np.ndarray = field(default_factory=lambda: np.zeros(1))  # at the start of a sample, in the file's units
    subtract: np.ndarray | None = None  # what a spike takes from the membrane, in the file's units; None: reset to 0
    in_next_step: bool = False  # whether it is subtracted in the next step, after the decay

    @property
    def drive(self) -> np.ndarray:
        """What v_leak adds at each step, in units of the weights."""
        return self.leak / self.gain


def membrane_of(node: nir.NIRNode, dt: float, leakless_step: np.floating[Any]) -> Membrane:
    """Read a neuron node's constants, each as float64 of the population's shape.

    Args:
        node: Any neuron with a membrane.
        dt: Time step, seconds.
        leakless_step: Time step that IF and I integrate with in place of `dt`. Its product with r has
            its precision: float32 in the quantiser, as in the reference execution.
    """
    r = np.asarray(node.r, dtype=np.float64)
    resets = initial_of(node), subtracted(node), reset_of(node) == SUBTRACT
    if isinstance(node, LEAKLESS):
        gain = leakless_step * np.asarray(node.r, dtype=leakless_step.dtype)
        return Membrane(
            np.asarray(gain, dtype=np.float64), np.zeros(r.shape), np.ones(r.shape), np.zeros(r.shape), *resets
        )
    current_based = isinstance(node, CURRENT_BASED)
    with np.errstate(invalid="ignore", over="ignore"):  # time constants are checked by the caller
        decay = dt_over_tau(node.tau_mem if current_based else node.tau, dt)
        gain, current_decay = decay * r, np.ones(r.shape)
        if current_based:
            current_decay = dt_over_tau(node.tau_syn, dt)
            gain = gain * current_decay * np.asarray(node.w_in, dtype=np.float64)
        return Membrane(gain, decay, current_decay, np.asarray(node.v_leak, dtype=np.float64) * decay, *resets)


def dt_over_tau(tau: Any, dt: float) -> np.ndarray:
    """Return dt / tau, rounded to float32 as in every execution of the file, as float64."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.float32(dt) / np.asarray(tau, dtype=np.float32)).astype(np.float64)
