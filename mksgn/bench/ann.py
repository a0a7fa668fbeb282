"""An ANN of the same shape as the spiking network, and the firing rate above which the spiking network costs more.

A spiking neuron that fires in at most S steps can represent S + 1 values. The ANN that it has to beat therefore
has the same synapses, 8-bit weights and activations of ceil(log2(S + 1)) bits, as in Z. Yan et
al., "Reconsidering the energy efficiency of spiking neural networks", arXiv 2409.08290. The ANN
evaluates each synapse once per clip, as a multiply-accumulate (MAC); each product unit of attention
is one MAC. Both networks include the first layer, on the host.

Both are priced under the same energy model, without memory and with it: the reads, writes and address
arithmetic of Lemaire et al. 2022 (bench.memory), at their prices. The terms of the spiking network are those in
`TERMS`; what only a chip has (messages, static power) is left out on both sides. A MAC has the price of the
model's precision, such as 8 by 8 bits. With fewer bits it would cost less, so the ANN's energy is, if
anything, too high.

The energy of the spiking network has a fixed part (neuron updates and the first layer) and a part
proportional to its spikes. The break-even rate is the rate at which their sum equals the ANN's
energy, with all rates in the proportions of this run. A rate is synaptic operations divided by synapses
and steps: the mean firing rate of the inputs, weighted by their synapses. Multiplied by S, it is the spikes
per synapse and inference of M. Dampfhoffer et al., "Are SNNs really more energy-efficient than
ANNs?", IEEE TETCI 2023: by their analysis a spiking network has to stay below 0.15 to 1.4.
Coincidences rise faster than proportionally.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum

from mksgn.bench.counters import totals_of
from mksgn.bench.energy_models import ADDRESSING, EnergyModel, known_models, model_named, price
from mksgn.bench.layer import Layer
from mksgn.bench.memory import WORD_BYTES, dense, macs_of
from mksgn.bench.numbers import share
from mksgn.bench.record import Record, Totals

MEMORY_MODEL = "lemaire2022"
TERMS = ("host_macs", "graded_macs", "syn_ops", "coincidences", "neuron_updates", "memory", ADDRESSING)
WEIGHT_BYTES = 1
PUBLISHED_BREAK_EVEN = (0.15, 1.4)  # spikes per synapse and inference: Dampfhoffer et al. 2023


@dataclass(frozen=True)
class BreakEven:
    """A layer or a network, compared with the ANN's. Energies in mJ per clip.

    `fixed_mJ` is what the spiking network costs without any spikes. `rate` is the measured rate; None for a layer
    whose input is not spiking. `break_even` is None if the spiking network costs more at every rate, or
    if no spike arrived, so that the cost of spikes is unknown.
    """

    name: str
    ann_mJ: float
    snn_mJ: float
    fixed_mJ: float
    rate: float | None
    break_even: float | None
    steps: int

    @property
    def wins(self) -> bool:
        """Whether the spiking network costs less than the ANN at the measured rate."""
        return self.snn_mJ < self.ann_mJ

    @property
    def limit(self) -> str:
        """The rates at which the spiking network costs less, in words."""
        if self.break_even is not None:
            return f"rates below {share(self.break_even)}" if self.break_even <= 1 else "every rate"
        return "no rate" if self.ann_mJ <= self.fixed_mJ else "unknown rates: no spike arrived"

    @property
    def spikes_per_synapse(self) -> float | None:
        """Measured spikes per synapse and inference."""
        return None if self.rate is None else self.rate * self.steps

    @property
    def break_even_per_synapse(self) -> float | None:
        """Spikes per synapse and inference at the break-even rate."""
        return None if self.break_even is None else self.break_even * self.steps


@dataclass(frozen=True)
class AnnRow:
    """The comparison under one energy model, without or with memory: the network, and its layers on the chip.

    `without_products` is the network without the layers of attention's product units; None if it has none. An ANN
    stores no state for a product, whereas each product unit is updated at each step.
    """

    model: str
    memory: bool
    total: BreakEven
    without_products: BreakEven | None
    layers: tuple[BreakEven, ...]


def activation_bits(steps: int) -> int:
    """Return ceil(log2(S + 1)), the bits needed to represent 0 to S spikes."""
    return steps.bit_length()


def comparison(record: Record, models: Sequence[EnergyModel] | None = None) -> list[AnnRow]:
    """Compare a run with an ANN of the same shape.

    Args:
        record: The run.
        models: Energy models with the prices; None: the known ones. Those without prices of both a
            MAC and a synaptic operation give no row.

    Returns:
        Two rows for each model, without and with memory; none for a record of a version that did
        not count memory accesses, or of a network without layers on the chip.
    """
    known = known_models() if models is None else models
    if any(layer.memory is None for layer in record.layers) or not any(x.place == "chip" for x in record.layers):
        return []
    priced = [model for model in known if model.prices_pJ.mac is not None and model.prices_pJ.synaptic_op is not None]
    return [_row(record, _variant(model, known, memory), memory) for model in priced for memory in (False, True)]


def _variant(model: EnergyModel, known: Sequence[EnergyModel], memory: bool) -> EnergyModel:
    """Return a model without memory terms or, if `memory`, with its own or else those of MEMORY_MODEL."""
    source = model.prices_pJ if model.prices_pJ.memory_access else model_named(MEMORY_MODEL, known).prices_pJ
    accesses = {"memory_access": source.memory_access, "addressing": source.addressing}
    prices = accesses if memory else {"memory_access": {}, "addressing": None}
    kept = {name: tuple(x for x in getattr(model, name) if x != "memory") for name in ("covers", "excludes", "partly")}
    return model.model_copy(update={"prices_pJ": model.prices_pJ.model_copy(update=prices), **kept})


def _row(record: Record, model: EnergyModel, memory: bool) -> AnnRow:
    chip = [layer for layer in record.layers if layer.place == "chip"]
    layers = tuple(_break_even(record, model, layer.name, [layer]) for layer in chip)
    others = [layer for layer in record.layers if not layer.product_units]
    without = None
    if len(others) < len(record.layers):
        without = _break_even(record, model, "network without product units", others)
    return AnnRow(model.name, memory, _break_even(record, model, "network", record.layers), without, layers)


def _break_even(record: Record, model: EnergyModel, name: str, layers: Sequence[Layer]) -> BreakEven:
    steps = record.execution.steps
    ann = _energy(record, model, _ann(record, layers))
    snn = _energy(record, model, _totals(record, layers))
    fixed = _energy(record, model, _totals(record, [_silent(layer) for layer in layers]))
    spiking = [layer for layer in layers if layer.place == "chip" and layer.input_rate is not None]
    dense_ops, syn_ops = sum(layer.dense_ops for layer in spiking), sum(layer.syn_ops for layer in spiking)
    rate = syn_ops / dense_ops if dense_ops else None
    possible = rate and snn > fixed and ann > fixed
    return BreakEven(
        name, ann, snn, fixed, rate, rate * (ann - fixed) / (snn - fixed) if rate and possible else None, steps
    )


def _energy(record: Record, model: EnergyModel, totals: Totals) -> float:
    terms = price(model, totals, steps=record.execution.steps).terms
    return fsum(terms.get(term, 0.0) for term in TERMS)


def _totals(record: Record, layers: Sequence[Layer], **counts: object) -> Totals:
    """Return the totals of some layers; totals that do not follow from layers are 0."""
    run = record.execution
    zeros = {name: 0 for name, field in Totals.model_fields.items() if field.is_required()}
    counted = totals_of(
        layers,
        clips=record.data.clips,
        steps=run.steps,
        latency_steps=run.latency_steps,
        encoder_steps=run.encoder_steps,
    )
    return Totals.model_validate({**zeros, **counted, **counts})


def _silent(layer: Layer) -> Layer:
    """Return the layer as it would be counted if nothing in the network had spiked."""
    if layer.memory is None or layer.syn_ops_by_kind is None or layer.place == "host":
        return layer
    nothing = dict.fromkeys(layer.syn_ops_by_kind, 0)
    memory = layer.memory.model_copy(update={"arrivals": nothing, "weight_reads": 0})
    none = dict.fromkeys(("spikes", "syn_ops", "effective_acs", "coincidences", "axon_out", "spikes_in"), 0)
    return layer.model_copy(update={**none, "syn_ops_by_kind": nothing, "memory": memory})


def _ann(record: Record, layers: Sequence[Layer]) -> Totals:
    """Return the events of the ANN's layers as Totals; all its operations are counted as host MACs."""
    bits, clips = activation_bits(record.execution.steps), record.data.clips
    bodies = round(record.totals.lanes * clips)
    macs, by_size, additions = 0, dict[int, float](), 0
    for layer in layers:
        macs += bodies * macs_of(layer)
        values = 8 * WORD_BYTES  # bits of the network's inputs and outputs
        accesses = dense(
            layer,
            bodies,
            weight_bytes=WEIGHT_BYTES,
            input_bits=values if layer.place == "host" else bits,
            output_bits=values if layer.kind == "readout" else bits,
        )
        additions += accesses.additions
        for size, count in accesses.by_size.items():
            by_size[size] = by_size.get(size, 0) + count / clips
    return _totals(
        record,
        [],
        host_macs=macs / clips,
        host_macs_every_step=macs / clips,
        memory_accesses=by_size,
        addressing={"additions": additions / clips, "macs": 0},
    )
