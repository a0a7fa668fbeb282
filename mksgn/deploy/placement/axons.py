"""Axons of a cut: the distinct neurons that reach a core, and the cores that a neuron reaches.

Both are sizes of unions, one set for each projection between the same two groups, and each set is a product over axes. So they are
counted by inclusion and exclusion on the axes' matrices: exactly, and without a list of neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from mksgn.deploy.placement.connectivity import Factor, Link

MOST_LINKS = 5  # of 2^n - 1 intersections; more links than that get the sum of their sizes, an upper bound
LETTERS = "abcdefgh"

Bounds = tuple[np.ndarray, ...]  # per axis: where each part starts, and the axis's length
Choices = Sequence[Sequence[np.ndarray]]  # per axis: several ways to bound its parts


def cut(link: Link, bounds: Bounds) -> Link:
    """The same link from source neurons to the parts of the target's axes."""
    return tuple(
        f
        if f.target is None
        else Factor(f.target, f.source, np.logical_or.reduceat(f.matrix, bounds[f.target][:-1], axis=0))
        for f in link
    )


def maximal(links: Sequence[Link]) -> list[Link]:
    """Without links that another one contains: a skip beside a convolution, or the shares of one delay each."""
    kept: list[Link] = []
    for i, one in enumerate(links):
        others = [*kept, *links[i + 1 :]]
        if not any(_contains(other, one) for other in others):
            kept.append(one)
    return kept


def _contains(large: Link, small: Link) -> bool:
    by_axes = {(f.target, f.source): f.matrix for f in large}
    return len(large) == len(small) and all(
        (f.target, f.source) in by_axes and not (f.matrix & ~by_axes[f.target, f.source]).any() for f in small
    )


def union(links: Sequence[Link], kept: Literal["target", "source"], shape: tuple[int, ...]) -> np.ndarray:
    """How many places of the other side at least one link connects to each place of the kept one, whose shape is given.

    Axes along which the count does not change may have length 1.
    """
    if len(links) > MOST_LINKS:
        return sum(
            (_common([one], kept, len(shape)) for one in links), start=np.zeros((1,) * len(shape), dtype=np.int64)
        )
    total = np.zeros((1,) * len(shape), dtype=np.int64)
    for n in range(1, len(links) + 1):
        for chosen in combinations(links, n):
            total = total + (-1) ** (n + 1) * _common(chosen, kept, len(shape))
    return total


def _common(links: Sequence[Link], kept: Literal["target", "source"], axes: int) -> np.ndarray:
    """How many places of the other side all links connect to each place of the kept one."""
    by_counted: dict[int | None, dict[int | None, np.ndarray]] = {}
    for one in links:
        for factor in one:
            mine, other, matrix = factor.target, factor.source, factor.matrix
            if kept == "source":
                mine, other, matrix = factor.source, factor.target, factor.matrix.T
            found = by_counted.setdefault(other, {})
            found[mine] = matrix & found[mine] if mine in found else matrix
    total = np.ones((1,) * axes, dtype=np.int64)
    for other, found in by_counted.items():
        if other is None:  # kept axes without a partner, each for itself
            for mine, matrix in found.items():
                total = total * _along(matrix[:, 0].astype(np.int64), mine, axes)
            continue
        alone = found.pop(None, None)  # connected to the place whatever the kept axes are
        if not found:
            assert alone is not None
            total = total * int(alone.sum())
            continue
        if alone is not None:
            found = {mine: matrix & alone for mine, matrix in found.items()}
        if len(found) == 1:
            ((mine, matrix),) = found.items()
            total = total * _along(matrix.sum(1), mine, axes)
            continue
        order = sorted(axis for axis in found if axis is not None)
        terms = ",".join(f"{LETTERS[i]}z" for i in range(len(order)))
        counts = np.einsum(
            f"{terms}->{LETTERS[: len(order)]}", *(found[axis].astype(np.float64) for axis in order), optimize=True
        )
        size = [1] * axes
        for axis, n in zip(order, counts.shape, strict=True):
            size[axis] = n
        total = total * np.rint(counts).astype(np.int64).reshape(size)
    return total


def _along(vector: np.ndarray, axis: int | None, axes: int) -> np.ndarray:
    """A vector laid along one of several axes; along none where it is a single number, or the same number everywhere."""
    if (vector == vector[0]).all():
        vector = vector[:1]
    return vector.reshape([-1 if i == axis and len(vector) > 1 else 1 for i in range(axes)])


def fullest(link: Link, choices: Choices) -> np.ndarray:
    """Distinct source neurons that the fullest tile sees, for every choice of bounds: int64, (choices per axis …)."""
    return _over_choices(link, choices, lambda seen: int(seen.sum(1).max()))


def reached(link: Link, choices: Choices) -> np.ndarray:
    """Pairs of a source neuron and a tile that it reaches, for every choice of bounds: int64, (choices per axis …)."""
    return _over_choices(link, choices, lambda seen: int(seen.sum()))


def most_reached(link: Link, choices: Choices) -> np.ndarray:
    """Tiles that the farthest reaching source neuron reaches, for every choice of bounds: int64, (choices per axis …)."""
    return _over_choices(link, choices, lambda seen: int(seen.sum(0).max()))


def _over_choices(link: Link, choices: Choices, measure: Callable[[np.ndarray], int]) -> np.ndarray:
    total = np.ones((1,) * len(choices), dtype=np.int64)
    for factor in link:
        if factor.target is None:
            total = total * measure(factor.matrix)
            continue
        parts = [np.logical_or.reduceat(factor.matrix, bounds[:-1], axis=0) for bounds in choices[factor.target]]
        size = [-1 if axis == factor.target else 1 for axis in range(len(choices))]
        total = total * np.array([measure(part) for part in parts], dtype=np.int64).reshape(size)
    return total
