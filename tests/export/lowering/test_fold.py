"""Every folding gives the same result as the module that it folds."""

import numpy as np
import pytest
import torch

from mksgn.export.errors import NonFiniteWeightsError
from mksgn.export.lowering import fold
from tests.support.students import tiny


@pytest.fixture(scope="module")
def student():
    return tiny()[0].student.double()


def random(*shape) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 2, shape).astype(np.float64))


def conv(x, weight, bias, **how):
    return torch.nn.functional.conv2d(x, weight, bias, **how)


@torch.no_grad()
def test_conv(student):
    layer = student.stc[0].conv
    x = random(2, 8, 8, 25)
    torch.testing.assert_close(conv(x, *fold.conv(layer), padding=(2, 0)), layer(x))


@torch.no_grad()
def test_encoder_is_block_diagonal(student):
    layer = student.ssc
    weight, bias = fold.encoder(layer)
    x = random(2, 12, 8, 25)
    torch.testing.assert_close(conv(x, weight, bias, padding=1), layer.bn(layer.conv(x)))
    blocks = weight.reshape(4, 4, 4, 3, 3, 3)  # stream out, channel, stream in, coordinate, 3 x 3
    assert all(not blocks[i, :, j].any() for i in range(4) for j in range(4) if i != j)


@torch.no_grad()
def test_fusion(student):
    layer = student.smf
    x = random(1, 2, 16, 8, 25)
    shares = torch.softmax(layer.g * layer.information + layer.b, 0)
    fused = sum(4 * shares[i] * x[0, :, 4 * i : 4 * i + 4] for i in range(4))
    torch.testing.assert_close(conv(x[0], *fold.fusion(layer)), layer.current(fused))
    assert shares.max() - shares.min() > 0.01


@torch.no_grad()
def test_graph_conv_and_its_form_per_edge(student):
    layer = student.sgc[0].graph
    adjacency, weight, bias = fold.arrays(fold.graph_conv(layer))
    x = random(2, 8, 8, 25)
    spread = np.einsum("kij,ncti->knctj", adjacency, x.numpy())
    want = layer(x).numpy()
    np.testing.assert_allclose(np.einsum("koc,knctj->notj", weight, spread) + bias[:, None, None], want, atol=1e-9)
    edges, per_edge = fold.per_edge(adjacency, weight)
    assert set(np.unique(edges)) == {0.0, 1.0}
    assert (edges.sum((1, 2)) == 1).all()
    assert len(edges) == 25 + 2 * 24
    spread = np.einsum("kij,ncti->knctj", edges, x.numpy())
    np.testing.assert_allclose(np.einsum("koc,knctj->notj", per_edge, spread) + bias[:, None, None], want, atol=1e-9)


def test_attention_thresholds(student):
    layer = student.sgc[0].attention
    for threshold, log_gain in zip(
        fold.arrays(fold.attention_thresholds(layer)), (layer.log_gain_m, layer.log_gain_z), strict=True
    ):
        np.testing.assert_allclose(threshold * np.exp(log_gain.detach().numpy()), 1.0)


def test_a_weight_that_is_not_finite_is_named():
    with pytest.raises(NonFiniteWeightsError, match="block1: 2 weights are not finite"):
        fold.check_finite("block1", np.zeros(3), np.array([np.nan, 1.0, np.inf]))
