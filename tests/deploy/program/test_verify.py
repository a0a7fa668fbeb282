"""mksgn/deploy/program/verify: each invariant finds the program that breaks it, and names where."""

import re
from dataclasses import replace

import numpy as np
import pytest

from mksgn.deploy import compile_graph
from mksgn.deploy.errors import PassError
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Output, Program
from mksgn.deploy.program.verify import (
    delays_compensate,
    groups_are_joined,
    integers_fit,
    names_resolve,
    shapes_fit,
    sources_come_first,
    verify,
)
from tests.support.graphs import quantised_student_like
from tests.support.programs import recurrent_loop, residual_chain

ALL = (names_resolve, shapes_fit, sources_come_first, groups_are_joined, integers_fit, delays_compensate)


def loop() -> Program:
    return compile_graph(recurrent_loop())


def attention() -> Program:
    return compile_graph(quantised_student_like(np.random.default_rng(0))[1])


def projection(program: Program, name: str, **changes) -> Program:
    return replace(
        program, projections=tuple(replace(q, **changes) if q.name == name else q for q in program.projections)
    )


def population(program: Program, name: str, **changes) -> Program:
    return program.with_populations({name: replace(program[name], **changes)})


def neuron(program: Program, name: str, **changes) -> Program:
    return population(program, name, neuron=replace(program[name].neuron, **changes))


def order(program: Program, *names: str) -> Program:
    return replace(program, populations=tuple(program[name] for name in names))


def dense(*shape: int, value: float = 2.0) -> tuple[ops.Operator, ...]:
    return (ops.Dense(np.full(shape, value, np.float32)),)


@pytest.mark.parametrize("program", [loop, attention, lambda: compile_graph(residual_chain())])
def test_compiled_programs_hold_all_invariants(program):
    compiled = program()
    assert [violation for invariant in ALL for violation in invariant(compiled)] == []


@pytest.mark.parametrize(
    ("invariant", "broken", "message"),
    [
        (names_resolve, lambda: order(loop(), "x", "a", "b", "c", "c"), "population c exists 2 times"),
        (names_resolve, lambda: projection(loop(), "forth", target="z"), "projection forth: there is no population z"),
        (names_resolve, lambda: projection(loop(), "forth", target="x"), "projection forth: leads into the input x"),
        (names_resolve, lambda: replace(loop(), outputs=(Output("y", "z"),)), "output y: there is no population z"),
        (names_resolve, lambda: replace(loop(), analog=frozenset({"a"})), "analog input a is not an input"),
        (shapes_fit, lambda: projection(loop(), "forth", operators=dense(3, 4)),
         r"operators give \(3,\), its target b has \(2,\)"),
        (shapes_fit, lambda: projection(loop(), "forth", operators=dense(2, 5)), "projection forth: .* takes"),
        (shapes_fit, lambda: projection(attention(), "attend.qk", heads=3), "projection attend.qk: operators give"),
        (sources_come_first, lambda: projection(loop(), "back", logical_delay=0), "a is evaluated before its source b"),
        (groups_are_joined, lambda: order(loop(), "x", "a", "c", "b"), "execution group a is not contiguous"),
        (groups_are_joined, lambda: order(loop(), "x", "c", "a", "b"), "projection out: leads back from b to c"),
        (integers_fit, lambda: projection(loop(), "forth", operators=dense(2, 4, value=3)),
         "weights are not even integers"),
        (integers_fit, lambda: projection(loop(), "forth", operators=dense(2, 4, value=256)),
         "even integers up to 254"),
        (integers_fit, lambda: projection(attention(), "attend.qk", weight=1.0), "projection attend.qk: weights"),
        (integers_fit, lambda: neuron(loop(), "b", dv=4096), r"population b: dv is outside 0 … 4095"),
        (integers_fit, lambda: neuron(loop(), "b", subtract=np.array([-1])),
         r"population b: subtract is outside 0 … 8388607"),
        (integers_fit, lambda: neuron(loop(), "b", initial=np.array([0.5])),
         r"population b: initial is outside -8388607 … 8388607, or not an integer"),
        (integers_fit, lambda: neuron(loop(), "b", vth=np.array([0.5])),
         "population b: threshold is outside 0 … 131071, or not an integer"),
        (integers_fit, lambda: compile_graph(recurrent_loop(), precision="float"), "its neuron is not in fixed point"),
        (delays_compensate, lambda: projection(loop(), "skip", compensation_delay=0),
         "spikes of x arrive at another step"),
        (delays_compensate, lambda: population(loop(), "c", depth=3),
         "projection out: spikes of b arrive at another step"),
    ],
)  # fmt: skip
def test_a_violation_is_named(invariant, broken, message):
    assert re.search(message, "\n".join(invariant(broken())))


def test_the_first_violation_is_an_error_that_names_the_pass():
    with pytest.raises(PassError, match=r"^after pass loops: output y: there is no population z; this is a defect"):
        verify(replace(loop(), outputs=(Output("y", "z"),)), "loops")
    with pytest.raises(PassError, match=r"^after pass balance: projection skip: spikes of x arrive at another step"):
        verify(projection(loop(), "skip", compensation_delay=0), "balance", (delays_compensate,))
