"""With an analog input, what lies before the first spikes stays on the host: it is computed once for all backends, as MACs."""

from __future__ import annotations

from dataclasses import replace

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program import Population, Program


def host_split(program: Program) -> Program:
    """Analog inputs, and populations that read nothing else, go to the host; their spikes are what the chip receives."""
    changed: dict[str, Population] = {}
    for population in program.populations:
        if population.kind == "input":
            if population.name in program.analog:
                changed[population.name] = replace(population, place="host")
            continue
        analog = {s for projection in program.into(population.name) for s in projection.sources} & program.analog
        if not analog:
            continue
        others = {s for projection in program.into(population.name) for s in projection.sources} - program.analog
        if others or population.kind != "lif":
            raise DeployError(
                f"population {population.name}: reads the analog input {', '.join(sorted(analog))} and is no plain encoder; "
                "only a LIF population fed by analog inputs alone can stay on the host"
            )
        changed[population.name] = replace(population, place="host")
    return program.with_populations(changed)
