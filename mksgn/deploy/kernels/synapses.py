"""The compiled loops: spikes of the sources → accumulators → membrane potentials of all steps → spikes.

One pass handles a tile: some positions of a population, for some samples and all steps. Its
accumulators and membrane potentials stay in the core's cache. Spikes are sparse, so that a source's
spikes are listed once, and each adds a row of its block of weights to the accumulators of a target.
What is silent costs nothing.

Arrays: C channels at each of P positions, S steps, N samples. Accumulators are int16 where the
worst sum fits, or int32, in units of `unit` weight units.
"""

import numpy as np
from numba import njit

from mksgn.deploy.kernels.attention import fill_map, fill_values, gathered
from mksgn.deploy.kernels.tiles import SLACK
from mksgn.deploy.kernels.vectors import add_rows, set_bits, trailing_zeros
from mksgn.export.loihi import CURRENT_WRAP, MEMBRANE_MAX, SUB_UNITS

# Of attention.py and vectors.py, which are compiled into the loops here. numba uses what it has kept on disk until this
# file changes: so this line has to change with them.
INLINED = "44b60dd3d9e7a5cd"

# 32-bit constants: with wider ones the compiler would widen all of a row
SUB, HIGHEST, LOWEST = np.int32(SUB_UNITS), np.int32(MEMBRANE_MAX), np.int32(-MEMBRANE_MAX)
SUBTRACTING = 5  # constants of a neuron that resets by subtraction
HALF_WRAP, WRAP_MASK = np.int32(CURRENT_WRAP // 2 - 1), np.int32(CURRENT_WRAP - 1)


@njit(nogil=True, cache=True, boundscheck=False)
def list_events(words, listed):
    """List the channels that fire in a row of spikes, one byte each, 8 in a word; return their number.

    What follows them in `listed` is overwritten, up to `SLACK` more.
    """
    count = 0
    for first in range(0, len(words), 8):
        mask = np.uint64(0)
        for i in range(min(8, len(words) - first)):
            mask |= np.uint64(gathered(words[first + i]) << np.uint64(8 * i))
        end = count + np.int64(set_bits(mask))
        # four at a time: the processor foresees how often more easily than for single ones
        for place in range(count, end, SLACK + 1):
            for k in range(SLACK + 1):
                listed[place + k] = 8 * first + trailing_zeros(mask)
                mask &= np.uint64(mask - np.uint64(1))
        count = end
    return count


@njit(nogil=True, cache=True, boundscheck=False)
def fire_halving(sums, unit, extra, neuron, v, spikes):
    """Advance a row of neurons whose membrane keeps a half, and whose current has no memory, by one step.

    Args:
        sums: int16 or int32 (C,), accumulators.
        unit: int32, weight units of an accumulator.
        extra: int32 (C,), weight units: current from elsewhere.
        neuron: int32 (3, C), threshold, bias and a sample's first membrane potential in sub-units.
        v: int32 (C,), membrane potentials in sub-units; changed.
        spikes: uint8 (C,), written.

    Returns:
        Largest |current| in weight units, and largest |membrane potential before reset| in sub-units.
    """
    threshold, bias = neuron[0], neuron[1]
    max_current, max_membrane = np.int32(0), np.int32(0)
    for k in range(len(v)):
        x = np.int32(np.int32(np.int32(sums[k]) * unit) + extra[k])
        kept = np.int32(np.int32(v[k] - np.int32(v[k] >> np.int32(31))) >> np.int32(1))  # truncates toward zero
        h = np.int32(np.int32(kept + np.int32(x * SUB)) + bias[k])
        h = min(max(h, LOWEST), HIGHEST)
        max_current = max(max_current, max(x, np.int32(-x)))
        max_membrane = max(max_membrane, max(h, np.int32(-h)))
        fires = h > threshold[k]
        spikes[k] = fires
        v[k] = np.int32(0) if fires else h
    return max_current, max_membrane


@njit(nogil=True, cache=True, boundscheck=False)
def fire(sums, unit, extra, neuron, keep, v, u, spikes):
    """The same with any decay, and with a memory of the current where u has a value for each neuron.

    `keep` is float64 (2, C): the share that the membrane and the current keep, multiples of 1/4096.
    """
    threshold, bias = neuron[0], neuron[1]
    keep_v, keep_u = keep[0], keep[1]
    remembers = len(u) == len(v)
    max_current, max_membrane = np.int32(0), np.int32(0)
    for k in range(len(v)):
        x = np.int32(np.int32(np.int32(sums[k]) * unit) + extra[k])
        driven = np.int32(x * SUB)
        if remembers:
            driven = np.int32(np.int32(np.float64(u[k]) * keep_u[k]) + driven)
            driven = np.int32(np.int32(np.int32(driven + HALF_WRAP) & WRAP_MASK) - HALF_WRAP)
            u[k] = driven
        h = np.int32(np.int32(np.int32(np.float64(v[k]) * keep_v[k]) + driven) + bias[k])
        h = min(max(h, LOWEST), HIGHEST)
        max_current = max(max_current, max(x, np.int32(-x)))
        max_membrane = max(max_membrane, max(h, np.int32(-h)))
        fires = h > threshold[k]
        spikes[k] = fires
        v[k] = np.int32(0) if fires else h
    return max_current, max_membrane


@njit(nogil=True, cache=True, boundscheck=False)
def fire_subtracting(sums, unit, extra, neuron, keep, v, u, spikes):
    """As `fire`, of neurons that reset by subtraction.

    `neuron` is int32 (5, C): threshold, bias, a sample's first membrane potential, and what a spike takes from
    the membrane at once and in the next step, one of them 0.
    """
    threshold, bias, at_once, in_next = neuron[0], neuron[1], neuron[3], neuron[4]
    keep_v, keep_u = keep[0], keep[1]
    remembers = len(u) == len(v)
    max_current, max_membrane = np.int32(0), np.int32(0)
    for k in range(len(v)):
        x = np.int32(np.int32(np.int32(sums[k]) * unit) + extra[k])
        driven = np.int32(x * SUB)
        if remembers:
            driven = np.int32(np.int32(np.float64(u[k]) * keep_u[k]) + driven)
            driven = np.int32(np.int32(np.int32(driven + HALF_WRAP) & WRAP_MASK) - HALF_WRAP)
            u[k] = driven
        # v is above the threshold where the step before fired, or `in_next` is 0
        owed = in_next[k] if v[k] > threshold[k] else np.int32(0)
        h = np.int32(np.int32(np.int32(np.int32(np.float64(v[k]) * keep_v[k]) - owed) + driven) + bias[k])
        h = min(max(h, LOWEST), HIGHEST)
        max_current = max(max_current, max(x, np.int32(-x)))
        max_membrane = max(max_membrane, max(h, np.int32(-h)))
        fires = h > threshold[k]
        spikes[k] = fires
        v[k] = np.int32(h - at_once[k]) if fires else h
    return max_current, max_membrane


@njit(nogil=True, cache=True, boundscheck=False)
def list_tile(words, samples, sources, delay, starts, listed):
    """List the events of a tile's sources; row (n, s, source) gets listed[starts[row] : starts[row + 1]]."""
    row, end, steps = 0, 0, words.shape[0]
    starts[0] = 0
    for n in range(samples[0], samples[1]):
        for s in range(steps):
            for source in sources:
                if 0 <= s - delay < steps:
                    end += list_events(words[s - delay, n, source], listed[end:])
                row += 1
                starts[row] = end


@njit(nogil=True, cache=True, boundscheck=False)
def add_tile(sums, weight, edges, targets, starts, sources, listed):
    """Add what the listed events cause to the accumulators (rows, C padded); an edge is (block, source, target).

    Edges are in the order of their blocks, so that a block stays in the cache for all its rows.
    """
    runs = len(sums) // targets  # samples times steps
    for block, source, target in edges:
        for run in range(runs):
            i = run * sources + source
            if starts[i + 1] > starts[i]:
                add_rows(sums, run * targets + target, weight, block, listed, starts[i], starts[i + 1])


@njit(nogil=True, cache=True, boundscheck=False)
def add_counts(total, counts):
    """Add counts to a total, and set them to 0."""
    for k in range(len(total)):
        total[k] += counts[k]
        counts[k] = 0


@njit(nogil=True, cache=True, boundscheck=False)
def fire_tile(sums, samples, targets, neurons, sent, counts):
    """Advance a tile's neurons by all steps; arguments and maxima as in `run_tiles`."""
    unit, extra, neuron, group, keep, state = neurons
    steps, width = sent.shape[0], sent.shape[3]
    resting, no_memory = np.empty(width, np.int32), np.empty(0, np.int32)
    per_neuron = np.zeros(width, np.uint8)
    max_current, max_membrane = np.int32(0), np.int32(0)
    for i in range(len(targets)):
        p, added = targets[i], 0
        constants = neuron[p // group]
        for n in range(samples[0], samples[1]):
            v, u = resting, no_memory
            if state.shape[1]:
                v, u = state[0, n, p], state[1, n, p]
            else:
                v[:] = constants[2]
            for s in range(steps):
                row = sums[((n - samples[0]) * steps + s) * len(targets) + i]
                more = extra[min(s, extra.shape[0] - 1), min(n, extra.shape[1] - 1), min(p, extra.shape[2] - 1)]
                out = sent[s, n, p]
                if len(constants) == SUBTRACTING:
                    current, h = fire_subtracting(row, unit, more, constants, keep[p // group], v, u, out)
                elif len(keep):
                    current, h = fire(row, unit, more, constants, keep[p // group], v, u, out)
                else:
                    current, h = fire_halving(row, unit, more, constants, v, out)
                max_current, max_membrane = max(max_current, current), max(max_membrane, h)
                for k in range(width):
                    per_neuron[k] = np.uint8(per_neuron[k] + out[k])
                added += 1
                if added == 255:  # of a byte
                    add_counts(counts[p], per_neuron)
                    added = 0
        add_counts(counts[p], per_neuron)
    return max_current, max_membrane


@njit(nogil=True, cache=True, boundscheck=False)
def run_tiles(tasks, inputs, product, tiles, unit, extra, neuron, group, keep, state, sent, counts, scratch):
    """Run tiles of a population over all steps.

    Args:
        tasks: int64 (tasks, 3): tile, first sample, end of the samples.
        inputs: per projection a tuple of spikes as words, uint64 (S, N, P, C_in / 8); blocks of weights,
            int8 (blocks, C_in, C padded); edges, int32 (edges, 3), and int64 (tiles + 1,) where each tile's begin;
            sources' positions, int64, and where each tile's begin; its delay in steps.
        product: uint8 qkv (S, N, T, V, 3C), map (S, N, heads, T, V, V) and number of heads, of a population
            that nothing but a product reaches: its positions are (head, frame) of a map, or frames. Arrays
            of no length where there is none; a map of no length where the product is q kᵀ.
        tiles: the targets' positions, int64, and int64 (tiles + 1,) where each tile's begin.
        unit: weight units of an accumulator.
        extra: int32 (S, N, P, C), weight units: current of other projections; an axis of 1 is the same for all.
        neuron: int32 (P / group, 3, C) as in `fire_halving`, or (P / group, 5, C) as in `fire_subtracting`;
            `group` positions have the same.
        group: number of those positions.
        keep: float64 (P / group, 2, C) as in `fire`; (0, 2, C): the membrane keeps a half, and is reset to 0.
        state: int32 (2, N, P, C), membrane potentials and currents in sub-units; changed. Its axes but
            the last may be 0 long where every sample starts anew and the current has no memory.
        sent: uint8 (S, N, P, C), spikes; written.
        counts: int64 (P, C), spikes; added to.
        scratch: arrays of accumulators (rows, C padded); events' ends (rows + 1,) int64; events int32.

    Returns:
        Largest |current| in weight units, largest |membrane potential before reset| in sub-units, and the
        product's coincidences.
    """
    positions, first_target = tiles
    sums_of_all, starts, listed = scratch
    steps = sent.shape[0]
    max_current, max_membrane, coincidences = np.int32(0), np.int32(0), 0
    qkv, value_map, heads = product
    for tile, first, end in tasks:
        targets = positions[first_target[tile] : first_target[tile + 1]]
        sums = sums_of_all[: (end - first) * steps * len(targets)]
        if len(value_map):
            coincidences += fill_values(sums, (first, end), targets, value_map, qkv)
        elif len(qkv):
            coincidences += fill_map(sums, (first, end), targets, qkv, heads)
        else:
            sums[:] = 0
        for words, weight, edges, first_edge, source_positions, first_source, delay in inputs:
            sources = source_positions[first_source[tile] : first_source[tile + 1]]
            list_tile(words, (first, end), sources, delay, starts, listed)
            part = edges[first_edge[tile] : first_edge[tile + 1]]
            add_tile(sums, weight, part, len(targets), starts, len(sources), listed)
        neurons = unit, extra, neuron, group, keep, state
        current, membrane = fire_tile(sums, (first, end), targets, neurons, sent, counts)
        max_current, max_membrane = max(max_current, current), max(max_membrane, membrane)
    return max_current, max_membrane, coincidences
