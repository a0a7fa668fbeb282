"""Check a program against a chip: list everything that does not fit, and what the limits do not say.

Violations read "object: quantity (n) exceeds limit (m) of chip; remedy". Needing several chips is
not a violation.
"""

import numpy as np

from mksgn.deploy.placement import axons
from mksgn.deploy.placement.chips import CORES_REACHED, Chip
from mksgn.deploy.placement.connectivity import link
from mksgn.deploy.placement.needs import chip_delays, exceeds, needs
from mksgn.deploy.placement.place import Placement, place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron, Neuron
from mksgn.deploy.program.program import Product, Program
from mksgn.export.choices import SUBTRACT, SUBTRACT_AT_ONCE, ZERO

# A product unit as a LIF neuron: two synapses of this weight, a threshold between one and two of
# them, and no memory beyond the step, since 64 · 2 sub-units times (4096 - 4095) / 4096 are
# truncated to 0.
UNIT_WEIGHT, UNIT_THRESHOLD, UNIT_DECAY = 2, 3, 4095
UNIT_SYNAPSES = 3  # two that end in a unit, one from it to the neuron that sums it

REMEDIES = {
    "synaptic bits": "use fewer channels or a smaller kernel",
    "input axons": "use fewer channels or a smaller kernel, pool before it, or keep a read-out on the host",
    "output axons": "use fewer channels or a smaller kernel after it",
}


def check(placed: Placement | Program, chip: Chip) -> list[str]:
    """List all violations of the chip's limits.

    A float program has no integers, so only neurons, synapses, axons, delays and spikes are
    checked.
    """
    placement = _on_chip(placed, chip)
    program = placement.program
    violations = [
        exceeds(o.name, f"{o.quantity} of one neuron", o.value, o.limit, chip, REMEDIES[o.quantity])
        for o in placement.overflows
    ]
    violations += _cores_reached(placement)
    violations += [violation for need in needs(program, chip) for violation in need.violations(chip)]
    return [*violations, *kinds_of_neuron(program, chip)]


def limits(placed: Placement | Program, chip: Chip) -> list[tuple[str, int, int | None]]:
    """List the limits of cores, then every other one that has not been published: name, largest value, limit.

    A record states them, and `mksgn.common.limits.Fit` judges them.
    """
    placement = _on_chip(placed, chip)
    unpublished: dict[str, int] = {}
    for need in needs(placement.program, chip):
        if need.most is None:
            unpublished[need.quantity] = max(unpublished.get(need.quantity, 0), need.high, -need.low)
    return [*placement.limits, *((quantity, value, None) for quantity, value in unpublished.items())]


def notes(placed: Placement | Program, chip: Chip) -> list[str]:
    """List what the placement assumes: limits that were not published, product units as neurons, loops."""
    placement = _on_chip(placed, chip)
    program = placement.program
    remarks = []
    unpublished = [name for name, _, limit in limits(placement, chip) if limit is None]
    if unpublished:
        remarks.append(f"{chip.name}: {', '.join(unpublished)}: limit not published, not checked")
    units = [p for p in placement.populations if p.units_of is not None]
    for p in units:
        remarks.append(
            f"{p.name}: {_how_units_run(chip)}: {p.neurons:,} compartments, {UNIT_SYNAPSES * p.neurons:,} synapses, "
            f"{p.cores:,} core{'s' * (p.cores > 1)} and one more time step"
        )
    if units:
        longest = max(chip_delays(program).values(), default=0)
        remarks.append(
            f"attention: of the latency of {program.latency} steps, product units take {program.unit_steps}, "
            f"which Lava computes within a step; the longest delay is {longest}; the spikes are the same"
        )
    remarks += _parallel_paths(program)
    remarks += [
        f"{p.name}: {p.size:,} neuron{'s' * (p.size > 1)} that fire at every step, for a bias into a synaptic current"
        for p in program.neurons
        if p.location == "chip" and not program.into(p.name)
    ]
    remarks += [
        f"{p.name}: starts each sample from a membrane other than 0, which the host writes"
        for p in program.neurons
        if p.location == "chip" and p.neuron is not None and p.neuron.initial is not None
    ]
    for group, members in program.groups.items():
        if len(members) > 1:
            remarks.append(
                f"{group}: a loop over {len(members)} populations takes one step here, "
                f"and one step per synapse on {chip.name}"
            )
    return remarks


def _parallel_paths(program: Program) -> list[str]:
    """Remark on chains of operators in which several paths lead from one neuron to another."""
    remarks = []
    for q in program.projections:
        if isinstance(q, Product) or program[q.target].location == "host" or len(q.operators) < 2:
            continue
        shape = program[q.source].shape
        pattern = link(q.operators, shape)
        if pattern is None or any(isinstance(op, ops.Mask) for op in q.operators):
            continue
        paths = int(program.fan_outs(q)[0].sum())
        pairs = int(np.broadcast_to(axons.union([pattern], "source", shape), shape).sum())
        if paths > pairs:
            remarks.append(
                f"{q.name}: {paths:,} paths connect {pairs:,} pairs of neurons, because windows overlap; "
                "each path counts as a synapse, though a chip can store one for each pair"
            )
    return remarks


def _computes_units(chip: Chip) -> bool:
    return chip.neurons == "microcode" or chip.decay_limit is None or chip.decay_limit >= UNIT_DECAY


def _has_current(neuron: Neuron) -> bool:
    """Return whether a neuron's current keeps something for the next step."""
    return (neuron.du if isinstance(neuron, FixedNeuron) else neuron.current_decay) is not None


def _on_chip(placed: Placement | Program, chip: Chip) -> Placement:
    if isinstance(placed, Placement) and placed.chip == chip:
        return placed
    return place(placed.program if isinstance(placed, Placement) else placed, chip)


def _cores_reached(placement: Placement) -> list[str]:
    """List the populations with a neuron that reaches more cores than the chip allows."""
    limit = placement.chip.cores_per_neuron
    if limit is None:
        return []
    remedy = "use fewer channels or a smaller kernel after it, or copies of its neurons"
    most = {p.name: int(p.cores_reached.max(initial=0)) for p in placement.populations}
    return [exceeds(p, CORES_REACHED, n, limit, placement.chip, remedy) for p, n in most.items() if n > limit]


def kinds_of_neuron(program: Program, chip: Chip) -> list[str]:
    """List the populations whose reset or current the chip's fixed neurons do not have."""
    if chip.neurons == "microcode":
        return []
    violations = []
    remedy = "choose a chip with microcode (--chip loihi2), or train with a reset to 0 and deploy with --reset zero"
    for p in program.populations:
        if p.location != "chip" or p.neuron is None:
            continue
        kinds = {SUBTRACT: p.neuron.subtract_next, SUBTRACT_AT_ONCE: p.neuron.subtract}
        if any(value is not None and kind not in chip.resets for kind, value in kinds.items()):
            there = "reset to 0" if chip.resets == (ZERO,) else f"have {' and '.join(chip.resets)}"
            violations.append(f"{p.name}: reset by subtraction, and the neurons of {chip.name} {there}; {remedy}")
        if not chip.synaptic_current and _has_current(p.neuron):
            violations.append(
                f"{p.name}: a synaptic current with a decay of its own, which the neurons of {chip.name} do not have; "
                "use LIF or IF"
            )
    if not _computes_units(chip):
        violations += [
            f"{q.name}: product units as neurons need a decay of {UNIT_DECAY}, and the largest of {chip.name} is "
            f"{chip.decay_limit}; choose a chip with microcode (--chip loihi2)"
            for q in program.projections
            if isinstance(q, Product)
        ]
    return violations


def _how_units_run(chip: Chip) -> str:
    lif = f"a LIF neuron with du = dv = {UNIT_DECAY}, weights {UNIT_WEIGHT} and threshold {UNIT_THRESHOLD}"
    if not _computes_units(chip):
        return (
            f"{chip.name} has fixed neurons and no product, and none of them computes one; as neurons they would take"
        )
    if chip.neurons == "fixed":
        return (
            f"{chip.name} has fixed neurons and no product; each unit can be {lif}, "
            "which fires where both of its inputs spike"
        )
    return f"each unit is a neuron of {chip.name}, with its own microcode or {lif}"
