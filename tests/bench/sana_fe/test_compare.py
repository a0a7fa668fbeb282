"""SANA-FE itself on the files that deploy writes: the same spikes, counts and routes, and the time that docs/sana-fe.md
gives. It runs in this Python, or in the one that MKSGN_SANA_FE names.
"""

import importlib.util
import os
import sys

import numpy as np
import pytest

from mksgn.bench.sana_fe.__main__ import simulated
from mksgn.bench.sana_fe.compare import compare
from mksgn.bench.sana_fe.results import read_results
from mksgn.deploy import compile_graph, run
from mksgn.deploy.benchmark.networks import conv_chain
from mksgn.deploy.sana_fe.network import placed, write_network
from tests.support.programs import residual_chain


@pytest.fixture(scope="module")
def python() -> str:
    named = os.environ.get("MKSGN_SANA_FE")
    if named is None and importlib.util.find_spec("sanafe") is None:
        pytest.skip("sanafe is not installed: pip install 'mksgn[sana-fe]', or MKSGN_SANA_FE=PYTHON that has it")
    return named or sys.executable


# the second has biases, a skip that is delayed, and a read-out
@pytest.mark.parametrize("graph", [conv_chain(2, 8, 10, 9, 3), residual_chain()], ids=["convolutions", "skip"])
def test_sana_fe_fires_and_counts_as_the_emulator_does(graph, python, tmp_path):
    program = compile_graph(graph)
    shape = program.inputs[0].shape
    inputs = {program.inputs[0].name: np.random.default_rng(2).random((1, 4, *shape)) < 0.3}
    execution = run(program, inputs)
    (network,) = write_network(program, inputs, execution, tmp_path)
    simple = read_results(simulated(network, python, "simple"))
    found = compare(placed(program), inputs, execution, simple)
    assert sum(row.ours.spikes for row in found.rows) > 0
    for row in found.rows:
        assert row.differing == 0, row
        assert row.ours == row.sana_fe, row
    for unit, (low, high) in found.ours.items():
        assert low * (1 - 1e-6) <= found.window[unit] <= high * (1 + 1e-6), unit
    np.testing.assert_allclose(found.busiest, simple.time, rtol=2e-6)  # SANA-FE prints seven digits
    detailed = read_results(simulated(network, python, "detailed"))
    assert (detailed.time >= simple.time * (1 - 1e-6)).all()
