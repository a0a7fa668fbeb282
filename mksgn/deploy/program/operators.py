"""Linear operators of projections, as exact matrix products on (N, *source shape) tensors.

Weights are integers in fixed-point programs. While every partial sum stays below 2^24, which the
fixed-point pass checks, float32 sums are exact in any order. Spikes are uint8 or float32. On the
chip's populations the fused kernels (mksgn/deploy/kernels) form the same sums.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mksgn.common.convolution import convolve
from mksgn.deploy.errors import DeployError
from mksgn.export.graph.blocks import blocks_of_rows

Shape = tuple[int, ...]


def _require(fits: bool, kind: str, takes: str, shape: Shape) -> None:
    if not fits:
        raise DeployError(f"{kind} takes {takes}, its source has {shape}")


class _Weighted:
    """Weights as float32 tensors, one per device."""

    weight: np.ndarray

    def on(self, device: torch.device) -> Tensor:
        tensors = self._tensors  # read once: at first, another thread may replace it with its own dict
        if device not in tensors:
            tensors[device] = torch.from_numpy(np.ascontiguousarray(self.weight, dtype=np.float32)).to(device)
        return tensors[device]

    @cached_property
    def _tensors(self) -> dict[torch.device, Tensor]:
        return {}


def _sizes(shape: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape) -> Shape:
    each = zip(shape, kernel, stride, padding, dilation, strict=True)
    return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in each)


@dataclass(frozen=True, eq=False)
class Conv(_Weighted):
    """Convolution: weight (C_out, C_in / groups, kh, kw) on (C_in, H, W), or (C_out, C_in / groups,
    k) on (C_in, L).
    """

    weight: np.ndarray
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    # zeros at the end of each axis, on top of its padding: "same" of an even kernel is not
    # symmetric
    extra_end_padding: tuple[int, ...] = (0, 0)
    kind = "conv"

    def out_shape(self, shape: Shape) -> Shape:
        kernel = self.weight.shape[2:]
        channels = self.weight.shape[1] * self.groups
        axes = "L" if len(kernel) == 1 else "H, W"
        fits = len(shape) == len(kernel) + 1 and shape[0] == channels
        _require(fits, f"Conv{len(kernel)}d", f"({channels}, {axes})", shape)
        padded = tuple(n + more for n, more in zip(shape[1:], self.extra_end_padding, strict=False))
        size = _sizes(padded, kernel, self.stride, self.padding, self.dilation)
        _require(min(size) > 0, f"Conv{len(kernel)}d", f"at least its kernel's {' x '.join(map(str, kernel))}", shape)
        return (self.weight.shape[0], *size)

    @property
    def _pointwise(self) -> bool:
        return (
            self.weight.shape[2:] == (1, 1)
            and self.padding == (0, 0)
            and self.groups == 1
            and not any(self.extra_end_padding)
        )

    def apply(self, x: Tensor) -> Tensor:
        if any(self.extra_end_padding):
            x = F.pad(x, [zeros for more in reversed(self.extra_end_padding) for zeros in (0, more)])
        if self._pointwise:
            x = x[:, :, :: self.stride[0], :: self.stride[1]]
        x = x.float()
        weight = self.on(x.device)
        if self._pointwise:
            return torch.matmul(weight[:, :, 0, 0], x.flatten(2)).view(len(x), -1, *x.shape[2:])
        return convolve(x, weight, None, self.stride, self.padding, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class GraphConv(_Weighted):
    """Graph convolution: one C_out x C_in block of weights per edge (source joint → target joint),
    never the dense V·C square.

    (C_in, T, V) → (C_out, T, V); weight (E, C_out, C_in), source and target (E,).
    """

    weight: np.ndarray
    source: np.ndarray
    target: np.ndarray
    joints: int
    kind = "graph_conv"

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.source), torch.from_numpy(self.target)

    def out_shape(self, shape: Shape) -> Shape:
        fits = len(shape) == 3 and (shape[0], shape[2]) == (self.weight.shape[2], self.joints)
        _require(fits, "GraphConv", f"({self.weight.shape[2]}, T, {self.joints})", shape)
        return (self.weight.shape[1], *shape[1:])

    def apply(self, x: Tensor) -> Tensor:
        n, c, t, v = x.shape
        weight = self.on(x.device)
        source, target = (ends.to(x.device) for ends in self._ends)
        columns = x.float().permute(3, 1, 0, 2).reshape(v, c, n * t)[source]
        y = torch.zeros(v, weight.shape[1], n * t, device=x.device)
        y.index_add_(0, target, torch.bmm(weight, columns))
        return y.view(v, -1, n, t).permute(2, 1, 3, 0)


@dataclass(frozen=True, eq=False)
class Dense(_Weighted):
    """Matrix on the last axis: weight (O, I), or (*batch, O, I) with one matrix for each index of
    the axes before it.
    """

    weight: np.ndarray
    kind = "dense"

    def out_shape(self, shape: Shape) -> Shape:
        batch = self.weight.shape[:-2]
        fits = shape[-1:] == self.weight.shape[-1:] and (not batch or shape[:-1] == batch)
        takes = ", ".join(map(str, (*batch, self.weight.shape[-1]))) if batch else f"…, {self.weight.shape[-1]}"
        _require(fits, "Affine or Linear", f"({takes})", shape)
        return (*shape[:-1], self.weight.shape[-2])

    def apply(self, x: Tensor) -> Tensor:
        x = x.float()
        weight = self.on(x.device)
        return x @ weight.T if weight.ndim == 2 else torch.einsum("...oi,n...i->n...o", weight, x)


@dataclass(frozen=True, eq=False)
class SumPool:
    """Sums over windows of the last two axes."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    kind = "pool"

    def out_shape(self, shape: Shape) -> Shape:
        _require(len(shape) == 3, "SumPool2d", "(C, H, W)", shape)
        size = _sizes(shape[1:], self.kernel, self.stride, self.padding, (1, 1))
        _require(min(size) > 0, "SumPool2d", f"at least its window of {self.kernel[0]} x {self.kernel[1]}", shape)
        return (shape[0], *size)

    def apply(self, x: Tensor) -> Tensor:
        if self.kernel == (1, 1) and self.padding == (0, 0):
            return x[:, :, :: self.stride[0], :: self.stride[1]]
        if self.kernel == tuple(x.shape[2:]) and self.padding == (0, 0):
            return x.sum((2, 3), keepdim=True, dtype=torch.float32)
        # torch's own padding of a pool is at most half of the kernel
        height, width = self.padding
        padded = F.pad(x.float(), (width, width, height, height))
        return F.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)


@dataclass(frozen=True, eq=False)
class Flatten:
    """Merge the axes start … end of the source's shape."""

    start: int
    end: int
    kind = "flatten"

    def out_shape(self, shape: Shape) -> Shape:
        axes = range(-len(shape), len(shape))
        fits = self.start in axes and self.end in axes and self.start % len(shape) <= self.end % len(shape)
        _require(fits, "Flatten", f"axes {self.start} to {self.end}, the batch's not counted", shape)
        start, end = self.start % len(shape), self.end % len(shape)
        return (*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])

    def apply(self, x: Tensor) -> Tensor:
        return x.flatten(*(axis if axis < 0 else axis + 1 for axis in (self.start, self.end)))


@dataclass(frozen=True, eq=False)
class Scale(_Weighted):
    """A weight per source neuron, or one for all."""

    weight: np.ndarray
    kind = "scale"

    def out_shape(self, shape: Shape) -> Shape:
        _require(self.weight.size == 1 or shape == self.weight.shape, "Scale", str(self.weight.shape), shape)
        return shape

    def apply(self, x: Tensor) -> Tensor:
        return x * self.on(x.device)


@dataclass(frozen=True, eq=False)
class Mask:
    """Pass the neurons that share a delay: bool, of the source's shape."""

    passes: np.ndarray
    kind = "mask"

    def out_shape(self, shape: Shape) -> Shape:
        _require(shape == self.passes.shape, "Delay", str(self.passes.shape), shape)
        return shape

    def apply(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(self.passes).to(x.device, x.dtype)


Operator = Conv | GraphConv | Dense | SumPool | Flatten | Scale | Mask
Operators = tuple[Operator, ...]

# Most paths counted for one neuron, because the layers of a deep chain multiply them without bound: more than the
# synapses of any chip, and few enough that products with counts of spikes stay within 64 bits.
MOST_PATHS = 1 << 40
OUTPUT_AXIS = {"conv": 0, "graph_conv": 1, "dense": -2}  # of a weight, where an operator has output channels


def apply(operators: Operators, x: Tensor) -> Tensor:
    for operator in operators:
        x = operator.apply(x)
    return x


def out_shape(operators: Operators, shape: Shape) -> Shape:
    for operator in operators:
        shape = operator.out_shape(shape)
    return shape


def weights(operators: Operators) -> list[np.ndarray]:
    return [operator.weight for operator in operators if isinstance(operator, _Weighted)]


def with_weights(operators: Operators, change: Callable[[np.ndarray], np.ndarray]) -> Operators:
    """Replace each array of weights by change(weights)."""
    return tuple(replace(op, weight=change(op.weight)) if isinstance(op, _Weighted) else op for op in operators)


@torch.no_grad()
def worst_sum(operators: Operators, shape: Shape, peak: float = 1.0) -> float:
    """Return the largest sum of absolute weights into one target neuron, times `peak`, the largest
    |value| of a source (1 for spikes).
    """
    x = torch.full((1, *shape), peak)
    if operators and isinstance(operators[-1], Dense) and operators[-1].weight.ndim == 2:
        # some neurons at a time, without a copy of all weights
        x, weight = apply(with_weights(operators[:-1], np.abs), x), operators[-1].weight
        return max(float(Dense(np.abs(weight[part])).apply(x).max()) for part in blocks_of_rows(weight))
    return float(apply(with_weights(operators, np.abs), x).max())


def _synapses(operator: Operator, nonzero: bool, *, summed: bool) -> Operator:
    """Replace weights by 1 or, with `nonzero`, by 0 where they are 0; `summed` over any output channels."""
    if not isinstance(operator, _Weighted):
        return operator
    weight = operator.weight
    axis = OUTPUT_AXIS.get(operator.kind) if summed and getattr(operator, "groups", 1) == 1 else None
    if axis is None:
        return replace(operator, weight=(weight != 0 if nonzero else np.ones_like(weight)).astype(np.float32))
    if nonzero:
        return replace(operator, weight=np.count_nonzero(weight, axis, keepdims=True).astype(np.float32))
    one = weight.take([0], axis)
    return replace(operator, weight=np.full_like(one, weight.shape[axis], dtype=np.float32))


def fan_out(operators: Operators, shape: Shape, *, nonzero: bool = False) -> np.ndarray:
    """Count the synapses that leave each source neuron, int64, of `shape`; with `nonzero`, those
    whose weight is not 0.

    The operators themselves account for borders and strides: with every weight replaced by 1, the
    gradient of the sum of all outputs is the number of paths from a source neuron. The last operator
    already sums its output channels, so that its weights take the memory of one. At most MOST_PATHS are counted.
    """
    last = len(operators) - 1
    pattern = tuple(_synapses(op, nonzero, summed=i == last) for i, op in enumerate(operators))
    with torch.enable_grad():
        x = torch.zeros((1, *shape), requires_grad=True)
        apply(pattern, x).sum().backward()
    assert x.grad is not None
    paths = np.nan_to_num(x.grad[0].numpy(), nan=MOST_PATHS, posinf=MOST_PATHS)  # float32 overflows in a deep chain
    return np.rint(np.minimum(paths, MOST_PATHS)).astype(np.int64)
