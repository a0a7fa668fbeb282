"""Events of a run, counted by brute force from the NIR file's graph and the recorded spike trains: an oracle for the counters.

Every synapse is walked, tap by tap (synapse_walk), and nothing of mksgn.deploy's or mksgn.bench's counting is used: NumPy, int64.
Trains are (clips, steps, *shape) bool by population; attention NODE has two, NODE.m and NODE.z. A spike counts where it arrives:
after a delay or round a loop it may arrive when the clip is over, and then it reached nothing.

`python tests/brute_force.py MODEL.nir --data SOURCE` runs a file, counts both ways, and prints where they differ (exit code 3).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import nir
import numpy as np

from mksgn.export.graph.nodes import SpikingSelfAttention
from tests.support.synapse_walk import Block, Projection, Walk

Trains = Mapping[str, np.ndarray]


@dataclass
class Counts:
    """One population over the run, under the names of run.json's layers; axon messages are None without a placement."""

    name: str
    place: str
    shape: list[int]
    spikes: int = 0
    syn_ops: int = 0
    effective_acs: int = 0
    dense_ops: int = 0
    coincidences: int = 0
    neuron_updates: int = 0
    product_units: int = 0
    axon_out: int | None = None
    spikes_in: int | None = None
    silent_fraction: float = 0.0  # of a read-out, which has no spikes to be silent about, 0
    saturated_fraction: float = 0.0


@dataclass
class Census:
    """What one run did. Totals over the run, not per clip; `macs` of the analog encoder, each weight once per body."""

    steps: int
    layers: dict[str, Counts] = field(default_factory=dict)
    macs: int = 0
    effective_macs: int = 0
    host_to_chip_spikes: int = 0


def count(
    graph: nir.NIRGraph, trains: Trains, cores: Mapping[str, np.ndarray] | None = None, *, merged: bool = True
) -> Census:
    """Linear nodes in series whose windows overlap join two neurons by several ways: one synapse, or, unless `merged`, each way one.

    `trains` of the spiking populations and of Inputs that are spikes; `cores[name]` the core of each neuron of a population,
    and, under "NAME units", of its product units (channels, frames, query, key)."""
    walk = Walk(graph, float(graph.metadata.get("dt", 1e-4)))
    clips, steps = next(iter(trains.values())).shape[:2]
    analog = {
        name
        for name, node in graph.nodes.items()
        if isinstance(node, nir.Input) and node.metadata.get("signal") == "analog"
    }
    host = {p.target for p in walk.projections if p.source in analog}
    census = Census(steps)
    inputs = {name for name, node in graph.nodes.items() if isinstance(node, nir.Input)}
    for name, shape in walk.populations.items():
        if name not in inputs:
            census.layers[name] = _own(name, shape, "host" if name in host else "chip", trains.get(name), clips * steps)
    for projection in walk.projections:
        layer = census.layers[projection.target]
        synapses, effective = _synapses(projection, merged)
        if projection.source in analog:
            products = _on_host(projection)
            census.macs += clips * products
            census.effective_macs += clips * effective
            layer.dense_ops += clips * products
            continue
        layer.dense_ops += clips * steps * synapses
        every, effective = _deliveries(projection, trains[projection.source], merged)
        layer.syn_ops += every
        layer.effective_acs += effective
    for node, source in walk.attention.items():
        for part in "mz":
            _attend(graph.nodes[node], part, census.layers[f"{node}.{part}"], trains[source], trains[f"{node}.m"])
    senders = {p.source for p in walk.projections if p.target not in host} | set(walk.attention.values())
    for name in (senders & (host | inputs)) - analog:
        census.host_to_chip_spikes += int(trains[name].sum())
    if cores is not None:
        _messages(walk, census, trains, cores)
    return census


def _own(name: str, shape, place: str, train: np.ndarray | None, moments: int) -> Counts:
    layer = Counts(name, place, list(shape), neuron_updates=int(np.prod(shape)) * moments)
    if train is not None:
        each = train.sum((0, 1), dtype=np.int64)
        layer.spikes = int(each.sum())
        layer.silent_fraction = int((each == 0).sum()) / each.size
        layer.saturated_fraction = int((each == moments).sum()) / each.size
    return layer


def _counted(block: Block, merged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Synapses between each two channels, and those among them whose weight is not 0."""
    if merged:
        return block.exists.astype(np.int64), (block.weight != 0).astype(np.int64)
    return block.ways, block.live


def _synapses(projection: Projection, merged: bool) -> tuple[int, int]:
    counted = [_counted(block, merged) for block in projection.taps.values()]
    return sum(int(every.sum()) for every, _ in counted), sum(int(effective.sum()) for _, effective in counted)


def _on_host(projection: Projection) -> int:
    """Multiply-accumulates of a host, which leaves out the zeros beside the blocks of a block-diagonal convolution."""
    blocks = list(projection.taps.values())
    used = np.logical_or.reduce([block.live > 0 for block in blocks])
    behind, before = used.shape
    for parts in range(min(behind, before), 0, -1):
        if behind % parts or before % parts:
            continue
        inside = np.equal.outer(np.arange(behind) * parts // behind, np.arange(before) * parts // before)
        if not (used & ~inside).any():
            break
    return sum(int((block.ways * inside).sum()) for block in blocks)


def _deliveries(projection: Projection, train: np.ndarray, merged: bool) -> tuple[int, int]:
    """Each spike of each source neuron, over each of its synapses, if it arrives before the clip is over."""
    arriving: dict[int, np.ndarray] = {}
    leaving: dict[int, tuple[np.ndarray, ...]] = {}
    total = [0, 0]
    for (start, _, delay), block in projection.taps.items():
        late = delay + projection.shift
        if late not in arriving:
            arriving[late] = train[:, : max(0, train.shape[1] - late)].sum((0, 1), dtype=np.int64)
        if id(block) not in leaving:
            leaving[id(block)] = tuple(synapses.sum(0) for synapses in _counted(block, merged))
        for i, synapses in enumerate(leaving[id(block)]):
            total[i] += int(arriving[late][(slice(None), *start)] @ synapses)
    return total[0], total[1]


def _attend(node: SpikingSelfAttention, part: str, layer: Counts, qkv: np.ndarray, m: np.ndarray) -> None:
    """Units of part m join q[c, t, i] with k[c, t, j], those of part z m[head of c, t, i, j] with v[c, t, j]: one for each (c, t, i, j)."""
    clips, steps, stacked, frames, joints = qkv.shape
    q, k, v = np.split(qkv.astype(bool), 3, axis=2)
    width = stacked // 3 // node.heads
    for i in range(joints):
        for j in range(joints):
            if part == "m":
                one, other = q[..., i], k[..., j]
            else:
                one, other = np.repeat(m[..., i, j].astype(bool), width, axis=2), v[..., j]
            layer.syn_ops += int(one.sum(dtype=np.int64)) + int(other.sum(dtype=np.int64))
            layer.coincidences += int((one & other).sum(dtype=np.int64))
            units = clips * steps * frames * stacked // 3
            layer.product_units += units
            layer.dense_ops += 2 * units
    layer.effective_acs = layer.syn_ops  # a unit counts its inputs: their weight is 1
    layer.neuron_updates += layer.product_units


# --- currents and membranes ---------------------------------------------------------------------------------------------------


def current(walk: Walk, target: str, trains: Trains) -> np.ndarray:
    """(clips, steps, *shape) float64, in the file's units and without biases: what the spikes of each step add up to."""
    clips, steps = next(iter(trains.values())).shape[:2]
    total = np.zeros((clips, steps, *walk.populations[target]))
    node, _, part = target.rpartition(".")
    if node in walk.attention:
        _products(walk.nodes[node], part, total, trains[walk.attention[node]], trains[f"{node}.m"])
    for projection in walk.projections:
        if projection.target == target:
            x = trains[projection.source].astype(np.float64)
            for (start, end, delay), block in projection.taps.items():
                late = min(steps, delay + projection.shift)
                arrived = x[(slice(None), slice(0, steps - late), slice(None), *start)]
                total[(slice(None), slice(late, None), slice(None), *end)] += arrived @ block.weight.T
    return total


def _products(node: SpikingSelfAttention, part: str, total: np.ndarray, qkv: np.ndarray, m: np.ndarray) -> None:
    q, k, v = np.split(qkv.astype(np.float64), 3, axis=2)
    channels = q.shape[2]
    for c in range(channels):
        head = c * node.heads // channels
        for i in range(qkv.shape[-1]):
            for j in range(qkv.shape[-1]):
                if part == "m":
                    total[:, :, head, :, i, j] += node.gain_m[head] * q[:, :, c, :, i] * k[:, :, c, :, j]
                else:
                    total[:, :, c, :, i] += node.gain_z[head] * m[:, :, head, :, i, j] * v[:, :, c, :, j]


# --- messages on the chip -----------------------------------------------------------------------------------------------------


def _messages(walk: Walk, census: Census, trains: Trains, cores: Mapping[str, np.ndarray]) -> None:
    """A spike is sent once to each core that holds a neuron, or a product unit, that one of its synapses ends at."""
    for layer in census.layers.values():
        if layer.place == "chip":
            layer.axon_out = layer.spikes_in = 0

    def send(source: str, target: str, reached: np.ndarray) -> None:
        sent = int((trains[source].sum((0, 1), dtype=np.int64) * reached).sum())
        census.layers[target].spikes_in += sent
        if source in census.layers and census.layers[source].axon_out is not None:
            census.layers[source].axon_out += sent

    ways: dict[tuple[str, str], list[Projection]] = {}
    for projection in walk.projections:
        if census.layers[projection.target].place == "chip":
            ways.setdefault((projection.source, projection.target), []).append(projection)
    for (source, target), projections in ways.items():
        send(source, target, _cores_reached(projections, walk.populations[source], cores[target]))
    for node, source in walk.attention.items():
        stacked, frames, joints = walk.populations[source]
        heads, channels = walk.populations[f"{node}.m"][0], stacked // 3
        q_k, m_v = cores[f"{node}.m units"], cores[f"{node}.z units"]
        nothing = np.zeros((channels, frames, joints), dtype=np.int64)
        send(source, f"{node}.m", np.concatenate([_distinct(q_k, 3), _distinct(q_k, 2), nothing]))
        send(source, f"{node}.z", np.concatenate([nothing, nothing, _distinct(m_v, 2)]))
        send(f"{node}.m", f"{node}.z", _distinct(m_v.reshape(heads, channels // heads, *m_v.shape[1:]), 1))
        for part in "mz":  # each coincidence: one message from its unit to the core of the one neuron behind it
            layer = census.layers[f"{node}.{part}"]
            layer.axon_out += layer.coincidences
            layer.spikes_in += layer.coincidences


def _cores_reached(projections: list[Projection], shape, cores: np.ndarray) -> np.ndarray:
    """Of each source neuron, the number of distinct cores at the ends of its synapses."""
    first, number = int(cores.min()), int(np.ptp(cores)) + 1
    reached = np.zeros((*shape, number), dtype=bool)  # a row: the set of cores
    seen: dict[tuple[int, bytes], np.ndarray] = {}
    for projection in projections:
        for (start, end, _), block in projection.taps.items():
            there = cores[(slice(None), *end)] - first
            if (id(block), there.tobytes()) not in seen:
                members = np.zeros((shape[0], number), dtype=bool)
                for core in np.unique(there):
                    members[:, core] = block.exists[there == core].any(0)
                seen[id(block), there.tobytes()] = members
            reached[(slice(None), *start)] |= seen[id(block), there.tobytes()]
    return reached.sum(-1)


def _distinct(cores: np.ndarray, axis: int) -> np.ndarray:
    """Number of distinct values along `axis`."""
    along = np.sort(cores, axis=axis)
    return 1 + (np.diff(along, axis=axis) != 0).sum(axis)


# --- the program's counts beside these ----------------------------------------------------------------------------------------


def differences(census: Census, layers: list[Any], totals: Any, clips: int) -> list[str]:
    """Fields of run.json's layers and totals that are not what was counted here: "layer.field: theirs, counted ours"."""
    found = []
    if (theirs := sorted(layer.name for layer in layers)) != (names := sorted(census.layers)):
        found.append(f"layers: {theirs}, counted {names}")
    for layer in layers:
        if (counted := census.layers.get(layer.name)) is not None:
            for each in fields(counted):
                pair_of = getattr(layer, each.name), getattr(counted, each.name)
                if pair_of[0] != pair_of[1]:
                    found.append(f"{layer.name}.{each.name}: {pair_of[0]}, counted {pair_of[1]}")
    for name, value in per_clip(census, clips).items():
        if getattr(totals, name) != value:
            found.append(f"totals.{name}: {getattr(totals, name)}, counted {value}")
    return found


def compared(census: Census) -> int:
    """How many fields `differences` looks at."""
    return len(census.layers) * len(fields(Counts)) + len(per_clip(census, 1))


def per_clip(census: Census, clips: int) -> dict[str, float]:
    """Totals of the record that follow from the counts of the populations on the chip, and from the host's."""
    chip = [layer for layer in census.layers.values() if layer.place == "chip"]
    names = [*SUMMED, *(MESSAGES if any(layer.axon_out is not None for layer in chip) else ())]
    total = {name: sum(getattr(layer, name) for layer in chip) for name in names}
    total |= {
        "Effective_ACs": sum(layer.effective_acs for layer in chip),
        "Dense": sum(layer.dense_ops for layer in census.layers.values()),
        "dendrite_updates": total["neuron_updates"],
        "active_updates": total["spikes"] + total["coincidences"],
        "host_macs": census.macs,
        "Effective_MACs": census.effective_macs,
        "host_macs_every_step": census.macs * census.steps,
    }
    per_step = {"host_to_chip_spikes_per_step": census.host_to_chip_spikes / (clips * census.steps)}
    return {name: value / clips for name, value in total.items()} | per_step


SUMMED = ("spikes", "syn_ops", "coincidences", "neuron_updates", "product_units")
MESSAGES = ("axon_out", "spikes_in")


def main() -> int:
    from mksgn.bench import counters
    from mksgn.deploy import compile_graph, run
    from mksgn.deploy.clips import clip_inputs
    from mksgn.deploy.placement.chips import LOIHI2
    from mksgn.deploy.placement.place import place
    from mksgn.export.graph import files
    from mksgn.train.datasets import open_source

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="synthetic, nw-ucla:PATH, …")
    parser.add_argument("--split")
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--backend", choices=("emulator", "lava"), default="emulator")
    parser.add_argument("--precision", choices=("fixed", "float"), default="fixed")
    parser.add_argument("--json", action="store_true", help="both counts, as JSON")
    asked = parser.parse_args()
    graph = files.read(asked.model)
    clips = open_source(asked.data, split=asked.split, part="test", limit=asked.limit)
    program = compile_graph(graph, precision=asked.precision)
    execution = run(program, clip_inputs(graph, program, clips).inputs, backend=asked.backend)
    placement = place(program, LOIHI2)
    rows = counters.layers(program, execution, placement)
    totals = counters.totals(program, execution, rows, len(clips))
    started = time.perf_counter()
    census = count(graph, execution.spikes, {placed.name: placed.core_of() for placed in placement.populations})
    seconds = time.perf_counter() - started
    differ = differences(census, rows, totals, len(clips))
    summary = {
        "backend": asked.backend,
        "clips": len(clips),
        "bodies": execution.samples,
        "seconds_of_counting": seconds,
    }
    summary |= {"fields": compared(census), "fields_that_differ": len(differ), "differences": differ}
    if asked.json:
        theirs = {"layers": [row.model_dump() for row in rows], "totals": totals.model_dump()}
        print(json.dumps({**summary, "counters": theirs, "brute_force": asdict(census)}, indent=2))
        return 3 if differ else 0
    print(f"{'per clip':30} {asked.backend:>22} {'brute force':>22}")
    for name, value in per_clip(census, len(clips)).items():
        print(f"{name:30} {getattr(totals, name):22,.2f} {value:22,.2f}")
    print("\n".join(f"{key}: {value}" for key, value in summary.items() if key != "differences"))
    print("\n".join(differ))
    return 3 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
