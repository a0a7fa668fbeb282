"""Kinds of synapses, and accesses to memory: the counts behind prices by kind and behind Lemaire's memory terms.

A projection's synapses are of the kind in which a chip would store them: `synapse_kind` of
deploy.program.program.

The memory terms follow E. Lemaire et al., "An analytical estimation of spiking neural networks
energy efficiency", ICONIP 2022 (arXiv 2210.13107), whose equations were read in the Qualia SNN
plug-in. Each layer has memories for weights, for states and for biases, and a queue of spikes. For a
spiking input:

- weights: a read per synaptic operation over a stored weight (equations 7, 8);
- states: a read and a write per synaptic operation, and per update of a neuron (9, 10, 14, 15);
- biases: a read per update, where there are any;
- queue: a read per spike that arrives, once for each projection, and a write per spike sent (5, 13);
- addressing: an addition per synaptic operation, and two MACs per spike that arrives over a
  convolution (16, 17).

For a non-spiking input and for an ANN: weights and inputs are read per MAC (3, 6), inputs of a dense
layer once (4); biases are read and outputs written once per neuron (11, 12).

Inferred, since the paper has convolutions and dense layers only: a graph convolution is treated as
a dense layer for its addresses, and as a convolution for its reads of inputs. A product has no
weights; its units have states, as neurons do, and a coincidence is a read and a write of its
attention neuron's state. An input that an ANN would multiply is read per MAC; of a product, both are.
Inferred too: the queue has the size of the smallest memory that was priced, since the paper leaves it
to the design; a membrane, a bias and a non-spiking value take four bytes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np

from mksgn.bench.layer import Layer, Memory
from mksgn.bench.prices import SYNAPSE_KINDS
from mksgn.deploy.execution import Counters
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program, SynapseKind

WORD_BYTES = 4  # of a membrane potential, a bias or a graded value
QUEUE_BYTES = 8 * 1024
CONVOLUTION_MACS = 2  # that locate a spike in a convolution


@dataclass(frozen=True)
class Accesses:
    """Reads and writes by the size of the memory in bytes, and the arithmetic of addresses."""

    by_size: Counter[int]
    additions: int = 0
    macs: int = 0


def by_kind(projections: Sequence[AnyProjection], counts: Sequence[int]) -> dict[SynapseKind, int]:
    """Sum counts of projections by kind."""
    total = dict.fromkeys(SYNAPSE_KINDS, 0)
    for projection, count in zip(projections, counts, strict=True):
        total[projection.synapse_kind] += count
    return total


def memory_of(program: Program, population: Population, counters: Counters) -> Memory:
    """Measure what a population and its projections keep in memory, and count what reached them."""
    into = program.into(population.name)
    synapses = [sum(int(fan_out.sum()) for fan_out in program.fan_outs(projection)) for projection in into]
    stored = [[] if isinstance(projection, Product) else ops.weights(projection.operators) for projection in into]
    inputs = [sum(program[source].size for source in dict.fromkeys(projection.sources)) for projection in into]
    return Memory(
        synapses=by_kind(into, synapses),
        arrivals=by_kind(into, counters.arrivals),
        weights=sum(weight.size for weights in stored for weight in weights),
        weight_bytes=1 if program.precision == "fixed" and population.location == "chip" else WORD_BYTES,
        weight_reads=sum(count for count, weights in zip(counters.deliveries, stored, strict=True) if weights),
        weighted_synapses=sum(count for count, weights in zip(synapses, stored, strict=True) if weights),
        biases=_biases(population),
        inputs=sum(program[source].size for source in {source for projection in into for source in projection.sources}),
        dense_inputs=sum(n for projection, n in zip(into, inputs, strict=True) if projection.synapse_kind == "dense"),
    )


def _biases(population: Population) -> int:
    """Count the biases of a population as stored: those of a convolution are one per channel."""
    neuron = population.neuron
    stored: list[Any] = [population.bias, *(late for _, late in population.late_biases)]
    if neuron is not None:
        stored += [neuron.bias_mant] if isinstance(neuron, FixedNeuron) else [neuron.bias, neuron.input_bias]
    return sum(np.size(bias) for bias in stored if bias is not None and np.any(bias))


def passes(layer: Layer) -> int:
    """Return the number of dense evaluations behind `dense_ops`: bodies x steps, or on the host bodies x its steps."""
    synapses = 0 if layer.memory is None else sum(layer.memory.synapses.values())
    return layer.dense_ops // synapses if synapses else 0


def units_of(layer: Layer) -> int:
    """Return the number of product units of one instance."""
    updates = layer.neuron_updates - layer.product_units
    return layer.product_units * layer.neurons // updates if updates else 0


def spiking(layer: Layer) -> Accesses:
    """Count a layer's accesses in the run of a spiking network; the host's first layer counts as an ANN's."""
    memory = layer.memory
    assert memory is not None
    if layer.place == "host":
        return dense(layer, passes(layer), weight_bytes=memory.weight_bytes)
    updates, units = layer.neuron_updates - layer.product_units, units_of(layer)
    to_units = layer.syn_ops if units else 0
    by_size: Counter[int] = Counter()
    by_size[memory.weights * memory.weight_bytes] += memory.weight_reads
    by_size[layer.neurons * WORD_BYTES] += 2 * (layer.syn_ops - to_units + layer.coincidences + updates)
    by_size[units * WORD_BYTES] += 2 * (to_units + layer.product_units)
    by_size[memory.biases * WORD_BYTES] += updates if memory.biases else 0
    by_size[QUEUE_BYTES] += sum(memory.arrivals.values()) + layer.spikes
    additions, macs = layer.syn_ops + layer.coincidences, CONVOLUTION_MACS * memory.arrivals["convolution"]
    if layer.input_rate is None:
        graded = dense(layer, passes(layer), weight_bytes=memory.weight_bytes, outputs=False)
        return Accesses(by_size + graded.by_size, additions + graded.additions, macs)
    return Accesses(+by_size, additions, macs)


def dense(
    layer: Layer,
    evaluations: int,
    *,
    weight_bytes: int,
    input_bits: int = 8 * WORD_BYTES,
    output_bits: int = 8 * WORD_BYTES,
    outputs: bool = True,
) -> Accesses:
    """Count the accesses of a layer that multiplies every input, as an ANN does.

    Args:
        layer: The layer.
        evaluations: How often it is evaluated.
        weight_bytes: Bytes of a weight.
        input_bits: Bits of an input value.
        output_bits: Bits of an output value.
        outputs: Whether biases are read and outputs written; otherwise the sums go to a neuron's state.
    """
    memory = layer.memory
    assert memory is not None
    each_mac = memory.synapses["sparse"] + memory.synapses["convolution"]
    by_size: Counter[int] = Counter()
    by_size[memory.weights * weight_bytes] += evaluations * memory.weighted_synapses
    by_size[_bytes(memory.inputs, input_bits)] += evaluations * (memory.dense_inputs + each_mac)
    if outputs:
        by_size[memory.biases * WORD_BYTES] += evaluations * layer.neurons if memory.biases else 0
        by_size[_bytes(layer.neurons, output_bits)] += evaluations * layer.neurons
    in_windows = memory.inputs + layer.neurons + memory.weights if memory.synapses["convolution"] else 0
    return Accesses(+by_size, evaluations * (memory.synapses["dense"] + memory.synapses["sparse"] + in_windows))


def macs_of(layer: Layer) -> int:
    """Return the MACs of one dense evaluation. A product unit has two synapses and is one MAC."""
    return 0 if layer.memory is None else sum(layer.memory.synapses.values()) - units_of(layer)


def totals_of_memory(layers: Sequence[Layer], clips: int) -> dict[str, Any]:
    """Compute the totals of run.json that follow from the layers' memories, per clip.

    Returns:
        `syn_ops_by_kind`, `memory_accesses` and `addressing`; empty if a layer lacks these counts.
    """
    if not layers or any(layer.memory is None or layer.syn_ops_by_kind is None for layer in layers):
        return {}
    counted = [spiking(layer) for layer in layers]
    by_size = sum((one.by_size for one in counted), start=Counter[int]())
    kinds = [layer.syn_ops_by_kind or {} for layer in layers if layer.place == "chip"]
    return {
        "syn_ops_by_kind": {kind: sum(counts[kind] for counts in kinds) / clips for kind in SYNAPSE_KINDS},
        "memory_accesses": {size: by_size[size] / clips for size in sorted(by_size)},
        "addressing": {
            "additions": sum(one.additions for one in counted) / clips,
            "macs": sum(one.macs for one in counted) / clips,
        },
    }


def _bytes(values: int, bits: int) -> int:
    return ceil(values * bits / 8)
