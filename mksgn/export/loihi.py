"""Loihi's bit widths, in weight units unless stated otherwise, and the rounding that fits numbers into them.

Lava documents these widths but enforces none of them (LAVA.md).
"""

import math
from dataclasses import dataclass

import numpy as np

from mksgn.export.errors import RangeError
from mksgn.export.graph.blocks import in_float64

WEIGHT_BITS = 8
WEIGHT_LIMIT = 2**WEIGHT_BITS - 2  # mixed-sign Dense and Sparse keep 7 bits and a sign, and clip; Conv clips nothing
WEIGHT_LEAST = -(2**WEIGHT_BITS)  # can be stored too, but the quantiser's weights are symmetric
HOST_WEIGHT_BITS = 16  # of an encoder: the host computes an analog input up to the first spikes, without synapses
THRESHOLD_BITS = 17
THRESHOLD_LIMIT = 2**THRESHOLD_BITS - 1  # mantissa of vth
SUB_UNIT_BITS = 6
SUB_UNITS = 1 << SUB_UNIT_BITS  # the membrane's sub-units per weight unit (`a << 6`)
HALF_STEP = 0.5 / SUB_UNITS  # the chip's thresholds lie halfway between two membrane potentials
STATE_BITS = 24  # current and membrane, signed, in sub-units
CURRENT_WRAP = 2.0**STATE_BITS  # the current wraps around, in sub-units
MEMBRANE_MAX = 2 ** (STATE_BITS - 1) - 1  # the membrane is clipped, in sub-units
MEMBRANE_LIMIT = MEMBRANE_MAX // SUB_UNITS
BIAS_BITS = 13
BIAS_MANTISSA_LIMIT = 2 ** (BIAS_BITS - 1) - 1
BIAS_EXPONENT_LIMIT = 7
# exponent 7 doubles the mantissa
BIAS_LIMIT = BIAS_MANTISSA_LIMIT << BIAS_EXPONENT_LIMIT - SUB_UNIT_BITS
DECAY_BITS = 12
DECAY_STEPS = 2**DECAY_BITS  # decays are in units of 1/4096
# lava-dl 0.6.0, netx/hdf5.py, clips at 62; Lava's own DelayDense for the chip takes 63. Both were
# written for Loihi 2; SLAYER's blocks for Loihi 1 have the same 62.
SYNAPTIC_DELAY_LIMIT = 62
# 16 bits signed, before the shift, in Loihi's documented model; Lava's has 24: a warning, not a limit
SYNAPTIC_SUM_LIMIT = 32_767
FLOAT_BITS = 24  # of the integers that float32 represents, and a float32 matrix product sums, exactly
FLOAT_EXACT = 2**FLOAT_BITS
NEGLIGIBLE = 1e-30  # replaces 0 in a denominator, so that the term never binds


@dataclass(frozen=True)
class WeightFormat:
    """Width of a weight, sign included, and the largest exponent of a projection.

    A projection's weights are even integers of `bits` bits times 2^e; Loihi keeps such an exponent for each
    group of synapses, Lava for each connection.
    """

    bits: int
    exponent: int = 0

    @classmethod
    def of(cls, bits: int, *, exponents: bool = True) -> "WeightFormat":
        """Return the quantiser's format: with its exponent, a weight of fewer bits still fits 8 bits."""
        return cls(bits, max(0, WEIGHT_BITS - bits) if exponents else 0)


@dataclass(frozen=True)
class Demand:
    """What a population requires of Loihi's ranges, in units of the unquantised network.

    float32 must hold the threshold to its last bit, and every membrane potential, as torch integrates it,
    on its `lattice`. This limit binds with many steps, or with an encoder's analog input.
    """

    weight: float  # the largest; likewise `bias`
    bias: float
    worst_sum: float  # of one step
    accumulation: float  # how many worst sums can add up in a membrane: see accumulation_factor
    threshold: float = 0.0
    offset: float = HALF_STEP  # of the threshold above an integer: see threshold_offset
    lattice: float = math.inf  # finest step of the membranes; infinite if they need not be exact

    def limits(self, weights: WeightFormat) -> dict[str, float]:
        """Return the largest scale that each range allows, by the range's name."""
        float_limit = FLOAT_EXACT - 1
        return {
            "weights": weight_limit(weights.bits, weights.exponent) / max(self.weight, NEGLIGIBLE),
            "threshold": (THRESHOLD_LIMIT - 1) / max(self.threshold, NEGLIGIBLE),
            "bias": (BIAS_LIMIT - 2) / max(self.bias, NEGLIGIBLE),
            "worst membrane": (MEMBRANE_LIMIT - 512) / max(self.worst_sum * self.accumulation, NEGLIGIBLE),
            "float32": float_limit
            * min(self.offset / max(self.threshold, NEGLIGIBLE), self.lattice / max(2 * self.worst_sum, NEGLIGIBLE)),
        }


def one_if_shared(x: np.ndarray) -> float | np.ndarray:
    """Return a single number if all neurons share it, else the array."""
    return float(x.flat[0]) if np.ptp(x) == 0 else x


def weight_limit(bits: int, exponent: int = 0) -> int:
    """Return the largest weight of `bits` bits, sign included, with an exponent; it is even."""
    return (2**bits - 2) << exponent


def largest_unclipped(bits: int, exponent: int = 0) -> int:
    """Return the largest weight that `round_weights` does not clip: one unit above the limit still rounds to it."""
    return (2**bits - 1) << exponent


def round_weights(x: np.ndarray, bits: int, exponent: int = 0) -> np.ndarray:
    """Round to the nearest even integers that `bits` bits hold, times 2^exponent, and clip what lies beyond them."""
    limit, step = weight_limit(bits, exponent), 2 << exponent
    return np.clip(step * np.rint(x / step), -limit, limit)


def count_saturated(weight: np.ndarray, scale: float, bits: int, exponent: int = 0) -> int:
    """Count the weights that `round_weights` clips."""
    return sum(int((np.abs(w * scale) > largest_unclipped(bits, exponent)).sum()) for w in in_float64(weight))


def squared_error(weight: np.ndarray, scale: float, bits: int, exponent: int = 0) -> float:
    """Sum the squared errors of the rounded weights, in units of the unquantised network."""
    return sum(float(((round_weights(w * scale, bits, exponent) / scale - w) ** 2).sum()) for w in in_float64(weight))


def round_biases(bias: np.ndarray) -> np.ndarray:
    """Round to integers, or to even integers where the 13-bit mantissa needs exponent 7."""
    return np.rint(bias) if np.abs(bias).max() <= BIAS_MANTISSA_LIMIT else 2 * np.rint(bias / 2)


def round_threshold(threshold: float | np.ndarray, offset: float) -> float | np.ndarray:
    """Round to the nearest integer, at least 1, and add `offset`.

    In a file, a threshold one float32 step below an integer means that a membrane potential equal to this
    integer fires; such a threshold is rounded down. The step is up to 2^-23 of the threshold, and the scale
    comes from a weight that float32 has rounded, too.
    """
    threshold = np.asarray(threshold)
    nearest = np.floor(threshold + 0.5)
    reached = (threshold < nearest) & (nearest - threshold <= nearest * 2.0 ** (2 - FLOAT_BITS))
    return np.maximum(1.0, nearest - reached) + offset


def threshold_offset(rate: float, steps: int, finest: float = 1.0) -> float:
    """Return how far above an integer a threshold lies, so that no membrane potential ever equals it.

    That is half a Loihi sub-unit, or half the membrane's own lattice where that is finer.

    Args:
        rate: dt/tau, by which each step multiplies the lattice; 1 if it never becomes finer.
        steps: Time steps of a sample.
        finest: Lattice of the sums of one step, in weight units.
    """
    return min(HALF_STEP, finest * rate ** (steps - 1) / 2)


def exact_on_chip(rate: float, steps: int) -> bool:
    """Return whether Loihi's decay, which truncates membranes to sub-units, is exact over `steps` steps."""
    return math.log2(rate) % 1 == 0 and rate ** (steps - 1) * SUB_UNITS >= 1


def accumulation_factor(steps: int, rate: float, current_rate: float = 1.0) -> float:
    """Return what `steps` equal inputs add up to below a threshold, in units of one input.

    That is the sum 1 + (1 - rate) + (1 - rate)^2 + …; if the current decays by `current_rate` per step,
    the membrane sums its values instead.
    """
    if current_rate == 1:
        return (1 - (1 - rate) ** steps) / rate if rate else float(steps)
    u = v = 0.0
    for _ in range(steps):
        u = u * (1 - current_rate) + 1
        v = v * (1 - rate) + u
    return v


def decay_as_quantized(rate: float) -> float:
    """Return the rate, rounded to 12 bits if a membrane could then accumulate more than `limits` leaves free."""
    dv = round(DECAY_STEPS * rate)
    return min(rate, dv / DECAY_STEPS) if dv < DECAY_STEPS // 32 else rate


def decay_integers(
    name: str, rate: float | np.ndarray, *, current: bool = False, leakless: bool = False
) -> int | np.ndarray:
    """Round decay rates to Loihi's 12 bits; where 4096 dt/tau is not an integer, parity has to be measured.

    Args:
        name: The population, for the error.
        rate: dt/tau, or dt/tau_syn.
        current: Whether the decay is that of the current, to whose integer Lava adds 1.
        leakless: Whether to allow dv = 0, for a membrane that integrates without leak.

    Raises:
        RangeError: A rate does not fit 12 bits.
    """
    rounded = np.rint(DECAY_STEPS * np.asarray(rate, dtype=np.float64)) - current
    least = 0 if current or leakless else 1
    if not np.all((rounded >= least) & (rounded < DECAY_STEPS)):
        formula = "du = 4096 dt/tau_syn - 1" if current else "dv = 4096 dt/tau"
        extremes = " … ".join(dict.fromkeys(f"{x:.0f}" for x in (rounded.min(), rounded.max())))
        raise RangeError(
            f"{name}: decay {formula} ({extremes}) is outside {least} … {DECAY_STEPS - 1} of its 12 bits; "
            "change the time constant, or the time step (--dt)"
        )
    return int(rounded) if rounded.ndim == 0 else rounded.astype(np.int64)
