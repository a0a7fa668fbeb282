"""The joint graphs and what is made from them."""

import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.train.skeletons import GRAPHS, SkeletonGraph, adjacency_subsets, bone_pairs, graph


@pytest.mark.parametrize(
    ("name", "size", "root"), [("ntu-25", 25, "spine at shoulders"), ("nw-ucla-20", 20, "centre of shoulders")]
)
def test_a_graph_has_one_bone_per_joint_and_one_root(name, size, root):
    found = graph(name)
    assert found.size == len(set(found.joints)) == len(found.bones) == size
    assert found.joints[found.root] == root
    assert found.centre == 1
    assert found.source


def test_ntu_hands_are_not_left_at_zero():
    """The 25 pairs of the sources, counted from 1: joints 22 to 25 have bones, as in the sibling
    models and not as in pyskl."""
    pairs = [(child + 1, parent + 1) for child, parent in graph("ntu-25").bones]
    assert pairs == [
        (1, 2), (2, 21), (3, 21), (4, 3), (5, 21), (6, 5), (7, 6), (8, 7), (9, 21), (10, 9), (11, 10), (12, 11),
        (13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19),
        (22, 23), (21, 21), (23, 8), (24, 25), (25, 12),
    ]  # fmt: skip


def test_nw_ucla_bones():
    pairs = [(child + 1, parent + 1) for child, parent in graph("nw-ucla-20").bones]
    assert pairs == [
        (1, 2), (2, 3), (3, 3), (4, 3), (5, 3), (6, 5), (7, 6), (8, 7), (9, 3), (10, 9), (11, 10), (12, 11), (13, 1),
        (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19),
    ]  # fmt: skip


def test_an_unknown_graph_is_refused_with_the_known_names():
    with pytest.raises(BadInputError, match=r"'coco-17'.*ntu-25, nw-ucla-20"):
        graph("coco-17")


@pytest.mark.parametrize("name", GRAPHS)
def test_adjacency_columns_sum_to_one_or_have_no_edge(name):
    skeleton = graph(name)
    subsets = adjacency_subsets(skeleton)
    assert subsets.shape == (3, skeleton.size, skeleton.size)
    assert subsets.dtype == np.float32
    np.testing.assert_array_equal(subsets[0], np.eye(skeleton.size))
    parents = bone_pairs(skeleton)
    is_parent = np.isin(np.arange(skeleton.size), np.delete(parents, skeleton.root))
    np.testing.assert_allclose(subsets[1].sum(axis=0), is_parent)
    np.testing.assert_allclose(subsets[2].sum(axis=0), np.arange(skeleton.size) != skeleton.root)
    assert np.count_nonzero(subsets[1:]) == 2 * (skeleton.size - 1)  # no self-bone among them


def test_adjacency_runs_from_source_to_target():
    """Inward: the root of NTU averages its four children. Outward: the head (3) hears the neck (2),
    and nobody else."""
    _, inward, outward = adjacency_subsets(graph("ntu-25"))
    assert set(np.flatnonzero(inward[:, 20])) == {1, 2, 4, 8}
    np.testing.assert_allclose(inward[[1, 2, 4, 8], 20], 1 / 4)
    assert outward[2, 3] == 1
    assert outward[3, 2] == 0


@pytest.mark.parametrize("name", GRAPHS)
def test_bones_chain_back_to_the_root(name):
    """Summing each joint's bones up to the root gives back its place relative to the root."""
    skeleton = graph(name)
    joints = np.random.default_rng(0).normal(size=(skeleton.size, 3))
    parents = bone_pairs(skeleton)
    assert parents.dtype == np.int64
    bones = joints - joints[parents]
    assert not bones[skeleton.root].any()
    for joint in range(skeleton.size):
        total, at = np.zeros(3), joint
        while at != skeleton.root:
            total, at = total + bones[at], parents[at]
        np.testing.assert_allclose(total, joints[joint] - joints[skeleton.root])


@pytest.mark.parametrize(
    ("bones", "message"),
    [
        (((0, 0), (1, 0)), "child in one bone"),
        (((0, 0), (1, 0), (1, 2)), "child in one bone"),
        (((0, 0), (1, 1), (2, 1)), "2 joints are their own parent"),
        (((0, 0), (1, 2), (2, 1)), "is not connected to the root"),
        (((0, 0), (1, 0), (2, 7)), "is not connected to the root"),
    ],
)
def test_bones_that_are_not_a_tree_are_refused(bones, message):
    with pytest.raises(BadInputError, match=message):
        SkeletonGraph("odd", "nobody", ("a", "b", "c"), bones, centre=0)


def test_a_centre_that_is_no_joint_is_refused():
    with pytest.raises(BadInputError, match="centre 3"):
        SkeletonGraph("odd", "nobody", ("a", "b", "c"), ((0, 0), (1, 0), (2, 0)), centre=3)
