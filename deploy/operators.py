"""Linear operators of projections, as exact float32 matrix products on (N, *source shape) tensors.

Weights are integers in fixed-point programs; as long as every partial sum stays below 2^24, which deploy checks, float32 sums
are exact in any order. `fan_out` counts synapses, borders and strides included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mksgn.deploy.errors import DeployError

Shape = tuple[int, ...]


def _require(fits: bool, kind: str, takes: str, shape: Shape) -> None:
    if not fits:
        raise DeployError(f"{kind} takes {takes}, its source has {shape}")


def _tensor(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


@dataclass(frozen=True, eq=False)
class Conv:
    """2-d convolution: weight (C_out, C_in / groups, kh, kw); (C_in, H, W) → (C_out, H', W')."""

    weight: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    kind = "conv"

    @cached_property
    def _weight(self) -> Tensor:
        return _tensor(self.weight)

    def out_shape(self, shape: Shape) -> Shape:
        _require(
            len(shape) == 3 and shape[0] == self.weight.shape[1] * self.groups,
            "Conv2d",
            f"({self.weight.shape[1] * self.groups}, H, W)",
            shape,
        )
        size = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                shape[1:], self.padding, self.dilation, self.weight.shape[2:], self.stride, strict=True
            )
        ]
        return (self.weight.shape[0], *size)

    def apply(self, x: Tensor) -> Tensor:
        if self.weight.shape[2:] == (1, 1) and self.padding == (0, 0) and self.groups == 1:
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
            return torch.matmul(self._weight[:, :, 0, 0], x.flatten(2)).view(len(x), -1, *x.shape[2:])
        return F.conv2d(x, self._weight, None, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class GraphConv:
    """One C_out x C_in block of weights per edge (source joint → target joint), never the dense V·C square.

    (C_in, T, V) → (C_out, T, V); weight (E, C_out, C_in), source and target (E,).
    """

    weight: np.ndarray
    source: np.ndarray
    target: np.ndarray
    joints: int
    kind = "graph_conv"

    @cached_property
    def _weight(self) -> Tensor:
        return _tensor(self.weight)

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.source), torch.from_numpy(self.target)

    def out_shape(self, shape: Shape) -> Shape:
        fits = len(shape) == 3 and (shape[0], shape[2]) == (self.weight.shape[2], self.joints)
        _require(fits, "GraphConv", f"({self.weight.shape[2]}, T, {self.joints})", shape)
        return (self.weight.shape[1], *shape[1:])

    def apply(self, x: Tensor) -> Tensor:
        n, c, t, v = x.shape
        source, target = self._ends
        columns = x.permute(3, 1, 0, 2).reshape(v, c, n * t)[source]
        y = torch.zeros(v, self.weight.shape[1], n * t).index_add_(0, target, torch.bmm(self._weight, columns))
        return y.view(v, -1, n, t).permute(2, 1, 3, 0)


@dataclass(frozen=True, eq=False)
class Dense:
    """weight (O, I): the last axis, I → O."""

    weight: np.ndarray
    kind = "dense"

    @cached_property
    def _weight(self) -> Tensor:
        return _tensor(self.weight)

    def out_shape(self, shape: Shape) -> Shape:
        _require(shape[-1] == self.weight.shape[1], "Affine or Linear", f"(…, {self.weight.shape[1]})", shape)
        return (*shape[:-1], self.weight.shape[0])

    def apply(self, x: Tensor) -> Tensor:
        return x @ self._weight.T


@dataclass(frozen=True, eq=False)
class SumPool:
    """Sums over windows of the last two axes."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    kind = "pool"

    def out_shape(self, shape: Shape) -> Shape:
        fits = len(shape) == 3 and all(2 * p <= k for p, k in zip(self.padding, self.kernel, strict=True))
        _require(fits, "SumPool2d", "(C, H, W), and a padding of at most half the kernel", shape)
        size = [
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(shape[1:], self.padding, self.kernel, self.stride, strict=True)
        ]
        return (shape[0], *size)

    def apply(self, x: Tensor) -> Tensor:
        if self.kernel == (1, 1) and self.padding == (0, 0):
            return x[:, :, :: self.stride[0], :: self.stride[1]]
        if self.kernel == tuple(x.shape[2:]) and self.padding == (0, 0):
            return x.sum((2, 3), keepdim=True)
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding, divisor_override=1)


@dataclass(frozen=True, eq=False)
class Flatten:
    """Merge the axes start … end of the source's shape."""

    start: int
    end: int
    kind = "flatten"

    def out_shape(self, shape: Shape) -> Shape:
        start, end = self.start % len(shape), self.end % len(shape)
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])

    def apply(self, x: Tensor) -> Tensor:
        return x.flatten(*(axis if axis < 0 else axis + 1 for axis in (self.start, self.end)))


@dataclass(frozen=True, eq=False)
class Scale:
    """A weight per source neuron."""

    weight: np.ndarray
    kind = "scale"

    def out_shape(self, shape: Shape) -> Shape:
        _require(shape == self.weight.shape, "Scale", str(self.weight.shape), shape)
        return shape

    def apply(self, x: Tensor) -> Tensor:
        return x * _tensor(self.weight)


Operator = Conv | GraphConv | Dense | SumPool | Flatten | Scale
Operators = tuple[Operator, ...]


def apply(operators: Operators, x: Tensor) -> Tensor:
    for operator in operators:
        x = operator.apply(x)
    return x


def out_shape(operators: Operators, shape: Shape) -> Shape:
    for operator in operators:
        shape = operator.out_shape(shape)
    return shape


def weights(operators: Operators) -> list[np.ndarray]:
    return [operator.weight for operator in operators if hasattr(operator, "weight")]


def with_weights(operators: Operators, change) -> Operators:
    """The same operators, each array of weights replaced by change(weights)."""
    return tuple(replace(op, weight=change(op.weight)) if hasattr(op, "weight") else op for op in operators)


@torch.no_grad()
def worst_sum(operators: Operators, shape: Shape, peak: float = 1.0) -> float:
    """Largest |sum| into one target neuron, were every source neuron at `peak` (1 for spikes): that of the absolute weights."""
    absolute = with_weights(operators, np.abs)
    return float(apply(absolute, torch.full((1, *shape), peak)).max())


@torch.no_grad()
def largest_fan_in(operators: Operators, shape: Shape) -> int:
    """Synapses of the target neuron that has most."""
    return round(float(apply(with_weights(operators, np.ones_like), torch.ones((1, *shape))).max()))


def fan_out(operators: Operators, shape: Shape, *, nonzero: bool = False) -> np.ndarray:
    """Synapses that leave each source neuron, int64, of `shape`; with `nonzero`, those whose weight is not 0.

    Borders and strides are counted by the operators themselves: the gradient of the sum of all outputs, with every weight
    replaced by 1, is the number of paths from a source neuron.
    """
    pattern = with_weights(operators, (lambda w: (w != 0).astype(np.float32)) if nonzero else np.ones_like)
    with torch.enable_grad():
        x = torch.zeros((1, *shape), requires_grad=True)
        apply(pattern, x).sum().backward()
    assert x.grad is not None
    return np.rint(x.grad[0].numpy()).astype(np.int64)
