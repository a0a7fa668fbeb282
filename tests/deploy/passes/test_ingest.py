"""mksgn/deploy/passes/ingest: NIR graphs against an Euler integration of NIR's equations, and every refusal."""

import nir
import numpy as np
import pytest

from mksgn.deploy import run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.program import operators as ops
from tests.deploy.passes.networks import agree, compiled, rng
from tests.support import graphs as net


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"padding": (0, 2), "stride": (2, 1)},
        {"padding": (2, 1), "dilation": (2, 1), "stride": (1, 2)},
        {"padding": "same"},
        {"padding": "same", "dilation": (2, 1)},
        {"padding": "valid", "stride": 2},
        {"padding": 1, "groups": 2},
    ],
)
def test_conv_into_lif(options):
    r, shape = rng(1), (4, 6, 5)
    node = net.conv(net.lattice(r, 4, 4 // options.get("groups", 1), 3, 3), net.lattice(r, 4), **options)
    after = (
        net.Euler(net.chain(("x", net.inp(*shape)), ("c", node), ("y", net.out(1))), {"x": np.zeros((1, 1, *shape))})
        .values["c"]
        .shape[2:]
    )
    agree(
        net.chain(("x", net.inp(*shape)), ("c", node), ("l", net.lif(*after)), ("y", net.out(*after))),
        net.spikes(r, 3, 5, *shape),
    )


def test_two_paths_join_at_the_membrane_with_both_biases():
    r = rng(2)
    g = net.graph(
        {
            "x": net.inp(2, 3, 3), "a": net.conv(net.lattice(r, 3, 2, 3, 3), net.lattice(r, 3), padding=1), "first": net.lif(3, 3, 3),
            "b": net.conv(net.lattice(r, 4, 3, 1, 1), net.lattice(r, 4)), "c": net.conv(net.lattice(r, 4, 2, 1, 1), net.lattice(r, 4)),
            "joined": net.lif(4, 3, 3), "y": net.out(4, 3, 3),
        },
        [("x", "a"), ("a", "first"), ("first", "b"), ("b", "joined"), ("x", "c"), ("c", "joined"), ("joined", "y")],
    )  # fmt: skip
    agree(g, net.spikes(r, 3, 6, 2, 3, 3))
    bias = ingest(g)["joined"].neuron.bias
    np.testing.assert_array_equal(bias.ravel(), g.nodes["b"].bias + g.nodes["c"].bias)


def test_graph_conv_with_weighted_subsets():
    r = rng(3)
    adjacency = net.ring(4) * net.lattice(r, 3, 4, 4, most=4)  # weights on edges, zeros where the ring has none
    g = net.chain(
        ("x", net.inp(2, 3, 4)),
        ("g", net.graph_conv(adjacency, net.lattice(r, 3, 3, 2), net.lattice(r, 3))),
        ("l", net.lif(3, 3, 4, threshold=0.25)),
        ("y", net.out(3, 3, 4)),
    )
    agree(g, net.spikes(r, 3, 5, 2, 3, 4))
    (projection,) = ingest(g).into("l")
    (operator,) = projection.operators
    assert isinstance(operator, ops.GraphConv)
    assert len(operator.weight) == int((np.abs(adjacency).sum(0) > 0).sum())  # one block per edge, and no other


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.5, 2.0), ([0.5, 2.0], [1.0, 0.25])])
def test_attention(gains):
    r = rng(4)
    node = net.attention(2, *gains, threshold_m=[0.5, 0.75], threshold_z=[0.75, 0.25])
    g = net.graph(
        {
            "x": net.inp(2, 2, 3), "c": net.conv(net.lattice(r, 12, 2, 1, 1, most=16), net.lattice(r, 12)),
            "qkv": net.lif(12, 2, 3, threshold=0.125),
            "attend": node, "p": net.conv(net.lattice(r, 2, 4, 1, 1, most=16), [0.125, 0.25]),
            "l": net.lif(2, 2, 3, threshold=0.125),
            "y": net.out(2, 2, 3), "z": net.out(4, 2, 3),
        },
        [("x", "c"), ("c", "qkv"), ("qkv", "attend"), ("attend", "p"), ("p", "l"), ("l", "y"), ("attend", "z")],
    )  # fmt: skip
    agree(g, net.spikes(r, 4, 6, 2, 2, 3, rate=0.6))
    program = ingest(g)
    assert (program["attend.m"].shape, program["attend.z"].shape) == ((2, 2, 3, 3), (4, 2, 3))


def test_equal_gains_stay_the_weight_and_unequal_ones_go_into_the_thresholds():
    def products(*gains):
        g = net.chain(
            ("x", net.inp(2, 1, 2)),
            ("c", net.conv(np.ones((6, 2, 1, 1)))),
            ("qkv", net.lif(6, 1, 2)),
            ("a", net.attention(2, *gains)),
            ("y", net.out(2, 1, 2)),
        )
        program = ingest(g)
        return [p.weight for p in program.projections[1:]], [
            program[f"a.{p}"].neuron.threshold.ravel().tolist() for p in "mz"
        ]

    assert products(0.5, 2.0) == ([0.5, 2.0], [[2.0, 2.0], [2.0, 2.0]])
    assert products([0.5, 2.0], 1.0) == ([1.0, 1.0], [[4.0, 1.0], [2.0, 2.0]])


@pytest.mark.parametrize("frames", [4, 5])
def test_a_decimating_pool_becomes_the_stride_of_the_conv_before_it(frames):
    r, after = rng(5), (frames + 1) // 2
    node = net.conv(net.lattice(r, 3, 2, 3, 1), net.lattice(r, 3), padding=(1, 0))
    g = net.chain(
        ("x", net.inp(2, frames, 3)),
        ("c", node),
        ("p", net.pool((1, 1), (2, 1))),
        ("l", net.lif(3, after, 3, threshold=0.25)),
        ("y", net.out(3, after, 3)),
    )
    agree(g, net.spikes(r, 3, 5, 2, frames, 3))
    (projection,) = ingest(g).into("l")
    (operator,) = projection.operators
    assert (operator.kind, operator.stride, operator.padding) == ("conv", (2, 1), (1, 0))


@pytest.mark.parametrize(
    "pooling", [net.pool((2, 1), (2, 1)), net.pool((2, 2), (1, 1), (1, 1))], ids=["a sum", "padded"]
)
def test_other_pools_are_not_merged(pooling):
    r = rng(6)
    node = net.conv(net.lattice(r, 2, 2, 3, 1), net.lattice(r, 2), padding=(1, 0))
    after = (
        net.Euler(
            net.chain(("x", net.inp(2, 4, 2)), ("c", node), ("p", pooling), ("y", net.out(1))),
            {"x": np.zeros((1, 1, 2, 4, 2))},
        )
        .values["p"]
        .shape[2:]
    )
    g = net.chain(("x", net.inp(2, 4, 2)), ("c", node), ("p", pooling), ("l", net.lif(*after)), ("y", net.out(*after)))
    agree(g, net.spikes(r, 3, 5, 2, 4, 2))
    assert [op.kind for op in ingest(g).projections[0].operators] == ["conv", "pool"]


def test_a_strided_conv_is_not_merged_again():
    r = rng(7)
    g = net.chain(
        ("x", net.inp(1, 8, 2)),
        ("c", net.conv(net.lattice(r, 2, 1, 3, 1), net.lattice(r, 2), stride=(2, 1))),
        ("p", net.pool((1, 1), (2, 1))),
        ("l", net.lif(2, 2, 2)),
        ("y", net.out(2, 2, 2)),
    )
    agree(g, net.spikes(r, 3, 5, 1, 8, 2))


def test_pooled_read_out():
    r = rng(8)
    g = net.chain(
        ("x", net.inp(2, 4, 3)), ("c", net.conv(net.lattice(r, 4, 2, 1, 1, most=16), net.lattice(r, 4))), ("l", net.lif(4, 4, 3)),
        ("p", net.pool((4, 3))), ("f", net.flatten(4, 1, 1)), ("classes", net.affine(net.lattice(r, 5, 4), net.lattice(r, 5))),
        ("y", net.out(5)),
    )  # fmt: skip
    agree(g, net.spikes(r, 3, 5, 2, 4, 3))
    program = ingest(g)
    assert [(o.name, o.population) for o in program.outputs] == [("y", "classes")]
    assert (program["classes"].kind, program["classes"].shape, program["classes"].unit) == ("readout", (5,), 1.0)


def test_a_read_out_of_two_paths_and_a_second_output():
    r = rng(9)
    g = net.graph(
        {
            "x": net.inp(3), "i": net.linear(2 * np.eye(3)), "l": net.lif(3), "a": net.affine(net.lattice(r, 2, 3), net.lattice(r, 2)),
            "b": net.affine(net.lattice(r, 2, 3), net.lattice(r, 2)), "sum": net.out(2), "trains": net.out(3),
        },
        [("x", "i"), ("i", "l"), ("l", "a"), ("x", "b"), ("a", "sum"), ("b", "sum"), ("l", "trains")],
    )  # fmt: skip
    agree(g, net.spikes(r, 3, 5, 3))
    assert {o.name: o.population for o in ingest(g).outputs} == {"sum": "sum", "trains": "l"}


def test_the_file_s_dt_comes_before_the_caller_s():
    nodes = [("x", net.inp(1)), ("d", net.linear(np.ones((1, 1)))), ("l", net.lif(1, tau=2e-3)), ("y", net.out(1))]
    assert ingest(net.chain(*nodes, dt=1e-3), dt=5e-4)["l"].neuron.decay == 0.5
    unnamed = net.chain(*nodes)
    del unnamed.metadata["dt"]
    assert ingest(unnamed, dt=5e-4)["l"].neuron.decay == 0.25
    assert ingest(unnamed)["l"].neuron.decay == net.F32(1e-4) / net.F32(2e-3)


def test_a_student_s_shape_of_network_with_an_analog_input():
    r = rng(18)
    g = net.student_like(r)
    x = np.broadcast_to(net.lattice(r, 3, 1, 2, 4, 3, most=16), (3, 4, 2, 4, 3))
    agree(g, x)
    program = ingest(g)
    assert program.analog == {"x"}
    assert (program.steps, program.dt, program.precision) == (4, net.DT, "float")
    assert [p.name for p in program.populations] == [
        "x", "encoder", "spatial", "qkv", "attend.m", "attend.z", "proj", "temporal", "classes",
    ]  # fmt: skip


def test_analog_by_the_caller():
    r = rng(19)
    g = net.chain(("x", net.inp(3)), ("d", net.linear(net.lattice(r, 4, 3))), ("l", net.lif(4)), ("y", net.out(4)))
    assert ingest(g).analog == frozenset()
    agree(g, net.lattice(r, 3, 5, 3, most=32), analog=("x",))
    with pytest.raises(DeployError, match="analog inputs z: the graph has no such input"):
        ingest(g, analog=("x", "z"))


def parallel(r: np.random.Generator) -> nir.NIRGraph:
    """Three populations side by side, which only their names put in an order."""
    nodes, edges = (
        {"x": net.inp(2, 4, 3), "joined": net.lif(5, 4, 3, threshold=0.25), "y": net.out(5, 4, 3)},
        [("joined", "y")],
    )
    for name in "bca":
        nodes |= {f"to_{name}": net.conv(net.lattice(r, 4, 2, 1, 1)), name: net.lif(4, 4, 3, threshold=0.25)}
        nodes[f"from_{name}"] = net.conv(net.lattice(r, 5, 4, 1, 1))
        edges += [("x", f"to_{name}"), (f"to_{name}", name), (name, f"from_{name}"), (f"from_{name}", "joined")]
    return net.graph(nodes, edges)


@pytest.mark.parametrize("network", [net.student_like, parallel])
def test_the_order_of_nodes_and_edges_in_the_file_has_no_effect(network):
    r = rng(20)
    g = network(r)
    x = net.lattice(r, 3, 4, 2, 4, 3, most=16) if network is net.student_like else net.spikes(r, 3, 4, 2, 4, 3)
    expected = run(compiled(g), x)
    for seed in range(3):
        names, edges = list(g.nodes), list(g.edges)
        rng(seed).shuffle(names)
        rng(seed).shuffle(edges)
        program = ingest(net.graph({name: g.nodes[name] for name in names}, edges, **g.metadata))
        assert [p.name for p in program.populations] == [p.name for p in ingest(g).populations]
        assert [p.name for p in program.projections] == [p.name for p in ingest(g).projections]
        actual = run(balance(host_split(program)), x)
        net.assert_same_spikes(actual.spikes, expected.spikes)
        np.testing.assert_array_equal(actual.outputs["y"], expected.outputs["y"])


class Foreign(nir.NIRNode):
    """A node type that nobody knows."""

    def __init__(self):
        self.input_type, self.output_type = {"input": np.array([2])}, {"output": np.array([2])}


def test_a_node_that_cannot_be_run_is_named_with_its_type_and_a_remedy():
    g = net.chain(
        ("x", net.inp(2)), ("d", net.linear(np.eye(2))), ("culprit", Foreign()), ("l", net.lif(2)), ("y", net.out(2))
    )
    with pytest.raises(
        DeployError, match=r"^node culprit: Foreign cannot be run here; rewrite the node with NIR's own primitives, .*$"
    ):
        ingest(g)


def test_a_value_that_is_not_finite_is_named():
    g = net.chain(("x", net.inp(2)), ("d", net.linear([[np.nan, 1], [1, 1]])), ("l", net.lif(2)), ("y", net.out(2)))
    with pytest.raises(DeployError, match="node d: weight holds a value that is not finite; repair the file"):
        ingest(g)


def test_two_outputs_of_one_node_by_different_paths_have_different_values():
    r = rng(40)
    g = net.graph(
        {
            "x": net.inp(1, 4, 4), "c": net.conv(net.lattice(r, 1, 1, 1, 1)), "p": net.pool((3, 3), (1, 1), (1, 1)),
            "late": nir.Delay(np.full((1, 4, 4), 2 * net.DT)), "y": net.out(1, 4, 4), "z": net.out(1, 4, 4), "w": net.out(1, 4, 4),
        },
        [("x", "c"), ("c", "y"), ("c", "p"), ("p", "z"), ("c", "late"), ("late", "w")],
    )  # fmt: skip
    x = net.spikes(r, 2, 5, 1, 4, 4)
    outputs = run(compiled(g), x).outputs
    plain = x * g.nodes["c"].weight.item()
    np.testing.assert_array_equal(outputs["y"], plain)
    np.testing.assert_array_equal(outputs["w"][:, 2:], plain[:, :-2])
    padded = np.pad(plain, [(0, 0)] * 3 + [(1, 1)] * 2)
    np.testing.assert_array_equal(
        outputs["z"], sum(padded[..., i : i + 4, j : j + 4] for i in range(3) for j in range(3))
    )


def test_an_output_of_another_shape_than_its_population_is_named():
    g = net.chain(("x", net.inp(2)), ("d", net.linear(np.eye(2))), ("l", net.lif(2)), ("y", net.out(7)))
    with pytest.raises(DeployError, match=r"type mismatch: l\.output \(2,\) -> y\.input \(7,\)"):
        ingest(g)


def test_axes_that_count_a_batch_are_named():
    g = net.chain(("x", net.inp(4)), ("f", net.flatten(4, start=1)), ("l", net.lif(4)), ("y", net.out(4)))
    with pytest.raises(DeployError, match="node f: Flatten takes axes 1 to -1, the batch's not counted"):
        ingest(g)


def test_a_read_out_of_another_shape_is_named():
    g = net.chain(
        ("x", net.inp(2)),
        ("d", net.linear(np.eye(2))),
        ("l", net.lif(2)),
        ("e", net.linear(np.ones((3, 2)))),
        ("y", net.out(4)),
    )
    with pytest.raises(DeployError, match=r"type mismatch: e\.output \(3,\) -> .*\.input \(4,\)"):
        ingest(g)


def test_an_edge_between_populations_is_synapses_of_weight_1():
    r = rng(31)
    g = net.chain(
        ("x", net.inp(3)), ("d", net.linear(net.lattice(r, 3, 3, most=24))), ("l", net.lif(3, threshold=0.25)),
        ("k", net.lif(3, threshold=0.4)), ("y", net.out(3))
    )  # fmt: skip
    agree(g, net.spikes(r, 4, 6, 3))
    (projection,) = ingest(g).into("k")
    assert (projection.name, projection.kind, projection.operators) == ("l_k", "identity", ())


def test_two_outputs_may_have_the_same_source():
    g = net.graph(
        {"x": net.inp(2), "d": net.linear(np.eye(2)), "y": net.out(2), "z": net.out(2)},
        [("x", "d"), ("d", "y"), ("d", "z")],
    )
    outputs = run(compiled(g), np.ones((1, 1, 2))).outputs
    assert outputs["y"].tolist() == outputs["z"].tolist() == [[[1.0, 1.0]]]


def test_attention_must_follow_one_population():
    node = net.attention(1)
    with pytest.raises(DeployError, match=r"node a: attention must follow one LIF population of q\|k\|v spikes"):
        ingest(
            net.chain(
                ("x", net.inp(3, 1, 2)), ("c", net.conv(np.ones((3, 3, 1, 1)))), ("a", node), ("y", net.out(1, 1, 2))
            )
        )
    with pytest.raises(DeployError, match="node a: attention must follow one LIF"):
        ingest(net.chain(("x", net.inp(3, 1, 2)), ("a", node), ("y", net.out(1, 1, 2))))
