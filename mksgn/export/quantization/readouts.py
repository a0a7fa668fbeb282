"""Read-outs in Loihi's integers: graded neurons, and weighted nodes that lead to an Output. They keep their units."""

import math
from collections.abc import Iterable

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.graph.blocks import by_rows
from mksgn.export.graph.membranes import Membrane
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.paths import LinearPaths
from mksgn.export.graph.weights import bias_of, largest_weight, set_weight, stored_weight
from mksgn.export.lowering.fold import check_finite
from mksgn.export.quantization.biases import check_unbiased
from mksgn.export.quantization.calibration import Calibration
from mksgn.export.quantization.paths import pooled, weighted_paths
from mksgn.export.quantization.scales import FixedScales, PopulationScale, power_of_two
from mksgn.export.quantization.synapses import Synapses, worst_sum


def graded(
    walk: LinearPaths, name: str, bits: int, membrane: Membrane, values: Calibration | FixedScales
) -> PopulationScale:
    """Quantise an LI, I or CubaLI that leads to Outputs, in place; its scale is a power of two."""
    synapses = Synapses(walk, name, membrane, values)
    limits = synapses.limits(loihi.WeightFormat(bits), values.steps)
    del limits["threshold"], limits["float32"]
    scale, binding = power_of_two(limits, bits, synapses.weights)
    if isinstance(values, FixedScales):
        scale = values.check(name, limits).scale
    synapses.write(scale, 1 / scale, bits, {})
    if np.any(membrane.initial):  # as numbers: v_leak has been rounded
        node = walk.graph.nodes[name]
        node.metadata["v_init"] = f32(np.broadcast_to(membrane.initial, np.shape(node.r)))
    return _scale_of(scale, binding, bits, synapses.weights, synapses.worst_sum)


def readout(walk: LinearPaths, output: str, bits: int, values: Calibration | FixedScales) -> dict[str, PopulationScale]:
    """Quantise the weighted nodes that lead to an Output, in place; their scale is a power of two.

    Several paths into one Output are one sum, and share its unit.

    Returns:
        The scale, by the name of the weighted node if there is one, else of the Output; nothing
        where the Output takes a population's spikes.
    """
    graph = walk.graph
    paths = weighted_paths(graph, output, walk)
    if not paths:
        return {}
    check_unbiased(graph, output, paths)
    nodes = {path.weighted: graph.nodes[path.weighted] for path in paths}
    weights = {name: stored_weight(node) for name, node in nodes.items()}
    biases = {name: bias_of(node) for name, node in nodes.items()}
    check_finite(output, *weights.values(), *biases.values())
    # every neuron of a pooled input may fire at once, and the float32 sum must stay exact
    worst = sum(
        worst_sum(graph, path, weights[path.weighted])
        + float(np.abs(biases[path.weighted]).max()) * pooled(graph, path.after)
        for path in paths
    )
    largest = max(map(largest_weight, weights.values()))
    limits = {
        "weights": loihi.weight_limit(bits) / max(largest, loihi.NEGLIGIBLE),
        "float32": (loihi.FLOAT_EXACT - 1) / max(worst, loihi.NEGLIGIBLE),
    }
    key = paths[0].weighted if len(paths) == 1 else output
    scale, binding = power_of_two(limits, bits, weights)
    if isinstance(values, FixedScales):
        scale = values.check(key, limits).scale
    write_readout(nodes.values(), scale, bits)
    return {key: _scale_of(scale, binding, bits, weights, worst)}


def write_readout(nodes: Iterable[nir.NIRNode], scale: float, bits: int) -> None:
    """Replace weights and biases with the integers of `scale`, a power of two, in the units that they have."""
    for node in nodes:
        set_weight(node, by_rows(lambda w: loihi.round_weights(w * scale, bits) / scale, stored_weight(node)))
        if hasattr(node, "bias"):
            node.bias = f32(np.rint(bias_of(node) * scale) / scale)


def _scale_of(
    scale: float, binding: str, bits: int, weights: dict[str, np.ndarray], worst_sum: float
) -> PopulationScale:
    saturated = sum(loihi.count_saturated(w, scale, bits) for w in weights.values())
    return PopulationScale(-int(math.log2(scale)), scale, binding, saturated, worst_sum=worst_sum * scale)
