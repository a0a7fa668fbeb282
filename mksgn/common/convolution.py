"""torch's convolutions, kept from reading beyond their input."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of (N, C, L) or (N, C, H, W) with a weight of as many axes, as torch defines it.

    A single channel with the strides of channels last is copied to the usual layout: for some strides of the kernel,
    oneDNN (torch 2.13, AVX-512) multiplies what lies behind the input in memory by zero, which gives NaN if it is NaN.
    """
    if x.shape[1] == 1:
        x = x.flatten(1).view(x.shape)
    conv = F.conv1d if weight.ndim == 3 else F.conv2d
    return conv(x, weight, bias, stride, padding, dilation, groups)
