"""Our two NIR nodes: their shapes, their round trip with type checks, and their equations."""

from itertools import pairwise

import nir
import numpy as np
import pytest
import torch

from mksgn.export.graph import files
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, register
from mksgn.export.reference.execute import execute, linear

RNG = np.random.default_rng(0)


def f32(x):
    return np.array(x, dtype=np.float32)


def graph_conv(k=3, v=5, o=4, c=2) -> GraphConv:
    return GraphConv(*(RNG.normal(size=shape).astype(np.float32) for shape in [(k, v, v), (k, o, c), (o,)]))


def attention(heads=2) -> SpikingSelfAttention:
    values = [RNG.uniform(0.5, 2, heads).astype(np.float32) for _ in range(4)]
    return SpikingSelfAttention(heads, *values, np.float32(2e-4))


def lif(*shape) -> nir.LIF:
    full = [np.full(shape, value, dtype=np.float32) for value in (2e-4, 1.0, 0.0, 0.5)]
    return nir.LIF(*full)


def network() -> nir.NIRGraph:
    nodes = {
        "input": nir.Input({"input": np.array([2, 3, 5])}),
        "graph": graph_conv(o=12),
        "qkv": lif(12, 3, 5),
        "attention": attention(),
        "output": nir.Output({"output": np.array([4, 3, 5])}),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)), metadata={"dt": 1e-4})


def test_round_trip_with_type_checks_keeps_every_bit(tmp_path):
    graph = network()
    files.write(graph, tmp_path / "a.nir")
    back = files.read(tmp_path / "a.nir")
    assert {type(n).__name__ for n in back.nodes.values()} == {type(n).__name__ for n in graph.nodes.values()}
    for name in ("graph", "attention"):
        for key, value in graph.nodes[name].to_dict().items():
            actual = back.nodes[name].to_dict()[key]
            assert np.array_equal(actual, value), (name, key)
            assert np.asarray(actual).dtype == np.asarray(value).dtype or key == "heads"
        assert np.array_equal(back.nodes[name].output_type["output"], graph.nodes[name].output_type["output"])
    back.check_types()


def test_types_follow_from_the_input():
    graph = network()
    assert list(graph.nodes["graph"].output_type["output"]) == [12, 3, 5]
    assert list(graph.nodes["attention"].output_type["output"]) == [4, 3, 5]


def test_a_wrong_edge_is_found_by_the_type_check():
    nodes = {
        "input": nir.Input({"input": np.array([2, 3, 4])}),
        "graph": graph_conv(v=5),
        "output": nir.Output({"output": np.array([4, 3, 5])}),
    }
    with pytest.raises(
        ValueError, match=r"GraphConv: input has shape \(2, 3, 4\), expected \(C_in, T, V\) = \(2, T, 5\)"
    ):
        nir.NIRGraph(nodes, [("input", "graph"), ("graph", "output")])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(3, 5, 4), (3, 4, 2), (4,)], "adjacency has shape"),
        ([(3, 5, 5), (2, 4, 2), (4,)], "weight has shape"),
        ([(3, 5, 5), (3, 4, 2), (2,)], "bias has shape"),
    ],
)
def test_graph_conv_checks_its_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        GraphConv(*(np.zeros(shape, dtype=np.float32) for shape in shapes))


def test_attention_checks_its_shapes():
    one = np.ones(2, dtype=np.float32)
    with pytest.raises(ValueError, match=r"gain_z has shape \(3,\), expected \(heads,\) = \(2,\)"):
        SpikingSelfAttention(2, one, np.ones(3, dtype=np.float32), one, one, np.float32(2e-4))
    with pytest.raises(ValueError, match="expected a scalar"):
        SpikingSelfAttention(2, one, one, one, one, np.ones(3, dtype=np.float32))
    node = SpikingSelfAttention(2, one, one, one, one, np.float32(2e-4))
    node.input_type = {"input": np.array([7, 3, 5])}
    with pytest.raises(ValueError, match="a multiple of heads"):
        _ = node.output_type


def test_graph_conv_equation_by_loops():
    node, x = graph_conv(), RNG.normal(size=(1, 2, 3, 5)).astype(np.float32)
    want = np.zeros((4, 3, 5))
    for o, t, j in np.ndindex(4, 3, 5):
        want[o, t, j] = node.bias[o] + sum(
            node.weight[k, o, c] * node.adjacency[k, i, j] * x[0, c, t, i] for k, c, i in np.ndindex(3, 2, 5)
        )
    np.testing.assert_allclose(linear(node, "g", torch.from_numpy(x))[0].numpy(), want, rtol=1e-4, atol=1e-5)


def test_attention_equation_by_loops():
    graph = network()
    node = graph.nodes["attention"]
    x = (RNG.random((2, 2, 3, 5)) * 3).astype(np.float32)
    run = execute(graph, x, 4, 1e-4)
    qkv = run.spikes["qkv"].astype(int)
    for sample in range(2):
        v_m, v_z = np.zeros((2, 3, 5, 5)), np.zeros((4, 3, 5))
        for s in range(4):
            q, k, v = (qkv[s, sample, part * 4 : part * 4 + 4] for part in range(3))
            m, z = np.zeros((2, 3, 5, 5), dtype=int), np.zeros((4, 3, 5), dtype=int)
            for h, t, i, j in np.ndindex(2, 3, 5, 5):
                a = node.gain_m[h] * sum(q[2 * h + c, t, i] * k[2 * h + c, t, j] for c in range(2))
                v_m[h, t, i, j] += 0.5 * (a - v_m[h, t, i, j])
                m[h, t, i, j] = v_m[h, t, i, j] > node.threshold_m[h]
            v_m[m == 1] = 0
            for h, c, t, i in np.ndindex(2, 2, 3, 5):
                a = node.gain_z[h] * sum(m[h, t, i, j] * v[2 * h + c, t, j] for j in range(5))
                v_z[2 * h + c, t, i] += 0.5 * (a - v_z[2 * h + c, t, i])
                z[2 * h + c, t, i] = v_z[2 * h + c, t, i] > node.threshold_z[h]
            v_z[z == 1] = 0
            assert np.array_equal(run.spikes["attention.m"][s, sample], m)
            assert np.array_equal(run.spikes["attention.z"][s, sample], z)
    assert 0 < run.spikes["attention.z"].mean() < 1


def test_registering_twice_changes_nothing():
    known = list(vars(nir.ir)["__all_ir"])
    register()
    assert vars(nir.ir)["__all_ir"] == known


def test_the_vectors_of_the_nodes_page():
    """docs/nir-nodes.md: what another project's reader should give."""
    leads = GraphConv(f32([[[0, 1], [0, 0]]]), f32([[[2]]]), f32([1]))
    assert linear(leads, "g", torch.tensor([[[[3.0, 5.0]]]])).flatten().tolist() == [1.0, 7.0]
    one, half = np.ones(1, dtype=np.float32), np.full(1, 0.5, dtype=np.float32)
    nodes = {
        "qkv": nir.Input({"input": np.array([3, 1, 2])}),
        "attention": SpikingSelfAttention(1, one, one, half, half, np.float32(2e-4)),
        "z": nir.Output({"output": np.array([1, 1, 2])}),
    }
    graph = nir.NIRGraph(nodes, [("qkv", "attention"), ("attention", "z")])
    run = execute(graph, f32([[[1, 0]], [[1, 1]], [[0, 1]]])[None], 4, 1e-4)
    row = [[1, 1], [0, 0]]
    silent = [[0, 0], [0, 0]]
    assert run.spikes["attention.m"].reshape(4, 2, 2).astype(int).tolist() == [silent, row, silent, row]
    assert run.spikes["attention.z"].reshape(4, 2).astype(int).tolist() == [[0, 0], [0, 0], [0, 0], [1, 0]]
