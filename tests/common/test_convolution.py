"""Convolutions read nothing but their input, however it lies in memory."""

import pytest
import torch
import torch.nn.functional as F

from mksgn.common.convolution import convolve

BEHIND = 4096


def among_nans(x: torch.Tensor, *, channels_last: bool) -> torch.Tensor:
    """Copy x to the middle of a buffer of NaN; a single channel has either stride there."""
    buffer = torch.full((x.numel() + 2 * BEHIND,), float("nan"))
    _, c, h, w = x.shape
    strides = (h * w * c, 1, w * c, c) if channels_last else (h * w * c, h * w, w, 1)
    inside = buffer.as_strided(x.shape, strides, BEHIND)
    return inside.copy_(x)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (2, 1), (2, 2)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_a_convolution_reads_its_input_alone(channels_last, channels, stride, padding):
    random = torch.Generator().manual_seed(0)
    for height, width in ((3, 4), (4, 3), (3, 3), (8, 5)):
        x = torch.randint(0, 2, (3, channels, height, width), generator=random).float()
        weight = torch.randint(-9, 10, (2, channels, 3, 3), generator=random).float()
        # by matrix product, without torch's convolutions
        rows = F.unfold(x, 3, padding=padding, stride=stride)
        expected = (weight.flatten(1) @ rows).view(3, 2, (height + 2 * padding[0] - 3) // stride[0] + 1, -1)
        inside = among_nans(x, channels_last=channels_last)
        assert torch.equal(convolve(inside, weight, None, stride, padding), expected)


def test_one_axis_is_convolved_too():
    x = torch.tensor([[[0.0, 1.0, 1.0, 0.0]]])
    assert convolve(x, torch.tensor([[[1.0, 2.0]]])).tolist() == [[[2.0, 3.0, 1.0]]]
