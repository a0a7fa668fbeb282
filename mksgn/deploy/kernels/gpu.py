"""A population of a fixed-point program on a GPU: the pass of mksgn/deploy/kernels/population as one launch
of a Triton kernel.
"""

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.kernels.blocks import HALF, Blocks
from mksgn.deploy.kernels.gpu_kernel import population_kernel
from mksgn.deploy.kernels.population import Fired, FusedPopulation, channels_last
from mksgn.deploy.program.program import Population, Program
from mksgn.export.loihi import DECAY_STEPS, SUB_UNITS

# Sizes of a kernel program's tile and a product's inner axis: the fastest of eight trials on an H100 (docs/deploy.md).
ROWS, COLUMNS, DEPTH = 64, 64, 64
MOST_PROJECTIONS = 2  # whose products the kernel computes; it is given the currents of the others


@dataclass(frozen=True, eq=False)
class Kinds:
    """Target positions grouped by the blocks of weights that reach them: rows of one kind share their products.

    Attributes:
        kinds: int32 (kinds, 2): first row and number of rows.
        targets: int32, positions, kind after kind.
        of_projection: per projection, the blocks by kind; the sources by kind, block and row, -1 for
            none; where each kind's blocks and sources begin.
    """

    kinds: np.ndarray
    targets: np.ndarray
    of_projection: list[tuple[np.ndarray, ...]]


def kinds_of(blocks: list[Blocks], positions: int) -> Kinds:
    """Sort positions by kind. A position at a border gets -1 for the sources of its kind that it lacks."""
    label = np.zeros(positions, np.int64)
    for b in blocks:
        if not b.shared:
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
    blocks: list[np.ndarray] = []
    sources: list[np.ndarray] = []
    kind_of = label[edges[:, 2]]
    for kind, size in enumerate(sizes.tolist()):
        own = edges[kind_of == kind]
        used, index = np.unique(own[:, 0], return_inverse=True)
        table = np.full((len(used), size), -1, np.int32)
        table[index, row[own[:, 2]]] = own[:, 1]
        blocks.append(used)
        sources.append(table.ravel())
    first_block, first_source = (np.cumsum([0, *map(len, parts)]) for parts in (blocks, sources))
    return tuple(
        x.astype(np.int32) for x in (np.concatenate(blocks), np.concatenate(sources), first_block, first_source)
    )


class GpuPopulation(FusedPopulation):
    """A population whose sums, membrane potentials and spikes are computed by one launch of the kernel."""

    def __init__(self, program: Program, population: Population, device: torch.device):
        super().__init__(program, population)
        self.product = None  # torch computes its current
        self.blocks = self.blocks[:MOST_PROJECTIONS]
        self.projections = self.projections[: len(self.blocks)]
        self.device = device

    def run(
        self,
        arrivals: list[tuple[Tensor | None, int]],
        extra: Tensor | None,
        size: tuple[int, int],
        state: np.ndarray | None = None,
        threads: int = 1,
        pool: Executor | None = None,
    ) -> Fired:
        assert state is None, "a launch starts at rest"
        steps, samples = size
        shape = (steps, samples, self.positions, self.channels)
        sent = torch.empty(shape, dtype=torch.uint8, device=self.device)
        counts = torch.zeros((self.positions, self.channels), dtype=torch.int32, device=self.device)
        highest = torch.zeros(2, dtype=torch.int32, device=self.device)
        given = sent if extra is None else channels_last(extra.int()).reshape(shape).contiguous()
        tiles = self._tiles_for(samples)
        nothing: tuple[Tensor | None, int] = None, 0
        both = [*arrivals, nothing, nothing][:MOST_PROJECTIONS]
        population_kernel[(len(tiles), -(-self.channels // COLUMNS))](
            *(self._projection(i, spikes, sent) for i, (spikes, _) in enumerate(both)),
            tuple(steps if spikes is None else delay for spikes, delay in both),
            given,
            self._neuron,
            self._group,
            tiles,
            self._kinds,
            self._targets,
            sent,
            counts,
            highest,
            (samples, self.positions, self.channels),
            STEPS=steps,
            PROJECTIONS=len(self.projections),
            EXTRA=extra is not None,
            HALVING=not len(self._keep),
            REMEMBERS=self.remembers,
            SUBTRACTS=self.subtracts,
            UNIT=HALF,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            DEPTH=DEPTH,
        )
        max_current, max_membrane = highest.tolist()
        return Fired(self, sent, counts.cpu().numpy().astype(np.int64), float(max_current), max_membrane / SUB_UNITS)

    def _projection(self, index: int, spikes: Tensor | None, nothing: Tensor) -> tuple[Any, ...]:
        """Return what the kernel reads of a projection; if there is none, placeholders that are not read."""
        if index >= len(self.projections):
            return (*[nothing] * 6, 0, 0)
        weight, tables = self._weights[index], self._tables[index]
        if spikes is None:
            return (nothing, weight, *tables, 0, weight.shape[1])
        rows = channels_last(spikes)
        rows = rows.reshape(*rows.shape[:2], -1, rows.shape[-1]).contiguous()
        return (rows, weight, *tables, rows.shape[2], rows.shape[3])

    def _tiles_for(self, samples: int) -> Tensor:
        """Return (kind, first row) of each tile, int32."""
        tiles = self._tiles_of_samples  # read once: at first, another thread may replace it with its own dict
        if samples not in tiles:
            sizes = self._sorted.kinds[:, 1]
            rows = [(kind, first) for kind, n in enumerate(sizes.tolist()) for first in range(0, samples * n, ROWS)]
            tiles[samples] = self._on_device(np.array(rows, np.int32))
        return tiles[samples]

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
        return [self._on_device(b.weight[:, :, : self.channels]) for b in self.blocks]

    @cached_property
    def _neuron(self) -> Tensor:
        """Threshold, bias, what membrane and current keep in 1/4096, the initial membrane potential, and what a
        spike subtracts at once and in the next step, int32 (P / group, 7, C).
        """
        du = DECAY_STEPS - 1 if self.neuron.du is None else self.neuron.du
        keep_v, keep_u = DECAY_STEPS - np.asarray(self.neuron.dv), DECAY_STEPS - 1 - np.asarray(du)
        assert self.neuron.vth is not None
        parameters = (self.neuron.vth.astype(np.int32) * SUB_UNITS, self.neuron.bias, keep_v, keep_u)
        resets = (0 if x is None else x for x in (self.neuron.initial, self.neuron.subtract, self.neuron.subtract_next))
        return self._on_device(self._parameters(*(np.asarray(x, np.int32) for x in (*parameters, *resets))))

    def _on_device(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
