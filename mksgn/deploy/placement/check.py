"""Check a program against a chip: list everything that does not fit, and what the limits do not say.

Violations read "object: quantity (n) exceeds limit (m) of chip; remedy". Needing several chips is
not a violation.
"""

import numpy as np

from mksgn.deploy.passes.balance import chip_steps
from mksgn.deploy.placement import axons
from mksgn.deploy.placement.chips import RESOURCES, Chip
from mksgn.deploy.placement.connectivity import link
from mksgn.deploy.placement.place import Placement, place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program

MEMBRANE_BITS = 24  # of a message that carries a membrane potential or a current
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

    A float program has no integers, so that only neurons, synapses, axons, delays and spikes are
    checked.
    """
    placement = _on_chip(placed, chip)
    program = placement.program
    violations = [
        _exceeds(o.name, f"{o.quantity} of one neuron", o.value, o.limit, chip, REMEDIES[o.quantity])
        for o in placement.overflows
    ]
    violations += _delays(program, chip)
    violations += _graded(program, chip)
    violations += _subtraction(program, chip)
    if program.precision == "fixed":
        for population in program.populations:
            if population.location == "chip":
                violations += _neuron(population, chip)
        violations += _weights(program, chip)
    return violations


def notes(placed: Placement | Program, chip: Chip) -> list[str]:
    """List what the placement assumes: limits that were not published, product units as neurons, loops."""
    placement = _on_chip(placed, chip)
    program = placement.program
    remarks = []
    unpublished = [f"{r} per core" for r, limit in zip(RESOURCES, chip.core_limits, strict=True) if limit is None]
    unpublished += ["synaptic delay"] if chip.delay is None else []
    if unpublished:
        remarks.append(f"{chip.name}: {', '.join(unpublished)}: limit not published, not checked")
    units = [p for p in placement.populations if p.units_of is not None]
    for p in units:
        remarks.append(
            f"{p.name}: {_how_units_run(chip)}: {p.neurons:,} compartments, {UNIT_SYNAPSES * p.neurons:,} synapses, "
            f"{p.cores:,} core{'s' * (p.cores > 1)} and one more time step"
        )
    if units:
        longest = max(_chip_delays(program).values(), default=0)
        remarks.append(
            f"attention: of the latency of {program.latency} steps, {program.unit_steps} are those of product units, "
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


def _on_chip(placed: Placement | Program, chip: Chip) -> Placement:
    if isinstance(placed, Placement) and placed.chip == chip:
        return placed
    return place(placed.program if isinstance(placed, Placement) else placed, chip)


def _exceeds(name: str, quantity: str, value: int, limit: int, chip: Chip, remedy: str) -> str:
    return f"{name}: {quantity} ({value}) exceeds limit ({limit}) of {chip.name}; {remedy}"


def _outside(name: str, quantity: str, values: object, low: int, high: int, chip: Chip, remedy: str) -> list[str]:
    x = np.asarray(values)
    violations = []
    if x.size and x.max() > high:
        violations.append(_exceeds(name, quantity, int(x.max()), high, chip, remedy))
    if x.size and x.min() < low:
        violations.append(f"{name}: {quantity} ({int(x.min())}) is below limit ({low}) of {chip.name}; {remedy}")
    return violations


def _neuron(population: Population, chip: Chip) -> list[str]:
    neuron = population.neuron
    if not isinstance(neuron, FixedNeuron):
        return []
    largest, fewer_bits = chip.bias_limit, "quantise with fewer bits"
    ranges = [
        ("decay dv", neuron.dv, 0, chip.decay_limit, "choose another dt or tau"),
        ("decay du", neuron.du, 0, chip.decay_limit, "choose another dt or tau of the current"),
        ("threshold", neuron.vth, 0, chip.threshold_limit, fewer_bits),
        ("bias mantissa", neuron.bias_mant, -largest, largest, f"give the bias a larger exponent, or {fewer_bits}"),
        ("bias exponent", neuron.bias_exp, 0, chip.bias_exponent, fewer_bits),
    ]
    return [
        violation
        for quantity, values, low, high, remedy in ranges
        if values is not None
        for violation in _outside(population.name, quantity, values, low, high, chip, remedy)
    ]


def _weights(program: Program, chip: Chip) -> list[str]:
    violations = []
    limit, remedy = chip.weight_limit, "export it again with --quantize 8"
    for projection in program.projections:
        if program[projection.target].location == "host":
            continue
        arrays = (
            [np.array([projection.weight])] if isinstance(projection, Product) else ops.weights(projection.operators)
        )
        for weights in arrays:
            violations += _outside(projection.name, "weight", weights, -limit, limit, chip, remedy)
            odd = int(np.count_nonzero(weights % 2))
            if odd:
                violations.append(_exceeds(projection.name, "weights that are not even integers", odd, 0, chip, remedy))
    return violations


def _delays(program: Program, chip: Chip) -> list[str]:
    if chip.delay is None:
        return []
    return [
        _exceeds(
            f"{q.name} from {source}", "synaptic delay", delay, chip.delay, chip,
            "put populations into the short branch, or cut the long one",
        )
        for (q, source), delay in _chip_delays(program).items()
        if delay > chip.delay
    ]  # fmt: skip


def _chip_delays(program: Program) -> dict[tuple[AnyProjection, str], int]:
    """Find the synaptic delays by projection and source where product units are neurons that take a time step."""
    return {
        (q, source): program[q.target].chip_depth - program[source].chip_depth - chip_steps(q) + q.logical_delay
        if program.crosses_synapses(q, source)
        else 0
        for q in program.projections
        if program[q.target].location == "chip"
        for source in q.sources
    }


def _graded(program: Program, chip: Chip) -> list[str]:
    if chip.spike_bits >= MEMBRANE_BITS:
        return []
    senders = {
        source
        for q in program.projections
        if program[q.target].location == "chip"
        for source in q.sources
        if not program.sends_spikes(source)
    }
    remedy = "its spikes are binary: let the population fire, or choose a chip with graded spikes (--chip loihi2)"
    return [
        _exceeds(p.name, "bits of a message", MEMBRANE_BITS, chip.spike_bits, chip, remedy)
        for p in program.populations
        if p.name in senders
    ]


def _subtraction(program: Program, chip: Chip) -> list[str]:
    """List the populations whose reset is no part of a fixed neuron."""
    if chip.neurons == "microcode":
        return []
    remedy = "choose a chip with microcode (--chip loihi2), or train with a reset to 0 and deploy with --reset zero"
    return [
        f"{p.name}: reset by subtraction, and the neurons of {chip.name} reset to 0; {remedy}"
        for p in program.populations
        if p.location == "chip"
        and p.neuron is not None
        and (p.neuron.subtract is not None or p.neuron.subtract_next is not None)
    ]


def _how_units_run(chip: Chip) -> str:
    lif = f"a LIF neuron with du = dv = {UNIT_DECAY}, weights {UNIT_WEIGHT} and threshold {UNIT_THRESHOLD}"
    if chip.neurons == "fixed":
        return (
            f"{chip.name} has fixed neurons and no product; each unit can be {lif}, "
            "which fires where both of its inputs spike"
        )
    return f"each unit is a neuron of {chip.name}, with its own microcode or {lif}"
