"""With an analog input, what lies before the first spikes stays on the host: it is computed once for all backends, as MACs."""

from __future__ import annotations

from dataclasses import replace

from mksgn.deploy.program import Population, Program


def host_split(program: Program) -> Program:
    """Analog inputs go to the host, with each leaf that is fed by currents of the host alone."""
    changed: dict[str, Population] = {}
    for population in program.inputs:
        if population.name in program.analog:
            changed[population.name] = replace(population, place="host")
    for members in program.leaves.values():  # sources come before what they feed
        inside = {p.name for p in members}
        outside = {s for p in members for q in program.into(p.name) for s in q.sources} - inside
        if outside and all(s in changed and not program.sends_spikes(s) for s in outside):
            changed |= {p.name: replace(p, place="host") for p in members}
    return program.with_populations(changed)
