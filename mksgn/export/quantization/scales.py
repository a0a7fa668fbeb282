"""How one population was quantised, and the choice of its scale."""

import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import RangeError
from mksgn.export.graph.weights import largest_weight

FINER = (1.0, 1.12, 1.26, 1.41, 1.59, 1.78, 2.0)  # scales tried above the one that saturates nothing
FINER_EXPONENTS = 2  # exponents tried below the one that clips no weight
# Weights of 2 bits are -2, 0 and 2: the scale that saturates none sets all below half the largest to 0.
FINER_OF_TWO_BITS = (*FINER, *(2 * factor for factor in FINER[1:]))


@dataclass
class PopulationScale:
    """How one population was quantised. One integer in the file stands for 2**exponent.

    Sums are of weights into one neuron at one step, in weight units: the worst that spikes could cause,
    and the largest on the calibration samples. `agreement` is with the unquantised network, on that
    network's own spikes. A read-out makes no decisions, so it has no agreement.
    """

    exponent: int
    scale: float  # integers per unit of the unquantised network
    binding: str  # the range that bounds the scale
    saturated: int  # weights that the chosen scale clips
    agreement: float | None = None  # share of equal decisions
    firing_rate: float | None = None  # of the unquantised population, on the calibration samples
    worst_sum: float | None = None
    largest_sum: float | None = None
    weight_exponents: dict[str, int] = field(default_factory=dict)  # by weighted node: weights are multiples of 2 · 2^e


@dataclass(frozen=True)
class Candidate:
    """A scale that was tried on the calibration samples, or, without measurements, one that was fixed beforehand."""

    scale: float
    exponents: Mapping[str, int] = field(default_factory=dict)  # of the weights, by weighted node; 0 where it has none
    agreement: float | None = None  # share of equal decisions
    largest_sum: float | None = None


@dataclass(frozen=True)
class FixedScales:
    """Scales that quantisation-aware training keeps, by the keys of the metadata; they replace calibration samples.

    Attributes:
        scales: Integers per unit of the unquantised network.
        exponents: Of the weights, by weighted node; 0 where it has none.
        steps: Time steps of a sample.
        analog: Names of non-spiking inputs, for which the file says how large they get.
    """

    scales: Mapping[str, float]
    exponents: Mapping[str, int]
    steps: int
    analog: AbstractSet[str]

    def check(self, name: str, limits: Mapping[str, float]) -> Candidate:
        """Return a population's scale, which may clip weights but must fit all other ranges.

        Raises:
            RangeError: It does not fit one of them.
        """
        others = {key: limit for key, limit in limits.items() if key != "weights"}
        binding = min(others, key=lambda key: others[key])
        if self.scales[name] > others[binding]:
            raise RangeError(
                f"{name}: {binding} allows a scale of {others[binding]:.4g}, but the training kept "
                f"{self.scales[name]:.4g}; "
                "train it again with a smaller learning_rate"
            )
        return Candidate(self.scales[name], self.exponents)

    def firing_rate(self, name: str) -> None:
        """Return None: there are no samples to measure a rate on."""


def choose(
    finest: float, limit: float, measure: Callable[[float], Candidate], factors: tuple[float, ...] = FINER
) -> Candidate:
    """Choose the scale whose spikes agree best; of equal ones, the coarsest.

    Args:
        finest: The finest scale that saturates no weight, always tried.
        limit: What no other scale may exceed.
        measure: Gives the candidate for a scale.
        factors: What `finest` is multiplied by.
    """
    candidates = [measure(finest * factor) for factor in factors if finest * factor <= limit or factor == 1.0]
    return max(candidates, key=lambda candidate: candidate.agreement or 0.0)  # the first of equal ones


def weight_exponent(weight: np.ndarray, scale: float, weights: loihi.WeightFormat) -> int:
    """Choose the exponent of a projection's weights: that with the least squared error; of equal ones, the smallest.

    That is the smallest exponent that clips no weight, or a smaller one that rounds the many small weights more finely.
    """
    largest = largest_weight(weight) * scale / loihi.largest_unclipped(weights.bits)
    fits = min(weights.exponent, max(0, math.ceil(math.log2(max(largest, loihi.NEGLIGIBLE)))))
    tried = range(max(0, fits - FINER_EXPONENTS), fits + 1)
    return min(tried, key=lambda e: loihi.squared_error(weight, scale, weights.bits, e)) if fits else 0


def power_of_two(limits: dict[str, float], bits: int, weights: dict[str, np.ndarray]) -> tuple[float, str]:
    """Choose a power of two as the scale, which leaves a read-out's units as they are.

    Returns:
        The largest one below all limits, or its double, with some weights clipped, if that has the
        smaller squared error; and the range that binds.
    """
    binding = min(limits, key=lambda key: limits[key])
    scale = 2.0 ** math.floor(math.log2(limits[binding]))

    def error(scale: float) -> float:
        return sum(loihi.squared_error(w, scale, bits) for w in weights.values())

    others = min(value for key, value in limits.items() if key != "weights")
    return (2 * scale if 2 * scale <= others and error(2 * scale) < error(scale) else scale), binding
