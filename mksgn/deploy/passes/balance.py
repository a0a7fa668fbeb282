"""Each synapse costs one step: give shorter branches a delay, so that a neuron adds up spikes of the same logical step.

Without it a join of paths of different length silently mixes time steps: 175 wrong spikes of 647, no error (LAVA.md).
"""

from __future__ import annotations

from dataclasses import replace

from mksgn.deploy.program.program import AnyProjection, Product, Program, Projection


def balance(program: Program) -> Program:
    """Set each group's depth to its longest way from the chip's inputs, and the delays that make all ways as long.

    What a network itself shifts (Delay nodes) comes on top. Within a group nothing is delayed: it computes its loop in one step.
    """
    depth = {p.name: 0 for p in program.populations}
    for members in program.groups.values():
        if members[0].location == "host":
            continue
        inside = {p.name for p in members}
        outside = [s for p in members for q in program.into(p.name) for s in q.sources if s not in inside]
        depth |= dict.fromkeys(inside, 1 + max((depth[s] for s in outside), default=-1))
    projections: list[AnyProjection] = []
    for projection in program.projections:
        target = program[projection.target]
        delays = tuple(
            0
            if target.location == "host" or program[source].group == target.group
            else depth[target.name] - 1 - depth[source] + projection.shift
            for source in projection.sources
        )
        if isinstance(projection, Product):
            projections.append(replace(projection, delays=delays))
        else:
            assert isinstance(projection, Projection)
            projections.append(replace(projection, delay=delays[0]))
    populations = tuple(replace(p, depth=depth[p.name]) for p in program.populations)
    return replace(program, populations=populations, projections=tuple(projections))
