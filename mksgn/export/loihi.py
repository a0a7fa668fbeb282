"""Loihi's widths, in weight units, and the rounding that fits numbers into them. Lava documents them and enforces none (LAVA.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from mksgn.export.errors import RangeError

WEIGHT_LIMIT = 254  # mixed-sign Dense and Sparse keep 7 bits and a sign, and clip at 254; Conv clips nothing
THRESHOLD_LIMIT = 131_071  # 17-bit mantissa of vth
MEMBRANE_LIMIT = 131_071  # 24-bit membrane: 2^23 - 1 sub-units of 1/64 weight unit
BIAS_MANTISSA_LIMIT = 4_095  # 13-bit signed
BIAS_EXPONENT_LIMIT = 7
BIAS_LIMIT = BIAS_MANTISSA_LIMIT << BIAS_EXPONENT_LIMIT - 6  # the mantissa doubled, in weight units, at exponent 7
DECAY_BITS = 12
# 16 bits signed, before the shift, in Loihi's documented model; Lava's holds 24: a warning, no limit
SYNAPTIC_SUM_LIMIT = 32_767
FLOAT_BITS = 24  # integers that float32 represents, and a float32 matrix product sums, exactly
SUB_UNITS = 64  # the membrane's sub-units per weight unit (`a << 6`)
HALF_STEP = 0.5 / SUB_UNITS  # where the chip's thresholds lie, between two membranes
NEGLIGIBLE = 1e-30  # stands for 0 in a denominator: that term binds nothing


def dt_over(tau: np.ndarray, dt: float) -> np.ndarray:
    """dt / tau in float32, as every execution has it; as float64."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.float32(dt) / np.asarray(tau, dtype=np.float32)).astype(np.float64)


def one_if_shared(x: np.ndarray) -> float | np.ndarray:
    """One number where all neurons share it."""
    return float(x.flat[0]) if np.ptp(x) == 0 else x


def weight_limit(bits: int) -> int:
    return 2**bits - 2


def even(x: np.ndarray, bits: int) -> np.ndarray:
    """The nearest even integers that weights of `bits` bits hold; what lies beyond is clipped."""
    limit = weight_limit(bits)
    return np.clip(2 * np.rint(x / 2), -limit, limit)


def saturated(weights: Iterable[np.ndarray], scale: float, bits: int) -> int:
    """Weights that `even` clips; one unit above the limit is still rounded to it."""
    return sum(int((np.abs(w * scale) > weight_limit(bits) + 1).sum()) for w in weights)


def whole(bias: np.ndarray) -> np.ndarray:
    """Integers, even ones where Loihi's 13-bit mantissa needs the exponent 7."""
    return np.rint(bias) if np.abs(bias).max() <= BIAS_MANTISSA_LIMIT else 2 * np.rint(bias / 2)


def threshold_offset(rate: float, steps: int, finest: float = 1.0) -> float:
    """How far above an integer a threshold lies, such that no membrane ever equals it: half a Loihi sub-unit, or half the membrane's
    own lattice where that is finer. `finest` is the lattice of the sums; each step multiplies it by the rate dt/tau (1: nothing leaks)."""
    return min(HALF_STEP, finest * rate ** (steps - 1) / 2)


def exact_on_chip(rate: float, steps: int) -> bool:
    """Whether Loihi's decay, which cuts a membrane to sub-units at each step, cuts nothing off in `steps` steps."""
    return math.log2(rate) % 1 == 0 and rate ** (steps - 1) * SUB_UNITS >= 1


def threshold_above(threshold: float | np.ndarray, half: float) -> float | np.ndarray:
    """The nearest integer threshold, at least 1, and `half` above it."""
    return np.maximum(1.0, np.floor(np.asarray(threshold) + 0.5)) + half


def accumulation_factor(steps: int, rate: float, synaptic: float = 1.0) -> float:
    """What `steps` equal inputs add up to below a threshold, in units of one: a sum of 1, 1 - rate, (1 - rate)^2, …; with a current
    that decays by `synaptic` a step, of its sums."""
    if synaptic == 1:
        return (1 - (1 - rate) ** steps) / rate if rate else float(steps)
    u = v = 0.0
    for _ in range(steps):
        u = u * (1 - synaptic) + 1
        v = v * (1 - rate) + u
    return v


def decay_as_quantized(rate: float) -> float:
    """The rate as Loihi's 12 bits hold it, where rounding them lets a membrane pile up by more than `limits` leaves free."""
    dv = round(2**DECAY_BITS * rate)
    return min(rate, dv / 2**DECAY_BITS) if dv < 2**DECAY_BITS // 32 else rate


def limits(
    bits: int,
    weight: float,
    threshold: float,
    bias: float,
    worst: float,
    pile: float,
    half: float = HALF_STEP,
    lattice: float = math.inf,
) -> dict[str, float]:
    """The largest scale that each range allows; the first arguments in units of the unquantised network.

    `pile` is how many worst sums pile up in a membrane. float32 must hold the threshold to its last bit, and every membrane, as torch
    integrates it, on its `lattice`: that of the sums, times the rate at each step. It binds for many steps, and for an encoder's analog
    input; an infinite one asks for no exact membrane.
    """
    float_limit = 2.0**FLOAT_BITS - 1
    return {
        "weights": weight_limit(bits) / max(weight, NEGLIGIBLE),
        "threshold": (THRESHOLD_LIMIT - 1) / max(threshold, NEGLIGIBLE),
        "bias": (BIAS_LIMIT - 2) / max(bias, NEGLIGIBLE),
        "worst membrane": (MEMBRANE_LIMIT - 512) / max(worst * pile, NEGLIGIBLE),
        "float32": float_limit * min(half / max(threshold, NEGLIGIBLE), lattice / max(2 * worst, NEGLIGIBLE)),
    }


def check_decay(name: str, rate: float) -> None:
    """dv = 4096 dt/tau must be one of 12 bits; where it is no integer, Loihi rounds it, and parity has to be measured."""
    dv = rate if not math.isfinite(rate) else round(2**DECAY_BITS * rate)
    if not 1 <= dv < 2**DECAY_BITS:
        raise RangeError(
            f"{name}: decay dv = 4096 dt/tau ({dv}) leaves 1 … {2**DECAY_BITS - 1} of its 12 bits; train with tau above 1 and below 4096"
        )


def check_current_decay(name: str, rate: float) -> None:
    """du = 4096 dt/tau_syn - 1: Lava adds 1 to it."""
    du = rate if not math.isfinite(rate) else round(2**DECAY_BITS * rate) - 1
    if not 0 <= du < 2**DECAY_BITS:
        raise RangeError(
            f"{name}: decay du = 4096 dt/tau_syn - 1 ({du}) leaves 0 … {2**DECAY_BITS - 1} of its 12 bits; keep tau_syn in dt … 4096 dt"
        )
