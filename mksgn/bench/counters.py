"""An execution's events as the record's layers and totals, under our names, NeuroBench's and a chip read-out's.

A layer is a population with its incoming projections. syn_ops is exact: each spike times the synapses that it really reaches;
of a product, the deliveries to its units. NeuroBench's own counter sees only nn.Linear and nn.Conv, so it would miss graph
convolution and attention; the names are its, the counts are ours.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from mksgn.bench.record import Layer, Totals
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement.place import Placement, synapses
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Population, Product, Program, Projection


@dataclass(frozen=True)
class Messages:
    """Spike messages by the population that sends or receives them: one for each core that a spike is sent to.

    What product units send and receive belongs to the population that they lead to. Exact where the placement's axons are.
    """

    sent: dict[str, int]
    received: dict[str, int]


def messages(placement: Placement, execution: Execution) -> Messages:
    """On the cores of `placement`, over the whole run."""
    owner = {placed.name: placed.units_of or placed.name for placed in placement.populations}
    units = {placed.name for placed in placement.populations if placed.units_of is not None}
    sent: dict[str, int] = defaultdict(int)
    received: dict[str, int] = defaultdict(int)
    for (source, target), cores in placement.reached.items():
        if source in units:  # each leads to one neuron, on one core
            count = execution.counters[owner[source]].coincidences
        elif placement.program.sends_spikes(source):
            fired = execution.counters[source].per_neuron
            count = int((fired * np.broadcast_to(cores, fired.shape)).sum())
        else:
            continue  # a current, which is no spike
        sent[owner.get(source, source)] += count
        received[owner[target]] += count
    return Messages(sent, received)


def layers(program: Program, execution: Execution, placement: Placement) -> list[Layer]:
    """One per population that computes, in topological order; counts over the whole run."""
    rows, axons = [], messages(placement, execution)
    cores: dict[str, int] = defaultdict(int)
    for placed in placement.populations:
        cores[placed.units_of or placed.name] += placed.cores
    for population in program.populations:
        if population.kind == "input":
            continue
        counters = execution.counters[population.name]
        events = execution.samples * execution.steps  # of each neuron
        on_host = population.location == "host"
        firing = population.fires
        rows.append(
            Layer(
                name=population.name,
                kind=_kind(program, population),
                place=population.location,
                shape=list(population.shape),
                neurons=population.size,
                spikes=counters.spikes,
                firing_rate=counters.spikes / (population.size * events) if firing else 0.0,
                input_rate=_input_rate(program, population, execution),
                syn_ops=counters.syn_ops,
                dense_ops=synapses(program, population) * (execution.samples if on_host else events),
                coincidences=counters.coincidences,
                neuron_updates=counters.updates + counters.product_updates,
                product_units=counters.product_updates,
                effective_acs=counters.effective_acs,
                axon_out=None if on_host else axons.sent.get(population.name, 0),
                spikes_in=None if on_host else axons.received.get(population.name, 0),
                cores=None if on_host else cores[population.name],
                max_membrane=None if on_host or not firing else counters.max_membrane,
                max_current=None if on_host or not firing else counters.max_current,
                silent_fraction=float((counters.per_neuron == 0).mean()) if firing else 0.0,
                saturated_fraction=float((counters.per_neuron == events).mean()) if firing else 0.0,
            )
        )
    return rows


def totals(program: Program, execution: Execution, rows: list[Layer], clips: int) -> Totals:
    """Per clip, over the bodies present. The host's neurons fire, but on no chip: they count as spikes sent to it."""
    chip = [row for row in rows if row.place == "chip"]
    spikes = sum(row.spikes for row in chip)
    coincidences = sum(row.coincidences for row in chip)
    host_macs = sum(row.dense_ops for row in rows if row.place == "host")
    graded_macs = sum(row.dense_ops for row in chip if row.input_rate is None)
    effective = sum(_effective_macs(program, program[row.name], execution) for row in rows if row.input_rate is None)
    sent = sum(execution.counters[p.name].spikes for p in program.populations if _feeds_chip(program, p))
    updates = sum(row.neuron_updates for row in chip)
    firing_updates = sum(execution.counters[row.name].updates for row in chip if row.kind != "readout")
    weights, zeros, unique = _weights(program)
    return Totals(
        spikes=spikes / clips,
        syn_ops=sum(row.syn_ops for row in chip) / clips,
        coincidences=coincidences / clips,
        neuron_updates=updates / clips,
        product_units=sum(row.product_units for row in chip) / clips,
        active_updates=(spikes + coincidences) / clips,
        host_macs=host_macs / clips,
        host_macs_every_step=host_macs * execution.steps / clips,
        graded_macs=graded_macs / clips,
        host_to_chip_spikes_per_step=sent / (clips * execution.steps),
        latency_steps=execution.latency_steps,
        lanes=execution.samples / clips,
        Effective_ACs=sum(row.effective_acs for row in chip) / clips,
        Effective_MACs=effective / clips,
        Dense=sum(row.dense_ops for row in rows) / clips,
        ActivationSparsity=1.0 - spikes / max(1, firing_updates),
        ConnectionSparsity=zeros / max(1, weights),
        Footprint=unique,
        dendrite_updates=updates / clips,
        spikes_in=sum(row.spikes_in or 0 for row in chip) / clips,
        axon_out=sum(row.axon_out or 0 for row in chip) / clips,
    )


def _kind(program: Program, population: Population) -> str:
    """After what leads into it: encoder, product, readout, or the kinds of its projections."""
    if population.location == "host":
        return "encoder"
    if population.kind == "readout":
        return "readout"
    return "+".join(dict.fromkeys(projection.kind for projection in program.into(population.name)))


def _input_rate(program: Program, population: Population, execution: Execution) -> float | None:
    """Mean firing rate of the neurons that feed a population, weighted by the synapses of each projection; None for currents.

    So that rate × dense operations is what the paper's formula makes of the layer; for one projection it is the plain mean.
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


def _effective_macs(program: Program, population: Population, execution: Execution) -> int:
    """Of a layer with an analog input: products with weights other than 0, on the host once per body."""
    products = sum(
        int(fan_out.sum())
        for projection in program.into(population.name)
        for fan_out in program.fan_outs(projection, nonzero=True)
    )
    return products * execution.samples * (1 if population.location == "host" else execution.steps)


def _feeds_chip(program: Program, population: Population) -> bool:
    """Spikes that the host sends: of its own populations, and of inputs that are spikes already."""
    sends = population.location == "host" or population.kind == "input"
    return sends and any(
        population.name in projection.sources and program[projection.target].location == "chip"
        for projection in program.projections
    )


def _weights(program: Program) -> tuple[int, int, int]:
    """Stored weights, those among them that are 0, and the bytes of all weights."""
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
