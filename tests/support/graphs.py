"""Small NIR graphs by hand, and the equations of their nodes as NumPy loops that share no code with deploy."""

import copy
import itertools
import json

import nir
import numpy as np
import torch
from hypothesis import settings

from mksgn.deploy.program.neurons import prepare
from mksgn.deploy.program.program import Product, Program
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from tests.support.tiers import examples

DT = 1e-4
F32 = np.float32
SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=examples(25, fast=10))


# --- builders -------------------------------------------------------------------------------------


def graph(nodes: dict, edges, **metadata) -> nir.NIRGraph:
    """Without NIR's type check: it refuses kernels that are not square, and grouped convolutions (NIR.md)."""
    return nir.NIRGraph(nodes, [tuple(e) for e in edges], metadata={"dt": DT, **metadata}, type_check=False)


def chain(*nodes, **metadata) -> nir.NIRGraph:
    """Chain (name, node) pairs."""
    names = [name for name, _ in nodes]
    return graph(dict(nodes), itertools.pairwise(names), **metadata)


def ladder(joins: int) -> nir.NIRGraph:
    """Two parallel Linear nodes and their sum, `joins` times in series: 2**joins linear paths into one LIF."""
    nodes, edges, last = {"x": inp(2)}, [], "x"
    for i in range(joins):
        nodes |= {f"a{i}": linear(np.eye(2)), f"b{i}": linear(np.eye(2) / 2), f"s{i}": linear(np.eye(2))}
        edges += [(last, f"a{i}"), (last, f"b{i}"), (f"a{i}", f"s{i}"), (f"b{i}", f"s{i}")]
        last = f"s{i}"
    return graph(nodes | {"n": lif(2, threshold=0.3), "y": out(2)}, [*edges, (last, "n"), ("n", "y")])


def inp(*shape: int, analog: bool = False) -> nir.Input:
    node = nir.Input({"input": np.array(shape)})
    node.metadata = {"signal": "analog"} if analog else {}
    return node


def out(*shape: int) -> nir.Output:
    return nir.Output({"output": np.array(shape)})


def lif(*shape: int, threshold=1.0, tau=2 * DT, r=1.0, leak=0.0, reset=None) -> nir.LIF:
    values = (tau, r, leak, threshold, leak if reset is None else reset)
    return nir.LIF(*(np.broadcast_to(np.asarray(x, dtype=F32), shape).copy() for x in values))


def conv(weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, input_shape=None) -> nir.Conv2d:
    weight = np.asarray(weight, dtype=F32)
    bias = np.zeros(len(weight)) if bias is None else bias
    return nir.Conv2d(input_shape, weight, stride, padding, dilation, groups, np.asarray(bias, dtype=F32))


def graph_conv(adjacency, weight, bias=None) -> GraphConv:
    adjacency, weight = np.asarray(adjacency, dtype=F32), np.asarray(weight, dtype=F32)
    return GraphConv(adjacency, weight, np.asarray(np.zeros(weight.shape[1]) if bias is None else bias, dtype=F32))


def affine(weight, bias) -> nir.Affine:
    return nir.Affine(np.asarray(weight, dtype=F32), np.asarray(bias, dtype=F32))


def linear(weight) -> nir.Linear:
    return nir.Linear(np.asarray(weight, dtype=F32))


def pool(kernel, stride=None, padding=(0, 0)) -> nir.SumPool2d:
    return nir.SumPool2d(np.array(kernel), np.array(kernel if stride is None else stride), np.array(padding))


def flatten(*shape: int, start: int = 0, end: int = -1) -> nir.Flatten:
    return nir.Flatten({"input": np.array(shape)}, start, end)


def attention(heads=2, gain_m=1.0, gain_z=1.0, threshold_m=1.0, threshold_z=1.0, tau=2 * DT) -> SpikingSelfAttention:
    values = (
        np.broadcast_to(np.asarray(x, dtype=F32), heads).copy() for x in (gain_m, gain_z, threshold_m, threshold_z)
    )
    return SpikingSelfAttention(heads, *values, F32(tau))


def lattice(rng: np.random.Generator, *shape: int, most: int = 8) -> np.ndarray:
    """Multiples of 1/8, which float32 adds and halves without rounding."""
    return rng.integers(-most, most + 1, shape).astype(F32) / 8


def spikes(rng: np.random.Generator, *shape: int, rate: float = 0.4) -> np.ndarray:
    return rng.random(shape) < rate


def ring(joints: int) -> np.ndarray:
    """(3, V, V) subsets of 0 and 1: itself, the next joint, and one long edge; the last joint has no neighbour."""
    a = np.zeros((3, joints, joints), dtype=F32)
    a[0] = np.eye(joints)
    for i in range(joints - 2):
        a[1, i, i + 1] = 1
    a[2, 0, joints - 2] = 1
    return a


def student_like(rng: np.random.Generator, steps: int = 4) -> nir.NIRGraph:
    """A small student: analog encoder, graph convolution, attention and strided convolution, each with a skip."""
    shape = (4, 4, 3)  # C, T, V
    return graph(
        {
            "x": inp(2, 4, 3, analog=True),
            "encode": conv(lattice(rng, 4, 2, 3, 3), lattice(rng, 4), padding=1),
            "encoder": lif(*shape),
            "graph": graph_conv(ring(3), lattice(rng, 3, 4, 4), lattice(rng, 4)),
            "graph_skip": conv(lattice(rng, 4, 4, 1, 1)),
            "spatial": lif(*shape, threshold=0.25),
            "qkv_conv": conv(lattice(rng, 12, 4, 1, 1), np.abs(lattice(rng, 12))),
            "qkv": lif(12, 4, 3, threshold=0.25),
            "attend": attention(2, threshold_m=[0.5, 0.25], threshold_z=[0.25, 0.5]),
            "proj_conv": conv(lattice(rng, 4, 4, 1, 1, most=16), lattice(rng, 4)),
            "proj_skip": conv(lattice(rng, 4, 4, 1, 1)),
            "proj": lif(*shape, threshold=0.25),
            "time": conv(lattice(rng, 6, 4, 3, 1), lattice(rng, 6), padding=(1, 0)),
            "time_stride": pool((1, 1), (2, 1)),
            "time_skip": conv(lattice(rng, 6, 4, 1, 1), stride=(2, 1)),
            "temporal": lif(6, 2, 3, threshold=0.25),
            "pool": pool((2, 3)),
            "flat": flatten(6, 1, 1),
            "classes": affine(lattice(rng, 5, 6), lattice(rng, 5)),
            "y": out(5),
        },
        [
            ("x", "encode"), ("encode", "encoder"),
            ("encoder", "graph"), ("graph", "spatial"), ("encoder", "graph_skip"), ("graph_skip", "spatial"),
            ("spatial", "qkv_conv"), ("qkv_conv", "qkv"), ("qkv", "attend"),
            ("attend", "proj_conv"), ("proj_conv", "proj"), ("spatial", "proj_skip"), ("proj_skip", "proj"),
            ("proj", "time"), ("time", "time_stride"), ("time_stride", "temporal"),
            ("encoder", "time_skip"), ("time_skip", "temporal"),
            ("temporal", "pool"), ("pool", "flat"), ("flat", "classes"), ("classes", "y"),
        ],
        steps=steps,
    )  # fmt: skip


UNITS = {
    "encoder": -6,
    "spatial": -3,
    "qkv": -5,
    "attend.m": -1,
    "attend.z": -2,
    "proj": -4,
    "temporal": -7,
    "classes": -4,
}


def quantised_student_like(rng: np.random.Generator, steps: int = 4) -> tuple[nir.NIRGraph, nir.NIRGraph]:
    """The network above, and the same in a quantised file's numbers: 16 w as integers of each population's own unit.

    16 w is even; thresholds are half a sub-unit higher than what they were, which turns no decision.
    """
    plain = student_like(rng, steps)
    g = copy.deepcopy(plain)
    for name in [*UNITS, "attend"]:
        node = g.nodes.get(name)
        unit = 2.0 ** UNITS.get(name, 0)
        if isinstance(node, nir.LIF):
            node.v_threshold = ((node.v_threshold * 2 * 16 + 1 / 128) / 2 * unit).astype(F32)
            for source in (a for a, b in g.edges if b == name):
                source = "time" if source == "time_stride" else source
                for part in ("weight", "bias"):
                    setattr(g.nodes[source], part, (getattr(g.nodes[source], part) * 16 * unit).astype(F32))
        elif isinstance(node, SpikingSelfAttention):
            for part in "mz":
                integers = getattr(node, f"threshold_{part}") * 2 / 2.0 ** UNITS[f"attend.{part}"]
                setattr(
                    node, f"threshold_{part}", ((integers + 1 / 128) / 2 * 2.0 ** UNITS[f"attend.{part}"]).astype(F32)
                )
    populations = {name: {"exponent": exponent} for name, exponent in UNITS.items()}
    g.metadata["quantization"] = json.dumps({"bits": 8, "populations": populations})
    return plain, g


def analog_clips(rng: np.random.Generator, clips: int, steps: int = 4) -> np.ndarray:
    """For student_like: one value per clip, repeated over the steps as a view."""
    return np.broadcast_to(lattice(rng, clips, 1, 2, 4, 3, most=16), (clips, steps, 2, 4, 3))


# --- linear nodes as loops; x is (N, *shape) float64 ----------------------------------------------


def pair(x) -> tuple[int, int]:
    a, b = np.broadcast_to(np.asarray(x), (2,))
    return int(a), int(b)


def loop_conv(x, weight, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1) -> np.ndarray:
    n, _, height, width = x.shape
    outputs, per_group, kh, kw = weight.shape
    rows = len(range(0, height + 2 * padding[0] - dilation[0] * (kh - 1), stride[0]))
    columns = len(range(0, width + 2 * padding[1] - dilation[1] * (kw - 1), stride[1]))
    y = np.zeros((n, outputs, rows, columns))
    for o in range(outputs):
        first = o // (outputs // groups) * per_group
        for i in range(rows):
            for j in range(columns):
                for p in range(kh):
                    for q in range(kw):
                        a, b = (
                            i * stride[0] - padding[0] + p * dilation[0],
                            j * stride[1] - padding[1] + q * dilation[1],
                        )
                        if 0 <= a < height and 0 <= b < width:
                            y[:, o, i, j] += x[:, first : first + per_group, a, b] @ weight[o, :, p, q]
                y[:, o, i, j] += 0 if bias is None else bias[o]
    return y


def loop_graph_conv(x, adjacency, weight, bias) -> np.ndarray:
    n, inputs, frames, joints = x.shape
    subsets, outputs = weight.shape[:2]
    y = np.zeros((n, outputs, frames, joints))
    for o in range(outputs):
        for j in range(joints):
            for k in range(subsets):
                for i in range(joints):
                    if adjacency[k, i, j]:
                        for c in range(inputs):
                            y[:, o, :, j] += weight[k, o, c] * adjacency[k, i, j] * x[:, c, :, i]
            y[:, o, :, j] += bias[o]
    return y


def loop_dense(x, weight, bias=None) -> np.ndarray:
    y = np.zeros((*x.shape[:-1], len(weight)))
    for o in range(len(weight)):
        for i in range(weight.shape[1]):
            y[..., o] += weight[o, i] * x[..., i]
        y[..., o] += 0 if bias is None else bias[o]
    return y


def loop_pool(x, kernel, stride, padding=(0, 0)) -> np.ndarray:
    n, channels, height, width = x.shape
    rows = len(range(0, height + 2 * padding[0] - kernel[0] + 1, stride[0]))
    columns = len(range(0, width + 2 * padding[1] - kernel[1] + 1, stride[1]))
    y = np.zeros((n, channels, rows, columns))
    for i in range(rows):
        for j in range(columns):
            for a in range(i * stride[0] - padding[0], i * stride[0] - padding[0] + kernel[0]):
                for b in range(j * stride[1] - padding[1], j * stride[1] - padding[1] + kernel[1]):
                    if 0 <= a < height and 0 <= b < width:
                        y[:, :, i, j] += x[:, :, a, b]
    return y


def loop_flatten(x, start, end) -> np.ndarray:
    shape = x.shape[1:]
    end = end % len(shape)
    y = np.zeros((len(x), *shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :]))
    for index in np.ndindex(*shape):
        merged = 0
        for size, i in zip(shape[start : end + 1], index[start : end + 1], strict=True):
            merged = merged * size + i
        y[(slice(None), *index[:start], merged, *index[end + 1 :])] = x[(slice(None), *index)]
    return y


def apply_node(node, x: np.ndarray) -> np.ndarray:
    """One stateless NIR node on (N, *shape)."""
    if isinstance(node, nir.Conv2d):
        weight, stride, dilation = np.asarray(node.weight, np.float64), pair(node.stride), pair(node.dilation)
        if isinstance(node.padding, str):  # 'same' of odd kernels
            same = node.padding == "same"
            padding = tuple(d * (k - 1) // 2 * same for d, k in zip(dilation, weight.shape[2:], strict=True))
        else:
            padding = pair(node.padding)
        return loop_conv(x, weight, node.bias.astype(np.float64), stride, padding, dilation, int(node.groups))
    if isinstance(node, GraphConv):
        return loop_graph_conv(x, *(np.asarray(p, np.float64) for p in (node.adjacency, node.weight, node.bias)))
    if isinstance(node, nir.Affine | nir.Linear):
        bias = node.bias.astype(np.float64) if isinstance(node, nir.Affine) else None
        return loop_dense(x, node.weight.astype(np.float64), bias)
    if isinstance(node, nir.SumPool2d):
        return loop_pool(x, pair(node.kernel_size), pair(node.stride), pair(node.padding))
    if isinstance(node, nir.Flatten):
        return loop_flatten(x, node.start_dim, node.end_dim)
    assert isinstance(node, nir.Scale)
    return x * node.scale


# --- forward Euler of the NIR equations -----------------------------------------------------------


class Euler:
    """A graph executed step by step in float64.

    `spikes`, `current`, `membrane` (before the reset) and `values` are (clips, steps, *shape).

    A membrane starts at 0. `current` is what the equations call I, biases included. `margin` is the
    smallest distance of a membrane to its threshold, relative to the threshold.
    """

    def __init__(self, g: nir.NIRGraph, inputs: dict[str, np.ndarray], dt: float = DT):
        self.graph, self.dt = g, dt
        self.sources = {name: [a for a, b in g.edges if b == name] for name in g.nodes}
        self.state: dict[str, np.ndarray] = {}
        self.margin = np.inf
        steps = next(iter(inputs.values())).shape[1]
        log: dict[str, dict[str, list]] = {kind: {} for kind in ("spikes", "current", "membrane", "values")}
        for t in range(steps):
            self.now: dict[str, np.ndarray] = {}
            self.log = log
            for name in g.nodes:
                value = self.value(name, {key: np.asarray(x[:, t], np.float64) for key, x in inputs.items()})
                log["values"].setdefault(name, []).append(value)
        self.spikes, self.current, self.membrane, self.values = (
            {name: np.stack(parts, 1) for name, parts in log[kind].items()}
            for kind in ("spikes", "current", "membrane", "values")
        )

    def value(self, name: str, x: dict[str, np.ndarray]) -> np.ndarray:
        if name not in self.now:
            node = self.graph.nodes[name]
            if isinstance(node, nir.Input):
                self.now[name] = x[name]
            else:
                total = sum(self.value(source, x) for source in self.sources[name])
                self.now[name] = self.node(name, node, np.asarray(total))
        return self.now[name]

    def node(self, name: str, node, x: np.ndarray) -> np.ndarray:
        if isinstance(node, nir.Output):
            return x
        if isinstance(node, nir.LIF):
            parameters = (np.asarray(p, np.float64) for p in (node.r, node.v_leak, node.v_threshold, node.v_reset))
            return self.fire(name, x, node.tau, *parameters)
        if isinstance(node, SpikingSelfAttention):
            return self.attend(name, node, x)
        return apply_node(node, x)

    def fire(self, name, current, tau, r, leak, threshold, reset) -> np.ndarray:
        rate = np.asarray(F32(self.dt) / np.asarray(tau, F32), np.float64)
        v = self.state.get(name, np.zeros_like(current))
        v = v + rate * ((leak - v) + r * current)
        s = v > threshold
        for kind, value in (("spikes", s), ("current", current), ("membrane", v)):
            self.log[kind].setdefault(name, []).append(value)
        distance = np.abs(v - threshold) / np.maximum(np.abs(threshold), 1e-30)
        self.margin = min(self.margin, float(distance.min()))
        self.state[name] = np.where(s, reset, v)
        return s.astype(np.float64)

    def attend(self, name, node, x) -> np.ndarray:
        n, stacked, frames, joints = x.shape
        channels = stacked // 3
        width = channels // node.heads
        q, k, v = x[:, :channels], x[:, channels : 2 * channels], x[:, 2 * channels :]
        a = np.zeros((n, node.heads, frames, joints, joints))
        for h in range(node.heads):
            for i in range(joints):
                for j in range(joints):
                    for c in range(h * width, (h + 1) * width):
                        a[:, h, :, i, j] += float(node.gain_m[h]) * q[:, c, :, i] * k[:, c, :, j]
        m = self.fire(f"{name}.m", a, node.tau, 1.0, 0.0, node.threshold_m.astype(np.float64).reshape(-1, 1, 1, 1), 0.0)
        b = np.zeros((n, channels, frames, joints))
        for c in range(channels):
            for i in range(joints):
                for j in range(joints):
                    b[:, c, :, i] += float(node.gain_z[c // width]) * m[:, c // width, :, i, j] * v[:, c, :, j]
        thresholds = np.array([node.threshold_z[c // width] for c in range(channels)], np.float64).reshape(-1, 1, 1)
        return self.fire(f"{name}.z", b, node.tau, 1.0, 0.0, thresholds, 0.0)


def assert_same_spikes(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """0 differing decisions, and no population silent or saturated: agreeing on those would mean nothing."""
    assert set(found) == set(wanted)
    for name, train in wanted.items():
        assert found[name].shape == train.shape
        assert int((found[name] != train).sum()) == 0, f"{name}: decisions differ"
    rates = {name: round(float(train.mean()), 3) for name, train in wanted.items()}
    assert all(0.02 < rate < 0.98 for rate in rates.values()), f"the test is blind: firing rates {rates}"


# --- a program, time step by time step, as a chip would -------------------------------------------


def on_chip(program: Program, given: dict[str, np.ndarray], windows, steps: int) -> dict[str, np.ndarray]:
    """Execute clips back to back in absolute time.

    Every synapse takes one step plus its delay. Membranes are cleared at the first step of each clip
    in a population's window, synapses never, and neurons fire outside their windows too.
    `given[population]` is what reaches the chip.

    Returns (clips, steps, *shape): what each population did inside its window.
    """
    clips = len(next(iter(given.values())))
    length = max(w.end for w in windows.values())
    chip = [p for p in program.populations if p.name in given or p.kind != "input"]
    train = {p.name: np.zeros((length, *p.shape)) for p in chip}
    states = {p.name: prepare(p.neuron) for p in chip if p.name not in given and p.fires}
    membranes = {}
    for now in range(length):
        for p in chip:
            window = windows[p.name]
            if p.name in given:
                if window.inside(now):
                    clip, step = divmod(now - window.offset, steps)
                    train[p.name][now] = given[p.name][clip, step]
                continue
            total = torch.zeros((1, *p.shape))
            for projection in program.into(p.name):
                parts = []
                for index, source in enumerate(projection.sources):
                    sent = now - 1 - program.synaptic_delay(projection, index)
                    x = train[source][sent] if sent >= 0 else np.zeros(program[source].shape)
                    parts.append(torch.from_numpy(x[None].astype(F32)))
                total = total + projection.current(tuple(parts))
            if p.kind == "readout":
                train[p.name][now] = (total[0].double().numpy() + p.bias) * p.unit
                continue
            if now == 0 or window.starts_sample(now):
                membranes[p.name] = states[p.name].start(total)
            s, membranes[p.name], _ = states[p.name].step(total, membranes[p.name])
            train[p.name][now] = s[0].numpy()
    cut = {p.name: train[p.name][windows[p.name].offset : windows[p.name].end] for p in chip}
    return {name: x.reshape(clips, steps, *x.shape[1:]) for name, x in cut.items()}


# --- events, one by one ---------------------------------------------------------------------------


def reached(operators, shape, *, nonzero: bool = False) -> np.ndarray:
    """Count the synapses that leave each neuron of `shape`.

    One neuron after the other spikes, every weight is 1, and what arrives is counted, by loops.
    """
    counts = np.zeros(shape, dtype=np.int64)
    one_by_one = np.zeros((counts.size, *shape))
    for index, place in enumerate(np.ndindex(*shape)):
        one_by_one[(index, *place)] = 1
    y = one_by_one
    for operator in operators:
        y = apply_operator(operator, y, ones="nonzero" if nonzero else "all")
    counts.flat = y.reshape(len(y), -1).sum(1)
    return counts


def apply_operator(operator, x: np.ndarray, ones: str = "") -> np.ndarray:
    """An operator of a program by loops; `ones` puts 1 in place of every weight, or of every weight that is not 0."""
    weight = getattr(operator, "weight", None)
    if weight is not None:
        weight = {"": weight, "all": np.ones_like(weight), "nonzero": (weight != 0) * 1}[ones].astype(np.float64)
    if operator.kind == "conv":
        return loop_conv(x, weight, None, operator.stride, operator.padding, operator.dilation, operator.groups)
    if operator.kind == "graph_conv":
        y = np.zeros((len(x), weight.shape[1], x.shape[2], operator.joints))
        for e in range(len(weight)):
            for o in range(weight.shape[1]):
                for c in range(weight.shape[2]):
                    y[:, o, :, operator.target[e]] += weight[e, o, c] * x[:, c, :, operator.source[e]]
        return y
    if operator.kind == "dense":
        return loop_dense(x, weight)
    if operator.kind == "pool":
        return loop_pool(x, operator.kernel, operator.stride, operator.padding)
    if operator.kind == "flatten":
        return loop_flatten(x, operator.start, operator.end)
    assert operator.kind == "scale"
    return x * weight


def product_events(projection: Product, qkv: np.ndarray, m: np.ndarray) -> tuple[int, int, int]:
    """(deliveries, coincidences, units) of a product over spike trains (clips, steps, …), unit by unit."""
    stacked, frames, joints = qkv.shape[2:]
    channels = stacked // 3
    width = channels // projection.heads
    deliveries = coincidences = units = 0
    for c in range(channels):
        for t in range(frames):
            for i in range(joints):
                for j in range(joints):
                    if projection.part == "m":
                        a, b = qkv[:, :, c, t, i], qkv[:, :, channels + c, t, j]
                    else:
                        a, b = m[:, :, c // width, t, i, j], qkv[:, :, 2 * channels + c, t, j]
                    deliveries += int(a.sum()) + int(b.sum())
                    coincidences += int((a & b).sum())
                    units += 1
    return deliveries, coincidences, units
