"""Quantise a graph: each population gets its own integer scale, so that every execution gives the same spikes.

Scaling a population's weights, bias and threshold together does not change its spikes. With a unit
u = 2^k for each population, which float32 represents exactly, the file holds

    weights    even integers in [-(2^bits - 2), 2^bits - 2] times 2^e u, as mixed-sign Loihi weights
               (16 bits for an encoder, which stays on the host). e is the exponent of a projection,
               0 … 8 - bits, so that all weights are even integers of 8 bits times u
    bias       an integer times u
    v_leak     an integer times u gain tau/dt: the drive at each step, as Loihi's bias
    threshold  (integer + offset) gain u; no membrane ever equals it, so `>` and `>=` agree

The offset is 1/128, half a step of Loihi's `vth << 6`, or half a step of the membrane's own lattice
where that is finer: in an encoder, whose input is analog, and with many steps. gain is dt/tau r for each
neuron (mksgn/export/graph/membranes).

The scale, in integers per unit of the unquantised network, is the finest that the ranges allow,

    min(weight limit / max|w|, 131071 / threshold, 8190 / max|bias|, 131071 / worst membrane, 24 bits of float32)

or a finer one, which saturates a few weights, if the population's spikes on calibration samples then
agree better with the unquantised ones (mksgn/export/loihi, mksgn/export/quantization/calibration). The
weight limit is that with the largest exponent, 2^8 - 2^(9 - bits), so that thresholds and biases are as fine
with few bits as with 8; each projection's exponent is the one with the least squared error
(mksgn/export/quantization/scales). The worst membrane is the largest |sum| of one step times
(1 - (1 - dt/tau)^S) tau/dt, or times S if nothing leaks: what S steps can add up to below the threshold.
Loihi clips it at 2^23 - 1 sub-units, and a clipped membrane would no longer be exact. The graph is rewritten
first, so that each linear path into a population has one weighted node (mksgn/export/quantization/paths).
"""

import copy
import json
from collections.abc import Set as AbstractSet
from dataclasses import asdict

import nir
import numpy as np

from mksgn.common.progress import track
from mksgn.export import loihi
from mksgn.export.errors import ExportError, RangeError, UnsupportedNodeError
from mksgn.export.graph.arrays import Arrays
from mksgn.export.graph.conventions import resting_at_zero
from mksgn.export.graph.kinds import GRADED, SPIKING
from mksgn.export.graph.membranes import dt_over_tau
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, f32
from mksgn.export.graph.order import evaluation_order
from mksgn.export.graph.paths import LinearPaths
from mksgn.export.graph.standard import standard_form
from mksgn.export.lowering.fold import per_edge
from mksgn.export.quantization.attention import quantise_attention
from mksgn.export.quantization.calibration import Calibration
from mksgn.export.quantization.paths import canonicalize_paths, linear_paths
from mksgn.export.quantization.populations import SpikingPopulation, lattice_rates, loihi_membrane
from mksgn.export.quantization.readouts import graded, readout
from mksgn.export.quantization.scales import FixedScales, PopulationScale
from mksgn.train.checkpoint import Quantization
from mksgn.train.choices import BITS


def quantize(
    graph: nir.NIRGraph,
    bits: int,
    calibration: Arrays | None,
    steps: int,
    dt: float,
    if_dt: float | None = None,
    *,
    weight_exponents: bool = True,
    trained: Quantization | None = None,
) -> tuple[nir.NIRGraph, dict[str, PopulationScale]]:
    """Quantise any NIR graph to Loihi's integers.

    Args:
        graph: The unquantised graph; it is not changed.
        bits: Width of the weights, 2 to 8, sign included.
        calibration: (L, *input shape), constant, or (L, steps, *input shape), or a dict of either by
            input name. For a large network, fewer samples are run (calibration.py). None with `trained`.
        steps: Time steps of a sample.
        dt: Time step, seconds.
        if_dt: Time step that IF and I integrate with in place of `dt`, in seconds.
        weight_exponents: Whether each projection's weights get an exponent of their own, below 8 bits.
        trained: Scales and exponents of a student that was trained with them (quantisation-aware); they
            replace calibration.

    Returns:
        A flat, quantised copy, and how each population was scaled, which its metadata also holds.

    Raises:
        RangeError: A number does not fit Loihi's widths.
        UnsupportedNodeError: A node, or a connection, has no integer form.
        ExportError: The calibration does not fit.
    """
    if bits not in BITS:
        raise RangeError(f"--quantize {bits}: weights have {BITS[0]} to {BITS[-1]} bits; choose one of them, or none")
    graph = canonical(graph)
    neurons = {name: node for name, node in graph.nodes.items() if isinstance(node, SPIKING + GRADED)}
    membranes = {name: loihi_membrane(name, node, dt, if_dt) for name, node in neurons.items()}
    values: Calibration | FixedScales
    if trained is not None:
        values = fixed_scales(graph, trained, steps)
    else:
        assert calibration is not None
        values = Calibration(graph, calibration, steps, dt, if_dt)
    quantised, weights = with_edge_weights(graph), loihi.WeightFormat.of(bits, exponents=weight_exponents)
    found: dict[str, PopulationScale] = {}
    rates = {rate for membrane in membranes.values() for rate in lattice_rates(membrane)}
    walk = linear_paths(quantised)
    order = evaluation_order(quantised)
    for name in track(order, len(order), "nodes quantised"):
        node = quantised.nodes[name]
        if isinstance(node, SPIKING):
            found[name] = SpikingPopulation(walk, name, membranes[name], values).quantise(weights)
        elif isinstance(node, GRADED):
            found[name] = graded(walk, name, bits, membranes[name], values)
        elif isinstance(node, SpikingSelfAttention):
            rates.add(float(dt_over_tau(node.tau, dt)))
            found |= quantise_attention(quantised, name, weights, dt, values)
        elif isinstance(node, nir.Output):
            found |= readout(walk, name, bits, values)
        elif isinstance(node, nir.Threshold):
            _check_threshold(walk, name, values.analog)
    populations, exact = {n: asdict(s) for n, s in found.items()}, all(loihi.exact_on_chip(r, steps) for r in rates)
    quantised.metadata["quantization"] = json.dumps({"bits": bits, "exact_on_chip": exact, "populations": populations})
    return quantised, found


def canonical(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Rewrite a graph into the form the quantiser works on: one weighted node per path, membranes that rest at 0."""
    return resting_at_zero(canonicalize_paths(standard_form(graph)))


def fixed_scales(graph: nir.NIRGraph, trained: Quantization, steps: int) -> FixedScales:
    """Use a student's scales in place of calibration samples.

    Raises:
        ExportError: An exponent is for a node that the graph does not have.
    """
    unknown = sorted(set(trained.exponents) - set(graph.nodes))
    if unknown:
        raise ExportError(
            f"quantization: has exponents for {unknown[0]}, which the student does not have; train it again"
        )
    analog = {name for name, node in graph.nodes.items() if node.metadata.get("signal") == "analog"}
    return FixedScales(trained.scales, trained.exponents, steps, analog)


def with_edge_weights(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Copy a graph with one block of weights per edge of each graph convolution, as a chip stores them."""
    own: dict[str, nir.NIRNode] = {}
    for name, node in graph.nodes.items():
        own[name] = by_edge(node) if isinstance(node, GraphConv) else copy.copy(node)  # the quantiser replaces arrays
        own[name].input_type, own[name].metadata = node.input_type, dict(node.metadata)
    return nir.NIRGraph(own, list(graph.edges), metadata=dict(graph.metadata), type_check=False)


def by_edge(node: GraphConv) -> GraphConv:
    """Return a graph convolution with one block of weights per edge."""
    edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
    return GraphConv(f32(edges), f32(weight), node.bias)


def _check_threshold(walk: LinearPaths, name: str, analog: AbstractSet[str]) -> None:
    """Check that a Threshold follows only analog inputs: it then runs on the host, and stays as it is."""
    sources = {path.source for path in walk.into(name)}
    if not sources or sources - analog:
        raise UnsupportedNodeError(
            f"node {name}: a Threshold has no memory, and Loihi's membrane would need a decay of 4096 in 12 "
            "bits; use a LIF, or feed it by an analog input alone"
        )
