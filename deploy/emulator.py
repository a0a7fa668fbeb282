"""Bit-accurate execution, layer at a time: all steps and many clips of a population at once.

float32 matrix products for the sums, int32 and wider for the membrane. Clips are handled in batches, so that memory does not
grow with their number unless spikes are recorded.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.program import Population, Product, Program, float_neuron, spikes_to_float

BATCH = 8  # clips at a time: the attention's maps of the demo student still fit a core's share of the cache


@torch.no_grad()
def host_spikes(program: Program, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Spikes that the chip receives: spike inputs as they are, and the host's populations, computed once for all backends.

    `inputs[name]` is (clips, steps, *shape). A current that does not change over the steps is computed once. Returns
    (clips, steps, *shape) bool by population.
    """
    given: dict[str, np.ndarray] = {}
    for population in program.inputs:
        if population.name not in program.analog:
            given[population.name] = inputs[population.name] != 0
    for population in program.populations:
        if population.place != "host" or population.kind != "lif":
            continue
        state = float_neuron(population).prepare()
        current: Tensor | None = None
        for projection in program.into(population.name):
            x = inputs[projection.sources[0]]
            constant = x.strides[1] == 0 or x.shape[1] == 1
            lanes = spikes_to_float(x[:, :1] if constant else x)
            y = projection.current((lanes.flatten(0, 1),)).unflatten(0, lanes.shape[:2])
            current = y if current is None else current + y
        assert current is not None
        steps = inputs[program.into(population.name)[0].sources[0]].shape[1]
        v, spikes = state.start(current[:, 0]), []
        for t in range(steps):
            s, v, _ = state.step(current[:, min(t, current.shape[1] - 1)], v)
            spikes.append(s.numpy())
        given[population.name] = np.stack(spikes, axis=1)
    return given


@torch.no_grad()
def execute(
    program: Program,
    inputs: dict[str, np.ndarray],
    *,
    record: bool = True,
    progress: Callable[[int], None] = lambda clips: None,
) -> Execution:
    """Run `inputs[name]` (clips, steps, *shape); every clip starts from rest."""
    clips, steps = next(iter(inputs.values())).shape[:2]
    tallies = {p.name: Counters(per_neuron=np.zeros(p.shape, dtype=np.int64)) for p in program.populations}
    outputs: dict[str, list[np.ndarray]] = {output.name: [] for output in program.outputs}
    spikes: dict[str, np.ndarray] = {
        p.name: np.zeros((clips, steps, *p.shape), dtype=bool) for p in program.neurons if record
    }
    start = time.perf_counter()
    for first in range(0, clips, BATCH):
        chunk = slice(first, min(first + BATCH, clips))
        values: dict[str, Tensor] = {}  # (steps, clips, *shape) float32 spikes
        given = host_spikes(program, {name: x[chunk] for name, x in inputs.items()})
        for population in program.populations:
            name, tally = population.name, tallies[population.name]
            if name in given:
                s = torch.from_numpy(np.ascontiguousarray(given[name].swapaxes(0, 1)))
            elif population.kind == "input":
                continue
            else:
                current = _current(program, population, values, tally)
                if population.kind == "readout":
                    result = _read_out(population, current)
                    for output in program.outputs:
                        if output.population == name:
                            outputs[output.name].append(result)
                    continue
                s = _fire(population, current, tally)
            values[name] = s.to(torch.float32)
            tally.per_neuron += s.sum((0, 1)).numpy()
            aligned = s.transpose(0, 1).numpy()
            if name in spikes:
                spikes[name][chunk] = aligned
            for output in program.outputs:
                if output.population == name:
                    outputs[output.name].append(aligned.astype(np.float32))
        progress(chunk.stop - chunk.start)
    execution = Execution("emulator", program.precision, clips, steps, program.latency, spikes=spikes, counters=tallies)
    execution.seconds = time.perf_counter() - start
    execution.outputs = {name: np.concatenate(parts) for name, parts in outputs.items()}
    for population in program.populations:
        tally = tallies[population.name]
        tally.spikes = int(tally.per_neuron.sum())
        _deliveries(program, population, tallies)
    add_updates(program, tallies, clips, steps)
    return execution


def _current(program: Program, population: Population, values: dict[str, Tensor], tally: Counters) -> Tensor:
    """(steps, clips, *shape): the sum over all projections into a population."""
    total: Tensor | None = None
    for projection in program.into(population.name):
        parts = []
        for index, source in enumerate(projection.sources):
            x, lag = values[source], program.lag(projection, index)
            if lag > 0:
                x = torch.cat([torch.zeros_like(x[:lag]), x[: len(x) - lag]])
            elif lag < 0:  # an unbalanced program: spikes of later steps arrive too early
                x = torch.cat([x[-lag:], torch.zeros_like(x[:-lag])])[: len(x)]
            parts.append(x.flatten(0, 1))
        y = projection.current(tuple(parts)).unflatten(0, values[projection.sources[0]].shape[:2])
        if isinstance(projection, Product):
            tally.coincidences += round(y.double().sum().item() / projection.weight)
        total = y if total is None else total + y
    assert total is not None
    return total


def _fire(population: Population, current: Tensor, tally: Counters) -> Tensor:
    assert population.neuron is not None
    state = population.neuron.prepare()
    s = torch.empty(current.shape, dtype=torch.bool)
    v = state.start(current[0])
    tally.max_current = max(tally.max_current, float(current.abs().max()))
    for t in range(len(current)):
        s[t], v, h = state.step(current[t], v)
        tally.max_membrane = max(tally.max_membrane, float(h.abs().max()) / state.scale)
    return s


def _read_out(population: Population, current: Tensor) -> np.ndarray:
    """Increments per step, dequantised: (clips, steps, *shape) float32. Integers below 2^24 until the last product."""
    assert population.bias is not None
    total = current.double().numpy() + population.bias
    return (total * population.unit).astype(np.float32).swapaxes(0, 1)


def _deliveries(program: Program, population: Population, tallies: dict[str, Counters]) -> None:
    """Each spike of a source times the synapses that it reaches; an analog source's are MACs and no synaptic operations."""
    tally = tallies[population.name]
    for projection in program.into(population.name):
        if any(source in program.analog for source in projection.sources):
            continue
        every, nonzero = program.fan_outs(projection), program.fan_outs(projection, nonzero=True)
        for source, reached, effective in zip(projection.sources, every, nonzero, strict=True):
            counts = tallies[source].per_neuron
            tally.syn_ops += int((counts * reached).sum())
            tally.effective_acs += int((counts * effective).sum())
