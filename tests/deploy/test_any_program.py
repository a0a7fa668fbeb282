"""Random quantised graphs in fixed point: the emulator, fused Lava and stock Lava give the same
spikes, outputs and counts.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from mksgn.deploy import Execution, Program, compile_graph, run
from tests.deploy.test_any_graph import RANDOM
from tests.support.random_programs import random_programs, stock_compatible_programs
from tests.support.tiers import examples

pytest.importorskip("lava", reason="lava-nc is not installed: make setup")

from mksgn.deploy.lava.stock import execute as stock


def compiled(network) -> Program:
    return compile_graph(network.graph, dt=network.dt, if_dt=network.if_dt)


def same_spikes(expected: Execution, actual: Execution) -> None:
    assert set(actual.spikes) == set(expected.spikes)
    for name, train in expected.spikes.items():
        assert int((actual.spikes[name] != train).sum()) == 0, f"{name}: {np.argwhere(actual.spikes[name] != train)[0]}"
    for name, values in expected.outputs.items():
        np.testing.assert_array_equal(actual.outputs[name], values, err_msg=name)


def same_counts(expected: Execution, actual: Execution) -> None:
    for name, counters in expected.counters.items():
        for field in dataclasses.fields(counters):
            a, b = (getattr(c, field.name) for c in (counters, actual.counters[name]))
            np.testing.assert_array_equal(b, a, err_msg=f"{name}.{field.name}")


@settings(RANDOM, max_examples=examples(15, 3))
@given(random_programs())
def test_fused_lava_equals_the_emulator(network):
    program = compiled(network)
    expected, actual = run(program, network.inputs), run(program, network.inputs, backend="lava")
    same_spikes(expected, actual)
    same_counts(expected, actual)


@pytest.mark.slow
@settings(RANDOM, max_examples=examples(10))
@given(stock_compatible_programs())
def test_stock_lava_equals_the_emulator(network):
    program = compiled(network)
    same_spikes(run(program, network.inputs), stock.execute(program, network.inputs))
