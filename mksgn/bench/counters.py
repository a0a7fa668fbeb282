"""Convert the counts of an execution to the record's layers and totals.

A layer is a population with its incoming projections. syn_ops is exact: each spike times the
synapses that it reaches; for a product, the deliveries to its units. Totals are given under the names
of mksgn, of NeuroBench and of a chip read-out. The counts under NeuroBench's names are made here too:
its own counter sees only nn.Linear and nn.Conv, and so misses graph convolution and attention.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mksgn.bench.layer import Layer
from mksgn.bench.memory import by_kind, memory_of, totals_of_memory
from mksgn.bench.prices import Hop
from mksgn.bench.record import Totals
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.place import Placement, synapses
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Population, Product, Program, Projection


@dataclass(frozen=True)
class Messages:
    """Spike messages by the population that sends or receives them: one per spike and target core.

    Messages that product units send and receive are counted for the population that the units lead to.
    The counts are exact where the placement's axons are exact, and upper bounds elsewhere.
    """

    sent: dict[str, int]
    received: dict[str, int]


def messages(placement: Placement, execution: Execution) -> Messages:
    """Count the messages between the cores of a placement over the whole run."""
    owner = {placed.name: placed.units_of or placed.name for placed in placement.populations}
    units = {placed.name for placed in placement.populations if placed.units_of is not None}
    sent: dict[str, int] = defaultdict(int)
    received: dict[str, int] = defaultdict(int)
    for (source, target), cores in placement.reached.items():
        if source in units:  # each unit leads to one neuron, on one core
            count = execution.counters[owner[source]].coincidences
        elif placement.program.sends_spikes(source):
            spikes = execution.counters[source].per_neuron
            count = int((spikes * np.broadcast_to(cores, spikes.shape)).sum())
        else:  # a current, not spikes
            continue
        sent[owner.get(source, source)] += count
        received[owner[target]] += count
    return Messages(sent, received)


def layers(program: Program, execution: Execution, placement: Placement, *, encoder_steps: int = 1) -> list[Layer]:
    """Count the events of each population except the inputs, over the whole run.

    Args:
        program: The compiled network.
        execution: Its execution.
        placement: Its placement on cores.
        encoder_steps: Steps of a sample at which the host computes: 1 if its inputs are constant.

    Returns:
        One layer per population, in topological order.
    """
    cores: dict[str, int] = defaultdict(int)
    for placed in placement.populations:
        cores[placed.units_of or placed.name] += placed.cores
    sent_and_received = messages(placement, execution)
    return [
        _layer(program, population, execution, sent_and_received, cores[population.name], encoder_steps)
        for population in program.populations
        if population.kind != "input"
    ]


def _layer(
    program: Program, population: Population, execution: Execution, axons: Messages, cores: int, encoder_steps: int
) -> Layer:
    name, counters = population.name, execution.counters[population.name]
    decisions = execution.samples * execution.steps  # per neuron
    on_host, fires = population.location == "host", population.fires
    return Layer(
        name=name,
        kind=_kind(program, population),
        place=population.location,
        shape=list(population.shape),
        neurons=population.size,
        spikes=counters.spikes,
        firing_rate=counters.spikes / (population.size * decisions) if fires else 0.0,
        input_rate=_input_rate(program, population, execution),
        syn_ops=counters.syn_ops,
        dense_ops=synapses(program, population) * (execution.samples * encoder_steps if on_host else decisions),
        coincidences=counters.coincidences,
        neuron_updates=counters.updates + counters.product_updates,
        product_units=counters.product_updates,
        effective_acs=counters.effective_acs,
        axon_out=None if on_host else axons.sent.get(name, 0),
        spikes_in=None if on_host else axons.received.get(name, 0),
        cores=None if on_host else cores,
        max_membrane=None if on_host or not fires else counters.max_membrane,
        max_current=None if on_host or not fires else counters.max_current,
        silent_fraction=float((counters.per_neuron == 0).mean()) if fires else 0.0,
        saturated_fraction=float((counters.per_neuron == decisions).mean()) if fires else 0.0,
        syn_ops_by_kind=by_kind(program.into(name), counters.deliveries),
        memory=memory_of(program, population, counters),
    )


def totals(
    program: Program,
    execution: Execution,
    rows: Sequence[Layer],
    clips: int,
    *,
    encoder_steps: int = 1,
    hops: dict[Hop, int] | None = None,
) -> Totals:
    """Compute the totals of a run per clip, summed over the bodies present.

    Args:
        program: The compiled network.
        execution: Its execution; its samples are the bodies.
        rows: The layers of the same run.
        clips: Number of clips that the bodies come from.
        encoder_steps: As for `layers`.
        hops: Hops of the run's messages between tiles; None where the placement has no coordinates.
    """
    effective_macs = sum(
        _effective_macs(program, program[row.name], execution, encoder_steps) for row in rows if row.input_rate is None
    )
    sent = sum(execution.counters[p.name].spikes for p in program.populations if _feeds_chip(program, p))
    weights, zeros, footprint = _weights(program)
    return Totals.model_validate(
        {
            **totals_of(
                rows,
                clips=clips,
                steps=execution.steps,
                latency_steps=execution.latency_steps,
                encoder_steps=encoder_steps,
            ),
            "host_to_chip_spikes_per_step": sent / (clips * execution.steps),
            "lanes": execution.samples / clips,
            "Effective_MACs": effective_macs / clips,
            "ConnectionSparsity": zeros / max(1, weights),
            "Footprint": footprint,
            "hops": None if hops is None else {hop: count / clips for hop, count in hops.items()},
        }
    )


def totals_of(
    layers: Sequence[Layer], *, clips: int, steps: int, latency_steps: int, encoder_steps: int = 1
) -> dict[str, Any]:
    """Compute the totals of run.json that follow from its layers, by name and per clip.

    The spikes of populations on the host are not events of the chip: they are counted as sent to
    the chip.
    """
    chip = [layer for layer in layers if layer.place == "chip"]
    spikes = sum(layer.spikes for layer in chip)
    coincidences = sum(layer.coincidences for layer in chip)
    updates = sum(layer.neuron_updates for layer in chip)
    host_macs = sum(layer.dense_ops for layer in layers if layer.place == "host")
    firing_updates = sum(layer.neuron_updates - layer.product_units for layer in chip if layer.kind != "readout")
    return {
        "spikes": spikes / clips,
        "syn_ops": sum(layer.syn_ops for layer in chip) / clips,
        "coincidences": coincidences / clips,
        "neuron_updates": updates / clips,
        "product_units": sum(layer.product_units for layer in chip) / clips,
        "active_updates": (spikes + coincidences) / clips,
        "host_macs": host_macs / clips,
        "host_macs_every_step": host_macs * (steps // encoder_steps) / clips,
        "graded_macs": sum(layer.dense_ops for layer in chip if layer.input_rate is None) / clips,
        "latency_steps": latency_steps,
        "Effective_ACs": sum(layer.effective_acs for layer in chip) / clips,
        "Dense": sum(layer.dense_ops for layer in layers) / clips,
        "ActivationSparsity": 1.0 - spikes / max(1, firing_updates),
        "dendrite_updates": updates / clips,
        "spikes_in": sum(layer.spikes_in or 0 for layer in chip) / clips,
        "axon_out": sum(layer.axon_out or 0 for layer in chip) / clips,
        **totals_of_memory(layers, clips),
    }


def _kind(program: Program, population: Population) -> str:
    """Name a layer after its input: encoder, product, readout, bias (fires by itself), or the kinds of its projections."""
    if population.location == "host":
        return "encoder"
    if population.kind == "readout":
        return "readout"
    return "+".join(dict.fromkeys(projection.kind for projection in program.into(population.name))) or "bias"


def _input_rate(program: Program, population: Population, execution: Execution) -> float | None:
    """Return the mean firing rate of a population's source neurons, weighted by synapses; None for currents.

    Rate x dense operations is therefore the number of synaptic operations in the paper's formula. For
    a single projection, it is the plain mean over the source neurons that have a synapse.
    """
    incoming = program.into(population.name)
    if not all(program.sends_spikes(source) for projection in incoming for source in projection.sources):
        return None
    weighted, total = 0.0, 0
    for projection in incoming:
        for source, fan_out in zip(projection.sources, program.fan_outs(projection), strict=True):
            counts, reached = execution.counters[source].per_neuron, fan_out > 0
            rate = float(counts[reached].mean()) / (execution.samples * execution.steps) if reached.any() else 0.0
            weighted += rate * int(fan_out.sum())
            total += int(fan_out.sum())
    return weighted / max(1, total)


def _effective_macs(program: Program, population: Population, execution: Execution, encoder_steps: int) -> int:
    """Count the MACs over non-zero weights of a layer with a non-spiking input; on the host, at the encoder's steps."""
    products = sum(
        int(fan_out.sum())
        for projection in program.into(population.name)
        for fan_out in program.fan_outs(projection, nonzero=True)
    )
    return products * execution.samples * (encoder_steps if population.location == "host" else execution.steps)


def _feeds_chip(program: Program, population: Population) -> bool:
    """Whether a population's spikes are sent from the host to the chip: its own, and those of an input."""
    sends = population.location == "host" or population.kind == "input"
    return sends and any(
        population.name in projection.sources and program[projection.target].location == "chip"
        for projection in program.projections
    )


def _weights(program: Program) -> tuple[int, int, int]:
    """Count the stored weights, the zeros among them, and the bytes of all weights."""
    arrays: list[np.ndarray] = []
    for projection in program.projections:
        if isinstance(projection, Projection):
            arrays += ops.weights(projection.operators)
        else:
            assert isinstance(projection, Product)
            arrays.append(np.array([projection.weight]))
    count = sum(a.size for a in arrays)
    zeros = sum(int((a == 0).sum()) for a in arrays)
    per_weight = 1 if program.precision == "fixed" else 4
    return count, zeros, count * per_weight
