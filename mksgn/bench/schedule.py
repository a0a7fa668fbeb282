"""The network's populations and projections in a record, with the time step at which each population begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mksgn.bench.schemas import Count, Name, StrictModel

if TYPE_CHECKING:
    from mksgn.deploy.program.program import Program


class ScheduledPopulation(StrictModel):
    name: Name
    kind: Literal["input", "spiking", "graded", "readout"]
    place: Literal["host", "chip"]
    depth: Count
    """Time step, from 0, at which the population handles the first step of a sample."""


class ScheduledProjection(StrictModel):
    source: Name
    target: Name
    kind: Name
    """conv, graph_conv, dense, product, …"""
    delay: Count
    """Time steps that a spike is held back, besides the one that a synapse costs: so that branches meet in one step."""


class Schedule(StrictModel):
    """Populations in the order of evaluation, and the projections between them."""

    populations: list[ScheduledPopulation]
    projections: list[ScheduledProjection]


def schedule_of(program: Program) -> Schedule:
    """Return the schedule of a compiled network. A product of two populations is a projection from each."""
    return Schedule(
        populations=[
            ScheduledPopulation(name=p.name, kind=p.kind, place=p.location, depth=p.depth) for p in program.populations
        ],
        projections=[
            ScheduledProjection(source=source, target=q.target, kind=q.kind, delay=program.synaptic_delay(q, index))
            for q in program.projections
            for index, source in enumerate(q.sources)
        ],
    )
