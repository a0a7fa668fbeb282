"""A program held against a chip: everything that does not fit, at once, and what is needed that the limits do not say.

Violations read "object: quantity (n) exceeds limit (m) of chip; remedy". Needing several chips is none.
"""

from __future__ import annotations

import numpy as np

from mksgn.deploy.passes.balance import depths
from mksgn.deploy.placement import axons
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.placement.connectivity import link
from mksgn.deploy.placement.place import Placement, place
from mksgn.deploy.placement.tiles import RESOURCES, core_limits
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program

MEMBRANE_BITS = 24  # of a message that shows a membrane or a current
# A product unit as a LIF neuron: two synapses of this weight, a threshold between one and two of them, and no memory beyond the step,
# since 64 · 2 sub-units times (4096 - 4095) / 4096 are cut to 0.
UNIT_WEIGHT, UNIT_THRESHOLD, UNIT_DECAY = 2, 3, 4095
UNIT_SYNAPSES = 3  # two that end in a unit, one from it to the neuron that sums it

REMEDIES = {
    "synaptic bits": "use fewer channels or a smaller kernel",
    "input axons": "use fewer channels or a smaller kernel, pool before it, or keep a read-out on the host",
    "output axons": "use fewer channels or a smaller kernel behind it",
}


def check(placed: Placement | Program, chip: Chip) -> list[str]:
    """All violations. Float programs have no integers, so that only neurons, synapses, axons, delays and spikes are checked."""
    placement = placed if isinstance(placed, Placement) and placed.chip == chip else place(_program(placed), chip)
    program = placement.program
    found = [
        _exceeds(o.name, f"{o.quantity} of one neuron", o.value, o.limit, chip, REMEDIES[o.quantity])
        for o in placement.overflows
    ]
    found += _delays(program, chip)
    found += _graded(program, chip)
    if program.precision == "fixed":
        for population in program.populations:
            if population.location == "chip":
                found += _neuron(population, chip)
        found += _weights(program, chip)
    return found


def notes(placed: Placement | Program, chip: Chip) -> list[str]:
    """What the placement takes for granted: limits that nobody published, product units as neurons, loops."""
    placement = placed if isinstance(placed, Placement) and placed.chip == chip else place(_program(placed), chip)
    program = placement.program
    found = []
    unpublished = [f"{r} per core" for r, limit in zip(RESOURCES, core_limits(chip), strict=True) if limit is None]
    unpublished += ["synaptic delay"] if chip.delay is None else []
    if unpublished:
        found.append(f"{chip.name}: {', '.join(unpublished)}: limit not published, not checked")
    units = [p for p in placement.populations if p.units_of is not None]
    for p in units:
        found.append(
            f"{p.name}: {_how_units_run(chip)}: {p.neurons:,} compartments, {UNIT_SYNAPSES * p.neurons:,} synapses, "
            f"{p.cores:,} core{'s' * (p.cores > 1)} and one time step more"
        )
    if units:
        latency, delays = _with_units(program)
        longest = max(delays.values(), default=0)
        found.append(
            f"attention: product units as neurons make the latency {latency} steps instead of {program.latency}, and the longest delay "
            f"{longest}; the spikes stay the same"
        )
    found += _ways(program)
    for leaf, members in program.groups.items():
        if len(members) > 1:
            found.append(
                f"{leaf}: a loop over {len(members)} populations takes one step here, and one step per synapse on {chip.name}"
            )
    return found


def _ways(program: Program) -> list[str]:
    """Chains in which several ways lead from one neuron to another."""
    found = []
    for q in program.projections:
        if isinstance(q, Product) or program[q.target].location == "host" or len(q.operators) < 2:
            continue
        shape = program[q.source].shape
        pattern = link(q.operators, shape)
        if pattern is None or any(isinstance(op, ops.Mask) for op in q.operators):
            continue
        ways = int(program.fan_outs(q)[0].sum())
        pairs = int(np.broadcast_to(axons.union([pattern], "source", shape), shape).sum())
        if ways > pairs:
            found.append(
                f"{q.name}: {ways:,} ways join {pairs:,} pairs of neurons, because windows overlap; each way counts as a synapse, though "
                "a chip can store one for each pair"
            )
    return found


def _program(placed: Placement | Program) -> Program:
    return placed.program if isinstance(placed, Placement) else placed


def _exceeds(name: str, quantity: str, value: int, limit: int, chip: Chip, remedy: str) -> str:
    return f"{name}: {quantity} ({value}) exceeds limit ({limit}) of {chip.name}; {remedy}"


def _outside(name: str, quantity: str, values: object, low: int, high: int, chip: Chip, remedy: str) -> list[str]:
    x = np.asarray(values)
    found = []
    if x.size and x.max() > high:
        found.append(_exceeds(name, quantity, int(x.max()), high, chip, remedy))
    if x.size and x.min() < low:
        found.append(f"{name}: {quantity} ({int(x.min())}) is below limit ({low}) of {chip.name}; {remedy}")
    return found


def _neuron(population: Population, chip: Chip) -> list[str]:
    neuron = population.neuron
    if not isinstance(neuron, FixedNeuron):
        return []
    name, largest = population.name, chip.bias_limit
    found = _outside(name, "decay dv", neuron.dv, 0, chip.decay_limit, chip, "choose another dt or tau")
    if neuron.du is not None:
        found += _outside(
            name, "decay du", neuron.du, 0, chip.decay_limit, chip, "choose another dt or tau of the current"
        )
    if neuron.vth is not None:
        found += _outside(name, "threshold", neuron.vth, 0, chip.threshold_limit, chip, "quantise with fewer bits")
    found += _outside(
        name,
        "bias mantissa",
        neuron.bias_mant,
        -largest,
        largest,
        chip,
        "give the bias a larger exponent, or quantise with fewer bits",
    )
    found += _outside(name, "bias exponent", neuron.bias_exp, 0, chip.bias_exponent, chip, "quantise with fewer bits")
    return found


def _weights(program: Program, chip: Chip) -> list[str]:
    found = []
    limit, remedy = chip.weight_limit, "export it again with --quantize 8"
    for projection in program.projections:
        if program[projection.target].location == "host":
            continue
        arrays = (
            [np.array([projection.weight])] if isinstance(projection, Product) else ops.weights(projection.operators)
        )
        for weights in arrays:
            found += _outside(projection.name, "weight", weights, -limit, limit, chip, remedy)
            odd = int(np.count_nonzero(weights % 2))
            if odd:
                found.append(_exceeds(projection.name, "weights that are no even integers", odd, 0, chip, remedy))
    return found


def _delays(program: Program, chip: Chip) -> list[str]:
    if chip.delay is None:
        return []
    _, delays = _with_units(program)
    return [
        _exceeds(
            f"{q.name} from {source}", "synaptic delay", delay, chip.delay, chip,
            "put populations into the short branch, or cut the long one",
        )
        for (q, source), delay in delays.items()
        if delay > chip.delay
    ]  # fmt: skip


def _with_units(program: Program) -> tuple[int, dict[tuple[AnyProjection, str], int]]:
    """Latency, and delay by projection and source, were each product unit a neuron that costs a step of its own.

    The delays of a program without products are its own.
    """
    own = {
        (q, source): program.synaptic_delay(q, i)
        for q in program.projections
        if program[q.target].location == "chip"
        for i, source in enumerate(q.sources)
    }
    if not any(isinstance(q, Product) for q in program.projections):
        return program.latency, own

    def steps(q: AnyProjection) -> int:
        return 1 + isinstance(q, Product)

    depth = depths(program, steps)
    delays = {
        (q, source): depth[q.target] - depth[source] - steps(q) + q.logical_delay
        for q, source in own
        if program.crosses_synapses(q, source)
    }
    return max((depth[output.population] for output in program.outputs), default=0), delays


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
    remedy = "its spikes are binary: let the population fire, or take a chip with graded spikes (--chip loihi2)"
    return [
        _exceeds(p.name, "bits of a message", MEMBRANE_BITS, chip.spike_bits, chip, remedy)
        for p in program.populations
        if p.name in senders
    ]


def _how_units_run(chip: Chip) -> str:
    lif = f"a LIF neuron with du = dv = {UNIT_DECAY}, weights {UNIT_WEIGHT} and threshold {UNIT_THRESHOLD}"
    if chip.neurons == "fixed":
        return f"{chip.name} has fixed neurons and no product; each unit can be {lif}, which fires where both of its inputs spike"
    return f"each unit is a neuron of {chip.name}, with a microcode of its own or {lif}"
