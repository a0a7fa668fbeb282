"""Invariants of a program, which the compiler checks after each pass.

An invariant is a generator of violations: it yields one line for each, and nothing for a sound
program. The checks read shapes, names and weights; they run no operator.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from mksgn.deploy.errors import DeployError, PassError
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program
from mksgn.export.graph.blocks import blocks_of_rows
from mksgn.export.loihi import (
    BIAS_EXPONENT_LIMIT,
    BIAS_MANTISSA_LIMIT,
    DECAY_BITS,
    MEMBRANE_MAX,
    THRESHOLD_LIMIT,
    WEIGHT_LEAST,
    WEIGHT_LIMIT,
)

Invariant = Callable[[Program], Iterator[str]]


def verify(program: Program, after: str, invariants: Iterable[Invariant] = ()) -> None:
    """Check the invariants of every program, then `invariants`.

    Raises:
        PassError: the first violation, and the pass `after` which it was found.
    """
    for invariant in (names_resolve, shapes_fit, sources_come_first, *invariants):
        for violation in invariant(program):
            raise PassError(f"after pass {after}: {violation}; this is a defect of the compiler, please report it")


def names_resolve(program: Program) -> Iterator[str]:
    """Names of populations and outputs are unique, and every end of a projection or output exists."""
    populations = {p.name: p for p in program.populations}
    for what, names in (
        ("population", [p.name for p in program.populations]),
        ("output", [o.name for o in program.outputs]),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                yield f"{what} {name} exists {count} times"
    for q in program.projections:
        for end in (*q.sources, q.target):
            if end not in populations:
                yield f"projection {q.name}: there is no population {end}"
        if q.target in populations and populations[q.target].kind == "input":
            yield f"projection {q.name}: leads into the input {q.target}"
    for output in program.outputs:
        if output.population not in populations:
            yield f"output {output.name}: there is no population {output.population}"
    for name in program.analog:
        if name not in populations or populations[name].kind != "input":
            yield f"analog input {name} is not an input"


def shapes_fit(program: Program) -> Iterator[str]:
    """Operators turn the shape of their source into that of their target."""
    for q in program.projections:
        target = program[q.target].shape
        try:
            shape = _out_shape(program, q)
        except DeployError as error:
            yield f"projection {q.name}: {error}"
            continue
        if shape != target:
            yield f"projection {q.name}: operators give {shape}, its target {q.target} has {target}"


def _out_shape(program: Program, q: AnyProjection) -> ops.Shape:
    source = program[q.sources[-1]].shape
    if not isinstance(q, Product):
        return ops.out_shape(q.operators, source)
    channels, frames, joints = source
    return (q.heads, frames, joints, joints) if q.part == "m" else (channels // 3, frames, joints)


def sources_come_first(program: Program) -> Iterator[str]:
    """Populations are in the order of evaluation, except for what arrives at a later step."""
    position = {p.name: i for i, p in enumerate(program.populations)}
    for q in program.projections:
        for source in q.sources:
            if position[source] >= position[q.target] and not q.logical_delay:
                yield f"projection {q.name}: {q.target} is evaluated before its source {source}"


def groups_are_joined(program: Program) -> Iterator[str]:
    """Members of an execution group are neighbours, and projections between groups lead forward."""
    runs = [group for group, _ in itertools.groupby(p.group for p in program.populations)]
    for group, count in Counter(runs).items():
        if count > 1:
            yield f"execution group {group} is not contiguous"
    position = {group: i for i, group in enumerate(runs)}
    for q in program.projections:
        for source in q.sources:
            if position[program[source].group] > position[program[q.target].group]:
                yield (
                    f"projection {q.name}: leads back from {source} to {q.target}, which is in another execution group"
                )


def integers_fit(program: Program) -> Iterator[str]:
    """Weights and neurons of the chip are integers of Loihi's widths."""
    for q in program.projections:
        if program[q.target].location == "host":
            continue
        for weight in [np.array([q.weight])] if isinstance(q, Product) else ops.weights(q.operators):
            if (
                weight.min(initial=0) < WEIGHT_LEAST
                or weight.max(initial=0) > WEIGHT_LIMIT
                or any((np.rint(half) != half).any() for half in (weight[r] * 0.5 for r in blocks_of_rows(weight)))
            ):
                yield f"projection {q.name}: weights are not even integers up to {WEIGHT_LIMIT}"
    for p in program.populations:
        if p.location == "chip" and p.kind in ("spiking", "graded"):
            yield from _neuron_fits(p)


def _neuron_fits(population: Population) -> Iterator[str]:
    neuron = population.neuron
    if not isinstance(neuron, FixedNeuron):
        yield f"population {population.name}: its neuron is not in fixed point"
        return
    decay = 1 << DECAY_BITS
    for name, values, low, high in (
        ("dv", neuron.dv, 0, decay - 1),
        ("du", neuron.du, 0, decay - 1),
        ("threshold", neuron.vth, 0, THRESHOLD_LIMIT),
        ("bias mantissa", neuron.bias_mant, -BIAS_MANTISSA_LIMIT, BIAS_MANTISSA_LIMIT),
        ("bias exponent", neuron.bias_exp, 0, BIAS_EXPONENT_LIMIT),
        ("subtract", neuron.subtract, 0, MEMBRANE_MAX),
        ("subtract_next", neuron.subtract_next, 0, MEMBRANE_MAX),
        ("initial", neuron.initial, -MEMBRANE_MAX, MEMBRANE_MAX),
    ):
        x = np.asarray(0 if values is None else values)
        if x.dtype.kind not in "iu" or x.min() < low or x.max() > high:
            yield f"population {population.name}: {name} is outside {low} … {high}, or not an integer"


def delays_compensate(program: Program) -> Iterator[str]:
    """Spikes arrive at the step of the sample at which the network itself asks for them."""
    for q in program.projections:
        for index, source in enumerate(q.sources):
            if program.arrival_delay(q, index) != q.logical_delay:
                yield f"projection {q.name}: spikes of {source} arrive at another step"
            elif q.compensation_delays[index] < 0:
                yield f"projection {q.name}: the compensation delay of {source} is negative"
