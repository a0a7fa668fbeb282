"""The network's populations and projections in a record, with the time step at which each population begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mksgn.common.schemas import Count, Name, StrictModel
from mksgn.deploy.placement.needs import chip_delays

if TYPE_CHECKING:
    from mksgn.deploy.program.program import Program


class ScheduledPopulation(StrictModel):
    name: Name
    kind: Literal["input", "spiking", "graded", "readout"]
    place: Literal["host", "chip"]
    depth: Count
    """The chip's time step, from 0, at which the population handles the first step of a sample."""


class ScheduledProjection(StrictModel):
    source: Name
    target: Name
    kind: Name
    """conv, graph_conv, dense, product, …"""
    delay: Count
    """Time steps that a spike is delayed, on top of the one of a synapse, so that branches arrive in the same step."""


class Schedule(StrictModel):
    """Populations in the order of evaluation, and the projections between them."""

    populations: list[ScheduledPopulation]
    projections: list[ScheduledProjection]


def schedule_of(program: Program) -> Schedule:
    """Return the chip's schedule of a compiled network. A product of two populations is a projection from each."""
    delays = chip_delays(program)
    return Schedule(
        populations=[
            ScheduledPopulation(name=p.name, kind=p.kind, place=p.location, depth=p.chip_depth)
            for p in program.populations
        ],
        projections=[
            ScheduledProjection(source=source, target=q.target, kind=q.kind, delay=delays.get((q, source), 0))
            for q in program.projections
            for source in q.sources
        ],
    )
