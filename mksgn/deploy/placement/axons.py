"""Axon counts of a cut: the distinct neurons that reach a core, and the cores that a neuron reaches.

Each is the size of a union of sets, one set for each projection between the same two groups. Every
set is a product over axes, so that inclusion-exclusion on the axes' matrices gives the size exactly,
without a list of neurons.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from mksgn.deploy.placement.connectivity import Factor, Link

MOST_LINKS = 5  # 2^n - 1 intersections; for more links, the sum of their sizes is used, an upper bound
LETTERS = "abcdefgh"

Bounds = tuple[np.ndarray, ...]  # per axis: where each part starts, and the axis's length
Choices = Sequence[Sequence[np.ndarray]]  # per axis: the alternative bounds of its parts
Side = Literal["target", "source"]


def to_parts(link: Link, bounds: Bounds) -> Link:
    """Connect source neurons with the parts of the target's axes instead of with its neurons."""
    return tuple(
        f if f.target is None else Factor(f.target, f.source, _any_in_part(f.matrix, bounds[f.target])) for f in link
    )


def _any_in_part(matrix: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    return np.logical_or.reduceat(matrix, bounds[:-1], axis=0)


def maximal(links: Sequence[Link]) -> list[Link]:
    """Drop the links that another one contains, such as a skip alongside a convolution."""
    kept: list[Link] = []
    for i, link in enumerate(links):
        if not any(_contains(other, link) for other in [*kept, *links[i + 1 :]]):
            kept.append(link)
    return kept


def _contains(large: Link, small: Link) -> bool:
    by_axes = {(f.target, f.source): f.matrix for f in large}
    return len(large) == len(small) and all(
        (f.target, f.source) in by_axes and not (f.matrix & ~by_axes[f.target, f.source]).any() for f in small
    )


def union(links: Sequence[Link], side: Side, shape: tuple[int, ...]) -> np.ndarray:
    """Count the places of the other side that at least one link connects to each place of `side`.

    With S_l(i) for the places that link l connects to place i, inclusion-exclusion gives

        |S_1(i) ∪ … ∪ S_n(i)| = Σ over non-empty K ⊆ {1 … n} of (-1)^(|K| + 1) |∩_{l ∈ K} S_l(i)|

    where `_intersection` computes each term. Beyond MOST_LINKS links the result is Σ_l |S_l(i)|, an
    upper bound.

    Two links between 2 x 2 neurons, "along the row" and "along the column", reach two neurons each
    and share one:

    >>> same, every = np.eye(2, dtype=bool), np.ones((2, 2), dtype=bool)
    >>> row = (Factor(0, 0, same), Factor(1, 1, every))
    >>> column = (Factor(0, 0, every), Factor(1, 1, same))
    >>> union([row, column], "target", (2, 2))  # 2 + 2 - 1, the same for all target neurons
    array([[3]])

    Args:
        links: patterns between the same two groups.
        side: the side whose places are kept as axes of the result.
        shape: of that side.

    Returns:
        int64 of `shape`; axes along which the count does not change may have length 1.
    """
    total = np.zeros((1,) * len(shape), dtype=np.int64)
    most = 1 if len(links) > MOST_LINKS else len(links)
    for n in range(1, most + 1):
        for chosen in combinations(links, n):
            total = total + (-1) ** (n + 1) * _intersection(chosen, side, len(shape))
    return total


def _intersection(links: Sequence[Link], side: Side, axes: int) -> np.ndarray:
    """Count the places of the other side that all links connect to each place of `side`.

    Let place i of `side` have the coordinates i_a and place j of the other side j_b. Link l
    connects them where Π_f M_f[i_a(f), j_b(f)] over its factors f is 1. Each factor involves only
    one axis b of the other side, so that the sum over all j separates into one sum per axis:

        |∩_l S_l(i)| = Σ_j Π_{l, f} M_f[i_a(f), j_b(f)] = Π_b Σ_{j_b} Π_{f: b(f) = b} M_f[i_a(f), j_b]

    >>> same, first = np.eye(2, dtype=bool), np.array([[True, False], [True, False]])
    >>> own_row = (Factor(0, 0, same), Factor(1, 1, np.ones((2, 2), dtype=bool)))
    >>> first_row = (Factor(0, 0, first), Factor(1, 1, np.ones((2, 2), dtype=bool)))
    >>> _intersection([own_row, first_row], "target", 2)  # both neurons of the row, or none
    array([[2],
           [0]])
    """
    total = np.ones((1,) * axes, dtype=np.int64)
    for other_axis, matrices in _by_other_axis(links, side).items():
        if other_axis is None:  # axes of `side` that are connected to no axis of the other
            for axis, matrix in matrices.items():
                total = total * _along(matrix[:, 0].astype(np.int64), axis, axes)
        else:
            total = total * _sum_over_axis(matrices, axes)
    return total


def _by_other_axis(links: Sequence[Link], side: Side) -> dict[int | None, dict[int | None, np.ndarray]]:
    """Group the factors of all links by the other side's axis and then by `side`'s; intersect those that share both."""
    grouped: dict[int | None, dict[int | None, np.ndarray]] = {}
    for link in links:
        for factor in link:
            axis, other_axis, matrix = factor.target, factor.source, factor.matrix
            if side == "source":
                axis, other_axis, matrix = factor.source, factor.target, factor.matrix.T
            matrices = grouped.setdefault(other_axis, {})
            matrices[axis] = matrix & matrices[axis] if axis in matrices else matrix
    return grouped


def _sum_over_axis(matrices: dict[int | None, np.ndarray], axes: int) -> np.ndarray:
    """Sum the product of the matrices of one axis of the other side over that axis."""
    free = matrices.pop(None, None)  # of factors that involve no axis of `side`: (1, places)
    if not matrices:
        assert free is not None
        return np.full((1,) * axes, free.sum())
    if free is not None:
        matrices = {axis: matrix & free for axis, matrix in matrices.items()}
    order = sorted(axis for axis in matrices if axis is not None)
    if len(order) == 1:
        return _along(matrices[order[0]].sum(1), order[0], axes)
    terms = ",".join(f"{letter}z" for letter in LETTERS[: len(order)])
    counts = np.einsum(
        f"{terms}->{LETTERS[: len(order)]}", *(matrices[axis].astype(np.float64) for axis in order), optimize=True
    )
    size = [1] * axes
    for axis, n in zip(order, counts.shape, strict=True):
        size[axis] = n
    return np.rint(counts).astype(np.int64).reshape(size)


def _along(vector: np.ndarray, axis: int | None, axes: int) -> np.ndarray:
    """Lay a vector along one of several axes; a vector of equal values becomes a single one."""
    if (vector == vector[0]).all():
        vector = vector[:1]
    return vector.reshape([-1 if i == axis and len(vector) > 1 else 1 for i in range(axes)])


def fullest(link: Link, choices: Choices) -> np.ndarray:
    """Count the distinct source neurons of the fullest tile, for every choice of bounds."""
    return _over_choices(link, choices, lambda matrix: int(matrix.sum(1).max()))


def reached(link: Link, choices: Choices) -> np.ndarray:
    """Count the pairs of a source neuron and a tile that it reaches, for every choice of bounds."""
    return _over_choices(link, choices, lambda matrix: int(matrix.sum()))


def most_reached(link: Link, choices: Choices) -> np.ndarray:
    """Count the tiles that the source neuron with the most tiles reaches, for every choice of bounds."""
    return _over_choices(link, choices, lambda matrix: int(matrix.sum(0).max()))


def _over_choices(link: Link, choices: Choices, measure: Callable[[np.ndarray], int]) -> np.ndarray:
    """Multiply a measure over the factors, as all three counts are products over axes: int64, (choices per axis …)."""
    total = np.ones((1,) * len(choices), dtype=np.int64)
    for factor in link:
        if factor.target is None:
            total = total * measure(factor.matrix)
            continue
        size = [-1 if axis == factor.target else 1 for axis in range(len(choices))]
        measures = [measure(_any_in_part(factor.matrix, bounds)) for bounds in choices[factor.target]]
        total = total * np.array(measures, dtype=np.int64).reshape(size)
    return total
