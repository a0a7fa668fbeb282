"""A population of a fixed-point program on the CPU: its plan for the compiled loops, and the call to them."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.kernels.blocks import HALF, Blocks, blocks_of, padded
from mksgn.deploy.kernels.tiles import Tiles
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program, Projection
from mksgn.export.loihi import DECAY_STEPS, SUB_UNITS

WORD = 8  # spikes in a word of bytes
LONG_ROW = 2048  # neurons
JOINED = 1024  # neurons that are advanced in one row: their variables stay in the first-level cache
INITIAL = 2  # index of the initial membrane potential among a neuron's constants
_NO_SPIKES, _NO_MAP = np.empty((0, 0, 0, 0, 0), np.uint8), np.empty((0, 0, 0, 0, 0, 0), np.uint8)
Plan = tuple[Tiles, list[np.ndarray], int]
INT16_MAX = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class Fired:
    """What a population did.

    Attributes:
        max_current: largest |current|, weight units.
        max_membrane: largest |membrane potential before reset|, weight units.
        coincidences: of a product.
    """

    plan: FusedPopulation
    rows: Tensor  # spikes, uint8 (S, N, P, C)
    counts: np.ndarray  # of spikes, (P, C)
    max_current: float
    max_membrane: float
    coincidences: int = 0

    @property
    def spikes(self) -> Tensor:
        """uint8 (S, N, *shape), channels last in memory."""
        return self.plan.shaped(self.rows)

    @property
    def per_neuron(self) -> np.ndarray:
        """Spikes per neuron, int64 of the population's shape, channels last in memory."""
        return self.plan.shaped(torch.from_numpy(self.counts)[None, None])[0, 0].numpy()


class FusedPopulation:
    """Sums, membrane potentials and spikes of a population in one pass.

    Attributes:
        projections: those whose spikes the pass reads; it is given the currents of all others.
    """

    def __init__(self, program: Program, population: Population):
        assert isinstance(population.neuron, FixedNeuron)
        self.population, self.neuron = population, population.neuron
        blocks: dict[AnyProjection, Blocks] = {}
        for projection in program.into(population.name):
            if isinstance(projection, Projection) and program.sends_spikes(projection.source):
                found = blocks_of(projection.operators, program[projection.source].shape)
                if found is not None:
                    blocks[projection] = found
        self.projections = tuple(blocks)
        self.blocks = list(blocks.values())
        self.positions, self.channels = _layout(population.shape)
        self.product: Product | None = None
        match program.into(population.name):
            case (Product() as product,):
                self.product, self.projections = product, (product,)
                self.positions, self.channels = _of_product(product, population.shape)
            case _ if not blocks:  # positions do not matter: rows as long as suits the cache
                self.positions, self.channels = _regrouped(self.positions, self.channels)

    @property
    def remembers(self) -> bool:
        """Whether the current has a memory."""
        return self.neuron.du is not None

    @property
    def subtracts(self) -> bool:
        """Whether the neurons reset by subtraction."""
        return self.neuron.subtract is not None or self.neuron.subtract_next is not None

    def compile(self) -> None:
        """Compile the loops by running a step in which nothing arrives."""
        self.run([(None, 0)] * sum(len(q.sources) for q in self.projections), None, (1, 1))

    def rest(self, samples: int) -> np.ndarray:
        """Return the state at a sample's start, for successive calls of `run` that each continue the last."""
        state = np.zeros((2, samples, self.positions, self.channels), np.int32)
        if self.neuron.initial is not None:
            state[0] = np.repeat(self._constants[:, INITIAL], self._group, axis=0)
        return state

    def run(
        self,
        arrivals: list[tuple[Tensor | None, int]],
        extra: Tensor | None,
        size: tuple[int, int],
        state: np.ndarray | None = None,
        threads: int = 1,
        pool: Executor | None = None,
    ) -> Fired:
        """Run all steps of some samples.

        Args:
            arrivals: for each source of `projections`, its spikes (S, N, *source shape), uint8, and the
                steps by which they arrive late. None: nothing arrives.
            extra: current of other projections, (S, N, *shape), weight units.
            size: steps and samples.
            state: as `rest` returns it; updated in place. None: the samples start at rest.
            threads: number of threads for the compiled loops.
            pool: these threads; None: the loops run in the calling thread.
        """
        from mksgn.deploy.kernels import synapses

        steps, samples = size
        if state is None:  # only a current with a memory needs more state than the tile's own membranes
            state = self.rest(samples if self.remembers else 0)
        tiles, parts, most = self._plan(steps, samples, threads)
        inputs = self._inputs([] if self.product else arrivals, steps, tiles)
        product = self._spikes_of_product(arrivals)
        unit = np.int32(HALF if self.product is None else self.product.weight)
        sent = np.empty((steps, samples, self.positions, self.channels), np.uint8)
        given = self._no_current if extra is None else self._rows(extra.int())
        neurons = unit, given, self._repeated_constants, self._group, self._repeated_keep, state

        def work(part: np.ndarray) -> tuple[np.ndarray, int, int, int]:
            counts = np.zeros((self.positions, self.channels), np.int64)
            targets, scratch = (tiles.targets, tiles.first_target), tiles.scratch(most, self._accumulator)
            return counts, *synapses.run_tiles(part, inputs, product, targets, *neurons, sent, counts, scratch)

        done = list(map(work, parts) if pool is None else pool.map(work, parts))
        counts = done[0][0]
        for part in done[1:]:
            counts += part[0]
        max_current, max_membrane = (max(part[i] for part in done) for i in (1, 2))
        coincidences = sum(part[3] for part in done)
        maxima = float(max_current), float(max_membrane) / SUB_UNITS
        return Fired(self, torch.from_numpy(sent), counts, *maxima, coincidences)

    def _plan(self, steps: int, samples: int, threads: int) -> Plan:
        """Return the tiles, each thread's tasks, and the samples of the largest task."""
        key = steps, samples, threads
        plans = self._plans  # read once: at first, another thread may replace it with its own dict
        if key not in plans:
            inputs = [b.weight.shape[1] for b in self.blocks]
            tiles = Tiles(self.blocks, self.positions, steps, padded(self.channels), self._accumulator, inputs)
            tasks = tiles.tasks(samples, threads)
            # each thread gets a part of every tile, because neighbouring positions are busy at the same time
            parts = [np.ascontiguousarray(tasks[i::threads]) for i in range(min(threads, len(tasks)))]
            plans[key] = tiles, parts, int((tasks[:, 2] - tasks[:, 1]).max())
        return plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[int, int, int], Plan]:
        return {}

    @cached_property
    def _no_current(self) -> np.ndarray:
        return np.zeros((1, 1, 1, self._joined * self.channels), np.int32)

    @cached_property
    def _accumulator(self) -> Any:
        return np.int16 if self.product is not None or self.neuron.worst <= HALF * INT16_MAX else np.int32

    @cached_property
    def _constants(self) -> np.ndarray:
        """Return the neurons' constants in sub-units, int32 (P / group, 3 or 5, C), as `fire_subtracting` lists them."""
        assert self.neuron.vth is not None
        constants = [self.neuron.vth.astype(np.int32) * SUB_UNITS, self.neuron.bias, self.neuron.initial]
        if self.subtracts:
            constants += [self.neuron.subtract, self.neuron.subtract_next]
        return self._parameters(*(np.asarray(0 if x is None else x, np.int32) for x in constants))

    @cached_property
    def _keep(self) -> np.ndarray:
        """The shares that membrane and current keep, float64 (P / group, 2, C); empty where the membrane keeps a half,
        is reset to 0, and the current keeps nothing.
        """
        if self.neuron.du is None and not self.subtracts and np.all(np.asarray(self.neuron.dv) == DECAY_STEPS // 2):
            return np.empty((0, 2, self.channels))
        du = DECAY_STEPS - 1 if self.neuron.du is None else self.neuron.du
        keep_v = (DECAY_STEPS - np.asarray(self.neuron.dv)) / DECAY_STEPS
        return self._parameters(keep_v, (DECAY_STEPS - 1 - np.asarray(du)) / DECAY_STEPS)

    @cached_property
    def _joined(self) -> int:
        """The number of positions that may be advanced in one row."""
        unpadded = padded(self.channels) == self.channels
        return min(self._group, max(1, JOINED // self.channels)) if unpadded else 1

    @cached_property
    def _repeated_constants(self) -> np.ndarray:
        return np.tile(self._constants, self._joined)

    @cached_property
    def _repeated_keep(self) -> np.ndarray:
        return np.tile(self._keep, self._joined)

    @cached_property
    def _group(self) -> int:
        """The number of consecutive positions that have the same parameters: all, those of a map's head, or one."""
        names = ("vth", "bias_mant", "dv", "du", "subtract", "subtract_next", "initial")
        given = [np.asarray(x) for x in (getattr(self.neuron, name) for name in names) if x is not None]
        shape = self.population.shape
        own = [np.broadcast_to(x, shape) for x in given]
        for groups in dict.fromkeys((1, shape[0] if self.positions % max(1, shape[0]) == 0 else 1)):
            rows = [self._rows(torch.from_numpy(x.copy())[None, None])[0, 0] for x in own]
            each = [x.reshape(groups, -1, self.channels) for x in rows]
            if all((x == x[:, :1]).all() for x in each):
                return self.positions // groups
        return 1

    def _parameters(self, *arrays: np.ndarray) -> np.ndarray:
        """Stack parameters that broadcast against the shape: (P / group, arrays, C)."""
        full = (np.broadcast_to(x, self.population.shape) for x in arrays)
        rows = np.stack([self._rows(torch.from_numpy(x.copy())[None, None])[0, 0] for x in full], axis=1)
        return np.ascontiguousarray(rows[:: self._group])

    def _spikes_of_product(self, arrivals: list[tuple[Tensor | None, int]]) -> tuple[np.ndarray, np.ndarray, int]:
        """Return q, k and v (channels last), the map, and the number of heads; empty arrays without a product."""
        if self.product is None or arrivals[-1][0] is None:
            return _NO_SPIKES, _NO_MAP, 1
        spikes = [x for x, _ in arrivals if x is not None]
        qkv = channels_last(spikes[-1]).contiguous().numpy()
        return qkv, spikes[0].contiguous().numpy() if self.product.part == "z" else _NO_MAP, self.product.heads

    def _inputs(self, arrivals: list[tuple[Tensor | None, int]], steps: int, tiles: Tiles) -> tuple[Any, ...]:
        """Return what `run_tiles` reads of each projection."""
        inputs = []
        for (spikes, delay), blocks, parts in zip(arrivals, self.blocks, tiles.of_projection, strict=True):
            words = _no_words() if spikes is None else _words(spikes)
            inputs.append((words, blocks.weight, *parts, steps if spikes is None else delay))
        if not inputs:
            weight, parts = np.zeros((1, 1, padded(self.channels)), np.int8), tiles.nothing
            inputs.append((_no_words(), weight, *parts, steps))
        return tuple(inputs)

    def _rows(self, x: Tensor) -> np.ndarray:
        """(S, N, *shape) → (S, N, P, C), channels last, contiguous."""
        return channels_last(x).reshape(*x.shape[:2], self.positions, self.channels).contiguous().numpy()

    def shaped(self, x: Tensor) -> Tensor:
        """(S, N, P, C) → (S, N, *shape), a view."""
        shape = self.population.shape
        if len(shape) not in (2, 3):
            return x.view(*x.shape[:2], *shape)
        return x.view(*x.shape[:2], *shape[1:], shape[0]).movedim(-1, 2)


_PLANS: WeakKeyDictionary[Program, dict[tuple[str, torch.device], FusedPopulation]] = WeakKeyDictionary()


def fused_population(program: Program, population: Population, device: torch.device) -> FusedPopulation | None:
    """Return the plan of a population, which is made once per program and device.

    None: no fused kernel runs it, because it does not fire, is not in the chip's integers or, on a
    GPU, is in a loop, which is computed step by step.
    """
    fires = isinstance(population.neuron, FixedNeuron) and population.fires
    on_gpu = device.type == "cuda"
    if not fires or (on_gpu and program.loops(population.group)):
        return None
    plans = _PLANS.setdefault(program, {})
    key = population.name, device
    if key not in plans:
        if on_gpu:
            from mksgn.deploy.kernels.gpu import GpuPopulation

            plans[key] = GpuPopulation(program, population, device)
        else:
            plans[key] = FusedPopulation(program, population)
    return plans[key]


def _layout(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the numbers of positions and channels: channels are the first of up to three axes, else the last axis."""
    return (prod(shape[1:]), shape[0]) if len(shape) in (1, 2, 3) else (prod(shape[:-1]), prod(shape[-1:]))


def _regrouped(positions: int, channels: int) -> tuple[int, int]:
    """Merge several rows into one, as long as it has at most LONG_ROW neurons."""
    several = max(n for n in range(1, max(1, LONG_ROW // channels) + 1) if positions % n == 0)
    return positions // several, channels * several


def _of_product(product: Product, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the layout of a product's target: a row is a head's map of a frame, or all channels of a frame."""
    return (shape[0] * shape[1], shape[2] * shape[3]) if product.part == "m" else (shape[1], shape[0] * shape[2])


def channels_last(x: Tensor) -> Tensor:
    """(S, N, C, ...) → (S, N, ..., C) for populations of two or three axes; others as they are."""
    return x.movedim(2, -1) if x.ndim in (4, 5) else x


def _words(spikes: Tensor) -> np.ndarray:
    """(S, N, C, ...) uint8 → (S, N, P, C / 8) uint64, padded with silent channels to whole words."""
    rows = channels_last(spikes)
    rows = rows.reshape(*rows.shape[:2], -1, rows.shape[-1])
    missing = -rows.shape[-1] % WORD
    if missing:
        rows = torch.nn.functional.pad(rows, (0, missing))
    return rows.contiguous().numpy().view(np.uint64)


def _no_words() -> np.ndarray:
    return np.zeros((1, 1, 1, 1), np.uint64)
