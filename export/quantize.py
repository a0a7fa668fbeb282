"""Quantise once: each population gets its own integer scale, so that every execution decides every spike alike.

A LIF population does not change its spikes when its weights, bias and threshold are scaled together. With a *unit* u, population
by population, the file holds

    weights    even integers in [-(2^bits - 2), 2^bits - 2] times u        what mixed-sign Loihi weights of `bits` bits can hold
    bias       an integer times u
    threshold  (integer + 1/128) dt/tau u: half a step of the membrane's lattice above Loihi's `vth << 6`, so that no membrane
               ever equals it and `>` and `>=` decide alike. The encoder's lattice is finer, its input being analog: there
               the half step is half of the encoder's own

and u = 2^k, which float32 represents exactly. The scale is the finest that the ranges allow,

    min(weight limit / max|w|, 131071 / threshold, 8190 / max|bias|, 131071 / worst membrane)

or finer, by saturating a few weights, where the population's spikes on calibration clips agree better with the unquantised
ones. The worst membrane is the largest |sum| of one step times (1 - (1 - dt/tau)^S) tau/dt: what S steps can pile up below the
threshold. Loihi clips at 2^23 - 1 sub-units, and a clipped membrane would no longer be exact.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import nir
import numpy as np
import torch

from mksgn.export import reference
from mksgn.export.errors import RangeError, UnsupportedNodeError
from mksgn.export.fold import check_finite, per_edge
from mksgn.export.nodes import GraphConv, SpikingSelfAttention

THRESHOLD_LIMIT = 131_071  # 17-bit mantissa of vth, in weight units
MEMBRANE_LIMIT = 131_071  # 24-bit membrane: 2^23 - 1 sub-units of 1/64 weight unit
BIAS_LIMIT = 8_190  # 13-bit signed mantissa, doubled in weight units at exponent 7
FLOAT_BITS = 24  # integers that float32 represents exactly
SUB_UNITS = 64  # the membrane's sub-units per weight unit (`a << 6`)
FINER = (1.0, 1.12, 1.26, 1.41, 1.59, 1.78, 2.0)  # scales tried above the one that saturates nothing


@dataclass
class PopulationScale:
    """How one population was quantised. `unit` = 2**exponent is the value of one integer in the file."""

    exponent: int
    scale: float  # integers per unit of the unquantised network
    binding: str  # the term that bounds the scale
    saturated: int  # weights that the chosen scale clips
    agreement: float | None  # share of equal decisions, on the unquantised network's own input spikes


WEIGHTED = (nir.Conv2d, nir.Affine, nir.Linear, GraphConv)
LinearNodes = list[
    tuple[str, list[str]]
]  # (weighted node, the stateless nodes behind it), per branch into a population


def quantize(
    graph: nir.NIRGraph, bits: int, calibration: np.ndarray, steps: int, dt: float
) -> tuple[nir.NIRGraph, dict[str, PopulationScale]]:
    """A quantised copy of `graph`, and how each population was scaled, also kept in its metadata.

    `calibration` is (L, *input shape). Raises RangeError (what, number, limit, remedy) or UnsupportedNodeError.
    """
    if not 2 <= bits <= 8:
        raise RangeError(f"--quantize {bits}: weights have 2 to 8 bits; choose one of them, or none")
    quantised = copy.deepcopy(graph)
    for name, node in quantised.nodes.items():
        if isinstance(node, GraphConv):
            edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
            quantised.nodes[name] = _like(node, GraphConv(_f32(edges), _f32(weight), node.bias))
    float_run = reference.execute(quantised, calibration, steps, dt)
    values = _Values(quantised, calibration, float_run)
    scales: dict[str, PopulationScale] = {}
    for name in reference.topological(quantised):
        node = quantised.nodes[name]
        if isinstance(node, nir.LIF):
            scales[name] = _lif(quantised, name, bits, steps, dt, values)
        elif isinstance(node, SpikingSelfAttention):
            scales |= _attention(node, name, bits, steps, dt)
        elif isinstance(node, nir.Output):
            scales |= _readout(quantised, name, bits)
        elif isinstance(
            node, nir.IF | nir.LI | nir.I | nir.CubaLI | nir.CubaLIF | nir.Threshold | nir.Delay | nir.NIRGraph
        ):
            raise UnsupportedNodeError(
                f"node {name}: {type(node).__name__} cannot be quantised; only LIF populations and attention can"
            )
    quantised.metadata["quantization"] = json.dumps(
        {"bits": bits, "populations": {name: asdict(scale) for name, scale in scales.items()}}
    )
    return quantised, scales


class _Values:
    """What the unquantised network did on the calibration clips: the spikes and inputs that feed each population."""

    def __init__(self, graph: nir.NIRGraph, inputs: np.ndarray, run: reference.ReferenceRun):
        self.graph, self.inputs, self.run = graph, inputs, run

    def source(self, name: str) -> np.ndarray:
        """(S, L, ...) float32 output of a node that is an input, a population or attention."""
        node = self.graph.nodes[name]
        if isinstance(node, nir.Input):
            steps = len(next(iter(self.run.spikes.values())))
            return np.broadcast_to(self.inputs, (steps, *self.inputs.shape))
        return self.run.spikes[f"{name}.z" if isinstance(node, SpikingSelfAttention) else name].astype(np.float32)


def branches(graph: nir.NIRGraph, target: str) -> LinearNodes:
    """The weighted nodes that feed `target`, each with the weightless ones (pooling, flattening) between the two."""
    found: LinearNodes = []
    for source in sorted(a for a, b in graph.edges if b == target):
        behind, weighted = _weightless(graph, source)
        if not isinstance(graph.nodes[weighted], WEIGHTED):
            kind = type(graph.nodes[weighted]).__name__
            raise UnsupportedNodeError(
                f"node {weighted}: {kind} before {target} cannot be quantised; put a Conv2d, GraphConv, Affine or Linear between them"
            )
        _, before = _weightless(graph, _only_source(graph, weighted))
        if isinstance(graph.nodes[before], WEIGHTED):
            raise UnsupportedNodeError(
                f"nodes {before} and {weighted}: two weighted nodes in series have no integer form; merge them into one, or put a "
                "population between them"
            )
        found.append((weighted, behind[::-1]))
    return found


def _weightless(graph: nir.NIRGraph, name: str) -> tuple[list[str], str]:
    """Pooling and flattening nodes from `name` upstream, nearest first, and what comes before them."""
    passed: list[str] = []
    while isinstance(graph.nodes[name], nir.SumPool2d | nir.Flatten):
        passed.append(name)
        name = _only_source(graph, name)
    return passed, name


def _only_source(graph: nir.NIRGraph, name: str) -> str:
    sources = [a for a, b in graph.edges if b == name]
    if len(sources) != 1:
        raise UnsupportedNodeError(f"node {name}: {len(sources)} edges lead into it; quantising needs exactly one")
    return sources[0]


def _lif(graph: nir.NIRGraph, name: str, bits: int, steps: int, dt: float, values: _Values) -> PopulationScale:
    node, incoming = graph.nodes[name], branches(graph, name)
    rate = float(np.float32(dt) / np.float32(node.tau.flat[0]))
    if (
        not (np.ptp(node.tau) == np.ptp(node.v_threshold) == np.ptp(node.r) == 0)
        or np.any(node.v_leak)
        or np.any(node.v_reset)
    ):
        raise UnsupportedNodeError(
            f"node {name}: quantising needs one tau, r and threshold per population, v_leak = v_reset = 0"
        )
    resistance, threshold = float(node.r.flat[0]), float(node.v_threshold.flat[0]) / rate
    nodes = {weighted: graph.nodes[weighted] for weighted, _ in incoming}
    weights = {key: np.asarray(n.weight, dtype=np.float64) * resistance for key, n in nodes.items()}
    bias = sum((_bias(n) * resistance for n in nodes.values()), np.zeros(1))
    check_finite(name, *weights.values(), bias)
    source_is_analog = any(graph.nodes[_only_source(graph, key)].metadata.get("signal") == "analog" for key in nodes)
    peak = float(np.abs(values.inputs).max()) if source_is_analog else 1.0
    worst = sum(_worst_sum(nodes[key], weights[key]) * _pooled(graph, behind) for key, behind in incoming) * peak
    worst += np.abs(bias).max()
    limits = _limits(
        bits, max(np.abs(w).max() for w in weights.values()), threshold, np.abs(bias).max(), worst, steps, rate
    )
    if source_is_analog:
        del limits["worst membrane"]  # the host computes it in float32: its own check is below
    half = _encoder_half_step(graph, steps) if source_is_analog else 0.5 / SUB_UNITS
    binding = min(limits, key=lambda key: limits[key])
    hard = min(value for key, value in limits.items() if key != "weights")
    wanted = values.run.spikes[name]
    currents = _currents(graph, incoming, values)

    def agreement(scale: float) -> float:
        integers = {key: _even(w * scale, bits) for key, w in weights.items()}
        return _agreement(
            wanted,
            currents(integers) + _whole(bias * scale).reshape(-1, *(1,) * (node.v_threshold.ndim - 1)),
            rate,
            _half_step(threshold * scale, half),
        )

    scale, agreed = _choose(limits[binding], hard, agreement)
    exponent = _exponent(threshold * scale * rate)
    integers = {key: _even(w * scale, bits) for key, w in weights.items()}
    if source_is_analog:
        _check_float_exact(name, worst * scale, graph, steps)
    for i, (key, n) in enumerate(nodes.items()):
        n.weight = _f32(integers[key] * 2.0**exponent / resistance)
        if hasattr(n, "bias"):  # the whole bias on the first branch: a sum of rounded ones would be rounded twice
            whole = _whole(bias * scale) * 2.0**exponent / resistance
            n.bias = _f32(whole) if i == 0 else np.zeros_like(n.bias)
    node.v_threshold = np.full_like(node.v_threshold, _half_step(threshold * scale, half) * rate * 2.0**exponent)
    saturated = _saturated(weights, scale, bits)
    return PopulationScale(exponent, scale, binding, saturated, agreed)


def _attention(node: SpikingSelfAttention, name: str, bits: int, steps: int, dt: float) -> dict[str, PopulationScale]:
    """A product has one weight; a power of two, so that the gain stays what it was. The thresholds differ from head to head."""
    rate = float(np.float32(dt) / np.float32(node.tau))
    channels, _, joints = np.asarray(node.input_type["input"]) // np.array([3, 1, 1])
    scales = {}
    for part, most in (("m", channels // node.heads), ("z", joints)):
        gain = np.asarray(getattr(node, f"gain_{part}"), dtype=np.float64)
        threshold = np.asarray(getattr(node, f"threshold_{part}"), dtype=np.float64) / gain / rate  # in coincidences
        check_finite(f"{name}.{part}", threshold)
        limits = _limits(bits, 1.0, threshold.max(), 0.0, float(most), steps, rate)
        binding = min(limits, key=lambda key: limits[key])
        if limits[binding] < 2:
            raise RangeError(
                f"{name}.{part}: threshold of {threshold.max():.0f} coincidences exceeds {THRESHOLD_LIMIT // 2}; "
                "the population can hardly fire: train it with a larger gain"
            )
        scale = 2.0 ** math.floor(math.log2(limits[binding]))
        exponent = -int(math.log2(scale))
        half = np.array([_half_step(t * scale) for t in threshold])
        setattr(node, f"gain_{part}", np.ones(node.heads, dtype=np.float32))
        setattr(node, f"threshold_{part}", _f32(half * rate / scale))
        scales[f"{name}.{part}"] = PopulationScale(exponent, scale, binding, 0, None)
    return scales


def _readout(graph: nir.NIRGraph, output: str, bits: int) -> dict[str, PopulationScale]:
    """The read-out has no threshold: its scale is a power of two, so that the outputs keep the unquantised network's units.

    Several branches into one output are one sum, and share its unit.
    """
    sources = sorted(a for a, b in graph.edges if b == output)
    if all(isinstance(graph.nodes[s], nir.LIF | SpikingSelfAttention) for s in sources):
        return {}  # shows a population's spikes
    incoming = branches(graph, output)
    nodes = {name: graph.nodes[name] for name, _ in incoming}
    weights = {name: np.asarray(node.weight, dtype=np.float64) for name, node in nodes.items()}
    biases = {name: _bias(node) for name, node in nodes.items()}
    check_finite(output, *weights.values(), *biases.values())
    # every neuron behind a pooled input may fire at once, and the float32 sum must stay exact
    worst = sum(
        (
            _worst_sum(nodes[name], weights[name]) * _pooled(graph, _weightless(graph, _only_source(graph, name))[0])
            + float(np.abs(biases[name]).max())
        )
        * _pooled(graph, behind)
        for name, behind in incoming
    )
    largest = max(float(np.abs(w).max()) for w in weights.values())
    limits = {
        "weights": _weight_limit(bits) / max(largest, 1e-30),
        "float32": (2.0**FLOAT_BITS - 1) / max(worst, 1e-30),
    }
    binding = min(limits, key=lambda key: limits[key])
    scale = 2.0 ** math.floor(math.log2(limits[binding]))

    def error(scale: float) -> float:
        return sum(float(((_even(w * scale, bits) / scale - w) ** 2).sum()) for w in weights.values())

    if 2 * scale <= limits["float32"] and error(2 * scale) < error(scale):
        scale *= 2
    saturated = _saturated(weights, scale, bits)
    for name, node in nodes.items():
        node.weight = _f32(_even(weights[name] * scale, bits) / scale)
        if hasattr(node, "bias"):
            node.bias = _f32(np.rint(biases[name] * scale) / scale)
    key = incoming[0][0] if len(incoming) == 1 else output
    return {key: PopulationScale(-int(math.log2(scale)), scale, binding, saturated, None)}


def _pooled(graph: nir.NIRGraph, weightless: list[str]) -> int:
    """How many values the pooling nodes among these add up into one."""
    return math.prod(
        int(np.prod(graph.nodes[n].kernel_size)) for n in weightless if isinstance(graph.nodes[n], nir.SumPool2d)
    )


def _limits(
    bits: int, weight: float, threshold: float, bias: float, worst: float, steps: int, rate: float
) -> dict[str, float]:
    """Largest scale that each range allows; all arguments in units of the unquantised network."""
    pile = (1 - (1 - rate) ** steps) / rate
    tiny = 1e-30
    return {
        "weights": _weight_limit(bits) / max(weight, tiny),
        "threshold": (THRESHOLD_LIMIT - 1) / max(threshold, tiny),
        "bias": (BIAS_LIMIT - 2) / max(bias, tiny),
        "worst membrane": (MEMBRANE_LIMIT - 512) / max(worst * pile, tiny),
    }


def _weight_limit(bits: int) -> int:
    return 2**bits - 2


def _even(x: np.ndarray, bits: int) -> np.ndarray:
    limit = _weight_limit(bits)
    return np.clip(2 * np.rint(x / 2), -limit, limit)


def _saturated(weights: dict[str, np.ndarray], scale: float, bits: int) -> int:
    """Weights that `_even` clips; one unit above the limit is still rounded to it."""
    return sum(int((np.abs(w * scale) > _weight_limit(bits) + 1).sum()) for w in weights.values())


def _whole(bias: np.ndarray) -> np.ndarray:
    """Integers, even ones where Loihi's 13-bit mantissa needs the exponent 7."""
    return np.rint(bias) if np.abs(bias).max() <= BIAS_LIMIT // 2 else 2 * np.rint(bias / 2)


def _half_step(threshold: float, half: float = 0.5 / SUB_UNITS) -> float:
    """The nearest integer threshold (at least 1), plus half a step of the membrane's lattice."""
    return max(1.0, math.floor(threshold + 0.5)) + half


def _encoder_half_step(graph: nir.NIRGraph, steps: int) -> float:
    """Half of the finest step of an encoder's membrane, in weight units: even weights times the input's lattice, halved S - 1
    times. With inputs in 1/32 and S = 4 that is 1/256: 1/128, Loihi's half sub-unit, is a membrane that occurs."""
    return 0.5 * 2.0 * _input_lattice(graph) * 0.5 ** (steps - 1)


def _input_lattice(graph: nir.NIRGraph) -> float:
    """The finest step of an analog input's values; 1 where the file does not say."""
    for node in graph.nodes.values():
        if "normaliser" in node.metadata:
            return 2.0 ** json.loads(node.metadata["normaliser"])["lattice_exponent"]
    return 1.0


def _exponent(threshold: float) -> int:
    """k such that the file's threshold lies in (0.5, 1]."""
    return -math.ceil(math.log2(threshold))


def _choose(finest: float, hard: float, agreement: Callable[[float], float]) -> tuple[float, float]:
    scored = [(agreement(finest * f), -f) for f in FINER if finest * f <= hard or f == 1.0]
    best, factor = max(scored)
    return finest * -factor, best


def _worst_sum(node: nir.NIRNode, weight: np.ndarray) -> float:
    """Largest sum of |weights| into one neuron, were all of its inputs to fire."""
    if isinstance(node, GraphConv):
        into = np.einsum("koc,kij->oj", np.abs(weight), np.abs(node.adjacency))
        return float(into.max())
    return float(np.abs(weight).reshape(weight.shape[0], -1).sum(1).max())


def _currents(
    graph: nir.NIRGraph, incoming: LinearNodes, values: _Values
) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Currents (S, L, *shape) of a population for given weights, without biases, on the unquantised network's spikes."""

    def currents(weights: dict[str, np.ndarray]) -> np.ndarray:
        total: np.ndarray | None = None
        for key, behind in incoming:
            x = values.source(_only_source(graph, key))
            node = copy.copy(graph.nodes[key])
            node.weight = _f32(weights[key])
            if hasattr(node, "bias"):
                node.bias = np.zeros_like(node.bias)
            y = torch.from_numpy(np.ascontiguousarray(x.reshape(-1, *x.shape[2:]), dtype=np.float32))
            with torch.no_grad():
                for name, part in [(key, node), *((n, graph.nodes[n]) for n in behind)]:
                    y = reference.linear(part, name, y)
            branch = y.numpy().reshape(*x.shape[:2], *y.shape[1:])
            total = branch if total is None else total + branch
        assert total is not None
        return total

    return currents


def _agreement(wanted: np.ndarray, current: np.ndarray, rate: float, threshold: float) -> float:
    """Share of equal decisions of a LIF population in units of its integers: v ← v - rate v + x, spike where v > threshold."""
    v, equal = np.zeros_like(current[0]), 0
    for t in range(len(current)):
        v = v * (1 - rate) + current[t]
        s = v > threshold
        equal += int((s == wanted[t]).sum())
        v[s] = 0.0
    return equal / wanted.size


def _check_float_exact(name: str, worst: float, graph: nir.NIRGraph, steps: int) -> None:
    """The encoder's sums must stay exact in float32, on the lattice of integer weights times the input's own lattice."""
    fraction = 1 / _input_lattice(graph)
    finest = fraction / 2 * 2**steps  # weights are even
    if 2 * worst * finest >= 2.0**FLOAT_BITS:
        raise RangeError(
            f"{name}: the encoder's largest membrane is {2 * worst * finest:.3g} steps of its lattice, float32 is exact up to "
            f"{2**FLOAT_BITS}; quantise with fewer bits"
        )


def _bias(node: nir.NIRNode) -> np.ndarray:
    return np.asarray(getattr(node, "bias", np.zeros(1)), dtype=np.float64)


def _like(old: nir.NIRNode, new: nir.NIRNode) -> nir.NIRNode:
    new.input_type, new.metadata = old.input_type, old.metadata
    return new


def _f32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)
