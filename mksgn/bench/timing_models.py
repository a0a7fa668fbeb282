"""Timing models as data (data/timing_models.yaml): latencies per event, and the barrier of a time step.

A lab adds its chip with a file of the same form (docs/chip-time.md). `python -m
mksgn.bench.timing_models` prints the JSON Schema of such a file, checked in as
data/timing_models.schema.json for editors.
"""

# ruff: noqa: N815 - units keep their own spelling: W
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from mksgn.bench.choices import DATA
from mksgn.common.schemas import Amount, Evidence, Name, Positive, StrictModel, Text, json_schema_of, read_yaml, unique

SCHEMA = "mksgn.timing_models/1"


class SynapticLatencies(StrictModel):
    """Latency of a synaptic operation by the kind of synapse, in ns."""

    dense: Amount
    sparse: Amount
    convolution: Amount


class HopLatencies(StrictModel):
    """Latency of a message per tile that it crosses, in ns."""

    east_west: Amount
    north_south: Amount


class Latencies(StrictModel):
    """Latencies in ns per event of a core."""

    message_in: Amount
    """Per message that the core receives."""
    synaptic_op: Amount | SynapticLatencies
    """Per synaptic operation."""
    neuron_access: Amount
    """Per neuron and step, with or without input."""
    neuron_update: Amount
    """Added where the neuron has input or a bias, or fires."""
    spike: Amount
    """Added where the neuron fires."""
    message_out: Amount
    """Per message that the core sends: a spike is one message for each core that it is sent to."""
    hop: HopLatencies | None = None

    def by_event(self) -> dict[str, float]:
        """Latency in ns of each event that mksgn.deploy.placement.loads counts."""
        synaptic = self.synaptic_op
        if not isinstance(synaptic, SynapticLatencies):
            synaptic = SynapticLatencies(dense=synaptic, sparse=synaptic, convolution=synaptic)
        return {
            "messages_in": self.message_in,
            **synaptic.model_dump(),
            "accesses": self.neuron_access,
            "updates": self.neuron_update,
            "spikes": self.spike,
            "messages_out": self.message_out,
        }


class TimingModel(StrictModel):
    """One timing model. Without `latencies_ns` it counts what the busiest core does, and has no time."""

    name: Text
    chip: Name
    """Chip whose cores the network is placed on."""
    evidence: Evidence
    source: Text
    scope: str = ""
    """What the latencies include and assume."""
    latencies_ns: Latencies | None = None
    barrier_us: dict[int, Amount] = Field(default_factory=dict)
    """Time at the end of a step, by number of tiles in use: the entry of the largest key not above it applies."""
    static_power_W: Positive | None = None
    """Power that the source states, drawn while the chip works on a sample."""
    energy_model: Name | None = None
    """Energy model of the energy-delay product."""

    @model_validator(mode="after")
    def _consistent(self) -> TimingModel:
        if self.latencies_ns is None and (self.barrier_us or self.static_power_W or self.energy_model):
            raise ValueError(
                "barrier_us, static_power_W and energy_model need latencies_ns, without which there is no time"
            )
        if self.barrier_us and min(self.barrier_us) > 1:
            raise ValueError(f"barrier_us begins at {min(self.barrier_us)} tiles; give the barrier for 1 tile too")
        return self

    def barrier(self, tiles: int) -> float:
        """Return the time at the end of a step, in µs; 0 if none is stated."""
        return max(((n, time) for n, time in self.barrier_us.items() if n <= max(1, tiles)), default=(0, 0.0))[1]


class ModelsFile(StrictModel):
    """A file of timing models."""

    schema_id: Literal["mksgn.timing_models/1"] = Field(alias="schema")
    models: list[TimingModel]


def known_timing_models(extra_files: Iterable[Path | str] = ()) -> list[TimingModel]:
    """Load the models of data/timing_models.yaml, then those of further files.

    Raises:
        BadInputError: A file is invalid, or a name is not unique.
    """
    paths = (DATA / "timing_models.yaml", *map(Path, extra_files))
    return unique(((path, model) for path in paths for model in read_yaml(path, ModelsFile).models), "a timing model")


if __name__ == "__main__":
    print(json_schema_of(ModelsFile, SCHEMA, "validation"))
