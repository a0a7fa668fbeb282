"""mksgn/deploy/program/operators: each operator, its shape, its bound and its synapses against
plain loops.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.deploy.program import operators as ops
from tests.support import graphs as net


def on(operators, x):
    return ops.apply(operators, torch.from_numpy(np.asarray(x, dtype=np.float32))).numpy()


def same(operators, x, expected):
    """Value and shape; lattice numbers, so nothing may be lost in float32."""
    actual = on(operators, x)
    assert ops.out_shape(operators, x.shape[1:]) == expected.shape[1:] == actual.shape[1:]
    np.testing.assert_array_equal(actual, expected)


@st.composite
def convolutions(draw):
    """(operator, source shape, random generator): every combination that leaves at least one
    output.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    groups = draw(st.sampled_from([1, 1, 2]))
    inputs, outputs = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    kernel, stride, padding, dilation = (
        (draw(st.integers(low, 3 - (low == 0))), draw(st.integers(low, 3 - (low == 0)))) for low in (1, 1, 0, 1)
    )
    height, width = (
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), d * (k - 1) + 3))
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    )
    weight = net.lattice(rng, outputs, inputs // groups, *kernel) * (
        rng.random((outputs, inputs // groups, *kernel)) < 0.7
    )
    return ops.Conv(weight, stride, padding, dilation, groups), (inputs, height, width), rng


@st.composite
def graph_convolutions(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    joints, inputs, outputs, frames = (draw(st.integers(1, high)) for high in (5, 3, 3, 3))
    source, target = np.nonzero(rng.random((joints, joints)) < 0.4)
    weight = net.lattice(rng, len(source), outputs, inputs) * (rng.random((len(source), outputs, inputs)) < 0.7)
    return ops.GraphConv(weight, source, target, joints), (inputs, frames, joints), rng


@net.SETTINGS
@given(convolutions())
def test_conv_and_its_synapses_equal_the_loops(drawn):
    conv, shape, rng = drawn
    x = net.lattice(rng, 2, *shape)
    same((conv,), x, net.loop_conv(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups))
    for nonzero in (False, True):
        np.testing.assert_array_equal(
            ops.fan_out((conv,), shape, nonzero=nonzero), net.reached((conv,), shape, nonzero=nonzero)
        )


@net.SETTINGS
@given(graph_convolutions())
def test_graph_conv_and_its_synapses_equal_the_loops(drawn):
    conv, shape, rng = drawn
    adjacency = np.zeros((len(conv.weight), conv.joints, conv.joints))
    adjacency[np.arange(len(conv.weight)), conv.source, conv.target] = 1
    x = net.lattice(rng, 2, *shape)
    same((conv,), x, net.loop_graph_conv(x, adjacency, conv.weight, np.zeros(conv.weight.shape[1])))
    for nonzero in (False, True):
        np.testing.assert_array_equal(
            ops.fan_out((conv,), shape, nonzero=nonzero), net.reached((conv,), shape, nonzero=nonzero)
        )


@net.SETTINGS
@given(st.integers(0, 2**16), st.lists(st.integers(1, 3), min_size=0, max_size=2), st.integers(1, 5), st.integers(1, 5))
def test_dense_works_on_the_last_axis(seed, leading, inputs, outputs):
    rng = np.random.default_rng(seed)
    dense, shape = ops.Dense(net.lattice(rng, outputs, inputs)), (*leading, inputs)
    x = net.lattice(rng, 3, *shape)
    same((dense,), x, net.loop_dense(x, dense.weight))
    for nonzero in (False, True):
        np.testing.assert_array_equal(
            ops.fan_out((dense,), shape, nonzero=nonzero), net.reached((dense,), shape, nonzero=nonzero)
        )


@net.SETTINGS
@given(st.data())
def test_sum_pool_windows_may_overlap_be_padded_or_leave_neurons_out(data):
    kernel, stride = ((data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))) for _ in range(2))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    shape = (2, *(data.draw(st.integers(k, k + 3)) for k in kernel))
    x = net.lattice(np.random.default_rng(3), 2, *shape)
    pool = ops.SumPool(kernel, stride, padding)
    same((pool,), x, net.loop_pool(x, kernel, stride, padding))
    np.testing.assert_array_equal(ops.fan_out((pool,), shape), net.reached((pool,), shape))


def test_sum_pool_over_everything():
    x = net.lattice(np.random.default_rng(0), 3, 2, 4, 5)
    same((ops.SumPool((4, 5), (4, 5)),), x, x.sum((2, 3))[:, :, None, None])


@pytest.mark.parametrize(("start", "end"), [(0, -1), (0, 2), (0, 1), (1, 2), (1, -1), (0, 0), (2, 2), (1, -2)])
def test_flatten_merges_axes_in_their_order(start, end):
    x = net.lattice(np.random.default_rng(1), 2, 2, 3, 4, most=100)
    same((ops.Flatten(start, end),), x, net.loop_flatten(x, start, end))


def test_flatten_counts_a_negative_start_from_the_end():
    x = net.lattice(np.random.default_rng(1), 2, 2, 3, 4)
    same((ops.Flatten(-2, -1),), x, x.reshape(2, 2, 12))


def test_scale_has_one_weight_per_neuron():
    rng = np.random.default_rng(2)
    scale, x = ops.Scale(net.lattice(rng, 2, 3)), net.lattice(rng, 4, 2, 3)
    same((scale,), x, x * scale.weight)
    assert (ops.fan_out((scale,), (2, 3)) == 1).all()
    np.testing.assert_array_equal(ops.fan_out((scale,), (2, 3), nonzero=True), scale.weight != 0)


def test_border_stride_and_missing_edges_count_one_by_one():
    """By hand: a 3 x 1 kernel of stride 2 over five frames, and two edges 0 → 1, 2 → 1."""
    conv = ops.Conv(np.zeros((4, 1, 3, 1)), (2, 1), (1, 0))
    assert ops.fan_out((conv,), (1, 5, 1)).ravel().tolist() == [4, 8, 4, 8, 4]  # every odd frame lies in two windows
    assert ops.fan_out((conv,), (1, 5, 1), nonzero=True).ravel().tolist() == [0, 0, 0, 0, 0]
    edges = ops.GraphConv(np.array([[[1.0], [0.0]], [[1.0], [1.0]]]), np.array([0, 2]), np.array([1, 1]), 3)
    assert ops.fan_out((edges,), (1, 1, 3)).ravel().tolist() == [2, 0, 2]
    assert ops.fan_out((edges,), (1, 1, 3), nonzero=True).ravel().tolist() == [1, 0, 2]


def test_operators_in_series():
    rng = np.random.default_rng(4)
    series = (
        ops.Conv(net.lattice(rng, 3, 2, 3, 3), (2, 1), (1, 1)),
        ops.SumPool((2, 2), (2, 2)),
        ops.Flatten(0, -1),
        ops.Dense(net.lattice(rng, 4, 6)),
    )
    x = net.lattice(rng, 2, 2, 4, 4)
    expected = x
    for operator in series:
        expected = net.apply_operator(operator, expected)
    same(series, x, expected)
    # with weights of 1, every path from a source to a target is one synapse
    np.testing.assert_array_equal(ops.fan_out(series, (2, 4, 4)), net.reached(series, (2, 4, 4)))
    assert [w.shape for w in ops.weights(series)] == [(3, 2, 3, 3), (4, 6)]
    doubled = ops.with_weights(series, lambda w: 2 * w)
    np.testing.assert_array_equal(on(doubled, x), 4 * on(series, x))
    assert (doubled[0].stride, doubled[0].padding) == ((2, 1), (1, 1))


def binary_extremes(operators, shape):
    """Largest |sum| of any target over all binary inputs: those that activate every positive, or every
    negative, path to a target.
    """
    size = int(np.prod(shape))
    matrix = on(operators, np.eye(size).reshape(size, *shape)).reshape(size, -1)
    patterns = np.concatenate([(matrix.T > 0), (matrix.T < 0)]).reshape(-1, *shape)
    return float(np.abs(on(operators, patterns)).max())


@net.SETTINGS
@given(st.one_of(convolutions(), graph_convolutions()), st.booleans())
def test_no_binary_input_exceeds_the_worst_sum(drawn, excitatory):
    operator, shape, _ = drawn
    if excitatory:
        operator = ops.with_weights((operator,), np.abs)[0]
    bound = ops.worst_sum((operator,), shape)
    assert binary_extremes((operator,), shape) <= bound
    assert ops.worst_sum((operator,), shape, 3.0) == 3 * bound
    if excitatory and isinstance(operator, ops.GraphConv):  # reached: the sum into each target is the whole bound
        expected = max(
            (np.abs(operator.weight[operator.target == j]).sum((0, 2)).max() for j in range(operator.joints)),
            default=0.0,
        )
        assert binary_extremes((operator,), shape) == bound == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("operators", "shape"),
    [
        ((ops.Conv(np.arange(1.0, 37.0).reshape(2, 2, 3, 3), (2, 2), (1, 1)),), (2, 4, 4)),
        ((ops.Conv(np.arange(1.0, 13.0).reshape(4, 1, 1, 3), groups=2),), (2, 1, 4)),
        (
            (ops.GraphConv(np.arange(1.0, 13.0).reshape(3, 2, 2), np.array([0, 1, 2]), np.array([0, 0, 1]), 3),),
            (2, 2, 3),
        ),
        ((ops.Dense(np.arange(1.0, 13.0).reshape(3, 4)),), (4,)),
        ((ops.Dense(np.arange(1.0, 13.0).reshape(3, 4)),), (2, 3, 4)),
        ((ops.SumPool((2, 2), (2, 2)), ops.Flatten(0, -1), ops.Dense(np.arange(1.0, 9.0).reshape(2, 4))), (2, 4, 2)),
        ((ops.Conv(np.arange(1.0, 7.0).reshape(3, 2, 1, 1)), ops.SumPool((2, 2), (2, 2))), (2, 2, 2)),
    ],
)
def test_the_worst_sum_is_reached_where_all_weights_have_one_sign(operators, shape, sign):
    operators = ops.with_weights(operators, lambda w: sign * w)
    assert ops.worst_sum(operators, shape) == binary_extremes(operators, shape)


def test_mixed_signs_reach_the_worst_sum_with_inputs_of_either_sign():
    rng = np.random.default_rng(5)
    for operator, shape in (
        (ops.Dense(net.lattice(rng, 3, 6)), (6,)),
        (ops.Conv(net.lattice(rng, 2, 2, 2, 2)), (2, 3, 3)),
    ):
        size = int(np.prod(shape))
        matrix = on((operator,), np.eye(size).reshape(size, *shape)).reshape(size, -1)
        assert np.abs(on((operator,), np.sign(matrix.T).reshape(-1, *shape))).max() == ops.worst_sum((operator,), shape)


def test_the_worst_sum_of_a_dense_on_the_last_axis_after_a_conv():
    operators = (ops.Conv(np.array([1.0, 100.0]).reshape(2, 1, 1, 1)), ops.Dense(np.array([[1.0, 0.0]])))
    assert binary_extremes(operators, (1, 1, 2)) == 100
    assert ops.worst_sum(operators, (1, 1, 2)) >= 100


def test_the_worst_sum_of_a_conv_after_a_scale():
    operators = (ops.Scale(np.ones((2, 2, 2))), ops.Conv(np.ones((1, 2, 1, 1))))
    assert ops.worst_sum(operators, (2, 2, 2)) == binary_extremes(operators, (2, 2, 2)) == 2
