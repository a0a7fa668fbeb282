"""The compiled loops of attention's products: coincidences of spikes, counted on words of bits."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from mksgn.deploy.kernels.vectors import load_word, set_bits
from mksgn.deploy.program.program import Product

WORD = 32
GATHER = np.uint64(0x0102040810204080)


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
    q, k = np.empty((words, joints), np.uint32), np.empty((words, joints), np.uint32)
    total = 0
    for run in range(runs):
        for t in range(frames):
            for head in range(heads):
                for j in range(joints):
                    row, first = qkv[run, t, j], head * width
                    for w in range(words):
                        q[w, j] = pack(row, first + w * WORD, min(WORD, width - w * WORD))
                        k[w, j] = pack(row, channels // 3 + first + w * WORD, min(WORD, width - w * WORD))
                for i in range(joints):
                    total += weighted_counts(q[:, i], k, weight, out[run, head, t, i])
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
    words = -(-joints // WORD)
    keys, values = np.empty(words, np.uint32), np.empty((words, channels), np.uint32)
    total = 0
    for run in range(runs):
        for t in range(frames):
            values[:] = 0
            for j in range(joints):
                row, bits, shift = qkv[run, t, j], values[j // WORD], np.uint32(j % WORD)
                for c in range(channels):
                    bits[c] |= np.uint32(np.uint32(row[2 * channels + c]) << shift)
            for i in range(joints):
                for head in range(heads):
                    for w in range(words):
                        keys[w] = pack(m[run, head, t, i], w * WORD, min(WORD, joints - w * WORD))
                    part = slice(head * width, (head + 1) * width)
                    total += weighted_counts(keys, values[:, part], weight, out[run, t, i, part])
    return total


@njit(nogil=True, cache=True, boundscheck=False)
def pack(spikes, first, count):
    """Pack bytes of 0 or 1, at most 32, into the bits of a word."""
    bits, i = np.uint32(0), 0
    while i + 8 <= count:  # the product moves the bit of byte n to bit 56 + n
        byte = np.uint32((load_word(spikes, first + i) * GATHER) >> np.uint64(56))
        bits |= np.uint32(byte << np.uint32(i))
        i += 8
    while i < count:
        bits |= np.uint32(np.uint32(spikes[first + i]) << np.uint32(i))
        i += 1
    return bits


@njit(nogil=True, cache=True, boundscheck=False)
def weighted_counts(one, many, weight, out):
    """Write weight times the coincidences of `one`, (words,), with each column of `many`, (words, n); sum the counts."""
    total = np.int32(0)
    out[:] = 0
    for w in range(len(one)):
        bits, row = one[w], many[w]
        for j in range(len(out)):
            out[j] = np.int32(out[j] + np.int32(set_bits(np.uint32(bits & row[j]))))
    for j in range(len(out)):
        total = np.int32(total + out[j])
        out[j] = np.int32(out[j] * weight)
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


def compile_loops() -> None:
    """Compile the loops, by a map of one joint."""
    qkv, m = np.zeros((1, 1, 1, 3), np.uint8), np.zeros((1, 1, 1, 1, 1), np.uint8)
    map_current(qkv, 1, np.int32(1), np.empty((1, 1, 1, 1, 1), np.int32))
    value_current(m, qkv, np.int32(1), np.empty((1, 1, 1, 1), np.int32))
