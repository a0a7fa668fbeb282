"""Balance pass: delay shorter branches, so that spikes of the same step of a sample meet.

Each synapse on the chip costs a time step. Without compensation, a join of branches of different
length silently mixes time steps: 175 of 647 spikes were wrong, and there was no error (LAVA.md).
"""

from collections.abc import Callable
from dataclasses import replace

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program.program import AnyProjection, Product, Program


def balance(program: Program) -> Program:
    """Set depths, here and on the chip, and the compensation delays that make all paths to a population equally long."""
    depth = depths(program)
    projections: list[AnyProjection] = []
    for q in program.projections:
        delays = tuple(
            depth[q.target] - 1 - depth[source] if program.crosses_synapses(q, source) else 0 for source in q.sources
        )
        if isinstance(q, Product):
            projections.append(replace(q, compensation_delays=delays))
        else:
            projections.append(replace(q, compensation_delay=delays[0]))
    on_chip = depths(program, chip_steps)
    populations = tuple(replace(p, depth=depth[p.name], chip_depth=on_chip[p.name]) for p in program.populations)
    return replace(program, populations=populations, projections=tuple(projections))


def chip_steps(projection: AnyProjection) -> int:
    """Return the time steps from source to target on the chip, where a product's units are neurons and take one too."""
    return 1 + isinstance(projection, Product)


def depths(
    program: Program, cost: Callable[[AnyProjection], int] = lambda projection: 1, *, fused_loops: bool = True
) -> dict[str, int]:
    """Compute the pipeline depth of each population: its longest path from the inputs, in time steps.

    Args:
        program: populations on the host have depth 0, like inputs.
        cost: time steps from a source of a projection to its target.
        fused_loops: compute a recurrent loop within the time step, so that its members share a
            depth. Otherwise its synapses cost time steps like all others.

    Raises:
        DeployError: spikes come back too late around a loop that is not fused.
    """
    depth = {p.name: 0 for p in program.populations}
    edges = []
    for q in program.projections:
        for source in q.sources if program[q.target].location == "chip" else ():
            inside = fused_loops and program[source].group == program[q.target].group
            edges.append((q, source, 0 if inside else cost(q)))
    # Bellman-Ford: without a loop of positive cost, a longest path passes each population once
    for _ in range(len(depth) + 1):
        late = [q for q, source, steps in edges if depth[q.target] < depth[source] + steps]
        if not late:
            return depth | _unfed(program, depth, edges)
        for q, source, steps in edges:
            depth[q.target] = max(depth[q.target], depth[source] + steps)
    raise DeployError(
        f"projection {late[0].name}: closes a loop over several populations, in which spikes return too late, since "
        "each synapse costs a step; run the fused network"
    )


def _unfed(program: Program, depth: dict[str, int], edges: list[tuple[AnyProjection, str, int]]) -> dict[str, int]:
    """Return depths of populations that nothing feeds: just before their first target, which then needs no delay."""
    fed = {q.target for q in program.projections}
    unfed = {p.name for p in program.populations if p.kind != "input" and p.name not in fed}
    latest: dict[str, list[int]] = {name: [] for name in unfed}
    for q, source, steps in edges:
        if source in unfed:
            latest[source].append(depth[q.target] - steps)
    return {name: max(0, min(starts)) for name, starts in latest.items() if starts}
