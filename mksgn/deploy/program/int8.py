"""Products of spikes (0, 1) with 8-bit synapses in 8-bit instructions: exact int32 sums, several
times as fast as float32.

They are oneDNN's u8 x s8 products, which torch has for its own quantised models on x86. A pair of
products, at most 2 · 127, fits the 16 bits in which older instructions add them. These operators
are internal to torch: where they are missing, or a trial differs from the float32 product, `linear`
and `conv` return None, and float32 computes the same sums.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

STEP = 2.0  # mixed-sign synapses are even: what is stored is half of the weight
HALF_LIMIT = 127

Product = Callable[[Tensor], Tensor]


def storable(weight: np.ndarray) -> bool:
    """Whether all weights are even integers of a signed 8-bit synapse."""
    half = weight / STEP
    return bool(weight.size) and bool((np.rint(half) == half).all()) and float(np.abs(half).max()) <= HALF_LIMIT


def linear(weight: np.ndarray) -> Product | None:
    """Return the product (N, I) uint8 → (N, O) float32 of a weight (O, I); None: use float32."""
    return _linear(weight) if storable(weight) and available() else None


def conv(
    weight: np.ndarray, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Product | None:
    """Return the product (N, I, H, W) uint8 → (N, O, H', W') float32 of a weight (O, I / groups, kh, kw).

    Channels are last in memory. None: use float32.
    """
    return _conv(weight, stride, padding, dilation, groups) if storable(weight) and available() else None


@cache
def available() -> bool:
    """Whether this torch has the products on this machine, and they are correct."""
    weight = np.arange(-127, 128, dtype=np.float32)[:252].reshape(4, 7, 3, 3) * STEP
    x = (torch.arange(2 * 7 * 5 * 6) % 3 != 0).to(torch.uint8).view(2, 7, 5, 6)
    try:
        flat = _linear(weight.reshape(4, -1))(x[:, :, :3, :3].reshape(2, -1))
        expected = x[:, :, :3, :3].reshape(2, -1).float() @ torch.from_numpy(weight.reshape(4, -1)).T
        convolved = _conv(weight, (1, 1), (1, 1), (1, 1), 1)(x)
        expected_conv = torch.nn.functional.conv2d(x.float(), torch.from_numpy(weight), None, 1, 1)
    except (RuntimeError, AttributeError, TypeError):  # another machine, or another torch
        return False
    return torch.equal(flat, expected) and torch.equal(convolved, expected_conv)


def _linear(weight: np.ndarray) -> Product:
    outputs = weight.shape[0]
    scale, zero = torch.full((outputs,), STEP), torch.zeros(outputs, dtype=torch.int32)
    packed = torch.ops.onednn.qlinear_prepack(_half(weight), None)

    def product(x: Tensor) -> Tensor:
        return torch.ops.onednn.qlinear_pointwise(
            x, 1.0, 0, packed, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
        )

    return product


def _conv(
    weight: np.ndarray, stride: tuple[int, ...], padding: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Product:
    outputs = weight.shape[0]
    scale, zero = torch.full((outputs,), STEP), torch.zeros(outputs, dtype=torch.int32)
    geometry = list(stride), list(padding), list(dilation), groups
    packed = torch.ops.onednn.qconv_prepack(_half(weight), scale, 1.0, 0, *geometry, None)

    def product(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv2d_pointwise(
            x, 1.0, 0, packed, scale, zero, None, *geometry, 1.0, 0, torch.float32, "none", [], ""
        )

    return product


def _half(weight: np.ndarray) -> Tensor:
    return torch.from_numpy(np.rint(weight / STEP).astype(np.int8))
