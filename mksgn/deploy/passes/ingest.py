"""Read a NIR graph as a program in floating point: populations and projections."""

from dataclasses import replace

import nir
import numpy as np

from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.linear_paths import OperatorPath, Signal, Signals
from mksgn.deploy.passes.neurons import convert
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FloatNeuron
from mksgn.deploy.program.program import AnyProjection, Output, Population, Product, Program, Projection, Shape
from mksgn.export.graph.checks import check_node
from mksgn.export.graph.kinds import LINEAR, NEURONS, SPIKING, WEIGHTED
from mksgn.export.graph.membranes import dt_over_tau
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.graph.order import evaluation_order
from mksgn.export.graph.paths import source_shape
from mksgn.export.graph.standard import standard_form


def ingest(
    graph: nir.NIRGraph, *, dt: float = 1e-4, if_dt: float | None = None, analog: tuple[str, ...] = ()
) -> Program:
    """Read any graph that consists of NIR's primitives and our two.

    Linear nodes and delays between two populations become projections, one for each linear path; their
    biases become the population's.

    Args:
        graph: A NIR graph, nested or flat.
        dt: Time step in seconds, where the file names none.
        if_dt: Time step of IF and I in place of `dt`, seconds.
        analog: Inputs that are currents. All others are spikes, unless their metadata says otherwise.

    Raises:
        BadInputError: A node or connection that cannot run: node, type, reason, remedy.
    """
    return _Ingest(standard_form(graph), dt, if_dt, analog).program()


class _Ingest:
    def __init__(self, graph: nir.NIRGraph, dt: float, if_dt: float | None, analog: tuple[str, ...]) -> None:
        self.graph, self.if_dt = graph, if_dt
        self.dt = float(graph.metadata.get("dt", dt))
        self.analog = set(analog)
        self.populations: dict[str, Population] = {}
        self.projections: list[AnyProjection] = []
        self.outputs: list[Output] = []
        self.readouts: dict[str, tuple[tuple[str, int, tuple[str, ...]], ...]] = {}  # read-outs and the paths into them
        self.check_nodes()
        self.order = evaluation_order(graph)
        self.signals = Signals(graph, self.order, self.dt, self.shape)

    def check_nodes(self) -> None:
        for name, node in self.graph.nodes.items():
            if not isinstance(node, (nir.Input, nir.Output, SpikingSelfAttention, *NEURONS, *LINEAR)):
                raise DeployError(
                    f"node {name}: {type(node).__name__} cannot be run here; rewrite the node with NIR's own "
                    "primitives, GraphConv and SpikingSelfAttention"
                )
            check_node(name, node, DeployError)

    def program(self) -> Program:
        for name in self.order:
            node = self.graph.nodes[name]
            if isinstance(node, nir.Input):
                self.populations[name] = Population(name, self.shape(name), "input")
                if node.metadata.get("signal") == "analog":
                    self.analog.add(name)
        unknown = self.analog - set(self.populations)
        if unknown:
            raise DeployError(f"analog inputs {', '.join(sorted(unknown))}: the graph has no such input")
        for name in self.order:
            node = self.graph.nodes[name]
            if isinstance(node, NEURONS):
                self.neurons(name, node)
            elif isinstance(node, SpikingSelfAttention):
                self.attention(name, node)
        for name in self.order:
            if isinstance(self.graph.nodes[name], nir.Output):
                self.output(name)
        idle = sorted(
            n for n, node in self.graph.nodes.items() if isinstance(node, LINEAR) and n not in self.signals.outputs
        )
        if idle:
            raise DeployError(f"node {', '.join(idle)}: leads to no population and no output; leave it out")
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

    def shape(self, name: str) -> Shape:
        """Return the output shape of a node that is not linear."""
        if isinstance(self.graph.nodes[name], SpikingSelfAttention):
            self.attended(name)
        return source_shape(self.graph, name)

    def population(self, name: str) -> str:
        """Return the population whose output is the node's."""
        return f"{name}.z" if isinstance(self.graph.nodes[name], SpikingSelfAttention) else name

    def neurons(self, name: str, node: nir.NIRNode) -> None:
        signal = self.signals.into(name)
        shape = self.shape(name)
        self.project(name, signal, shape)
        now = np.broadcast_to(signal.biases.get(0, np.zeros((), dtype=np.float32)), signal.shape)
        converted = convert(name, node, self.dt, self.if_dt, now)
        self.populations[name] = Population(
            name,
            shape,
            "spiking" if converted.fires else "graded",
            neuron=converted.neuron,
            unit=1.0 if converted.fires else converted.unit,
            late_biases=_late(signal),
        )

    def project(self, target: str, signal: Signal, shape: Shape, suffix: str = "") -> None:
        if signal.shape != shape:
            last = signal.paths[-1].nodes[-1] if signal.paths and signal.paths[-1].nodes else "source"
            raise DeployError(f"type mismatch: {last}.output {signal.shape} -> {target}.input {shape}")
        for path in signal.paths:
            source = self.population(path.source)
            name = f"{path.nodes[0]}{suffix}" if path.nodes else f"{source}_{target}"
            self.projections.append(
                Projection(name, source, target, _merge_stride(path.operators), logical_delay=path.delay)
            )

    def attended(self, name: str) -> tuple[str, Shape]:
        """Find the population of q|k|v spikes that an attention node reads, and its shape."""
        sources = self.signals.sources[name]
        if len(sources) != 1 or not isinstance(self.graph.nodes[sources[0]], SPIKING):
            raise DeployError(f"node {name}: attention must follow one LIF population of q|k|v spikes")
        if self.signals.position[sources[0]] > self.signals.position[name]:
            raise DeployError(f"node {name}: attention within a loop cannot be run here; take it out of the loop")
        return sources[0], self.shape(sources[0])

    def attention(self, name: str, node: SpikingSelfAttention) -> None:
        source, (channels, frames, joints) = self.attended(name)
        channels, heads = channels // 3, node.heads
        rate = float(dt_over_tau(node.tau, self.dt))
        width = channels // heads
        gains = [np.asarray(g, dtype=np.float64) for g in (node.gain_m, node.gain_z)]
        thresholds = [np.asarray(t, dtype=np.float64) / rate for t in (node.threshold_m, node.threshold_z)]
        if any(np.ptp(g) for g in gains):  # a population has one weight: each head's gain goes into its threshold
            thresholds = [t / g for t, g in zip(thresholds, gains, strict=True)]
            gains = [np.ones(heads), np.ones(heads)]
        zero = np.zeros((1, 1, 1), dtype=np.float32)
        m = FloatNeuron(rate, thresholds[0].astype(np.float32).reshape(-1, 1, 1, 1), zero[None])
        z = FloatNeuron(rate, np.repeat(thresholds[1], width).astype(np.float32).reshape(-1, 1, 1), zero)
        self.populations[f"{name}.m"] = Population(f"{name}.m", (heads, frames, joints, joints), "spiking", neuron=m)
        self.populations[f"{name}.z"] = Population(f"{name}.z", (channels, frames, joints), "spiking", neuron=z)
        self.projections += [
            Product(f"{name}.qk", "m", (source,), f"{name}.m", heads, float(gains[0][0]), (0,), _width=width),
            Product(
                f"{name}.mv", "z", (f"{name}.m", source), f"{name}.z", heads, float(gains[1][0]), (0, 0), _width=width
            ),
        ]

    def output(self, name: str) -> None:
        """Add an Output of an existing population, or of a new one without threshold, into which synapses lead."""
        signal = self.signals.into(name)
        shape = tuple(int(n) for n in self.graph.nodes[name].output_type["output"])
        if signal.shape != shape and not any(path.nodes for path in signal.paths):
            raise DeployError(f"type mismatch: {signal.paths[0].source}.output {signal.shape} -> {name}.input {shape}")
        if len(signal.paths) == 1 and signal.paths[0] == OperatorPath(signal.paths[0].source) and not signal.biases:
            source = signal.paths[0].source
            if source in self.analog:
                raise DeployError(f"output {name}: the input {source} feeds it directly; put a population between them")
            self.outputs.append(Output(name, self.population(source)))
            return
        readout = self.weighted(name)
        paths = tuple((path.source, path.delay, path.nodes) for path in signal.paths)
        if self.readouts.get(readout) == paths:  # another Output has it already
            self.outputs.append(Output(name, readout))
            return
        if readout in self.populations:  # the name is taken by one with other paths
            readout = name
        self.readouts[readout] = paths
        self.project(readout, signal, shape, suffix="_synapses")
        now = np.broadcast_to(signal.biases.get(0, np.zeros(())), shape).astype(np.float32)
        self.populations[readout] = Population(readout, shape, "readout", bias=now, late_biases=_late(signal))
        self.outputs.append(Output(name, readout))

    def weighted(self, output: str) -> str:
        """Return the last weighted node before an Output; it names the read-out, as in the file's quantisation."""
        name = output
        while len(self.signals.sources[name]) == 1:
            name = self.signals.sources[name][0]
            node = self.graph.nodes[name]
            if not isinstance(node, LINEAR):
                return output
            if isinstance(node, WEIGHTED):
                return name
        return output


def _late(signal: Signal) -> tuple[tuple[int, np.ndarray], ...]:
    return tuple((first, bias) for first, bias in sorted(signal.biases.items()) if first and bias.any())


def _merge_stride(operators: ops.Operators) -> ops.Operators:
    """Merge a convolution of stride 1 with a decimating pool of kernel 1 after it (mksgn/export/lowering)."""
    merged: list[ops.Operator] = []
    for operator in operators:
        last = merged[-1] if merged else None
        decimates = isinstance(operator, ops.SumPool) and operator.kernel == (1, 1) and operator.padding == (0, 0)
        if decimates and isinstance(last, ops.Conv) and last.stride == (1, 1):
            assert isinstance(operator, ops.SumPool)
            merged[-1] = replace(last, stride=operator.stride)
        else:
            merged.append(operator)
    return tuple(merged)
