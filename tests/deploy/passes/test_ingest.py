"""mksgn/deploy/passes/ingest: NIR graphs against a forward-Euler loop of NIR's own equations, and every refusal."""

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Program
from mksgn.export.errors import UnsupportedNodeError
from tests.support.graphs import (
    DT,
    F32,
    Euler,
    affine,
    assert_same_spikes,
    attention,
    chain,
    conv,
    flatten,
    graph,
    graph_conv,
    inp,
    ladder,
    lattice,
    lif,
    linear,
    out,
    pool,
    ring,
    spikes,
    student_like,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def compiled(g: nir.NIRGraph, **options) -> Program:
    return balance(host_split(ingest(g, **options)))


def agree(g: nir.NIRGraph, x: np.ndarray, *, analog=(), exact: bool = True, dt: float = DT) -> Euler:
    """Ingest and emulate; no decision may differ from the NIR equations, and no output."""
    (name,) = (n for n, node in g.nodes.items() if isinstance(node, nir.Input))
    wanted = Euler(g, {name: x}, float(g.metadata.get("dt", dt)))
    found = run(compiled(g, dt=dt, analog=analog), x)
    if not exact:
        assert wanted.margin > 1e-4  # float32 cannot turn such a decision
    assert_same_spikes(found.spikes, wanted.spikes)
    for name, node in g.nodes.items():
        if isinstance(node, nir.Output):
            np.testing.assert_array_equal(found.outputs[name], wanted.values[name].astype(F32))
    return wanted


# --- the meaning ----------------------------------------------------------------------------------


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
    node = conv(lattice(r, 4, 4 // options.get("groups", 1), 3, 3), lattice(r, 4), **options)
    after = (
        Euler(chain(("x", inp(*shape)), ("c", node), ("y", out(1))), {"x": np.zeros((1, 1, *shape))})
        .values["c"]
        .shape[2:]
    )
    agree(chain(("x", inp(*shape)), ("c", node), ("l", lif(*after)), ("y", out(*after))), spikes(r, 3, 5, *shape))


def test_two_branches_join_at_the_membrane_with_both_biases():
    r = rng(2)
    g = graph(
        {
            "x": inp(2, 3, 3), "a": conv(lattice(r, 3, 2, 3, 3), lattice(r, 3), padding=1), "first": lif(3, 3, 3),
            "b": conv(lattice(r, 4, 3, 1, 1), lattice(r, 4)), "c": conv(lattice(r, 4, 2, 1, 1), lattice(r, 4)),
            "joined": lif(4, 3, 3), "y": out(4, 3, 3),
        },
        [("x", "a"), ("a", "first"), ("first", "b"), ("b", "joined"), ("x", "c"), ("c", "joined"), ("joined", "y")],
    )  # fmt: skip
    agree(g, spikes(r, 3, 6, 2, 3, 3))
    bias = ingest(g)["joined"].neuron.bias
    np.testing.assert_array_equal(bias.ravel(), g.nodes["b"].bias + g.nodes["c"].bias)


def test_graph_conv_with_weighted_subsets():
    r = rng(3)
    adjacency = ring(4) * lattice(r, 3, 4, 4, most=4)  # weights on edges, zeros where the ring has none
    g = chain(
        ("x", inp(2, 3, 4)),
        ("g", graph_conv(adjacency, lattice(r, 3, 3, 2), lattice(r, 3))),
        ("l", lif(3, 3, 4, threshold=0.25)),
        ("y", out(3, 3, 4)),
    )
    agree(g, spikes(r, 3, 5, 2, 3, 4))
    (projection,) = ingest(g).into("l")
    (operator,) = projection.operators
    assert isinstance(operator, ops.GraphConv)
    assert len(operator.weight) == int((np.abs(adjacency).sum(0) > 0).sum())  # one block per edge, and none beside


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.5, 2.0), ([0.5, 2.0], [1.0, 0.25])])
def test_attention(gains):
    r = rng(4)
    node = attention(2, *gains, threshold_m=[0.5, 0.75], threshold_z=[0.75, 0.25])
    g = graph(
        {
            "x": inp(2, 2, 3), "c": conv(lattice(r, 12, 2, 1, 1, most=16), lattice(r, 12)),
            "qkv": lif(12, 2, 3, threshold=0.125),
            "attend": node, "p": conv(lattice(r, 2, 4, 1, 1, most=16), [0.125, 0.25]),
            "l": lif(2, 2, 3, threshold=0.125),
            "y": out(2, 2, 3), "z": out(4, 2, 3),
        },
        [("x", "c"), ("c", "qkv"), ("qkv", "attend"), ("attend", "p"), ("p", "l"), ("l", "y"), ("attend", "z")],
    )  # fmt: skip
    agree(g, spikes(r, 4, 6, 2, 2, 3, rate=0.6))
    program = ingest(g)
    assert (program["attend.m"].shape, program["attend.z"].shape) == ((2, 2, 3, 3), (4, 2, 3))


def test_equal_gains_stay_the_weight_and_unequal_ones_go_into_the_thresholds():
    def products(*gains):
        g = chain(
            ("x", inp(2, 1, 2)),
            ("c", conv(np.ones((6, 2, 1, 1)))),
            ("qkv", lif(6, 1, 2)),
            ("a", attention(2, *gains)),
            ("y", out(2, 1, 2)),
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
    node = conv(lattice(r, 3, 2, 3, 1), lattice(r, 3), padding=(1, 0))
    g = chain(
        ("x", inp(2, frames, 3)),
        ("c", node),
        ("p", pool((1, 1), (2, 1))),
        ("l", lif(3, after, 3, threshold=0.25)),
        ("y", out(3, after, 3)),
    )
    agree(g, spikes(r, 3, 5, 2, frames, 3))
    (projection,) = ingest(g).into("l")
    (operator,) = projection.operators
    assert (operator.kind, operator.stride, operator.padding) == ("conv", (2, 1), (1, 0))


@pytest.mark.parametrize("pooling", [pool((2, 1), (2, 1)), pool((2, 2), (1, 1), (1, 1))], ids=["a sum", "padded"])
def test_other_pools_are_not_merged(pooling):
    r = rng(6)
    node = conv(lattice(r, 2, 2, 3, 1), lattice(r, 2), padding=(1, 0))
    after = (
        Euler(chain(("x", inp(2, 4, 2)), ("c", node), ("p", pooling), ("y", out(1))), {"x": np.zeros((1, 1, 2, 4, 2))})
        .values["p"]
        .shape[2:]
    )
    g = chain(("x", inp(2, 4, 2)), ("c", node), ("p", pooling), ("l", lif(*after)), ("y", out(*after)))
    agree(g, spikes(r, 3, 5, 2, 4, 2))
    assert [op.kind for op in ingest(g).projections[0].operators] == ["conv", "pool"]


def test_a_strided_conv_is_not_merged_again():
    r = rng(7)
    g = chain(
        ("x", inp(1, 8, 2)),
        ("c", conv(lattice(r, 2, 1, 3, 1), lattice(r, 2), stride=(2, 1))),
        ("p", pool((1, 1), (2, 1))),
        ("l", lif(2, 2, 2)),
        ("y", out(2, 2, 2)),
    )
    agree(g, spikes(r, 3, 5, 1, 8, 2))


def test_pooled_read_out():
    r = rng(8)
    g = chain(
        ("x", inp(2, 4, 3)), ("c", conv(lattice(r, 4, 2, 1, 1, most=16), lattice(r, 4))), ("l", lif(4, 4, 3)),
        ("p", pool((4, 3))), ("f", flatten(4, 1, 1)), ("classes", affine(lattice(r, 5, 4), lattice(r, 5))),
        ("y", out(5)),
    )  # fmt: skip
    agree(g, spikes(r, 3, 5, 2, 4, 3))
    program = ingest(g)
    assert [(o.name, o.population) for o in program.outputs] == [("y", "classes")]
    assert (program["classes"].kind, program["classes"].shape, program["classes"].unit) == ("readout", (5,), 1.0)


def test_a_read_out_of_two_branches_and_a_second_output():
    r = rng(9)
    g = graph(
        {
            "x": inp(3), "i": linear(2 * np.eye(3)), "l": lif(3), "a": affine(lattice(r, 2, 3), lattice(r, 2)),
            "b": affine(lattice(r, 2, 3), lattice(r, 2)), "sum": out(2), "trains": out(3),
        },
        [("x", "i"), ("i", "l"), ("l", "a"), ("x", "b"), ("a", "sum"), ("b", "sum"), ("l", "trains")],
    )  # fmt: skip
    agree(g, spikes(r, 3, 5, 3))
    assert {o.name: o.population for o in ingest(g).outputs} == {"sum": "sum", "trains": "l"}


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((2, 4, 4), [("p", pool((2, 2)))]),
        ((2, 4, 4), [("p", pool((2, 2), (1, 1), (1, 1)))]),  # at the border a window holds fewer neurons, and less bias
        ((2, 2, 2), [("f", flatten(3, 2, 2)), ("d", affine(lattice(rng(1), 4, 12), lattice(rng(2), 4)))]),
        ((2, 2, 3), [("d", linear(lattice(rng(3), 3, 3)))]),  # a graph conv in stock primitives
        ((2, 2, 3), [("d", affine(lattice(rng(4), 4, 3), lattice(rng(5), 4)))]),
        ((2, 2, 3), [("s", nir.Scale(lattice(rng(6), 3, 2, 3)))]),
        ((2, 3, 3), [("d", conv(lattice(rng(7), 2, 3, 3, 3), lattice(rng(8), 2), padding=1))]),
        ((2, 3, 3), [("g", graph_conv(ring(3), lattice(rng(9), 3, 2, 3), lattice(rng(10), 2)))]),
    ],
    ids=["pool", "padded pool", "flatten, affine", "linear", "affine", "scale", "conv", "graph conv"],
)  # fmt: skip
def test_biases_go_through_the_linear_nodes_behind_them(shape, middle):
    r = rng(11)
    first = ("c", conv(lattice(r, 3, 2, 1, 1), np.array([0.5, -0.25, 0.75])))
    nodes = [("x", inp(*shape)), first, *middle]
    after = Euler(chain(*nodes, ("y", out(1))), {"x": np.zeros((1, 1, *shape))}).values[middle[-1][0]].shape[2:]
    g = chain(*nodes, ("l", lif(*after, threshold=0.25)), ("y", out(*after)))
    wanted = agree(g, spikes(r, 4, 5, *shape))
    program = ingest(g)
    alone = Euler(chain(*nodes, ("y", out(1))), {"x": np.zeros((1, 1, *shape))}).values["y"][0, 0]
    np.testing.assert_array_equal(np.broadcast_to(program["l"].neuron.bias, after), alone)
    assert wanted.current["l"].shape[2:] == after


@pytest.mark.parametrize("bias", [[1.0, -2.0], [0.0, 0.0]])
def test_biases_of_a_read_out_behind_pooling(bias):
    r = rng(12)
    g = graph(
        {"x": inp(2, 2, 2), "c": conv(lattice(r, 2, 2, 1, 1), bias), "p": pool((2, 2)), "y": out(2, 1, 1)},
        [("x", "c"), ("c", "p"), ("p", "y")],
    )
    x = spikes(r, 2, 3, 2, 2, 2)
    np.testing.assert_array_equal(run(compiled(g), x).outputs["y"], Euler(g, {"x": x}).values["y"])


def test_a_bias_that_ends_in_one_neuron_is_kept():
    g = chain(("x", inp(1, 2, 2)), ("c", conv(np.ones((1, 1, 1, 1)), [3.0])), ("p", pool((2, 2))), ("y", out(1, 1, 1)))
    x = np.zeros((1, 1, 1, 2, 2))
    assert run(compiled(g), x).outputs["y"].item() == Euler(g, {"x": x}).values["y"].item() == 12.0


def test_a_bias_of_zeros_goes_through_a_flatten():
    r = rng(13)
    g = chain(
        ("x", inp(1, 2, 2)),
        ("c", conv(lattice(r, 2, 1, 1, 1), [0.0, 0.0])),
        ("f", flatten(2, 2, 2)),
        ("d", linear(lattice(r, 3, 8))),
        ("l", lif(3)),
        ("y", out(3)),
    )
    agree(g, spikes(r, 3, 5, 1, 2, 2))


@pytest.mark.parametrize("tau_steps", [1, 2, 4])
@pytest.mark.parametrize("r", [1.0, 2.0, 0.25])
def test_time_constants_and_resistance(tau_steps, r):
    g = rng(14)
    net = chain(
        ("x", inp(4)),
        ("d", affine(lattice(g, 6, 4, most=24), lattice(g, 6))),
        ("l", lif(6, tau=tau_steps * DT, r=r, threshold=0.25)),
        ("y", out(6)),
    )
    agree(net, spikes(g, 6, 6, 4))
    neuron = ingest(net)["l"].neuron
    assert neuron.decay == 1 / tau_steps
    assert neuron.threshold.item() == 0.25 * tau_steps / r


def test_other_ratios_of_dt_and_tau():
    r = rng(15)
    net = chain(
        ("x", inp(4)),
        ("d", affine(lattice(r, 6, 4, most=24), lattice(r, 6))),
        ("l", lif(6, tau=3 * DT, threshold=0.913, r=1.7)),
        ("y", out(6)),
    )
    agree(net, spikes(r, 4, 6, 4), exact=False)


def test_dt_over_tau_is_rounded_to_float32():
    """In double, dt over a float32 tau of 2e-4 is 0.5000000126, and lattice sums would no longer be exact."""
    assert 1e-4 / float(F32(2e-4)) != 0.5
    net = chain(("x", inp(1)), ("d", linear(np.ones((1, 1)))), ("l", lif(1, tau=2e-4)), ("y", out(1)))
    assert ingest(net)["l"].neuron.decay == 0.5


def test_the_file_s_dt_comes_before_the_caller_s():
    nodes = [("x", inp(1)), ("d", linear(np.ones((1, 1)))), ("l", lif(1, tau=2e-3)), ("y", out(1))]
    assert ingest(chain(*nodes, dt=1e-3), dt=5e-4)["l"].neuron.decay == 0.5
    unnamed = chain(*nodes)
    del unnamed.metadata["dt"]
    assert ingest(unnamed, dt=5e-4)["l"].neuron.decay == 0.25
    assert ingest(unnamed)["l"].neuron.decay == F32(1e-4) / F32(2e-3)


def test_a_leak_is_a_bias_and_a_reset_is_kept():
    """State starts at 0, so that nothing is shifted to the resting potential."""
    r = rng(16)
    net = chain(
        ("x", inp(4)),
        ("d", affine(lattice(r, 6, 4, most=24), lattice(r, 6))),
        ("l", lif(6, leak=0.5, threshold=1.25, reset=-0.25)),
        ("y", out(6)),
    )
    agree(net, spikes(r, 4, 6, 4))
    neuron = ingest(net)["l"].neuron
    assert (neuron.threshold.item(), neuron.reset.item()) == (2.5, -0.5)  # tau/dt of them
    np.testing.assert_array_equal(neuron.bias, net.nodes["d"].bias + 0.5)


def test_a_threshold_per_neuron():
    r = rng(17)
    thresholds = np.array([0.25, 0.5, 1.0, 2.0])
    net = chain(
        ("x", inp(3)),
        ("d", affine(lattice(r, 4, 3, most=24), lattice(r, 4))),
        ("l", lif(4, threshold=thresholds)),
        ("y", out(4)),
    )
    agree(net, spikes(r, 4, 6, 3))
    np.testing.assert_array_equal(ingest(net)["l"].neuron.threshold, 2 * thresholds)


def test_a_student_s_shape_of_network_with_an_analog_input():
    r = rng(18)
    g = student_like(r)
    x = np.broadcast_to(lattice(r, 3, 1, 2, 4, 3, most=16), (3, 4, 2, 4, 3))
    agree(g, x)
    program = ingest(g)
    assert program.analog == {"x"}
    assert (program.steps, program.dt, program.precision) == (4, DT, "float")
    assert [p.name for p in program.populations] == [
        "x", "encoder", "spatial", "qkv", "attend.m", "attend.z", "proj", "temporal", "classes",
    ]  # fmt: skip


def test_analog_by_the_caller():
    r = rng(19)
    g = chain(("x", inp(3)), ("d", linear(lattice(r, 4, 3))), ("l", lif(4)), ("y", out(4)))
    assert ingest(g).analog == frozenset()
    agree(g, lattice(r, 3, 5, 3, most=32), analog=("x",))
    with pytest.raises(DeployError, match="analog inputs z: the graph has no such input"):
        ingest(g, analog=("x", "z"))


def parallel(r: np.random.Generator) -> nir.NIRGraph:
    """Three populations side by side, which only their names put in an order."""
    nodes, edges = {"x": inp(2, 4, 3), "joined": lif(5, 4, 3, threshold=0.25), "y": out(5, 4, 3)}, [("joined", "y")]
    for name in "bca":
        nodes |= {f"to_{name}": conv(lattice(r, 4, 2, 1, 1)), name: lif(4, 4, 3, threshold=0.25)}
        nodes[f"from_{name}"] = conv(lattice(r, 5, 4, 1, 1))
        edges += [("x", f"to_{name}"), (f"to_{name}", name), (name, f"from_{name}"), (f"from_{name}", "joined")]
    return graph(nodes, edges)


@pytest.mark.parametrize("network", [student_like, parallel])
def test_the_order_of_nodes_and_edges_in_the_file_has_no_effect(network):
    r = rng(20)
    g = network(r)
    x = lattice(r, 3, 4, 2, 4, 3, most=16) if network is student_like else spikes(r, 3, 4, 2, 4, 3)
    wanted = run(compiled(g), x)
    for seed in range(3):
        names, edges = list(g.nodes), list(g.edges)
        rng(seed).shuffle(names)
        rng(seed).shuffle(edges)
        program = ingest(graph({name: g.nodes[name] for name in names}, edges, **g.metadata))
        assert [p.name for p in program.populations] == [p.name for p in ingest(g).populations]
        assert [p.name for p in program.projections] == [p.name for p in ingest(g).projections]
        found = run(balance(host_split(program)), x)
        assert_same_spikes(found.spikes, wanted.spikes)
        np.testing.assert_array_equal(found.outputs["y"], wanted.outputs["y"])


def test_constant_parameters_are_kept_once():
    neuron = ingest(student_like(rng(21)))["spatial"].neuron
    assert neuron.threshold.shape == (1, 1, 1)
    assert neuron.bias.shape == (4, 1, 1)


# --- what cannot be run ---------------------------------------------------------------------------


class Foreign(nir.NIRNode):
    """A node type that nobody knows."""

    def __init__(self):
        self.input_type, self.output_type = {"input": np.array([2])}, {"output": np.array([2])}


def test_a_node_that_cannot_be_run_is_named_with_its_type_and_a_remedy():
    g = chain(("x", inp(2)), ("d", linear(np.eye(2))), ("culprit", Foreign()), ("l", lif(2)), ("y", out(2)))
    with pytest.raises(
        DeployError,
        match=r"^node culprit: Foreign cannot be run here; rewrite the node with NIR's own primitives, .*$",
    ):
        ingest(g)


def test_a_value_that_is_not_finite_is_named():
    g = chain(("x", inp(2)), ("d", linear([[np.nan, 1], [1, 1]])), ("l", lif(2)), ("y", out(2)))
    with pytest.raises(DeployError, match="node d: weight holds a value that is not finite; repair the file"):
        ingest(g)


def test_a_loop_without_a_population_is_named():
    delay = nir.Delay(np.full(2, DT, F32))
    g = graph(
        {"x": inp(2), "d": linear(np.eye(2)), "late": delay, "back": linear(np.eye(2) / 2), "l": lif(2), "y": out(2)},
        [("x", "d"), ("d", "late"), ("late", "back"), ("back", "d"), ("d", "l"), ("l", "y")],
    )
    with pytest.raises(UnsupportedNodeError, match=r"nodes .*: a loop without a population in it; put one there"):
        ingest(g)


def test_a_delay_between_time_steps_is_named():
    g = chain(("x", inp(2)), ("late", nir.Delay(np.array([DT, 1.5 * DT]))), ("l", lif(2)), ("y", out(2)))
    with pytest.raises(
        UnsupportedNodeError, match=r"node late: a delay of 0\.00015 s is no whole number of steps of 0\.0001 s"
    ):
        ingest(g)


def test_a_delay_of_another_shape_is_named():
    g = chain(("x", inp(2)), ("late", nir.Delay(np.full(3, DT))), ("l", lif(2)), ("y", out(2)))
    with pytest.raises(DeployError, match=r"node late: Delay takes \(3,\), its source has \(2,\)"):
        ingest(g)


def test_two_outputs_of_one_node_by_different_ways_show_different_values():
    r = rng(40)
    g = graph(
        {
            "x": inp(1, 4, 4), "c": conv(lattice(r, 1, 1, 1, 1)), "p": pool((3, 3), (1, 1), (1, 1)),
            "late": nir.Delay(np.full((1, 4, 4), 2 * DT)), "y": out(1, 4, 4), "z": out(1, 4, 4), "w": out(1, 4, 4),
        },
        [("x", "c"), ("c", "y"), ("c", "p"), ("p", "z"), ("c", "late"), ("late", "w")],
    )  # fmt: skip
    x = spikes(r, 2, 5, 1, 4, 4)
    outputs = run(compiled(g), x).outputs
    plain = x * g.nodes["c"].weight.item()
    np.testing.assert_array_equal(outputs["y"], plain)
    np.testing.assert_array_equal(outputs["w"][:, 2:], plain[:, :-2])
    padded = np.pad(plain, [(0, 0)] * 3 + [(1, 1)] * 2)
    np.testing.assert_array_equal(
        outputs["z"], sum(padded[..., i : i + 4, j : j + 4] for i in range(3) for j in range(3))
    )


def test_an_output_of_another_shape_than_its_population_is_named():
    g = chain(("x", inp(2)), ("d", linear(np.eye(2))), ("l", lif(2)), ("y", out(7)))
    with pytest.raises(DeployError, match=r"type mismatch: l\.output \(2,\) -> y\.input \(7,\)"):
        ingest(g)


def test_axes_that_count_a_batch_are_named():
    g = chain(("x", inp(4)), ("f", flatten(4, start=1)), ("l", lif(4)), ("y", out(4)))
    with pytest.raises(DeployError, match="node f: Flatten takes axes 1 to -1, the batch's not counted"):
        ingest(g)


@pytest.mark.parametrize(
    ("operator", "shape"),
    [(conv(np.ones((3, 2, 1, 1))), (2, 4, 3)), (conv(np.ones((2, 2, 2, 1))), (2, 4, 3)), (pool((2, 2)), (2, 2, 2))],
)
def test_shapes_that_do_not_meet_are_named(operator, shape):
    g = chain(("x", inp(2, 4, 3)), ("d", operator), ("l", lif(*shape)), ("y", out(*shape)))
    with pytest.raises(DeployError, match=r"type mismatch: d\.output \(.*\) -> l\.input \(2, "):
        ingest(g)


def test_a_read_out_of_another_shape_is_named():
    g = chain(("x", inp(2)), ("d", linear(np.eye(2))), ("l", lif(2)), ("e", linear(np.ones((3, 2)))), ("y", out(4)))
    with pytest.raises(DeployError, match=r"type mismatch: e\.output \(3,\) -> .*\.input \(4,\)"):
        ingest(g)


@pytest.mark.parametrize(
    ("operator", "source", "target"),
    [
        (conv(np.ones((2, 3, 1, 1))), (2, 4, 3), (2, 4, 3)),
        (linear(np.ones((3, 4))), (2,), (3,)),
        (graph_conv(ring(3), np.ones((3, 2, 3))), (2, 4, 3), (2, 4, 3)),
        (graph_conv(ring(4), np.ones((3, 2, 2))), (2, 4, 3), (2, 4, 3)),
    ],
)
def test_weights_that_do_not_meet_their_source_are_named(operator, source, target):
    g = chain(("x", inp(*source)), ("d", operator), ("l", lif(*target)), ("y", out(*target)))
    with pytest.raises(DeployError, match="d"):
        ingest(g)


def test_a_sum_at_a_linear_node_is_a_way_for_each_of_its_branches():
    r = rng(30)
    g = graph(
        {
            "x": inp(2), "a": affine(lattice(r, 2, 2), lattice(r, 2)), "b": linear(lattice(r, 2, 2)),
            "sum": affine(lattice(r, 2, 2, most=24), lattice(r, 2)), "l": lif(2, threshold=0.25), "y": out(2),
        },
        [("x", "a"), ("x", "b"), ("a", "sum"), ("b", "sum"), ("sum", "l"), ("l", "y")],
    )  # fmt: skip
    agree(g, spikes(r, 4, 6, 2))
    assert [p.name for p in ingest(g).into("l")] == ["a", "b"]


def test_branches_of_different_shapes_are_named():
    g = graph(
        {"x": inp(2), "a": linear(np.ones((3, 2))), "l": lif(2), "y": out(2)},
        [("x", "a"), ("x", "l"), ("a", "l"), ("l", "y")],
    )
    with pytest.raises(DeployError, match=r"node l: edges of different shapes lead into it: \(2,\), \(3,\)"):
        ingest(g)


@pytest.mark.parametrize("joins", [9, 40])
def test_more_linear_paths_than_the_limit_are_refused(joins):
    message = "node s8: 512 linear paths lead into it, more than 256; put a population between them"
    with pytest.raises(UnsupportedNodeError, match=message):
        compile_graph(ladder(joins), calibration=np.ones((2, 4, 2)))


def test_a_linear_node_without_a_source_is_named():
    g = graph({"x": inp(2), "d": linear(np.eye(2)), "l": lif(2), "y": out(2)}, [("d", "l"), ("l", "y")])
    with pytest.raises(UnsupportedNodeError, match="node d: no edge leads into it; connect it, or leave it out"):
        ingest(g)


def test_a_population_without_a_source_is_named():
    g = graph({"x": inp(2), "l": lif(2), "y": out(2)}, [("l", "y")])
    with pytest.raises(UnsupportedNodeError, match="node l: no edge leads into it"):
        ingest(g)


def test_an_edge_between_populations_is_synapses_of_weight_1():
    r = rng(31)
    g = chain(
        ("x", inp(3)), ("d", linear(lattice(r, 3, 3, most=24))), ("l", lif(3, threshold=0.25)),
        ("k", lif(3, threshold=0.4)), ("y", out(3))
    )  # fmt: skip
    agree(g, spikes(r, 4, 6, 3))
    (projection,) = ingest(g).into("k")
    assert (projection.name, projection.kind, projection.operators) == ("l_k", "identity", ())


def test_two_outputs_may_show_the_same_node():
    g = graph({"x": inp(2), "d": linear(np.eye(2)), "y": out(2), "z": out(2)}, [("x", "d"), ("d", "y"), ("d", "z")])
    outputs = run(compiled(g), np.ones((1, 1, 2))).outputs
    assert outputs["y"].tolist() == outputs["z"].tolist() == [[[1.0, 1.0]]]


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (
            lif(2, tau=5e-5),
            r"node l: dt/tau runs from 2 to 2, outside \(0, 1\]: the time step is longer than .*; set --dt",
        ),
        (lif(2, tau=[5e-5, 2e-4]), r"node l: dt/tau runs from 0\.5 to 2, outside"),
        (
            lif(2, threshold=-50, leak=-65),
            r"node l: v_threshold \(-50\) lies below 0, where its state starts.* rests at 0",
        ),
    ],
)
def test_parameters_that_no_population_can_have(neuron, message):
    with pytest.raises(DeployError, match=message):
        ingest(chain(("x", inp(2)), ("d", linear(np.eye(2))), ("l", neuron), ("y", out(2))))


def test_padding_same_with_a_stride_is_refused():
    g = chain(
        ("x", inp(1, 4, 4)),
        ("c", conv(np.ones((1, 1, 3, 3)), padding="same", stride=2)),
        ("l", lif(1, 4, 4)),
        ("y", out(1, 4, 4)),
    )
    with pytest.raises(DeployError, match="node c: padding 'same' needs stride 1; write the padding as numbers"):
        ingest(g)


def test_attention_must_follow_one_population():
    node = attention(1)
    with pytest.raises(DeployError, match=r"node a: attention must follow one LIF population of q\|k\|v spikes"):
        ingest(chain(("x", inp(3, 1, 2)), ("c", conv(np.ones((3, 3, 1, 1)))), ("a", node), ("y", out(1, 1, 2))))
    with pytest.raises(DeployError, match="node a: attention must follow one LIF"):
        ingest(chain(("x", inp(3, 1, 2)), ("a", node), ("y", out(1, 1, 2))))
