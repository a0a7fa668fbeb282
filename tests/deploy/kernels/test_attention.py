"""Attention's products on bits give the counts of matrix products."""

import numpy as np
import pytest
import torch

from mksgn.deploy.event_counts import coincidences
from mksgn.deploy.kernels import attention
from mksgn.deploy.program.program import Product


@pytest.mark.parametrize("rate", [0.0, 0.15, 1.0])
@pytest.mark.parametrize(("heads", "width", "joints"), [(1, 1, 1), (2, 3, 5), (8, 8, 20), (2, 32, 25), (1, 70, 33)])
def test_both_parts(heads, width, joints, rate):
    rng = np.random.default_rng(heads)
    qkv = torch.from_numpy((rng.random((3, 3 * heads * width, 4, joints)) < rate).astype(np.uint8))
    m = torch.from_numpy((rng.random((3, heads, 4, joints, joints)) < rate).astype(np.uint8))
    for part, inputs in (("m", (qkv,)), ("z", (m, qkv))):
        product = Product("p", part, ("m", "qkv")[-len(inputs) :], "t", heads, 6.0, (0,) * len(inputs), _width=width)
        current, count = attention.current(product, inputs)
        expected = product.current(inputs)
        assert torch.equal(current.float(), expected)
        assert count == coincidences(product, expected)
