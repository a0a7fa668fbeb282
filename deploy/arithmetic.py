"""One time step of a population, in Loihi's integers and in float32; both executions, emulator and Lava, use these.

Fixed point, as Lava's LIF model for the chip computes it (du = 4095: no memory in the current), in sub-units of 1/64 weight unit:

    v = clip(trunc0(v (4096 - dv) / 4096) + 64 a + bias, ±(2^23 - 1));   s = v > 64 vth;   v = 0 where s
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SUB_UNIT_BITS = 6
MEMBRANE_MAX = 2**23 - 1


@dataclass(frozen=True, eq=False)
class FixedNeuron:
    """Loihi's parameters of a population. `vth` (weight units) and `bias_mant` broadcast against its shape."""

    dv: int  # 12-bit decay: the membrane keeps (4096 - dv) / 4096 per step
    vth: np.ndarray  # 17-bit threshold, integer weight units
    bias_mant: np.ndarray  # 13-bit signed
    bias_exp: int  # 0 … 7; bias = bias_mant << bias_exp, in sub-units

    def prepare(self) -> FixedState:
        return FixedState(
            self.dv,
            torch.from_numpy(self.vth.astype(np.int32)) << SUB_UNIT_BITS,
            torch.from_numpy(self.bias_mant.astype(np.int32)) << self.bias_exp,
        )


@dataclass(frozen=True, eq=False)
class FloatNeuron:
    """The same in float32: v = v (1 - decay) + a + bias, s = v > threshold. In Lava's terms: du = 1, dv = decay."""

    decay: float
    threshold: np.ndarray
    bias: np.ndarray

    def prepare(self) -> FloatState:
        return FloatState(self.decay, torch.from_numpy(self.threshold), torch.from_numpy(self.bias))


Neuron = FixedNeuron | FloatNeuron


@dataclass(frozen=True, eq=False)
class FixedState:
    dv: int
    threshold: Tensor  # sub-units
    bias: Tensor  # sub-units
    scale = float(1 << SUB_UNIT_BITS)

    def start(self, current: Tensor) -> Tensor:
        return torch.zeros(current.shape, dtype=torch.int32)

    def step(self, current: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Current (float32 integers) and membrane → (spikes bool, membrane after reset, membrane before reset)."""
        h = decay(v, self.dv)
        h += current.to(torch.int32) << SUB_UNIT_BITS
        h += self.bias
        h.clamp_(-MEMBRANE_MAX, MEMBRANE_MAX)
        s = h > self.threshold
        return s, h.masked_fill(s, 0), h


@dataclass(frozen=True, eq=False)
class FloatState:
    decay: float
    threshold: Tensor
    bias: Tensor
    scale = 1.0

    def start(self, current: Tensor) -> Tensor:
        return torch.zeros_like(current)

    def step(self, current: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = v * (1.0 - self.decay) + (current + self.bias)
        s = h > self.threshold
        return s, h.masked_fill(s, 0.0), h


def decay(v: Tensor, dv: int) -> Tensor:
    """trunc0(v (4096 - dv) >> 12): toward zero, whatever the sign. int32 in and out; wider in between."""
    if dv == 2048:  # half of it, and int32 is wide enough
        return (v + (v < 0)) >> 1
    wide = v.to(torch.int64)
    return (torch.sign(wide) * ((wide.abs() * (4096 - dv)) >> 12)).to(torch.int32)
