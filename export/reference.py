"""The reference execution of a NIR graph: node by node, step by step, from NIR's equations alone.

It uses no code of the lowering, the student or deploy, so that agreeing with it means something; quantising calibrates with it.
Forward Euler with the file's dt; float32; a node sees the sum over its incoming edges; feed-forward graphs only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.nodes import GraphConv, SpikingSelfAttention


@dataclass
class ReferenceRun:
    """`spikes[population]` is (S, L, *shape) bool; `outputs[name]` is (S, L, *shape) float32.

    `margins` (S, L, *shape), of the population that was asked for: |v - threshold| / threshold of each decision.
    """

    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    margins: np.ndarray | None = None


def topological(graph: nir.NIRGraph) -> list[str]:
    """Node names in an order of evaluation; ties in the order of names, so that the result never depends on the file's order."""
    waiting = {name: {a for a, b in graph.edges if b == name} for name in sorted(graph.nodes)}
    order: list[str] = []
    while waiting:
        ready = [name for name, sources in waiting.items() if not sources - set(order)]
        if not ready:
            raise UnsupportedNodeError(
                f"the reference execution is feed-forward only; a loop runs through {', '.join(waiting)}"
            )
        order += ready
        for name in ready:
            del waiting[name]
    return order


@torch.no_grad()
def execute(
    graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float, *, margins_of: str | None = None
) -> ReferenceRun:
    """Run one constant input per lane, (L, *input shape), for `steps` steps, every state starting at rest."""
    order = topological(graph)
    sources = {name: [a for a, b in graph.edges if b == name] for name in order}
    x = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32))
    state: dict[str, Tensor] = {}
    spikes: dict[str, list[np.ndarray]] = {}
    outputs: dict[str, list[np.ndarray]] = {}
    margins: list[np.ndarray] = []

    def fire(
        name: str, current: Tensor, rate: float | Tensor, leak: float | Tensor, threshold: Tensor, reset: float | Tensor
    ) -> Tensor:
        v = state.get(name)
        v = torch.zeros_like(current) + leak if v is None else v  # at rest
        v = v + rate * ((leak - v) + current)
        s = v > threshold
        if name == margins_of:
            margins.append(((v - threshold).abs() / threshold.abs()).numpy())
        state[name] = torch.where(s, torch.as_tensor(reset, dtype=v.dtype).expand_as(v), v)
        spikes.setdefault(name, []).append(s.numpy())
        return s.float()

    for _ in range(steps):
        values: dict[str, Tensor] = {}
        for name in order:
            node = graph.nodes[name]
            incoming = x if isinstance(node, nir.Input) else _sum([values[a] for a in sources[name]])
            if isinstance(node, nir.Input):
                values[name] = x
            elif isinstance(node, nir.Output):
                outputs.setdefault(name, []).append(incoming.numpy())
            elif isinstance(node, nir.LIF):
                tau, r, leak, threshold, reset = (
                    _t(p) for p in (node.tau, node.r, node.v_leak, node.v_threshold, node.v_reset)
                )
                values[name] = fire(name, r * incoming, dt_over_tau(dt, tau), leak, threshold, reset)
            elif isinstance(node, SpikingSelfAttention):
                values[name] = _attention(node, name, incoming, dt, fire)
            else:
                values[name] = linear(node, name, incoming)
    run = ReferenceRun()
    run.spikes = {name: np.stack(steps_of) for name, steps_of in spikes.items()}
    run.outputs = {name: np.stack(steps_of) for name, steps_of in outputs.items()}
    run.margins = np.stack(margins) if margins else None
    return run


def dt_over_tau(dt: float, tau: Tensor) -> Tensor:
    """dt / tau, rounded to float32: a float32 tau of 2e-4 would give 0.5000000126 in double (LAVA.md)."""
    return torch.as_tensor(np.float32(dt)) / tau


def linear(node: nir.NIRNode, name: str, x: Tensor) -> Tensor:
    """The stateless nodes, (L, *input) → (L, *output)."""
    if isinstance(node, nir.Conv2d):
        padding = node.padding if isinstance(node.padding, str) else tuple(int(p) for p in node.padding)
        stride, dilation = (tuple(int(i) for i in p) for p in (node.stride, node.dilation))
        return F.conv2d(x, _t(node.weight), _t(node.bias), stride, padding, dilation, int(node.groups))
    if isinstance(node, GraphConv):
        y = _t(node.bias)[:, None, None].expand(len(x), -1, x.shape[2], x.shape[3]).clone()
        for a, w in zip(_t(node.adjacency), _t(node.weight), strict=True):
            joints = a.any(0)  # the subset's targets; elsewhere it adds 0
            y[..., joints] += torch.einsum("oc,nctj->notj", w, x @ a[:, joints])
        return y
    if isinstance(node, nir.Affine | nir.Linear):
        y = torch.einsum("...oi,n...i->n...o", _t(node.weight), x)
        return y + _t(node.bias) if isinstance(node, nir.Affine) else y
    if isinstance(node, nir.SumPool2d):
        kernel, stride, padding = (
            tuple(int(i) for i in np.broadcast_to(p, 2)) for p in (node.kernel_size, node.stride, node.padding)
        )
        return F.avg_pool2d(x, kernel, stride, padding, divisor_override=1)
    if isinstance(node, nir.Flatten):
        start, end = int(node.start_dim), int(node.end_dim)
        return x.flatten(*(axis if axis < 0 else axis + 1 for axis in (start, end)))
    if isinstance(node, nir.Scale):
        return x * _t(node.scale)
    raise UnsupportedNodeError(
        f"node {name}: the reference execution has no {type(node).__name__}; it runs LIF, SpikingSelfAttention, Conv2d, "
        "GraphConv, Affine, Linear, SumPool2d, Flatten and Scale"
    )


def _attention(node: SpikingSelfAttention, name: str, qkv: Tensor, dt: float, fire: Callable[..., Tensor]) -> Tensor:
    q, k, v = split_heads(node, qkv)
    rate = dt_over_tau(dt, _t(node.tau))
    per_head = [_t(p).view(-1, 1, 1, 1) for p in (node.gain_m, node.gain_z, node.threshold_m, node.threshold_z)]
    gain_m, gain_z, threshold_m, threshold_z = per_head
    m = fire(f"{name}.m", gain_m * map_counts(q, k), rate, 0.0, threshold_m, 0.0)
    z = (gain_z * value_counts(m, v)).flatten(1, 2)
    return fire(f"{name}.z", z, rate, 0.0, threshold_z.repeat_interleave(v.shape[2], 0)[..., 0], 0.0)


def split_heads(node: SpikingSelfAttention, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3C, T, V) → q, k, v, each (N, heads, d, T, V); channel = head · d + i."""
    q, k, v = qkv.unflatten(1, (3, node.heads, -1)).unbind(1)
    return q, k, v


def map_counts(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("nhcti,nhctj->nhtij", q, k)


def value_counts(m: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("nhtij,nhctj->nhcti", m, v)


def _t(x: Any) -> Tensor:
    return torch.from_numpy(np.array(x, dtype=np.float32))


def _sum(values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total
