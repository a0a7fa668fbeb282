"""A program as text, for people and for diffs: one line per population, projection and output.

The order is the program's own. Arrays are given by shape and range, so that a line changes where a
pass changes a number.
"""

from collections.abc import Iterator
from dataclasses import MISSING, fields

import numpy as np

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import Neuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program


def text(program: Program) -> str:
    """Return the textual form; the same program gives the same text."""
    return "\n".join(_lines(program)) + "\n"


def _lines(program: Program) -> Iterator[str]:
    steps = "" if program.steps is None else f", {program.steps} steps"
    yield f"program: {program.precision}, dt {program.dt:.6g} s{steps}, latency {program.latency}"
    for population in program.populations:
        yield _population(program, population)
    for projection in program.projections:
        yield _projection(projection)
    for output in program.outputs:
        yield f"output {output.name}: {output.population}"


def _population(program: Program, population: Population) -> str:
    parts = [_shape(population.shape), f"on {population.location}"]
    if population.kind == "input":
        parts.insert(1, "currents" if population.name in program.analog else "spikes")
    else:
        parts.insert(0, population.kind)
        parts.append(f"group {population.group}")
    parts.append(f"depth {population.depth}")
    if population.neuron is not None:
        parts += _neuron(population.neuron)
    if population.bias is not None:
        parts.append(f"bias {value_range(population.bias)}")
    if population.kind != "input":
        parts.append(f"unit {value_range(population.unit)}")
    parts += [f"bias from step {first} on {value_range(bias)}" for first, bias in population.late_biases]
    return f"{'input' if population.kind == 'input' else 'population'} {population.name}: {', '.join(parts)}"


def _neuron(neuron: Neuron) -> list[str]:
    """List the parameters that differ from their defaults."""
    values = {f.name: getattr(neuron, f.name) for f in fields(neuron)}
    return [f"{name} {value_range(x)}" for name, x in values.items() if x is not None and np.isfinite(x).all()]


def _projection(projection: AnyProjection) -> str:
    if isinstance(projection, Product):
        weights = [np.array(projection.weight)]
        parts = [f"product {projection.part} of {projection.heads} heads"]
    else:
        weights = ops.weights(projection.operators)
        parts = [_operator(operator) for operator in projection.operators] or ["identity"]
    parts += [f"{w.size} weight{'s' * (w.size > 1)} {value_range(w)}" for w in weights]
    parts.append(f"logical delay {projection.logical_delay}")
    parts.append(f"compensation delay {', '.join(map(str, projection.compensation_delays))}")
    return f"projection {projection.name}: {', '.join(projection.sources)} → {projection.target}: {', '.join(parts)}"


def _operator(operator: ops.Operator) -> str:
    """Return the kind, the shape of the weights, and the parameters that differ from their defaults."""
    parts = [operator.kind]
    for f in fields(operator):
        value = getattr(operator, f.name)
        if isinstance(value, np.ndarray):
            parts += [_shape(value.shape)] if f.name in ("weight", "passes") else []
        elif f.default is MISSING or value != f.default:
            parts.append(f"{f.name} {_shape(value) if isinstance(value, tuple) else value}")
    return " ".join(parts)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def value_range(x: object) -> str:
    """Return the smallest and the largest value as text."""
    values = np.asarray(x, dtype=np.float64)
    low, high = f"{values.min():.6g}", f"{values.max():.6g}"
    return low if low == high else f"{low} … {high}"
