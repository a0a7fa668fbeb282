"""Large arrays of weights, processed some rows at a time, so that computing in float64 takes little memory."""

from collections.abc import Callable, Iterator

import numpy as np

BLOCK = 1 << 22  # weights processed at a time: a whole large layer in float64 would take twice its memory


def by_rows(change: Callable[[np.ndarray], np.ndarray], weight: np.ndarray) -> np.ndarray:
    """Apply an elementwise change to weights in float64, some rows at a time.

    Returns:
        float32, of the weights' shape.
    """
    if weight.size <= BLOCK:
        return np.asarray(change(np.asarray(weight, dtype=np.float64)), dtype=np.float32, order="C")
    changed = np.empty(weight.shape, dtype=np.float32)
    for rows in blocks_of_rows(weight):
        changed[rows] = change(np.asarray(weight[rows], dtype=np.float64))
    return changed


def in_float64(weight: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights in float64, some rows at a time."""
    return (np.asarray(weight[rows], dtype=np.float64) for rows in blocks_of_rows(weight))


def blocks_of_rows(weight: np.ndarray) -> Iterator[slice]:
    """Yield slices of the first axis, of at most BLOCK weights unless a single row has more."""
    rows = max(1, BLOCK * len(weight) // max(1, weight.size))
    yield from (slice(first, first + rows) for first in range(0, len(weight), rows))
