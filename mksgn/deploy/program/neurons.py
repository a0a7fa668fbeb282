"""One time step of a population, in Loihi's integers and in float32; both executions, emulator and Lava, use these.

Fixed point, as Lava's LIF model for the chip computes it, in sub-units of 1/64 weight unit:

    u = wrap(trunc0(u (4095 - du) / 4096) + 64 a)                        du = 4095: no memory in the current, u = 64 a
    v = clip(trunc0(v (4096 - dv) / 4096) + u + bias, ±(2^23 - 1));      s = v > 64 vth;   v = 0 where s

The integers are kept in float32, which holds each of them exactly: sums beyond 2^24 are clipped to 2^23 - 1 whatever they round to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mksgn.export.loihi import CURRENT_WRAP, DECAY_STEPS, MEMBRANE_MAX, SUB_UNITS

Decay = int | np.ndarray


@dataclass(frozen=True, eq=False)
class FixedNeuron:
    """Loihi's parameters of a population; arrays broadcast against its shape.

    `vth` None: the membrane is shown and never fires. `du` None: no memory in the current (4095).
    """

    dv: Decay  # 12-bit decay: the membrane keeps (4096 - dv) / 4096 per step
    vth: np.ndarray | None  # 17-bit threshold, integer weight units
    bias_mant: np.ndarray  # 13-bit signed
    bias_exp: int  # 0 … 7; bias = bias_mant << bias_exp, in sub-units
    du: Decay | None = None  # 12-bit decay: the current keeps (4095 - du) / 4096 per step
    worst: float = math.inf  # the largest |current + bias| that any spikes can cause, in weight units

    def halves_exactly(self, steps: int) -> bool:
        """Whether in `steps` steps from rest no halving cuts a bit off, and no membrane is clipped: even weights are 128 sub-units."""
        if self.vth is None or self.du is not None or np.any(np.asarray(self.dv) != DECAY_STEPS // 2):
            return False
        finest = 1 << (steps - 1)
        sub_units = self.bias_mant.astype(np.int64) << self.bias_exp
        return (
            2 * SUB_UNITS % finest == 0 and not np.any(sub_units % finest) and 2 * self.worst * SUB_UNITS < MEMBRANE_MAX
        )

    def prepare(
        self, device: torch.device | None = None, unit: float | np.ndarray = 1.0, steps: int | None = None
    ) -> FixedState | HalvingState:
        """`unit`: what one weight unit of a membrane that is shown is worth in the file; `steps` of a clip, if they are known."""
        if steps is not None and self.halves_exactly(steps):
            assert self.vth is not None
            mantissa = self.bias_mant.astype(np.float32) * 2.0**self.bias_exp / SUB_UNITS
            drive = _tensor(mantissa.astype(np.float32), device)
            return HalvingState(_tensor(self.vth.astype(np.float32), device), drive if drive.any() else None)
        threshold = None if self.vth is None else _tensor(self.vth.astype(np.float32), device) * SUB_UNITS
        bias = _tensor((self.bias_mant.astype(np.int64) << self.bias_exp).astype(np.float32), device)
        keep = _tensor((DECAY_STEPS - np.asarray(self.dv)) / DECAY_STEPS, device)
        keep_current = (
            None if self.du is None else _tensor((DECAY_STEPS - 1 - np.asarray(self.du)) / DECAY_STEPS, device)
        )
        shown = _tensor(np.asarray(unit, dtype=np.float64) / SUB_UNITS, device)
        return FixedState(keep, threshold, bias if bias.any() else None, keep_current, shown)


@dataclass(frozen=True, eq=False)
class FloatNeuron:
    """The same in float32, in Lava's terms; arrays broadcast against the population's shape.

        u = u (1 - current_decay) + gain a + input_bias                  current_decay None: u = gain a
        v = v (1 - decay) + (u + bias);   s = v > threshold;   v = reset where s

    `threshold` None: the membrane is shown and never fires.
    """

    decay: float | np.ndarray
    threshold: np.ndarray | None
    bias: np.ndarray
    current_decay: float | np.ndarray | None = None
    input_bias: np.ndarray | None = None
    gain: np.ndarray | None = None  # None: 1
    reset: np.ndarray | None = None  # None: 0

    def prepare(
        self, device: torch.device | None = None, unit: float | np.ndarray = 1.0, steps: int | None = None
    ) -> FloatState:
        """`unit`: what one unit of a membrane that is shown is worth in the file."""

        def optional(x: float | np.ndarray | None) -> Tensor | None:
            return None if x is None else _tensor(np.asarray(x, dtype=np.float32), device)

        keep = _tensor((1.0 - np.asarray(self.decay, dtype=np.float64)).astype(np.float32), device)
        keep_current = None
        if self.current_decay is not None:
            keep_current = _tensor((1.0 - np.asarray(self.current_decay, dtype=np.float64)).astype(np.float32), device)
        bias = _tensor(self.bias, device)
        return FloatState(
            keep,
            optional(self.threshold),
            bias,
            keep_current,
            optional(self.input_bias),
            optional(self.gain),
            optional(self.reset),
            optional(unit),
        )


Neuron = FixedNeuron | FloatNeuron


@dataclass(frozen=True)
class Membrane:
    """State of a population: membrane potential v after reset and, where the current has a memory, u; of the current's shape."""

    v: Tensor
    u: Tensor | None = None


@dataclass(frozen=True, eq=False)
class FixedState:
    keep: Tensor
    threshold: Tensor | None  # sub-units
    bias: Tensor | None  # sub-units
    keep_current: Tensor | None = None
    shown: Tensor | None = None
    scale = SUB_UNITS

    def start(self, current: Tensor) -> Membrane:
        """All state 0, for currents of this shape."""
        return Membrane(torch.zeros_like(current), None if self.keep_current is None else torch.zeros_like(current))

    def step(self, current: Tensor, state: Membrane) -> tuple[Tensor, Membrane, Tensor]:
        """Current (float32 integers, weight units) and state → (what it sends, state, membrane before reset).

        What it sends: spikes, uint8; or the membrane, in the file's units, where nothing fires. The membrane is in sub-units.
        """
        h = decay(state.v, self.keep)
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
            assert self.shown is not None
            return (h.double() * self.shown).float(), Membrane(h, u), h
        s, silent = fire(h, self.threshold)
        return s, Membrane(h * silent, u), h


@dataclass(frozen=True, eq=False)
class HalvingState:
    """FixedState where `halves_exactly`: the same decisions, in weight units and a third of the passes over memory."""

    threshold: Tensor  # weight units
    bias: Tensor | None
    scale = 1.0

    def start(self, current: Tensor) -> Membrane:
        return Membrane(torch.zeros_like(current))

    def step(self, current: Tensor, state: Membrane) -> tuple[Tensor, Membrane, Tensor]:
        h = torch.add(current, state.v, alpha=0.5)
        if self.bias is not None:
            h += self.bias
        s, silent = fire(h, self.threshold)
        return s, Membrane(h * silent), h


@dataclass(frozen=True, eq=False)
class FloatState:
    keep: Tensor
    threshold: Tensor | None
    bias: Tensor
    keep_current: Tensor | None = None
    input_bias: Tensor | None = None
    gain: Tensor | None = None
    reset: Tensor | None = None
    shown: Tensor | None = None
    scale = 1.0

    def start(self, current: Tensor) -> Membrane:
        """All state 0, for currents of this shape."""
        return Membrane(torch.zeros_like(current), None if self.keep_current is None else torch.zeros_like(current))

    def step(self, current: Tensor, state: Membrane) -> tuple[Tensor, Membrane, Tensor]:
        """As FixedState's, in units of the file's weights."""
        u = current if self.gain is None else current * self.gain
        if self.input_bias is not None:
            u = u + self.input_bias
        if self.keep_current is not None:
            assert state.u is not None
            u = state.u * self.keep_current + u
        kept = None if self.keep_current is None else u
        h = state.v * self.keep + (u + self.bias)
        if self.threshold is None:
            return h if self.shown is None else h * self.shown, Membrane(h, kept), h
        s, silent = fire(h, self.threshold)
        v = h * silent if self.reset is None else torch.where(silent > 0, h, self.reset)
        return s, Membrane(v, kept), h


State = FixedState | HalvingState | FloatState


def fire(h: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes, uint8, where h > threshold, and float32 1 where there are none.

    A product with the second clears what has fired: filling under a mask is thirty times as slow. NumPy compares nine times as fast.
    """
    silent = torch.empty_like(h)
    torch.le(h, threshold, out=silent)
    if h.device.type == "cpu":
        return torch.from_numpy(np.greater(h.numpy(), threshold.numpy())).view(torch.uint8), silent
    return (h > threshold).view(torch.uint8), silent


def decay(v: Tensor, keep: Tensor) -> Tensor:
    """trunc0(v keep): toward zero, whatever the sign; float32 integers of 24 bits in and out, `keep` a multiple of 1/4096."""
    if keep.numel() == 1:
        factor = keep.item()
        if factor == 1.0:
            return v.clone()
        if factor == 0.5:  # float32 holds the halves too
            return torch.div(v, 2.0, rounding_mode="trunc")
    return torch.div(
        v.double() * keep, 1.0, rounding_mode="trunc"
    ).float()  # 24 bits times 12; ten times as fast as trunc


def wrap(u: Tensor) -> Tensor:
    """Into (-2^23, 2^23], as Lava's 24-bit current wraps around."""
    return u - CURRENT_WRAP * torch.ceil((u - CURRENT_WRAP / 2) / CURRENT_WRAP)


def _tensor(x: np.ndarray | float, device: torch.device | None) -> Tensor:
    return torch.from_numpy(np.array(x)).to(device)
