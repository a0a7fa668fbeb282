"""run.json, the record of one benchmark run, as pydantic models.

Counts in `layers` are exact integers over the whole run; `totals` are per clip, summed over the
bodies of the clip. Energies are in millijoule per clip. Membrane potentials and currents are in
units of the quantised weights. Non-finite numbers, unknown fields and contradictions are refused,
when a record is written as well as when it is read.

The schema is `mksgn.run/1`. `python -m mksgn.bench.record` prints it as JSON Schema, checked in as
data/run.schema.json.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import Field, model_validator

from mksgn.bench.layer import Layer
from mksgn.bench.prices import Hop, Pricing
from mksgn.bench.schedule import Schedule
from mksgn.bench.step_time import Timing
from mksgn.common.limits import Fit
from mksgn.common.schemas import Amount, Count, Evidence, Fraction, Name, Sha256, StrictModel, each_of, json_schema_of
from mksgn.deploy.choices import BackendName, PrecisionName
from mksgn.deploy.program.program import SynapseKind

SCHEMA: Final = "mksgn.run/1"
# fields of `execution` in which two equal runs may differ
TIMES = ("seconds", "seconds_min", "seconds_max", "clips_per_second")


class ModelFile(StrictModel):
    file: Name
    sha256: Sha256


class Data(StrictModel):
    source: Name
    """SOURCE of the command line without its path: synthetic, nw-ucla, npz:FILE, …"""
    split: str | None
    clips: Annotated[int, Field(ge=1)]
    """Samples of the run: clips, or rows of arrays."""


class Run(StrictModel):
    """How the program was executed."""

    backend: BackendName
    precision: PrecisionName
    steps: Annotated[int, Field(ge=1)]
    """Time steps S for which a clip is presented."""
    latency_steps: Count
    """Pipeline latency in time steps, excluding the S steps of the clip."""
    seconds: Amount
    """Wall time of the simulation on the host, the median of `repeats` runs. Not the time of a chip."""
    clips_per_second: Amount
    repeats: Annotated[int, Field(ge=1)]
    seconds_min: Amount
    seconds_max: Amount
    encoder_steps: Annotated[int, Field(ge=1)] = 1
    """Steps at which the host computes the first layer: 1 if its input is the same at each step, else `steps`."""
    decode: Name = "sum"
    """How the output's values over the steps become a prediction: sum, max, last or first-spike, @OUTPUT of several."""
    compiling: dict[str, bool | int | float | str | list[str]] = Field(default_factory=dict)
    """Options for what the file does not state (dt, if_dt, analog, …), where they differ from the defaults."""

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
        diagonal = sum(self.confusion[i][i] for i in range(classes))
        if diagonal != self.correct:
            raise ValueError(f"correct ({self.correct}) is not the diagonal of confusion ({diagonal})")
        return self


class Addressing(StrictModel):
    """Arithmetic that finds what a spike or value reaches: the part of an energy model with such a price."""

    additions: Amount
    macs: Amount


class Totals(StrictModel):
    """Events per clip, under the names of mksgn, of NeuroBench (in capitals) and of a chip read-out."""

    spikes: Amount
    syn_ops: Amount
    coincidences: Amount
    neuron_updates: Amount
    product_units: Amount
    """Updates of product units, a part of neuron_updates."""
    active_updates: Amount
    """Updates that ended in a spike (of a product unit: in a coincidence), a part of neuron_updates."""
    host_macs: Amount
    """Multiply-accumulates of the first layer, at the encoder_steps: charged once where its input is constant."""
    host_macs_every_step: Amount
    """The same, charged S times."""
    graded_macs: Amount
    """Multiply-accumulates of graded values on the chip: synapses x steps."""
    host_to_chip_spikes_per_step: Amount
    latency_steps: Count
    lanes: Amount
    """Mean number of bodies per clip."""
    Effective_ACs: Amount
    Effective_MACs: Amount
    """The part of host_macs and graded_macs over non-zero weights; NeuroBench also leaves out values of zero."""
    Dense: Amount
    ActivationSparsity: Fraction
    ConnectionSparsity: Fraction
    Footprint: Amount
    """Bytes of the model, not per clip."""
    dendrite_updates: Amount | None = None
    """Name of neuron_updates in a chip read-out."""
    spikes_in: Amount | None = None
    """Spike messages that reach a core: axon_out and those of the host."""
    axon_out: Amount | None = None
    """Spike messages that leave a core: one for each core that a spike is sent to."""
    hops: Annotated[dict[Hop, Amount], each_of(get_args(Hop))] | None = None
    """Messages that stay within a tile, and tiles crossed by the others. Null where the placement has no coordinates."""
    syn_ops_by_kind: Annotated[dict[SynapseKind, Amount], each_of(get_args(SynapseKind))] | None = None
    """syn_ops by kind of synapse. Null, as the next two, where a layer has no counts by kind."""
    memory_accesses: dict[int, Amount] | None = None
    """Reads and writes by the size of the memory in bytes (bench.memory)."""
    addressing: Addressing | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Totals:
        for part in ("product_units", "active_updates"):
            if getattr(self, part) > self.neuron_updates * (1 + 1e-9):
                raise ValueError(f"{part} ({getattr(self, part)}) exceeds neuron_updates ({self.neuron_updates})")
        return self


class EnergyEntry(StrictModel):
    """The run under one energy model, in mJ per clip. There is no total if an event that occurred has no price."""

    model: Name
    evidence: Evidence
    source: str
    terms: dict[str, Amount]
    """mJ by kind of event, with the first layer charged once."""
    total_mJ: Amount | None
    total_every_step_mJ: Amount | None
    """The same with the first layer charged at every time step."""
    priced_mJ: Amount
    """Sum of the terms, a lower bound if total_mJ is null."""
    unpriced: list[str]
    """Kinds of event that occurred, have no price and are not excluded. Earlier versions also listed lower bounds here."""
    excludes: list[str]
    """Kinds of event that the model leaves out by its own declaration."""
    lower_bounds: dict[str, str] = Field(default_factory=dict)
    """Terms that are lower bounds, and why."""
    prices: Pricing | None = None
    """The prices that gave the terms. Null in records of earlier versions."""

    @property
    def incomplete(self) -> list[str]:
        """Events without a price, and those whose price covers only a part."""
        return [*self.unpriced, *self.lower_bounds]

    @model_validator(mode="after")
    def _consistent(self) -> EnergyEntry:
        if (self.total_mJ is None) != bool(self.unpriced or self.lower_bounds):
            raise ValueError(
                f"{self.model}: total_mJ must be null if and only if an event is unpriced or a lower bound"
            )
        if self.prices is not None and (both := sorted({*self.terms} & {*self.unpriced})):
            raise ValueError(f"{self.model}: {both[0]} is both among the terms and unpriced")
        if (self.total_every_step_mJ is None) != (self.total_mJ is None):
            raise ValueError(f"{self.model}: total_every_step_mJ must be null where total_mJ is, and only there")
        return self


class Claim(StrictModel):
    """A published figure and the same figure of this run."""

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
    rounding: Count = 0
    """Of the mismatches, those from NIR's reference execution, whose float32 states are not rounded to Loihi's bits."""

    @property
    def faults(self) -> int:
        """Mismatches with executions that have to give the same spikes, for a quantised network."""
        return self.mismatches - self.rounding

    @model_validator(mode="after")
    def _consistent(self) -> Parity:
        if self.mismatches > self.decisions:
            raise ValueError(f"mismatches ({self.mismatches}) exceeds decisions ({self.decisions})")
        if self.rounding > self.mismatches:
            raise ValueError(f"rounding ({self.rounding}) exceeds mismatches ({self.mismatches})")
        if self.first is not None and not self.mismatches:
            raise ValueError("first mismatch given, though mismatches is 0")
        return self


class Limit(StrictModel):
    name: Name
    value: int | float
    max: int | float | None
    """null where the limit has not been published."""
    evidence: Evidence | None = None
    """How the limit is stated; null where it is not, and in records of earlier versions."""
    source: str | None = None


class Placement(StrictModel):
    chip: Name
    cores: Count
    chips: Count
    limits: list[Limit]
    """Limits checked, with the values of the fullest core; then those that have not been published."""
    violations: list[str] = Field(default_factory=list)
    """What exceeds the chip's limits, a line each, as mksgn-deploy --check lists it."""

    @property
    def fit(self) -> Fit:
        """Whether the network fits the chip."""
        return Fit.of([(limit.name, limit.value, limit.max) for limit in self.limits], self.violations)


class Gcn(StrictModel):
    """The GCN to which the student's energy is compared: the teacher of the same preset."""

    preset: Name
    streams: list[Name]
    layers: Count
    parameters: Count
    macs: Amount
    """Multiply-accumulates of the dense computation per clip, over the bodies present."""


class Record(StrictModel):
    """One run. `accuracy` is null without labels, `parity` without a comparison, `placement` without a chip, `gcn`
    without a preset.
    """

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
    timing: list[Timing] = Field(default_factory=list)
    student: bool = True
    """Whether the network is a student of mksgn, the only kind that figures on its presets are compared with."""
    schedule: Schedule | None = None
    """Populations, projections and their time steps; null in records of earlier versions."""

    @property
    def unit(self) -> str:
        """What a sample of the run is called; a student's samples are clips."""
        return "clip" if self.student else "sample"

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
