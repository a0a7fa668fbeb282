"""The compiled loops of attention's products: coincidences of spikes, counted on words of bits."""

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from torch import Tensor

from mksgn.deploy.program.program import Product

WORD = 64


@intrinsic
def ones(_, word):
    """Count the bits that are set in a uint64."""

    def generate(_context, builder, _signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@njit(nogil=True, cache=True, boundscheck=False)
def pack(spikes, bits):
    """Pack bytes of 0 or 1 into bits of words."""
    bits[:] = 0
    for i in range(len(spikes)):
        bits[i // WORD] |= np.uint64(spikes[i]) << np.uint64(i % WORD)


@njit(nogil=True, cache=True, boundscheck=False)
def map_current(qkv, heads, weight, out):
    """Compute weight · q kᵀ of each head and frame.

    Args:
        qkv: uint8 (runs, T, V, 3C), spikes.
        heads: number of heads; channel = head · d + i.
        weight: int32.
        out: int32 (runs, heads, T, V, V), [query, key]; written.

    Returns:
        The number of coincidences.
    """
    runs, frames, joints, channels = qkv.shape
    width = channels // 3 // heads
    words = -(-width // WORD)
    q, k = np.empty((joints, words), np.uint64), np.empty((joints, words), np.uint64)
    total = 0
    for run in range(runs):
        for t in range(frames):
            for head in range(heads):
                for j in range(joints):
                    row, first = qkv[run, t, j], head * width
                    pack(row[first : first + width], q[j])
                    pack(row[channels // 3 + first : channels // 3 + first + width], k[j])
                for i in range(joints):
                    row_of = out[run, head, t, i]
                    for j in range(joints):
                        count = np.int32(0)
                        for w in range(words):
                            count += np.int32(ones(q[i, w] & k[j, w]))
                        total += count
                        row_of[j] = count * weight
    return total


@njit(nogil=True, cache=True, boundscheck=False)
def value_current(m, qkv, weight, out):
    """Compute weight · m v of each head and frame.

    Args:
        m: uint8 (runs, heads, T, V, V), spikes of the map, [query, key].
        qkv: uint8 (runs, T, V, 3C), spikes.
        weight: int32.
        out: int32 (runs, T, V, C); written.

    Returns:
        The number of coincidences.
    """
    runs, heads, frames, joints = m.shape[:4]
    channels = out.shape[3]
    width = channels // heads
    total = 0
    for run in range(runs):
        for t in range(frames):
            for i in range(joints):
                for head in range(heads):
                    row = out[run, t, i, head * width : (head + 1) * width]
                    row[:] = 0
                    keys = m[run, head, t, i]
                    first = 2 * channels + head * width
                    for j in range(joints):
                        if keys[j]:
                            values = qkv[run, t, j, first : first + width]
                            for c in range(width):
                                row[c] += values[c]
                    for c in range(width):
                        total += row[c]
                        row[c] *= weight
    return total


def current(product: Product, inputs: tuple[Tensor, ...]) -> tuple[Tensor, int]:
    """Compute a product's current in weight units, (N, *target shape) int32, and its coincidences.

    Args:
        product: a product with an integer weight.
        inputs: spikes of its sources, (N, *shape) uint8.
    """
    qkv = inputs[-1].movedim(1, -1).contiguous().numpy()
    runs, frames, joints, channels = qkv.shape
    weight = np.int32(product.weight)
    if product.part == "m":
        out = np.empty((runs, product.heads, frames, joints, joints), np.int32)
        total = map_current(qkv, product.heads, weight, out)
        return torch.from_numpy(out), int(total)
    out = np.empty((runs, frames, joints, channels // 3), np.int32)
    total = value_current(inputs[0].contiguous().numpy(), qkv, weight, out)
    return torch.from_numpy(out).movedim(-1, 1), int(total)
