"""A program in stock Lava Processes alone: a reference for the spikes and the speed of the fused leaves.

A population is a LIFReset (several where its neurons' thresholds or decays differ: stock LIF takes
one of each), a projection is what `synapses` makes of it, host spikes come from a RingBuffer. Only
the Tap, which brings results back, is not stock.

Samples stream back to back; each population is reset at its own depth (LAVA.md, "Reset in a
pipeline"). Stock synapses and delays are never cleared, and a bias makes neurons fire before the
first sample has reached them. If the network itself uses earlier steps, both would leak into a
sample. Such programs run sample by sample, each in a network of its own, in which equal currents
compensate the biases until the sample arrives.
"""

import time

import numpy as np
from lava.magma.compiler.compiler_graphs import find_processes
from lava.magma.core.process.ports.ports import OutPort
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer

from mksgn.deploy.emulator import host_values
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Counters, Execution, add_updates
from mksgn.deploy.lava.guard.runtime import GuardedRuntime
from mksgn.deploy.lava.process_models import TAGS, process_name
from mksgn.deploy.lava.processes.tap import Tap
from mksgn.deploy.lava.results import shared_zeros
from mksgn.deploy.lava.stock.neurons import hold_back, make_lifs
from mksgn.deploy.lava.stock.synapses import Ports, Synapses, cost
from mksgn.deploy.passes.balance import depths
from mksgn.deploy.passes.schedule import Window
from mksgn.deploy.program.program import AnyProjection, Population, Program

DEADLINE_S = 120.0  # without any progress; a stock Conv at the paper's widths takes seconds


def execute(program: Program, inputs: dict[str, np.ndarray], *, record: bool = True) -> Execution:
    """Run a balanced program. Of the counters, only spikes and updates are filled in.

    In fixed point the spikes are those of the emulator. In float, stock models compute in float64,
    and make the same decisions where float32 is exact, as for a quantised file.

    Args:
        inputs: arrays (samples, steps, *shape) by input's name.
        record: whether to keep the spike trains.

    Raises:
        DeployError: for what stock Processes cannot do.
    """
    samples, steps = next(iter(inputs.values())).shape[:2]
    host = host_values(program, inputs)
    depths = stock_depths(program)
    looks_back = any(projection.logical_delay for projection in program.projections)
    batches = [slice(i, i + 1) for i in range(samples)] if looks_back else [slice(0, samples)]
    parts: dict[str, list[np.ndarray]] = {}
    seconds = 0.0
    for batch in batches:
        network = _Network(program, {name: x[batch] for name, x in host.items()}, depths, quiet=looks_back)
        seconds += network.run()
        for name, frames in network.frames.items():
            parts.setdefault(name, []).append(frames.reshape(-1, steps, *frames.shape[1:]).copy())
    on_chip = {name: np.concatenate(frames) for name, frames in parts.items()}
    latency = max((depths[output.population] for output in program.outputs), default=0)
    execution = Execution("stock", program.precision, samples, steps, latency, seconds=seconds)
    trains = {name: x for name, x in host.items() if program.sends_spikes(name)}
    trains |= {name: x.astype(bool) for name, x in on_chip.items() if program[name].fires}
    for population in program.populations:
        name = population.name
        per_neuron = trains[name].sum((0, 1)) if name in trains else np.zeros(population.shape, dtype=np.int64)
        execution.counters[name] = Counters(spikes=int(per_neuron.sum()), per_neuron=per_neuron)
        if population.fires and record:
            execution.spikes[name] = trains[name]
    for output in program.outputs:
        population = program[output.population]
        if population.kind == "readout" and population.name in on_chip:
            assert population.bias is not None
            values = (on_chip[population.name] + population.bias) * population.unit
        else:
            values = trains.get(population.name, host.get(population.name))
        execution.outputs[output.name] = values.astype(np.float32)
    add_updates(program, execution.counters, samples, steps)
    return execution


def stock_depths(program: Program) -> dict[str, int]:
    """Find the time step, from 0, at which each population handles a sample's first step in stock Processes.

    It is the longest path from the host's spikes, as in the balance pass; the network's own delays
    shorten it. A loop fits only if its spikes return in time: one synapse costs the one step that
    NIR's loop has.
    """
    return depths(program, lambda projection: cost(projection) - projection.logical_delay, fused_loops=False)


class _Network:
    """A set of Processes through which samples stream; `frames` (time steps, *shape) holds what each population did."""

    def __init__(self, program: Program, host: dict[str, np.ndarray], depths: dict[str, int], *, quiet: bool):
        self.program, self.depths = program, depths
        self.dtype = np.int32 if program.precision == "fixed" else np.float64
        samples, steps = next(iter(host.values())).shape[:2]
        on_chip = [p for p in program.populations if p.location == "chip" and p.kind != "input"]
        if not on_chip:
            raise DeployError(
                "no part of this program runs on the chip: no population follows its inputs; use the emulator"
            )
        self.windows = {p.name: Window(depths[p.name], steps, samples) for p in on_chip}
        self.length = max(window.end for window in self.windows.values())
        self.ports: dict[str, Ports] = {n: (self._source(x),) for n, x in host.items() if program.sends_spikes(n)}
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
        """Run each connected part in turn; return the seconds without compiling and starting."""
        config = Loihi2SimCfg(select_tag=TAGS[self.program.precision])
        left, seconds = set(self.taps), 0.0
        while left:
            tap = left.pop()
            left -= set(find_processes(tap))
            with GuardedRuntime(tap, config, deadline_s=DEADLINE_S) as runtime:
                start = time.perf_counter()
                runtime.run(self.length)
                seconds += time.perf_counter() - start
        return seconds

    def _source(self, spikes: np.ndarray) -> OutPort:
        """Make a RingBuffer of (samples, steps, *shape) that sends frame k at time step k, as a LIF would."""
        frames = np.zeros((*spikes.shape[2:], self.length), dtype=self.dtype)
        stream = spikes.reshape(-1, *spikes.shape[2:])
        frames[..., : len(stream)] = np.moveaxis(stream, 0, -1)
        return RingBuffer(data=frames).s_out

    def _connect(self, population: Population) -> None:
        name, window = population.name, self.windows[population.name]
        if population.late_biases:
            raise DeployError(
                f"population {name}: a bias after a delay begins late, which a stock bias cannot; run the fused network"
            )
        dtype = np.uint8 if population.fires else np.float64
        self.frames[name] = shared_zeros((window.period * window.samples, *population.shape), dtype)
        tap = Tap(frames=self.frames[name], first=window.offset, name=f"{process_name(name)}_tap")
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
