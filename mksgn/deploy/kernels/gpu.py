"""A population of a fixed-point program on a GPU: the pass of mksgn/deploy/kernels/population as one Triton kernel.

A program of the kernel holds the membrane potentials of some rows (a position of a sample) and some
channels in registers, and runs all steps: 8-bit products of spikes and halved weights on the tensor
cores, summed in int32, then membrane, threshold and reset. Nothing but spikes goes through memory.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from mksgn.deploy.kernels.blocks import HALF, Blocks
from mksgn.deploy.kernels.population import Fired, FusedPopulation, channels_last
from mksgn.deploy.program.program import Population, Program
from mksgn.export.loihi import CURRENT_WRAP, DECAY_STEPS, MEMBRANE_MAX, SUB_UNITS

ROWS, COLUMNS, DEPTH = 64, 64, 64  # of the tile of a program, and of a product's inner axis
WARPS = 4
MOST_PROJECTIONS = 2  # whose products the kernel forms; the currents of others are given to it
HIGHEST: tl.constexpr = tl.constexpr(MEMBRANE_MAX)
SUB: tl.constexpr = tl.constexpr(SUB_UNITS)
HALF_WRAP: tl.constexpr = tl.constexpr(int(CURRENT_WRAP) // 2 - 1)
WRAP_MASK: tl.constexpr = tl.constexpr(int(CURRENT_WRAP) - 1)
DECAY_MASK: tl.constexpr = tl.constexpr(DECAY_STEPS - 1)
DECAY_BITS: tl.constexpr = tl.constexpr(DECAY_STEPS.bit_length() - 1)


@triton.jit
def _products(
    total,
    step,
    spikes,
    weight,
    blocks,
    sources,
    first_block,
    first_source,
    source_positions,
    inputs,
    delay,
    kind,
    sample,
    row,
    rows,
    inside,
    column,
    samples,
    channels,
    STEPS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Add a projection's sums at one step: spikes (S, N, positions, inputs) times weight (blocks, inputs, channels)."""
    at = step - delay
    begin, end = tl.load(first_block + kind), tl.load(first_block + kind + 1)
    place = tl.load(first_source + kind)
    depth = tl.arange(0, DEPTH)
    for tap in range(begin, end):
        block = tl.load(blocks + tap)
        source = tl.load(sources + place + (tap - begin) * rows + row, mask=inside, other=-1)
        there = inside & (source >= 0) & (at >= 0) & (at < STEPS)
        base = ((at * samples + sample) * source_positions + source).to(tl.int64) * inputs
        for k in range(0, inputs, DEPTH):
            left = k + depth < inputs
            x = tl.load(spikes + base[:, None] + (k + depth)[None, :], mask=there[:, None] & left[None, :], other=0)
            w = tl.load(
                weight + (block * inputs + k + depth)[:, None] * channels + column[None, :],
                mask=left[:, None] & (column < channels)[None, :],
                other=0,
            )
            total += tl.dot(x.to(tl.int8), w, out_dtype=tl.int32)
    return total


@triton.jit
def _keep(x, share):
    """x times share / 4096, truncated toward zero."""
    product = x.to(tl.int64) * share
    return ((product + ((product >> 63) & DECAY_MASK)) >> DECAY_BITS).to(tl.int32)


@triton.jit
def _population(
    spikes_a,
    weight_a,
    blocks_a,
    sources_a,
    first_block_a,
    first_source_a,
    positions_a,
    inputs_a,
    delay_a,
    spikes_b,
    weight_b,
    blocks_b,
    sources_b,
    first_block_b,
    first_source_b,
    positions_b,
    inputs_b,
    delay_b,
    extra,
    neuron,
    group,
    tiles,
    kinds,
    targets,
    sent,
    counts,
    highest,
    samples,
    positions,
    channels,
    STEPS: tl.constexpr,
    PROJECTIONS: tl.constexpr,
    EXTRA: tl.constexpr,
    HALVING: tl.constexpr,
    REMEMBERS: tl.constexpr,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Run all steps of ROWS rows of one kind and COLUMNS channels."""
    kind, first = tl.load(tiles + 2 * tl.program_id(0)), tl.load(tiles + 2 * tl.program_id(0) + 1)
    start, rows = tl.load(kinds + 2 * kind), tl.load(kinds + 2 * kind + 1)
    index = first + tl.arange(0, ROWS)
    inside = index < samples * rows
    sample, row = index // rows, index % rows
    position = tl.load(targets + start + row, mask=inside, other=0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    live = inside[:, None] & (column < channels)[None, :]
    constant = (position // group)[:, None] * 4 * channels + column[None, :]
    threshold = tl.load(neuron + constant, mask=live, other=0)
    bias = tl.load(neuron + channels + constant, mask=live, other=0)
    keep_v = tl.load(neuron + 2 * channels + constant, mask=live, other=0)
    keep_u = tl.load(neuron + 3 * channels + constant, mask=live, other=0)
    v = tl.zeros((ROWS, COLUMNS), tl.int32)
    u = tl.zeros((ROWS, COLUMNS), tl.int32)
    fired = tl.zeros((ROWS, COLUMNS), tl.int32)
    max_current = tl.zeros((ROWS, COLUMNS), tl.int32)
    max_membrane = tl.zeros((ROWS, COLUMNS), tl.int32)
    for step in range(STEPS):
        total = tl.zeros((ROWS, COLUMNS), tl.int32)
        if PROJECTIONS > 0:
            total = _products(
                total, step, spikes_a, weight_a, blocks_a, sources_a, first_block_a, first_source_a, positions_a,
                inputs_a, delay_a, kind, sample, row, rows, inside, column, samples, channels, STEPS, DEPTH,
            )  # fmt: skip
        if PROJECTIONS > 1:
            total = _products(
                total, step, spikes_b, weight_b, blocks_b, sources_b, first_block_b, first_source_b, positions_b,
                inputs_b, delay_b, kind, sample, row, rows, inside, column, samples, channels, STEPS, DEPTH,
            )  # fmt: skip
        x = total * UNIT
        at = ((step * samples + sample) * positions + position).to(tl.int64)[:, None] * channels + column[None, :]
        if EXTRA:
            x += tl.load(extra + at, mask=live, other=0)
        driven = x * SUB
        if REMEMBERS:
            driven += _keep(u, keep_u)
            driven = ((driven + HALF_WRAP) & WRAP_MASK) - HALF_WRAP
            u = driven
        kept = (v + ((v >> 31) & 1)) >> 1 if HALVING else _keep(v, keep_v)
        h = kept + driven + bias
        h = tl.minimum(tl.maximum(h, -HIGHEST), HIGHEST)
        spike = (h > threshold) & live
        max_current = tl.maximum(max_current, tl.where(live, tl.abs(x), 0))
        max_membrane = tl.maximum(max_membrane, tl.where(live, tl.abs(h), 0))
        fired += spike.to(tl.int32)
        v = tl.where(spike, 0, h)
        tl.store(sent + at, spike.to(tl.uint8), mask=live)
    tl.atomic_add(counts + position[:, None] * channels + column[None, :], fired, mask=live & (fired > 0))
    tl.atomic_max(highest, tl.max(tl.max(max_current, 1), 0))
    tl.atomic_max(highest + 1, tl.max(tl.max(max_membrane, 1), 0))


@dataclass(frozen=True, eq=False)
class Kinds:
    """Target positions by the blocks of weights that reach them: rows of one kind share their products.

    Attributes:
        kinds: int32 (kinds, 2): first row and number of rows.
        targets: int32, positions, kind after kind.
        of_projection: per projection blocks by kind; sources by kind, block and row, -1 for none; where
            each kind's blocks and sources begin.
    """

    kinds: np.ndarray
    targets: np.ndarray
    of_projection: list[tuple[np.ndarray, ...]]


def kinds_of(blocks: list[Blocks], positions: int) -> Kinds:
    """Sort positions by kind. A border that lacks some of its kind's sources gets -1 for them."""
    label = np.zeros(positions, np.int64)
    for b in blocks:
        # what reaches a position, without the borders' gaps: a graph's edges differ, a convolution's taps do not
        shared = len(b.weight) <= len(b.edges) // max(1, positions) + 1
        if not shared:
            reach = np.zeros((positions, len(b.weight)), bool)
            reach[b.edges[:, 2], b.edges[:, 0]] = True
            label = np.unique(np.column_stack([label, reach]), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(label, kind="stable")
    sizes = np.bincount(label)
    starts = np.cumsum(sizes) - sizes
    row = np.empty(positions, np.int64)
    row[order] = np.arange(positions) - starts[label[order]]
    parts = [_sources_by_kind(b.edges, label, row, sizes) for b in blocks]
    return Kinds(np.stack([starts, sizes], axis=1).astype(np.int32), order.astype(np.int32), parts)


def _sources_by_kind(
    edges: np.ndarray, label: np.ndarray, row: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, ...]:
    blocks, sources, first_block, first_source = [], [], [0], []
    kind_of = label[edges[:, 2]]
    for kind, size in enumerate(sizes.tolist()):
        own = edges[kind_of == kind]
        used, index = np.unique(own[:, 0], return_inverse=True)
        table = np.full((len(used), size), -1, np.int32)
        table[index, row[own[:, 2]]] = own[:, 1]
        first_source.append(sum(map(len, sources)))
        blocks.append(used)
        sources.append(table.ravel())
        first_block.append(first_block[-1] + len(used))
    return tuple(
        np.concatenate([np.asarray(x).ravel() for x in xs]).astype(np.int32)
        for xs in (blocks, sources, [np.array(first_block)], [np.array(first_source)])
    )


class GpuPopulation(FusedPopulation):
    """A population whose sums, membrane potentials and spikes one launch of the kernel computes."""

    def __init__(self, program: Program, population: Population, device: torch.device):
        super().__init__(program, population)
        self.product = None  # torch forms its current
        self.blocks = self.blocks[:MOST_PROJECTIONS]
        self.projections = self.projections[: len(self.blocks)]
        self.device = device

    def run(
        self,
        arrivals: list[tuple[Tensor | None, int]],
        extra: Tensor | None,
        size: tuple[int, int],
        state: np.ndarray | None = None,
    ) -> Fired:
        assert state is None, "a launch starts at rest"
        steps, samples = size
        shape = (steps, samples, self.positions, self.channels)
        sent = torch.empty(shape, dtype=torch.uint8, device=self.device)
        counts = torch.zeros((self.positions, self.channels), dtype=torch.int32, device=self.device)
        highest = torch.zeros(2, dtype=torch.int32, device=self.device)
        given = sent if extra is None else channels_last(extra.int()).reshape(shape).contiguous()
        neuron, tiles = self._neuron, self._tiles_for(samples)
        grid = (len(tiles), -(-self.channels // COLUMNS))
        _population[grid](
            *self._inputs_a(arrivals, 0, steps, sent),
            *self._inputs_a(arrivals, 1, steps, sent),
            given,
            neuron,
            self._group,
            tiles,
            self._kinds,
            self._targets,
            sent,
            counts,
            highest,
            samples,
            self.positions,
            self.channels,
            STEPS=steps,
            PROJECTIONS=len(self.projections),
            EXTRA=extra is not None,
            HALVING=not len(self._keep),
            REMEMBERS=self.remembers,
            UNIT=HALF,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            DEPTH=DEPTH,
            num_warps=WARPS,
        )
        max_current, max_membrane = highest.tolist()
        return Fired(self, sent, counts.cpu().numpy(), float(max_current), max_membrane / SUB_UNITS)

    def _inputs_a(
        self, arrivals: list[tuple[Tensor | None, int]], index: int, steps: int, nothing: Tensor
    ) -> tuple[Any, ...]:
        if index >= len(self.projections):
            return (*[nothing] * 6, 0, 0, 0)
        spikes, delay = arrivals[index]
        weight, tables = self._weights[index], self._tables[index]
        if spikes is None:
            return (nothing, weight, *tables, 0, weight.shape[1], steps)
        rows = channels_last(spikes)
        rows = rows.reshape(*rows.shape[:2], -1, rows.shape[-1]).contiguous()
        return (rows, weight, *tables, rows.shape[2], rows.shape[3], delay)

    def _tiles_for(self, samples: int) -> Tensor:
        """Return (kind, first row) of each tile, int32."""
        if samples not in self._tiles_of_samples:
            sizes = self._sorted.kinds[:, 1]
            rows = [(kind, first) for kind, n in enumerate(sizes.tolist()) for first in range(0, samples * n, ROWS)]
            self._tiles_of_samples[samples] = self._on_device(np.array(rows, np.int32))
        return self._tiles_of_samples[samples]

    @cached_property
    def _tiles_of_samples(self) -> dict[int, Tensor]:
        return {}

    @cached_property
    def _sorted(self) -> Kinds:
        return kinds_of(self.blocks, self.positions)

    @cached_property
    def _kinds(self) -> Tensor:
        return self._on_device(self._sorted.kinds)

    @cached_property
    def _targets(self) -> Tensor:
        return self._on_device(self._sorted.targets)

    @cached_property
    def _tables(self) -> list[tuple[Tensor, ...]]:
        return [tuple(self._on_device(x) for x in tables) for tables in self._sorted.of_projection]

    @cached_property
    def _weights(self) -> list[Tensor]:
        """Halved weights, int8 (blocks, C_in, C)."""
        return [self._on_device(b.weight[:, :, : self.channels].astype(np.int8)) for b in self.blocks]

    @cached_property
    def _neuron(self) -> Tensor:
        """Threshold, bias, and what membrane and current keep in 1/4096, int32 (P / group, 4, C)."""
        du = DECAY_STEPS - 1 if self.neuron.du is None else self.neuron.du
        keep_v, keep_u = DECAY_STEPS - np.asarray(self.neuron.dv), DECAY_STEPS - 1 - np.asarray(du)
        assert self.neuron.vth is not None
        parameters = (self.neuron.vth.astype(np.int32) * SUB_UNITS, self.neuron.bias, keep_v, keep_u)
        return self._on_device(self._parameters(*(np.asarray(x, np.int32) for x in parameters)))

    def _on_device(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
