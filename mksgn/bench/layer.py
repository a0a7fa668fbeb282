"""The counts of one population in run.json, exact integers over the whole run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from mksgn.common.schemas import Count, Fraction, Name, StrictModel, each_of
from mksgn.deploy.program.program import SynapseKind

CountByKind = Annotated[dict[SynapseKind, Count], each_of(get_args(SynapseKind))]


class Memory(StrictModel):
    """What a layer keeps in memory and what reaches it: the counts behind `memory_accesses` and `addressing`."""

    synapses: CountByKind
    """Synapses of one instance, by kind."""
    arrivals: CountByKind
    """Spikes that arrived in the run, once for each projection, by its kind."""
    weights: Count
    """Stored weights; those of a convolution once."""
    weight_bytes: Annotated[int, Field(ge=1)]
    weight_reads: Count
    """The part of syn_ops over a stored weight: not those of products and of pooling."""
    weighted_synapses: Count
    """The part of synapses with a stored weight."""
    biases: Count
    """Stored biases; 0 without."""
    inputs: Count
    """Neurons of the source populations."""
    dense_inputs: Count
    """The part of inputs that feeds dense projections, which read an input once for all its synapses."""


class Layer(StrictModel):
    """One population with its incoming projections. Counts are exact sums over the whole run."""

    name: Name
    kind: Name
    """conv, graph_conv, dense, product, readout, encoder, …"""
    place: Literal["host", "chip"]
    shape: list[Count]
    neurons: Count
    spikes: Count
    firing_rate: Fraction
    """Spikes per neuron and time step."""
    input_rate: Fraction | None
    """Mean firing rate of the layer's input populations; null for a non-spiking input."""
    syn_ops: Count
    """Each input spike times the synapses that it reaches; for a product, the deliveries to its units.

    If linear nodes in series have overlapping windows (a convolution, then a pooling), each path counts as a synapse.
    """
    dense_ops: Count
    """Synapses x steps x bodies; for an encoder on the host, its MACs at each of the encoder_steps of a body."""
    coincidences: Count
    """Product units whose two inputs spiked in the same time step; 0 for every other kind."""
    neuron_updates: Count
    product_units: Count
    """Updates of product units, a part of neuron_updates."""
    effective_acs: Count
    """The part of syn_ops over non-zero weights."""
    axon_out: Count | None
    """Messages sent: each spike, and each coincidence, times the cores that it is sent to. Null off the chip.

    An upper bound where the placement's axons are one: after Flatten, and where delays differ between neurons.
    """
    spikes_in: Count | None
    """Messages received by the layer's cores, an upper bound where axon_out is one. Null off the chip."""
    cores: Count | None
    """Cores of one instance, with those of its product units. Null off the chip."""
    max_membrane: float | None
    max_current: float | None
    silent_fraction: Fraction
    """Fraction of neurons that never fired in the run."""
    saturated_fraction: Fraction
    """Fraction of neurons that fired at every time step of every clip."""
    syn_ops_by_kind: CountByKind | None = None
    """syn_ops by kind of synapse. Null in records of earlier versions."""
    memory: Memory | None = None
    """Null in records of earlier versions."""

    @model_validator(mode="after")
    def _consistent(self) -> Layer:
        if self.syn_ops_by_kind is not None and sum(self.syn_ops_by_kind.values()) != self.syn_ops:
            raise ValueError(f"{self.name}: syn_ops ({self.syn_ops}) is not the sum of syn_ops_by_kind")
        if self.effective_acs > self.syn_ops:
            raise ValueError(f"{self.name}: effective_acs ({self.effective_acs}) exceeds syn_ops ({self.syn_ops})")
        if self.coincidences > self.product_units:
            raise ValueError(
                f"{self.name}: coincidences ({self.coincidences}) exceeds product_units ({self.product_units})"
            )
        # a read-out accumulates and does not fire
        updates = 0 if self.kind == "readout" else self.neuron_updates - self.product_units
        if self.spikes > updates:
            raise ValueError(f"{self.name}: spikes ({self.spikes}) exceeds its neurons' updates ({updates})")
        return self


def silent(layers: Iterable[Layer]) -> list[str]:
    """Name the populations on the chip that never fired; a read-out does not fire."""
    return [layer.name for layer in layers if layer.place == "chip" and layer.kind != "readout" and not layer.spikes]
