"""mksgn/deploy/passes/bias_neurons: weights of 8 bits that add up to any even bias, and where their neurons stand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from mksgn.deploy import compile_graph, run
from mksgn.deploy.passes.bias_neurons import bias_neurons
from mksgn.deploy.placement.check import check, notes
from mksgn.deploy.placement.chips import LOIHI1, LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.deploy.program.program import Population, Program
from tests.deploy.test_cases import biased_currents
from tests.support.graphs import SETTINGS


@SETTINGS
@given(
    st_numpy.array_shapes(max_dims=3, max_side=4).flatmap(
        lambda shape: st_numpy.arrays(np.int64, shape, elements=st.integers(-1000, 1000).map(lambda n: 2 * n))
    )
)
def test_the_weights_of_a_neuron_add_up_to_its_bias(bias):
    target = Population("n", bias.shape, "spiking")
    program = Program("fixed", 1e-4, 4, (target,), (), ())
    source, synapses = bias_neurons([p.name for p in program.populations], target, bias)
    weight = synapses.operators[0].weight
    np.testing.assert_array_equal(weight.sum(-1), bias)
    assert np.abs(weight).max() <= 254
    assert not (weight % 2).any()
    assert source.shape == (*bias.shape[:-1], max(1, -(-int(np.abs(bias).max()) // 254)))
    assert synapses.operators[0].out_shape(source.shape) == bias.shape


def test_the_name_is_free():
    target, other = Population("n", (2,), "spiking"), Population("n.bias", (2,), "spiking")
    source, synapses = bias_neurons([other.name, target.name], target, np.array([2]))
    assert (source.name, synapses.source) == ("n.bias_", "n.bias_")


def test_they_are_counted_placed_and_named():
    g = biased_currents(0)
    x = np.random.default_rng(0).random((3, 5, 6)) < 0.4
    program = compile_graph(g, calibration=x)
    execution = run(program, x)
    drivers = [p for p in program.neurons if p.name.endswith(".bias")]
    assert [p.name for p in drivers] == ["n.bias"]  # m has no bias
    (driver,) = drivers
    counters = execution.counters["n.bias"]
    assert counters.spikes == counters.updates == 3 * 5 * driver.size
    assert execution.spikes["n.bias"].all()
    synapses = sum(int(program.fan_outs(q)[0].sum()) for q in program.projections if q.sources == ("n.bias",))
    assert synapses == driver.size * 8
    without = int(x.sum()) * 8
    back = execution.spikes["n"][:, :-1].sum() * 8  # the last step's spikes come too late
    assert execution.counters["n"].syn_ops == without + back + 3 * 5 * synapses
    for chip in (LOIHI1, LOIHI2):
        placement = place(program, chip)
        assert check(placement, chip) == []
        assert "n.bias" in [p.name for p in placement.populations]
        assert any(note.startswith(f"n.bias: {driver.size} neuron") for note in notes(placement, chip))


@pytest.mark.slow
def test_stock_processes_fire_them_too():
    pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    from mksgn.deploy.lava.stock import execute as stock

    x = np.random.default_rng(0).random((3, 5, 6)) < 0.4
    program = compile_graph(biased_currents(0), calibration=x)
    expected = run(program, x).spikes
    found = stock.execute(program, {"x": x}).spikes
    for name, train in expected.items():
        assert int((found[name] != train).sum()) == 0, name
