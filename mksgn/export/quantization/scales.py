"""How one population was quantised, and the choice of its scale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FINER = (1.0, 1.12, 1.26, 1.41, 1.59, 1.78, 2.0)  # scales tried above the one that saturates nothing


@dataclass
class PopulationScale:
    """How one population was quantised. `unit` = 2**exponent is the value of one integer in the file.

    Sums are of weights into one neuron at one step, in weight units: the worst that spikes could cause, and the largest that the
    calibration clips did. `agreement` is with the unquantised network, on that network's own spikes; the read-out decides nothing.
    """

    exponent: int
    scale: float  # integers per unit of the unquantised network
    binding: str  # the term that bounds the scale
    saturated: int  # weights that the chosen scale clips
    agreement: float | None = None  # share of equal decisions
    firing_rate: float | None = None  # of the unquantised population, on the calibration clips
    worst_sum: float | None = None
    largest_sum: float | None = None


def choose(
    finest: float, hard: float, tried: Callable[[float], tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """The scale whose spikes agree best, the coarser of two equal ones, and what `tried` gave for it."""
    results = {f: tried(finest * f) for f in FINER if finest * f <= hard or f == 1.0}
    best = max(results, key=lambda f: (results[f][0], -f))
    return finest * best, results[best]
