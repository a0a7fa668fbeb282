"""Read-outs in Loihi's integers: graded neurons and weighted nodes that lead to an Output. They decide nothing and keep their units."""

from __future__ import annotations

import math

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.weights import bias_of, set_weight, weight_of
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.biases import Biases, check_unbiased
from mksgn.export.quantization.calibration import Calibration, input_peak
from mksgn.export.quantization.paths import branches, pooled
from mksgn.export.quantization.populations import Membrane, accumulation_factor, ways_into, worst_sum
from mksgn.export.quantization.scales import PopulationScale


def graded(graph: nir.NIRGraph, name: str, bits: int, membrane: Membrane, values: Calibration) -> PopulationScale:
    """A LI, I or CubaLI that leads to Outputs, in place: no threshold, and a power of two as scale, so that it keeps its units."""
    incoming = ways_into(graph, name, values)
    nodes = {branch.weighted: graph.nodes[branch.weighted] for branch in incoming}
    weights = {key: weight_of(n) for key, n in nodes.items()}
    biases = Biases(graph, name, incoming, membrane.drive)
    check_finite(name, *weights.values(), biases.total)
    analog = any(branch.source in values.analog for branch in incoming)
    peak = input_peak(graph, values.inputs[incoming[0].source]) if analog else 1.0
    worst = sum(worst_sum(graph, branch, weights[branch.weighted]) for branch in incoming) * peak
    worst += float(np.abs(biases.total).max())
    largest, bias = max(float(np.abs(w).max(initial=0)) for w in weights.values()), float(np.abs(biases.total).max())
    limits = loihi.limits(bits, largest, 0.0, bias, worst, accumulation_factor(membrane, values.steps))
    del limits["threshold"], limits["float32"]
    if analog:
        del limits["worst membrane"]
    scale, binding = power_of_two(limits, bits, weights)
    for key, n in nodes.items():
        set_weight(n, loihi.even(weights[key] * scale, bits) / scale)
    biases.write(scale, 1 / scale, membrane.gain, membrane.rate)
    saturated = loihi.saturated(weights.values(), scale, bits)
    return PopulationScale(-int(math.log2(scale)), scale, binding, saturated, worst_sum=worst * scale)


def readout(graph: nir.NIRGraph, output: str, bits: int) -> dict[str, PopulationScale]:
    """Weighted nodes that lead to an Output: a sum without threshold, its scale a power of two, as of `graded`.

    Several branches into one output are one sum, and share its unit. Nothing where the Output shows a population's spikes.
    """
    incoming = branches(graph, output)
    if not incoming:
        return {}
    check_unbiased(graph, output, incoming)
    nodes = {branch.weighted: graph.nodes[branch.weighted] for branch in incoming}
    weights = {name: weight_of(node) for name, node in nodes.items()}
    biases = {name: bias_of(node) for name, node in nodes.items()}
    check_finite(output, *weights.values(), *biases.values())
    # every neuron behind a pooled input may fire at once, and the float32 sum must stay exact
    worst = sum(
        worst_sum(graph, branch, weights[branch.weighted])
        + float(np.abs(biases[branch.weighted]).max()) * pooled(graph, branch.behind)
        for branch in incoming
    )
    largest = max(float(np.abs(w).max(initial=0)) for w in weights.values())
    limits = {
        "weights": loihi.weight_limit(bits) / max(largest, loihi.NEGLIGIBLE),
        "float32": (2.0**loihi.FLOAT_BITS - 1) / max(worst, loihi.NEGLIGIBLE),
    }
    scale, binding = power_of_two(limits, bits, weights)
    saturated = loihi.saturated(weights.values(), scale, bits)
    for name, node in nodes.items():
        set_weight(node, loihi.even(weights[name] * scale, bits) / scale)
        if hasattr(node, "bias"):
            node.bias = f32(np.rint(biases[name] * scale) / scale)
    key = incoming[0].weighted if len(incoming) == 1 else output
    return {key: PopulationScale(-int(math.log2(scale)), scale, binding, saturated, worst_sum=worst * scale)}


def power_of_two(limits: dict[str, float], bits: int, weights: dict[str, np.ndarray]) -> tuple[float, str]:
    """The scale below all limits, or its double, some weights clipped, where that is nearer to them; and the term that binds."""
    binding = min(limits, key=lambda key: limits[key])
    scale = 2.0 ** math.floor(math.log2(limits[binding]))

    def error(scale: float) -> float:
        return sum(float(((loihi.even(w * scale, bits) / scale - w) ** 2).sum()) for w in weights.values())

    others = min(value for key, value in limits.items() if key != "weights")
    return (2 * scale if 2 * scale <= others and error(2 * scale) < error(scale) else scale), binding
