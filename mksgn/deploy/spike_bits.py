"""Spike trains packed into bits, as they are kept in files, in shared memory and between processes."""

import numpy as np


def pack(spikes: np.ndarray) -> np.ndarray:
    """Pack 0 or 1 along the last axis: (…, n) → (…, ceil(n / 8)) uint8."""
    return np.packbits(spikes, axis=-1)


def unpack(bits: np.ndarray, size: int) -> np.ndarray:
    """Undo `pack` of `size` values along the last axis: (…, ceil(size / 8)) uint8 → (…, size) bool."""
    return np.unpackbits(bits, axis=-1, count=size).view(bool)
