"""The compiled loops: spikes of the sources → accumulators → membrane potentials of all steps → spikes.

One pass handles a tile: some positions of a population, for some samples and all steps. Its
accumulators and membrane potentials stay in the core's cache. Spikes are sparse, so a source's
spikes are listed once, and each adds a row of its block of weights to the accumulators of a target.
Neurons that do not fire add nothing.

Arrays: C channels at each of P positions, S steps, N samples. Accumulators are int16 where the
worst sum fits, or int32, in units of `unit` weight units.
"""

import numpy as np
from numba import njit

from mksgn.deploy.kernels.attention import fill_map, fill_values, gathered
from mksgn.deploy.kernels.vectors import add_rows, list_bits, set_bits
from mksgn.export.loihi import CURRENT_WRAP, MEMBRANE_MAX, SUB_UNITS

# Hash of attention.py and vectors.py, which are compiled into the loops here. numba reuses its cache on disk until this
# file changes, so this line has to change with them.
INLINED = "5b09a040d32f6d09"

# 32-bit constants: with wider ones the compiler would widen the whole row
SUB, HIGHEST, LOWEST = np.int32(SUB_UNITS), np.int32(MEMBRANE_MAX), np.int32(-MEMBRANE_MAX)
# the positions of the set bits of each byte, from the lowest
PLACES = np.array([[*(k for k in range(8) if mask >> k & 1), *[0] * 8][:8] for mask in range(256)], np.int32)
SUBTRACTING = 5  # constants of a neuron that resets by subtraction
HALF_WRAP, WRAP_MASK = np.int32(CURRENT_WRAP // 2 - 1), np.int32(CURRENT_WRAP - 1)


@njit(nogil=True, cache=True, boundscheck=False)
def list_events(words, listed):
    """List the channels that fire in a row of spikes, one byte each, 8 in a word; return their number.

    Up to `SLACK` entries after them in `listed` are overwritten.
    """
    count = 0
    for i in range(len(words)):
        mask = gathered(words[i])
        list_bits(listed, count, PLACES, np.int64(mask), 8 * i)
        count += np.int64(set_bits(mask))
    return count


@njit(nogil=True, cache=True, boundscheck=False)
def fire_halving(sums, unit, extra, neuron, v, spikes):
    """Advance by one step a row of neurons whose membrane keeps a half and whose current has no memory.

    Args:
        sums: int16 or int32 (C,), accumulators.
        unit: int32, weight units of an accumulator.
        extra: int32 (C,), weight units: current from elsewhere.
        neuron: int32 (3, C), threshold, bias and a sample's initial membrane potential in sub-units.
        v: int32 (C,), membrane potentials in sub-units; updated in place.
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
    """Do the same with any decay, and with a memory of the current if u has a value for each neuron.

    `keep` is float64 (2, C): the shares that the membrane and the current keep, multiples of 1/4096.
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
    """Do as `fire` does, for neurons that reset by subtraction.

    `neuron` is int32 (5, C): threshold, bias, a sample's initial membrane potential, and what a spike subtracts
    from the membrane at once and in the next step, one of them 0.
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
        # unless `in_next` is 0, v is above the threshold if and only if the previous step fired
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
    """Add the weights of the listed events to the accumulators (rows, C padded); an edge is (block, source, target).

    Edges are ordered by block, so that a block stays in the cache for all its rows.
    """
    runs = len(sums) // targets  # samples times steps
    for block, source, target in edges:
        for run in range(runs):
            i = run * sources + source
            if starts[i + 1] > starts[i]:
                add_rows(sums, run * targets + target, weight, block, listed, starts[i], starts[i + 1])


@njit(nogil=True, cache=True, boundscheck=False)
def add_counts(total, positions, counts):
    """Add the consecutive counts of positions to the total (P, C), and set them to 0."""
    width = total.shape[1]
    for i in range(len(positions)):
        row = total[positions[i]]
        for k in range(width):
            row[k] += counts[i * width + k]
    counts[:] = 0


@njit(nogil=True, cache=True, boundscheck=False)
def same_neurons(targets, first, group, most):
    """Return the end of the targets that have the same constants, from `first` on, at most `most` of them."""
    end = first + 1
    while end < min(first + most, len(targets)) and targets[end] // group == targets[first] // group:
        end += 1
    return end


@njit(nogil=True, cache=True, boundscheck=False)
def gather_rows(rows, positions, joined):
    """Copy the rows (P, C) at `positions` one after the other into `joined`."""
    width = rows.shape[1]
    for i in range(len(positions)):
        row = rows[positions[i]]
        for k in range(width):
            joined[i * width + k] = row[k]


@njit(nogil=True, cache=True, boundscheck=False)
def scatter_rows(joined, positions, rows):
    """Copy the consecutive rows of `joined` to the rows (P, C) at `positions`."""
    width = rows.shape[1]
    for i in range(len(positions)):
        row = rows[positions[i]]
        for k in range(width):
            row[k] = joined[i * width + k]


@njit(nogil=True, cache=True, boundscheck=False)
def fire_tile(sums, samples, targets, neurons, sent, counts):
    """Advance a tile's neurons through all steps; arguments and maxima as in `run_tiles`.

    Positions with the same constants are joined into one row, because a row costs the same few
    comparisons however long it is.
    """
    unit, extra, neuron, group, keep, state = neurons
    steps, width = sent.shape[0], sent.shape[3]
    most = neuron.shape[2] // width
    v_of_row, u_of_row = np.empty(most * width, np.int32), np.empty(most * width if state.shape[1] else 0, np.int32)
    current_of_row, spikes = np.empty(most * width, np.int32), np.empty(most * width, np.uint8)
    per_neuron = np.zeros(most * width, np.uint8)
    max_current, max_membrane = np.int32(0), np.int32(0)
    first = 0
    while first < len(targets):
        end = same_neurons(targets, first, group, most)
        joined, size, added = targets[first:end], (end - first) * width, 0
        constants, v = neuron[joined[0] // group], v_of_row[:size]
        u = u_of_row[:size] if state.shape[1] else u_of_row
        in_order, start = joined[-1] - joined[0] == end - first - 1, joined[0] * width
        for n in range(samples[0], samples[1]):
            if state.shape[1]:
                gather_rows(state[0, n], joined, v)
                gather_rows(state[1, n], joined, u)
            else:
                v[:] = constants[2, :size]
            for s in range(steps):
                row = ((n - samples[0]) * steps + s) * len(targets) + first
                accumulated = sums[row : row + end - first].reshape(-1)
                more = extra[min(s, extra.shape[0] - 1), min(n, extra.shape[1] - 1), 0]
                if extra.shape[2] > 1:
                    gather_rows(extra[min(s, extra.shape[0] - 1), min(n, extra.shape[1] - 1)], joined, current_of_row)
                    more = current_of_row
                out = sent[s, n].reshape(-1)[start : start + size] if in_order else spikes[:size]
                if len(constants) == SUBTRACTING:
                    current, h = fire_subtracting(
                        accumulated, unit, more, constants, keep[joined[0] // group], v, u, out
                    )
                elif len(keep):
                    current, h = fire(accumulated, unit, more, constants, keep[joined[0] // group], v, u, out)
                else:
                    current, h = fire_halving(accumulated, unit, more, constants, v, out)
                max_current, max_membrane = max(max_current, current), max(max_membrane, h)
                if not in_order:
                    scatter_rows(out, joined, sent[s, n])
                for k in range(size):
                    per_neuron[k] = np.uint8(per_neuron[k] + out[k])
                added += 1
                if added == 255:  # the most that a byte holds
                    add_counts(counts, joined, per_neuron)
                    added = 0
            if state.shape[1]:
                scatter_rows(v, joined, state[0, n])
                scatter_rows(u, joined, state[1, n])
        add_counts(counts, joined, per_neuron)
        first = end
    return max_current, max_membrane


@njit(nogil=True, cache=True, boundscheck=False)
def run_tiles(tasks, inputs, product, tiles, unit, extra, neuron, group, keep, state, sent, counts, scratch):
    """Run tiles of a population over all steps.

    Args:
        tasks: int64 (tasks, 3): tile, first sample, end of the samples.
        inputs: per projection a tuple of spikes as words, uint64 (S, N, P, C_in / 8); blocks of weights,
            int8 (blocks, C_in, C padded); edges, int32 (edges, 3), and where each tile's begin, int64 (tiles + 1,);
            source positions, int64, and where each tile's begin; the delay in steps.
        product: uint8 qkv (S, N, T, V, 3C), map (S, N, heads, T, V, V) and number of heads, for a population
            that only a product reaches: its positions are (head, frame) of a map, or frames. Empty arrays if
            there is none; an empty map if the product is q kᵀ.
        tiles: the targets' positions, int64, and where each tile's begin, int64 (tiles + 1,).
        unit: weight units of an accumulator.
        extra: int32 (S, N, P, C), weight units: current of other projections; an axis of length 1 is the same for
            all, and if P is 1, C is repeated as for `neuron`.
        neuron: int32 (P / group, 3, R C) as in `fire_halving`, or (P / group, 5, R C) as in `fire_subtracting`;
            `group` positions share the same constants, repeated R times because up to R positions are advanced
            in one row. R is more than 1 only where accumulators have no padding.
        group: number of those positions.
        keep: float64 (P / group, 2, R C) as in `fire`; empty: the membrane keeps a half and is reset to 0, the
            current keeps nothing.
        state: int32 (2, N, P, C), membrane potentials and currents in sub-units; updated in place. N may
            be 0 where every sample starts anew and the current has no memory.
        sent: uint8 (S, N, P, C), spikes; written.
        counts: int64 (P, C), spikes; added to.
        scratch: arrays for accumulators (rows, C padded), events' ends (rows + 1,) int64, and events int32.

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
