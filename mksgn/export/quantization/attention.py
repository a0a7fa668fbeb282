"""The two populations of an attention node in Loihi's integers.

A product has one weight for all heads, a power of two, so that the gain does not change; the
thresholds differ from head to head.
"""

import math

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import RangeError, UnsupportedNodeError
from mksgn.export.graph.kinds import SPIKING
from mksgn.export.graph.membranes import Membrane, dt_over_tau
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.paths import source_shape
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.calibration import Calibration, agreement, coincidences
from mksgn.export.quantization.scales import Candidate, FixedScales, PopulationScale


class AttentionPopulation:
    """One population of an attention node: that of the map, or that of the values.

    Args:
        graph: The graph, whose node `write` changes.
        name: The attention node.
        part: "m" or "z".
        dt: Time step, seconds.
        values: The calibration samples, or the scales that replace them.
    """

    def __init__(self, graph: nir.NIRGraph, name: str, part: str, dt: float, values: Calibration | FixedScales) -> None:
        self.name, self.node, self.part, self.values = f"{name}.{part}", graph.nodes[name], part, values
        self.qkv = _attended(graph, name)
        self.rate = float(dt_over_tau(self.node.tau, dt))
        loihi.decay_integers(name, self.rate)
        stacked, _, joints = source_shape(graph, self.qkv)
        self.most = stacked // 3 // self.node.heads if part == "m" else joints  # most coincidences in one step
        self.offset = loihi.threshold_offset(self.rate, values.steps)

    @property
    def threshold(self) -> np.ndarray:
        """The node's thresholds (heads,), in coincidences."""
        gain = np.asarray(getattr(self.node, f"gain_{self.part}"), dtype=np.float64)
        return np.asarray(getattr(self.node, f"threshold_{self.part}"), dtype=np.float64) / gain / self.rate

    def quantise(self, weights: loihi.WeightFormat, counts: np.ndarray | None) -> PopulationScale:
        """Choose the scale, and write the integers; `counts` are the coincidences on the samples, (S, L, heads, …)."""
        values, threshold = self.values, self.threshold
        check_finite(self.name, threshold)
        accumulation = loihi.accumulation_factor(values.steps, self.rate)
        lattice = self.rate**values.steps
        demand = loihi.Demand(1.0, 0.0, float(self.most), accumulation, threshold.max(), self.offset, lattice)
        limits = demand.limits(weights)
        binding = min(limits, key=lambda key: limits[key])
        if limits[binding] < 2:
            raise RangeError(
                f"{self.name}: {binding} allows a weight of {limits[binding]:.3g} per coincidence, the "
                f"smallest weight of a synapse is 2; train it with a gain above {1 / threshold.max() / self.rate:.2g}, "
                f"or with fewer than {values.steps} steps"
            )
        if isinstance(values, FixedScales):
            chosen = values.check(self.name, limits)
        else:
            assert counts is not None
            chosen = self._measure(2.0 ** math.floor(math.log2(limits[binding])), counts, values)
        self.write(chosen.scale)
        exponent, worst_sum = -int(math.log2(chosen.scale)), float(self.most * chosen.scale)
        rate = values.firing_rate(self.name)
        return PopulationScale(
            exponent, chosen.scale, binding, 0, chosen.agreement, rate, worst_sum, chosen.largest_sum
        )

    def write(self, scale: float) -> None:
        """Replace the thresholds with the integers of `scale`, a power of two, in units of coincidences."""
        rounded = self._rounded(scale)
        setattr(self.node, f"gain_{self.part}", np.ones(self.node.heads, dtype=np.float32))
        setattr(self.node, f"threshold_{self.part}", f32(rounded * self.rate / scale))

    def _rounded(self, scale: float) -> np.ndarray:
        """Return the thresholds in integers of `scale`; where membranes are integers, they decide as unquantised ones.

        Coincidences are whole numbers, so a threshold may lie close to a membrane potential; rounding it to the
        nearest integer could move it to the other side.
        """
        threshold = self.threshold * scale
        whole = scale * self.rate ** (self.values.steps - 1) % 1 == 0
        return np.asarray(loihi.round_threshold(np.floor(threshold) if whole else threshold, self.offset))

    def _measure(self, scale: float, counts: np.ndarray, values: Calibration) -> Candidate:
        membrane = Membrane(gain=1.0, decay=self.rate, current_decay=1.0, leak=np.zeros(1))
        expected, thresholds = values.spikes(self.name).reshape(counts.shape), self._rounded(scale)
        agreed = agreement(expected, counts * scale, membrane, thresholds.reshape(-1, 1, 1, 1))
        return Candidate(scale, {}, agreed, float(counts.max() * scale))


def quantise_attention(
    graph: nir.NIRGraph, name: str, weights: loihi.WeightFormat, dt: float, values: Calibration | FixedScales
) -> dict[str, PopulationScale]:
    """Quantise both populations of an attention node, in place."""
    populations = [AttentionPopulation(graph, name, part, dt, values) for part in "mz"]
    counts: tuple[np.ndarray | None, ...] = (None, None)
    if isinstance(values, Calibration):
        counts = coincidences(graph.nodes[name], values.source(populations[0].qkv), values.spikes(f"{name}.m"))
    return {p.name: p.quantise(weights, counted) for p, counted in zip(populations, counts, strict=True)}


def _attended(graph: nir.NIRGraph, name: str) -> str:
    """Find the population of q|k|v spikes that an attention node reads."""
    sources = [a for a, b in graph.edges if b == name]
    if len(sources) != 1 or not isinstance(graph.nodes[sources[0]], SPIKING):
        raise UnsupportedNodeError(
            f"node {name}: attention must follow one population of q|k|v spikes; put one before it"
        )
    return sources[0]
