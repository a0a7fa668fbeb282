"""Graphs that are not ours, quantised: integers as deploy reads them, Loihi's equations on these, the rewriting before, and refusals."""

import copy
import json

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from mksgn.export import export_to_nir
from mksgn.export.errors import ExportError, RangeError, UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.weights import weight_of
from mksgn.export.loihi import HALF_STEP, accumulation_factor
from mksgn.export.quantization.paths import branches, canonicalize_paths
from mksgn.export.quantization.quantize import quantize
from mksgn.export.reference.execute import execute
from tests.support import loihi_oracle
from tests.support.graphs import DT, affine, attention, chain, conv, flatten, graph, inp, lif, linear, out, pool
from tests.support.random_networks import random_networks
from tests.support.students import calibration, tiny

QUICK = settings(
    derandomize=True, deadline=None, database=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
IF_DT = 1.0


def spikes(rng, *shape, rate=0.5) -> np.ndarray:
    return (rng.random(shape) < rate).astype(np.float32)


# --- neurons of Loihi's own decays, so that nothing is rounded but by its truncation -----------------------------------------


def tau(rng, shape, dyadic: bool) -> np.ndarray:
    """dt / tau is a whole number of 4096ths."""
    of_4096 = 2 ** rng.integers(9, 12, shape) if dyadic else rng.integers(300, 3800, shape)
    return f32(DT * 4096 / of_4096)


def neuron(rng, kind: str, *shape: int, dyadic: bool = False) -> nir.NIRNode:
    """Parameters of its own for each neuron."""

    def per_neuron(low, high):
        return f32(rng.uniform(low, high, shape))

    if kind == "IF":
        return nir.IF(per_neuron(0.5, 2), per_neuron(0.8, 2))
    r, leak, threshold, reset = per_neuron(0.5, 2), per_neuron(-0.2, 0.2), per_neuron(0.3, 0.7), f32(np.zeros(shape))
    if kind == "LIF":
        return nir.LIF(tau(rng, shape, dyadic), r, leak, threshold, reset)
    taus = tau(rng, shape, dyadic), tau(rng, shape, dyadic)
    return nir.CubaLIF(*taus, r, leak, threshold, reset, per_neuron(0.5, 2))


def network(rng, kind: str, dyadic: bool = False) -> nir.NIRGraph:
    """A first layer behind a convolution, a delayed recurrent second one, and a skip through a Scale; no bias into a CubaLIF."""
    bias = rng.uniform(-0.2, 0.2, 3) * (kind != "CubaLIF")
    wide = (3, 2, 4)
    return graph(
        {
            "x": inp(2, 4, 4), "conv": conv(rng.normal(size=(3, 2, 3, 1)), bias), "first": neuron(rng, kind, *wide, dyadic=dyadic),
            "flat": flatten(*wide, start=0), "fc": linear(rng.normal(size=(5, 24)) / 2), "second": neuron(rng, kind, 5, dyadic=dyadic),
            "late": nir.Delay(f32(rng.integers(0, 3, 5) * DT)), "back": linear(rng.normal(size=(5, 5)) / 2),
            "scale": nir.Scale(f32(rng.normal(size=5))), "third": neuron(rng, kind, 5, dyadic=dyadic), "y": out(5),
        },
        [
            ("x", "conv"), ("conv", "first"), ("first", "flat"), ("flat", "fc"), ("fc", "second"), ("second", "late"), ("late", "back"),
            ("back", "second"), ("second", "scale"), ("scale", "third"), ("second", "third"), ("third", "y"),
        ],
    )  # fmt: skip


def gain_and_rate(node) -> tuple[np.ndarray, np.ndarray]:
    """The contract's gain, and the rate of the membrane; float64 of float32 quotients, as every execution has them."""

    def rate(tau):
        return (np.float32(DT) / tau).astype(float)

    if isinstance(node, nir.IF | nir.I):
        return IF_DT * node.r.astype(float), np.zeros(node.r.shape)
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        return rate(node.tau_mem) * node.r * rate(node.tau_syn) * node.w_in, rate(node.tau_mem)
    return rate(node.tau) * node.r, rate(node.tau)


def in_units(quantised: nir.NIRGraph) -> nir.NIRGraph:
    """In integers, as loihi_oracle reads them: weights / unit, gains of 1, thresholds without their half. Checks the contract."""
    g = copy.deepcopy(quantised)
    for name, scale in json.loads(quantised.metadata["quantization"])["populations"].items():
        node, unit = g.nodes[name], 2.0 ** scale["exponent"]
        biases = 0.0
        for branch in branches(quantised, name):
            weighted = g.nodes[branch.weighted]
            weight = weight_of(weighted) / unit
            np.testing.assert_array_equal(weight % 2, 0)
            assert np.abs(weight).max() <= 254
            setattr(weighted, "scale" if isinstance(weighted, nir.Scale) else "weight", weight)
            if hasattr(weighted, "bias"):
                weighted.bias = weighted.bias.astype(float) / unit
                np.testing.assert_array_equal(weighted.bias % 1, 0)
                biases += np.abs(weighted.bias).max()
        gain, rate = gain_and_rate(node)
        assert biases <= 8190
        if hasattr(node, "v_leak"):
            node.v_leak = node.v_leak / gain / unit
            drive = node.v_leak * rate
            np.testing.assert_allclose(drive, np.rint(drive), rtol=1e-6, atol=1e-3)
            node.r = 1 / rate
        else:
            node.r = np.full(node.r.shape, 1 / DT)
        if hasattr(node, "w_in"):
            node.w_in = node.tau_syn.astype(float) / DT
        if not hasattr(node, "v_threshold"):
            continue
        threshold = node.v_threshold / gain / unit
        node.v_threshold = np.rint(threshold - HALF_STEP)
        assert node.v_threshold.min() >= 1
        assert node.v_threshold.max() <= 131_071
        above = threshold - node.v_threshold
        assert np.all((above > 0) & (above < 2.5 * HALF_STEP))
    return g


@pytest.mark.parametrize("kind", ["LIF", "IF", "CubaLIF"])
@given(seed=st.integers(0, 10**6), steps=st.sampled_from([3, 12]), bits=st.sampled_from([4, 8]))
@QUICK
def test_loihi_s_equations_on_the_file_s_integers(kind, seed, steps, bits):
    """The oracle asserts that everything is an integer, and that neither current nor membrane leaves its 24 bits."""
    rng = np.random.default_rng(seed)
    g = network(rng, kind)
    quantised, found = quantize(g, bits, spikes(rng, 6, steps, 2, 4, 4), steps, DT, IF_DT)
    x = spikes(rng, 2, steps, 2, 4, 4)
    run = execute(quantised, x, steps, DT, stepwise=True, if_dt=IF_DT)
    integers = in_units(quantised)
    different = total = 0
    for sample in range(2):
        wanted = loihi_oracle.execute(integers, x[sample], DT)
        for name in ("first", "second", "third"):
            different += int((run.spikes[name][:, sample] != wanted[name]).sum())
            total += wanted[name].size
    assert different <= total * (0 if kind == "IF" else 0.01)  # a leak is cut to sub-units, and the decision with it
    assert set(found) == {"first", "second", "third"}
    assert all(found[name].agreement > (0.8 if bits == 4 else 0.95) for name in found)


@pytest.mark.parametrize("kind", ["LIF", "IF"])
def test_where_nothing_is_cut_the_chip_decides_as_float32(kind):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        g = network(rng, kind, dyadic=True)
        for node in g.nodes.values():
            if hasattr(node, "r"):
                node.r = np.ones_like(node.r)
        quantised, _ = quantize(g, 8, spikes(rng, 4, 3, 2, 4, 4), 3, DT, IF_DT)
        assert json.loads(quantised.metadata["quantization"])["exact_on_chip"]
        x = spikes(rng, 1, 3, 2, 4, 4)
        run = execute(quantised, x, 3, DT, stepwise=True, if_dt=IF_DT)
        wanted = loihi_oracle.execute(in_units(quantised), x[0], DT)
        for name in ("first", "second", "third"):
            np.testing.assert_array_equal(run.spikes[name][:, 0], wanted[name])


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
    quantised, found = quantize(g, 8, spikes(rng, 2, steps, 50), steps, DT, IF_DT)
    if sign < 0:
        assert found["n"].binding == "worst membrane"
    loihi_oracle.execute(in_units(quantised), np.ones((steps, 50)), DT)


def test_pile_up_is_the_sum_of_equal_inputs():
    for rate, synaptic in ((0.5, 1.0), (0.0, 1.0), (0.25, 0.5), (0.0, 0.125)):
        u = v = 0.0
        for _ in range(9):
            u = u * (1 - synaptic) + 1
            v = v * (1 - rate) + u
        assert accumulation_factor(9, rate, synaptic) == pytest.approx(v)


@given(
    random_networks(without={"threshold", "reset", "leak", "i", "li", "cubali", "last_axis", "scale", "delay_behind"})
)
@settings(derandomize=True, deadline=None, database=None, max_examples=12, suppress_health_check=list(HealthCheck))
def test_populations_of_random_networks_agree_as_calibration_says(net):
    steps = next(iter(net.inputs.values())).shape[1]
    try:
        quantised, found = quantize(net.graph, 8, net.inputs, steps, net.dt, net.if_dt)
    except UnsupportedNodeError:
        reject()
    run = execute(net.graph, net.inputs, steps, net.dt, stepwise=True, if_dt=net.if_dt)
    again = execute(quantised, net.inputs, steps, net.dt, stepwise=True, if_dt=net.if_dt)
    assert set(again.spikes) == set(run.spikes)
    # only of what inputs alone feed: the others see spikes that quantising changed
    for name in found:
        if name in quantised.nodes and name in run.spikes:
            sources = {branch.source for branch in branches(quantised, name)}
            if all(isinstance(quantised.nodes[s], nir.Input) for s in sources):
                same = (again.spikes[name] == run.spikes[name]).mean()
                assert same == pytest.approx(found[name].agreement, abs=0.02)


# --- what a population keeps -------------------------------------------------------------------------------------------------


def test_agreement_is_that_of_the_population_with_its_float_recurrence():
    """One recurrent population: its currents are those of the float run, a step late, and its decays its own."""
    rng = np.random.default_rng(1)
    g = graph(
        {"x": inp(6), "w": linear(rng.normal(size=(8, 6))), "n": neuron(rng, "CubaLIF", 8),
         "back": linear(rng.normal(size=(8, 8))), "y": out(8)},
        [("x", "w"), ("w", "n"), ("n", "back"), ("back", "n"), ("n", "y")],
    )  # fmt: skip
    x = spikes(rng, 20, 10, 6)
    quantised, found = quantize(g, 3, x, 10, DT)
    wanted = execute(g, x, 10, DT, stepwise=True).spikes["n"]
    node, (w, back) = quantised.nodes["n"], (quantised.nodes[n].weight for n in ("w", "back"))
    u, v, equal = np.zeros((20, 8)), np.zeros((20, 8)), 0
    for t in range(10):
        s = wanted[t - 1].astype(float) if t else np.zeros((20, 8))
        u += DT / node.tau_syn * (node.w_in * (x[:, t] @ w.T + s @ back.T) - u)
        v += DT / node.tau_mem * (node.v_leak - v + node.r * u)
        fired = v > node.v_threshold
        equal += (fired == wanted[t]).sum()
        v[fired] = 0
    assert found["n"].agreement == pytest.approx(equal / wanted.size, abs=1e-3)
    assert 0.7 < found["n"].agreement < 1
    assert 0.05 < found["n"].firing_rate < 0.95


def test_biases_of_different_layouts_add_up():
    """Per channel and flattened, per row, and v_leak: integers each, and in 13 bits with the exponent in all."""
    rng = np.random.default_rng(0)
    g = graph(
        {"x": inp(3, 3), "rows": affine(rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3)) / 2), "f": flatten(3, 3, start=0),
         "x2": inp(4), "fc": affine(rng.normal(size=(9, 4)), rng.normal(size=9) / 2),
         "n": lif(9, threshold=0.4, leak=0.1, reset=0.0), "y": out(9)},
        [("x", "rows"), ("rows", "f"), ("f", "n"), ("x2", "fc"), ("fc", "n"), ("n", "y")],
    )  # fmt: skip
    x = {"x": spikes(rng, 20, 5, 3, 3), "x2": spikes(rng, 20, 5, 4)}
    for bias in (1, 40):  # the second needs the exponent 7
        for name in ("rows", "fc"):
            g.nodes[name].bias = g.nodes[name].bias * np.float32(bias)
        quantised, found = quantize(g, 8, x, 5, DT)
        integers, node = in_units(quantised), quantised.nodes["n"]
        drive = np.rint(integers.nodes["n"].v_leak * (DT / node.tau))
        total = integers.nodes["rows"].bias.ravel() + integers.nodes["fc"].bias + drive
        assert np.abs(total).max() <= (4095 if bias == 1 else 8190)
        assert bias == 1 or (np.abs(total).max() > 4095 and not np.any(total % 2))
        runs = [execute(h, x, 5, DT, stepwise=True).spikes["n"] for h in (g, quantised)]
        assert (runs[0] == runs[1]).mean() == pytest.approx(found["n"].agreement, abs=1e-3)
        assert found["n"].agreement > 0.97


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
    quantised, found = quantize(g, 8, x, 5, DT)
    stepwise = {"p": np.repeat(x["p"][:, None], 5, 1), "q": x["q"]}
    runs = [execute(h, stepwise, 5, DT, stepwise=True).spikes["n"] for h in (g, quantised)]
    assert (runs[0] == runs[1]).mean() == pytest.approx(found["n"].agreement)
    for wrong, message in (
        (x["p"], r"the graph has 2 inputs \(p, q\); give a dict of arrays by their names"),
        ({"p": x["p"]}, "calibration of p: the graph's inputs are p, q"),
        ({"p": x["p"], "q": x["q"][:, :4]}, r"calibration of q has shape \(9, 4, 4\)"),
        ({"p": x["p"][:3], "q": x["q"]}, "the inputs differ in their number of samples"),
    ):
        with pytest.raises(ExportError, match=message):
            quantize(g, 8, wrong, 5, DT)


@pytest.mark.parametrize("kind", ["LI", "I", "CubaLI"])
def test_graded_readouts_keep_their_units(kind):
    rng = np.random.default_rng(0)
    spiking = neuron(rng, "CubaLIF", 3)
    readout = {
        "LI": nir.LI(spiking.tau_mem, spiking.r, spiking.v_leak),
        "I": nir.I(spiking.r),
        "CubaLI": nir.CubaLI(spiking.tau_syn, spiking.tau_mem, spiking.r, spiking.v_leak, spiking.w_in),
    }[kind]
    g = chain(
        ("x", inp(6)), ("w", linear(rng.normal(size=(8, 6)))), ("n", lif(8, threshold=0.2)), ("v", linear(rng.normal(size=(3, 8)))),
        ("shown", readout), ("y", out(3)),
    )  # fmt: skip
    x = spikes(rng, 4, 8, 6)
    quantised, found = quantize(g, 8, x, 8, DT, IF_DT)
    in_units(quantised)
    assert found["shown"].scale == 2.0 ** -found["shown"].exponent
    assert found["shown"].agreement is None
    a, b = (execute(h, x, 8, DT, stepwise=True, if_dt=IF_DT) for h in (g, quantised))
    assert (a.spikes["n"] == b.spikes["n"]).all(2).mean() > 0.9  # where no spike differs, the membranes are near
    same = (a.spikes["n"] == b.spikes["n"]).all((0, 2))
    assert same.any()
    np.testing.assert_allclose(
        a.outputs["y"][:, same], b.outputs["y"][:, same], atol=0.02 * np.abs(a.outputs["y"]).max()
    )


def test_an_analog_input_is_the_host_s():
    """Known by the file, or by its values; thresholds behind it stay as they are, and lie before synapses."""
    rng = np.random.default_rng(0)
    g = graph(
        {"x": inp(4), "w": linear(rng.normal(size=(5, 4))), "t": nir.Threshold(f32(np.full(5, 0.3))), "v": linear(rng.normal(size=(3, 5))),
         "n": lif(3, threshold=0.3), "y": out(3)},
        [("x", "w"), ("w", "t"), ("t", "v"), ("v", "n"), ("n", "y")],
    )  # fmt: skip
    quantised, found = quantize(g, 8, rng.normal(size=(4, 3, 4)), 3, DT)
    assert set(found) == {"n"}
    np.testing.assert_array_equal(quantised.nodes["w"].weight, g.nodes["w"].weight)
    with pytest.raises(UnsupportedNodeError, match="node t: a Threshold has no memory"):
        quantize(g, 8, spikes(rng, 4, 3, 4), 3, DT)
    g.nodes["x"].metadata = {"signal": "spikes"}
    with pytest.raises(ExportError, match="input x: the file says spikes, calibration has other values"):
        quantize(g, 8, rng.normal(size=(4, 3, 4)), 3, DT)


# --- the rewriting ----------------------------------------------------------------------------------------------------------


def same_network(g: nir.NIRGraph, *shape: int) -> nir.NIRGraph:
    """The rewritten graph, after comparing what both do with generic values."""
    rewritten = canonicalize_paths(g)
    x = np.random.default_rng(0).normal(size=(3, 4, *shape)).astype(np.float32)
    a, b = (execute(h, x, 4, DT, stepwise=True) for h in (g, rewritten))
    for name, shown in a.outputs.items():
        np.testing.assert_allclose(b.outputs[name], shown, rtol=1e-4, atol=1e-5)
    assert any(shown.any() for shown in a.outputs.values())
    for name, train in a.spikes.items():
        np.testing.assert_array_equal(b.spikes[name], train)
    return rewritten


def ends(g: nir.NIRGraph, target: str) -> list[tuple[str, str]]:
    return [(branch.source, branch.weighted) for branch in branches(g, target)]


def test_students_are_not_rewritten():
    model, _ = tiny()
    g = export_to_nir(model)
    assert canonicalize_paths(g) is g
    quantised = export_to_nir(model, quantize=8, calibration=calibration(model, 2))
    assert list(quantised.nodes) == list(g.nodes)
    assert quantised.edges == g.edges


def test_edges_without_weights_get_synapses():
    rng = np.random.default_rng(0)
    g = graph(
        {"x": inp(2, 4, 4), "a": lif(2, 4, 4, threshold=0.2), "p": pool((2, 2)), "b": lif(2, 2, 2, threshold=0.7),
         "d": nir.Delay(f32(np.full((2, 2, 2), DT))), "y": out(2, 2, 2)},
        [("x", "a"), ("a", "p"), ("p", "b"), ("b", "d"), ("d", "b"), ("b", "y")],
    )  # fmt: skip
    rewritten = same_network(g, 2, 4, 4)
    assert ends(rewritten, "a") == [("x", "x_a_synapse")]
    assert sorted(ends(rewritten, "b")) == [("a", "a_b_synapse"), ("b", "b_b_synapse")]
    assert (rewritten.nodes["a_b_synapse"].scale == 1).all()
    quantised, found = quantize(g, 8, spikes(rng, 3, 6, 2, 4, 4), 6, DT)
    assert set(found) == {"a", "b"}
    assert quantised.nodes["a_b_synapse"].scale.shape == (2, 2, 2)


def test_an_average_is_a_sum_with_lighter_weights():
    rng = np.random.default_rng(0)
    average = nir.AvgPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    nodes = {
        "x": inp(2, 4, 4), "c": conv(rng.normal(size=(3, 2, 1, 1))), "p": average, "n": lif(3, 2, 2, threshold=0.1),
        "q": copy.deepcopy(average), "k": conv(rng.normal(size=(2, 3, 1, 1)), [0.3, -0.1]), "y": out(2, 1, 1),
    }  # fmt: skip
    g = chain(*nodes.items())
    rewritten = same_network(g, 2, 4, 4)
    assert isinstance(rewritten.nodes["p"], nir.SumPool2d)
    assert isinstance(rewritten.nodes["q"], nir.SumPool2d)
    np.testing.assert_allclose(rewritten.nodes["c"].weight, g.nodes["c"].weight / 4)
    np.testing.assert_allclose(rewritten.nodes["k"].weight, g.nodes["k"].weight / 4)
    np.testing.assert_allclose(rewritten.nodes["k"].bias, g.nodes["k"].bias)  # behind its pool
    quantize(g, 8, spikes(rng, 3, 2, 4, 4), 4, DT)


def test_a_node_that_several_need_is_copied_for_each():
    rng = np.random.default_rng(0)
    nodes = {
        "x": inp(2, 4, 4), "w": conv(rng.normal(size=(3, 2, 1, 1)), [0.2, 0.1, 0]), "f": flatten(3, 4, 4, start=0),
        "a": lif(3, 4, 4, threshold=0.3), "b": lif(48, threshold=0.2), "c": lif(48, threshold=0.1), "y": out(48), "z": out(3, 4, 4),
    }  # fmt: skip
    edges = [("x", "w"), ("w", "a"), ("w", "f"), ("f", "b"), ("f", "c"), ("b", "y"), ("c", "y"), ("a", "z")]
    g = graph(nodes, edges)
    rewritten = same_network(g, 2, 4, 4)
    for target in "abc":
        assert ends(rewritten, target) == [("x", f"w_{target}")]
    assert "w" not in rewritten.nodes
    assert {"f_b", "f_c"} <= set(rewritten.nodes)
    assert "w" in g.nodes
    quantised, found = quantize(g, 8, spikes(rng, 3, 4, 2, 4, 4), 4, DT)
    assert all(scale.agreement > 0.97 for scale in found.values() if scale.agreement is not None)
    in_units(graph(quantised.nodes, quantised.edges, quantization=json.dumps(
        {"populations": {n: {"exponent": found[n].exponent} for n in "abc"}})))  # fmt: skip


def test_where_ways_join_each_gets_its_own_node_and_the_bias_counts_once():
    rng = np.random.default_rng(0)
    nodes = {"x": inp(4), "w": linear(rng.normal(size=(4, 4))), "a": lif(4, threshold=0.2), "b": lif(4, threshold=0.1), "y": out(3),
             "join": affine(rng.normal(size=(3, 4)), [0.2, 0.1, -0.1]), "n": lif(3, threshold=0.2)}  # fmt: skip
    edges = [("x", "w"), ("w", "a"), ("w", "b"), ("a", "join"), ("b", "join"), ("join", "n"), ("n", "y")]
    rewritten = same_network(graph(nodes, edges), 4)
    assert [source for source, _ in ends(rewritten, "n")] == ["a", "b"]
    quantised, found = quantize(graph(nodes, edges), 8, spikes(rng, 5, 4), 4, DT)
    in_units(quantised)
    assert found["n"].agreement > 0.95


def scaled_pairs() -> dict:
    rng = np.random.default_rng(0)
    channel = np.broadcast_to(rng.uniform(0.5, 2, (4, 1, 1)), (4, 3, 3))
    per_neuron = rng.uniform(0.5, 2, (4, 3, 3))
    grouped = conv(rng.normal(size=(4, 2, 1, 1)), rng.normal(size=4), groups=2)
    dense = affine(rng.normal(size=(3, 3)), rng.normal(size=3))
    return {
        "scale, scale": (nir.Scale(f32(per_neuron)), nir.Scale(f32(per_neuron[::-1]))),
        "conv, scale": (grouped, nir.Scale(f32(channel))),
        "scale, conv": (nir.Scale(f32(channel)), grouped),
        "affine, scale of each neuron": (dense, nir.Scale(f32(per_neuron))),
        "scale of each neuron, affine": (nir.Scale(f32(per_neuron)), dense),
        "affine, linear": (dense, linear(rng.normal(size=(3, 3)))),
        "linear, affine": (linear(rng.normal(size=(3, 3))), dense),
        "one factor, pool, conv": (nir.Scale(f32(np.full((4, 3, 3), 0.5))), pool((1, 1)), grouped),
        "conv, pool, one factor": (grouped, pool((1, 1)), nir.Scale(f32(np.full((4, 3, 3), -0.5)))),
    }


@pytest.mark.parametrize("pair", scaled_pairs())
def test_simple_pairs_become_one_node(pair):
    middle = [(f"m{i}", node) for i, node in enumerate(scaled_pairs()[pair])]
    g = chain(("x", inp(4, 3, 3)), *middle, ("n", lif(4, 3, 3, threshold=0.1)), ("y", out(4, 3, 3)))
    rewritten = same_network(g, 4, 3, 3)
    assert len(ends(rewritten, "n")) == 1


def test_conv1d_and_batches_of_matrices():
    rng = np.random.default_rng(0)
    g = chain(
        ("x", inp(2, 8)), ("c", nir.Conv1d(8, f32(rng.normal(size=(3, 2, 3))), 1, "same", 1, 1, f32([0.1, 0, 0.2]))),
        ("a", lif(3, 8, threshold=0.3)), ("m", affine(rng.normal(size=(3, 4, 8)) / 2, rng.normal(size=(3, 4)) / 9)),
        ("b", lif(3, 4, threshold=0.3)), ("y", out(3, 4)),
    )  # fmt: skip
    quantised, found = quantize(g, 8, spikes(rng, 6, 5, 2, 8), 5, DT)
    assert all(scale.agreement > 0.97 for scale in found.values())
    x = spikes(rng, 3, 5, 2, 8)
    run = execute(quantised, x, 5, DT, stepwise=True)
    half = {
        name: np.rint(quantised.nodes[name].v_threshold * 2 / 2.0 ** found[name].exponent - HALF_STEP) for name in "ab"
    }
    assert all(h.min() > 1 for h in half.values())
    assert 0.05 < run.spikes["b"].mean() < 0.95


# --- refusals ---------------------------------------------------------------------------------------------------------------


def refused(nodes: dict, edges, error=UnsupportedNodeError, *, x=None, message: str) -> None:
    shape = tuple(nodes["x"].input_type["input"])
    x = np.ones((2, *shape), dtype=np.float32) if x is None else x
    with pytest.raises(error, match=message):
        quantize(graph(nodes, edges), 8, x, 4, DT)


def populated(node: nir.NIRNode, weight=None) -> tuple[dict, list]:
    nodes = {"x": inp(2), "w": linear(np.eye(2)) if weight is None else weight, "n": node, "y": out(2)}
    return nodes, [("x", "w"), ("w", "n"), ("n", "y")]


def cuba(**changes) -> nir.CubaLIF:
    values = {
        "tau_syn": 2 * DT,
        "tau_mem": 2 * DT,
        "r": 1,
        "v_leak": 0,
        "v_threshold": 1,
        "v_reset": 0,
        "w_in": 1,
        **changes,
    }
    return nir.CubaLIF(**{name: f32(np.full(2, value)) for name, value in values.items()})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (lif(2, reset=0.25), r"node n: v_reset \(0.25\) is not 0"),
        (lif(2, r=-1), r"node n: r or w_in is not positive \(-0.5\)"),
        (cuba(w_in=-2), "node n: r or w_in is not positive"),
        (lif(2, threshold=0), r"node n: v_threshold \(0\) must lie above 0"),
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
    quantize(graph(nodes, edges), 8, np.ones((2, 2), dtype=np.float32), 4, DT)


def test_a_bias_that_loihi_s_membrane_cannot_get():
    refused(
        *populated(cuba(), affine(np.eye(2), [0, 0.5])), message="node w: its bias enters the synaptic current of n"
    )
    nodes, edges = populated(lif(2))
    nodes |= {"back": affine(np.eye(2), [0.5, 0.5])}
    refused(
        nodes, [*edges, ("n", "back"), ("back", "n")], message="node back: its bias reaches n through a delay or a loop"
    )
    nodes = {**populated(lif(2))[0], "w": affine(np.eye(2), [0.5, 0.5]), "d": nir.Delay(f32([DT, DT]))}
    refused(
        nodes, [("x", "w"), ("w", "d"), ("d", "n"), ("n", "y")], message="node w: its bias reaches n through a delay"
    )


def test_a_membrane_into_synapses():
    nodes, edges = populated(nir.LI(f32([2 * DT] * 2), f32([1, 1]), f32([0, 0])))
    nodes |= {"v": linear(np.eye(2)), "m": lif(2)}
    refused(
        nodes,
        [*edges[:2], ("n", "v"), ("v", "m"), ("m", "y")],
        message=r"node n: LI shows its membrane, .*\(here into m\)",
    )
    refused(
        nodes, [*edges[:2], ("n", "y"), ("n", "v"), ("v", "m"), ("m", "y")], message="node n: LI shows its membrane"
    )


def test_analog_and_spikes_in_one_population():
    nodes, edges = populated(lif(2))
    nodes |= {"back": linear(np.eye(2))}
    x = np.full((2, 2), 0.3, dtype=np.float32)
    refused(
        nodes,
        [*edges, ("n", "back"), ("back", "n")],
        x=x,
        message="node n: the analog input x and the spikes of n meet",
    )


def test_series_and_idle_nodes():
    nodes = {
        "x": inp(2, 1, 3),
        "c": conv(np.ones((2, 2, 1, 1))),
        "joints": linear(np.eye(3)),
        "n": lif(2, 1, 3),
        "y": out(2, 1, 3),
    }
    edges = [("x", "c"), ("c", "joints"), ("joints", "n"), ("n", "y")]
    refused(nodes, edges, message="nodes c and joints: two weighted nodes in series")
    uneven = nir.Scale(f32(np.arange(6).reshape(2, 1, 3)))
    refused({**nodes, "joints": uneven}, edges, message="nodes c and joints: two weighted nodes in series")
    idle = {**populated(lif(2))[0], "idle": linear(np.eye(2))}
    refused(idle, [*populated(lif(2))[1], ("n", "idle")], message="node idle: leads to no population and no output")
    refused(idle, [("idle", "n"), ("n", "y"), ("x", "w"), ("w", "n")], message="node idle: no edge leads into it")


def test_attention_behind_no_population():
    a = attention(1)
    nodes = {"x": inp(3, 1, 2), "a": a, "w": conv(np.ones((1, 1, 1, 1))), "n": lif(1, 1, 2), "y": out(1, 1, 2)}
    refused(
        nodes, [("x", "a"), ("a", "w"), ("w", "n"), ("n", "y")], message="node a: attention must follow one population"
    )
