"""mksgn/export/quantization/paths: rewritten graphs compute the same, and the graphs that cannot be rewritten."""

import copy
import json

import nir
import numpy as np
import pytest

from mksgn.export import export_to_nir
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.quantization.paths import canonicalize_paths, weighted_paths
from mksgn.export.quantization.quantize import quantize
from mksgn.export.reference.execute import execute
from tests.export.quantization.networks import in_units, populated, refused, spikes
from tests.support.graphs import DT, affine, chain, conv, flatten, graph, inp, ladder, lif, linear, out, pool
from tests.support.students import calibration, tiny


def same_network(g: nir.NIRGraph, *shape: int) -> nir.NIRGraph:
    """The rewritten graph, after comparing what both do with generic values."""
    rewritten = canonicalize_paths(g)
    x = np.random.default_rng(0).normal(size=(3, 4, *shape)).astype(np.float32)
    a, b = (execute(h, x, 4, DT, stepwise=True) for h in (g, rewritten))
    for name, output in a.outputs.items():
        np.testing.assert_allclose(b.outputs[name], output, rtol=1e-4, atol=1e-5)
    assert any(output.any() for output in a.outputs.values())
    for name, train in a.spikes.items():
        np.testing.assert_array_equal(b.spikes[name], train)
    return rewritten


def ends(g: nir.NIRGraph, target: str) -> list[tuple[str, str]]:
    return [(path.source, path.weighted) for path in weighted_paths(g, target)]


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
    quantised, scales = quantize(g, 8, spikes(rng, 3, 6, 2, 4, 4), 6, DT)
    assert set(scales) == {"a", "b"}
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
    np.testing.assert_allclose(rewritten.nodes["k"].bias, g.nodes["k"].bias)  # after its pool
    quantize(g, 8, spikes(rng, 3, 2, 4, 4), 4, DT)


def test_a_node_that_several_need_is_copied_for_each():
    rng = np.random.default_rng(0)
    nodes = {
        "x": inp(2, 4, 4), "w": conv(rng.normal(size=(3, 2, 1, 1)), [0.2, 0.1, 0]), "f": flatten(3, 4, 4, start=0),
        "a": lif(3, 4, 4, threshold=0.3), "b": lif(48, threshold=0.2), "c": lif(48, threshold=0.1), "y": out(48),
        "z": out(3, 4, 4),
    }  # fmt: skip
    edges = [("x", "w"), ("w", "a"), ("w", "f"), ("f", "b"), ("f", "c"), ("b", "y"), ("c", "y"), ("a", "z")]
    g = graph(nodes, edges)
    rewritten = same_network(g, 2, 4, 4)
    for target in "abc":
        assert ends(rewritten, target) == [("x", f"w_{target}")]
    assert "w" not in rewritten.nodes
    assert {"f_b", "f_c"} <= set(rewritten.nodes)
    assert "w" in g.nodes
    quantised, scales = quantize(g, 8, spikes(rng, 3, 4, 2, 4, 4), 4, DT)
    assert all(scale.agreement > 0.97 for scale in scales.values() if scale.agreement is not None)
    in_units(graph(quantised.nodes, quantised.edges, quantization=json.dumps(
        {"populations": {n: {"exponent": scales[n].exponent} for n in "abc"}})))  # fmt: skip


def test_where_paths_join_each_gets_its_own_node_and_the_bias_counts_once():
    rng = np.random.default_rng(0)
    nodes = {"x": inp(4), "w": linear(rng.normal(size=(4, 4))), "a": lif(4, threshold=0.2),
    "b": lif(4, threshold=0.1), "y": out(3),
             "join": affine(rng.normal(size=(3, 4)), [0.2, 0.1, -0.1]), "n": lif(3, threshold=0.2)}  # fmt: skip
    edges = [("x", "w"), ("w", "a"), ("w", "b"), ("a", "join"), ("b", "join"), ("join", "n"), ("n", "y")]
    rewritten = same_network(graph(nodes, edges), 4)
    assert [source for source, _ in ends(rewritten, "n")] == ["a", "b"]
    quantised, scales = quantize(graph(nodes, edges), 8, spikes(rng, 5, 4), 4, DT)
    in_units(quantised)
    assert scales["n"].agreement > 0.95


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


@pytest.mark.parametrize(("joins", "paths"), [(1, 2), (6, 64)])
def test_a_ladder_within_the_limit_is_a_sum_over_its_paths(joins, paths):
    assert len(ends(same_network(ladder(joins), 2), "n")) == paths


def test_a_membrane_into_synapses():
    nodes, edges = populated(nir.LI(f32([2 * DT] * 2), f32([1, 1]), f32([0, 0])))
    nodes |= {"v": linear(np.eye(2)), "m": lif(2)}
    refused(
        nodes,
        [*edges[:2], ("n", "v"), ("v", "m"), ("m", "y")],
        message=r"node n: LI outputs its membrane, .*\(here into m\)",
    )
    refused(
        nodes, [*edges[:2], ("n", "y"), ("n", "v"), ("v", "m"), ("m", "y")], message="node n: LI outputs its membrane"
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


@pytest.mark.parametrize("joins", [9, 40])
def test_more_paths_than_the_limit_are_refused(joins):
    """Joins in series double the linear paths; the number of joins must not decide how long that takes."""
    message = "node s8: 512 linear paths lead into it, more than 256; put a population between them"
    with pytest.raises(UnsupportedNodeError, match=message):
        quantize(ladder(joins), 8, np.ones((2, 2), dtype=np.float32), 4, DT)
