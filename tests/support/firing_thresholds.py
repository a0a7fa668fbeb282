"""The thresholds of a random network, chosen so that its populations fire and no decision is near a tie."""

import copy

import nir
import numpy as np

from tests.support import euler_oracle
from tests.support.graphs import F32
from tests.support.network_builder import Builder


def settle(builder: Builder, graph: nir.NIRGraph, inputs: dict[str, np.ndarray]) -> bool:
    """Set the thresholds, in the order of evaluation, so that every population fires.

    Returns:
        Whether that succeeded: no population is silent, and no decision is near a tie.
    """
    nodes, edges = euler_oracle.inline(graph)
    order = euler_oracle.evaluation_order(nodes, {n: [a for a, b in edges if b == n] for n in nodes})
    fields = {
        f"{n}.{p}": (n, f"threshold_{p}")
        for n in order
        if isinstance(nodes[n], euler_oracle.SpikingSelfAttention)
        for p in "mz"
    }
    fields |= {n: (n, "v_threshold") for n in order if isinstance(nodes[n], euler_oracle.FIRING)}
    fields |= {n: (n, "threshold") for n in order if isinstance(nodes[n], nir.Threshold)}
    populations = sorted(fields, key=lambda p: (order.index(fields[p][0]), p))

    looped = bool(builder.used & {"self_loop", "loop", "long_loop", "delay_loop", "joined_loop"})

    def run(until=None):
        return euler_oracle.record(graph, inputs, builder.dt, builder.if_dt, until=None if looped else until)

    shares = {p: np.array(getattr(nodes[n], f)) for p, (n, f) in fields.items()}
    for _ in range(2 if looped else 1):
        for p in populations:
            name, part = fields[p]
            current = run(until=name).currents[p]
            if part == "v_threshold" and (current > 0).mean() < 0.3 and (current < 0).mean() > 0.3:
                for weighted in weighted_before(name, nodes, edges):
                    negate(nodes[weighted])
                current = run(until=name).currents[p]
            attended = any(a == name and fields.get(f"{b}.m") for a, b in edges)
            target_rate = 0.5 if attended or part == "threshold_m" else 0.25  # products of spikes are rare
            choose_threshold(builder, nodes[name], part, shares[p], current, target_rate)
    if not all(train.any() for train in run().spikes.values()):
        return False
    for _ in range(12):
        close = {p: m.min() for p, m in run().margins.items() if m.min() < builder.clear}
        if not close:
            return True
        for p in close:
            name, part = fields[p]
            setattr(nodes[name], part, builder.snap(nodes[name], getattr(nodes[name], part) * 1.0037))
    return False


def choose_threshold(
    builder: Builder, node: nir.NIRNode, part: str, share: np.ndarray, current: np.ndarray, target_rate: float
) -> None:
    """Set the threshold whose firing rate comes nearest to `target_rate`.

    The candidates are quantiles of the membrane potential of a neuron that never fires.
    """
    alone = copy.copy(node)
    setattr(alone, part, np.full_like(share, 1e30))
    free = replay(builder, alone, part, current, "membranes")
    spread = per_neuron(share, part, free)
    ratios = (free / spread)[free > 1e-3 * np.abs(free).max()]
    if not ratios.size:
        ratios = np.abs(free).ravel() + 1e-3
    best = np.inf
    for q in (0.05, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9):
        threshold = builder.snap(node, share * np.quantile(ratios, q) * builder.rng.uniform(0.93, 0.99))
        setattr(alone, part, threshold)
        rate = replay(builder, alone, part, current, "spikes").mean()
        if (off := abs(np.log((rate + 1e-3) / target_rate))) < best:
            best = off
            setattr(node, part, threshold)


def weighted_before(name: str, nodes: dict, edges: list) -> list[str]:
    """Return the last weighted node of every linear path into a population, without its self loops."""
    weighted, new = [], [a for a, b in edges if b == name]
    while new:
        source = new.pop()
        if hasattr(nodes[source], "weight"):
            weighted += [source] if (name, source) not in edges else []
        elif not isinstance(nodes[source], (*euler_oracle.NEURONS, nir.Input, nir.Threshold)):
            new += [a for a, b in edges if b == source]
    return sorted(set(weighted))


def negate(node: nir.NIRNode) -> None:
    node.weight = -node.weight
    if hasattr(node, "bias"):
        node.bias = -node.bias


def per_neuron(values: np.ndarray, part: str, like: np.ndarray) -> np.ndarray:
    """Repeat thresholds per head at every neuron of m or z."""
    if part == "threshold_m":
        return values[:, None, None, None]
    if part == "threshold_z":
        return np.repeat(values, like.shape[2] // len(values))[:, None, None]
    return values


def replay(builder: Builder, node: nir.NIRNode, part: str, current: np.ndarray, kind: str) -> np.ndarray:
    """Execute one population alone on its current, (clips, steps, *shape)."""
    state = euler_oracle.State("p", node, builder.dt, builder.if_dt, F32)
    for t in range(current.shape[1]):
        if part in ("threshold_m", "threshold_z"):
            state.leak_and_fire("p", current[:, t], per_neuron(getattr(node, part), part, current[:, t, None]))
        else:
            state.step(current[:, t])
    return np.stack(state.log[kind]["p"], 1)
