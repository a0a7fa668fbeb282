"""An oracle for the counters: events counted by brute force from a NIR graph and recorded spike trains.

It follows every synapse tap by tap (synapse_walk), in NumPy with int64, and uses none of the
counting of mksgn.deploy or mksgn.bench. Trains are (samples, steps, *shape) bool by population;
attention NODE has two populations, NODE.m and NODE.z. A spike counts when it arrives. After a delay
or round a loop it may arrive when the sample is over, and then it reaches nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import nir
import numpy as np

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from tests.support.synapse_walk import Block, Place, Projection, Walk

KINDS = ("dense", "sparse", "convolution")
Trains = Mapping[str, np.ndarray]


@dataclass
class Counts:
    """One population over the run, under the names of run.json's layers. Messages are None without a placement."""

    name: str
    place: str
    shape: list[int]
    spikes: int = 0
    syn_ops: int = 0
    syn_ops_by_kind: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    arrivals: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    effective_acs: int = 0
    dense_ops: int = 0
    coincidences: int = 0
    neuron_updates: int = 0
    product_units: int = 0
    axon_out: int | None = None
    spikes_in: int | None = None
    silent_fraction: float = 0.0  # 0 for a read-out, which does not spike
    saturated_fraction: float = 0.0


@dataclass
class Census:
    """Sums over one run, not per clip. `macs` are the encoder's, each weight once per sample."""

    steps: int
    layers: dict[str, Counts] = field(default_factory=dict)
    macs: int = 0
    effective_macs: int = 0
    host_to_chip_spikes: int = 0


def count(
    graph: nir.NIRGraph, trains: Trains, cores: Mapping[str, np.ndarray] | None = None, *, merged: bool = True
) -> Census:
    """Count the events of a run.

    Args:
        graph: The NIR graph.
        trains: Spikes of the spiking populations and of spiking inputs.
        cores: Core of each neuron by population and, under "NAME units", of its product units
            (channels, frames, query, key); None: count no messages.
        merged: Linear nodes in series with overlapping windows join two neurons by several paths.
            Count them as one synapse; otherwise each path is a synapse.
    """
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
        syn_ops, effective = _deliveries(projection, trains[projection.source], merged)
        layer.syn_ops += syn_ops
        layer.syn_ops_by_kind[_kind(projection)] += syn_ops
        layer.arrivals[_kind(projection)] += _arrivals(projection, trains[projection.source])
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


def _own(name: str, shape, place: str, train: np.ndarray | None, decisions: int) -> Counts:
    layer = Counts(name, place, list(shape), neuron_updates=int(np.prod(shape)) * decisions)
    if train is not None:
        counts = train.sum((0, 1), dtype=np.int64)
        layer.spikes = int(counts.sum())
        layer.silent_fraction = int((counts == 0).sum()) / counts.size
        layer.saturated_fraction = int((counts == decisions).sum()) / counts.size
    return layer


def _counted(block: Block, merged: bool) -> tuple[np.ndarray, np.ndarray]:
    """Synapses between each two channels, and those of them with a non-zero weight."""
    if merged:
        return block.exists.astype(np.int64), (block.weight != 0).astype(np.int64)
    return block.paths, block.nonzero


def _synapses(projection: Projection, merged: bool) -> tuple[int, int]:
    counted = [_counted(block, merged) for block in projection.taps.values()]
    return sum(int(all_.sum()) for all_, _ in counted), sum(int(nonzero.sum()) for _, nonzero in counted)


def _on_host(projection: Projection) -> int:
    """Multiply-accumulates of the host, which skips the zeros outside the blocks of a block-diagonal convolution."""
    blocks = list(projection.taps.values())
    used = np.logical_or.reduce([block.nonzero > 0 for block in blocks])
    outputs, inputs = used.shape
    for parts in range(min(outputs, inputs), 0, -1):
        if outputs % parts or inputs % parts:
            continue
        inside = np.equal.outer(np.arange(outputs) * parts // outputs, np.arange(inputs) * parts // inputs)
        if not (used & ~inside).any():
            break
    return sum(int((block.paths * inside).sum()) for block in blocks)


def _deliveries(projection: Projection, train: np.ndarray, merged: bool) -> tuple[int, int]:
    """Count each spike over each of its synapses, if it arrives before the sample is over."""
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


def _kind(projection: Projection) -> str:
    """A matrix multiplies whatever is in series with it; a graph convolution has no windows."""
    if any(isinstance(node, nir.Affine | nir.Linear) for node in projection.nodes):
        return "dense"
    windows = (nir.Conv1d, nir.Conv2d, nir.SumPool2d, nir.AvgPool2d)
    if any(isinstance(node, GraphConv) for node in projection.nodes):
        return "sparse"
    return "convolution" if any(isinstance(node, windows) for node in projection.nodes) else "sparse"


def _arrivals(projection: Projection, train: np.ndarray) -> int:
    """Count each spike once that reaches any synapse, and again after each delay."""
    reached: dict[tuple[Place, int], np.ndarray] = {}
    for (start, _, delay), block in projection.taps.items():
        reached[start, delay] = reached.get((start, delay), False) | block.exists.any(0)
    total = 0
    for (start, delay), channels in reached.items():
        in_time = train[:, : max(0, train.shape[1] - delay - projection.shift)].sum((0, 1), dtype=np.int64)
        total += int(in_time[(slice(None), *start)][channels].sum())
    return total


def _attend(node: SpikingSelfAttention, part: str, layer: Counts, qkv: np.ndarray, m: np.ndarray) -> None:
    """Add the events of attention's product units, one for each (c, t, i, j).

    A unit of part m joins q[c, t, i] with k[c, t, j]; one of part z m[head of c, t, i, j] with v[c, t, j].
    """
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
            # a spike of the map reaches one joint of the queries and keys, the others reach all joints
            map_spikes = 0 if part == "m" else int(m[..., i, j].sum(dtype=np.int64))
            first = (int(one.sum(dtype=np.int64)) if j == 0 else 0) if part == "m" else map_spikes
            layer.arrivals["sparse"] += first + (int(other.sum(dtype=np.int64)) if i == 0 else 0)
            layer.coincidences += int((one & other).sum(dtype=np.int64))
            units = clips * steps * frames * stacked // 3
            layer.product_units += units
            layer.dense_ops += 2 * units
    layer.syn_ops_by_kind["sparse"] = layer.syn_ops
    layer.effective_acs = layer.syn_ops  # a unit counts its inputs: their weight is 1
    layer.neuron_updates += layer.product_units


# --- currents and membranes


def current(walk: Walk, target: str, trains: Trains) -> np.ndarray:
    """Synaptic current of each step in the file's units, without biases: (samples, steps, *shape) float64."""
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


# --- messages on the chip


def _messages(walk: Walk, census: Census, trains: Trains, cores: Mapping[str, np.ndarray]) -> None:
    """Count the messages: a spike is sent once to each core with a target neuron or target product unit."""
    for layer in census.layers.values():
        if layer.place == "chip":
            layer.axon_out = layer.spikes_in = 0

    def send(source: str, target: str, reached: np.ndarray) -> None:
        sent = int((trains[source].sum((0, 1), dtype=np.int64) * reached).sum())
        census.layers[target].spikes_in += sent
        if source in census.layers and census.layers[source].axon_out is not None:
            census.layers[source].axon_out += sent

    paths: dict[tuple[str, str], list[Projection]] = {}
    for projection in walk.projections:
        if census.layers[projection.target].place == "chip":
            paths.setdefault((projection.source, projection.target), []).append(projection)
    for (source, target), projections in paths.items():
        send(source, target, _cores_reached(projections, walk.populations[source], cores[target]))
    for node, source in walk.attention.items():
        stacked, frames, joints = walk.populations[source]
        heads, channels = walk.populations[f"{node}.m"][0], stacked // 3
        q_k, m_v = cores[f"{node}.m units"], cores[f"{node}.z units"]
        nothing = np.zeros((channels, frames, joints), dtype=np.int64)
        send(source, f"{node}.m", np.concatenate([_distinct(q_k, 3), _distinct(q_k, 2), nothing]))
        send(source, f"{node}.z", np.concatenate([nothing, nothing, _distinct(m_v, 2)]))
        send(f"{node}.m", f"{node}.z", _distinct(m_v.reshape(heads, channels // heads, *m_v.shape[1:]), 1))
        # each coincidence is one message from its unit to the core of its one target neuron
        for part in "mz":
            layer = census.layers[f"{node}.{part}"]
            layer.axon_out += layer.coincidences
            layer.spikes_in += layer.coincidences


def _cores_reached(projections: list[Projection], shape, cores: np.ndarray) -> np.ndarray:
    """Count the distinct cores that each source neuron reaches."""
    first, number = int(cores.min()), int(np.ptp(cores)) + 1
    reached = np.zeros((*shape, number), dtype=bool)  # a row is a set of cores
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
    """Count the distinct values along an axis."""
    along = np.sort(cores, axis=axis)
    return 1 + (np.diff(along, axis=axis) != 0).sum(axis)
