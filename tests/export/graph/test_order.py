"""The order of evaluation: sources first, ties by name, and which edge of a loop carries the previous step."""

import random

import nir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.order import evaluation_order, feed_forward_order, sources_of
from tests.support import opening_rule
from tests.support.graphs import DT, graph, inp, lif, linear, out


def test_sources_in_the_order_of_the_edges():
    nodes = {"y": out(1), "b": inp(1), "a": inp(1)}
    assert sources_of(graph(nodes, [("b", "y"), ("a", "y")])) == {"y": ["b", "a"], "b": [], "a": []}
    with pytest.raises(UnsupportedNodeError, match="edge x → gone: the graph has no node gone"):
        sources_of(graph({"x": inp(1), "y": out(1)}, [("x", "gone")]))


def test_ties_are_resolved_by_name_and_not_by_the_order_in_the_file():
    edges = [("x", "b"), ("x", "a"), ("a", "c"), ("b", "c"), ("c", "y")]
    nodes = {"y": out(1), "c": lif(1), "b": lif(1), "a": lif(1), "x": inp(1)}
    assert evaluation_order(graph(nodes, edges)) == ["x", "a", "b", "c", "y"]
    assert evaluation_order(graph(dict(reversed(nodes.items())), edges[::-1])) == ["x", "a", "b", "c", "y"]


def test_a_loop_is_opened_at_the_first_neuron_that_something_reaches():
    nodes = {"x": inp(1), "b": lif(1), "a": lif(1), "y": out(1)}
    assert evaluation_order(graph(nodes, [("x", "b"), ("a", "b"), ("b", "a"), ("a", "y")])) == ["x", "b", "a", "y"]
    both = [("x", "b"), ("x", "a"), ("a", "b"), ("b", "a"), ("a", "y")]
    assert evaluation_order(graph(nodes, both)) == ["x", "a", "b", "y"]


def test_a_loop_that_nothing_reaches_is_opened_at_its_first_neuron():
    nodes = {"late": nir.Delay(f32([DT])), "w": linear([[1.0]]), "n": lif(1), "m": lif(1), "y": out(1)}
    edges = [("late", "w"), ("w", "n"), ("n", "m"), ("m", "late"), ("n", "y")]
    assert evaluation_order(graph(nodes, edges)) == ["m", "late", "w", "n", "y"]


def test_a_loop_is_opened_at_a_neuron_that_something_reaches_through_linear_nodes():
    nodes = {"x": inp(1), "w": linear([[1.0]]), "a": lif(1), "b": lif(1), "y": out(1)}
    edges = [("x", "w"), ("a", "w"), ("w", "b"), ("b", "a"), ("a", "y")]
    assert evaluation_order(graph(nodes, edges)) == ["x", "b", "a", "w", "y"]


def test_no_edge_between_two_loops_is_taken_for_one_that_closes_a_loop():
    """b's loop feeds a's, which the input reaches too: a comes after b, whatever their names."""
    nodes = {"x": inp(1), "a": lif(1), "b": lif(1), "y": out(1)}
    edges = [("x", "a"), ("x", "b"), ("a", "a"), ("b", "b"), ("b", "a"), ("a", "y")]
    assert evaluation_order(graph(nodes, edges)) == ["x", "b", "a", "y"]


def test_a_threshold_in_a_loop_comes_before_the_neuron_that_reads_it():
    nodes = {"x": inp(1), "n": lif(1), "w": linear([[1.0]]), "t": nir.Threshold(f32([0.5])), "y": out(1)}
    edges = [("x", "w"), ("n", "w"), ("w", "t"), ("t", "n"), ("n", "y")]
    assert evaluation_order(graph(nodes, edges)) == ["x", "t", "n", "w", "y"]


def test_a_loop_of_linear_nodes_is_refused_by_name():
    nodes = {"x": inp(1), "n": lif(1), "p": linear([[1.0]]), "q": linear([[1.0]]), "y": out(1)}
    with pytest.raises(UnsupportedNodeError, match="nodes p, q: a loop without a population"):
        evaluation_order(graph(nodes, [("x", "p"), ("p", "q"), ("q", "p"), ("q", "n"), ("n", "y")]))


def test_a_feed_forward_order_names_the_nodes_of_a_loop_and_no_others():
    nodes = {"x": inp(1), "n": lif(1), "y": out(1)}
    assert feed_forward_order(graph(nodes, [("x", "n"), ("n", "y")])) == ["x", "n", "y"]
    with pytest.raises(UnsupportedNodeError, match=r"nodes n \(LIF\): a recurrent loop"):
        feed_forward_order(graph(nodes, [("x", "n"), ("n", "n"), ("n", "y")]))
    nodes = {**nodes, "m": lif(1), "w": linear([[1.0]])}
    with pytest.raises(UnsupportedNodeError, match=r"nodes n \(LIF\), w \(Linear\): a recurrent loop"):
        feed_forward_order(graph(nodes, [("x", "n"), ("n", "w"), ("w", "n"), ("n", "m"), ("m", "y")]))


def of_any_edges(nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> nir.NIRGraph:
    """A graph that nir does not check: the order asks for kinds, names and edges alone."""
    made = nir.NIRGraph.__new__(nir.NIRGraph)
    made.nodes, made.edges = nodes, edges
    return made


def random_graph(seed: int) -> nir.NIRGraph:
    """Up to 25 nodes, with few or many loops between any of them, or between neighbours."""
    draw = random.Random(seed)
    kinds = [lif(1), inp(1), linear([[1.0]]), nir.Threshold(f32([0.5])), nir.Delay(f32([DT]))]
    weights = [draw.choice(some) for some in ((3, 12), (1,), (0, 2, 4), (0, 0, 2), (0, 0.3))]
    names = [f"{draw.choice('abcde')}{i}" for i in range(draw.randint(1, draw.choice((5, 9, 14, 25))))]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[max(i - 1, 0) : i + 2]]
    if draw.random() < 0.4:
        edges = [pair for pair in pairs if draw.random() < 0.75]
    else:
        number = int(draw.choice((0.5, 1, 1.3, 2, 3, 5)) * len(names))
        edges = [(draw.choice(names), draw.choice(names)) for _ in range(number)]
    return of_any_edges({name: draw.choices(kinds, weights)[0] for name in names}, list(dict.fromkeys(edges)))


@given(st.integers(0, 1 << 32))
def test_any_graph_is_ordered_by_the_rule(seed):
    """Nothing that is kept from one opening to the next changes where the next one is."""
    for made in (random_graph(seed + i) for i in range(50)):
        wanted = opening_rule.evaluation_order(made)
        if wanted is None:
            with pytest.raises(UnsupportedNodeError, match="a loop without a population in it"):
                evaluation_order(made)
        else:
            assert evaluation_order(made) == wanted
