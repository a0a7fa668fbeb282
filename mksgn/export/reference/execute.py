"""The reference execution of a NIR graph: node by node, step by step, from NIR's equations alone.

It shares no code with the lowering, the student or the deployment, so that agreement with it is
evidence. Quantisation calibrates with it. Integration is forward Euler in float32. All state starts
at 0, unless the file says where a membrane starts. A node receives the sum over its incoming edges.
Linear nodes take no time step. From neurons that are evaluated no earlier than itself, a neuron reads the
spikes of the previous step, none at first (`mksgn.export.graph.order`): this is where a loop is cut.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import reduce
from operator import add

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.export.errors import ExportError, UnsupportedNodeError
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.graph.kinds import GRADED, LINEAR, SPIKING
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.graph.order import evaluation_order, sources_of
from mksgn.export.graph.paths import source_shape
from mksgn.export.graph.standard import standard_form
from mksgn.export.reference.nodes import Attention, DelayLine, Neuron, linear, neuron, tensor


@dataclass
class ReferenceRun:
    """What an execution recorded, over S time steps and L samples.

    Populations are LIF, IF, CubaLIF and Threshold nodes by name, and the two populations of an
    attention node "a" as "a.m" and "a.z".
    """

    spikes: dict[str, np.ndarray]  # population → (S, L, *shape) bool
    outputs: dict[str, np.ndarray]  # Output → (S, L, *shape) float32
    # (S, L, *shape) of one population, if asked for: |v - threshold| / |threshold| of each decision
    margins: np.ndarray | None


@torch.no_grad()
def execute(
    graph: nir.NIRGraph,
    inputs: Arrays,
    steps: int,
    dt: float,
    *,
    margins_of: str | None = None,
    stepwise: bool = False,
    if_dt: float | None = None,
) -> ReferenceRun:
    """Run any graph of NIR's primitives and ours, nested graphs included.

    Args:
        graph: The network.
        inputs: An array, or arrays by the name of the Input: (L, *shape), constant over the steps,
            or with `stepwise` (L, steps, *shape).
        steps: Number of time steps.
        dt: Time step in seconds.
        margins_of: The population whose margins are recorded.
        stepwise: Whether the inputs have an axis of time steps.
        if_dt: Integration step of IF and I in place of `dt`.

    Raises:
        ExportError: The inputs do not fit the graph.
        UnsupportedNodeError: A node, or the way nodes are connected, cannot be run.
    """
    graph = standard_form(graph)
    tensors, samples = _input_tensors(graph, inputs, steps, stepwise)
    executor = _Executor(graph, samples, dt, if_dt, margins_of)
    for t in range(steps):
        executor.step({name: x[:, t if stepwise else 0] for name, x in tensors.items()})
    return executor.run()


class _Executor:
    """One execution: the states of its nodes, the latest values, and what was recorded."""

    def __init__(self, graph: nir.NIRGraph, samples: int, dt: float, if_dt: float | None, margins_of: str | None):
        self.graph, self.samples, self.dt, self.margins_of = graph, samples, dt, margins_of
        order, self.sources = evaluation_order(graph), sources_of(graph)
        self.position = {name: i for i, name in enumerate(order)}
        self.order = [name for name in order if not isinstance(graph.nodes[name], LINEAR)]
        self.spikes: dict[str, list[np.ndarray]] = defaultdict(list)
        self.outputs: dict[str, list[np.ndarray]] = defaultdict(list)
        self.margins: list[np.ndarray] = []
        self.before: dict[str, Tensor] = {}  # what populations and inputs sent in the previous step
        self.now: dict[str, Tensor] = {}  # and in this one
        # outputs of linear nodes in this step, each for the readers that see the same sources late
        self.currents: dict[tuple[str, frozenset[str]], Tensor] = {}
        self.delay_lines: dict[tuple[str, frozenset[str]], DelayLine] = {}
        self.late: dict[tuple[str, str], frozenset[str]] = {}
        self.feeding = self._feeding([name for name in order if isinstance(graph.nodes[name], LINEAR)])
        self.latest = {
            name: max((self.position[s] for s in sources), default=-1) for name, sources in self.feeding.items()
        }
        self.states: dict[str, Neuron | Attention] = {}
        for name in self.order:
            node = graph.nodes[name]
            if isinstance(node, SPIKING + GRADED):
                self.states[name] = neuron(node, dt, if_dt)
            elif isinstance(node, SpikingSelfAttention):
                self.states[name] = Attention(node, name, dt, self.record)

    def record(self, population: str, state: Neuron, spikes: Tensor) -> None:
        self.spikes[population].append(spikes.numpy())
        if population == self.margins_of:
            self.margins.append(state.margin().numpy())

    def step(self, inputs: dict[str, Tensor]) -> None:
        self.before, self.now, self.currents = self.now, {}, {}
        for name in self.order:
            node = self.graph.nodes[name]
            if isinstance(node, nir.Input):
                self.now[name] = inputs[name]
            elif isinstance(node, nir.Output):
                self.outputs[name].append(self.incoming(name, name).numpy())
            else:
                self.now[name] = self.evaluate(name, node, self.incoming(name, name))

    def incoming(self, name: str, reader: str) -> Tensor:
        """Return the sum over the edges into a node, as `reader` gets it."""
        if not self.sources[name]:
            return torch.zeros(self.samples, *_input_shape(self.graph.nodes[name], name))
        return reduce(add, [self.output(source, reader) for source in self.sources[name]])

    def output(self, name: str, reader: str) -> Tensor:
        """Return a node's output as `reader` gets it: that of the previous step if the node comes no earlier."""
        if isinstance(self.graph.nodes[name], LINEAR):
            return self.current(name, reader)
        if self.position[name] < self.position[reader]:
            return self.now[name]
        rest = self.before.get(name)
        return torch.zeros(self.samples, *source_shape(self.graph, name)) if rest is None else rest

    def current(self, name: str, reader: str) -> Tensor:
        """Return a linear node's output, after those before it; without recursion, however many there are."""
        waiting = [name]
        while waiting:
            last = waiting[-1]
            key = last, self.late_sources(last, reader)
            missing = [] if key in self.currents else self.missing(last, reader)
            waiting += missing
            if missing:
                continue
            waiting.pop()
            if key not in self.currents:
                node, x = self.graph.nodes[last], self.incoming(last, reader)
                if isinstance(node, nir.Delay):
                    line = self.delay_lines.setdefault(key, DelayLine(node, last, self.dt))
                    self.currents[key] = line.step(x)
                else:
                    self.currents[key] = linear(node, last, x)
        return self.currents[key]

    def missing(self, name: str, reader: str) -> list[str]:
        """List the linear sources of a node whose output for `reader` is not known yet in this step."""
        return [
            source
            for source in self.sources[name]
            if source in self.feeding and (source, self.late_sources(source, reader)) not in self.currents
        ]

    def late_sources(self, name: str, reader: str) -> frozenset[str]:
        """Return the sources of a linear node that come no earlier than `reader`."""
        if self.latest[name] < self.position[reader]:
            return frozenset()
        if (name, reader) not in self.late:
            first = self.position[reader]
            self.late[name, reader] = frozenset(s for s in self.feeding[name] if self.position[s] >= first)
        return self.late[name, reader]

    def _feeding(self, linear_nodes: list[str]) -> dict[str, frozenset[str]]:
        """Find the non-linear nodes that lead to each linear node through linear ones, which are given in order."""
        feeding: dict[str, frozenset[str]] = {}
        for name in linear_nodes:
            parts = {feeding[s] if s in feeding else frozenset([s]) for s in self.sources[name]}
            feeding[name] = parts.pop() if len(parts) == 1 else frozenset().union(*parts)  # one set for a whole chain
        return feeding

    def evaluate(self, name: str, node: nir.NIRNode, x: Tensor) -> Tensor:
        if isinstance(node, nir.Threshold):
            spikes = x > tensor(node.threshold)
            self.spikes[name].append(spikes.numpy())
            return spikes.float()
        if name not in self.states:
            return linear(node, name, x)  # raises an error that names the type
        state = self.states[name]
        y = state.step(x)
        if isinstance(node, SPIKING):
            assert isinstance(state, Neuron)
            self.record(name, state, y)
        return y.float()

    def run(self) -> ReferenceRun:
        spikes, outputs = (
            {name: np.stack(steps) for name, steps in recorded.items()} for recorded in (self.spikes, self.outputs)
        )
        return ReferenceRun(spikes, outputs, np.stack(self.margins) if self.margins else None)


def _input_tensors(graph: nir.NIRGraph, inputs: Arrays, steps: int, stepwise: bool) -> tuple[dict[str, Tensor], int]:
    """Return each input as (L, steps or 1, *shape), and L."""
    tensors = {}
    for name, x in arrays_by_input(inputs, graph.inputs).items():
        declared = graph.nodes[name].input_type["input"]
        shape = (steps,) * stepwise + tuple(int(n) for n in declared)
        if np.shape(x)[1:] != shape:
            expected = ", ".join(str(n) for n in ("L", *shape))
            raise ExportError(f"input {name}: shape {np.shape(x)}, expected ({expected})")
        array = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        tensors[name] = array if stepwise else array[:, None]
    samples = {len(x) for x in tensors.values()}
    if len(samples) > 1:
        raise ExportError(f"inputs differ in their number of samples: {sorted(samples)}")
    return tensors, samples.pop() if samples else 1


def _input_shape(node: nir.NIRNode, name: str) -> tuple[int, ...]:
    """Read the input shape of a node without incoming edges from its parameters."""
    if isinstance(node, SPIKING + GRADED):
        return np.shape(node.r)
    if isinstance(node, SpikingSelfAttention) and node.input_type["input"] is not None:
        return tuple(int(n) for n in node.input_type["input"])
    raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")
