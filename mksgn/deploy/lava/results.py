"""Results of a run in Lava, in memory that the leaves write in their OS processes and the parent reads afterwards.

The memory is anonymous and inherited when Lava forks the leaves. Lava's own Var.get takes 9–15 µs
per element (LAVA.md), and a named segment could outlive the run.
"""

import math
import mmap

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy import spike_bits
from mksgn.deploy.execution import Counters
from mksgn.deploy.lava.messages import channels_first, channels_last
from mksgn.deploy.passes.schedule import Window
from mksgn.deploy.program.program import AnyProjection, Population, Program
from mksgn.deploy.stepper import Step

EFFECTIVE, COINCIDENCES, MEMBRANE, CURRENT = range(4)


def shared_zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Allocate zeros that forked children write and the parent reads."""
    kind: np.dtype = np.dtype(dtype)
    memory = mmap.mmap(-1, max(1, math.prod(shape) * kind.itemsize))
    return np.frombuffer(memory, dtype=kind, count=math.prod(shape)).reshape(shape)


class SharedResults:
    """One population's counts, spike trains and values. The parent allocates and reads them; a ResultWriter writes."""

    def __init__(self, population: Population, window: Window, slots: int, samples: int, keep: bool, projections: int):
        self.population, self.window, self.slots, self.samples = population, window, slots, samples
        steps, size, fires = window.period * window.samples, population.size, population.fires
        self.events = shared_zeros((4,), np.float64)
        self.deliveries, self.arrivals = (shared_zeros((projections,), np.float64) for _ in range(2))
        self.per_neuron = shared_zeros((size,), np.int64)
        self.trains = shared_zeros((steps, slots, (size + 7) // 8) if keep and fires else (0,), np.uint8)
        self.values = shared_zeros((steps, slots, size) if keep and not fires else (0,), np.float64)

    def counters(self) -> Counters:
        per_neuron = channels_first(torch.from_numpy(self.per_neuron.copy())[None], self.population.shape)[0].numpy()
        return Counters(
            spikes=int(per_neuron.sum()),
            syn_ops=round(self.deliveries.sum()),
            effective_acs=round(self.events[EFFECTIVE]),
            coincidences=round(self.events[COINCIDENCES]),
            deliveries=[round(count) for count in self.deliveries.tolist()],
            arrivals=[round(count) for count in self.arrivals.tolist()],
            max_membrane=float(self.events[MEMBRANE]),
            max_current=float(self.events[CURRENT]),
            per_neuron=np.ascontiguousarray(per_neuron),
        )

    def spike_trains(self) -> np.ndarray:
        """(samples, steps, *shape) bool."""
        return self._ordered(spike_bits.unpack(self._aligned(self.trains), self.population.size))

    def outputs(self) -> np.ndarray:
        """(samples, steps, *shape) float32: a read-out or a membrane potential, in the file's units."""
        values = self._aligned(self.values)
        if self.population.kind == "graded":
            return self._ordered(values).astype(np.float32)
        values = values.reshape(*values.shape[:2], *self.population.shape)
        return (values * self.population.unit).astype(np.float32)

    def _aligned(self, x: np.ndarray) -> np.ndarray:
        """(time steps of the window, slots, …) → (samples, steps, …); sample = round · slots + slot."""
        rounds = x.reshape(self.window.samples, self.window.period, self.slots, *x.shape[2:])
        return rounds.swapaxes(1, 2).reshape(-1, self.window.period, *x.shape[2:])[: self.samples]

    def _ordered(self, x: np.ndarray) -> np.ndarray:
        """(samples, steps, size), channels last → (samples, steps, *shape)."""
        rows = channels_first(torch.from_numpy(x).flatten(0, 1), self.population.shape)
        return np.ascontiguousarray(rows.numpy()).reshape(*x.shape[:2], *self.population.shape)


class ResultWriter:
    """Counts and writes a population's steps into its SharedResults, in the child's OS process."""

    def __init__(self, program: Program, results: SharedResults):
        self.results = results
        into = program.into(results.population.name)
        self.index = {projection: i for i, projection in enumerate(into)}
        self.sources = {
            projection: [
                (program.sends_spikes(source), _tables(program, projection, i))
                for i, source in enumerate(projection.sources)
            ]
            for projection in into
        }

    def write(self, index: int, step: Step) -> None:
        """Write what the population did at step `index` of its window."""
        results, population = self.results, self.results.population
        for received in step.received:
            self._count(received.projection, received.inputs)
        results.events[COINCIDENCES] += step.coincidences
        if step.sent is None:
            assert step.current is not None
            total = step.current.double().numpy() + population.bias
            results.values[index, : len(total)] = total.reshape(len(total), -1)
            return
        results.events[MEMBRANE] = max(results.events[MEMBRANE], step.max_membrane)
        results.events[CURRENT] = max(results.events[CURRENT], step.max_current)
        sent = channels_last(step.sent).reshape(len(step.sent), -1)
        if not population.fires:
            if results.values.size:
                results.values[index, : len(sent)] = sent.numpy()
            return
        results.per_neuron += sent.sum(0, dtype=torch.uint8).numpy()
        if results.trains.size:
            results.trains[index, : len(sent)] = spike_bits.pack(sent.numpy())

    def _count(self, projection: AnyProjection, inputs: tuple[Tensor, ...]) -> None:
        index = self.index[projection]
        for x, (is_spikes, (every, nonzero, reaches)) in zip(inputs, self.sources[projection], strict=True):
            if not is_spikes:
                continue
            arrived = channels_last(x.sum(0, dtype=torch.uint8)[None]).reshape(-1).to(torch.float64)
            delivered = float(torch.dot(arrived, every))
            self.results.deliveries[index] += delivered
            self.results.arrivals[index] += float(arrived.sum() if reaches is None else torch.dot(arrived, reaches))
            self.results.events[EFFECTIVE] += delivered if nonzero is None else float(torch.dot(arrived, nonzero))


def _tables(program: Program, projection: AnyProjection, index: int) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Tables of one source, channels last: fan-outs over all weights, over nonzero ones (None: the same), and
    1 where a neuron has a synapse (None: all have).
    """
    every, nonzero = (
        channels_last(torch.from_numpy(program.fan_outs(projection, nonzero=only)[index])[None]).reshape(-1).double()
        for only in (False, True)
    )
    reaches = (every > 0).double()
    return every, None if torch.equal(every, nonzero) else nonzero, None if bool(reaches.all()) else reaches
