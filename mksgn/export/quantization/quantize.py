"""Quantise a graph: each population gets its own integer scale, so that every execution gives the same spikes.

Scaling a population's weights, bias and threshold together does not change its spikes. With a unit
u = 2^k, population by population, which float32 represents exactly, the file holds

    weights    even integers in [-(2^bits - 2), 2^bits - 2] times u, as mixed-sign Loihi weights
    bias       an integer times u
    v_leak     an integer times u gain tau/dt: the drive at each step, as Loihi's bias
    threshold  (integer + offset) gain u; no membrane ever equals it: `>` and `>=` decide alike

The offset is 1/128, half a step of Loihi's `vth << 6`, or half a step of the membrane's own lattice
where that is finer: in an encoder, whose input is analog, and for many steps. gain is dt/tau r, neuron
by neuron (mksgn/export/graph/membranes).

The scale, integers per unit of the unquantised network, is the finest that the ranges allow,

    min(weight limit / max|w|, 131071 / threshold, 8190 / max|bias|, 131071 / worst membrane, 24 bits of float32)

or a finer one, which saturates a few weights, where the population's spikes on calibration samples
agree better with the unquantised ones (mksgn/export/loihi, mksgn/export/quantization/calibration). The
worst membrane is the largest |sum| of one step times (1 - (1 - dt/tau)^S) tau/dt: what S steps can add
up to below the threshold, S times where nothing leaks. Loihi clips it at 2^23 - 1 sub-units, and a
clipped membrane would no longer be exact. The graph is rewritten first, so that each linear path into a
population has one weighted node (mksgn/export/quantization/paths).
"""

import copy
import json
import math
from dataclasses import asdict

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import RangeError, UnsupportedNodeError
from mksgn.export.graph.arrays import Arrays
from mksgn.export.graph.conventions import resting_at_zero
from mksgn.export.graph.kinds import GRADED, SPIKING
from mksgn.export.graph.membranes import Membrane, dt_over_tau
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, f32
from mksgn.export.graph.order import evaluation_order
from mksgn.export.graph.paths import source_shape
from mksgn.export.graph.standard import standard_form
from mksgn.export.lowering.fold import check_finite, per_edge
from mksgn.export.quantization.calibration import Calibration, agreement, coincidences
from mksgn.export.quantization.paths import canonicalize_paths, sources_of
from mksgn.export.quantization.populations import lattice_rates, loihi_membrane, spiking
from mksgn.export.quantization.readouts import graded, readout
from mksgn.export.quantization.scales import PopulationScale


def quantize(
    graph: nir.NIRGraph, bits: int, calibration: Arrays, steps: int, dt: float, if_dt: float | None = None
) -> tuple[nir.NIRGraph, dict[str, PopulationScale]]:
    """Quantise any NIR graph to Loihi's integers.

    Args:
        graph: The unquantised graph; it is not changed.
        bits: Width of the weights, 2 to 8, sign included.
        calibration: (L, *input shape), constant, or (L, steps, *input shape), or a dict of either by
            input name. For a large network, fewer samples are run (calibration.py).
        steps: Time steps of a sample.
        dt: Time step, seconds.
        if_dt: What IF and I integrate with in place of `dt`, seconds.

    Returns:
        A flat, quantised copy, and how each population was scaled, which its metadata holds too.

    Raises:
        RangeError: A number that does not fit Loihi's widths.
        UnsupportedNodeError: A node, or a connection, that has no integer form.
        ExportError: Calibration that does not fit.
    """
    if bits not in range(2, 9):
        raise RangeError(f"--quantize {bits}: weights have 2 to 8 bits; choose one of them, or none")
    graph = resting_at_zero(canonicalize_paths(standard_form(graph)))
    membranes = {
        name: loihi_membrane(name, node, dt, if_dt)
        for name, node in graph.nodes.items()
        if isinstance(node, SPIKING + GRADED)
    }
    values = Calibration(graph, calibration, steps, dt, if_dt)
    quantised = _with_edge_weights(graph)
    scales: dict[str, PopulationScale] = {}
    rates = {rate for membrane in membranes.values() for rate in lattice_rates(membrane)}
    for name in evaluation_order(quantised):
        node = quantised.nodes[name]
        if isinstance(node, SPIKING):
            scales[name] = spiking(quantised, name, bits, membranes[name], values)
        elif isinstance(node, GRADED):
            scales[name] = graded(quantised, name, bits, membranes[name], values)
        elif isinstance(node, SpikingSelfAttention):
            rates.add(float(dt_over_tau(node.tau, dt)))
            scales |= _attention(quantised, name, bits, dt, values)
        elif isinstance(node, nir.Output):
            scales |= readout(quantised, name, bits)
        elif isinstance(node, nir.Threshold):
            _check_threshold(quantised, name, values)
    quantised.metadata["quantization"] = json.dumps(
        {
            "bits": bits,
            "exact_on_chip": all(loihi.exact_on_chip(rate, steps) for rate in rates),
            "populations": {name: asdict(scale) for name, scale in scales.items()},
        }
    )
    return quantised, scales


def _with_edge_weights(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Copy a graph with one block of weights per edge of each graph convolution, as a chip stores them."""
    own = copy.deepcopy(graph)
    for name, node in own.nodes.items():
        if isinstance(node, GraphConv):
            edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
            by_edge = own.nodes[name] = GraphConv(f32(edges), f32(weight), node.bias)
            by_edge.input_type, by_edge.metadata = node.input_type, node.metadata
    return own


def _check_threshold(graph: nir.NIRGraph, name: str, values: Calibration) -> None:
    """After analog inputs alone a Threshold runs on the host, and stays as it is."""
    if not sources_of(graph, name) or sources_of(graph, name) - values.analog:
        raise UnsupportedNodeError(
            f"node {name}: a Threshold has no memory, and Loihi's membrane would need a decay of 4096 in 12 "
            "bits; use a LIF, or feed it by an analog input alone"
        )


def _attended(graph: nir.NIRGraph, name: str) -> str:
    """Find the population of q|k|v spikes that an attention node reads."""
    sources = [a for a, b in graph.edges if b == name]
    if len(sources) != 1 or not isinstance(graph.nodes[sources[0]], SPIKING):
        raise UnsupportedNodeError(
            f"node {name}: attention must follow one population of q|k|v spikes; put one before it"
        )
    return sources[0]


def _attention(graph: nir.NIRGraph, name: str, bits: int, dt: float, values: Calibration) -> dict[str, PopulationScale]:
    """Quantise both populations of an attention node, in place.

    A product has one weight for all heads, a power of two, so that the gain stays what it was; the
    thresholds differ from head to head.
    """
    node, qkv = graph.nodes[name], _attended(graph, name)
    rate = float(dt_over_tau(node.tau, dt))
    loihi.decay_integers(name, rate)
    stacked, _, joints = source_shape(graph, qkv)
    channels = stacked // 3
    counts = coincidences(node, values.source(qkv), values.spikes(f"{name}.m"))
    scales = {}
    for part, most, counted in zip("mz", (channels // node.heads, joints), counts, strict=True):
        population = f"{name}.{part}"
        gain = np.asarray(getattr(node, f"gain_{part}"), dtype=np.float64)
        threshold = np.asarray(getattr(node, f"threshold_{part}"), dtype=np.float64) / gain / rate  # in coincidences
        check_finite(population, threshold)
        offset = loihi.threshold_offset(rate, values.steps)
        accumulation = loihi.accumulation_factor(values.steps, rate)
        demand = loihi.Demand(1.0, 0.0, float(most), accumulation, threshold.max(), offset, rate**values.steps)
        limits = demand.limits(bits)
        binding = min(limits, key=lambda key: limits[key])
        if limits[binding] < 2:
            raise RangeError(
                f"{population}: {binding} allows a weight of {limits[binding]:.3g} per coincidence, a synapse's "
                f"least is 2; train it with a gain above {1 / threshold.max() / rate:.2g}, "
                f"or with fewer than {values.steps} steps"
            )
        scale = 2.0 ** math.floor(math.log2(limits[binding]))
        rounded = np.array([loihi.round_threshold(t * scale, offset) for t in threshold])
        setattr(node, f"gain_{part}", np.ones(node.heads, dtype=np.float32))
        setattr(node, f"threshold_{part}", f32(rounded * rate / scale))
        spikes = values.spikes(population)
        membrane = Membrane(gain=1.0, decay=rate, current_decay=1.0, leak=np.zeros(1))
        expected, thresholds = spikes.reshape(counted.shape), rounded.reshape(-1, 1, 1, 1)
        agreed = agreement(expected, counted * scale, membrane, thresholds)
        worst_sum, largest_sum = float(most * scale), float(counted.max() * scale)
        exponent, firing_rate = -int(math.log2(scale)), float(spikes.mean())
        scales[population] = PopulationScale(exponent, scale, binding, 0, agreed, firing_rate, worst_sum, largest_sum)
    return scales
