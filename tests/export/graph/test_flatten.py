"""Nested graphs flattened: names, edges, ports, errors, and the same spikes as the graph written flat by hand."""

import copy

import nir
import numpy as np
import pytest

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.flatten import flatten
from mksgn.export.reference.execute import execute
from tests.support.graphs import DT, graph, inp, lif, linear, out


def nested(nodes: dict, edges) -> nir.NIRGraph:
    return nir.NIRGraph(nodes, [tuple(e) for e in edges], type_check=False)


def recurrent(weight) -> nir.NIRGraph:
    """As snnTorch writes a recurrent layer: the loop lies within a nested graph."""
    nodes = {"input": inp(3), "lif": lif(3, threshold=0.4), "back": linear(weight), "output": out(3)}
    return nested(nodes, [("input", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")])


def test_a_flat_graph_is_returned_as_it_is():
    g = graph({"x": inp(3), "l": lif(3), "y": out(3)}, [("x", "l"), ("l", "y")])
    assert flatten(g) is g


def test_two_levels_mean_what_they_mean_by_hand():
    rng = np.random.default_rng(0)
    first, back, last = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    middle = nested(
        {"in": inp(3), "fc": linear(first), "layer": recurrent(back), "out": out(3)},
        [("in", "fc"), ("fc", "layer"), ("layer", "out")],
    )
    g = graph(
        {"x": inp(3), "block": middle, "last": linear(last), "y": out(3)},
        [("x", "block"), ("block", "last"), ("last", "y")],
        steps=6,
    )
    before = copy.deepcopy(g)
    flat = flatten(g)
    assert set(flat.nodes) == {"x", "block.fc", "block.layer.lif", "block.layer.back", "last", "y"}
    lif_name, back_name = "block.layer.lif", "block.layer.back"
    assert sorted(flat.edges) == sorted(
        [("x", "block.fc"), ("block.fc", lif_name), (lif_name, back_name), (back_name, lif_name), (lif_name, "last"),
        ("last", "y")]
    )  # fmt: skip
    assert flat.metadata == {"dt": DT, "steps": 6}
    assert list(g.nodes) == list(before.nodes)
    assert g.edges == before.edges
    assert g.nodes["block"].edges == before.nodes["block"].edges
    assert list(g.nodes["block"].nodes) == list(before.nodes["block"].nodes)
    x = (rng.random((5, 6, 3)) < 0.7).astype(np.float32)
    run = execute(g, x, 6, DT, stepwise=True)
    assert 0.05 < run.spikes[lif_name].mean() < 0.95
    v, s = np.zeros((5, 3)), np.zeros((5, 3))
    for t in range(6):
        v = v + 0.5 * (x[:, t] @ first.astype(np.float32).T + s @ back.astype(np.float32).T - v)
        s = (v > 0.4).astype(float)
        v[s == 1] = 0
        np.testing.assert_array_equal(run.spikes[lif_name][t], s)
        np.testing.assert_allclose(run.outputs["y"][t], s @ last.astype(np.float32).T, rtol=1e-5, atol=1e-6)


def test_several_edges_into_and_out_of_a_nested_graph():
    sub = nested({"i": inp(2), "a": lif(2), "b": lif(2), "o": out(2)}, [("i", "a"), ("i", "b"), ("a", "o"), ("b", "o")])
    g = graph(
        {"x": inp(2), "w": inp(2), "s": sub, "y": out(2), "z": out(2)}, [("x", "s"), ("w", "s"), ("s", "y"), ("s", "z")]
    )
    expected = [(a, f"s.{b}") for a in "xw" for b in "ab"] + [(f"s.{a}", b) for a in "ab" for b in "yz"]
    assert sorted(flatten(g).edges) == sorted(expected)


def test_an_input_that_goes_straight_to_the_output():
    skip = nested({"i": inp(2), "l": lif(2), "o": out(2)}, [("i", "l"), ("l", "o"), ("i", "o")])
    g = graph(
        {"x": inp(2), "first": skip, "second": skip, "y": out(2)},
        [("x", "first"), ("first", "second"), ("second", "y")],
    )
    assert sorted(flatten(g).edges) == [
        ("first.l", "second.l"),
        ("first.l", "y"),
        ("second.l", "y"),
        ("x", "first.l"),
        ("x", "second.l"),
        ("x", "y"),
    ]


def two_ports() -> nir.NIRGraph:
    nodes = {"p": inp(2), "q": inp(2), "a": lif(2), "b": lif(2), "r": out(2), "t": out(2)}
    return nested(nodes, [("p", "a"), ("q", "b"), ("a", "r"), ("b", "t")])


def test_ports_are_named_in_the_edge():
    g = graph({"x": inp(2), "s": two_ports(), "y": out(2)}, [("x", "s.q"), ("s.t", "s.p"), ("s.r", "y")])
    flat = flatten(g)
    assert sorted(flat.edges) == [("s.a", "y"), ("s.b", "s.a"), ("x", "s.b")]
    assert not any("." not in name and name not in "xy" for name in flat.nodes)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([("x", "s"), ("s.r",
        "y")], r'node s: the nested graph has 2 Input nodes \(p, q\), and an edge does not say which; write "s.PORT"'),
        ([("x", "s.p"), ("s", "y")], r"node s: the nested graph has 2 Output nodes \(r, t\)"),
        ([("x", "s.a"), ("s.r", "y")], "edge to s.a: the graph has no such node, nor a nested Input of that name"),
        ([("x", "s.p"), ("s.p", "y")], "edge from s.p: the graph has no such node, nor a nested Output of that name"),
        ([("x", "nowhere"), ("s.r", "y")], "edge to nowhere: the graph has no such node"),
    ],
)  # fmt: skip
def test_edges_that_name_no_port(edges, message):
    with pytest.raises(UnsupportedNodeError, match=message):
        flatten(graph({"x": inp(2), "s": two_ports(), "y": out(2)}, edges))


def test_names_that_meet():
    sub = nested({"i": inp(2), "l": lif(2), "o": out(2)}, [("i", "l"), ("l", "o")])
    g = graph({"x": inp(2), "s": sub, "s.l": lif(2), "y": out(2)}, [("x", "s"), ("s", "s.l"), ("s.l", "y")])
    with pytest.raises(UnsupportedNodeError, match=r"node s\.l: a node of a nested graph gets this name too"):
        flatten(g)


def test_an_edge_that_would_be_there_twice():
    straight = nested({"i": inp(2), "o": out(2)}, [("i", "o")])
    g = graph({"x": inp(2), "s": straight, "l": lif(2), "y": out(2)}, [("x", "s"), ("s", "l"), ("x", "l"), ("l", "y")])
    with pytest.raises(UnsupportedNodeError, match="edge x → l: it exists twice once nested graphs are flattened"):
        flatten(g)
