"""mksgn/export/quantization/calibration: what the float run feeds each population, and how well integers repeat it."""

import nir
import numpy as np
import pytest

from mksgn.export.errors import ExportError, UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.quantization.quantize import quantize
from mksgn.export.reference.execute import execute
from tests.export.quantization.networks import network, neuron, spikes
from tests.support.graphs import DT, graph, inp, lif, linear, out


def test_agreement_is_that_of_the_population_with_its_float_recurrence():
    """One recurrent population: its currents are those of the float run, a step late, and its decays its own."""
    rng = np.random.default_rng(1)
    g = graph(
        {"x": inp(6), "w": linear(rng.normal(size=(8, 6))), "n": neuron(rng, "CubaLIF", 8),
         "back": linear(rng.normal(size=(8, 8))), "y": out(8)},
        [("x", "w"), ("w", "n"), ("n", "back"), ("back", "n"), ("n", "y")],
    )  # fmt: skip
    x = spikes(rng, 20, 10, 6)
    quantised, scales = quantize(g, 3, x, 10, DT)
    expected = execute(g, x, 10, DT, stepwise=True).spikes["n"]
    node, (w, back) = quantised.nodes["n"], (quantised.nodes[n].weight for n in ("w", "back"))
    u, v, equal = np.zeros((20, 8)), np.zeros((20, 8)), 0
    for t in range(10):
        s = expected[t - 1].astype(float) if t else np.zeros((20, 8))
        u += DT / node.tau_syn * (node.w_in * (x[:, t] @ w.T + s @ back.T) - u)
        v += DT / node.tau_mem * (node.v_leak - v + node.r * u)
        fired = v > node.v_threshold
        equal += (fired == expected[t]).sum()
        v[fired] = 0
    assert scales["n"].agreement == pytest.approx(equal / expected.size, abs=1e-3)
    assert 0.7 < scales["n"].agreement < 1
    assert 0.05 < scales["n"].firing_rate < 0.95


def test_constant_and_stepwise_calibration_say_the_same():
    rng = np.random.default_rng(0)
    g, x = network(rng, "LIF"), spikes(rng, 5, 2, 4, 4)
    (a, _), (b, _) = quantize(g, 8, x, 6, DT), quantize(g, 8, {"x": np.repeat(x[:, None], 6, 1)}, 6, DT)
    assert a.metadata == b.metadata
    np.testing.assert_array_equal(a.nodes["second"].v_threshold, b.nodes["second"].v_threshold)


def test_two_inputs_one_constant_one_stepwise():
    rng = np.random.default_rng(0)
    g = graph(
        {"p": inp(3), "q": inp(4), "a": linear(rng.normal(size=(5, 3))), "b": linear(rng.normal(size=(5, 4))),
         "n": lif(5, threshold=0.3), "y": out(5)},
        [("p", "a"), ("q", "b"), ("a", "n"), ("b", "n"), ("n", "y")],
    )  # fmt: skip
    x = {"p": spikes(rng, 9, 3), "q": spikes(rng, 9, 5, 4)}
    quantised, scales = quantize(g, 8, x, 5, DT)
    stepwise = {"p": np.repeat(x["p"][:, None], 5, 1), "q": x["q"]}
    runs = [execute(h, stepwise, 5, DT, stepwise=True).spikes["n"] for h in (g, quantised)]
    assert (runs[0] == runs[1]).mean() == pytest.approx(scales["n"].agreement)
    for wrong, message in (
        (x["p"], r"the graph has 2 inputs \(p, q\); give a dict of arrays by their names"),
        ({"p": x["p"]}, "calibration of p: the graph's inputs are p, q"),
        ({"p": x["p"], "q": x["q"][:, :4]}, r"calibration of q has shape \(9, 4, 4\)"),
        ({"p": x["p"][:3], "q": x["q"]}, "the inputs differ in their number of samples"),
    ):
        with pytest.raises(ExportError, match=message):
            quantize(g, 8, wrong, 5, DT)


def test_an_analog_input_is_the_host_s():
    """Known by the file, or by its values; thresholds after it stay as they are, and lie before synapses."""
    rng = np.random.default_rng(0)
    g = graph(
        {"x": inp(4), "w": linear(rng.normal(size=(5, 4))), "t": nir.Threshold(f32(np.full(5, 0.3))),
        "v": linear(rng.normal(size=(3, 5))),
         "n": lif(3, threshold=0.3), "y": out(3)},
        [("x", "w"), ("w", "t"), ("t", "v"), ("v", "n"), ("n", "y")],
    )  # fmt: skip
    quantised, scales = quantize(g, 8, rng.normal(size=(4, 3, 4)), 3, DT)
    assert set(scales) == {"n"}
    np.testing.assert_array_equal(quantised.nodes["w"].weight, g.nodes["w"].weight)
    with pytest.raises(UnsupportedNodeError, match="node t: a Threshold has no memory"):
        quantize(g, 8, spikes(rng, 4, 3, 4), 3, DT)
    g.nodes["x"].metadata = {"signal": "spikes"}
    with pytest.raises(
        ExportError, match="input x: the file says spikes, and calibration has values other than 0 and 1"
    ):
        quantize(g, 8, rng.normal(size=(4, 3, 4)), 3, DT)
