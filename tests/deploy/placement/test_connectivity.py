"""mksgn/deploy/placement/connectivity: which neurons an operator connects, and the units of a product."""

import math

import numpy as np
import pytest

from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.connectivity import link
from mksgn.deploy.placement.place import place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Projection
from tests.support.placements import assert_placed, connected, hand_built, student, tiny


@pytest.mark.parametrize(
    ("shape", "operators", "exact"),
    [
        ((3, 4), (ops.Conv(np.ones((2, 3, 2), dtype=np.float32), (1,), (1,), (1,)),), True),
        ((2, 3), (ops.Dense(np.ones((2, 4, 3), dtype=np.float32)),), True),
        ((2, 3), (), True),
        ((2, 3), (ops.Scale(np.zeros((2, 3), dtype=np.float32)),), True),
        (
            (2, 4, 3),
            (ops.SumPool((2, 3), (2, 3)), ops.Flatten(0, 2), ops.Dense(np.ones((3, 4), dtype=np.float32))),
            True,
        ),
        ((2, 4, 3), (ops.SumPool((2, 2), (1, 1), (1, 1)),), True),
        ((2, 1, 3), (ops.Flatten(1, 2), ops.Dense(np.ones((5, 3), dtype=np.float32))), True),
        ((2, 4, 3), (ops.Flatten(0, 2),), False),  # three axes in one, which tiles do not separate
        ((2, 3), (ops.Mask(np.array([[True, False, True], [False, True, True]])),), False),
    ],
    ids=["conv1d", "batch", "identity", "scale", "readout", "pool", "squeeze", "flatten", "mask"],
)
def test_every_operator_is_counted_by_hand(shape, operators, exact):
    target = ops.out_shape(operators, shape)
    program = hand_built(
        {"x": shape, "a": shape, "b": target}, Projection("in", "x", "a", ()), Projection("w", "a", "b", operators)
    )
    for chip in (tiny(), tiny(neurons=5), tiny(inputs=7, outputs=4)):
        assert_placed(place(program, chip), exact=exact)


def test_product_units_are_neurons_with_synapses_of_their_own():
    placed = {p.name: p for p in place(student(), LOIHI2).populations}
    units = 4 * 3 * 3 * 4  # T · V² · C
    assert [placed[name].neurons for name in ("attend.m units", "attend.m")] == [units, 2 * 4 * 3 * 3]
    assert [placed[name].neurons for name in ("attend.z units", "attend.z")] == [units, 4 * 4 * 3]
    assert [placed[name].synapses for name in ("attend.m units", "attend.z units")] == [2 * units, 2 * units]
    assert [placed[name].synapses for name in ("attend.m", "attend.z")] == [units, units]
    assert [placed[name].fan_in for name in ("attend.m", "attend.z")] == [2, 3]  # channels per head; keys
    assert [placed[name].units_of for name in ("attend.m units", "attend.m")] == ["attend.m", None]


@pytest.mark.parametrize(
    ("shape", "operators"),
    [
        ((4, 5, 3), (ops.Conv(np.ones((6, 2, 3, 2), dtype=np.float32), (2, 1), (1, 1), (2, 1), groups=2),)),
        ((2, 6, 4), (ops.SumPool((3, 2), (2, 2), (1, 0)), ops.Conv(np.ones((3, 2, 1, 2), dtype=np.float32), (1, 1)))),
        ((2, 4, 3), (ops.SumPool((4, 3), (4, 3)), ops.Flatten(0, 2), ops.Dense(np.ones((3, 2), dtype=np.float32)))),
        ((2, 4), (ops.Flatten(0, 1), ops.Dense(np.ones((3, 8), dtype=np.float32)))),
    ],
    ids=["conv", "pool and conv", "readout", "flatten and dense"],
)
def test_a_link_is_the_product_of_its_factors(shape, operators):
    target = ops.out_shape(operators, shape)
    pattern = np.ones((*target, *shape), dtype=bool)
    for factor in link(operators, shape):
        size = [1] * pattern.ndim
        if factor.target is not None:
            size[factor.target] = len(factor.matrix)
        if factor.source is not None:
            size[len(target) + factor.source] = factor.matrix.shape[1]
        pattern = pattern & factor.matrix.reshape(size)
    np.testing.assert_array_equal(pattern.reshape(math.prod(target), -1), connected(operators, shape) > 0)


def test_merged_axes_that_are_not_summed_have_no_link():
    assert link((ops.Flatten(0, 1),), (2, 3)) is None
