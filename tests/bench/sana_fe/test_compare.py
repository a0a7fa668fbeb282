"""SANA-FE itself on the files that deploy writes: the same spikes, counts and routes, and the time that docs/sana-fe.md
gives. It runs in this Python, or in the one that MKSGN_SANA_FE names.
"""

import importlib.util
import os
import sys

import numpy as np
import pytest

from mksgn.bench.energy_models import model_named
from mksgn.bench.sana_fe.__main__ import simulated
from mksgn.bench.sana_fe.compare import TIMING_MODEL, compare
from mksgn.bench.sana_fe.results import read_results
from mksgn.bench.timing_models import known_timing_models
from mksgn.deploy import compile_graph, run
from mksgn.deploy.benchmark.networks import conv_chain
from mksgn.deploy.sana_fe.network import SYNAPSE_UNITS, placed, write_network
from tests.support.programs import residual_chain


@pytest.fixture(scope="module")
def python() -> str:
    named = os.environ.get("MKSGN_SANA_FE")
    if named is None and importlib.util.find_spec("sanafe") is None:
        pytest.skip("sanafe is not installed: pip install 'mksgn[sana-fe]', or MKSGN_SANA_FE=PYTHON that has it")
    return named or sys.executable


def assert_same_prices_and_latencies(results):
    """The models that are named after SANA-FE have the numbers of its loihi.yaml."""
    soma, tile, out = (results.prices[unit] for unit in ("loihi_lif", "tile", "loihi_out"))
    timing = next(model for model in known_timing_models() if model.name == TIMING_MODEL)
    assert {name: 1e-9 * x for name, x in timing.latencies_ns.by_event().items()} == pytest.approx(
        {
            "messages_in": results.prices["loihi_in"]["latency_message_in"],
            **{kind: results.prices[unit]["latency_process_spike"] for kind, unit in SYNAPSE_UNITS.items()},
            "accesses": soma["latency_access_neuron"],
            "updates": soma["latency_update_neuron"],
            "spikes": soma["latency_spike_out"],
            "messages_out": out["latency_message_out"],
        }
    )
    assert 1e-9 * timing.latencies_ns.hop.east_west == pytest.approx(tile["latency_east_hop"])
    assert 1e-9 * timing.latencies_ns.hop.north_south == pytest.approx(tile["latency_north_hop"])
    assert {tiles: 1e-6 * x for tiles, x in timing.barrier_us.items()} == pytest.approx(results.sync)
    prices = model_named("sana-fe-loihi").prices_pJ
    kinds = prices.synaptic_op.model_dump()
    assert {kind: 1e-12 * x for kind, x in kinds.items()} == pytest.approx(
        {kind: results.prices[unit]["energy_process_spike"] for kind, unit in SYNAPSE_UNITS.items()}
    )
    spiking = soma["energy_access_neuron"] + soma["energy_update_neuron"] + soma["energy_spike_out"]
    assert 1e-12 * prices.neuron_update == pytest.approx(soma["energy_access_neuron"])
    assert 1e-12 * prices.neuron_update_active == pytest.approx(spiking)
    assert 1e-12 * prices.spike_message == pytest.approx(out["energy_message_out"])
    assert 1e-12 * prices.spike_hops["east_west"] == pytest.approx(tile["energy_east_hop"])
    assert 1e-12 * prices.spike_hops["north_south"] == pytest.approx(tile["energy_north_hop"])


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
    ours, theirs, accessed = found.updates
    assert ours < theirs <= accessed  # SANA-FE also updates a neuron whose membrane alone is not 0
    on_theirs = found.step_us["the lower bound on SANA-FE's counts"]
    np.testing.assert_allclose(on_theirs, 1e6 * simple.time, rtol=2e-6)  # SANA-FE prints seven digits
    assert (found.step_us["mksgn, lower bound"] <= on_theirs * (1 + 1e-9)).all()
    assert_same_prices_and_latencies(simple)
    detailed = read_results(simulated(network, python, "detailed"))
    assert (detailed.time >= simple.time * (1 - 1e-6)).all()
