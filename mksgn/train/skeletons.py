"""Skeleton graphs by name and source: joints, the bones between them, and adjacency matrices."""

from dataclasses import dataclass

import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.common.quoting import quoted


@dataclass(frozen=True)
class SkeletonGraph:
    """A tree of V joints. Published bone lists for a sensor differ, so a graph has a name *and* a
    source.

    Joints are 0-based here, though the sources count from 1. Raises BadInputError where the bones
    are not one tree with one self-bone at its root: a joint without a bone would be dead in the
    bone streams.
    """

    name: str
    source: str  # whose bone list this is
    joints: tuple[str, ...]  # V names, in the order of the clips' joint axis
    bones: tuple[tuple[int, int], ...]  # V pairs (child, parent); the root is its own parent
    centre: int  # the joint whose position in frame 0 is the origin, as in the sibling models' feeders

    def __post_init__(self) -> None:
        parents = dict(self.bones)
        if len(self.bones) != self.size or sorted(parents) != list(range(self.size)):
            raise BadInputError(f"graph {self.name}: each of its {self.size} joints must be the child in one bone")
        if not 0 <= self.centre < self.size:
            raise BadInputError(f"graph {self.name}: centre {self.centre} is not among joints 0 to {self.size - 1}")
        roots = [child for child, parent in self.bones if child == parent]
        if len(roots) != 1:
            raise BadInputError(f"graph {self.name}: {len(roots)} joints are their own parent, expected one, the root")
        for joint in parents:
            ancestor = joint
            for _ in range(self.size):  # no path in a tree is longer
                ancestor = parents.get(ancestor, -1)
            if ancestor != roots[0]:
                raise BadInputError(
                    f"graph {self.name}: joint {joint} ({self.joints[joint]}) is not connected to the root"
                )

    @property
    def size(self) -> int:
        """V, the number of joints."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """The joint that is its own parent."""
        return next(child for child, parent in self.bones if child == parent)


def _zero_based(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple((child - 1, parent - 1) for child, parent in pairs)


# Joints 4 to 20 of both Kinects.
_HEAD_AND_LIMBS = (
    "head",
    *(f"{side} {joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist", "hand")),
    *(f"{side} {joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle", "foot")),
)


def _head_and_limb_bones(shoulders: int) -> tuple[tuple[int, int], ...]:
    return (
        (4, 3), (5, shoulders), (6, 5), (7, 6), (8, 7), (9, shoulders), (10, 9), (11, 10), (12, 11),
        (13, 1), (14, 13), (15, 14), (16, 15), (17, 1), (18, 17), (19, 18), (20, 19),
    )  # fmt: skip


# Joint names: Shahroudy et al., NTU RGB+D (CVPR 2016), figure of the 25 joints (Kinect v2). Bones:
# the 25 pairs that CTR-GCN's bone stream uses. pyskl joins the hands otherwise, (22,8) and (24,12):
# that would be another graph.
_NTU_25 = SkeletonGraph(
    name="ntu-25",
    source="NTU RGB+D, bones as in CTR-GCN",
    joints=(
        "base of spine", "middle of spine", "neck", *_HEAD_AND_LIMBS,
        "spine at shoulders", "tip of left hand", "left thumb", "tip of right hand", "right thumb",
    ),
    bones=_zero_based((
        (1, 2), (2, 21), (3, 21), *_head_and_limb_bones(21), (22, 23), (21, 21), (23, 8), (24, 25), (25, 12),
    )),
    centre=1,
)  # fmt: skip

# Joint names: Kinect v1 SDK. Bones: CTR-GCN's feeder for NW-UCLA.
_NW_UCLA_20 = SkeletonGraph(
    name="nw-ucla-20",
    source="Northwestern-UCLA Multiview Action 3D, bones as in CTR-GCN",
    joints=("centre of hips", "spine", "centre of shoulders", *_HEAD_AND_LIMBS),
    bones=_zero_based(((1, 2), (2, 3), (3, 3), *_head_and_limb_bones(3))),
    centre=1,
)  # fmt: skip

GRAPHS: dict[str, SkeletonGraph] = {known.name: known for known in (_NTU_25, _NW_UCLA_20)}


def graph(name: str) -> SkeletonGraph:
    """Look up a graph; raises BadInputError, with the known names, for any other name."""
    if name not in GRAPHS:
        raise BadInputError(f"no skeleton graph is named {quoted(name)}: use one of {', '.join(GRAPHS)}")
    return GRAPHS[name]


def adjacency_subsets(graph: SkeletonGraph) -> np.ndarray:
    """Compute identity, inward and outward matrices, (3, V, V) float32; [k, i, j] weighs source
    joint i for target joint j.

    Inward edges run from child to parent, outward ones from parent to child; the root's self-bone
    is in neither, as it is in the identity. Every column (fixed target) sums to 1, so that a joint
    averages its sources. A column without an edge stays zero: a joint without children has no
    inward source, the root no outward one.
    """
    identity = np.eye(graph.size)
    inward = np.zeros_like(identity)
    for child, parent in graph.bones:
        if child != parent:
            inward[child, parent] = 1.0
    subsets = np.stack([identity, inward, inward.T])
    sums = subsets.sum(axis=1, keepdims=True)
    return (subsets / np.where(sums > 0, sums, 1.0)).astype(np.float32)


def bone_pairs(graph: SkeletonGraph) -> np.ndarray:
    """Return the parent of each joint, (V,) int64, the root's own index at the root.

    The bone stream of joints (..., V, 3) is `joints - joints[..., bone_pairs(graph), :]`, zero at
    the root.
    """
    parents = np.empty(graph.size, dtype=np.int64)
    for child, parent in graph.bones:
        parents[child] = parent
    return parents


def mirror_pairs(graph: SkeletonGraph) -> np.ndarray:
    """Return each joint's partner on the other side, (V,) int64; a joint in the middle is its own."""
    sides = {"left": "right", "right": "left"}
    partner = [" ".join(sides.get(word, word) for word in name.split()) for name in graph.joints]
    return np.array([graph.joints.index(name) for name in partner], dtype=np.int64)
