"""mksgn/deploy/placement/axons: unions of projections, counted by inclusion and exclusion."""

import doctest

import numpy as np
import pytest

from mksgn.deploy.placement import axons
from mksgn.deploy.placement.connectivity import Factor
from mksgn.deploy.placement.place import place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Projection
from tests.support.placements import assert_placed, hand_built, tiny


def test_the_examples_in_the_docstrings():
    failed, attempted = doctest.testmod(axons)
    assert failed == 0 < attempted


@pytest.mark.parametrize("side", ["target", "source"])
@pytest.mark.parametrize("links", [1, 2, 3, 5])
def test_unions_of_drawn_links_are_those_of_their_matrices(links, side):
    """Links that pair the axes in different orders, and that leave an axis of the target or of the source unpaired."""
    rng = np.random.default_rng(links)
    target, source = (2, 3, 4), (3, 2, 3)
    pairings = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (0, 2, None)]
    for _ in range(20):
        chosen, dense = [], np.zeros((*target, *source), dtype=bool)
        for _ in range(links):
            pairing = pairings[rng.integers(len(pairings))]
            pairs = [(t, s) for t, s in enumerate(pairing)] + [(None, s) for s in range(3) if s not in pairing]
            link, matrix = [], np.ones((*target, *source), dtype=bool)
            for t, s in pairs:
                size = (1 if t is None else target[t], 1 if s is None else source[s])
                factor = Factor(t, s, rng.random(size) < 0.6)
                link.append(factor)
                shape = [1] * 6
                if t is not None:
                    shape[t] = size[0]
                if s is not None:
                    shape[3 + s] = size[1]
                matrix = matrix & factor.matrix.reshape(shape)
            chosen.append(tuple(link))
            dense |= matrix
        expected = dense.sum((3, 4, 5)) if side == "target" else dense.sum((0, 1, 2))
        shape = target if side == "target" else source
        np.testing.assert_array_equal(np.broadcast_to(axons.union(chosen, side, shape), shape), expected)
        assert len(axons.maximal([*chosen, chosen[0]])) <= links


def test_many_projections_between_two_populations_share_axons():
    """Two convolutions from one source that overlap in part: an axon serves both."""
    here = ops.Conv(np.ones((2, 2, 3, 1), dtype=np.float32), (1, 1), (1, 0))
    there = ops.Conv(np.ones((2, 2, 1, 3), dtype=np.float32), (1, 1), (0, 1))
    program = hand_built(
        {"x": (2, 5, 3), "a": (2, 5, 3), "b": (2, 5, 3)},
        Projection("in", "x", "a", ()),
        Projection("here", "a", "b", (here,)),
        Projection("there", "a", "b", (there,)),
        Projection("skip", "a", "b", ()),
    )
    for chip in (tiny(), tiny(neurons=4), tiny(inputs=12, outputs=9)):
        assert_placed(place(program, chip))


def test_projections_along_different_axes_share_the_axons_where_they_cross():
    """Neuron i of the target sums the ends of row i and all of column i of the source."""
    rows = (ops.Conv(np.ones((3, 1, 2), dtype=np.float32), (1,), (0,), (2,), groups=3), ops.Flatten(0, 1))
    columns = (ops.Conv(np.ones((1, 3, 1), dtype=np.float32), (1,), (0,), (1,)), ops.Flatten(0, 1))
    program = hand_built(
        {"x": (3, 3), "a": (3, 3), "b": (3,)},
        Projection("in", "x", "a", ()),
        Projection("rows", "a", "b", rows),
        Projection("columns", "a", "b", columns),
    )
    for cores, fullest in [(3, 5), (2, 8), (1, 9)]:
        placement = place(program, tiny(bits=5 * 8 * -(-3 // cores)))
        assert_placed(placement)
        assert placement.populations[1].usage[:, 2].max() == fullest


def test_very_many_projections_between_two_populations_get_an_upper_bound():
    shifted = [ops.Conv(np.ones((1, 1, 2), dtype=np.float32), (1,), (d,), (2 * d,)) for d in range(1, 7)]
    program = hand_built(
        {"x": (1, 9), "a": (1, 9), "b": (1, 9)},
        Projection("in", "x", "a", ()),
        *(Projection(f"by {i}", "a", "b", (operator,)) for i, operator in enumerate(shifted)),
    )
    assert_placed(place(program, tiny(neurons=3, inputs=60)), exact=False)
