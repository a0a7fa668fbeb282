"""The reference execution of whole graphs: loops, inputs, margins, and random networks."""

import nir
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from mksgn.export.errors import ExportError, UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.order import evaluation_order
from mksgn.export.reference.execute import execute
from tests.support import euler_oracle
from tests.support.graphs import DT, affine, chain, graph, inp, lif, linear, out
from tests.support.random_networks import random_networks
from tests.support.tiers import examples


def test_an_edge_that_closes_a_loop_shows_the_step_before():
    """b follows a in the loop and receives its present spike; a receives b's spike of the previous step."""
    fires = {"threshold": 0.4, "tau": DT}
    nodes = {"x": inp(1), "a": lif(1, **fires), "b": lif(1, **fires), "back": linear([[-1.0]]), "y": out(1)}
    g = graph(nodes, [("x", "a"), ("a", "b"), ("b", "back"), ("back", "a"), ("b", "y")])
    assert evaluation_order(g) == ["x", "a", "b", "back", "y"]
    run = execute(g, f32([[1]]), 5, DT)
    assert run.spikes["a"].ravel().tolist() == [True, False, True, False, True]
    assert run.outputs["y"].ravel().tolist() == [1, 0, 1, 0, 1]


def test_a_loop_that_nothing_reaches_and_one_through_a_delay():
    late = nir.Delay(f32([DT]))
    nodes = {"late": late, "w": linear([[1.0]]), "n": lif(1, leak=1.0, threshold=0.6, reset=0.0), "y": out(1)}
    g = graph(nodes, [("late", "w"), ("w", "n"), ("n", "late"), ("n", "y")])
    assert execute(g, {}, 4, DT).outputs["y"].ravel().tolist() == [0, 1, 0, 1]


@given(random_networks())
@settings(
    derandomize=True, deadline=None, database=None, max_examples=examples(40), suppress_health_check=list(HealthCheck)
)
def test_random_networks(network):
    """No decision differs from an independent implementation's, with nesting, joins, loops and delays."""
    steps = next(iter(network.inputs.values())).shape[1]
    spikes, outputs, _ = euler_oracle.execute(network.graph, network.inputs, network.dt, network.if_dt)
    run = execute(network.graph, network.inputs, steps, network.dt, stepwise=True, if_dt=network.if_dt)
    assert set(run.spikes) == set(spikes)
    assert set(run.outputs) == set(outputs)
    for name, train in spikes.items():
        np.testing.assert_array_equal(run.spikes[name].swapaxes(0, 1), train, err_msg=name)
    for name, shown in outputs.items():
        np.testing.assert_allclose(run.outputs[name].swapaxes(0, 1), shown, rtol=1e-4, atol=1e-5)


def joined() -> nir.NIRGraph:
    nodes = {"p": inp(2), "q": inp(3), "w": linear(np.ones((2, 3))), "b": affine(np.eye(2), [0.25, 0]), "y": out(2)}
    return graph(nodes, [("p", "b"), ("q", "w"), ("w", "b"), ("b", "y")])


def test_inputs_by_name_and_a_join_at_a_linear_node():
    run = execute(joined(), {"p": f32([[1, 2]]), "q": f32([[1, 1, 1]])}, 2, DT)
    assert run.outputs["y"].tolist() == [[[4.25, 5]]] * 2


def test_a_constant_input_is_the_same_at_each_step():
    rng = np.random.default_rng(0)
    g = chain(("x", inp(3)), ("w", linear(rng.normal(size=(4, 3)))), ("n", lif(4, threshold=0.3)), ("y", out(4)))
    x = f32(rng.normal(size=(5, 3)))
    a, b = execute(g, x, 6, DT), execute(g, {"x": np.repeat(x[:, None], 6, 1)}, 6, DT, stepwise=True)
    np.testing.assert_array_equal(a.spikes["n"], b.spikes["n"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 2)), r"the graph has 2 inputs \(p, q\); give a dict"),
        ({"p": np.zeros((1, 2))}, "input p: the graph's inputs are p, q"),
        ({"p": np.zeros((1, 2)), "q": np.zeros((1, 4))}, r"input q: shape \(1, 4\), expected \(L, 3\)"),
        ({"p": np.zeros((1, 2)), "q": np.zeros((2, 3))}, "inputs differ in their number of samples"),
    ],
)
def test_inputs_that_do_not_fit(inputs, message):
    with pytest.raises(ExportError, match=message):
        execute(joined(), inputs, 2, DT)


def test_steps_that_do_not_fit():
    g = chain(("x", inp(2)), ("y", out(2)))
    with pytest.raises(ExportError, match=r"input x: shape \(1, 3, 2\), expected \(L, 4, 2\)"):
        execute(g, np.zeros((1, 3, 2)), 4, DT, stepwise=True)


def test_what_has_no_input_or_no_equation_is_named():
    with pytest.raises(UnsupportedNodeError, match="node w: no edge leads into it"):
        execute(graph({"x": inp(1), "w": linear([[1.0]]), "y": out(1)}, [("w", "y")]), f32([[1]]), 1, DT)


def test_margins_of_any_population():
    g = chain(("x", inp(1)), ("n", nir.IF(f32([1.0]), f32([2.0]))), ("y", out(1)))
    run = execute(g, f32([[1.5]]), 2, DT, margins_of="n", if_dt=1.0)
    assert run.margins.ravel().tolist() == [0.25, 0.5]
