"""The Triton kernel of mksgn/deploy/kernels/gpu.

A program of the kernel holds the membrane potentials of some rows (each a position of a sample) and
some channels in registers, and runs all steps: 8-bit products of spikes and halved weights on the
tensor cores, summed in int32, then membrane, threshold and reset. Only spikes go through memory.
"""

import triton
import triton.language as tl

from mksgn.export.loihi import CURRENT_WRAP, DECAY_STEPS, MEMBRANE_MAX, SUB_UNITS

HIGHEST: tl.constexpr = tl.constexpr(MEMBRANE_MAX)
SUB: tl.constexpr = tl.constexpr(SUB_UNITS)
HALF_WRAP: tl.constexpr = tl.constexpr(int(CURRENT_WRAP) // 2 - 1)
WRAP_MASK: tl.constexpr = tl.constexpr(int(CURRENT_WRAP) - 1)
DECAY_BITS: tl.constexpr = tl.constexpr(DECAY_STEPS.bit_length() - 1)
DECAY_MASK: tl.constexpr = tl.constexpr(DECAY_STEPS - 1)


@triton.jit
def _add_products(
    total, projection, at, kind, rows, sample, row, inside, column, samples, channels, DEPTH: tl.constexpr
):
    """Add a projection's sums at one step of its source, `at`.

    `projection` holds spikes (S, N, positions, inputs) and weights (blocks, inputs, channels); the
    blocks of each kind of row, and each row's source for them (-1: none); where each kind's blocks
    and sources begin; the numbers of positions and inputs of the source.
    """
    spikes, weight, blocks, sources, first_block, first_source, positions, inputs = projection
    begin, end = tl.load(first_block + kind), tl.load(first_block + kind + 1)
    place = tl.load(first_source + kind)
    depth = tl.arange(0, DEPTH)
    for tap in range(begin, end):
        block = tl.load(blocks + tap)
        source = tl.load(sources + place + (tap - begin) * rows + row, mask=inside, other=-1)
        there = inside & (source >= 0)
        base = ((at * samples + sample) * positions + source).to(tl.int64) * inputs
        for k in range(0, inputs, DEPTH):
            left = k + depth < inputs
            x = tl.load(spikes + base[:, None] + (k + depth)[None, :], mask=there[:, None] & left[None, :], other=0)
            cells = (block * inputs + k + depth)[:, None] * channels + column[None, :]
            w = tl.load(weight + cells, mask=left[:, None] & (column < channels)[None, :], other=0)
            total += tl.dot(x.to(tl.int8), w, out_dtype=tl.int32)
    return total


@triton.jit
def _keep(x, share):
    """Return x times share / 4096, truncated toward zero."""
    product = x.to(tl.int64) * share
    return ((product + ((product >> 63) & DECAY_MASK)) >> DECAY_BITS).to(tl.int32)


@triton.jit
def population_kernel(
    a, b, delays, extra, neuron, group, tiles, kinds, targets, sent, counts, highest, size,
    STEPS: tl.constexpr, PROJECTIONS: tl.constexpr, EXTRA: tl.constexpr, HALVING: tl.constexpr,
    REMEMBERS: tl.constexpr, SUBTRACTS: tl.constexpr, UNIT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Run all steps of ROWS rows of one kind and COLUMNS channels. `size` is samples, positions, channels."""
    samples, positions, channels = size
    kind, first = tl.load(tiles + 2 * tl.program_id(0)), tl.load(tiles + 2 * tl.program_id(0) + 1)
    start, rows = tl.load(kinds + 2 * kind), tl.load(kinds + 2 * kind + 1)
    index = first + tl.arange(0, ROWS)
    inside = index < samples * rows
    sample, row = index // rows, index % rows
    position = tl.load(targets + start + row, mask=inside, other=0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    live = inside[:, None] & (column < channels)[None, :]
    constant = (position // group)[:, None] * 7 * channels + column[None, :]
    threshold, bias, keep_v, keep_u, v = (
        tl.load(neuron + constant, mask=live, other=0),
        tl.load(neuron + channels + constant, mask=live, other=0),
        tl.load(neuron + 2 * channels + constant, mask=live, other=0),
        tl.load(neuron + 3 * channels + constant, mask=live, other=0),
        tl.load(neuron + 4 * channels + constant, mask=live, other=0),
    )
    if SUBTRACTS:
        at_once = tl.load(neuron + 5 * channels + constant, mask=live, other=0)
        in_next = tl.load(neuron + 6 * channels + constant, mask=live, other=0)
    u = tl.zeros((ROWS, COLUMNS), tl.int32)
    fired, max_current, max_membrane = u, u, u
    for step in range(STEPS):
        total = tl.zeros((ROWS, COLUMNS), tl.int32)
        if PROJECTIONS > 0:
            at = step - delays[0]
            there = inside & (at >= 0) & (at < STEPS)
            total = _add_products(total, a, at, kind, rows, sample, row, there, column, samples, channels, DEPTH)
        if PROJECTIONS > 1:
            at = step - delays[1]
            there = inside & (at >= 0) & (at < STEPS)
            total = _add_products(total, b, at, kind, rows, sample, row, there, column, samples, channels, DEPTH)
        x = total * UNIT
        cell = ((step * samples + sample) * positions + position).to(tl.int64)[:, None] * channels + column[None, :]
        if EXTRA:
            x += tl.load(extra + cell, mask=live, other=0)
        driven = x * SUB
        if REMEMBERS:
            driven += _keep(u, keep_u)
            u = ((driven + HALF_WRAP) & WRAP_MASK) - HALF_WRAP
            driven = u
        kept = (v + ((v >> 31) & 1)) >> 1 if HALVING else _keep(v, keep_v)
        if SUBTRACTS:  # unless `in_next` is 0, v is above the threshold if and only if the previous step fired
            kept -= tl.where(v > threshold, in_next, 0)
        h = tl.minimum(tl.maximum(kept + driven + bias, -HIGHEST), HIGHEST)
        spike = (h > threshold) & live
        max_current = tl.maximum(max_current, tl.where(live, tl.abs(x), 0))
        max_membrane = tl.maximum(max_membrane, tl.where(live, tl.abs(h), 0))
        fired += spike.to(tl.int32)
        v = tl.where(spike, h - at_once, h) if SUBTRACTS else tl.where(spike, 0, h)
        tl.store(sent + cell, spike.to(tl.uint8), mask=live)
    tl.atomic_add(counts + position[:, None] * channels + column[None, :], fired, mask=live & (fired > 0))
    tl.atomic_max(highest, tl.max(tl.max(max_current, 1), 0))
    tl.atomic_max(highest + 1, tl.max(tl.max(max_membrane, 1), 0))
