"""mksgn/deploy/passes/linear_paths: sums over linear paths, their biases, and graphs that are refused."""

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.ingest import ingest
from mksgn.export.errors import UnsupportedNodeError
from tests.deploy.passes.networks import agree, compiled, rng
from tests.support import graphs as net


@pytest.mark.parametrize(
    ("shape", "middle"),
    [
        ((2, 4, 4), [("p", net.pool((2, 2)))]),
        ((2, 4, 4), [("p", net.pool((2, 2), (1, 1), (1, 1)))]),  # at the border a window holds fewer neurons, and less bias
        ((2, 2, 2), [("f", net.flatten(3, 2, 2)), ("d", net.affine(net.lattice(rng(1), 4, 12), net.lattice(rng(2), 4)))]),
        ((2, 2, 3), [("d", net.linear(net.lattice(rng(3), 3, 3)))]),  # a graph conv in stock primitives
        ((2, 2, 3), [("d", net.affine(net.lattice(rng(4), 4, 3), net.lattice(rng(5), 4)))]),
        ((2, 2, 3), [("s", nir.Scale(net.lattice(rng(6), 3, 2, 3)))]),
        ((2, 3, 3), [("d", net.conv(net.lattice(rng(7), 2, 3, 3, 3), net.lattice(rng(8), 2), padding=1))]),
        ((2, 3, 3), [("g", net.graph_conv(net.ring(3), net.lattice(rng(9), 3, 2, 3), net.lattice(rng(10), 2)))]),
    ],
    ids=["pool", "padded pool", "flatten, affine", "linear", "affine", "scale", "conv", "graph conv"],
)  # fmt: skip
def test_biases_go_through_the_linear_nodes_after_them(shape, middle):
    r = rng(11)
    first = ("c", net.conv(net.lattice(r, 3, 2, 1, 1), np.array([0.5, -0.25, 0.75])))
    nodes = [("x", net.inp(*shape)), first, *middle]
    after = (
        net.Euler(net.chain(*nodes, ("y", net.out(1))), {"x": np.zeros((1, 1, *shape))}).values[middle[-1][0]].shape[2:]
    )
    g = net.chain(*nodes, ("l", net.lif(*after, threshold=0.25)), ("y", net.out(*after)))
    expected = agree(g, net.spikes(r, 4, 5, *shape))
    program = ingest(g)
    alone = net.Euler(net.chain(*nodes, ("y", net.out(1))), {"x": np.zeros((1, 1, *shape))}).values["y"][0, 0]
    np.testing.assert_array_equal(np.broadcast_to(program["l"].neuron.bias, after), alone)
    assert expected.current["l"].shape[2:] == after


@pytest.mark.parametrize("bias", [[1.0, -2.0], [0.0, 0.0]])
def test_biases_of_a_read_out_after_pooling(bias):
    r = rng(12)
    g = net.graph(
        {
            "x": net.inp(2, 2, 2),
            "c": net.conv(net.lattice(r, 2, 2, 1, 1), bias),
            "p": net.pool((2, 2)),
            "y": net.out(2, 1, 1),
        },
        [("x", "c"), ("c", "p"), ("p", "y")],
    )
    x = net.spikes(r, 2, 3, 2, 2, 2)
    np.testing.assert_array_equal(run(compiled(g), x).outputs["y"], net.Euler(g, {"x": x}).values["y"])


def test_a_bias_that_ends_in_one_neuron_is_kept():
    g = net.chain(
        ("x", net.inp(1, 2, 2)),
        ("c", net.conv(np.ones((1, 1, 1, 1)), [3.0])),
        ("p", net.pool((2, 2))),
        ("y", net.out(1, 1, 1)),
    )
    x = np.zeros((1, 1, 1, 2, 2))
    assert run(compiled(g), x).outputs["y"].item() == net.Euler(g, {"x": x}).values["y"].item() == 12.0


def test_a_bias_of_zeros_goes_through_a_flatten():
    r = rng(13)
    g = net.chain(
        ("x", net.inp(1, 2, 2)),
        ("c", net.conv(net.lattice(r, 2, 1, 1, 1), [0.0, 0.0])),
        ("f", net.flatten(2, 2, 2)),
        ("d", net.linear(net.lattice(r, 3, 8))),
        ("l", net.lif(3)),
        ("y", net.out(3)),
    )
    agree(g, net.spikes(r, 3, 5, 1, 2, 2))


def test_a_sum_at_a_linear_node_is_a_path_for_each_of_its_edges():
    r = rng(30)
    g = net.graph(
        {
            "x": net.inp(2), "a": net.affine(net.lattice(r, 2, 2), net.lattice(r, 2)), "b": net.linear(net.lattice(r, 2, 2)),
            "sum": net.affine(net.lattice(r, 2, 2, most=24), net.lattice(r, 2)), "l": net.lif(2, threshold=0.25), "y": net.out(2),
        },
        [("x", "a"), ("x", "b"), ("a", "sum"), ("b", "sum"), ("sum", "l"), ("l", "y")],
    )  # fmt: skip
    agree(g, net.spikes(r, 4, 6, 2))
    assert [p.name for p in ingest(g).into("l")] == ["a", "b"]


def test_a_loop_without_a_population_is_named():
    delay = nir.Delay(np.full(2, net.DT, net.F32))
    g = net.graph(
        {
            "x": net.inp(2),
            "d": net.linear(np.eye(2)),
            "late": delay,
            "back": net.linear(np.eye(2) / 2),
            "l": net.lif(2),
            "y": net.out(2),
        },
        [("x", "d"), ("d", "late"), ("late", "back"), ("back", "d"), ("d", "l"), ("l", "y")],
    )
    with pytest.raises(UnsupportedNodeError, match=r"nodes .*: a loop without a population in it; put one there"):
        ingest(g)


def test_a_delay_between_time_steps_is_named():
    g = net.chain(
        ("x", net.inp(2)), ("late", nir.Delay(np.array([net.DT, 1.5 * net.DT]))), ("l", net.lif(2)), ("y", net.out(2))
    )
    with pytest.raises(
        UnsupportedNodeError, match=r"node late: a delay of 0\.00015 s is not a whole number of steps of 0\.0001 s"
    ):
        ingest(g)


def test_a_delay_of_another_shape_is_named():
    g = net.chain(("x", net.inp(2)), ("late", nir.Delay(np.full(3, net.DT))), ("l", net.lif(2)), ("y", net.out(2)))
    with pytest.raises(DeployError, match=r"node late: Delay takes \(3,\), its source has \(2,\)"):
        ingest(g)


def test_edges_of_different_shapes_are_named():
    g = net.graph(
        {"x": net.inp(2), "a": net.linear(np.ones((3, 2))), "l": net.lif(2), "y": net.out(2)},
        [("x", "a"), ("x", "l"), ("a", "l"), ("l", "y")],
    )
    with pytest.raises(DeployError, match=r"node l: edges of different shapes lead into it: \(2,\), \(3,\)"):
        ingest(g)


@pytest.mark.parametrize("joins", [9, 40])
def test_more_linear_paths_than_the_limit_are_refused(joins):
    message = "node s8: 512 linear paths lead into it, more than 256; put a population between them"
    with pytest.raises(UnsupportedNodeError, match=message):
        compile_graph(net.ladder(joins), calibration=np.ones((2, 4, 2)))


def test_a_linear_node_without_a_source_is_named():
    g = net.graph(
        {"x": net.inp(2), "d": net.linear(np.eye(2)), "l": net.lif(2), "y": net.out(2)}, [("d", "l"), ("l", "y")]
    )
    with pytest.raises(UnsupportedNodeError, match="node d: no edge leads into it; connect it, or leave it out"):
        ingest(g)


def test_a_population_without_a_source_is_named():
    g = net.graph({"x": net.inp(2), "l": net.lif(2), "y": net.out(2)}, [("l", "y")])
    with pytest.raises(UnsupportedNodeError, match="node l: no edge leads into it"):
        ingest(g)


def test_padding_same_with_a_stride_is_refused():
    g = net.chain(
        ("x", net.inp(1, 4, 4)),
        ("c", net.conv(np.ones((1, 1, 3, 3)), padding="same", stride=2)),
        ("l", net.lif(1, 4, 4)),
        ("y", net.out(1, 4, 4)),
    )
    with pytest.raises(DeployError, match="node c: padding 'same' needs stride 1; write the padding as numbers"):
        ingest(g)


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (net.conv(np.ones((3, 2, 1, 1))), (2, 4, 3)),
        (net.conv(np.ones((2, 2, 2, 1))), (2, 4, 3)),
        (net.pool((2, 2)), (2, 2, 2)),
    ],
)
def test_shapes_that_do_not_meet_are_named(operator, shape):
    g = net.chain(("x", net.inp(2, 4, 3)), ("d", operator), ("l", net.lif(*shape)), ("y", net.out(*shape)))
    with pytest.raises(DeployError, match=r"type mismatch: d\.output \(.*\) -> l\.input \(2, "):
        ingest(g)


@pytest.mark.parametrize(
    ("operator", "source", "target"),
    [
        (net.conv(np.ones((2, 3, 1, 1))), (2, 4, 3), (2, 4, 3)),
        (net.linear(np.ones((3, 4))), (2,), (3,)),
        (net.graph_conv(net.ring(3), np.ones((3, 2, 3))), (2, 4, 3), (2, 4, 3)),
        (net.graph_conv(net.ring(4), np.ones((3, 2, 2))), (2, 4, 3), (2, 4, 3)),
    ],
)
def test_weights_that_do_not_meet_their_source_are_named(operator, source, target):
    g = net.chain(("x", net.inp(*source)), ("d", operator), ("l", net.lif(*target)), ("y", net.out(*target)))
    with pytest.raises(DeployError, match="d"):
        ingest(g)
