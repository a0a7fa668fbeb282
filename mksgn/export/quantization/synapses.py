"""The synapses of a population that is to be quantised, in units of the unquantised network."""

from collections.abc import Mapping

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.blocks import by_rows
from mksgn.export.graph.membranes import Membrane
from mksgn.export.graph.paths import LinearPaths
from mksgn.export.graph.weights import largest_weight, row_sums, set_weight, stored_weight
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.biases import Biases, check_unbiased
from mksgn.export.quantization.calibration import Calibration, input_peak
from mksgn.export.quantization.paths import WeightedPath, pooled, weighted_paths
from mksgn.export.quantization.scales import FixedScales, weight_exponent


class Synapses:
    """Weights on the linear paths into a population, its biases, and the largest sums they can cause."""

    def __init__(self, walk: LinearPaths, name: str, membrane: Membrane, values: Calibration | FixedScales) -> None:
        graph, self.membrane = walk.graph, membrane
        self.paths = _paths_into(walk, name, values)
        self.nodes = {path.weighted: graph.nodes[path.weighted] for path in self.paths}
        self.biases = Biases(graph, name, self.paths, membrane.drive)
        self.read()
        check_finite(name, *self.weights.values(), self.biases.total)
        self.analog = any(path.source in values.analog for path in self.paths)
        peak = input_peak(graph, values, self.paths[0].source) if self.analog else 1.0
        sums = sum(worst_sum(graph, path, self.weights[path.weighted]) for path in self.paths)
        self.largest_bias = float(np.abs(self.biases.to_membrane).max())
        self.worst_sum = sums * peak + float(np.abs(self.biases.total).max())
        self.largest_weight = max(map(largest_weight, self.weights.values()))

    def read(self) -> None:
        """Read weights, in the nodes' own precision, and biases from the nodes."""
        self.weights = {key: stored_weight(node) for key, node in self.nodes.items()}
        self.biases.read()

    def limits(self, weights: loihi.WeightFormat, steps: int, **threshold: float) -> dict[str, float]:
        """Return the largest scale that each of Loihi's ranges allows; `threshold` has loihi.Demand's other fields."""
        accumulation = accumulation_factor(self.membrane, steps)
        demand = loihi.Demand(self.largest_weight, self.largest_bias, self.worst_sum, accumulation, **threshold)
        limits = demand.limits(weights)
        if self.analog:
            del limits["worst membrane"]  # the host sums it in float32
        return limits

    def exponents(self, scale: float, weights: loihi.WeightFormat) -> dict[str, int]:
        """Choose the exponents of the projections' weights, by weighted node."""
        return {key: weight_exponent(weight, scale, weights) for key, weight in self.weights.items()}

    def rounded(self, key: str, scale: float, bits: int, exponent: int, unit: float = 1.0) -> np.ndarray:
        """Return the weights of a node in integers of `scale`, times `unit`."""
        return by_rows(lambda w: loihi.round_weights(w * scale, bits, exponent) * unit, self.weights[key])

    def saturated(self, scale: float, bits: int, exponents: Mapping[str, int]) -> int:
        """Count the weights that are clipped."""
        return sum(loihi.count_saturated(w, scale, bits, exponents.get(key, 0)) for key, w in self.weights.items())

    def write(self, scale: float, unit: float, bits: int, exponents: Mapping[str, int]) -> None:
        """Set weights and biases to the integers of `scale`, times `unit`."""
        for key, node in self.nodes.items():
            set_weight(node, self.rounded(key, scale, bits, exponents.get(key, 0), unit))
        self.biases.write(scale, unit, self.membrane)


def _paths_into(walk: LinearPaths, name: str, values: Calibration | FixedScales) -> list[WeightedPath]:
    """Find the linear paths into a population. Analog inputs and spikes may not meet in one population."""
    paths = weighted_paths(walk.graph, name, walk)
    check_unbiased(walk.graph, name, paths)
    sources = {path.source for path in paths}
    analog, others = sorted(sources & values.analog), sorted(sources - values.analog)
    if analog and others:
        raise UnsupportedNodeError(
            f"node {name}: the analog input {analog[0]} and the spikes of {others[0]} meet in it; encode "
            "the analog input with a population of its own"
        )
    return paths


def accumulation_factor(membrane: Membrane, steps: int) -> float:
    """Return what `steps` worst sums add up to in a membrane, with its slowest decays as Loihi rounds them."""
    decay = loihi.decay_as_quantized(float(np.min(membrane.decay)))
    current = float(np.min(membrane.current_decay))
    return loihi.accumulation_factor(steps, decay, current if current == 1 else loihi.decay_as_quantized(current))


def worst_sum(graph: nir.NIRGraph, path: WeightedPath, weight: np.ndarray) -> float:
    """Return the largest sum of |weights| into one neuron, if all neurons of the source fired."""
    into = float(row_sums(graph.nodes[path.weighted], weight).max())
    return into * pooled(graph, path.before) * pooled(graph, path.after)
