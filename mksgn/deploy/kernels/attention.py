"""The compiled loops of attention's products: coincidences of spikes, counted on words of bits."""

import numpy as np
from numba import njit

from mksgn.deploy.kernels.vectors import LANES, bits_of_8, bits_of_16, bits_of_32, count_common_bits

WORD = 32
GATHER = np.uint64(0x0102040810204080)


@njit(nogil=True, cache=True, boundscheck=False)
def fill_map(sums, samples, frames_of_heads, qkv, heads):
    """Fill accumulators with the coincidences q kᵀ.

    Args:
        sums: int16 or int32 (samples · S · rows, at least V²), written: [query, key]; what follows a row is
            overwritten, up to `LANES` - 1 more.
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
    q, k = np.empty((words, joints), np.uint32), np.zeros((words, joints + LANES), np.uint32)
    row = 0
    for n in range(samples[0], samples[1]):
        for s in range(steps):
            for place in frames_of_heads:
                head, spikes = place // frames, qkv[s, n, place % frames]
                for j in range(joints):
                    for w in range(words):
                        first, count = head * width + w * WORD, min(WORD, width - w * WORD)
                        q[w, j] = pack(spikes[j], first, count)
                        k[w, j] = pack(spikes[j], channels // 3 + first, count)
                for i in range(joints):
                    count_common_bits(sums, row, i * joints, q, i, k, 0, joints)
                row += 1
    return total_of(sums, row, joints * joints)


@njit(nogil=True, cache=True, boundscheck=False)
def fill_values(sums, samples, frames, m, qkv):
    """Fill accumulators with the coincidences m v.

    Args:
        sums: int16 or int32 (samples · S · rows, at least V · C), written: [query, channel]; what follows a
            row is overwritten, up to `LANES` - 1 more.
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
    values, keys = np.zeros((words, channels + LANES), np.uint32), np.empty((words, 1), np.uint32)
    row = 0
    for n in range(samples[0], samples[1]):
        for s in range(steps):
            for t in frames:
                values[:] = 0
                for j in range(joints):
                    spikes, bits, shift = qkv[s, n, t, j], values[j // WORD], np.uint32(j % WORD)
                    for c in range(channels):
                        bits[c] |= np.uint32(np.uint32(spikes[2 * channels + c]) << shift)
                for i in range(joints):
                    for head in range(heads):
                        for w in range(words):
                            keys[w, 0] = pack(m[s, n, head, t, i], w * WORD, min(WORD, joints - w * WORD))
                        first = head * width
                        count_common_bits(sums, row, i * channels + first, keys, 0, values, first, width)
                row += 1
    return total_of(sums, row, joints * channels)


@njit(nogil=True, cache=True, boundscheck=False)
def total_of(sums, rows, number):
    """Sum the first counts of each row; 32 bits hold a row's sum."""
    total = 0
    for row in range(rows):
        counts, of_row = sums[row], np.int32(0)
        for i in range(number):
            of_row = np.int32(of_row + counts[i])
        total += of_row
    return total


@njit(nogil=True, cache=True, boundscheck=False)
def pack(spikes, first, count):
    """Pack bytes of 0 or 1, at most 32 and not beyond the end, into the bits of a word."""
    rest = count - 16
    if rest == 16:
        return np.uint32(bits_of_32(spikes, first))
    if rest >= 0:  # the last sixteen overlap the first
        return np.uint32(bits_of_16(spikes, first) | np.uint64(bits_of_16(spikes, first + rest) << np.uint64(rest)))
    rest = count - 8
    if rest >= 0:
        return np.uint32(bits_of_8(spikes, first) | np.uint64(bits_of_8(spikes, first + rest) << np.uint64(rest)))
    if first + 8 <= len(spikes):
        return np.uint32(bits_of_8(spikes, first) & np.uint64((1 << count) - 1))
    bits = np.uint32(0)
    for i in range(count):
        bits |= np.uint32(np.uint32(spikes[first + i]) << np.uint32(i))
    return bits


@njit(nogil=True, cache=True, boundscheck=False)
def gathered(word):
    """Return the lowest bits of a word's 8 bytes, as 8 bits: the product moves that of byte n to bit 56 + n."""
    return np.uint64(np.uint64(word * GATHER) >> np.uint64(56))
