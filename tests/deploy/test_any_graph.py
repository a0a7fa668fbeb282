"""Any NIR graph through deploy in float: every spike and every output of the equations, as an
oracle that shares no code has them.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from mksgn.deploy import compile_graph, run
from tests.support.euler_oracle import execute
from tests.support.random_networks import Network, random_networks
from tests.support.tiers import examples

RANDOM = settings(
    phases=[Phase.generate],
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=examples(150),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def agree(network: Network, backend: str) -> None:
    expected_spikes, expected_outputs, _ = execute(network.graph, network.inputs, network.dt, network.if_dt)
    program = compile_graph(network.graph, precision="float", dt=network.dt, if_dt=network.if_dt)
    execution = run(program, network.inputs, backend=backend)
    assert set(execution.spikes) == set(expected_spikes)
    for name, expected in expected_spikes.items():
        actual = execution.spikes[name]
        assert actual.shape == expected.shape
        assert int((actual != expected).sum()) == 0, f"{name}: first at {np.argwhere(actual != expected)[0]}"
    assert set(execution.outputs) == set(expected_outputs)
    for name, expected in expected_outputs.items():
        scale = max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(execution.outputs[name], expected, rtol=1e-5, atol=1e-5 * scale, err_msg=name)


@RANDOM
@given(random_networks())
def test_the_emulator_integrates_any_graph_as_the_equations_do(network):
    agree(network, "emulator")


@pytest.mark.slow
@settings(RANDOM, max_examples=examples(12))
@given(random_networks())
def test_lava_integrates_any_graph_as_the_equations_do(network):
    pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    agree(network, "lava")
