"""A laboratory's own read-out of a chip, as a file: schema `mksgn.chip_counts/1`.

The names are those of a chip read-out: Lava's Loihi 2 profiler counts syn_ops, dendrite_updates, spikes_in and axon_out
per core; `spikes` are the neurons' own, from a spike probe. docs/own-chip.md walks through it.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ, W
from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, model_validator

from mksgn.bench.energy_models import Anchor, EnergyModel, ModelsFile
from mksgn.bench.record import Layer, Record
from mksgn.bench.schemas import Amount, Name, Sha256, StrictModel, read_yaml
from mksgn.common.errors import BadInputError

SCHEMA = "mksgn.chip_counts/1"

# the read-out's name: ours, in run.json's layers
COUNTERS: dict[str, str] = {
    "spikes": "spikes",
    "syn_ops": "syn_ops",
    "dendrite_updates": "neuron_updates",
    "spikes_in": "spikes_in",
    "axon_out": "axon_out",
}

Positive = Annotated[float, Field(gt=0)]


class Readings(StrictModel):
    """Counters of one population, or of all together; null or absent: not read."""

    spikes: Amount | None = None
    syn_ops: Amount | None = None
    dendrite_updates: Amount | None = None
    spikes_in: Amount | None = None
    axon_out: Amount | None = None

    def given(self) -> dict[str, float]:
        return {name: value for name, value in vars(self).items() if value is not None}


class Clips(StrictModel):
    """Which clips the chip was given: the record's own, in its order."""

    count: Annotated[int, Field(ge=1)]
    source: Name | None = None
    split: Name | None = None
    names_sha256: Sha256 | None = None
    """sha256 of the clips' names, each followed by a line feed: `clip_digest`."""


class Energy(StrictModel):
    """Measured, per clip. dynamic = total - static, where both parts are known."""

    total_mJ: Positive
    static_mJ: Amount | None = None
    dynamic_mJ: Amount | None = None
    includes: list[Name] = Field(default_factory=list)
    """In words: rails, IO, chips of the board that did nothing."""
    includes_host: bool = False
    """Whether the host's multiply-accumulates are inside. Where not, they are taken out of the record's side too."""

    @model_validator(mode="after")
    def _consistent(self) -> Energy:
        parts = (self.static_mJ, self.dynamic_mJ)
        if None not in parts and not isclose(sum(parts), self.total_mJ, rel_tol=1e-3):  # type: ignore[arg-type]
            raise ValueError(f"static_mJ + dynamic_mJ ({sum(parts):g}) is not total_mJ ({self.total_mJ:g})")  # type: ignore[arg-type]
        for name, part in zip(("static_mJ", "dynamic_mJ"), parts, strict=True):
            if part is not None and part > self.total_mJ * (1 + 1e-3):
                raise ValueError(f"{name} ({part:g}) exceeds total_mJ ({self.total_mJ:g})")
        return self

    @property
    def split(self) -> tuple[float | None, float | None]:
        """Static and dynamic mJ, each from the other where only one was given."""
        static, dynamic = self.static_mJ, self.dynamic_mJ
        if static is None and dynamic is not None:
            static = self.total_mJ - dynamic
        if dynamic is None and static is not None:
            dynamic = self.total_mJ - static
        return static, dynamic


class ChipCounts(StrictModel):
    """One measurement of one network on one chip."""

    schema_id: Literal["mksgn.chip_counts/1"] = Field(alias="schema")
    name: Name
    """Of the measurement; names the energy model that is made of it."""
    chip: Name
    board: Name
    software: Name
    """Compiler and firmware, with versions."""
    method: Name
    """How the counters, and the energy, were read, in full words."""
    model_sha256: Sha256 | None = None
    """The model.nir whose integers are on the chip."""
    clips: Clips
    counts_are: Literal["of the run", "per clip"]
    populations: dict[Name, Readings] = Field(default_factory=dict)
    totals: Readings = Readings()
    """Of all cores; only what the populations do not give."""
    energy: Energy | None = None
    seconds_per_clip: Positive | None = None
    """Mean, clips streaming back to back as they did while the energy was measured."""

    @model_validator(mode="after")
    def _consistent(self) -> ChipCounts:
        if not self.totals.given() and not any(each.given() for each in self.populations.values()) and not self.energy:
            raise ValueError("nothing was read: give populations, totals or energy")
        if self.counts_are == "of the run":
            for place, readings in (*self.populations.items(), ("totals", self.totals)):
                for name, value in readings.given().items():
                    if not float(value).is_integer():
                        raise ValueError(f"{place}: {name} ({value:g}) of the run must be a whole number")
        return self

    def of_the_run(self, value: float) -> float:
        """A reading as a sum over all clips."""
        return value if self.counts_are == "of the run" else value * self.clips.count


def read(path: Path | str) -> ChipCounts:
    """Read a counts file, YAML or JSON. Raises BadInputError in one line: file, place, fault."""
    return read_yaml(Path(path), ChipCounts)


def clip_digest(names: Sequence[str]) -> str:
    """sha256 that stands for a list of clips, in its order."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def template(record: Record, clips: Sequence[str] | None = None) -> str:
    """A counts file to be filled in: the record's model and clips, and every population on the chip, in order."""
    known = {"count": record.data.clips, "source": record.data.source, "split": record.data.split}
    if clips is not None:
        known["names_sha256"] = clip_digest(clips)
    chip: list[Layer] = [layer for layer in record.layers if layer.place == "chip"]
    values = {
        "schema": SCHEMA,
        "name": "my-chip",
        "chip": "",
        "board": "",
        "software": "",
        "method": "",
        "model_sha256": record.model.sha256,
        "clips": known,
        "counts_are": "of the run",
        "populations": {layer.name: dict.fromkeys(COUNTERS) for layer in chip},
    }
    head = (
        "# Fill in what was read; null where it was not. Optional besides: totals, energy {total_mJ, static_mJ, dynamic_mJ,\n"
        "# includes}, seconds_per_clip. Counters only of the steps inside each population's window.\n"
    )
    return head + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)


def model_of(chip: ChipCounts, record: Record) -> EnergyModel:
    """The measured energy as an energy model: static power and the whole as an anchor, evidence `measured`.

    No price per event: one total does not reveal how it divides among kinds of event. Raises BadInputError where energy, its
    static part or the time was not measured: an anchor states all three.
    """
    static = chip.energy.split[0] if chip.energy else None
    if chip.energy is None or static is None or chip.seconds_per_clip is None:
        raise BadInputError(
            f"{chip.name}: an energy model needs energy.total_mJ, its static part and seconds_per_clip; measure the idle chip too"
        )
    watts = static / 1e3 / chip.seconds_per_clip
    includes = f" Includes {', '.join(chip.energy.includes)}." if chip.energy.includes else ""
    return EnergyModel(
        name=chip.name,
        evidence="measured",
        source=f"{chip.method}; {chip.chip}, {chip.board}, {chip.software}; {chip.clips.count} clips",
        scope=f"One network, measured as a whole: an anchor to hold sums of prices against; only its static power is a price.{includes}",
        static_power_W=watts or None,
        seconds_per_inference=chip.seconds_per_clip / record.totals.lanes if watts else None,
        anchor=Anchor(
            network=f"{record.model.file}, sha256 {record.model.sha256}",
            energy_per_inference_mJ=chip.energy.total_mJ,
            static_power_W=watts,
            inferences_per_s=1 / chip.seconds_per_clip,
        ),
    )


def models_file(models: Sequence[EnergyModel]) -> str:
    """A file of energy models as YAML, which `known_models` reads beside its own."""
    file = ModelsFile(schema="mksgn.energy_models/1", models=list(models))
    return yaml.safe_dump(
        file.model_dump(by_alias=True, mode="json", exclude_defaults=True),
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )
