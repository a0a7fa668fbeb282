"""A NIR graph step by step in Loihi's integers, from the graph's floats alone.

Lava's fixed-point equations (LAVA.md) with NIR's semantics: linear nodes take no step, a node receives
the sum over its incoming edges, of a neuron that is evaluated no earlier the step before, Delay
gives x(t - delay), and state starts at 0. Every integer is recovered by rounding, and must be near.
"""

import nir
import numpy as np
import torch
import torch.nn.functional as F

NEURONS = (nir.LIF, nir.CubaLIF, nir.IF)
LIMIT = 2**23  # of u and v


def execute(graph: nir.NIRGraph, inputs: np.ndarray, dt: float = 1e-4) -> dict[str, np.ndarray]:
    """Return the spikes of each population and values of each Output, (T, *shape); `inputs` are (T, *input shape)."""
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    states = {name: Neuron(node, dt) for name, node in graph.nodes.items() if isinstance(node, NEURONS)}
    order = evaluation_order(graph, sources)
    sent: dict[str, list[np.ndarray]] = {name: [] for name in graph.nodes}

    def at(name: str, t: int, reader: str) -> np.ndarray:
        """What a node puts out at step t, as `reader` gets it."""
        node = graph.nodes[name]
        if isinstance(node, (*NEURONS, nir.Input)):
            then = t - (order.index(name) >= order.index(reader))
            return sent[name][then] if then >= 0 else np.zeros(np.shape(node.r))
        if isinstance(node, nir.Delay):
            return delayed([into(name, s, reader) for s in range(t + 1)], integers(node.delay / dt))
        return linear(node, into(name, t, reader))

    def into(name: str, t: int, reader: str) -> np.ndarray:
        return sum(at(a, t, reader) for a in sources[name])

    for t in range(len(inputs)):
        for name in order:
            if isinstance(graph.nodes[name], nir.Input):
                sent[name].append(inputs[t].astype(float))
            elif name in states:
                sent[name].append(states[name].step(into(name, t, name)))
            elif isinstance(graph.nodes[name], nir.Output):
                sent[name].append(into(name, t, name))
    return {
        name: np.stack(steps) for name, steps in sent.items() if steps and not isinstance(graph.nodes[name], nir.Input)
    }


def evaluation_order(graph: nir.NIRGraph, sources: dict[str, list[str]]) -> list[str]:
    """Return a topological order; where only loops are left, a neuron that an evaluated node reaches opens one that
    no other feeds."""
    order: list[str] = []

    def reached(name: str) -> bool:
        return any(
            a in order or (a not in order and not isinstance(graph.nodes[a], NEURONS) and reached(a))
            for a in sources[name]
        )

    def before(name: str) -> set[str]:
        found: set[str] = set()
        new = {a for a in sources[name] if a not in order}
        while new:
            found |= new
            new = {a for n in new for a in sources[n] if a not in order} - found
        return found

    while len(order) < len(sources):
        waiting = [name for name in sources if name not in order]
        ready = [name for name in waiting if set(sources[name]) <= set(order)]
        looped = [n for n in waiting if isinstance(graph.nodes[n], NEURONS) and not ready and reached(n)]
        first = [n for n in looped if all(n in before(m) for m in before(n))]
        order.append((ready or first)[0])
    return order


def integers(x: np.ndarray) -> np.ndarray:
    whole = np.rint(np.asarray(x, dtype=float)).astype(np.int64)
    np.testing.assert_allclose(x, whole, rtol=1e-6, atol=1e-3)
    return whole


def delayed(history: list[np.ndarray], steps: np.ndarray) -> np.ndarray:
    past = [np.where(steps == back, x, 0.0) for back, x in enumerate(reversed(history))]
    return sum(past, np.zeros_like(history[-1]))


def linear(node: nir.NIRNode, x: np.ndarray) -> np.ndarray:
    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str) else tuple(node.padding)
        weight, bias = (torch.from_numpy(np.asarray(w, dtype=float)) for w in (node.weight, node.bias))
        stride, dilation = tuple(node.stride), tuple(node.dilation)
        return F.conv2d(torch.from_numpy(x)[None], weight, bias, stride, padding, dilation, int(node.groups))[0].numpy()
    if isinstance(node, nir.Flatten):
        return x.reshape(-1)
    if isinstance(node, nir.Scale):
        return node.scale * x
    return node.weight.astype(float) @ x + (node.bias if isinstance(node, nir.Affine) else 0.0)


class Neuron:
    """The state u and v of a LIF, CubaLIF or IF with du, dv, vth and bias; thresholds and weights in the same units."""

    def __init__(self, node: nir.NIRNode, dt: float):
        shape = node.v_threshold.shape
        self.u, self.v = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self.du, self.dv, self.bias = np.full(shape, 4096), np.zeros(shape, dtype=np.int64), self.u
        assert (node.v_reset == 0).all()
        self.gain = node.r * dt
        if not isinstance(node, nir.IF):
            rate = dt / (node.tau_mem if isinstance(node, nir.CubaLIF) else node.tau).astype(float)
            self.dv, self.gain, self.bias = integers(4096 * rate), node.r * rate, integers(node.v_leak * rate)
        if isinstance(node, nir.CubaLIF):
            rate = dt / node.tau_syn.astype(float)
            self.du, self.gain = integers(4096 * rate), self.gain * rate * node.w_in
        self.vth = integers(node.v_threshold)

    def step(self, current: np.ndarray) -> np.ndarray:
        self.u = truncate(self.u, self.du) + (integers(self.gain * current) << 6)
        assert (np.abs(self.u) < LIMIT).all(), "Loihi's current would wrap"
        self.v = truncate(self.v, self.dv) + self.u + (self.bias << 6)
        assert (np.abs(self.v) < LIMIT).all(), "Loihi's membrane would be clipped"
        spikes = self.v > self.vth << 6
        self.v[spikes] = 0
        return spikes.astype(float)


def truncate(x: np.ndarray, decay: np.ndarray) -> np.ndarray:
    """Return x (4096 - decay) / 4096, rounded toward zero."""
    return np.sign(x) * (np.abs(x) * (4096 - decay) >> 12)
