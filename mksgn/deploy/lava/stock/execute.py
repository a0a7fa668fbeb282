"""A program in stock Lava Processes alone: what Lava's users would build by hand, as an oracle and a yardstick for the fused leaves.

A population is a LIFReset (several, where its neurons' thresholds or decays differ: stock LIF takes one of each), a projection is
what stock_synapses makes of it, host spikes come from a RingBuffer. Only the Tap, which brings results back, is ours.

Clips stream back to back, each population being reset at its own depth (LAVA.md, "Reset in a pipeline"). Stock synapses and delays
are never cleared, and a bias makes neurons fire before the first clip has reached them. Where a network itself looks back at
earlier steps, both would leak into a clip: such programs run clip by clip, each in a network of its own, in which biases are
balanced by equal currents until the clip is there.
"""

from __future__ import annotations

import time

import numpy as np
from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer

from mksgn.deploy.emulator import host_values
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.lava.guard.runtime import GuardedRuntime
from mksgn.deploy.lava.leaf_work import shared
from mksgn.deploy.lava.processes.tap import Tap
from mksgn.deploy.lava.stock.neurons import hold_back, make_lifs
from mksgn.deploy.lava.stock.synapses import Ports, Synapses, cost, label
from mksgn.deploy.passes.balance import depths
from mksgn.deploy.passes.schedule import Window
from mksgn.deploy.program.program import AnyProjection, Population, Program

DEADLINE_S = 120.0  # without any progress; a stock Conv of the paper's widths takes seconds


def execute(program: Program, inputs: dict[str, np.ndarray], *, record: bool = True) -> Execution:
    """Run a balanced program; `inputs[name]` is (clips, steps, *shape). Of the counters, only spikes and updates are filled in.

    In fixed point, spike for spike what the emulator does. In float, stock models compute in float64: they decide alike where float32
    is exact, as for a quantised file. Raises DeployError for what stock Processes cannot do.
    """
    clips, steps = next(iter(inputs.values())).shape[:2]
    given = host_values(program, inputs)
    depth = stock_depths(program)
    looks_back = any(projection.logical_delay for projection in program.projections)
    batches = [slice(i, i + 1) for i in range(clips)] if looks_back else [slice(0, clips)]
    parts: dict[str, list[np.ndarray]] = {}
    seconds = 0.0
    for batch in batches:
        network = _Network(program, {name: x[batch] for name, x in given.items()}, depth, quiet=looks_back)
        seconds += network.run()
        for name, frames in network.frames.items():
            parts.setdefault(name, []).append(frames.reshape(-1, steps, *frames.shape[1:]).copy())
    found = {name: np.concatenate(each) for name, each in parts.items()}
    latency = max((depth[output.population] for output in program.outputs), default=0)
    execution = Execution("stock", program.precision, clips, steps, latency, seconds=seconds)
    trains = {name: x for name, x in given.items() if program.sends_spikes(name)}
    trains |= {name: x.astype(bool) for name, x in found.items() if program[name].fires}
    for population in program.populations:
        name = population.name
        per_neuron = trains[name].sum((0, 1)) if name in trains else np.zeros(population.shape, dtype=np.int64)
        execution.counters[name] = Counters(spikes=int(per_neuron.sum()), per_neuron=per_neuron)
        if population.fires and record:
            execution.spikes[name] = trains[name]
    for output in program.outputs:
        population = program[output.population]
        if population.kind == "readout" and population.name in found:
            assert population.bias is not None
            values = (found[population.name] + population.bias) * population.unit
        else:
            values = trains.get(population.name, given.get(population.name))
        execution.outputs[output.name] = values.astype(np.float32)
    add_updates(program, execution.counters, clips, steps)
    return execution


def stock_depths(program: Program) -> dict[str, int]:
    """The time step, from 0, at which each population handles a clip's first one, in stock Processes; host spikes at 0.

    The longest way to it, as in the balance pass; what the network itself shifts shortens it. A loop fits only if its spikes are
    back in time: one synapse costs the one step that NIR's loop has.
    """
    return depths(program, lambda projection: cost(projection) - projection.logical_delay, fused_loops=False)


class _Network:
    """One clip after the other through a set of Processes, and `frames` (time steps, *shape): what each population did."""

    def __init__(self, program: Program, given: dict[str, np.ndarray], depths: dict[str, int], *, quiet: bool):
        self.program, self.depths = program, depths
        self.dtype = np.int32 if program.precision == "fixed" else np.float64
        clips, steps = next(iter(given.values())).shape[:2]
        on_chip = [p for p in program.populations if p.location == "chip" and p.kind != "input"]
        if not on_chip:
            raise DeployError("nothing of this program runs on the chip; there is no population behind its spikes")
        self.windows = {p.name: Window(depths[p.name], steps, clips) for p in on_chip}
        self.length = max(window.end for window in self.windows.values())
        self.ports: dict[str, Ports] = {n: (self._source(x),) for n, x in given.items() if program.sends_spikes(n)}
        self.lifs = {p.name: make_lifs(p, self.windows[p.name]) for p in on_chip if p.kind != "readout"}
        self.ports |= {name: tuple(lif.process.s_out for lif in lifs) for name, lifs in self.lifs.items()}
        self.frames: dict[str, np.ndarray] = {}
        self.taps: list[Tap] = []
        self.synapses = Synapses(program, self.ports)
        for population in on_chip:
            self._connect(population)
            for lif in self.lifs.get(population.name, ()) if quiet else ():
                hold_back(population, lif, depths[population.name], self.length)

    def run(self) -> float:
        """Seconds, without compiling and starting. Lava compiles what hangs together with a Process: parts that do not run in turn."""
        config = Loihi2SimCfg(select_tag="fixed_pt" if self.program.precision == "fixed" else "floating_pt")
        left, seconds = set(self.taps), 0.0
        while left:
            tap = left.pop()
            left -= set(find_processes(tap))
            with GuardedRuntime(tap, config, deadline_s=DEADLINE_S) as runtime:
                start = time.perf_counter()
                runtime.run(self.length)
                seconds += time.perf_counter() - start
        return seconds

    def _source(self, spikes: np.ndarray):
        """(clips, steps, *shape): a RingBuffer sends its frame k at time step k, as a LIF would; then silence."""
        frames = np.zeros((*spikes.shape[2:], self.length), dtype=self.dtype)
        stream = spikes.reshape(-1, *spikes.shape[2:])
        frames[..., : len(stream)] = np.moveaxis(stream, 0, -1)
        return RingBuffer(data=frames).s_out

    def _connect(self, population: Population) -> None:
        name, window = population.name, self.windows[population.name]
        if population.late_biases:
            raise DeployError(
                f"population {name}: a bias behind a delay begins late, a stock one does not; run the fused network"
            )
        dtype = np.uint8 if population.fires else np.float64
        self.frames[name] = shared((window.period * window.samples, *population.shape), dtype)
        tap = Tap(frames=self.frames[name], first=window.offset, name=f"{label(name)}_tap")
        self.taps.append(tap)
        for port in self.ports.get(name, ()):
            port.connect(tap.s_in)
        targets = [(lif.process.a_in, lif.members) for lif in self.lifs.get(name, ())] or [(tap.s_in, None)]
        for projection in self.program.into(name):
            for target, members in targets:
                self.synapses.connect(projection, self._delays(projection), target, members)

    def _delays(self, projection: AnyProjection) -> list[int]:
        arrives = self.depths[projection.target] + projection.logical_delay - cost(projection)
        return [arrives - self.depths[source] for source in projection.sources]
