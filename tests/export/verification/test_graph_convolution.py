"""mksgn/export/verification/graph_convolution against the loops of the equation, exact on integers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.export.verification.graph_convolution import by_degree, graph_convolution
from tests.support.graphs import SETTINGS, lattice, loop_graph_conv


@SETTINGS
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.4, 1.0]))
def test_it_equals_the_loops(seed, density):
    """Isolated joints, and a graph in which each joint reaches each, among them; several edges of one pair add up."""
    rng = np.random.default_rng(seed)
    joints, inputs, outputs, frames = rng.integers(1, 5, 4)
    _, source, target = np.nonzero(rng.random((2, joints, joints)) < density)
    weight, x = lattice(rng, len(source), outputs, inputs), lattice(rng, 2, inputs, frames, joints)
    adjacency = np.zeros((len(source), joints, joints))
    adjacency[np.arange(len(source)), source, target] = 1
    y = graph_convolution(torch.from_numpy(x), torch.from_numpy(weight), source, target)
    np.testing.assert_array_equal(y.numpy(), loop_graph_conv(x, adjacency, weight, np.zeros(outputs)))


def test_each_edge_is_in_one_group_with_its_ends():
    source, target = np.nonzero(np.random.default_rng(1).random((9, 9)) < 0.3)
    groups = by_degree(source, target)
    edges = np.concatenate([group.edges.ravel() for group in groups])
    np.testing.assert_array_equal(np.sort(edges), np.arange(len(source)))
    for group in groups:
        np.testing.assert_array_equal(source[group.edges], group.sources)
        assert (target[group.edges] == group.targets[:, None]).all()


@pytest.mark.parametrize("joints", [4, 6])
def test_the_gradient_is_that_of_the_sum_over_edges(joints):
    rng = np.random.default_rng(2)
    source, target = np.nonzero(rng.random((6, 6)) < 0.5) if joints == 6 else np.nonzero(np.ones((4, 4)))
    weight = torch.randn(len(source), 3, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 2, 3, joints, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, x: graph_convolution(x, w, source, target), (weight, x))
