"""Integrations and spike delays of other frameworks: their recursions, written out step by step in float64."""

import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, run
from mksgn.export.choices import INTEGRATIONS
from mksgn.export.graph import files
from mksgn.export.graph.conventions import with_conventions
from mksgn.export.graph.integration import integrated
from mksgn.export.graph.membranes import membrane_of
from mksgn.export.quantization.any_graph import quantize_any
from tests.support.graphs import DT, F32, affine, chain, graph, inp, linear, out, spikes

TAU, TAU_SYN, R, W_IN = 5 * DT, 3 * DT, 1.7, 2.3
# kept of membrane and current, gain of either, of dt/tau and dt/tau_syn; as the frameworks' sources have them
RECURSIONS = {
    "euler": lambda a, b: (1 - a, 1 - b, a * R, b * W_IN),
    "euler-unit": lambda a, b: (1 - a, 1 - b, 1, 1),
    "euler-unit-current": lambda a, b: (1 - a, 1 - b, a * R, 1),
    "exponential": lambda a, b: (np.exp(-a), np.exp(-b), (1 - np.exp(-a)) * R, (1 - np.exp(-b)) * W_IN),
    "exponential-unit": lambda a, b: (np.exp(-a), np.exp(-b), 1, np.exp(-b)),
}


def neuron(kind: type, n: int, tau: float = TAU, tau_syn: float = TAU_SYN, threshold: float = 1.0) -> nir.NIRNode:
    constants = {"r": R, "v_leak": 0.0, "v_threshold": threshold, "v_reset": 0.0}
    if kind is nir.CubaLIF:
        constants |= {"tau_mem": tau, "tau_syn": tau_syn, "w_in": W_IN}
    elif kind is nir.LIF:
        constants |= {"tau": tau}
    else:
        del constants["v_leak"]
    return kind(**{name: np.full(n, value, F32) for name, value in constants.items()})


def test_every_integration_is_covered():
    assert set(RECURSIONS) == set(INTEGRATIONS)


@pytest.mark.parametrize("integration", INTEGRATIONS)
@given(st.floats(1.01, 500), st.floats(1.01, 500))
def test_constants(integration, steps, steps_syn):
    node = neuron(nir.CubaLIF, 3, steps * DT, steps_syn * DT)
    membrane = membrane_of(integrated(node, integration, DT, None), DT, np.float64(DT))
    kept, kept_syn, gain, gain_syn = RECURSIONS[integration](1 / steps, 1 / steps_syn)
    np.testing.assert_allclose(membrane.decay, 1 - kept, rtol=1e-6)
    np.testing.assert_allclose(membrane.current_decay, 1 - kept_syn, rtol=1e-6)
    np.testing.assert_allclose(membrane.gain, gain * gain_syn, rtol=1e-6)


@pytest.mark.parametrize("integration", INTEGRATIONS)
@pytest.mark.parametrize("kind", [nir.LIF, nir.CubaLIF])
def test_spikes(kind, integration):
    rng = np.random.default_rng(3)
    kept, kept_syn, gain, gain_syn = RECURSIONS[integration](DT / TAU, DT / TAU_SYN)
    weight, x = rng.normal(0, 0.5 / gain, (20, 6)).astype(F32), spikes(rng, 8, 40, 6)
    v = i = np.zeros((8, 20))
    expected = []
    for current in np.moveaxis(x @ weight.T.astype(np.float64), 1, 0):
        i = kept_syn * i + gain_syn * current if kind is nir.CubaLIF else current
        v = kept * v + gain * i
        expected.append(v > 1)
        v = np.where(v > 1, 0, v)
    g = chain(("x", inp(6)), ("w", linear(weight)), ("n", neuron(kind, 20)), ("y", out(20)))
    found = run(compile_graph(g, precision="float", integration=integration), x).spikes["n"]
    assert 0.02 < found.mean() < 0.9
    np.testing.assert_array_equal(found, np.stack(expected, 1))


def test_in_full_means_so_for_if_too():
    node = integrated(neuron(nir.IF, 3), "euler-unit", DT, None)
    np.testing.assert_allclose(node.r * DT, 1, rtol=1e-6)
    assert integrated(neuron(nir.IF, 3), "exponential", DT, None).r[0] == F32(R)


# --- spikes that leave in the next step


def two_layers(rng: np.random.Generator) -> nir.NIRGraph:
    first, second = rng.normal(0, 3, (8, 6)).astype(F32), rng.normal(0, 6, (4, 8)).astype(F32)
    return chain(
        ("x", inp(6)), ("w", affine(first, rng.normal(0, 0.2, 8).astype(F32))), ("a", neuron(nir.LIF, 8)),
        ("v", affine(second, rng.normal(0, 0.2, 4).astype(F32))), ("b", neuron(nir.LIF, 4)), ("y", out(4)),
    )  # fmt: skip


@pytest.mark.parametrize("backend", ["emulator", "lava"])
@pytest.mark.parametrize("precision", ["float", "fixed"])
def test_a_spike_delay_is_that_of_nir_s_own_delay_nodes(precision, backend):
    if backend == "lava":
        pytest.importorskip("lava")
    rng = np.random.default_rng(5)
    g, x = two_layers(rng), spikes(rng, 6, 30, 6)
    calibration = x if precision == "fixed" else None
    late = run(compile_graph(g, precision=precision, calibration=calibration, spike_delay=1), x, backend=backend)
    assert 0.02 < late.outputs["y"].mean() < 0.98
    np.testing.assert_array_equal(late.outputs["y"][:, 1:], late.spikes["b"][:, :-1])
    assert not late.outputs["y"][:, 0].any()
    if precision == "float":  # each layer by itself: its bias acts from the first step, whatever reaches it later
        alone = chain(("x", inp(8)), ("v", g.nodes["v"]), ("b", g.nodes["b"]), ("y", out(4)))
        shifted = np.concatenate([np.zeros((6, 1, 8)), late.spikes["a"][:, :-1]], 1).astype(F32)
        np.testing.assert_array_equal(
            run(compile_graph(alone, precision="float"), shifted).spikes["b"], late.spikes["b"]
        )


def test_a_neuron_s_spikes_to_itself_arrive_in_the_next_step_as_they_do_without():
    rng = np.random.default_rng(6)
    back = linear(rng.normal(0, 0.5, (8, 8)).astype(F32))
    first = linear(rng.normal(0, 2, (8, 6)).astype(F32))
    nodes = {"x": inp(6), "w": first, "a": neuron(nir.LIF, 8), "back": back, "y": out(8)}
    g = graph(nodes, [("x", "w"), ("w", "a"), ("a", "back"), ("back", "a"), ("a", "y")])
    x = spikes(rng, 6, 30, 6)
    now, late = (run(compile_graph(g, precision="float", spike_delay=steps), x) for steps in (0, 1))
    np.testing.assert_array_equal(now.spikes["a"], late.spikes["a"])
    np.testing.assert_array_equal(now.outputs["y"][:, :-1], late.outputs["y"][:, 1:])
    nodes |= {"b": neuron(nir.LIF, 8)}
    both = graph(nodes, [("x", "w"), ("w", "a"), ("a", "b"), ("b", "back"), ("back", "a"), ("b", "y")])
    with pytest.raises(BadInputError, match="a and b are in one loop"):
        compile_graph(both, precision="float", spike_delay=1)


# --- what a file says


def test_a_quantised_file_says_it_and_the_options_do_not_act_twice(tmp_path):
    rng = np.random.default_rng(7)
    g, x = two_layers(rng), spikes(rng, 6, 30, 6)
    options = {"integration": "exponential", "spike_delay": 1, "reset": "subtract-at-once"}
    expected = run(compile_graph(g, calibration=x, **options), x)
    files.write(quantize_any(g, 8, x, **options), tmp_path / "quantised.nir")
    for given_again in ({}, options):
        found = run(compile_graph(tmp_path / "quantised.nir", **given_again), x)
        for name, train in expected.spikes.items():
            np.testing.assert_array_equal(found.spikes[name], train)
        np.testing.assert_array_equal(found.outputs["y"], expected.outputs["y"])


def test_the_integers_of_a_file_are_not_integrated_in_another_way():
    rng = np.random.default_rng(7)
    g, x = two_layers(rng), spikes(rng, 6, 30, 6)
    quantised = quantize_any(g, 8, x)
    found = [
        run(compile_graph(quantised, **options), x).spikes["b"] for options in ({}, {"integration": "exponential"})
    ]
    np.testing.assert_array_equal(*found)


def test_a_node_may_name_its_integration():
    rng = np.random.default_rng(8)
    g, x = two_layers(rng), spikes(rng, 6, 30, 6)
    expected = run(compile_graph(g, precision="float", integration="exponential"), x)
    plain = run(compile_graph(g, precision="float"), x)
    for name in "ab":
        g.nodes[name].metadata = {"integration": "exponential"}
    found = run(compile_graph(g, precision="float"), x)
    assert (expected.spikes["b"] != plain.spikes["b"]).any()
    np.testing.assert_array_equal(expected.spikes["b"], found.spikes["b"])
    g.nodes["a"].metadata = {"integration": "runge-kutta"}
    with pytest.raises(BadInputError, match="integration 'runge-kutta'; choose one of euler, "):
        compile_graph(g, precision="float")


@pytest.mark.parametrize("option", [{"integration": "heun"}, {"spike_delay": 2}])
def test_unknown_values_are_refused(option):
    with pytest.raises(BadInputError, match="choose one of"):
        with_conventions(two_layers(np.random.default_rng(0)), **option)
