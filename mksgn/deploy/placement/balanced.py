"""Placement that balances: no more chips than the compact one, and a busiest core that does less.

A time step lasts as long as its busiest core works. The compact placement needs the fewest cores; the
cores that its chips have left are put to use here: tiles are cut as small as lets none work more than
a bound, and the smallest bound whose tiles still fit those chips is searched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.placement.connectivity import groups
from mksgn.deploy.placement.place import Placement, cores_needed, place
from mksgn.deploy.placement.work import Work
from mksgn.deploy.program.program import Program

ROUNDS = 8  # of the search: the bound is then known to 1.5 % of the largest work, if that is at most four times as much
LEAST = 1e-3  # of the largest work: where the search begins


def balanced(
    program: Program, chip: Chip, work: Work, time: Callable[[Placement], float], compact: Placement | None = None
) -> Placement:
    """Place one instance of the program so that its time step is short.

    Args:
        program: the compiled network.
        chip: whose cores it is placed on.
        work: latencies and firing rates; its bound is what is searched.
        time: of a placement's time step; the compact placement is returned where none found is shorter.
        compact: the compact placement, where it is known already.
    """
    compact = place(program, chip) if compact is None else compact
    on_chip = groups(program)
    high = largest_work(compact, work)
    low = LEAST * high
    for _ in range(ROUNDS):
        bound = (low * high) ** 0.5
        if cores_needed(on_chip, chip, replace(work, most=bound)) <= compact.chips * chip.cores:
            high = bound
        else:
            low = bound
    found = place(program, chip, replace(work, most=high), on_chip)
    fits = found.chips <= compact.chips and len(found.overflows) <= len(compact.overflows)
    return found if fits and time(found) < time(compact) else compact


def largest_work(placement: Placement, work: Work) -> float:
    """Bound the expected work in ns of the busiest core from above, by what each core holds."""
    latency, largest = work.latency, 1.0
    synaptic = max(latency["dense"], latency["sparse"], latency["convolution"])
    per_neuron = latency["accesses"] + latency["updates"] + latency["spikes"]
    for placed in placement.populations:
        neurons, bits, inputs, outputs = placed.usage.T
        own = neurons * per_neuron + outputs * latency["messages_out"]
        arriving = inputs * latency["messages_in"] + bits / placement.chip.bits_per_synapse * synaptic
        largest = max(largest, float(own.max()), float(arriving.max()))
    return largest
