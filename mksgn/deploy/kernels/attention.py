"""The compiled loops of attention's products: coincidences of spikes, counted on words of bits."""

import numpy as np
from numba import njit

from mksgn.deploy.kernels.vectors import load_word, set_bits

WORD = 32
GATHER = np.uint64(0x0102040810204080)


@njit(nogil=True, cache=True, boundscheck=False)
def fill_map(sums, samples, frames_of_heads, qkv, heads):
    """Fill accumulators with the coincidences q kᵀ.

    Args:
        sums: int16 or int32 (samples · S · rows, at least V²), written: [query, key].
        samples: first, and end.
        frames_of_heads: head · T + t of each row.
        qkv: uint8 (S, N, T, V, 3C), spikes; channel = head · d + i.
        heads: number of heads.

    Returns:
        The number of coincidences.
    """
    steps, _, frames, joints, channels = qkv.shape
    width = channels // 3 // heads
    words = -(-width // WORD)
    q, k = np.empty((words, joints), np.uint32), np.empty((words, joints), np.uint32)
    row, total = 0, 0
    for n in range(samples[0], samples[1]):
        for s in range(steps):
            for place in frames_of_heads:
                head, spikes = place // frames, qkv[s, n, place % frames]
                for j in range(joints):
                    for w in range(words):
                        first, count = head * width + w * WORD, min(WORD, width - w * WORD)
                        q[w, j] = pack(spikes[j], first, count)
                        k[w, j] = pack(spikes[j], channels // 3 + first, count)
                counts = sums[row]
                counts[: joints * joints] = 0
                for w in range(words):
                    keys = k[w]
                    for i in range(joints):
                        query, first = q[w, i], i * joints
                        for j in range(joints):
                            counts[first + j] += set_bits(np.uint32(query & keys[j]))
                total += sum_of(counts, joints * joints)
                row += 1
    return total


@njit(nogil=True, cache=True, boundscheck=False)
def fill_values(sums, samples, frames, m, qkv):
    """Fill accumulators with the coincidences m v.

    Args:
        sums: int16 or int32 (samples · S · rows, at least V · C), written: [query, channel].
        samples: first, and end.
        frames: of each row.
        m: uint8 (S, N, heads, T, V, V), spikes of the map, [query, key].
        qkv: uint8 (S, N, T, V, 3C), spikes.

    Returns:
        The number of coincidences.
    """
    steps, heads, joints = m.shape[0], m.shape[2], m.shape[4]
    channels = qkv.shape[4] // 3
    width = channels // heads
    words = -(-joints // WORD)
    values, keys = np.empty((words, channels), np.uint32), np.empty(channels, np.uint32)
    row, total = 0, 0
    for n in range(samples[0], samples[1]):
        for s in range(steps):
            for t in frames:
                values[:] = 0
                for j in range(joints):
                    spikes, bits, shift = qkv[s, n, t, j], values[j // WORD], np.uint32(j % WORD)
                    for c in range(channels):
                        bits[c] |= np.uint32(np.uint32(spikes[2 * channels + c]) << shift)
                counts = sums[row]
                counts[: joints * channels] = 0
                for i in range(joints):
                    for w in range(words):
                        for head in range(heads):
                            word = pack(m[s, n, head, t, i], w * WORD, min(WORD, joints - w * WORD))
                            for c in range(head * width, (head + 1) * width):
                                keys[c] = word
                        bits, first = values[w], i * channels
                        for c in range(channels):
                            counts[first + c] += set_bits(np.uint32(keys[c] & bits[c]))
                total += sum_of(counts, joints * channels)
                row += 1
    return total


@njit(nogil=True, cache=True, boundscheck=False)
def sum_of(counts, number):
    """Sum counts in 32 bits, which hold those of a row."""
    total = np.int32(0)
    for i in range(number):
        total = np.int32(total + counts[i])
    return total


@njit(nogil=True, cache=True, boundscheck=False)
def pack(spikes, first, count):
    """Pack bytes of 0 or 1, at most 32, into the bits of a word."""
    bits, i = np.uint32(0), 0
    while i + 8 <= count:
        bits |= np.uint32(np.uint32(gathered(load_word(spikes, first + i))) << np.uint32(i))
        i += 8
    while i < count:
        bits |= np.uint32(np.uint32(spikes[first + i]) << np.uint32(i))
        i += 1
    return bits


@njit(nogil=True, cache=True, boundscheck=False)
def gathered(word):
    """Return the lowest bits of a word's 8 bytes, as 8 bits: the product moves that of byte n to bit 56 + n."""
    return np.uint64(np.uint64(word * GATHER) >> np.uint64(56))
