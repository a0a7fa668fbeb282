"""Any NIR graph by forward Euler, one node at a time, from NIR's equations alone: shares no code with deploy or export.

Linear nodes take no step and incoming edges add up. A neuron that is evaluated no later than another reads
that one's output of the step before, 0 at first: loops are cut there. State starts at 0 in each clip. A
nested graph is inlined; its nodes are then named "outer.inner".
"""

from dataclasses import dataclass, field

import nir
import numpy as np

from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention

GRADED = (nir.I, nir.LI, nir.CubaLI)  # their output is the membrane potential
FIRING = (nir.IF, nir.LIF, nir.CubaLIF)
NEURONS = (*GRADED, *FIRING, SpikingSelfAttention)  # nodes with a state that evolves, where a loop may be opened
CUBA = (nir.CubaLI, nir.CubaLIF)


@dataclass
class Run:
    """Arrays (clips, steps, *shape) by node or population.

    `membranes` are compared with the threshold, before the reset.
    """

    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    margins: dict[str, np.ndarray] = field(default_factory=dict)
    currents: dict[str, np.ndarray] = field(default_factory=dict)
    membranes: dict[str, np.ndarray] = field(default_factory=dict)


def execute(
    graph: nir.NIRGraph, inputs: dict[str, np.ndarray], dt: float, if_dt: float | None = None, dtype=np.float32
):
    """Execute a graph.

    Populations are IF, LIF, CubaLIF and Threshold nodes by their name, and m and z of an attention node
    "a" as "a.m" and "a.z".

    Args:
        inputs: Arrays (clips, steps, *shape) by the name of the Input.
        if_dt: The time step that I and IF integrate with, if not `dt`.

    Returns:
        Spikes of each population (bool), outputs, and margins |v - threshold| / |threshold|.

    Raises:
        ValueError: For a loop without a neuron, a delay that is not a whole number of steps, a
            nested graph with several inputs or outputs, or a node type without an equation here.
    """
    run = record(graph, inputs, dt, if_dt, dtype)
    return run.spikes, run.outputs, run.margins


def record(
    graph: nir.NIRGraph,
    inputs: dict[str, np.ndarray],
    dt: float,
    if_dt: float | None = None,
    dtype=np.float32,
    until: str | None = None,
) -> Run:
    """Execute a graph and record it.

    With `until`, execute only the nodes up to that one in the order of evaluation; the graph must have no loop.
    """
    nodes, edges = inline(graph)
    sources = {name: [a for a, b in edges if b == name] for name in nodes}
    order = evaluation_order(nodes, sources)
    if until is not None:
        order = order[: order.index(until) + 1]
    clips, steps = next(iter(inputs.values())).shape[:2]
    states = {
        n: State(n, node, dt, if_dt, dtype) for n, node in nodes.items() if isinstance(node, (*NEURONS, nir.Threshold))
    }
    signals = Signals(nodes, sources, order, clips, dt, dtype)
    outputs: dict[str, list[np.ndarray]] = {n: [] for n in order if isinstance(nodes[n], nir.Output)}
    for t in range(steps):
        for name in order:
            if isinstance(nodes[name], nir.Input):
                signals.sent[name].append(np.asarray(inputs[name][:, t], dtype))
            elif name in outputs:
                outputs[name].append(signals.into(name, t, name))
            elif name in states:
                signals.sent[name].append(states[name].step(signals.into(name, t, name)))
    run = Run(outputs={name: np.stack(parts, 1) for name, parts in outputs.items()})
    for state in states.values():
        for kind in ("spikes", "margins", "currents", "membranes"):
            getattr(run, kind).update({name: np.stack(parts, 1) for name, parts in state.log[kind].items()})
    return run


class Signals:
    """What each node puts out at a time step, as a `reader` gets it; `sent` holds what inputs and neurons did."""

    def __init__(self, nodes, sources, order: list[str], clips: int, dt: float, dtype):
        self.nodes, self.sources, self.order, self.clips, self.dtype = nodes, sources, order, clips, dtype
        self.sent: dict[str, list[np.ndarray]] = {n: [] for n in nodes}
        self.steps = {n: delay_steps(node, dt) for n, node in nodes.items() if isinstance(node, nir.Delay)}
        self.known: dict[tuple[str, int, str], np.ndarray] = {}

    def into(self, name: str, t: int, reader: str) -> np.ndarray:
        if not self.sources[name]:
            return np.zeros((self.clips, *np.shape(self.nodes[name].r)), self.dtype)
        return sum(self.at(source, t, reader) for source in self.sources[name])

    def at(self, name: str, t: int, reader: str) -> np.ndarray:
        if isinstance(self.nodes[name], (*NEURONS, nir.Threshold, nir.Input)):
            then = t - (self.order.index(name) >= self.order.index(reader))
            return self.sent[name][then] if then >= 0 else np.zeros((self.clips, *self.shape(name)), self.dtype)
        if (name, t, reader) not in self.known:
            self.known[name, t, reader] = self.linear(name, t, reader)
        return self.known[name, t, reader]

    def linear(self, name: str, t: int, reader: str) -> np.ndarray:
        x = self.into(name, t, reader)
        if name not in self.steps:
            return apply(self.nodes[name], x, dtype=self.dtype)
        y = np.zeros_like(x)
        for back in np.unique(self.steps[name][self.steps[name] <= t]):
            y = np.where(self.steps[name] == back, self.into(name, t - back, reader), y)
        return y

    def shape(self, name: str) -> tuple[int, ...]:
        node = self.nodes[name]
        if isinstance(node, SpikingSelfAttention):
            stacked, *frame = self.shape(self.sources[name][0])
            return (stacked // 3, *frame)
        return np.shape(node.threshold if isinstance(node, nir.Threshold) else node.r)


# --- the graph as one level, and the order of evaluation ------------------------------------------


def inline(graph: nir.NIRGraph) -> tuple[dict[str, nir.NIRNode], list[tuple[str, str]]]:
    """Flatten nested graphs: the Input and Output of a nested graph vanish, and their edges join."""
    nodes: dict[str, nir.NIRNode] = {}
    edges = [(str(a), str(b)) for a, b in graph.edges]
    vanishing = []
    for name, node in graph.nodes.items():
        if not isinstance(node, nir.NIRGraph):
            nodes[name] = node
            continue
        inner_nodes, inner_edges = inline(node)
        ports = []
        for kind in (nir.Input, nir.Output):
            named = [inner for inner, n in inner_nodes.items() if isinstance(n, kind)]
            if len(named) != 1:
                raise ValueError(f"nested graph {name} has {len(named)} nodes of type {kind.__name__}, expected one")
            ports.append(f"{name}.{named[0]}")
        nodes |= {f"{name}.{inner}": n for inner, n in inner_nodes.items()}
        entry, leaving = ports
        edges = [(leaving if a == name else a, entry if b == name else b) for a, b in edges]
        edges += [(f"{name}.{a}", f"{name}.{b}") for a, b in inner_edges]
        vanishing += ports
    for port in vanishing:
        del nodes[port]
        before, after = [a for a, b in edges if b == port], [b for a, b in edges if a == port]
        edges = [(a, b) for a, b in edges if port not in (a, b)] + [(a, b) for a in before for b in after]
    return nodes, edges


def evaluation_order(nodes: dict[str, nir.NIRNode], sources: dict[str, list[str]]) -> list[str]:
    """Return a topological order, ties by name.

    Where only loops are left, it goes on with the first neuron, by name, of a loop that waits for no other; if an
    evaluated node reaches some of its neurons through linear nodes, with the first of these. The Thresholds that
    the neuron reads in the step come before it.
    """
    order: list[str] = []
    waiting = sorted(nodes)

    def upstream(name: str, through=lambda node: True) -> set[str]:
        found: set[str] = set()
        new = set(sources[name]) - set(order)
        while new:
            found |= new
            new = {a for n in new if through(nodes[n]) for a in sources[n]} - set(order) - found
        return found

    def instant(node: nir.NIRNode) -> bool:
        return not isinstance(node, NEURONS)

    while waiting:
        evaluated = set(order)
        ready = [n for n in waiting if evaluated.issuperset(sources[n])]
        if not ready:
            above = {n: upstream(n) for n in waiting}
            loops = [n for n in waiting if isinstance(nodes[n], NEURONS) and all(n in above[m] for m in above[n])]
            ahead = {n: {m for m in upstream(n, instant) if instant(nodes[m])} for n in loops}
            reached = [n for n in loops if any(evaluated & set(sources[m]) for m in {n, *ahead[n]})]
            if not loops:
                raise ValueError(f"a loop without a neuron among {', '.join(waiting)}")
            neuron = (reached or loops)[0]
            thresholds = sorted(m for m in ahead[neuron] if isinstance(nodes[m], nir.Threshold))
            # of several, one that another reads comes first
            thresholds.sort(key=lambda m: len([n for n in thresholds if n in upstream(m, instant)]))
            ready = [*thresholds, neuron]
        else:
            ready = ready[:1]
        order += ready
        waiting = [n for n in waiting if n not in ready]
    return order


# --- neurons --------------------------------------------------------------------------------------


class State:
    """The membrane potentials and synaptic currents of a node, and a log of them."""

    def __init__(self, name: str, node: nir.NIRNode, dt: float, if_dt: float | None, dtype):
        self.name, self.node, self.dt, self.dtype = name, node, np.float32(dt), dtype
        self.if_dt = self.dtype(np.float32(dt if if_dt is None else if_dt))
        self.parameters = {k: np.asarray(p, dtype) for k, p in vars(node).items() if k in PARAMETERS and p is not None}
        self.v: dict[str, np.ndarray] = {}
        self.u = dtype(0)
        self.log: dict[str, dict[str, list[np.ndarray]]] = {
            k: {} for k in ("spikes", "margins", "currents", "membranes")
        }

    def rate(self, tau) -> np.ndarray:
        return np.asarray(self.dt / np.asarray(tau, np.float32), self.dtype)

    def step(self, x: np.ndarray) -> np.ndarray:
        node, get, kind = self.node, self.parameters, type(self.node)
        if kind is SpikingSelfAttention:
            return self.attend(x)
        if kind is nir.Threshold:
            return self.fire(self.name, x, x, get["threshold"], None)
        v = before = self.v.get(self.name, self.initial())
        if kind in (nir.I, nir.IF):
            v = v + self.if_dt * get["r"] * x
        else:
            drive = x
            if kind in CUBA:
                self.u = self.u + self.rate(node.tau_syn) * (get["w_in"] * x - self.u)
                drive = self.u
            rate = self.rate(node.tau_mem if kind in CUBA else node.tau)
            v = v + rate * ((get["v_leak"] - v) + get["r"] * drive)
        if kind in GRADED:
            self.note(self.name, currents=x, membranes=v)
            self.v[self.name] = v
            return v
        how = node.metadata.get("reset", "zero")
        if how == "zero":
            return self.fire(self.name, x, v, get["v_threshold"], get["v_reset"])
        taken = get["v_threshold"] - get["v_reset"]
        if how == "subtract":  # the membrane stays above the threshold until the next step
            v = np.where(before > get["v_threshold"], v - taken, v)
        spikes = self.fire(self.name, x, v, get["v_threshold"], None)
        self.v[self.name] = v - taken * spikes if how == "subtract-at-once" else v
        return spikes

    def initial(self):
        """Return the membrane at the start of a clip, as the node's metadata say."""
        where = self.node.metadata.get("v_init", "zero")
        return self.parameters.get({"v_reset": "v_reset", "leak": "v_leak"}.get(where), self.dtype(0))

    def fire(self, name, x, v, threshold, reset) -> np.ndarray:
        spikes = v > threshold
        distance = np.abs(v.astype(np.float64) - threshold) / np.maximum(np.abs(threshold), 1e-30)
        self.note(name, currents=x, membranes=v, spikes=spikes, margins=distance)
        if reset is not None:
            self.v[name] = np.where(spikes, reset, v)
        return spikes.astype(self.dtype)

    def note(self, name: str, **values: np.ndarray) -> None:
        for kind, value in values.items():
            self.log[kind].setdefault(name, []).append(value)

    def attend(self, x: np.ndarray) -> np.ndarray:
        """Step both populations as LIF with r = 1 and v_leak = v_reset = 0; z receives m of this step."""
        node, clips, (frames, joints) = self.node, len(x), x.shape[2:]
        q, k, v = x.reshape(clips, 3, node.heads, -1, frames, joints).swapaxes(0, 1)
        gains = [np.asarray(g, self.dtype) for g in (node.gain_m, node.gain_z)]
        thresholds = [np.asarray(t, self.dtype) for t in (node.threshold_m, node.threshold_z)]
        a = gains[0][:, None, None, None] * np.einsum("nhcti,nhctj->nhtij", q, k)
        m = self.leak_and_fire(f"{self.name}.m", a, thresholds[0][:, None, None, None])
        b = gains[1][:, None, None, None] * np.einsum("nhtij,nhctj->nhcti", m, v)
        per_channel = np.repeat(thresholds[1], v.shape[2])[:, None, None]
        return self.leak_and_fire(f"{self.name}.z", b.reshape(clips, -1, frames, joints), per_channel)

    def leak_and_fire(self, name: str, x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        v = self.v.get(name, self.dtype(0))
        return self.fire(name, x, v + self.rate(self.node.tau) * (x - v), threshold, self.dtype(0))


PARAMETERS = ("r", "v_leak", "v_threshold", "v_reset", "w_in", "threshold")


def delay_steps(node: nir.Delay, dt: float) -> np.ndarray:
    """Return whole time steps, element by element."""
    delay = np.asarray(node.delay, np.float64) / dt
    steps = np.rint(delay).astype(int)
    if not np.allclose(delay, steps, rtol=1e-5, atol=1e-3) or (steps < 0).any():
        raise ValueError(f"a delay of {delay.max():g} steps of {dt:g} s is no whole number of steps")
    return steps


# --- linear nodes ---------------------------------------------------------------------------------


def apply(node: nir.NIRNode, x: np.ndarray, dtype=np.float32) -> np.ndarray:
    """Apply a node without state to x (clips, *shape)."""
    kind = type(node)  # every node type of NIR is an ABC, whose isinstance is slow
    if kind in (nir.Affine, nir.Linear):  # weight (…, O, I), or (O, I) along the last axis
        y = (np.asarray(node.weight, dtype) @ x[..., None])[..., 0]
        return y + np.asarray(node.bias, dtype) if kind is nir.Affine else y
    if kind is nir.Scale:
        return x * np.asarray(node.scale, dtype)
    if kind is nir.Conv1d:
        weight = np.asarray(node.weight, dtype)[:, :, None]
        padding = node.padding if isinstance(node.padding, str) else (0, number(node.padding))
        geometry = (1, number(node.stride)), padding, (1, number(node.dilation))
        return convolve(x[:, :, None], weight, node.bias, *geometry, number(node.groups), dtype)[:, :, 0]
    if kind is nir.Conv2d:
        weight = np.asarray(node.weight, dtype)
        padding = node.padding if isinstance(node.padding, str) else pair(node.padding)
        return convolve(
            x, weight, node.bias, pair(node.stride), padding, pair(node.dilation), number(node.groups), dtype
        )
    if kind in (nir.SumPool2d, nir.AvgPool2d):
        kernel, padding = pair(node.kernel_size), pair(node.padding)
        y = sum(windows(padded(x, [(p, p) for p in padding]), kernel, pair(node.stride), (1, 1)).values())
        return y / dtype(kernel[0] * kernel[1]) if kind is nir.AvgPool2d else y
    if kind is nir.Flatten:
        shape = x.shape[1:]
        start, end = number(node.start_dim) % len(shape), number(node.end_dim) % len(shape)
        return x.reshape(len(x), *shape[:start], -1, *shape[end + 1 :])
    if kind is GraphConv:
        a, w, b = (np.asarray(p, dtype) for p in (node.adjacency, node.weight, node.bias))
        y = sum(np.einsum("oc,ncti,ij->notj", w[k], x, a[k]) for k in range(len(a)))
        return y + b[:, None, None]
    raise ValueError(f"no equation for a node of type {type(node).__name__}")


def convolve(x, weight, bias, stride, padding, dilation, groups, dtype) -> np.ndarray:
    """Convolve, one kernel position at a time; 'same' puts an odd padding element at the end, as torch does."""
    kernel = weight.shape[2:]
    if isinstance(padding, str):
        if padding == "same" and stride != (1, 1):
            raise ValueError(f"padding 'same' has no meaning with stride {stride}")
        total = [d * (k - 1) * (padding == "same") for d, k in zip(dilation, kernel, strict=True)]
        x = padded(x, [(n // 2, n - n // 2) for n in total])
    else:
        x = padded(x, [(p, p) for p in padding])
    parts = []
    for g in range(groups):
        mine = x[:, g * weight.shape[1] : (g + 1) * weight.shape[1]]
        w = weight[g * len(weight) // groups : (g + 1) * len(weight) // groups]
        taps = windows(mine, kernel, stride, dilation).items()
        parts.append(sum(np.einsum("oc,nchw->nohw", w[:, :, p, q], tap) for (p, q), tap in taps))
    return np.concatenate(parts, 1) + np.asarray(bias, dtype)[:, None, None]


def padded(x: np.ndarray, by: list[tuple[int, int]]) -> np.ndarray:
    return np.pad(x, [(0, 0), (0, 0), *by]) if any(map(any, by)) else x


def windows(x: np.ndarray, kernel, stride, dilation) -> dict[tuple[int, int], np.ndarray]:
    """Return the inputs (clips, channels, rows, columns) of each kernel position."""
    rows, columns = (
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    return {
        (p, q): x[:, :, p * dilation[0] :: stride[0], q * dilation[1] :: stride[1]][:, :, :rows, :columns]
        for p in range(kernel[0])
        for q in range(kernel[1])
    }


def number(x) -> int:
    return int(np.asarray(x).reshape(-1)[0])


def pair(x) -> tuple[int, int]:
    values = np.ravel(x)
    return int(values[0]), int(values[-1])
