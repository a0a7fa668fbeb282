"""Each synapse costs one step: give shorter branches a delay, so that a neuron adds up spikes of the same logical step.

Without it a join of paths of different length silently mixes time steps: 175 wrong spikes of 647, no error (LAVA.md).
"""

from __future__ import annotations

from dataclasses import replace

from mksgn.deploy.program import AnyProjection, Population, Product, Program, Projection


def balance(program: Program) -> Program:
    """Set each population's depth to its longest way from the chip's inputs, and the delays that make all ways as long."""
    depth: dict[str, int] = {}
    populations: list[Population] = []
    projections: list[AnyProjection] = []
    for population in program.populations:  # topological
        incoming = program.into(population.name)
        if population.place == "host" or not incoming:
            depth[population.name] = 0
        else:
            depth[population.name] = 1 + max(depth[s] for projection in incoming for s in projection.sources)
        populations.append(replace(population, depth=depth[population.name]))
        for projection in incoming:
            if population.place == "host":
                projections.append(projection)
                continue
            delays = tuple(depth[population.name] - 1 - depth[s] for s in projection.sources)
            if isinstance(projection, Product):
                projections.append(replace(projection, delays=delays))
            else:
                assert isinstance(projection, Projection)
                projections.append(replace(projection, delay=delays[0]))
    return replace(program, populations=tuple(populations), projections=tuple(projections))
