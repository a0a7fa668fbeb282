"""A program as a network of Lava Processes, one fused leaf per population, run under the guard.

Results come back through anonymous shared memory that the leaves inherit when Lava forks them: Lava's own Var.get takes
9–15 µs per element (LAVA.md), and a named segment could be left behind.
"""

from __future__ import annotations

import math
import mmap
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import torch
from lava.magma.core.run_configs import Loihi2SimCfg

from mksgn.deploy.arithmetic import FixedState, FloatState
from mksgn.deploy.emulator import host_spikes
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.lava.processes.leaf import MAX_SOURCES, Leaf, Source
from mksgn.deploy.lava.runtime import GuardedRuntime
from mksgn.deploy.passes.schedule import Window, run_length, schedule
from mksgn.deploy.program import Population, Product, Program

LANES = 4  # clips side by side
DEADLINE_S = 120.0  # without any progress; a step of the paper's widths takes well under a second
STEPS_PER_CALL = 64  # between two looks at the progress

SYN_OPS, EFFECTIVE, COINCIDENCES, MEMBRANE, CURRENT = range(5)


def _shared(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Zeros that forked children write and the parent reads; no name, so nothing can be left behind."""
    dtype = np.dtype(dtype)
    memory = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize))
    return np.frombuffer(memory, dtype=dtype, count=math.prod(shape)).reshape(shape)


class PopulationWork:
    """What a leaf does in a time step, inside its own OS process; and what the parent reads of it afterwards."""

    def __init__(self, program: Program, population: Population, window: Window, lanes: int, clips: int, record: bool):
        self.population, self.window, self.lanes, self.clips = population, window, lanes, clips
        self.precision = program.precision
        self.projections = program.into(population.name)
        self.sources = list(dict.fromkeys(s for projection in self.projections for s in projection.sources))
        if len(self.sources) > MAX_SOURCES:
            raise DeployError(
                f"population {population.name}: {len(self.sources)} sources exceed {MAX_SOURCES} of a leaf; merge branches"
            )
        self.n_sources = len(self.sources)
        self.history = [1 + max(self._delays(source)) for source in self.sources]
        self.fan_outs = [
            [program.fan_outs(projection, nonzero=nonzero) for nonzero in (False, True)]
            for projection in self.projections
        ]
        self.spikes = np.zeros((lanes, *population.shape), dtype=np.int8)
        steps = window.period * window.clips
        self.events = _shared((5,), np.float64)
        self.per_neuron = _shared(population.shape, np.int64)
        firing = population.kind == "lif"
        self.recorded = _shared((steps, lanes, (population.size + 7) // 8) if record and firing else (0,), np.uint8)
        self.sums = _shared((0,) if firing else (steps, lanes, *population.shape), np.float64)

    def _delays(self, source: str) -> list[int]:
        return [d for p in self.projections for s, d in zip(p.sources, p.delays, strict=True) if s == source]

    def start(self) -> None:
        """In the child: buffers that start empty, as a clip's do."""
        self.buffers: list[deque[np.ndarray]] = [deque(maxlen=length) for length in self.history]
        neuron = self.population.neuron
        self.state: FixedState | FloatState | None = None if neuron is None else neuron.prepare()
        self.fan_out_tensors = [
            [[torch.from_numpy(f.astype(np.float64)) for f in kind] for kind in kinds] for kinds in self.fan_outs
        ]

    @torch.no_grad()
    def step(self, step: int, received: list[np.ndarray]) -> None:
        """`step` counts from 0; `received` are the sources' spikes of their previous step, (lanes, *shape) int8."""
        for buffer, x in zip(self.buffers, received, strict=True):
            buffer.append(x)
        if not self.window.inside(step):
            self.spikes.fill(0)
            return
        index = step - self.window.offset
        round_of_clips = index // self.window.period
        active = min(self.lanes, self.clips - round_of_clips * self.lanes)
        current = self._current(active)
        if self.state is None:
            self.sums[index, :active] = current.double().numpy() + self.population.bias
            return
        if self.window.starts_clip(step):
            self.v = self.state.start(current)
        s, self.v, h = self.state.step(current, self.v[:active])
        self.events[MEMBRANE] = max(self.events[MEMBRANE], float(h.abs().max()) / self.state.scale)
        self.events[CURRENT] = max(self.events[CURRENT], float(current.abs().max()))
        spikes = s.numpy()
        self.per_neuron += spikes.sum(0, dtype=np.int64)
        if self.recorded.size:
            self.recorded[index, :active] = np.packbits(spikes.reshape(active, -1), axis=1)
        self.spikes[:active] = spikes
        self.spikes[active:] = 0

    def _current(self, active: int) -> torch.Tensor:
        total: torch.Tensor | None = None
        for projection, (every, nonzero) in zip(self.projections, self.fan_out_tensors, strict=True):
            inputs = []
            for i, (source, delay) in enumerate(zip(projection.sources, projection.delays, strict=True)):
                buffer = self.buffers[self.sources.index(source)]
                x = torch.from_numpy(buffer[-1 - delay][:active]).to(torch.float32)
                arrived = x.sum(0, dtype=torch.float64)
                self.events[SYN_OPS] += float((arrived * every[i]).sum())
                self.events[EFFECTIVE] += float((arrived * nonzero[i]).sum())
                inputs.append(x)
            y = projection.current(tuple(inputs))
            if isinstance(projection, Product):
                self.events[COINCIDENCES] += float(y.double().sum()) / projection.weight
            total = y if total is None else total + y
        assert total is not None
        return total

    def counters(self) -> Counters:
        per_neuron = self.per_neuron.copy()
        return Counters(
            spikes=int(per_neuron.sum()),
            syn_ops=round(self.events[SYN_OPS]),
            effective_acs=round(self.events[EFFECTIVE]),
            coincidences=round(self.events[COINCIDENCES]),
            max_membrane=float(self.events[MEMBRANE]),
            max_current=float(self.events[CURRENT]),
            per_neuron=per_neuron,
        )

    def aligned(self, x: np.ndarray) -> np.ndarray:
        """(time steps, lanes, ...) of the window → (clips, steps, ...); clip = round · lanes + lane."""
        rounds = x.reshape(self.window.clips, self.window.period, self.lanes, *x.shape[2:])
        return rounds.swapaxes(1, 2).reshape(-1, self.window.period, *x.shape[2:])[: self.clips]

    def spike_trains(self) -> np.ndarray:
        """(clips, steps, *shape) bool."""
        bits = np.unpackbits(self.aligned(self.recorded), axis=-1, count=self.population.size)
        return bits.astype(bool).reshape(*bits.shape[:2], *self.population.shape)


def execute(
    program: Program,
    inputs: dict[str, np.ndarray],
    *,
    record: bool = True,
    progress: Callable[[int], None] = lambda clips: None,
    lanes: int = LANES,
) -> Execution:
    """Run a balanced program in Lava; `inputs[name]` is (clips, steps, *shape). Raises LavaRuntimeError with a Process's traceback."""
    clips, steps = next(iter(inputs.values())).shape[:2]
    lanes = min(lanes, clips)
    rounds = -(-clips // lanes)
    windows = schedule(program, rounds, steps)
    given = host_spikes(program, inputs)
    works = {
        p.name: PopulationWork(program, p, windows[p.name], lanes, clips, record)
        for p in program.populations
        if p.name not in given and p.kind != "input"
    }
    processes: dict[str, Source | Leaf] = {
        name: Source(frames=_frames(spikes, lanes, rounds), name=_process_name(name)) for name, spikes in given.items()
    }
    for name, work in works.items():
        shapes = [(lanes, *program[source].shape) for source in work.sources]
        processes[name] = Leaf(work=work, sources=shapes, shape=(lanes, *program[name].shape), name=_process_name(name))
    for name, work in works.items():
        leaf = processes[name]
        assert isinstance(leaf, Leaf)
        for source, port in zip(work.sources, leaf.ports, strict=False):
            processes[source].s_out.connect(port)
    if not works:
        raise DeployError("nothing of this program runs on the chip; there is no population behind its spikes")
    total = run_length(program, rounds, steps)
    config = Loihi2SimCfg(select_tag="fixed_pt" if program.precision == "fixed" else "floating_pt")
    with GuardedRuntime(processes[next(iter(works))], config, deadline_s=DEADLINE_S) as runtime:
        start, done = time.perf_counter(), 0
        for first in range(0, total, STEPS_PER_CALL):
            runtime.run(min(STEPS_PER_CALL, total - first))
            finished = min(clips, max(0, (first + STEPS_PER_CALL - program.latency) // steps) * lanes)
            progress(finished - done)
            done = finished
        seconds = time.perf_counter() - start
    progress(clips - done)
    execution = Execution("lava", program.precision, clips, steps, program.latency, seconds=seconds)
    for population in program.populations:
        name = population.name
        if name in works:
            execution.counters[name] = works[name].counters()
            if population.kind == "lif" and record:
                execution.spikes[name] = works[name].spike_trains()
        elif name in given:
            per_neuron = given[name].sum((0, 1), dtype=np.int64)
            execution.counters[name] = Counters(spikes=int(per_neuron.sum()), per_neuron=per_neuron)
            if population.kind == "lif" and record:
                execution.spikes[name] = given[name]
        else:
            execution.counters[name] = Counters(per_neuron=np.zeros(population.shape, dtype=np.int64))
    for output in program.outputs:
        population = program[output.population]
        if population.kind == "readout":
            sums = works[population.name].aligned(works[population.name].sums)
            execution.outputs[output.name] = (sums * population.unit).astype(np.float32)
        else:
            if population.name in given:
                trains: np.ndarray | None = given[population.name]
            else:
                trains = works[population.name].spike_trains() if record else None
            if trains is None:
                raise DeployError(f"output {output.name}: is a population's spikes; run with record=True")
            execution.outputs[output.name] = trains.astype(np.float32)
    add_updates(program, execution.counters, clips, steps)
    return execution


def _frames(spikes: np.ndarray, lanes: int, rounds: int) -> np.ndarray:
    """(clips, steps, *shape) → (rounds · steps, lanes, *shape); lanes without a clip stay silent."""
    padded = np.zeros((rounds * lanes, *spikes.shape[1:]), dtype=bool)
    padded[: len(spikes)] = spikes
    by_round = padded.reshape(rounds, lanes, *spikes.shape[1:]).swapaxes(1, 2)
    return by_round.reshape(rounds * spikes.shape[1], lanes, *spikes.shape[2:])


def _process_name(population: str) -> str:
    return population.replace(".", "_")
