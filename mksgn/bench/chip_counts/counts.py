"""Counters and energy that a laboratory read from its chip, as a file: schema `mksgn.chip_counts/1`.

Counters have the names of a chip read-out. Lava's Loihi 2 profiler counts syn_ops, dendrite_updates, spikes_in and
axon_out per core; `spikes` come from a spike probe. docs/own-chip.md is a walk-through.
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
from mksgn.bench.record import Record
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import Amount, Name, Positive, Sha256, StrictModel, read_yaml

SCHEMA = "mksgn.chip_counts/1"

# counter in the read-out: field of a layer in run.json
COUNTERS: dict[str, str] = {
    "spikes": "spikes",
    "syn_ops": "syn_ops",
    "dendrite_updates": "neuron_updates",
    "spikes_in": "spikes_in",
    "axon_out": "axon_out",
}


class Readings(StrictModel):
    """Counters of one population, or of all together; null or absent if not read."""

    spikes: Amount | None = None
    syn_ops: Amount | None = None
    dendrite_updates: Amount | None = None
    spikes_in: Amount | None = None
    axon_out: Amount | None = None

    def given(self) -> dict[str, float]:
        """Return the counters that were read."""
        return {name: value for name, value in vars(self).items() if value is not None}


class Clips(StrictModel):
    """The clips that the chip ran: the record's, in the same order."""

    count: Annotated[int, Field(ge=1)]
    source: Name | None = None
    split: Name | None = None
    names_sha256: Sha256 | None = None
    """Hash of the clips' names in order, by `clip_digest`."""


class Energy(StrictModel):
    """Measured energy per clip; total = static + dynamic."""

    total_mJ: Positive
    static_mJ: Amount | None = None
    dynamic_mJ: Amount | None = None
    includes: list[Name] = Field(default_factory=list)
    """What the measurement covers, in words: rails, IO, idle chips of the board."""
    includes_host: bool = False
    """Whether it covers the host's multiply-accumulates. If not, they are subtracted from the record's energy too."""

    @model_validator(mode="after")
    def _consistent(self) -> Energy:
        given = {name: getattr(self, name) for name in ("static_mJ", "dynamic_mJ") if getattr(self, name) is not None}
        total = sum(given.values())
        if len(given) == 2 and not isclose(total, self.total_mJ, rel_tol=1e-3):
            raise ValueError(f"static_mJ + dynamic_mJ ({total:g}) is not total_mJ ({self.total_mJ:g})")
        for name, part in given.items():
            if part > self.total_mJ * (1 + 1e-3):
                raise ValueError(f"{name} ({part:g}) exceeds total_mJ ({self.total_mJ:g})")
        return self

    @property
    def split(self) -> tuple[float | None, float | None]:
        """Static and dynamic energy in mJ; the one that was not given is derived from the other."""
        static, dynamic = self.static_mJ, self.dynamic_mJ
        if static is None and dynamic is not None:
            return self.total_mJ - dynamic, dynamic
        if dynamic is None and static is not None:
            return static, self.total_mJ - static
        return static, dynamic


class ChipCounts(StrictModel):
    """One measurement of one network on one chip: the whole file."""

    schema_id: Literal["mksgn.chip_counts/1"] = Field(alias="schema")
    name: Name
    """Name of the measurement, and of the energy model made from it."""
    chip: Name
    board: Name
    software: Name
    """Compiler and firmware with their versions."""
    method: Name
    """How counters and energy were read, in full sentences."""
    model_sha256: Sha256 | None = None
    """Hash of the model.nir whose integers are on the chip."""
    clips: Clips
    counts_are: Literal["of the run", "per clip"]
    populations: dict[Name, Readings] = Field(default_factory=dict)
    totals: Readings = Readings()
    """Sums over all cores, for what was not read by population."""
    energy: Energy | None = None
    seconds_per_clip: Positive | None = None
    """Mean time of a clip, streamed back to back as during the energy measurement."""

    @model_validator(mode="after")
    def _consistent(self) -> ChipCounts:
        given = {name: readings.given() for name, readings in (*self.populations.items(), ("totals", self.totals))}
        if not any(given.values()) and not self.energy:
            raise ValueError("nothing was read: give populations, totals or energy")
        if self.counts_are == "of the run":
            for population, counters in given.items():
                for name, value in counters.items():
                    if not float(value).is_integer():
                        raise ValueError(f"{population}: {name} ({value:g}) of the run must be a whole number")
        return self

    def of_the_run(self, value: float) -> float:
        """Convert a reading to a sum over all clips."""
        return value if self.counts_are == "of the run" else value * self.clips.count


def read(path: Path | str) -> ChipCounts:
    """Read a counts file, YAML or JSON.

    Raises:
        BadInputError: One line that names the file, the field and the fault.
    """
    return read_yaml(Path(path), ChipCounts)


def clip_digest(names: Sequence[str]) -> str:
    """Return the sha256 of the clips' names in order, each followed by a line feed."""
    return hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()


def template(record: Record, clips: Sequence[str] | None = None) -> str:
    """Return a counts file to fill in, with the record's model and clips, and its populations on the chip in order.

    Args:
        record: The run to compare with.
        clips: Names of its clips, from the manifest; adds their hash.
    """
    known = {"count": record.data.clips, "source": record.data.source, "split": record.data.split}
    if clips is not None:
        known["names_sha256"] = clip_digest(clips)
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
        "populations": {layer.name: dict.fromkeys(COUNTERS) for layer in record.layers if layer.place == "chip"},
    }
    head = (
        "# Fill in what was read and leave null what was not. Optional: totals, energy {total_mJ, static_mJ,\n"
        "# dynamic_mJ, includes}, seconds_per_clip. Count only the time steps inside each population's window.\n"
    )
    return head + yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=120)


def model_of(chip: ChipCounts, record: Record) -> EnergyModel:
    """Convert a measured energy to an energy model with a static power and an anchor, evidence `measured`.

    It prices no event: one total does not reveal how it divides among kinds of event.

    Raises:
        BadInputError: The energy, its static part or the time of a clip was not measured.
    """
    static = chip.energy.split[0] if chip.energy else None
    if chip.energy is None or static is None or chip.seconds_per_clip is None:
        raise BadInputError(
            f"{chip.name}: an energy model needs energy.total_mJ, its static part and seconds_per_clip; "
            "measure the idle chip too"
        )
    watts = static / 1e3 / chip.seconds_per_clip
    includes = f" Includes {', '.join(chip.energy.includes)}." if chip.energy.includes else ""
    return EnergyModel(
        name=chip.name,
        evidence="measured",
        source=f"{chip.method}; {chip.chip}, {chip.board}, {chip.software}; {chip.clips.count} clips",
        scope="One network, measured as a whole: an anchor to compare sums of prices with; "
        f"its only price is static power.{includes}",
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
    """Return energy models as YAML that `known_models` and `--energy-model` read."""
    file = ModelsFile(schema="mksgn.energy_models/1", models=list(models))
    return yaml.safe_dump(
        file.model_dump(by_alias=True, mode="json", exclude_defaults=True),
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )
