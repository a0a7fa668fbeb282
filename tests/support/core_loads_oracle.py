"""An oracle for loads by core and step: every synapse followed tap by tap, every product unit by itself.

It uses none of the counting of mksgn.deploy; of a placement it takes the core of each neuron, of the program depths and
biases.
"""

from collections.abc import Mapping

import nir
import numpy as np

from mksgn.deploy.placement.place import Placement
from tests.support.synapse_walk import Walk

Trains = Mapping[str, np.ndarray]
EVENTS = ("messages_in", "synaptic", "accesses", "updates", "spikes", "messages_out")


class CoreCensus:
    """Counts of EVENTS, (samples, steps, cores) each, by their names."""

    def __init__(self, graph: nir.NIRGraph, placement: Placement, trains: Trains):
        self.walk, self.placement, self.trains = Walk(graph, float(graph.metadata.get("dt", 1e-4))), placement, trains
        self.program = placement.program
        self.cores = {placed.name: placed.core_of() for placed in placement.populations}
        self.samples, self.steps = next(iter(trains.values())).shape[:2]
        length = self.steps + max(p.chip_depth for p in self.program.populations)
        self.counts = {event: np.zeros((self.samples, length, placement.cores), dtype=np.int64) for event in EVENTS}
        self.received: dict[str, np.ndarray] = {}
        self._projections()
        for node in self.walk.attention:
            for part in "mz":
                self._units(node, part)
        self._neurons()

    def add(self, event: str, sample: int, step: int, core: int, count: int = 1) -> None:
        self.counts[event][sample, step, core] += count

    def _projections(self) -> None:
        reached: dict[tuple[str, str], dict[tuple[int, ...], set[int]]] = {}
        for projection in self.walk.projections:
            if projection.source not in self.trains or projection.target not in self.cores:
                continue
            fired = self.trains[projection.source]
            depth, cores = self.program[projection.source].chip_depth, self.cores[projection.target]
            shape = self.walk.populations[projection.target]
            got = self.received.setdefault(
                projection.target, np.zeros((self.samples, self.steps, *shape), dtype=np.int64)
            )
            pairs = reached.setdefault((projection.source, projection.target), {})
            for (start, end, delay), block in projection.taps.items():
                late = delay + projection.shift
                for to, sender in np.argwhere(block.exists):
                    core, paths = int(cores[(to, *end)]), int(block.paths[to, sender])
                    pairs.setdefault((int(sender), *start), set()).add(core)
                    for sample, step in np.argwhere(fired[(slice(None), slice(None), sender, *start)]):
                        if step + late < self.steps:
                            self.add("synaptic", sample, depth + step, core, paths)
                            got[(sample, step + late, to, *end)] += paths
        for (source, _), pairs in reached.items():
            for neuron, targets in pairs.items():
                for sample, step in np.argwhere(self.trains[source][(slice(None), slice(None), *neuron)]):
                    self._send(source, neuron, sample, step, targets)

    def _send(self, source: str, neuron: tuple[int, ...], sample: int, step: int, targets: set[int]) -> None:
        at = self.program[source].chip_depth + step
        for core in targets:
            self.add("messages_in", sample, at, core)
        if source in self.cores:
            self.add("messages_out", sample, at, int(self.cores[source][neuron]), len(targets))

    def _units(self, node: str, part: str) -> None:
        """Follow attention's units one by one."""
        name, qkv = f"{node}.{part}", self.walk.attention[node]
        stacked, frames, joints = self.walk.populations[qkv]
        channels = stacked // 3
        heads = self.walk.populations[f"{node}.m"][0]
        units, target = self.cores[f"{name} units"], self.cores[name]
        at = self.program[name].chip_depth - 1
        got = np.zeros((self.samples, self.steps, *self.walk.populations[name]), dtype=np.int64)
        senders: dict[tuple[str, tuple[int, ...]], set[int]] = {}
        for c, t, i, j in np.ndindex(channels, frames, joints, joints):
            head = c * heads // channels
            one = (qkv, (c, t, i)) if part == "m" else (f"{node}.m", (head, t, i, j))
            other = (qkv, (channels + c, t, j)) if part == "m" else (qkv, (2 * channels + c, t, j))
            to = (head, t, i, j) if part == "m" else (c, t, i)
            unit = int(units[c, t, i, j])
            trains = [self.trains[source][(slice(None), slice(None), *neuron)] for source, neuron in (one, other)]
            for source, neuron in (one, other):
                senders.setdefault((source, neuron), set()).add(unit)
            for (source, _), train in zip((one, other), trains, strict=True):
                for sample, step in np.argwhere(train):
                    self.add("synaptic", sample, self.program[source].chip_depth + step, unit)
            for sample, step in np.argwhere(trains[0] | trains[1]):
                self.add("updates", sample, at + step, unit)
            for sample, step in np.argwhere(trains[0] & trains[1]):
                self.add("spikes", sample, at + step, unit)
                self.add("messages_out", sample, at + step, unit)
                self.add("messages_in", sample, at + step, int(target[to]))
                self.add("synaptic", sample, at + step, int(target[to]))
                got[(sample, step, *to)] += 1
        for (source, neuron), targets in senders.items():
            for sample, step in np.argwhere(self.trains[source][(slice(None), slice(None), *neuron)]):
                self._send(source, neuron, sample, step, targets)
        self.received[name] = got

    def _neurons(self) -> None:
        for name, cores in self.cores.items():
            for core in cores.ravel():
                self.counts["accesses"][:, :, core] += 1
            if name.endswith(" units"):
                continue
            population = self.program[name]
            updated = np.zeros((self.samples, self.steps, *population.shape), dtype=bool)
            updated |= self.received.get(name, np.zeros_like(updated)) > 0
            if population.neuron is not None:
                updated |= population.neuron.bias != 0
            elif population.bias is not None:
                updated[:] = True
            if population.fires:
                updated |= self.trains[name]
            for sample, step, *neuron in np.argwhere(updated):
                self.add("updates", sample, population.chip_depth + step, cores[tuple(neuron)])
            for sample, step, *neuron in np.argwhere(self.trains[name]) if population.fires else ():
                self.add("spikes", sample, population.chip_depth + step, cores[tuple(neuron)])
