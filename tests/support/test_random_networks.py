"""The generators of random networks, and the Euler oracle by hand, against torch and against Loihi's integers."""

import copy
import json

import nir
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from mksgn.export.graph.nodes import SpikingSelfAttention
from tests.support import euler_oracle, loihi_oracle, network_builder, random_programs
from tests.support import graphs as net
from tests.support.graphs import graph
from tests.support.random_networks import random_networks
from tests.support.random_programs import stock_compatible_programs
from tests.support.tiers import examples

F32 = np.float32


def draws(strategy, number: int) -> list:
    networks = []

    @settings(
        derandomize=True, deadline=None, database=None, max_examples=number, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def collect(network):
        networks.append(network)

    collect()
    return networks


@pytest.fixture(scope="module")
def networks():
    return draws(random_networks(), examples(100))


@pytest.fixture(scope="module")
def programs():
    return draws(random_programs.random_programs(), examples(80))


@pytest.fixture(scope="module")
def stock():
    return draws(stock_compatible_programs(), examples(60))


def executed(network):
    return euler_oracle.execute(network.graph, network.inputs, network.dt, network.if_dt)


def quantization(network) -> dict:
    return json.loads(network.graph.metadata["quantization"])


# --- generators -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["networks", "programs", "stock"])
def test_populations_really_fire(kind, request):
    rates = np.array([train.mean() for n in request.getfixturevalue(kind) for train in executed(n)[0].values()])
    assert (rates > 0).all()
    assert ((rates >= 0.05) & (rates <= 0.6)).mean() > 0.9


with_their_features = pytest.mark.parametrize(
    ("kind", "features"),
    [("networks", network_builder.FEATURES), ("programs", random_programs.FEATURES), ("stock", random_programs.STOCK)],
)


def features_of(networks) -> set[str]:
    return set().union(*(network.features for network in networks))


@with_their_features
def test_no_other_feature_appears(kind, features, request):
    assert not features_of(request.getfixturevalue(kind)) - features


@pytest.mark.slow  # it takes all the draws
@with_their_features
def test_each_feature_appears(kind, features, request):
    assert not features - features_of(request.getfixturevalue(kind))


@pytest.mark.parametrize("kind", ["networks", "programs", "stock"])
def test_shapes_are_small(kind, request):
    for network in request.getfixturevalue(kind):
        spikes, outputs, _ = executed(network)
        clips, steps = next(iter(network.inputs.values())).shape[:2]
        assert 1 <= clips <= 3
        assert 3 <= steps <= 8
        assert network.graph.metadata["steps"] == steps
        assert outputs
        assert all(train[0, 0].size <= network_builder.MOST for train in spikes.values())


def test_no_decision_is_a_tie(networks):
    assert min(m.min() for n in networks for m in executed(n)[2].values()) >= network_builder.Builder.clear


def test_rounding_changes_no_decision(networks):
    for n in networks:
        spikes, outputs, _ = executed(n)
        finer = euler_oracle.execute(n.graph, n.inputs, n.dt, n.if_dt, np.float64)
        for name, train in spikes.items():
            assert int((train != finer[0][name]).sum()) == 0
        for name, values in outputs.items():
            np.testing.assert_allclose(values, finer[1][name], rtol=1e-4, atol=1e-4 * max(1, np.abs(values).max()))


@pytest.mark.parametrize("kind", ["networks", "programs"])
def test_survives_a_file(kind, request, tmp_path):
    """Writing sorts the nodes by name; nothing may depend on their order."""
    for number, network in enumerate(request.getfixturevalue(kind)[::4]):
        path = tmp_path / f"{number}.nir"
        nir.write(path, network.graph)
        again = nir.read(path, type_check=False)
        spikes, outputs, _ = executed(network)
        spikes_again, outputs_again, _ = euler_oracle.execute(again, network.inputs, network.dt, network.if_dt)
        assert spikes_again.keys() == spikes.keys()
        assert all((spikes_again[name] == train).all() for name, train in spikes.items())
        assert all((outputs_again[name] == values).all() for name, values in outputs.items())


def test_without_leaves_features_out():
    without = ("attention", "nested", "delay", "delay_behind", "delay_loop", "i", "li", "cubali")
    assert not set(without) & {f for n in draws(random_networks(without=without), examples(20)) for f in n.features}


# --- the contract of quantised networks -----------------------------------------------------------


def linear_paths(graph, name) -> list:
    """Return (weighted node, whether a Delay delays it, area of pools after it) of each path into a node."""
    paths, new = [], [(a, False, 1) for a, b in graph.edges if b == name]
    while new:
        source, delayed, area = new.pop()
        node = graph.nodes[source]
        if hasattr(node, "weight"):
            paths.append((node, delayed, area))
        elif isinstance(node, nir.Delay | nir.SumPool2d | nir.Flatten):
            size = int(np.prod(node.kernel_size)) if isinstance(node, nir.SumPool2d) else 1
            new += [(a, delayed or isinstance(node, nir.Delay), area * size) for a, b in graph.edges if b == source]
    return paths


def whole(values, unit) -> np.ndarray:
    """Return `values` / `unit`, which must be exact integers."""
    integers = np.asarray(values, np.float64) / unit
    assert (integers == np.rint(integers)).all()
    return integers


@pytest.mark.parametrize("kind", ["programs", "stock"])
def test_numbers_are_a_quantised_files(kind, request):
    for network in request.getfixturevalue(kind):
        g, keys = network.graph, quantization(network)["populations"]
        assert g.metadata["dt"] == network.dt
        named = set()
        for name, node in g.nodes.items():
            if isinstance(node, SpikingSelfAttention):
                for part in "mz":
                    named.add(f"{name}.{part}")
                    unit = 2.0 ** keys[f"{name}.{part}"]["exponent"]
                    gains = whole(getattr(node, f"gain_{part}"), unit)
                    assert (gains % 2 == 0).all()
                    assert len(set(gains)) == 1
                    assert 0 < gains[0] <= 254
                    rate = np.float64(F32(network.dt) / F32(node.tau))
                    check_thresholds(getattr(node, f"threshold_{part}"), rate * unit)
                continue
            weighted = linear_paths(g, name)
            readout = isinstance(node, nir.Output) and weighted
            if not readout and not isinstance(node, nir.LIF | nir.IF | nir.CubaLIF | nir.LI):
                continue
            key = next(a for a, b in g.edges if b == name) if readout else name
            named.add(key)
            unit, biases = 2.0 ** keys[key]["exponent"], 0
            assert weighted
            for w, delayed, area in weighted:
                weights, bias = whole(w.weight, unit), whole(getattr(w, "bias", 0.0), unit)
                assert (weights % 2 == 0).all()
                assert np.abs(weights).max() <= 254
                assert not (delayed and bias.any())
                assert not (isinstance(node, nir.CubaLIF) and bias.any())
                biases += np.abs(bias).max() * area
                if hasattr(w, "adjacency"):
                    assert ((w.adjacency == 0) | (w.adjacency == 1)).all()
                    assert (w.adjacency.sum((1, 2)) <= 1).all()
            assert biases <= 4095
            if hasattr(node, "v_threshold"):
                assert not node.v_reset.any()
                assert not getattr(node, "v_leak", np.zeros(1)).any()
                check_thresholds(node.v_threshold, random_programs.step_gain(node, network.dt, network.if_dt) * unit)
        assert named == set(keys)


def check_thresholds(thresholds, gains) -> None:
    integers = np.asarray(thresholds, np.float64) / gains - 1 / 128
    assert np.abs(integers - np.rint(integers)).max() < 1 / 256
    assert np.rint(integers).min() >= 1
    assert np.rint(integers).max() <= 131071


def test_stock_programs_have_one_parameter_per_population(stock):
    for n in stock:
        for node in n.graph.nodes.values():
            assert not isinstance(node, (*euler_oracle.GRADED, nir.IF, nir.CubaLIF))
            if isinstance(node, nir.LIF):
                assert all(len(np.unique(getattr(node, p))) == 1 for p in ("tau", "r", "v_threshold"))
            if isinstance(node, SpikingSelfAttention):
                assert all(len(np.unique(getattr(node, p))) == 1 for p in ("threshold_m", "threshold_z"))


def in_units(network) -> nir.NIRGraph:
    """Return the graph for loihi_oracle: units and gains of 1, thresholds without their 1/128, nodes sorted by name."""
    g = copy.deepcopy(network.graph)
    for name, part in quantization(network)["populations"].items():
        unit, node = 2.0 ** part["exponent"], g.nodes[name]
        target = name
        if hasattr(node, "v_threshold"):
            gain = random_programs.step_gain(node, network.dt, network.if_dt)
            node.v_threshold = np.floor(node.v_threshold / (gain * unit))
            node.r = np.ones(node.r.shape)
            for field in {"tau", "tau_mem", "tau_syn"} & set(vars(node)):
                decay = np.rint(4096 * np.float64(F32(network.dt) / getattr(node, field)))
                setattr(node, field, network.dt * 4096 / decay)
                node.r = node.r * 4096 / decay
            node.r = node.r / getattr(node, "w_in", network.dt if isinstance(node, nir.IF) else 1)
        else:  # a weighted node before an Output
            target = next(b for a, b in g.edges if a == name)
        for weighted, _, _ in linear_paths(g, target):
            weighted.weight = weighted.weight / unit
            if hasattr(weighted, "bias"):
                weighted.bias = weighted.bias / unit
    g.nodes = dict(sorted(g.nodes.items()))
    return g


@pytest.mark.slow
def test_loihi_integers_give_the_same_spikes():
    """Where the file says that no decay truncates, the integers and the floats give the same spikes."""
    without = {"graph_conv", "pool", "conv1d", "attention", "li_readout", "inputs", "join"}
    rates, exact = [], 0
    for network in draws(random_programs.random_programs(without=without), 150):
        spikes, _, _ = executed(network)
        ((source, given_clips),) = network.inputs.items()
        for clip, given_spikes in enumerate(given_clips):
            integer_spikes = loihi_oracle.execute(in_units(network), given_spikes, network.dt)
            for name, train in spikes.items():
                rates.append(integer_spikes[name].mean())
                if quantization(network)["exact_on_chip"]:
                    exact += 1
                    assert int((integer_spikes[name].astype(bool) != train[clip]).sum()) == 0, (source, name)
    rates = np.array(rates)
    assert len(rates) > 200
    assert exact > 20
    assert ((rates >= 0.05) & (rates <= 0.6)).mean() > 0.9


# --- the oracle -----------------------------------------------------------------------------------


def run(g, x, **options):
    return euler_oracle.execute(g, {"x": np.asarray(x, F32)}, net.DT, **options)


def steps(*values) -> np.ndarray:
    """One clip of one neuron."""
    return np.array(values, F32).reshape(1, -1, 1)


def full(*values):
    return (np.array([v], F32) for v in values)


def test_lif_by_hand():
    node = nir.LIF(*full(2 * net.DT, 3.0, 0.5, 1.2, -1.0))
    spikes, _, margins = run(net.chain(("x", net.inp(1)), ("n", node), ("y", net.out(1))), steps(0, 1, 1, 0))
    # v: 0.25 | 0.25 + ((0.5 - 0.25) + 3)/2 = 1.875, fires, -1 | -1 + (1.5 + 3)/2 = 1.25, fires, -1 | -1 + 1.5/2 = -0.25
    assert spikes["n"].ravel().tolist() == [False, True, True, False]
    np.testing.assert_allclose(
        margins["n"].ravel(), np.abs(np.array([0.25, 1.875, 1.25, -0.25]) - 1.2) / 1.2, rtol=1e-5
    )


def test_spike_needs_more_than_the_threshold():
    node = nir.LIF(*full(net.DT, 1.0, 0.0, 1.0, 0.0))
    spikes, _, _ = run(net.chain(("x", net.inp(1)), ("n", node), ("y", net.out(1))), steps(1, 1.0000001))
    assert spikes["n"].ravel().tolist() == [False, True]


def test_cuba_by_hand():
    values = dict(zip(("tau_syn", "tau_mem", "r", "v_leak"), full(4 * net.DT, 2 * net.DT, 2.0, 0.0), strict=True))
    (w_in,) = full(8.0)
    leaky = net.chain(("x", net.inp(1)), ("n", nir.CubaLI(**values, w_in=w_in)), ("y", net.out(1)))
    # u: 2, 1.5, 1.125; v: (0 + 2·2)/2 = 2, 2 + (-2 + 3)/2 = 2.5, 2.5 + (-2.5 + 2.25)/2 = 2.375
    assert run(leaky, steps(1, 0, 0))[1]["y"].ravel().tolist() == [2, 2.5, 2.375]
    threshold, reset = full(2.25, 0.5)
    firing = nir.CubaLIF(**values, v_threshold=threshold, v_reset=reset, w_in=w_in)
    spikes, _, _ = run(net.chain(("x", net.inp(1)), ("n", firing), ("y", net.out(1))), steps(1, 0, 0))
    assert spikes["n"].ravel().tolist() == [False, True, False]  # 2, 2.5 → 0.5, 0.5 + (-0.5 + 2.25)/2 = 1.375


def test_integrators_use_if_dt():
    g = net.chain(("x", net.inp(1)), ("n", nir.I(np.array([2.0], F32))), ("y", net.out(1)))
    assert run(g, steps(1, 1, 0.5), if_dt=1.0)[1]["y"].ravel().tolist() == [2, 4, 5]
    np.testing.assert_allclose(run(g, steps(1, 1, 0.5))[1]["y"].ravel(), [2e-4, 4e-4, 5e-4], rtol=1e-6)
    fires = net.chain(("x", net.inp(1)), ("n", nir.IF(*full(2.0, 3.0, 1.0))), ("y", net.out(1)))
    assert run(fires, steps(1, 1, 1, 1), if_dt=1.0)[0]["n"].ravel().tolist() == [False, True, False, True]


def test_threshold_has_no_memory():
    g = net.chain(("x", net.inp(1)), ("n", nir.Threshold(np.array([0.5], F32))), ("y", net.out(1)))
    assert run(g, steps(0.4, 0.4, 0.6, 0.5))[1]["y"].ravel().tolist() == [0, 0, 1, 0]


def test_delay_is_per_element_and_starts_at_zero():
    g = net.chain(("x", net.inp(3)), ("d", nir.Delay(np.array([0, net.DT, 3 * net.DT], F32))), ("y", net.out(3)))
    x = np.arange(1, 13, dtype=F32).reshape(1, 4, 3)
    assert run(g, x)[1]["y"][0].tolist() == [[1, 0, 0], [4, 2, 0], [7, 5, 0], [10, 8, 3]]


def passing(*shape: int) -> nir.LIF:
    return net.lif(*shape, threshold=0.5, tau=net.DT)


def test_a_self_loop_carries_the_step_before():
    g = graph(
        {"x": net.inp(1), "n": passing(1), "w": net.linear([[1.0]]), "y": net.out(1)},
        [("x", "n"), ("n", "w"), ("w", "n"), ("n", "y")],
    )
    assert run(g, steps(0, 1, 0, 0))[0]["n"].ravel().tolist() == [False, True, True, True]


def test_a_loop_through_a_delay_adds_its_steps():
    nodes = {"x": net.inp(1), "n": passing(1), "d": nir.Delay(np.array([2 * net.DT], F32)), "y": net.out(1)}
    g = graph(nodes, [("x", "n"), ("n", "d"), ("d", "n"), ("n", "y")])
    assert run(g, steps(1, 0, 0, 0, 0, 0))[0]["n"].ravel().tolist() == [True, False, False, True, False, False]


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_of_two_populations_in_a_loop_the_first_by_name_opens_it(first, second):
    """The first by name receives the other's step before, the other the first's present step."""
    nodes = {
        "x": net.inp(1),
        "left": net.affine([[1.0]], [0.0]),
        "right": net.linear([[0.0]]),
        first: passing(1),
        second: passing(1),
        "y": net.out(1),
    }
    edges = [
        ("x", "left"),
        ("left", first),
        ("x", "right"),
        ("right", second),
        (first, second),
        (second, first),
        (second, "y"),
    ]
    spikes, _, _ = run(graph(nodes, edges), steps(1, 0, 0, 0))
    seen = (spikes[first].ravel().tolist(), spikes[second].ravel().tolist())
    if first == "a":  # every step: b receives a's present step, a receives b's last
        assert seen == ([True] * 4, [True] * 4)
    else:  # a (second) receives b's last step, b (first) receives a's present step
        assert seen == ([True, True, True, True], [False, True, True, True])


def test_only_a_neuron_that_something_reaches_opens_a_loop():
    """`a` comes first by name, but all its sources are in the loop: `b` opens it, and `a` follows within the step."""
    nodes = {"x": net.inp(1), "a": passing(1), "b": passing(1), "y": net.out(1)}
    spikes, _, _ = run(graph(nodes, [("x", "b"), ("b", "a"), ("a", "b"), ("a", "y")]), steps(1, 0, 0))
    assert spikes["a"].ravel().tolist() == spikes["b"].ravel().tolist() == [True, True, True]


def test_nested_means_inlined():
    inner = {"i": net.inp(2), "n": passing(2), "w": net.linear(np.eye(2)[::-1]), "o": net.out(2)}
    edges = [("i", "n"), ("n", "w"), ("w", "n"), ("n", "o")]
    deep = nir.NIRGraph(
        {"i": net.inp(2), "deep": graph(inner, edges), "o": net.out(2)},
        [("i", "deep"), ("deep", "o")],
        type_check=False,
    )
    g = net.chain(("x", net.inp(2)), ("outer", deep), ("y", net.out(2)))
    flat = graph(
        {"x": net.inp(2), "n": inner["n"], "w": inner["w"], "y": net.out(2)},
        [("x", "n"), ("n", "w"), ("w", "n"), ("n", "y")],
    )
    x = np.array([[[1, 0], [0, 0], [0, 0]]], F32)
    nested, plain = run(g, x), run(flat, x)
    assert list(nested[0]) == ["outer.deep.n"]
    assert (nested[0]["outer.deep.n"] == plain[0]["n"]).all()
    assert (nested[1]["y"] == plain[1]["y"]).all()
    assert nested[0]["outer.deep.n"][0].tolist() == [[True, False], [False, True], [True, False]]


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        (
            {"a": net.linear([[1.0]]), "b": net.linear([[1.0]])},
            [("x", "a"), ("a", "b"), ("b", "a"), ("b", "y")],
            "loop without a neuron",
        ),
        ({"a": nir.Delay(np.array([1.5 * net.DT], F32))}, [("x", "a"), ("a", "y")], "1.5 steps"),
        (
            {"a": nir.NIRGraph({"i": net.inp(1), "j": net.inp(1), "o": net.out(1)}, [], type_check=False)},
            [("x", "a"), ("a", "y")],
            "a has 2 nodes",
        ),
    ],
)
def test_refusals(nodes, edges, message):
    with pytest.raises(ValueError, match=message):
        run(graph({"x": net.inp(1), **nodes, "y": net.out(1)}, edges), steps(0, 0))


@pytest.mark.parametrize("padding", [(0, 0), (1, 2), "same", "valid"])
@pytest.mark.parametrize(
    ("kernel", "dilation", "groups"), [((3, 2), (1, 1), 1), ((2, 3), (2, 1), 2), ((4, 1), (1, 2), 1)]
)
@pytest.mark.parametrize("stride", [(1, 1), (2, 1), (1, 3)])
def test_convolution_is_torchs(padding, kernel, dilation, groups, stride):
    if padding == "same" and stride != (1, 1):
        with pytest.raises(ValueError, match="no meaning with stride"):
            euler_oracle.apply(
                net.conv(np.ones((1, 1, *kernel)), padding=padding, stride=stride), np.zeros((1, 1, 6, 7), F32)
            )
        return
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(4, 4 // groups, *kernel)), rng.normal(size=4)
    x = rng.normal(size=(2, 4, 6, 7)).astype(F32)
    node = net.conv(weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
    expected = torch.nn.functional.conv2d(
        *(torch.from_numpy(np.asarray(a, F32)) for a in (x, weight, bias)), stride, padding, dilation, groups
    )
    np.testing.assert_allclose(euler_oracle.apply(node, x), expected, rtol=1e-4, atol=1e-5)


def test_pools_are_torchs():
    x = np.random.default_rng(2).normal(size=(2, 3, 5, 6)).astype(F32)
    geometry = [np.array(a) for a in ((3, 2), (2, 1), (1, 1))]
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(x), (3, 2), (2, 1), (1, 1)).numpy()
    np.testing.assert_allclose(euler_oracle.apply(nir.AvgPool2d(*geometry), x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(euler_oracle.apply(nir.SumPool2d(*geometry), x), 6 * expected, rtol=1e-5, atol=1e-6)


def test_weights_of_matrices_and_of_batches_of_them():
    rng = np.random.default_rng(3)
    x, batch, plain = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(3, 4, 2, 5)), rng.normal(size=(2, 5))
    actual = euler_oracle.apply(net.affine(batch, np.ones((3, 4, 2))), x, np.float64)
    np.testing.assert_allclose(actual, np.einsum("ctoi,ncti->ncto", batch.astype(F32), x) + 1)
    np.testing.assert_allclose(
        euler_oracle.apply(net.linear(plain), x, np.float64), np.einsum("oi,ncti->ncto", plain.astype(F32), x)
    )


def test_agrees_with_the_loops_of_graphs():
    """Graph convolutions, attention, joins and pools of a student, written twice by different means."""
    rng = np.random.default_rng(4)
    g, x = net.student_like(rng), net.analog_clips(rng, 3)
    spikes, outputs, _ = run(g, x, dtype=np.float64)
    other = net.Euler(g, {"x": x})
    assert set(spikes) == set(other.spikes)
    assert all((spikes[name] == other.spikes[name]).all() for name in spikes)
    np.testing.assert_array_equal(outputs["y"], other.values["y"])


def test_attention_by_hand():
    """One head of one channel, one frame, two joints; q = (1, 0), k = (1, 1), v = (0, 1).

    Only query 0 meets keys; v is at joint 1.
    """
    g = net.chain(("x", net.inp(3, 1, 2)), ("a", net.attention(1, 2.0, 4.0, 0.9, 1.9)), ("y", net.out(1, 1, 2)))
    spikes, _, _ = run(g, np.array([1, 0, 1, 1, 0, 1]).reshape(1, 1, 3, 1, 2))
    assert spikes["a.m"].ravel().tolist() == [True, True, False, False]
    assert spikes["a.z"].ravel().tolist() == [True, False]
