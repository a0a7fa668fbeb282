"""NIR graph → float program: populations and projections; every node that cannot run is named with a remedy."""

from __future__ import annotations

import nir
import numpy as np
import torch

from mksgn.deploy import operators as ops
from mksgn.deploy.arithmetic import FloatNeuron
from mksgn.deploy.errors import DeployError
from mksgn.deploy.program import AnyProjection, Output, Population, Product, Program, Projection, Shape
from mksgn.export.fold import per_edge
from mksgn.export.nodes import GraphConv, SpikingSelfAttention

LINEAR = (nir.Conv2d, nir.Affine, nir.Linear, nir.SumPool2d, nir.Flatten, nir.Scale, GraphConv)


def ingest(graph: nir.NIRGraph, *, dt: float = 1e-4, analog: tuple[str, ...] = ()) -> Program:
    """Read a feed-forward graph of LIF populations, our attention, and linear nodes between them.

    Linear nodes in series between two populations become one projection; their biases become the population's. A LIF is put
    into Lava's terms: du = 1, decay = dt / tau, threshold = (v_threshold - v_leak) tau / (dt r) (NIR.md). Inputs are spikes
    unless their metadata or `analog` says otherwise.
    """
    return _Ingest(graph, dt, analog).program()


class _Ingest:
    def __init__(self, graph: nir.NIRGraph, dt: float, analog: tuple[str, ...]):
        self.graph = graph
        self.dt = float(graph.metadata.get("dt", dt))
        self.sources = {name: sorted(a for a, b in graph.edges if b == name) for name in sorted(graph.nodes)}
        self.analog = set(analog)
        self.populations: dict[str, Population] = {}
        self.projections: list[AnyProjection] = []
        self.outputs: list[Output] = []
        self.used: set[str] = set()  # linear nodes that lead somewhere

    def program(self) -> Program:
        for name in self.order():
            node = self.graph.nodes[name]
            if isinstance(node, nir.Input):
                self.populations[name] = Population(name, _shape(node.input_type["input"]), "input")
                if node.metadata.get("signal") == "analog":
                    self.analog.add(name)
            elif isinstance(node, nir.LIF):
                self.lif(name, node)
            elif isinstance(node, SpikingSelfAttention):
                self.attention(name, node)
            elif isinstance(node, nir.Output):
                self.readout(name)
            elif not isinstance(node, LINEAR):
                raise DeployError(
                    f"node {name}: {type(node).__name__} cannot be run here; LIF, SpikingSelfAttention, Conv2d, GraphConv, Affine, "
                    "Linear, Scale, SumPool2d and Flatten can: rewrite the node with these"
                )
        idle = sorted(n for n, node in self.graph.nodes.items() if isinstance(node, LINEAR) and n not in self.used)
        if idle:
            raise DeployError(f"node {', '.join(idle)}: leads to no population and no output; leave it out")
        unknown = self.analog - {p.name for p in self.populations.values() if p.kind == "input"}
        if unknown:
            raise DeployError(f"analog inputs {', '.join(sorted(unknown))}: the graph has no such input")
        steps = self.graph.metadata.get("steps")
        return Program(
            precision="float",
            dt=self.dt,
            steps=None if steps is None else int(steps),
            populations=tuple(self.populations.values()),
            projections=tuple(self.projections),
            outputs=tuple(self.outputs),
            analog=frozenset(self.analog),
            metadata=dict(self.graph.metadata),
        )

    def order(self) -> list[str]:
        """Topological; ties by name, so that the order in the file has no effect."""
        done: list[str] = []
        seen: set[str] = set()
        while len(done) < len(self.sources):
            ready = [n for n, sources in self.sources.items() if n not in seen and seen.issuperset(sources)]
            if not ready:
                loop = ", ".join(n for n in self.sources if n not in seen)
                raise DeployError(f"nodes {loop}: a recurrent loop cannot be run here yet; unroll it or cut it")
            done += ready
            seen.update(ready)
        return done

    def branches(self, target: str) -> list[tuple[Projection, np.ndarray]]:
        """Projections into `target`, each with the bias that its linear nodes add up to, of the target's shape."""
        found = []
        if not self.sources[target]:
            raise DeployError(f"node {target}: no edge leads into it; connect it, or leave it out")
        for name in self.sources[target]:
            chain: list[str] = []
            while isinstance(self.graph.nodes[name], LINEAR):
                chain.append(name)
                self.used.add(name)
                if len(self.sources[name]) != 1:
                    raise DeployError(
                        f"node {name}: {len(self.sources[name])} edges lead into this {type(self.graph.nodes[name]).__name__}; sums are "
                        "only run at a population: give each branch its own linear node"
                    )
                name = self.sources[name][0]
            node = self.graph.nodes[name]
            source = f"{name}.z" if isinstance(node, SpikingSelfAttention) else name
            operators, bias = self.operators(chain[::-1], self.populations[source].shape)
            if not operators:
                raise DeployError(
                    f"edge {name} → {target}: no synapses between two populations; put a Linear between them"
                )
            found.append((Projection(chain[-1], source, target, operators), bias))
        return found

    def operators(self, chain: list[str], shape: Shape) -> tuple[ops.Operators, np.ndarray]:
        """Operators of linear nodes in series, and what their biases become behind the last of them, of its shape."""
        operators: list[ops.Operator] = []
        bias = np.zeros(shape, dtype=np.float32)
        for name in chain:
            node = self.graph.nodes[name]
            operator, added = _operator(name, node)
            try:
                after = operator.out_shape(shape)
            except DeployError as error:
                raise DeployError(f"node {name}: {error}") from None
            # no operator has an offset of its own: what is 0 before it is 0 behind it
            zero = np.zeros(after, dtype=np.float32)
            bias = operator.apply(torch.from_numpy(bias[None])).numpy()[0] if bias.any() else zero
            shape = after
            operators.append(operator)
            if added is not None:
                per_channel = isinstance(node, nir.Conv2d | GraphConv)
                bias = bias + (added.reshape(-1, *(1,) * (len(shape) - 1)) if per_channel else added)
        return _merge_stride(operators), bias.astype(np.float32)

    def lif(self, name: str, node: nir.LIF) -> None:
        shape = node.v_threshold.shape
        if np.any(node.v_reset != node.v_leak):
            raise DeployError(f"node {name}: v_reset differs from v_leak, which Lava's LIF cannot do; set both alike")
        decay = np.float32(self.dt) / np.asarray(node.tau, dtype=np.float32)
        if np.ptp(decay) or not 0 < decay.flat[0] <= 1:
            raise DeployError(
                f"node {name}: dt/tau runs from {decay.min():.4g} to {decay.max():.4g}; one value in (0, 1] per population can be run: "
                "set --dt, or split the population"
            )
        rate, r = float(decay.flat[0]), np.asarray(node.r, dtype=np.float64)
        if np.ptp(r) or not r.flat[0] > 0:
            raise DeployError(f"node {name}: r must be one positive value per population; fold it into the weights")
        projections = self.branches(name)
        bias = _sum([b for _, b in projections])
        threshold = (np.asarray(node.v_threshold, dtype=np.float64) - node.v_leak) / (rate * r)
        neuron = FloatNeuron(rate, _compact(threshold), _compact(bias))
        self.populations[name] = Population(name, shape, "lif", neuron=neuron)
        for projection, _ in projections:
            self.check_shape(projection, shape)
            self.projections.append(projection)

    def attention(self, name: str, node: SpikingSelfAttention) -> None:
        (source,) = self.sources[name] if len(self.sources[name]) == 1 else (None,)
        if source is None or not isinstance(self.graph.nodes[source], nir.LIF):
            raise DeployError(f"node {name}: attention must follow one LIF population of q|k|v spikes")
        channels, frames, joints = self.populations[source].shape
        channels, heads = channels // 3, node.heads
        rate = float(np.float32(self.dt) / np.float32(node.tau))
        width = channels // heads
        gains = [np.asarray(g, dtype=np.float64) for g in (node.gain_m, node.gain_z)]
        thresholds = [np.asarray(t, dtype=np.float64) / rate for t in (node.threshold_m, node.threshold_z)]
        if any(np.ptp(g) for g in gains):  # one weight per population: a head's gain goes into its threshold
            thresholds = [t / g for t, g in zip(thresholds, gains, strict=True)]
            gains = [np.ones(heads), np.ones(heads)]
        zero = np.zeros((1, 1, 1), dtype=np.float32)
        m = FloatNeuron(rate, thresholds[0].astype(np.float32).reshape(-1, 1, 1, 1), zero[None])
        z = FloatNeuron(rate, np.repeat(thresholds[1], width).astype(np.float32).reshape(-1, 1, 1), zero)
        self.populations[f"{name}.m"] = Population(f"{name}.m", (heads, frames, joints, joints), "lif", neuron=m)
        self.populations[f"{name}.z"] = Population(f"{name}.z", (channels, frames, joints), "lif", neuron=z)
        self.projections += [
            Product(f"{name}.qk", "m", (source,), f"{name}.m", heads, float(gains[0][0]), (0,), _width=width),
            Product(
                f"{name}.mv", "z", (f"{name}.m", source), f"{name}.z", heads, float(gains[1][0]), (0, 0), _width=width
            ),
        ]

    def readout(self, name: str) -> None:
        """What leads to an Output: synapses into a population without threshold, or a population's own spikes."""
        if len(self.sources[name]) == 1:
            source = self.sources[name][0]
            node = self.graph.nodes[source]
            if source in self.analog:
                raise DeployError(f"output {name}: shows the input {source} itself; put a population between them")
            if not isinstance(node, LINEAR):
                self.outputs.append(Output(name, f"{source}.z" if isinstance(node, SpikingSelfAttention) else source))
                return
        projections = self.branches(name)
        shape = _shape(self.graph.nodes[name].output_type["output"])
        population = self.weighted(self.sources[name][0]) if len(projections) == 1 else name
        if population in self.populations:  # shown by another output already
            if self.populations[population].shape != shape:
                raise DeployError(
                    f"output {name}: shows {population} by another pooling than an output before it; give it a node of its own"
                )
            self.outputs.append(Output(name, population))
            return
        for projection, _ in projections:
            self.check_shape(projection, shape)
        bias = np.broadcast_to(_sum([b for _, b in projections]), shape).astype(np.float32)
        self.populations[population] = Population(population, shape, "readout", bias=bias)
        for projection, _ in projections:
            self.projections.append(
                Projection(f"{projection.name}_synapses", projection.source, population, projection.operators)
            )
        self.outputs.append(Output(name, population))

    def weighted(self, name: str) -> str:
        """The last node with weights on the way to an output: the read-out bears its name, as in the file's quantisation."""
        while isinstance(self.graph.nodes[name], nir.SumPool2d | nir.Flatten) and len(self.sources[name]) == 1:
            name = self.sources[name][0]
        return name

    def check_shape(self, projection: Projection, shape: Shape) -> None:
        found = ops.out_shape(projection.operators, self.populations[projection.source].shape)
        if found != shape:
            raise DeployError(f"type mismatch: {projection.name}.output {found} -> {projection.target}.input {shape}")


def _operator(name: str, node: nir.NIRNode) -> tuple[ops.Operator, np.ndarray | None]:
    if isinstance(node, nir.Conv2d):
        stride, dilation = (_pair(node.stride), _pair(node.dilation))
        kernel = node.weight.shape[2:]
        if isinstance(node.padding, str):
            if node.padding == "same" and (stride != (1, 1) or any(k % 2 == 0 for k in kernel)):
                raise DeployError(
                    f"node {name}: padding 'same' needs stride 1 and odd kernels; write the padding as numbers"
                )
            padding = (
                tuple(d * (k // 2) for k, d in zip(kernel, dilation, strict=True)) if node.padding == "same" else (0, 0)
            )
        else:
            padding = _pair(node.padding)
        return ops.Conv(node.weight, stride, padding, dilation, int(node.groups)), node.bias
    if isinstance(node, GraphConv):
        edges, weight = per_edge(node.adjacency.astype(np.float64), node.weight.astype(np.float64))
        _, source, target = np.nonzero(edges)
        return ops.GraphConv(weight.astype(np.float32), source, target, node.adjacency.shape[1]), node.bias
    if isinstance(node, nir.Affine | nir.Linear):
        if node.weight.ndim != 2:
            raise DeployError(f"node {name}: weight has {node.weight.ndim} axes; only (O, I) can be run here")
        return ops.Dense(node.weight), node.bias if isinstance(node, nir.Affine) else None
    if isinstance(node, nir.SumPool2d):
        return ops.SumPool(_pair(node.kernel_size), _pair(node.stride), _pair(node.padding)), None
    if isinstance(node, nir.Scale):
        return ops.Scale(node.scale), None
    return ops.Flatten(int(node.start_dim), int(node.end_dim)), None


def _merge_stride(operators: list[ops.Operator]) -> ops.Operators:
    """A stride-1 convolution followed by a decimating pool of kernel 1 is the strided convolution (export/lower writes it so)."""
    merged: list[ops.Operator] = []
    for operator in operators:
        last = merged[-1] if merged else None
        decimates = isinstance(operator, ops.SumPool) and operator.kernel == (1, 1) and operator.padding == (0, 0)
        if decimates and isinstance(last, ops.Conv) and last.stride == (1, 1):
            assert isinstance(operator, ops.SumPool)
            merged[-1] = ops.Conv(last.weight, operator.stride, last.padding, last.dilation, last.groups)
        else:
            merged.append(operator)
    return tuple(merged)


def _compact(x: np.ndarray) -> np.ndarray:
    """float32, each axis along which nothing changes reduced to 1."""
    x = np.asarray(x, dtype=np.float32)
    for axis in range(x.ndim):
        first = np.take(x, [0], axis=axis)
        if np.array_equal(np.broadcast_to(first, x.shape), x):
            x = first
    return np.array(x)


def _sum(arrays: list[np.ndarray]) -> np.ndarray:
    return np.asarray(sum(arrays[1:], arrays[0]))


def _pair(x) -> tuple[int, int]:
    a, b = np.broadcast_to(np.asarray(x), (2,))
    return int(a), int(b)


def _shape(x) -> Shape:
    return tuple(int(i) for i in x)
