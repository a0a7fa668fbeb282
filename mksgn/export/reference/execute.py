"""The reference execution of a NIR graph: node by node, step by step, from NIR's equations alone.

It uses no code of the lowering, the student or deploy, so that agreeing with it means something; quantising calibrates with it.
Forward Euler with the file's dt; float32; all state starts at 0; a node sees the sum over its incoming edges. Linear nodes cost no step.
An edge that closes a loop shows the step before, 0 at first (`evaluation_order` says which one closes it).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import nir
import numpy as np
import torch
from torch import Tensor

from mksgn.export.errors import ExportError, UnsupportedNodeError
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.reference.nodes import GRADED, SPIKING, Attention, DelayLine, Neuron, linear, neuron, tensor

Inputs = Arrays
NEURONS = (*SPIKING, *GRADED, SpikingSelfAttention)  # where a loop may be opened, as at a Delay


@dataclass
class ReferenceRun:
    """`spikes[population]` is (S, L, *shape) bool; `outputs[name]` is (S, L, *shape) float32.

    Populations are LIF, IF, CubaLIF and Threshold nodes by name, and m and z of an attention node "a" as "a.m" and "a.z". `margins`
    (S, L, *shape), of the population that was asked for: |v - threshold| / threshold of each decision.
    """

    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    margins: np.ndarray | None = None


def evaluation_order(graph: nir.NIRGraph) -> list[str]:
    """Node names of a flat graph in an order of evaluation, which never depends on the file's order.

    Topological, ties by name. Where only loops are left, the first neuron by name that something evaluated leads to, or else the first
    neuron or Delay, goes on with what it has. Raises UnsupportedNodeError for a loop without either.
    """
    sources = _sources(graph)
    waiting = {name: set(found) for name, found in sorted(sources.items())}
    order: list[str] = []
    while waiting:
        ready = [name for name, missing in waiting.items() if not missing]
        if not ready:
            held = [n for n in waiting if isinstance(graph.nodes[n], (*NEURONS, nir.Delay))]
            reached = [
                n for n in held if isinstance(graph.nodes[n], NEURONS) and len(waiting[n]) < len(set(sources[n]))
            ]
            ready = (reached or held)[:1]
        if not ready:
            raise UnsupportedNodeError(
                f"nodes {', '.join(_loop(waiting))}: a loop without a neuron or Delay in it has no order of evaluation; put one into it"
            )
        order += ready
        for name in ready:
            del waiting[name]
        for missing in waiting.values():
            missing.difference_update(ready)
    return order


def topological(graph: nir.NIRGraph) -> list[str]:
    """`evaluation_order` of a flat graph without loops. Raises UnsupportedNodeError for one that has any."""
    order = evaluation_order(graph)
    place = {name: i for i, name in enumerate(order)}
    late = sorted({b for a, b in graph.edges if place[a] >= place[b]})
    if late:
        raise UnsupportedNodeError(f"node {late[0]}: lies in a loop, which is not run here; unroll it or cut it")
    return order


@torch.no_grad()
def execute(
    graph: nir.NIRGraph,
    inputs: Inputs,
    steps: int,
    dt: float,
    *,
    margins_of: str | None = None,
    stepwise: bool = False,
    if_dt: float | None = None,
) -> ReferenceRun:
    """Run `steps` steps of `dt` seconds; any graph of NIR's primitives and ours, nested ones too.

    `inputs` is an array, or a dict of arrays by input's name: (L, *input shape), constant, or with `stepwise` (L, steps, *input shape).
    `if_dt` is what I and IF integrate with in place of `dt`. Raises ExportError for inputs that do not fit, and UnsupportedNodeError.
    """
    graph = flatten(graph)
    order, sources = evaluation_order(graph), _sources(graph)
    given, samples = _given(graph, inputs, steps, stepwise)
    run = ReferenceRun()
    spikes: dict[str, list[np.ndarray]] = {}
    outputs: dict[str, list[np.ndarray]] = {}
    margins: list[np.ndarray] = []

    def record(name: str, population: Neuron, s: Tensor) -> None:
        spikes.setdefault(name, []).append(s.numpy())
        if name == margins_of:
            margins.append(population.margin().numpy())

    def recorder(name: str):
        return lambda part, population, s: record(f"{name}.{part}", population, s)

    stateful: dict[str, Neuron | Attention | DelayLine] = {}
    for name in order:
        node = graph.nodes[name]
        if isinstance(node, SPIKING + GRADED):
            stateful[name] = neuron(node, dt, if_dt)
        elif isinstance(node, SpikingSelfAttention):
            stateful[name] = Attention(node, dt, recorder(name))
        elif isinstance(node, nir.Delay):
            stateful[name] = DelayLine(node, name, dt)
    values: dict[str, Tensor] = {}  # of a node behind in the order: still those of the step before
    for t in range(steps):
        for name in order:
            node = graph.nodes[name]
            if isinstance(node, nir.Input):
                values[name] = given[name][:, t if stepwise else 0]
                continue
            shown = [values[a] for a in sources[name] if a in values]
            x = _sum(shown) if shown else torch.zeros(samples, *_own_shape(node, name))
            if isinstance(node, nir.Output):
                outputs.setdefault(name, []).append(x.numpy())
            elif isinstance(node, nir.Threshold):
                s = x > tensor(node.threshold)
                spikes.setdefault(name, []).append(s.numpy())
                values[name] = s.float()
            elif name in stateful:
                state = stateful[name]
                y = state.step(x)
                if isinstance(node, SPIKING):
                    assert isinstance(state, Neuron)
                    record(name, state, y)
                values[name] = y.float()
            else:
                values[name] = linear(node, name, x)
    run.spikes = {name: np.stack(steps_of) for name, steps_of in spikes.items()}
    run.outputs = {name: np.stack(steps_of) for name, steps_of in outputs.items()}
    run.margins = np.stack(margins) if margins else None
    return run


def _given(graph: nir.NIRGraph, inputs: Inputs, steps: int, stepwise: bool) -> tuple[dict[str, Tensor], int]:
    """Each input as (L, steps or 1, *shape), and L."""
    named = arrays_by_input(inputs, graph.inputs)
    given = {}
    for name, x in named.items():
        declared = graph.nodes[name].input_type["input"]
        shape = (steps,) * stepwise + tuple(int(n) for n in declared)
        if np.shape(x)[1:] != shape:
            wanted = ", ".join(str(n) for n in ("L", *shape))
            raise ExportError(f"input {name}: shape {np.shape(x)}, expected ({wanted})")
        array = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
        given[name] = array if stepwise else array[:, None]
    samples = {len(x) for x in given.values()}
    if len(samples) > 1:
        raise ExportError(f"inputs differ in their number of samples: {sorted(samples)}")
    return given, samples.pop() if samples else 1


def _sources(graph: nir.NIRGraph) -> dict[str, list[str]]:
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for a, b in graph.edges:
        for end in (a, b):
            if end not in sources:
                raise UnsupportedNodeError(f"edge {a} → {b}: the graph has no node {end}; correct the edge")
        sources[b].append(a)
    return sources


def _loop(waiting: dict[str, set[str]]) -> list[str]:
    """The nodes of one loop, each of these waiting for another of them, in the order of the signal."""
    path = [min(waiting)]
    while (back := min(waiting[path[-1]])) not in path:
        path.append(back)
    return path[path.index(back) :][::-1]


def _own_shape(node: nir.NIRNode, name: str) -> tuple[int, ...]:
    """Of nodes that may be evaluated before any of their sources: their parameters'."""
    if isinstance(node, nir.Delay):
        return np.shape(node.delay)
    if isinstance(node, SPIKING + GRADED):
        return np.shape(node.r)
    if isinstance(node, SpikingSelfAttention) and node.input_type["input"] is not None:
        return tuple(int(n) for n in node.input_type["input"])
    raise UnsupportedNodeError(f"node {name}: no edge leads into it; connect it, or leave it out")


def _sum(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
