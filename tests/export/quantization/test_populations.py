"""mksgn/export/quantization/populations: Loihi's equations on the integers, and neurons that Loihi does not have."""

import json

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from mksgn.deploy import compile_graph
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.export.errors import RangeError, UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.loihi import HALF_STEP
from mksgn.export.quantization.paths import weighted_paths
from mksgn.export.quantization.quantize import quantize
from mksgn.export.reference.execute import execute
from tests.export.quantization.networks import (
    IF_DT,
    cuba,
    gain_and_rate,
    in_units,
    network,
    neuron,
    populated,
    refused,
    spikes,
)
from tests.support import loihi_oracle
from tests.support.graphs import DT, affine, chain, graph, inp, lif, linear, out
from tests.support.random_networks import random_networks
from tests.support.tiers import examples

QUICK = settings(
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
@given(seed=st.integers(0, 10**6), steps=st.sampled_from([3, 12]), bits=st.sampled_from([4, 8]))
@QUICK
def test_loihi_s_equations_on_the_file_s_integers(kind, seed, steps, bits):
    """The oracle asserts that everything is an integer, and that neither current nor membrane leaves its 24 bits."""
    rng = np.random.default_rng(seed)
    g = network(rng, kind)
    quantised, scales = quantize(g, bits, spikes(rng, 6, steps, 2, 4, 4), steps, DT, IF_DT)
    x = spikes(rng, 2, steps, 2, 4, 4)
    run = execute(quantised, x, steps, DT, stepwise=True, if_dt=IF_DT)
    integers = in_units(quantised)
    different = total = 0
    for sample in range(2):
        expected = loihi_oracle.execute(integers, x[sample], DT)
        for name in ("first", "second", "third"):
            different += int((run.spikes[name][:, sample] != expected[name]).sum())
            total += expected[name].size
    assert different <= total * (0 if kind == "IF" else 0.01)  # a leak is cut to sub-units, and the decision with it
    assert set(scales) == {"first", "second", "third"}
    assert all(scales[name].agreement > (0.8 if bits == 4 else 0.95) for name in scales)


@pytest.mark.parametrize("kind", ["LIF", "IF"])
def test_where_nothing_is_cut_the_chip_decides_as_float32(kind):
    for seed in range(examples(20)):
        rng = np.random.default_rng(seed)
        g = network(rng, kind, dyadic=True)
        for node in g.nodes.values():
            if hasattr(node, "r"):
                node.r = np.ones_like(node.r)
        quantised, _ = quantize(g, 8, spikes(rng, 4, 3, 2, 4, 4), 3, DT, IF_DT)
        assert json.loads(quantised.metadata["quantization"])["exact_on_chip"]
        x = spikes(rng, 1, 3, 2, 4, 4)
        run = execute(quantised, x, 3, DT, stepwise=True, if_dt=IF_DT)
        expected = loihi_oracle.execute(in_units(quantised), x[0], DT)
        for name in ("first", "second", "third"):
            np.testing.assert_array_equal(run.spikes[name][:, 0], expected[name])


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
def test_the_worst_input_of_a_long_clip_stays_in_the_membrane(kind, sign):
    """Slow decays pile up: the bound binds the scale, and nothing is refused."""
    rng, steps = np.random.default_rng(0), 60
    node = neuron(rng, kind, 4)
    for name in ("tau", "tau_mem", "tau_syn"):
        if hasattr(node, name):
            setattr(node, name, f32(np.full(4, DT * 4096 / 3)))
    node.v_threshold = f32((100 if sign < 0 else 1) * gain_and_rate(node)[0])
    g = chain(("x", inp(50)), ("w", linear(sign * rng.uniform(0.5, 1, (4, 50)))), ("n", node), ("y", out(4)))
    quantised, scales = quantize(g, 8, spikes(rng, 2, steps, 50), steps, DT, IF_DT)
    if sign < 0:
        assert scales["n"].binding == "worst membrane"
    loihi_oracle.execute(in_units(quantised), np.ones((steps, 50)), DT)


@given(
    random_networks(without={"threshold", "reset", "leak", "i", "li", "cubali", "last_axis", "scale", "delay_behind"})
)
@settings(
    derandomize=True, deadline=None, database=None, max_examples=examples(12), suppress_health_check=list(HealthCheck)
)
def test_populations_of_random_networks_agree_as_calibration_says(net):
    steps = next(iter(net.inputs.values())).shape[1]
    try:
        quantised, scales = quantize(net.graph, 8, net.inputs, steps, net.dt, net.if_dt)
    except UnsupportedNodeError:
        reject()
    run = execute(net.graph, net.inputs, steps, net.dt, stepwise=True, if_dt=net.if_dt)
    again = execute(quantised, net.inputs, steps, net.dt, stepwise=True, if_dt=net.if_dt)
    assert set(again.spikes) == set(run.spikes)
    # only of what inputs alone feed: the others see spikes that quantising changed
    for name in scales:
        if name in quantised.nodes and name in run.spikes:
            sources = {path.source for path in weighted_paths(quantised, name)}
            if all(isinstance(quantised.nodes[s], nir.Input) for s in sources):
                same = (again.spikes[name] == run.spikes[name]).mean()
                assert same == pytest.approx(scales[name].agreement, abs=0.02)


def test_conv1d_and_batches_of_matrices():
    rng = np.random.default_rng(0)
    g = chain(
        ("x", inp(2, 8)), ("c", nir.Conv1d(8, f32(rng.normal(size=(3, 2, 3))), 1, "same", 1, 1, f32([0.1, 0, 0.2]))),
        ("a", lif(3, 8, threshold=0.3)), ("m", affine(rng.normal(size=(3, 4, 8)) / 2, rng.normal(size=(3, 4)) / 9)),
        ("b", lif(3, 4, threshold=0.3)), ("y", out(3, 4)),
    )  # fmt: skip
    quantised, scales = quantize(g, 8, spikes(rng, 6, 5, 2, 8), 5, DT)
    assert all(scale.agreement > 0.97 for scale in scales.values())
    x = spikes(rng, 3, 5, 2, 8)
    run = execute(quantised, x, 5, DT, stepwise=True)
    half = {
        name: np.rint(quantised.nodes[name].v_threshold * 2 / 2.0 ** scales[name].exponent - HALF_STEP) for name in "ab"
    }
    assert all(h.min() > 1 for h in half.values())
    assert 0.05 < run.spikes["b"].mean() < 0.95


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (lif(2, r=-1), r"node n: r or w_in is not positive \(-0.5\)"),
        (cuba(w_in=-2), "node n: r or w_in is not positive"),
        (lif(2, threshold=0), "node n: v_threshold must be above v_reset; v_threshold - v_reset is 0"),
        (
            lif(2, threshold=0.25, reset=0.5),
            "node n: v_threshold must be above v_reset; v_threshold - v_reset is -0.25",
        ),
        (nir.Threshold(f32([0.5, 0.5])), "node n: a Threshold has no memory"),
    ],
)
def test_neurons_that_loihi_does_not_have(node, message):
    refused(*populated(node), message=message)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (lif(2, tau=DT), r"n: decay dv = 4096 dt/tau \(4096\)"),
        (lif(2, tau=1e4 * DT), r"n: decay dv = 4096 dt/tau \(0\)"),
        (cuba(tau_mem=DT), "n: decay dv"),
        (cuba(tau_syn=1e4 * DT), r"n: decay du = 4096 dt/tau_syn - 1 \(-1\)"),
        (cuba(tau_syn=DT / 2), r"n: decay du = 4096 dt/tau_syn - 1 \(8191\)"),
    ],
)
def test_decays_beyond_12_bits(node, message):
    refused(*populated(node), RangeError, message=message)


def test_a_synapse_without_memory_has_du_4095():
    nodes, edges = populated(cuba(tau_syn=DT))
    quantised, _ = quantize(graph(nodes, edges), 8, np.ones((2, 2), dtype=np.float32), 4, DT)
    neuron = compile_graph(quantised)["n"].neuron
    assert isinstance(neuron, FixedNeuron)
    assert (neuron.du, neuron.dv) == (4095, 2048)
