"""Balanced placement: no more chips than the compact one, and less work on the busiest core.

A time step lasts as long as its busiest core works. The compact placement needs the fewest cores. This
one also uses the cores that are left on the same chips: no tile may work longer than a bound, and a
search finds the smallest bound whose tiles still fit those chips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mksgn.common.progress import track
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.placement.connectivity import Group, groups
from mksgn.deploy.placement.place import Placement, cores_needed, place
from mksgn.deploy.placement.work import Work
from mksgn.deploy.program.program import Program

ROUNDS = 8  # of the search: the bound is then known to 1.5 % of the largest work, if that is at most four times as much
LEAST = 1e-3  # lower end of the search, as a fraction of the largest work


def balanced(
    program: Program,
    chip: Chip,
    work: Work,
    time: Callable[[Placement], float] | None = None,
    compact: Placement | None = None,
) -> Placement:
    """Place one instance of the program so that its time step is short.

    Args:
        program: the compiled network.
        chip: whose cores it is placed on.
        work: latencies and firing rates; the search determines its bound.
        time: measures a placement's time step, if the network has run; None: the expected work of its
            busiest core. The compact placement is returned unless the one found has a shorter step.
        compact: the compact placement, if it is already known.
    """
    compact = place(program, chip) if compact is None else compact
    on_chip = groups(program)
    time = time or (lambda placement: expected_work(placement, on_chip, work))
    high = expected_work(compact, on_chip, work)
    low = LEAST * high
    for _ in track(range(ROUNDS), ROUNDS, "rounds of the balanced placement"):
        bound = (low * high) ** 0.5
        if cores_needed(on_chip, chip, replace(work, most=bound)) <= compact.chips * chip.cores:
            high = bound
        else:
            low = bound
    found = place(program, chip, replace(work, most=high), on_chip)
    fits = found.chips <= compact.chips and len(found.overflows) <= len(compact.overflows)
    return found if fits and time(found) < time(compact) else compact


def expected_work(placement: Placement, on_chip: list[Group], work: Work) -> float:
    """Estimate the busiest core's work per step in ns, from what each core holds and the mean rate of its inputs."""
    latency, largest = work.latency, 0.0
    for group, placed in zip(on_chip, placement.populations, strict=True):
        neurons, bits, inputs, outputs = placed.usage.T
        rate = work.rate(group.name)
        own = neurons * (latency["accesses"] + latency["updates"] + rate * latency["spikes"])
        own = own + rate * outputs * latency["messages_out"]
        synapses = [float(np.broadcast_to(edge.fan_in, group.shape).sum()) for edge in group.edges]
        total = sum(synapses) or 1.0
        shares = [(edge, n / total) for edge, n in zip(group.edges, synapses, strict=True)]
        per_input = sum(share * work.rate(edge.source) for edge, share in shares) * latency["messages_in"]
        per_synapse = sum(share * work.rate(edge.source) * latency[edge.kind] for edge, share in shares)
        arriving = inputs * per_input + bits / placement.chip.bits_per_synapse * per_synapse
        largest = max(largest, float(own.max()), float(arriving.max()))
    return largest
