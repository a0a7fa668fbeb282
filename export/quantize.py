"""Quantise once: each population gets its own integer scale, so that every execution decides every spike alike.

A LIF population does not change its spikes when its weights, bias and threshold are scaled together. With a *unit* u, population
by population, the file holds

    weights    even integers in [-(2^bits - 2), 2^bits - 2] times u        what mixed-sign Loihi weights of `bits` bits can hold
    bias       an integer times u
    threshold  (integer + half) dt/tau u with half = 1/128, half a step of Loihi's `vth << 6`, or half a step of the membrane's own
               lattice where that is finer: in an encoder, its input being analog, and for many steps. No membrane ever equals
               it, so that `>` and `>=` decide alike

and u = 2^k, which float32 represents exactly. The scale is the finest that the ranges allow,

    min(weight limit / max|w|, 131071 / threshold, 8190 / max|bias|, 131071 / worst membrane, float32's 24 bits)

or finer, by saturating a few weights, where the population's spikes on calibration clips agree better with the unquantised
ones (export/ranges has the widths, export/calibration the spikes). The worst membrane is the largest |sum| of one step times
(1 - (1 - dt/tau)^S) tau/dt: what S steps can pile up below the threshold. Loihi clips at 2^23 - 1 sub-units, and a clipped
membrane would no longer be exact.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import nir
import numpy as np

from mksgn.export import ranges, reference
from mksgn.export.calibration import Branch, Calibration, agreement, coincidences, input_lattice, input_peak
from mksgn.export.errors import ExportError, RangeError, UnsupportedNodeError
from mksgn.export.fold import check_finite, per_edge
from mksgn.export.nodes import GraphConv, SpikingSelfAttention, f32

FINER = (1.0, 1.12, 1.26, 1.41, 1.59, 1.78, 2.0)  # scales tried above the one that saturates nothing
WEIGHTED = (nir.Conv2d, nir.Affine, nir.Linear, GraphConv)


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


def quantize(
    graph: nir.NIRGraph, bits: int, calibration: np.ndarray, steps: int, dt: float
) -> tuple[nir.NIRGraph, dict[str, PopulationScale]]:
    """A quantised copy of `graph`, and how each population was scaled, also kept in its metadata.

    `calibration` is (L, *input shape); of a large network fewer lanes are run (export/calibration). Raises RangeError (what,
    number, limit, remedy) or UnsupportedNodeError.
    """
    if bits not in range(2, 9):
        raise RangeError(f"--quantize {bits}: weights have 2 to 8 bits; choose one of them, or none")
    shape = next(
        tuple(int(n) for n in node.input_type["input"]) for node in graph.nodes.values() if isinstance(node, nir.Input)
    )
    if not len(calibration) or np.shape(calibration)[1:] != shape or not np.isfinite(calibration).all():
        raise ExportError(
            f"calibration has shape {np.shape(calibration)} or values that are not finite; expected finite lanes of clips (L, *{shape})"
        )
    values = Calibration(graph, calibration, steps, dt)
    quantised = copy.deepcopy(graph)
    for name, node in quantised.nodes.items():
        if isinstance(node, GraphConv):
            edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
            quantised.nodes[name] = _like(node, GraphConv(f32(edges), f32(weight), node.bias))
    scales: dict[str, PopulationScale] = {}
    for name in reference.topological(quantised):
        node = quantised.nodes[name]
        if isinstance(node, nir.LIF):
            scales[name] = _lif(quantised, name, bits, dt, values)
        elif isinstance(node, SpikingSelfAttention):
            scales |= _attention(node, name, _only_source(quantised, name), bits, dt, values)
        elif isinstance(node, nir.Output):
            scales |= _readout(quantised, name, bits)
        elif isinstance(
            node, nir.IF | nir.LI | nir.I | nir.CubaLI | nir.CubaLIF | nir.Threshold | nir.Delay | nir.NIRGraph
        ):
            raise UnsupportedNodeError(
                f"node {name}: {type(node).__name__} cannot be quantised; only LIF populations and attention can"
            )
    quantised.metadata["quantization"] = json.dumps(
        {
            "bits": bits,
            "exact_on_chip": all(ranges.exact_on_chip(rate, steps) for rate in _rates(quantised, dt)),
            "populations": {name: asdict(scale) for name, scale in scales.items()},
        }
    )
    return quantised, scales


def _rates(graph: nir.NIRGraph, dt: float) -> set[float]:
    """dt/tau of every population, rounded to float32 as everywhere."""
    taus = {float(node.tau) for node in graph.nodes.values() if isinstance(node, SpikingSelfAttention)}
    taus |= {float(node.tau.flat[0]) for node in graph.nodes.values() if isinstance(node, nir.LIF)}
    return {float(np.float32(dt) / np.float32(tau)) for tau in taus}


def branches(graph: nir.NIRGraph, target: str) -> list[Branch]:
    """The ways into `target`. Raises UnsupportedNodeError for one without a weighted node, or with several in series."""
    found = []
    for name in sorted(a for a, b in graph.edges if b == target):
        behind, weighted = _weightless(graph, name)
        if not isinstance(graph.nodes[weighted], WEIGHTED):
            kind = type(graph.nodes[weighted]).__name__
            raise UnsupportedNodeError(
                f"node {weighted}: {kind} before {target} cannot be quantised; put a Conv2d, GraphConv, Affine or Linear between them"
            )
        if len({b for a, b in graph.edges if a == weighted}) > 1:
            raise UnsupportedNodeError(
                f"node {weighted}: feeds several nodes, whose populations need a scale each; give each a node of its own"
            )
        before, source = _weightless(graph, _only_source(graph, weighted))
        if isinstance(graph.nodes[source], WEIGHTED):
            raise UnsupportedNodeError(
                f"nodes {source} and {weighted}: two weighted nodes in series have no integer form; merge them into one, or put a "
                "population between them"
            )
        found.append(Branch(source, before, weighted, behind))
    return found


def _weightless(graph: nir.NIRGraph, name: str) -> tuple[tuple[str, ...], str]:
    """Pooling and flattening nodes that end in `name`, in the signal's order, and the node before them."""
    passed: list[str] = []
    while isinstance(graph.nodes[name], nir.SumPool2d | nir.Flatten):
        passed.insert(0, name)
        name = _only_source(graph, name)
    return tuple(passed), name


def _only_source(graph: nir.NIRGraph, name: str) -> str:
    sources = [a for a, b in graph.edges if b == name]
    if len(sources) != 1:
        raise UnsupportedNodeError(f"node {name}: {len(sources)} edges lead into it; quantising needs exactly one")
    return sources[0]


def _lif(graph: nir.NIRGraph, name: str, bits: int, dt: float, values: Calibration) -> PopulationScale:
    node, incoming = graph.nodes[name], branches(graph, name)
    if (
        not (np.ptp(node.tau) == np.ptp(node.v_threshold) == np.ptp(node.r) == 0)
        or np.any(node.v_leak)
        or np.any(node.v_reset)
    ):
        raise UnsupportedNodeError(
            f"node {name}: quantising needs one tau, r and threshold per population, v_leak = v_reset = 0"
        )
    rate = float(np.float32(dt) / np.float32(node.tau.flat[0]))
    ranges.check_decay(name, rate)
    resistance, threshold = float(node.r.flat[0]), float(node.v_threshold.flat[0]) / rate
    nodes = {branch.weighted: graph.nodes[branch.weighted] for branch in incoming}
    weights = {key: np.asarray(n.weight, dtype=np.float64) * resistance for key, n in nodes.items()}
    _check_biases(graph, name, incoming)
    bias = sum((_bias(n) * resistance for n in nodes.values()), np.zeros(1))
    check_finite(name, *weights.values(), bias)
    analog = any(graph.nodes[branch.source].metadata.get("signal") == "analog" for branch in incoming)
    peak = input_peak(graph, values.inputs) if analog else 1.0
    worst = sum(_worst_sum(graph, branch, weights[branch.weighted]) for branch in incoming) * peak
    worst += np.abs(bias).max()
    largest = max(np.abs(w).max() for w in weights.values())
    finest = min(1.0, 2.0 * input_lattice(graph)) if analog else 1.0  # of even weights times an analog input's steps
    half = ranges.between_membranes(rate, values.steps, finest)
    limits = ranges.limits(bits, largest, threshold, np.abs(bias).max(), worst, values.steps, rate, half, finest)
    if analog:
        del limits["worst membrane"]  # the host sums it in float32
    binding = min(limits, key=lambda key: limits[key])
    hard = min(value for key, value in limits.items() if key != "weights")
    wanted, currents = values.spikes(name), values.currents(nodes, incoming)

    def integers(scale: float) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
        return (
            {key: ranges.even(w * scale, bits) for key, w in weights.items()},
            ranges.whole(bias * scale),
            ranges.threshold_above(threshold * scale, half),
        )

    def tried(scale: float) -> tuple[float, float]:
        whole_weights, whole_bias, whole_threshold = integers(scale)
        current = currents(whole_weights) + whole_bias.astype(np.float32).reshape(-1, *(1,) * (wanted.ndim - 3))
        return agreement(wanted, current, rate, whole_threshold), float(np.abs(current).max())

    scale, (agreed, largest_sum) = _choose(limits[binding], hard, tried)
    exponent = _exponent(threshold * scale * rate)
    whole_weights, whole_bias, whole_threshold = integers(scale)
    whole_bias = whole_bias * 2.0**exponent / resistance
    for key, n in nodes.items():
        n.weight = f32(whole_weights[key] * 2.0**exponent / resistance)
        if hasattr(n, "bias"):  # the whole bias on the first that has one: a sum of rounded ones would be rounded twice
            n.bias, whole_bias = f32(np.broadcast_to(whole_bias, n.bias.shape)), np.zeros(1)
    node.v_threshold = np.full_like(node.v_threshold, whole_threshold * rate * 2.0**exponent)
    clipped = ranges.saturated(weights.values(), scale, bits)
    return PopulationScale(
        exponent, scale, binding, clipped, agreed, float(wanted.mean()), float(worst * scale), largest_sum
    )


def _attention(
    node: SpikingSelfAttention, name: str, qkv: str, bits: int, dt: float, values: Calibration
) -> dict[str, PopulationScale]:
    """A product has one weight; a power of two, so that the gain stays what it was. The thresholds differ from head to head."""
    rate = float(np.float32(dt) / np.float32(node.tau))
    ranges.check_decay(name, rate)
    channels, _, joints = np.asarray(node.input_type["input"]) // np.array([3, 1, 1])
    counts = coincidences(node, values.source(qkv), values.spikes(f"{name}.m"))
    scales = {}
    for part, most, counted in zip("mz", (channels // node.heads, joints), counts, strict=True):
        gain = np.asarray(getattr(node, f"gain_{part}"), dtype=np.float64)
        threshold = np.asarray(getattr(node, f"threshold_{part}"), dtype=np.float64) / gain / rate  # in coincidences
        check_finite(f"{name}.{part}", threshold)
        between = ranges.between_membranes(rate, values.steps)
        limits = ranges.limits(bits, 1.0, threshold.max(), 0.0, float(most), values.steps, rate, between)
        binding = min(limits, key=lambda key: limits[key])
        if limits[binding] < 2:
            raise RangeError(
                f"{name}.{part}: {binding} allows a weight of {limits[binding]:.3g} per coincidence, a synapse's least is 2; "
                f"train it with a gain above {1 / threshold.max() / rate:.2g}, or with fewer than {values.steps} steps"
            )
        scale = 2.0 ** math.floor(math.log2(limits[binding]))
        exponent = -int(math.log2(scale))
        half = np.array([ranges.threshold_above(t * scale, between) for t in threshold])
        setattr(node, f"gain_{part}", np.ones(node.heads, dtype=np.float32))
        setattr(node, f"threshold_{part}", f32(half * rate / scale))
        wanted = values.spikes(f"{name}.{part}")
        agreed = agreement(wanted.reshape(counted.shape), counted * scale, rate, half.reshape(-1, 1, 1, 1))
        scales[f"{name}.{part}"] = PopulationScale(
            exponent, scale, binding, 0, agreed, float(wanted.mean()), float(most * scale), float(counted.max() * scale)
        )
    return scales


def _readout(graph: nir.NIRGraph, output: str, bits: int) -> dict[str, PopulationScale]:
    """The read-out has no threshold: its scale is a power of two, so that the outputs keep the unquantised network's units.

    Several branches into one output are one sum, and share its unit.
    """
    sources = sorted(a for a, b in graph.edges if b == output)
    if all(isinstance(graph.nodes[s], nir.LIF | SpikingSelfAttention) for s in sources):
        return {}  # shows a population's spikes
    incoming = branches(graph, output)
    nodes = {branch.weighted: graph.nodes[branch.weighted] for branch in incoming}
    weights = {name: np.asarray(node.weight, dtype=np.float64) for name, node in nodes.items()}
    biases = {name: _bias(node) for name, node in nodes.items()}
    check_finite(output, *weights.values(), *biases.values())
    # every neuron behind a pooled input may fire at once, and the float32 sum must stay exact
    worst = sum(
        _worst_sum(graph, branch, weights[branch.weighted])
        + float(np.abs(biases[branch.weighted]).max()) * _pooled(graph, branch.behind)
        for branch in incoming
    )
    largest = max(float(np.abs(w).max()) for w in weights.values())
    limits = {
        "weights": ranges.weight_limit(bits) / max(largest, ranges.NEGLIGIBLE),
        "float32": (2.0**ranges.FLOAT_BITS - 1) / max(worst, ranges.NEGLIGIBLE),
    }
    binding = min(limits, key=lambda key: limits[key])
    scale = 2.0 ** math.floor(math.log2(limits[binding]))

    def error(scale: float) -> float:
        return sum(float(((ranges.even(w * scale, bits) / scale - w) ** 2).sum()) for w in weights.values())

    if 2 * scale <= limits["float32"] and error(2 * scale) < error(scale):
        scale *= 2
    saturated = ranges.saturated(weights.values(), scale, bits)
    for name, node in nodes.items():
        node.weight = f32(ranges.even(weights[name] * scale, bits) / scale)
        if hasattr(node, "bias"):
            node.bias = f32(np.rint(biases[name] * scale) / scale)
    key = incoming[0].weighted if len(incoming) == 1 else output
    return {key: PopulationScale(-int(math.log2(scale)), scale, binding, saturated, worst_sum=worst * scale)}


def _pooled(graph: nir.NIRGraph, weightless: tuple[str, ...]) -> int:
    """How many values the pooling nodes among these add up into one."""
    return math.prod(
        int(np.prod(graph.nodes[n].kernel_size)) for n in weightless if isinstance(graph.nodes[n], nir.SumPool2d)
    )


def _check_biases(graph: nir.NIRGraph, name: str, incoming: list[Branch]) -> None:
    """The biases of all branches add up to one of the population, per channel: none may be pooled on the way, or lie on another axis."""
    for branch in incoming:
        node = graph.nodes[branch.weighted]
        if not np.any(_bias(node)):
            continue
        if _pooled(graph, branch.behind) > 1:
            raise UnsupportedNodeError(
                f"node {branch.weighted}: its bias is pooled before {name}; put the bias into a node behind the pool"
            )
        if isinstance(node, nir.Affine) and graph.nodes[name].v_threshold.ndim > 1:
            raise UnsupportedNodeError(
                f"node {branch.weighted}: an Affine's bias on the last axis of {name} is no bias per channel; use a Linear, or flatten"
            )


def _exponent(threshold: float) -> int:
    """k such that the file's threshold lies in (0.5, 1]."""
    return -math.ceil(math.log2(threshold))


def _choose(
    finest: float, hard: float, tried: Callable[[float], tuple[float, float]]
) -> tuple[float, tuple[float, float]]:
    """The scale whose spikes agree best, the coarser of two equal ones, and what `tried` gave for it."""
    results = {f: tried(finest * f) for f in FINER if finest * f <= hard or f == 1.0}
    best = max(results, key=lambda f: (results[f][0], -f))
    return finest * best, results[best]


def _worst_sum(graph: nir.NIRGraph, branch: Branch, weight: np.ndarray) -> float:
    """Largest sum of |weights| into one neuron, were all of the source's neurons to fire."""
    node = graph.nodes[branch.weighted]
    if isinstance(node, GraphConv):
        into = float(np.einsum("koc,kij->oj", np.abs(weight), np.abs(node.adjacency)).max())
    else:
        into = float(np.abs(weight).reshape(weight.shape[0], -1).sum(1).max())
    return into * _pooled(graph, branch.before) * _pooled(graph, branch.behind)


def _bias(node: nir.NIRNode) -> np.ndarray:
    return np.asarray(getattr(node, "bias", np.zeros(1)), dtype=np.float64)


def _like(old: nir.NIRNode, new: nir.NIRNode) -> nir.NIRNode:
    new.input_type, new.metadata = old.input_type, old.metadata
    return new
