"""What a leaf Process does in a time step, inside its own OS process; and what the parent reads of it afterwards.

Results come back through anonymous shared memory that the leaves inherit when Lava forks them: Lava's own Var.get takes
9–15 µs per element (LAVA.md), and a named segment could be left behind.
"""

from __future__ import annotations

import math
import mmap
from collections import deque

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.event_counts import coincidences, largest
from mksgn.deploy.execution import Counters
from mksgn.deploy.lava.messages import Layout, channels_first, channels_last
from mksgn.deploy.passes.schedule import Window
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program
from mksgn.deploy.stepper import GroupStepper, Step

SYN_OPS, EFFECTIVE, COINCIDENCES, MEMBRANE, CURRENT = range(5)


def shared(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Zeros that forked children write and the parent reads; no name, so nothing can be left behind."""
    kind: np.dtype = np.dtype(dtype)
    memory = mmap.mmap(-1, max(1, math.prod(shape) * kind.itemsize))
    return np.frombuffer(memory, dtype=kind, count=math.prod(shape)).reshape(shape)


class PopulationRecord:
    """One population's counts and results, written in the child."""

    def __init__(self, program: Program, population: Population, window: Window, slots: int, clips: int, keep: bool):
        self.population, self.window, self.slots, self.clips = population, window, slots, clips
        self.fan_outs = {
            projection: [program.fan_outs(projection, nonzero=nonzero) for nonzero in (False, True)]
            for projection in program.into(population.name)
        }
        self.counted = {
            projection: [program.sends_spikes(source) for source in projection.sources] for projection in self.fan_outs
        }
        steps = window.period * window.samples
        self.events = shared((5,), np.float64)
        self.per_neuron = shared((population.size,), np.int64)
        self.trains = shared(
            (steps, slots, (population.size + 7) // 8) if keep and population.fires else (0,), np.uint8
        )
        self.values = shared((0,) if population.fires or not keep else (steps, slots, population.size), np.float64)

    def start(self) -> None:
        """In the child."""
        self.tables = {
            projection: [_tables(*each) for each in zip(*kinds, strict=True)]
            for projection, kinds in self.fan_outs.items()
        }

    def write(self, index: int, step: Step, scale: float) -> None:
        """What the population did at step `index` of its window."""
        for received in step.received:
            self._count(received.projection, received.inputs)
            if isinstance(received.projection, Product):
                self.events[COINCIDENCES] += coincidences(received.projection, received.current)
        if step.sent is None:
            total = step.current.double().numpy() + self.population.bias
            self.values[index, : len(total)] = total.reshape(len(total), -1)
            return
        assert step.membrane is not None
        self.events[MEMBRANE] = max(self.events[MEMBRANE], largest(step.membrane) / scale)
        self.events[CURRENT] = max(self.events[CURRENT], largest(step.current))
        sent = channels_last(step.sent).reshape(len(step.sent), -1)
        if not self.population.fires:
            if self.values.size:
                self.values[index, : len(sent)] = sent.numpy()
            return
        self.per_neuron += sent.sum(0, dtype=torch.uint8).numpy()
        if self.trains.size:
            self.trains[index, : len(sent)] = np.packbits(sent.numpy(), axis=1)

    def _count(self, projection: AnyProjection, inputs: tuple[Tensor, ...]) -> None:
        for x, counted, (every, nonzero) in zip(inputs, self.counted[projection], self.tables[projection], strict=True):
            if not counted:
                continue
            arrived = channels_last(x.sum(0, dtype=torch.uint8)[None]).reshape(-1).to(torch.float64)
            delivered = float(torch.dot(arrived, every))
            self.events[SYN_OPS] += delivered
            self.events[EFFECTIVE] += delivered if nonzero is None else float(torch.dot(arrived, nonzero))

    def counters(self) -> Counters:
        per_neuron = channels_first(torch.from_numpy(self.per_neuron.copy())[None], self.population.shape)[0].numpy()
        return Counters(
            spikes=int(per_neuron.sum()),
            syn_ops=round(self.events[SYN_OPS]),
            effective_acs=round(self.events[EFFECTIVE]),
            coincidences=round(self.events[COINCIDENCES]),
            max_membrane=float(self.events[MEMBRANE]),
            max_current=float(self.events[CURRENT]),
            per_neuron=np.ascontiguousarray(per_neuron),
        )

    def spike_trains(self) -> np.ndarray:
        """(clips, steps, *shape) bool."""
        bits = np.unpackbits(self._aligned(self.trains), axis=-1, count=self.population.size)
        return self._ordered(bits.view(bool))

    def outputs(self) -> np.ndarray:
        """(clips, steps, *shape) float32, in the file's units: of a read-out, or of a membrane that is shown."""
        values = self._aligned(self.values)
        if self.population.kind == "graded":
            return self._ordered(values).astype(np.float32)
        values = values.reshape(*values.shape[:2], *self.population.shape)
        return (values * self.population.unit).astype(np.float32)

    def _aligned(self, x: np.ndarray) -> np.ndarray:
        """(time steps of the window, slots, …) → (clips, steps, …); clip = round · slots + slot."""
        rounds = x.reshape(self.window.samples, self.window.period, self.slots, *x.shape[2:])
        return rounds.swapaxes(1, 2).reshape(-1, self.window.period, *x.shape[2:])[: self.clips]

    def _ordered(self, x: np.ndarray) -> np.ndarray:
        """(clips, steps, size), channels last → (clips, steps, *shape)."""
        rows = channels_first(torch.from_numpy(x).flatten(0, 1), self.population.shape)
        return np.ascontiguousarray(rows.numpy()).reshape(*x.shape[:2], *self.population.shape)


class LeafWork:
    """A leaf's part of the network: what it receives, computes and sends."""

    def __init__(
        self,
        program: Program,
        members: tuple[Population, ...],
        sources: list[Layout],
        sends: Layout,
        window: Window,
        slots: int,
        clips: int,
        keep: set[str],
    ):
        self.program, self.members, self.sources, self.sends, self.window = program, members, sources, sends, window
        self.slots, self.clips, self.precision = slots, clips, program.precision
        self.sender = {p.name: i for i, layout in enumerate(sources) for p in layout.populations}
        delays = [1] * len(sources)
        for population in members:
            for projection in program.into(population.name):
                for source, delay in zip(projection.sources, projection.compensation_delays, strict=True):
                    if source in self.sender:
                        delays[self.sender[source]] = max(
                            delays[self.sender[source]], 1 + delay + projection.logical_delay
                        )
        self.history = delays
        self.records = {p.name: PopulationRecord(program, p, window, slots, clips, p.name in keep) for p in members}
        self.message = sends.silence()

    def start(self) -> None:
        """In the child: buffers that start empty, as a clip's do."""
        self.buffers: list[deque[np.ndarray]] = [deque(maxlen=length) for length in self.history]
        self.group = GroupStepper(self.program, self.members, self.window.period)
        for record in self.records.values():
            record.start()

    @torch.no_grad()
    def step(self, step: int, received: list[np.ndarray]) -> None:
        """`step` counts from 0; `received` are the messages of the sources' previous step."""
        for buffer, message in zip(self.buffers, received, strict=True):
            buffer.append(message)
        if not self.window.inside(step):
            self.message.fill(0)
            return
        index = step - self.window.offset
        self.active = min(self.slots, self.clips - index // self.window.period * self.slots)
        if self.window.starts_sample(step):
            self.group.start(self.active)
            self.message.fill(0)
        for done in self.group.step(self._arrives):
            name, state = done.population.name, self.group.states.get(done.population.name)
            self.records[name].write(index, done, state.scale if state is not None else 1.0)
            if done.sent is not None and any(p.name == name for p in self.sends.populations):
                self.sends.pack(self.message, name, done.sent)

    def _arrives(self, projection: AnyProjection, index: int) -> Tensor | None:
        if self.group.index < projection.logical_delay:  # what arrives is of the clip before
            return None
        sender = self.sender[projection.sources[index]]
        message = self.buffers[sender][-1 - projection.compensation_delays[index] - projection.logical_delay]
        return self.sources[sender].unpack(message, projection.sources[index], self.active)


def _tables(every: np.ndarray, nonzero: np.ndarray) -> tuple[Tensor, Tensor | None]:
    """Fan-outs of one source, channels last; the second only where it differs."""

    def flat(x: np.ndarray) -> Tensor:
        return channels_last(torch.from_numpy(x)[None]).reshape(-1).to(torch.float64)

    return flat(every), None if np.array_equal(every, nonzero) else flat(nonzero)
