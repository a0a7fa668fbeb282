"""Bit-accurate execution, layer by layer: all steps of many samples at once, and a recurrent loop
step by step.

Sums are exact matrix products (mksgn/deploy/program/operators); membrane potentials are those of
mksgn/deploy/program/neurons. Samples are handled in batches, so that memory does not grow with
their number unless spikes are recorded.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.event_counts import EventCounter, largest
from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.program.program import AnyProjection, Population, Program
from mksgn.deploy.stepper import GroupStepper, Step, receive
from mksgn.deploy.torch_settings import exact_sums, threads

# most values of the largest population, over its steps and samples: limited by a CPU's cache, or a GPU's memory
BATCH_VALUES = {"cpu": 1 << 22, "cuda": 1 << 28}
BATCH_LIMIT = {"cpu": 64, "cuda": 1024}  # samples

Values = dict[str, Tensor]  # (steps, samples, *shape): spikes uint8, currents and membranes float32


def batch_size(program: Program, steps: int, device: str = "cpu") -> int:
    """Return the number of samples that are run at a time."""
    kind = "cuda" if device.startswith("cuda") else "cpu"
    largest = max((p.size for p in program.populations), default=1)
    return max(1, min(BATCH_LIMIT[kind], BATCH_VALUES[kind] // (largest * steps)))


def host_values(program: Program, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute what the chip and the outputs get from the host.

    Returns:
        Arrays (samples, steps, *shape) of spike inputs and the host's populations, by name: spikes
        bool, currents and membrane potentials float32.
    """
    return on_host(program, inputs)[0]


@torch.no_grad()
def on_host(program: Program, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Counters]]:
    """Return `host_values`, and the counters of inputs and of the host's populations."""
    samples, steps = next(iter(inputs.values())).shape[:2]
    emulation = _Emulation(program, torch.device("cpu"))
    values = {p.name: inputs[p.name] != 0 for p in program.inputs if p.name not in program.analog}
    parts: dict[str, list[np.ndarray]] = {}
    size = batch_size(program, steps)
    for first in range(0, samples, size):
        for name, x in emulation.run(inputs, slice(first, first + size), location="host").items():
            if program[name].kind != "input":
                parts.setdefault(name, []).append(_aligned(x, program[name]))
    values |= {name: np.concatenate(batches) for name, batches in parts.items()}
    needed = {s for q in program.projections if program[q.target].location == "chip" for s in q.sources}
    values |= {name: np.asarray(inputs[name], dtype=np.float32) for name in program.analog & needed}
    counters = emulation.counters()
    return values, {p.name: counters[p.name] for p in program.populations if p.location == "host" or p.kind == "input"}


@torch.no_grad()
def execute(
    program: Program,
    inputs: dict[str, np.ndarray],
    *,
    record: bool = True,
    progress: Callable[[int], None] = lambda samples: None,
    device: str = "cpu",
) -> Execution:
    """Run a program; every sample starts at rest.

    Args:
        program: a compiled program; an unbalanced one runs with the delays that it has.
        inputs: arrays (samples, steps, *shape) by input's name.
        record: keep spike trains, not only counters and outputs.
        progress: called with the number of samples just finished.
        device: torch's name for the device.
    """
    samples, steps = next(iter(inputs.values())).shape[:2]
    outputs: dict[str, list[np.ndarray]] = {output.name: [] for output in program.outputs}
    spikes = {p.name: np.zeros((samples, steps, *p.shape), dtype=bool) for p in program.neurons if record}
    start, size = time.perf_counter(), batch_size(program, steps, device)
    with _threads(threads.number()) as (number, pool):
        emulation = _Emulation(program, torch.device(device), number, pool)
        for first in range(0, samples, size):
            chunk = slice(first, min(first + size, samples))
            with exact_sums(), _one_thread(program, device):
                keep = set(spikes) | {output.population for output in program.outputs}
                values = emulation.run(inputs, chunk, keep=keep)
            for name in spikes:
                spikes[name][chunk] = _aligned(values[name], program[name])
            for output in program.outputs:
                value = _aligned(values[output.population], program[output.population])
                outputs[output.name].append(value.astype(np.float32))
            progress(chunk.stop - chunk.start)
    execution = Execution("emulator", program.precision, samples, steps, program.latency, spikes=spikes)
    execution.seconds = time.perf_counter() - start
    execution.outputs = {name: np.concatenate(parts) for name, parts in outputs.items()}
    execution.counters = emulation.counters()
    add_updates(program, execution.counters, samples, steps)
    return execution


@contextmanager
def _threads(number: int) -> Iterator[tuple[int, Executor | None]]:
    """Yield the number of threads for the compiled loops, and a pool of them if there are several."""
    if number == 1:
        yield number, None
        return
    with ThreadPoolExecutor(number) as pool:
        yield number, pool


@contextmanager
def _one_thread(program: Program, device: str) -> Iterator[None]:
    """Let torch use one thread where the compiled loops run: its other threads would busy-wait on the same cores."""
    fused = program.precision == "fixed" and device == "cpu"
    with threads.one() if fused else nullcontext():
        yield


def _aligned(x: Tensor, population: Population) -> np.ndarray:
    """Convert (steps, samples, *shape) to (samples, steps, *shape) in NumPy: spikes as bool, the
    others in the file's units.
    """
    values = x.transpose(0, 1).cpu()
    if values.dtype == torch.uint8:
        return values.view(torch.bool).numpy()
    if population.kind != "readout":
        return values.numpy()
    return (values.double().numpy() * population.unit).astype(np.float32)


class _Emulation:
    """Execution groups of a program, ready to run batch after batch, and their event counters."""

    def __init__(self, program: Program, device: torch.device, threads: int = 1, pool: Executor | None = None):
        self.program, self.device, self.fixed = program, device, program.precision == "fixed"
        self.threads, self.pool = threads, pool
        self.event_counters = {p.name: EventCounter(program, p) for p in program.populations}
        self.groups = {name: GroupStepper(program, members, device) for name, members in program.groups.items()}
        last_use: dict[str, str] = {}
        for name, members in program.groups.items():
            sources = (s for p in members for projection in program.into(p.name) for s in projection.sources)
            last_use |= dict.fromkeys(sources, name)
        self.last_used: dict[str, list[str]] = {}  # populations by the group that reads them last
        for source, name in last_use.items():
            self.last_used.setdefault(name, []).append(source)

    def run(
        self, inputs: dict[str, np.ndarray], chunk: slice, *, location: str | None = None, keep: set[str] | None = None
    ) -> Values:
        """Run one batch.

        Args:
            inputs: all samples, by input's name.
            chunk: the samples of this batch.
            location: run only the populations of this location.
            keep: populations whose values are needed afterwards; others are freed after their last
                use. None: all.

        Returns:
            Values by population.
        """
        values = {p.name: self._input(p.name, inputs[p.name][chunk]) for p in self.program.inputs}
        for population in self.program.inputs:
            if population.name not in self.program.analog:
                self.event_counters[population.name].record_spikes(values[population.name])
        for name, group in self.groups.items():
            if location not in (None, group.members[0].location):
                continue
            if self.program.loops(name):
                values |= self._step_by_step(group, values)
            else:
                (population,) = group.members
                values[population.name] = self._at_once(group, population, values)
            if keep is not None:
                for done in self.last_used.get(name, ()):
                    if done not in keep:
                        values.pop(done, None)
        return values

    def counters(self) -> dict[str, Counters]:
        return {name: counter.counters(self.event_counters) for name, counter in self.event_counters.items()}

    def _input(self, name: str, x: np.ndarray) -> Tensor:
        """Return (steps, samples, *shape); if all steps are equal, a view that repeats one."""
        constant = x.strides[1] == 0
        dtype = np.float32 if name in self.program.analog else np.uint8
        values = np.array((x[:, :1] if constant else x).swapaxes(0, 1), dtype=dtype, order="C")
        tensor = torch.from_numpy(values)
        return tensor.expand(x.shape[1], *tensor.shape[1:]) if constant else tensor

    def _at_once(self, group: GroupStepper, population: Population, values: Values) -> Tensor:
        counter = self.event_counters[population.name]
        if population.name in group.fused:
            return self._fused(group, population, values)
        current = self._current(population, self.program.into(population.name), values, group.device)
        assert current is not None
        if population.kind == "readout":
            bias = torch.from_numpy(np.asarray(population.bias, dtype=np.float64)).to(group.device)
            return _with_late(current.double() + bias, group.late[population.name])
        current = _with_late(current, group.late[population.name])
        state = group.states[population.name]
        membrane = state.start(current[0])
        sent = torch.empty_like(current, dtype=torch.uint8 if population.fires else torch.float32)
        for t in range(len(current)):
            sent[t], membrane, h = state.step(current[t], membrane)
            if population.location == "chip":
                counter.record_membrane(largest(h) / state.scale)
        if population.location == "chip":
            counter.record_current(largest(current))
        if population.fires:
            counter.record_spikes(sent)
        return sent

    def _fused(self, group: GroupStepper, population: Population, values: Values) -> Tensor:
        """Run a population by the fused kernels."""
        fused, counter = group.fused[population.name], self.event_counters[population.name]
        arrivals: list[tuple[Tensor | None, int]] = []
        for projection in fused.projections:
            spikes = [values[source].to(group.device) for source in projection.sources]
            delays = [self.program.arrival_delay(projection, i) for i in range(len(spikes))]
            if any(delays):
                late = [_delayed(x, delay) for x, delay in zip(spikes, delays, strict=True)]
                counter.record_deliveries(projection, late)
                if fused.product is not None:
                    spikes, delays = late, [0] * len(late)
            arrivals += zip(spikes, delays, strict=True)
        others = [q for q in self.program.into(population.name) if q not in fused.projections]
        current = self._current(population, others, values, group.device)
        late_currents = group.late[population.name]
        steps, samples = next(iter(values.values())).shape[:2]
        if late_currents and current is None:
            current = torch.zeros((steps, samples, *population.shape), device=group.device)
        extra = None if current is None else _with_late(current, late_currents)
        fired = fused.run(arrivals, extra, (steps, samples), threads=self.threads, pool=self.pool)
        counter.record_membrane(fired.max_membrane)
        counter.record_current(fired.max_current)
        counter.per_neuron += fired.per_neuron
        counter.coincidences += fired.coincidences
        return fired.spikes

    def _current(
        self, population: Population, projections: Iterable[AnyProjection], values: Values, device: torch.device
    ) -> Tensor | None:
        """Return the summed current of projections, (steps, samples, *shape); None if there are none."""
        total: Tensor | None = None
        for projection in projections:
            y = self._projected(projection, values, device)
            total = y if total is None else total + y
        return total

    def _projected(self, projection: AnyProjection, values: Values, device: torch.device) -> Tensor:
        """Return the current of a projection from another group, (steps, samples, *target shape)."""
        # the host's sums are in float32: a GPU would add in another order, and round differently
        where = torch.device("cpu") if self.fixed and self.program[projection.target].location == "host" else device
        inputs = [values[source].to(where) for source in projection.sources]
        steps, samples = inputs[0].shape[:2]
        counter = self.event_counters[projection.target]
        delays = [self.program.arrival_delay(projection, i) for i in range(len(inputs))]
        if not any(delays) and all(x.stride(0) == 0 for x in inputs):
            once = receive(projection, tuple(x[0] for x in inputs))
            counter.coincidences += steps * once.coincidences
            assert once.current is not None
            return once.current.to(device).expand(steps, samples, *self.program[projection.target].shape)
        late = [_delayed(x, delay) for x, delay in zip(inputs, delays, strict=True)]
        counter.record_deliveries(projection, late)
        received = receive(projection, tuple(x.flatten(0, 1) for x in late))
        counter.coincidences += received.coincidences
        assert received.current is not None
        return received.current.to(device).unflatten(0, (steps, samples))

    def _step_by_step(self, group: GroupStepper, values: Values) -> Values:
        """Run the populations of a loop, one time step after the other."""
        inside = {p.name for p in group.members}
        outside = {s for p in group.members for q in group.incoming[p.name] for s in q.sources} - inside
        steps, samples = next(iter(values.values())).shape[:2]

        def arrives(projection: AnyProjection, index: int) -> Tensor | None:
            t = group.index - self.program.arrival_delay(projection, index)
            return values[projection.sources[index]][t].to(group.device) if 0 <= t < steps else None

        assert outside <= set(values)
        group.start(samples)
        sent: dict[str, list[Tensor]] = {name: [] for name in inside}
        for _ in range(steps):
            for step in group.step(arrives):
                self._count(step)
                name = step.population.name
                assert step.sent is not None  # a read-out is in no loop
                sent[name].append(step.sent)
        return {name: torch.stack(steps_of) for name, steps_of in sent.items()}

    def _count(self, step: Step) -> None:
        counter = self.event_counters[step.population.name]
        for received in step.received:
            counter.record_deliveries(received.projection, list(received.inputs))
        counter.coincidences += step.coincidences
        assert step.sent is not None
        if step.population.location == "chip":
            counter.record_membrane(step.max_membrane)
            counter.record_current(step.max_current)
        if step.population.fires:
            counter.record_spikes(step.sent)


def _with_late(current: Tensor, late: list[tuple[int, Tensor]]) -> Tensor:
    """Add currents that begin at a later step."""
    if late:
        current = current.clone()
    for first, more in late:
        current[first:] += more
    return current


def _delayed(x: Tensor, delay: int) -> Tensor:
    """Delay by a number of steps; a negative delay, which an unbalanced program may have, advances."""
    if delay > 0:
        return torch.cat([torch.zeros_like(x[:delay]), x[: max(0, len(x) - delay)]])[: len(x)]
    if delay < 0:
        return torch.cat([x[-delay:], torch.zeros_like(x[:-delay])])[: len(x)]
    return x
