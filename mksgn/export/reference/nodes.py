"""The equations of NIR's nodes and ours in float32: one time step of each, on L samples at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mksgn.common.convolution import convolve
from mksgn.export.choices import SUBTRACT
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.conventions import initial_of, reset_of, subtracted
from mksgn.export.graph.kinds import CURRENT_BASED, SPIKING
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, ints

WHOLE = 1e-6  # largest relative distance of a delay from a whole number of steps


def linear(node: nir.NIRNode, name: str, x: Tensor) -> Tensor:
    """Apply a stateless node.

    Args:
        node: A convolution, dense map, pooling, Flatten, Scale or GraphConv.
        name: The node's name, for errors.
        x: (L, *input shape) float32.

    Returns:
        (L, *output shape) float32.

    Raises:
        UnsupportedNodeError: The node's type is not among these.
    """
    if isinstance(node, nir.Conv2d | nir.Conv1d):
        axes = np.ndim(node.weight) - 2
        padding = node.padding if isinstance(node.padding, str) else ints(node.padding, axes)
        stride, dilation = ints(node.stride, axes), ints(node.dilation, axes)
        return convolve(x, tensor(node.weight), tensor(node.bias), stride, padding, dilation, int(node.groups))
    if isinstance(node, GraphConv):
        y = tensor(node.bias)[:, None, None].expand(len(x), -1, x.shape[2], x.shape[3]).clone()
        for a, w in zip(tensor(node.adjacency), tensor(node.weight), strict=True):
            joints = a.any(0)  # the targets of this subset: elsewhere it adds 0
            y[..., joints] += torch.einsum("oc,nctj->notj", w, x @ a[:, joints])
        return y
    if isinstance(node, nir.Affine | nir.Linear):
        y = torch.einsum("...oi,n...i->n...o", tensor(node.weight), x)
        return y + tensor(node.bias) if isinstance(node, nir.Affine) else y
    if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
        kernel, stride, padding = (ints(p, 2) for p in (node.kernel_size, node.stride, node.padding))
        if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):  # more than torch's pooling can pad
            x, padding = F.pad(x, (padding[1], padding[1], padding[0], padding[0])), (0, 0)
        divisor = 1 if isinstance(node, nir.SumPool2d) else kernel[0] * kernel[1]  # padded values count
        return F.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)
    if isinstance(node, nir.Flatten):
        start, end = int(node.start_dim), int(node.end_dim)
        return x.flatten(*(axis if axis < 0 else axis + 1 for axis in (start, end)))
    if isinstance(node, nir.Scale):
        return x * tensor(node.scale)
    raise UnsupportedNodeError(
        f"node {name}: the reference execution cannot run {type(node).__name__}, only NIR's primitives, GraphConv and "
        "SpikingSelfAttention; rewrite the node with these"
    )


def tensor(x: Any) -> Tensor:
    array = np.asarray(x, dtype=np.float32)
    if not array.flags.writeable or not array.flags.c_contiguous:  # torch takes no negative strides
        array = np.array(array, order="C")
    return torch.from_numpy(array)  # without a copy if the array is float32 already: nobody writes into it


@dataclass
class Neuron:
    """A population and its state, u = 0 and v = initial at the start of a sample. Forward Euler, per step:

        u += rate_syn (-u + w_in x), and x = u                   if there is a synaptic current u
        v += rate ((leak - v) + r x), or v += r x without a rate
        s = v > threshold;  v = reset where s

    With `subtract`, v = v - subtract where s instead or, with `in_next_step`, the next step's v is smaller by it.
    Without a threshold the population outputs its membrane potential v.
    """

    rate: Tensor | None
    r: Tensor | None = None
    leak: float | Tensor = 0.0
    threshold: Tensor | None = None
    reset: float | Tensor = 0.0
    rate_syn: Tensor | None = None
    w_in: Tensor | None = None
    initial: float | Tensor = 0.0
    subtract: Tensor | None = None
    in_next_step: bool = False
    u: Tensor | None = None
    v: Tensor | None = None
    before_reset: Tensor | None = None  # the membrane potential that the last step compared with the threshold

    def step(self, x: Tensor) -> Tensor:
        """Integrate (L, *shape) for one step; return bool spikes or the membrane potential."""
        if self.rate_syn is not None and self.w_in is not None:
            u = torch.zeros_like(x) if self.u is None else self.u
            x = self.u = u + self.rate_syn * (self.w_in * x - u)
        current = x if self.r is None else self.r * x
        before = torch.zeros_like(current) + self.initial if self.v is None else self.v
        v = before + current if self.rate is None else before + self.rate * ((self.leak - before) + current)
        if (
            self.subtract is not None and self.threshold is not None and self.in_next_step
        ):  # a neuron that fired is still above the threshold
            v = v - self.subtract * (before > self.threshold)
        self.v = self.before_reset = v
        if self.threshold is None:
            return v
        s = v > self.threshold
        if self.subtract is None:
            self.v = torch.where(s, torch.as_tensor(self.reset, dtype=v.dtype).expand_as(v), v)
        elif not self.in_next_step:
            self.v = v - self.subtract * s
        return s

    def margin(self) -> Tensor:
        """Return |v - threshold| / |threshold| of the last step's decisions."""
        assert self.before_reset is not None
        assert self.threshold is not None
        return (self.before_reset - self.threshold).abs() / self.threshold.abs()


def neuron(node: nir.NIRNode, dt: float, if_dt: float | None) -> Neuron:
    """Build a population at the start of a sample; I and IF integrate with `if_dt` (seconds) if it is given."""
    spikes: dict[str, Any] = {"initial": tensor(initial_of(node))}
    if isinstance(node, SPIKING):
        spikes |= {"threshold": tensor(node.v_threshold), "reset": tensor(node.v_reset)}
    taken = subtracted(node)
    if taken is not None:
        spikes |= {"subtract": tensor(taken), "in_next_step": reset_of(node) == SUBTRACT}
    if isinstance(node, nir.IF | nir.I):
        return Neuron(None, torch.as_tensor(np.float32(dt if if_dt is None else if_dt)) * tensor(node.r), **spikes)
    synapse: dict[str, Any] = {}
    if isinstance(node, CURRENT_BASED):
        synapse = {"rate_syn": dt_over_tau(dt, tensor(node.tau_syn)), "w_in": tensor(node.w_in)}
    tau = tensor(node.tau_mem if isinstance(node, CURRENT_BASED) else node.tau)
    return Neuron(dt_over_tau(dt, tau), tensor(node.r), tensor(node.v_leak), **spikes, **synapse)


def dt_over_tau(dt: float, tau: Tensor) -> Tensor:
    """Compute dt / tau in float32: in double, a tau of 2e-4 gives 0.5000000126 (LAVA.md)."""
    return torch.as_tensor(np.float32(dt)) / tau


class DelayLine:
    """A Delay and its memory: outputs x(t - delay) element by element, 0 before."""

    def __init__(self, node: nir.Delay, name: str, dt: float):
        steps = delay_steps(node, name, dt)
        self.masks = [(int(s), torch.from_numpy(steps == s)) for s in np.unique(steps)]
        self.past: list[Tensor] = []  # the latest first

    def step(self, x: Tensor) -> Tensor:
        self.past = [x, *self.past[: self.masks[-1][0]]]
        y = torch.zeros_like(x)
        for steps, mask in self.masks:
            if steps < len(self.past):
                y = torch.where(mask, self.past[steps], y)
        return y


def delay_steps(node: nir.Delay, name: str, dt: float) -> np.ndarray:
    """Convert a delay to whole steps of `dt` seconds, int64 of its own shape.

    Raises:
        UnsupportedNodeError: A delay is negative, not finite, or not a whole number of steps.
    """
    steps = np.asarray(node.delay, dtype=np.float64) / dt
    whole = np.rint(steps)
    wrong = ~np.isfinite(steps) | (whole < 0) | (np.abs(steps - whole) > WHOLE * np.maximum(whole, 1))
    if wrong.any():
        first = np.asarray(node.delay)[wrong].flat[0]
        raise UnsupportedNodeError(
            f"node {name}: a delay of {first:.6g} s is not a whole number of steps of {dt:g} s; "
            "change the delay or --dt"
        )
    return whole.astype(np.int64)


class Attention:
    """A SpikingSelfAttention node; `record` gets name, state and spikes of both populations."""

    def __init__(self, node: SpikingSelfAttention, name: str, dt: float, record: Callable[[str, Neuron, Tensor], None]):
        self.node, self.name, self.record = node, name, record
        rate = dt_over_tau(dt, tensor(node.tau))
        self.gain_m, self.gain_z, threshold_m, threshold_z = (
            tensor(p).view(-1, 1, 1, 1) for p in (node.gain_m, node.gain_z, node.threshold_m, node.threshold_z)
        )
        self.m, self.z = Neuron(rate, threshold=threshold_m), Neuron(rate)
        self.threshold_z = threshold_z[..., 0]

    def step(self, qkv: Tensor) -> Tensor:
        """Integrate q|k|v spikes (L, 3C, T, V) for one step; return z (L, C, T, V), bool."""
        q, k, v = split_heads(self.node, qkv)
        m = self.m.step(self.gain_m * map_counts(q, k))
        self.record(f"{self.name}.m", self.m, m)
        self.z.threshold = self.threshold_z.repeat_interleave(v.shape[2], 0)
        z = self.z.step((self.gain_z * value_counts(m.float(), v)).flatten(1, 2))
        self.record(f"{self.name}.z", self.z, z)
        return z


def split_heads(node: SpikingSelfAttention, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split (N, 3C, T, V) into q, k and v, each (N, heads, d, T, V); channel = head · d + i."""
    q, k, v = qkv.unflatten(1, (3, node.heads, -1)).unbind(1)
    return q, k, v


def map_counts(q: Tensor, k: Tensor) -> Tensor:
    """Count the coincidences of q and k, (N, heads, d, T, V) each → (N, heads, T, query, key)."""
    return torch.einsum("nhcti,nhctj->nhtij", q, k)


def value_counts(m: Tensor, v: Tensor) -> Tensor:
    """Count the coincidences of a map (N, heads, T, query, key) and v → (N, heads, d, T, query)."""
    return torch.einsum("nhtij,nhctj->nhcti", m, v)
