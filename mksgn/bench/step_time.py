"""The time on a chip in run.json: how long a time step lasts, and what limits it.

Counts cover the first bodies of a run, whose spikes are stored (spikes.npz), by core and step.
Times are those of a model (timing_models.py), never the host's.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mksgn.common.schemas import Amount, Count, Evidence, Fraction, Name, StrictModel

# what a core does, in words
EVENT_WORDS = {
    "messages_in": "messages in",
    "dense": "synaptic operations of dense layers",
    "sparse": "synaptic operations of sparse projections",
    "convolution": "synaptic operations of convolutions",
    "accesses": "accesses of neurons",
    "updates": "updates of neurons",
    "spikes": "spikes",
    "messages_out": "messages out",
}


class Span(StrictModel):
    """A time between two bounds."""

    lower: Amount
    estimate: Amount

    @model_validator(mode="after")
    def _consistent(self) -> Span:
        if self.lower > self.estimate * (1 + 1e-9):
            raise ValueError(f"lower ({self.lower}) exceeds estimate ({self.estimate})")
        return self


class Binding(StrictModel):
    """What the busiest core did, and in which part of the time."""

    population: Name
    event: Name
    """The event that took most of the core's time."""
    share: Fraction
    """Of the step time, barriers left out, over all counted steps."""


class PlacementTime(StrictModel):
    """One placement under a timing model. Steps are those of bodies that follow each other without a pause."""

    place: Literal["compact", "balanced"]
    cores: Count
    chips: Count
    busiest: dict[str, Amount]
    """Mean over the steps of the largest count on any core, by event; each event has its own busiest core."""
    step_us: Span | None = None
    """Mean time of a step; null for a model without latencies."""
    longest_step_us: Span | None = None
    latency_us: Span | None = None
    """Time of a body that is alone on the chip, from its first step to the last step of its output."""
    samples_per_second: Span | None = None
    """Rate of streamed samples (clips, with all of their bodies); `lower` follows from the estimated step time."""
    binding: list[Binding] = Field(default_factory=list)
    """What binds the steps in the lower bound, most of the time first; empty without latencies."""
    hops: dict[str, Amount] | None = None
    """Per body, what messages between cores cross: within_tile (messages), east_west and north_south (tiles); and
    busiest_link, the mean over the steps of the most messages over a link. Null where cores have no coordinates."""
    static_mJ: Span | None = None
    """Static energy per sample at the model's stated power."""
    energy_delay_mJ_ms: float | None = None
    """Energy of a body under the model's energy model times its latency, both lower bounds, with the messages and
    hops of this placement. Null for a model that names no energy model, or one that the run was not priced by."""


class Timing(StrictModel):
    """The run on a chip's cores under one timing model."""

    model: Name
    chip: Name
    evidence: Evidence
    source: str
    bodies: Annotated[int, Field(ge=1)]
    """First bodies of the run whose spikes were counted by core and step."""
    steps: Annotated[int, Field(ge=1)]
    latency_steps: Count
    latencies_ns: dict[str, Amount]
    """The model's latency of each event; empty for a model that only counts."""
    barrier_us: Amount
    """Time at the end of each step, for the placement that uses the most tiles."""
    not_counted: list[Name]
    """Populations that send graded values, whose messages are not among the counts."""
    placements: list[PlacementTime]
