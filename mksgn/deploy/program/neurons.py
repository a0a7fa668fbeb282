"""One time step of a population, in Loihi's integers and in float32, for the emulator and Lava.

Fixed point, as Lava's LIF model for the chip computes it, in sub-units of 1/64 weight unit:

    u = wrap(trunc0(u (4095 - du) / 4096) + 64 a)    du = 4095: no memory in the current, u = 64 a
    v = clip(trunc0(v (4096 - dv) / 4096) + u + bias, ±(2^23 - 1))
    s = v > 64 vth;   v = 0 where s

A neuron that resets by subtraction (a program in Loihi 2's microcode, of which Lava has no model) ends
with v = v - subtract where s, or starts with trunc0(v (4096 - dv) / 4096) - subtract_next where it fired
in the previous step: there v is still above the threshold.

float32 holds each of these integers exactly. Sums beyond 2^24, which it may round, are clipped to
2^23 - 1 in any case.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mksgn.export.loihi import CURRENT_WRAP, DECAY_STEPS, MEMBRANE_MAX, SUB_UNITS

Decay = int | np.ndarray


@dataclass(frozen=True, eq=False)
class FixedNeuron:
    """Loihi's parameters of a population. Arrays broadcast against its shape.

    Without a threshold the population never fires, and its membrane potential is the output.
    """

    dv: Decay  # 12-bit decay: the membrane keeps (4096 - dv) / 4096 per step
    vth: np.ndarray | None  # 17-bit threshold, integer weight units
    bias_mant: np.ndarray  # 13-bit signed
    bias_exp: int  # 0 … 7; bias = bias_mant << bias_exp, in sub-units
    du: Decay | None = None  # 12-bit decay: the current keeps (4095 - du) / 4096 per step; None: no memory (4095)
    worst: float = math.inf  # largest |current + bias| that any spikes can cause, in weight units
    # in sub-units, int32: what a spike subtracts from the membrane at once, or in the next step after its decay; if
    # both are None: reset to 0
    subtract: np.ndarray | None = None
    subtract_next: np.ndarray | None = None
    initial: np.ndarray | None = None  # membrane at the start of a sample, sub-units, int32; None: 0

    @property
    def bias(self) -> np.ndarray:
        """Bias in sub-units, int64."""
        return self.bias_mant.astype(np.int64) << self.bias_exp


@dataclass(frozen=True, eq=False)
class FloatNeuron:
    """The same in float32, in Lava's terms. Arrays broadcast against the population's shape.

        u = u (1 - current_decay) + gain a + input_bias          current_decay None: u = gain a
        v = v (1 - decay) + (u + bias);   s = v > threshold;   v = reset where s

    With `subtract`, v = v - subtract where s. With `subtract_next`, the next step's v is smaller by it instead.
    Without a threshold the population never fires, and its membrane potential is the output.
    """

    decay: float | np.ndarray
    threshold: np.ndarray | None
    bias: np.ndarray
    current_decay: float | np.ndarray | None = None
    input_bias: np.ndarray | None = None
    gain: np.ndarray | None = None  # None: 1
    reset: np.ndarray | None = None  # None: 0
    subtract: np.ndarray | None = None
    subtract_next: np.ndarray | None = None
    initial: np.ndarray | None = None  # membrane at the start of a sample; None: 0


Neuron = FixedNeuron | FloatNeuron


@dataclass(frozen=True)
class Membrane:
    """State of a population: membrane potential v after reset and, where the current has a memory,
    u; of the current's shape.
    """

    v: Tensor
    u: Tensor | None = None


class State(Protocol):
    """A population's parameters as tensors on a device."""

    @property
    def scale(self) -> float:
        """Units of the membrane potential that `step` returns per weight unit."""

    def start(self, current: Tensor) -> Membrane:
        """Return the state at rest, for currents of this shape."""

    def step(self, current: Tensor, state: Membrane) -> tuple[Tensor, Membrane, Tensor]:
        """Advance by one time step.

        Args:
            current: float32, weight units.
            state: not changed.

        Returns:
            What the population sends (spikes, uint8, or where nothing fires the membrane potential
            in the file's units), its new state, and the membrane potential before reset.
        """


def prepare(neuron: Neuron, device: torch.device | None = None, unit: float | np.ndarray = 1.0) -> State:
    """Make the tensors of a neuron, in float32 or in fixed point.

    Args:
        neuron: parameters of the population.
        device: device of the tensors.
        unit: value of one weight unit in the file, for a membrane potential that is the output.
    """
    if isinstance(neuron, FloatNeuron):
        return _float_state(neuron, device, unit)
    return _fixed_state(neuron, device, unit)


@dataclass(frozen=True, eq=False)
class _Resting:
    """A state at rest, with a synaptic current where it has a memory."""

    keep: Tensor
    threshold: Tensor | None
    bias: Tensor | None
    keep_current: Tensor | None
    output_scale: Tensor | None
    subtract: Tensor | None
    subtract_next: Tensor | None
    initial: Tensor | None

    def start(self, current: Tensor) -> Membrane:
        v = torch.zeros_like(current)
        if self.initial is not None:
            v += self.initial
        return Membrane(v, None if self.keep_current is None else torch.zeros_like(current))

    def after_spike(self, h: Tensor, silent: Tensor) -> Tensor:
        """Return the membrane after a reset by subtraction or to 0; `silent` is 0 where the neuron fired."""
        if self.subtract is not None:
            return h - self.subtract * (1 - silent)
        return h if self.subtract_next is not None else h * silent

    def owed(self, v: Tensor) -> Tensor:
        """Return what the spikes of the previous step subtract from the membrane in this one."""
        assert self.threshold is not None
        assert self.subtract_next is not None
        return self.subtract_next * (v > self.threshold)


@dataclass(frozen=True, eq=False)
class FixedState(_Resting):
    """Any fixed-point neuron; threshold, bias and membrane potential in sub-units."""

    scale = SUB_UNITS

    def step(self, current: Tensor, state: Membrane) -> tuple[Tensor, Membrane, Tensor]:
        h = decay(state.v, self.keep)
        if self.subtract_next is not None:
            h -= self.owed(state.v)
        u = None
        if self.keep_current is None:
            h.add_(current, alpha=SUB_UNITS)
        else:
            assert state.u is not None
            u = wrap(decay(state.u, self.keep_current).add_(current, alpha=SUB_UNITS))
            h += u
        if self.bias is not None:
            h += self.bias
        h.clamp_(-MEMBRANE_MAX, MEMBRANE_MAX)
        if self.threshold is None:
            assert self.output_scale is not None
            return (h.double() * self.output_scale).float(), Membrane(h, u), h
        s, silent = fire(h, self.threshold)
        return s, Membrane(self.after_spike(h, silent), u), h


def _fixed_state(neuron: FixedNeuron, device: torch.device | None, unit: float | np.ndarray) -> FixedState:
    return FixedState(
        keep=_tensor((DECAY_STEPS - np.asarray(neuron.dv)) / DECAY_STEPS, device),
        threshold=None if neuron.vth is None else _float32(neuron.vth, device) * SUB_UNITS,
        bias=_float32(neuron.bias, device) if neuron.bias.any() else None,
        keep_current=None
        if neuron.du is None
        else _tensor((DECAY_STEPS - 1 - np.asarray(neuron.du)) / DECAY_STEPS, device),
        output_scale=_tensor(np.asarray(unit, dtype=np.float64) / SUB_UNITS, device),
        **_resets(neuron, device),
    )


def _resets(neuron: Neuron, device: torch.device | None) -> dict[str, Tensor | None]:
    values = {name: getattr(neuron, name) for name in ("subtract", "subtract_next", "initial")}
    return {name: None if x is None else _float32(x, device) for name, x in values.items()}


@dataclass(frozen=True, eq=False)
class FloatState(_Resting):
    """A float32 neuron, in the units of the file's weights."""

    bias: Tensor
    input_bias: Tensor | None
    gain: Tensor | None
    reset: Tensor | None
    scale = 1.0

    def step(self, current: Tensor, state: Membrane) -> tuple[Tensor, Membrane, Tensor]:
        u = current if self.gain is None else current * self.gain
        if self.input_bias is not None:
            u = u + self.input_bias
        if self.keep_current is not None:
            assert state.u is not None
            u = state.u * self.keep_current + u
        kept = None if self.keep_current is None else u
        h = state.v * self.keep + (u + self.bias)
        if self.subtract_next is not None:
            h = h - self.owed(state.v)
        if self.threshold is None:
            return h if self.output_scale is None else h * self.output_scale, Membrane(h, kept), h
        s, silent = fire(h, self.threshold)
        v = self.after_spike(h, silent) if self.reset is None else torch.where(silent > 0, h, self.reset)
        return s, Membrane(v, kept), h


def _float_state(neuron: FloatNeuron, device: torch.device | None, unit: float | np.ndarray) -> FloatState:
    def optional(x: float | np.ndarray | None) -> Tensor | None:
        return None if x is None else _float32(x, device)

    def keep(rate: float | np.ndarray) -> Tensor:
        return _float32(1.0 - np.asarray(rate, dtype=np.float64), device)

    return FloatState(
        keep=keep(neuron.decay),
        threshold=optional(neuron.threshold),
        bias=_tensor(neuron.bias, device),
        keep_current=None if neuron.current_decay is None else keep(neuron.current_decay),
        output_scale=_float32(unit, device),
        input_bias=optional(neuron.input_bias),
        gain=optional(neuron.gain),
        reset=optional(neuron.reset),
        **_resets(neuron, device),
    )


def fire(h: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Return uint8 ones where h > threshold (spikes), and float32 ones where there is no spike.

    Multiplying by the latter resets what has fired: filling under a mask is thirty times as slow.
    NumPy compares nine times as fast as torch.
    """
    silent = torch.empty_like(h)
    torch.le(h, threshold, out=silent)
    if h.device.type == "cpu":
        return torch.from_numpy(np.greater(h.numpy(), threshold.numpy())).view(torch.uint8), silent
    return (h > threshold).view(torch.uint8), silent


def decay(v: Tensor, keep: Tensor) -> Tensor:
    """Return v keep, truncated toward zero; float32 integers of 24 bits in and out, `keep` a
    multiple of 1/4096.
    """
    if keep.numel() == 1:
        factor = keep.item()
        if factor == 1.0:
            return v.clone()
        if factor == 0.5:  # float32 holds the halves too
            return torch.div(v, 2.0, rounding_mode="trunc")
    # products of 24 and 12 bits need float64; dividing by 1 truncates ten times as fast as trunc
    return torch.div(v.double() * keep, 1.0, rounding_mode="trunc").float()


def wrap(u: Tensor) -> Tensor:
    """Wrap into (-2^23, 2^23], as Lava's 24-bit current does."""
    return u - CURRENT_WRAP * torch.ceil((u - CURRENT_WRAP / 2) / CURRENT_WRAP)


def _tensor(x: np.ndarray | float, device: torch.device | None) -> Tensor:
    return torch.from_numpy(np.array(x)).to(device)


def _float32(x: np.ndarray | float, device: torch.device | None) -> Tensor:
    return _tensor(np.asarray(x, dtype=np.float32), device)
