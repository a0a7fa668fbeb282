"""Chips as data (data/chips.yaml): the limits of each, with the evidence and the source of every number.

A lab adds its chip by a file of the same form (docs/ENERGY.md). `python -m
mksgn.deploy.placement.chip_file` prints the JSON Schema of such a file, checked in as
data/chips.schema.json for editors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from mksgn.common.schemas import Count, Evidence, StrictModel, Text, json_schema_of

SCHEMA = "mksgn.chips/1"

AtLeastOne = Annotated[int, Field(ge=1)]
ChipLabel = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")]  # part of a folder's name in sweeps
Reset = Literal["zero", "subtract", "subtract-at-once"]


class Stated(StrictModel):
    """A number, and who states it how."""

    value: Count
    evidence: Evidence
    source: Text


class Counted(Stated):
    """A number of things, of which there is at least one."""

    value: AtLeastOne


class Limits(StrictModel):
    """What a chip and one of its cores hold, and how wide their numbers are.

    A limit that is left out, or null, has not been published: it is listed as not checked. The
    exceptions are bits_per_synapse and weight_step, which have defaults, and cores_per_neuron and
    weights_per_neuron, which most chips do not limit.
    """

    cores: Counted
    neurons_per_core: Counted
    synaptic_bits_per_core: Counted | None = None
    bits_per_synapse: Counted | None = None
    """Memory of one synapse, where it ends. Left out: 8, a weight of the quantiser."""
    input_axons_per_core: Counted | None = None
    """Distinct neurons that reach a core."""
    output_axons_per_core: Counted | None = None
    """Over a core's neurons, the cores that each of them reaches."""
    cores_per_neuron: Counted | None = None
    """Cores that one neuron can reach. Left out: as many as there are."""
    delay: Stated | None = None
    """Time steps that a synapse can hold a spike back, on top of the one that every synapse takes."""
    weight_bits: Counted | None = None
    """Of a weight, sign included."""
    weight_step: Counted | None = None
    """The weights are multiples of it: 2 for a chip that stores half of the quantiser's even weights. Left out: 1."""
    weights_per_neuron: Counted | None = None
    """Different weights other than 0 among the synapses of one neuron. Left out: as many as there are synapses."""
    decay_bits: Stated | None = None
    """Of dv and du, in units of 1/4096; 0: nothing decays."""
    threshold_bits: Counted | None = None
    """Of the threshold's mantissa, without a sign."""
    bias_bits: Counted | None = None
    """Of the bias's mantissa, sign included."""
    bias_exponent: Stated | None = None
    """Largest exponent of a bias, in units of 1/64 weight unit: 6 for a bias in units of the weights."""
    spike_bits: Counted | None = None
    """Of the value that a spike carries; 1: spikes are binary."""


class Neurons(StrictModel):
    """What the neurons of a chip compute."""

    kind: Literal["fixed", "microcode"]
    """Microcode computes any reset and any state."""
    resets: tuple[Reset, ...] = ("zero",)
    """Resets of fixed neurons, as in mksgn-deploy --reset."""
    synaptic_current: bool = True
    """Whether fixed neurons have a synaptic current with a decay of its own."""
    evidence: Evidence
    source: Text


class Mesh(StrictModel):
    """The network on the chip: tiles in columns and rows, each with a router and the same number of cores."""

    columns: AtLeastOne
    rows: AtLeastOne
    cores_per_tile: AtLeastOne
    evidence: Evidence
    source: Text


class ChipEntry(StrictModel):
    """One chip."""

    name: ChipLabel
    scope: str = ""
    """What the limits assume, and what of the chip they cannot express."""
    limits: Limits
    neurons: Neurons
    mesh: Mesh | None = None
    """Left out where it has not been published."""

    @model_validator(mode="after")
    def _consistent(self) -> ChipEntry:
        cores = self.limits.cores.value
        if (mesh := self.mesh) is not None and mesh.columns * mesh.rows * mesh.cores_per_tile < cores:
            raise ValueError(
                f"mesh: {mesh.columns} x {mesh.rows} tiles of {mesh.cores_per_tile} hold fewer than {cores} cores"
            )
        return self


class ChipsFile(StrictModel):
    """A file of chips."""

    schema_id: Literal["mksgn.chips/1"] = Field(alias="schema")
    chips: list[ChipEntry]


NOT_LIMITED = ("cores_per_neuron", "weights_per_neuron")  # when left out


def markdown(chips: Sequence[ChipEntry]) -> str:
    """Return the table of docs/ENERGY.md: every number with its grade of evidence, and its source as a footnote."""
    sources: dict[str, int] = {}

    def cell(name: str, stated: Stated | None) -> str:
        if stated is None:
            return "no such limit" if name in NOT_LIMITED else "**not published**"
        return f"{stated.value:,} {said(stated)}"

    def said(stated: Stated | Neurons | Mesh) -> str:
        return f"{stated.evidence} [{sources.setdefault(stated.source, len(sources) + 1)}]"

    def mesh(chip: ChipEntry) -> str:
        m = chip.mesh
        return f"{m.columns} x {m.rows} tiles of {m.cores_per_tile}, {said(m)}" if m else "**not published**"

    def neurons(chip: ChipEntry) -> str:
        n = chip.neurons
        current = "" if n.synaptic_current else ", no synaptic current"
        return f"{n.kind}{'' if n.kind == 'microcode' else ', reset ' + ' or '.join(n.resets)}{current}, {said(n)}"

    rows = [["", *(chip.name for chip in chips)], ["---"] * (len(chips) + 1)]
    for name in Limits.model_fields:
        rows.append([f"`{name}`", *(cell(name, getattr(chip.limits, name)) for chip in chips)])
    rows += [["`neurons`", *map(neurons, chips)], ["`mesh`", *map(mesh, chips)]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"{number}. {source}" for source, number in sources.items())]
    lines += ["", *(f"- {chip.name}: {' '.join(chip.scope.split())}" for chip in chips if chip.scope)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(json_schema_of(ChipsFile, SCHEMA, "validation"))
