"""run.json: what one benchmark run did, as pydantic models. Schema `mksgn.run/1`, checked in as data/run.schema.json.

Counts in `layers` are exact integers over the whole run; `totals` are per clip, summed over the bodies (bodies) of the
clip. Energies are millijoule per clip. Membranes and currents are in units of the weights' lattice (one weight unit).
Non-finite numbers, unknown fields and contradictions are refused, when writing as when reading.

`python -m mksgn.bench.record` prints the JSON Schema.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from mksgn.bench.schemas import Amount, Count, Fraction, Name, Sha256, StrictModel, json_schema_of

SCHEMA: Final = "mksgn.run/1"
RUN_FILE = "run.json"
TIMES = (
    "seconds",
    "seconds_min",
    "seconds_max",
    "clips_per_second",
)  # of `execution`: what two equal runs may differ in

Evidence = Literal["measured", "simulated", "derived", "declared", "unstated"]


class ModelFile(StrictModel):
    file: Name
    sha256: Sha256


class Data(StrictModel):
    source: Name
    """Of SOURCE on the command line, without its path: synthetic, nw-ucla, …"""
    split: str | None
    clips: Annotated[int, Field(ge=1)]


class Run(StrictModel):
    """How the program was executed."""

    backend: Literal["emulator", "lava"]
    precision: Literal["fixed", "float"]
    steps: Annotated[int, Field(ge=1)]
    """Time steps S for which a clip is presented."""
    latency_steps: Count
    """Steps from a clip's first input to its last output, less S."""
    seconds: Amount
    """Wall time of the simulation on the host, the median of `repeats` runs. It says nothing about a chip."""
    clips_per_second: Amount
    repeats: Annotated[int, Field(ge=1)]
    seconds_min: Amount
    seconds_max: Amount

    @model_validator(mode="after")
    def _consistent(self) -> Run:
        if not self.seconds_min <= self.seconds <= self.seconds_max:
            raise ValueError(f"seconds ({self.seconds}) lie outside seconds_min and seconds_max")
        return self


class Accuracy(StrictModel):
    top1: Fraction
    correct: Count
    per_class: dict[str, Fraction | None]
    """Recall by class name; null where the split has no clip of that class."""
    confusion: list[list[Count]]
    """Clips by true class (row) and predicted class (column), in the order of per_class."""

    @model_validator(mode="after")
    def _consistent(self) -> Accuracy:
        classes = len(self.per_class)
        if len(self.confusion) != classes or any(len(row) != classes for row in self.confusion):
            raise ValueError(f"confusion must have {classes} rows and columns, one for each class")
        right = sum(self.confusion[i][i] for i in range(classes))
        if right != self.correct:
            raise ValueError(f"correct ({self.correct}) is not the diagonal of confusion ({right})")
        return self


class Layer(StrictModel):
    """One population with its incoming projections. Counts: exact, over the whole run, all clips, bodies and steps."""

    name: Name
    kind: Name
    """conv, graph_conv, dense, product, readout, encoder, …"""
    place: Literal["host", "chip"]
    shape: list[Count]
    neurons: Count
    spikes: Count
    firing_rate: Fraction
    """Spikes per neuron and step."""
    input_rate: Fraction | None
    """Mean firing rate of the layer's input populations; null for an analog input."""
    syn_ops: Count
    """Each input spike times the synapses that it reaches; for a product, the deliveries to its units.

    Where windows overlap in a chain without neurons between (a convolution, then a pooling), each way is a synapse.
    """
    dense_ops: Count
    """Synapses x steps x bodies; of an encoder on the host its MACs, charged once per body."""
    coincidences: Count
    """Product units whose two inputs spiked in the same step; 0 for every other kind."""
    neuron_updates: Count
    product_units: Count
    """Updates of product units: a part of neuron_updates."""
    effective_acs: Count
    """The part of syn_ops that went over weights other than zero."""
    axon_out: Count | None
    """Messages sent: each spike times the cores that it is sent to, the product units' coincidences included. Null off the chip.

    Upper bounds where the placement's axons are: behind Flatten and where a delay differs from neuron to neuron; so spikes_in.
    """
    spikes_in: Count | None
    """Messages received by the layer's cores. Null off the chip."""
    cores: Count | None
    """Of one body, its product units' included. Null off the chip."""
    max_membrane: float | None
    max_current: float | None
    silent_fraction: Fraction
    """Neurons that never fired in the run."""
    saturated_fraction: Fraction
    """Neurons that fired at every step of every clip."""

    @model_validator(mode="after")
    def _consistent(self) -> Layer:
        if self.effective_acs > self.syn_ops:
            raise ValueError(f"{self.name}: effective_acs ({self.effective_acs}) exceeds syn_ops ({self.syn_ops})")
        return self


class Totals(StrictModel):
    """Events per clip, under our names, NeuroBench's (capitals) and those of a chip read-out."""

    spikes: Amount
    syn_ops: Amount
    coincidences: Amount
    neuron_updates: Amount
    product_units: Amount
    """Updates of product units: a part of neuron_updates."""
    active_updates: Amount
    """Updates that ended in a spike (of a product unit: in a coincidence): a part of neuron_updates."""
    host_macs: Amount
    """Multiply-accumulates of the first, analog layer, charged once: its result is the same at every step."""
    host_macs_every_step: Amount
    """The same charged S times."""
    graded_macs: Amount
    """Multiply-accumulates of values on the chip that are no spikes: synapses times steps."""
    host_to_chip_spikes_per_step: Amount
    latency_steps: Count
    lanes: Amount
    """Bodies per clip, mean."""
    Effective_ACs: Amount
    Effective_MACs: Amount
    """The part of host_macs and graded_macs that goes over weights other than zero; NeuroBench also leaves out values of zero."""
    Dense: Amount
    ActivationSparsity: Fraction
    ConnectionSparsity: Fraction
    Footprint: Amount
    """Bytes; of the model, not of a clip."""
    dendrite_updates: Amount | None = None
    """A chip read-out's name for neuron_updates."""
    spikes_in: Amount | None = None
    """Spike messages that reach a core: axon_out, and what the host sends."""
    axon_out: Amount | None = None
    """Spike messages that leave a core: one for each core that a spike is sent to."""

    @model_validator(mode="after")
    def _consistent(self) -> Totals:
        for part in ("product_units", "active_updates"):
            if getattr(self, part) > self.neuron_updates * (1 + 1e-9):
                raise ValueError(f"{part} ({getattr(self, part)}) exceeds neuron_updates ({self.neuron_updates})")
        return self


class EnergyEntry(StrictModel):
    """The run under one energy model, mJ per clip. No total where an event that occurred has no price."""

    model: Name
    evidence: Evidence
    source: str
    terms: dict[str, Amount]
    """mJ by kind of event; the first layer charged once."""
    total_mJ: Amount | None
    total_every_step_mJ: Amount | None
    """The first layer charged at every step."""
    priced_mJ: Amount
    """Sum of the terms: a lower bound where total_mJ is null."""
    unpriced: list[str]
    """Kinds of event that occurred, have no price (or only a part of one) and are not excluded."""
    excludes: list[str]
    """Kinds of event that the model leaves out by its own declaration."""

    @model_validator(mode="after")
    def _consistent(self) -> EnergyEntry:
        if (self.total_mJ is None) != bool(self.unpriced):
            raise ValueError(f"{self.model}: total_mJ must be null if and only if an event is unpriced")
        if (self.total_every_step_mJ is None) != (self.total_mJ is None):
            raise ValueError(f"{self.model}: total_every_step_mJ must be null where total_mJ is, and only there")
        return self


class Claim(StrictModel):
    """A published figure beside the same figure of this run."""

    name: Name
    published: float
    unit: str
    theory: float | None
    """The paper's formula with the measured firing rates."""
    measured: float | None
    """The events of this run, priced by the same energy model."""
    ratio: float | None
    """measured / published."""
    source: str
    verdict: str


class Mismatch(StrictModel):
    layer: Name
    clip: Count
    step: Count


class Parity(StrictModel):
    """Decisions (one neuron at one step) compared with another execution."""

    against: Name
    decisions: Count
    mismatches: Count
    first: Mismatch | None

    @model_validator(mode="after")
    def _consistent(self) -> Parity:
        if self.mismatches > self.decisions:
            raise ValueError(f"mismatches ({self.mismatches}) exceeds decisions ({self.decisions})")
        if self.first is not None and not self.mismatches:
            raise ValueError("first mismatch given, though mismatches is 0")
        return self


class Limit(StrictModel):
    name: Name
    value: int | float
    max: int | float | None
    """null where the limit has not been published."""


class Placement(StrictModel):
    chip: Name
    cores: Count
    chips: Count
    limits: list[Limit]


class Gcn(StrictModel):
    """The ordinary network that the student's energy is held against: our teacher of the same preset."""

    preset: Name
    streams: list[Name]
    layers: Count
    parameters: Count
    macs: Amount
    """Multiply-accumulates per clip, over the bodies present: the dense computation."""


class Record(StrictModel):
    """One run. `parity` is null without a comparison, `placement` without a chip, `gcn` where no preset tells its shape."""

    schema_id: Literal["mksgn.run/1"] = Field(default=SCHEMA, alias="schema")
    model: ModelFile
    data: Data
    seed: int | None
    environment: dict[str, str]
    """Versions of python, torch, nir, lava, …; platform."""
    parents: list[Sha256]
    execution: Run
    accuracy: Accuracy | None
    layers: list[Layer]
    totals: Totals
    energy: list[EnergyEntry]
    claims: list[Claim]
    parity: Parity | None
    placement: Placement | None
    gcn: Gcn | None

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        for what, names in (("layer", [x.name for x in self.layers]), ("energy model", [x.model for x in self.energy])):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]!r} is listed more than once")
        if self.accuracy and abs(self.accuracy.top1 - self.accuracy.correct / self.data.clips) > 1e-6:
            raise ValueError(
                f"accuracy.top1 ({self.accuracy.top1}) is not correct / clips "
                f"({self.accuracy.correct} / {self.data.clips})"
            )
        return self


if __name__ == "__main__":
    print(json_schema_of(Record, SCHEMA, "serialization"))
