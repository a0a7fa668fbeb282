"""Folding of batch norms, fusion weights and gains into synapses and thresholds, in float64.

There is one function per equation. A batch norm y = gamma (x - mean) / sqrt(var + eps) + beta after
a linear map W x gives (g W) x + b with g = gamma / sqrt(var + eps) and b = beta - g mean.

The results are tensors that carry the parameters' gradients, for quantisation-aware training.
"""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mksgn.export.errors import NonFiniteWeightsError
from mksgn.train.layers import SMF, SSC, ConvBN, GraphConvBN, SpikingSelfAttention, SpikingTokenAttention, folded_norm

Array = TypeVar("Array", np.ndarray, Tensor)


def array(x: Tensor) -> np.ndarray:
    """Convert a parameter to float64."""
    return x.detach().cpu().double().numpy()


def arrays(tensors: Iterable[Tensor]) -> tuple[np.ndarray, ...]:
    """Convert the tensors that a function of this module returns."""
    return tuple(array(x) for x in tensors)


def batch_norm(bn: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return g and b of y = g x + b, (C,) each."""
    return folded_norm(bn)


def conv(layer: ConvBN) -> tuple[Tensor, Tensor]:
    """Fold BN(Conv(x)) into a weight (O, I, kh, kw) and a bias (O,)."""
    gain, bias = batch_norm(layer.bn)
    return layer.conv.weight.double() * gain[:, None, None, None], bias


def encoder(layer: SSC) -> tuple[Tensor, Tensor]:
    """Write the encoder's grouped convolution as a block-diagonal one.

    NIR's grouped Conv2d never passes its type check.

    Returns:
        Weight (G·O, G·I, 3, 3) and bias (G·O,).
    """
    gain, bias = batch_norm(layer.bn)
    grouped = layer.conv.weight.double() * gain[:, None, None, None]
    groups = layer.conv.groups
    outputs, inputs = grouped.shape[0] // groups, grouped.shape[1]
    weight = grouped.new_zeros(groups * outputs, groups * inputs, *grouped.shape[2:])
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        weight[rows, g * inputs : (g + 1) * inputs] = grouped[rows]
    return weight, bias


def fusion(layer: SMF) -> tuple[Tensor, Tensor]:
    """Fold BN(Conv1x1(sum_i n w_i P_i)) into one 1 x 1 convolution over the n stacked streams.

    Returns:
        Weight (O, n·C0, 1, 1) and bias (O,).
    """
    weight, bias = conv(layer.current)
    shares = layer.streams * layer.weights(layer.information).double()
    return torch.cat([share * weight for share in shares], dim=1), bias


def graph_conv(layer: GraphConvBN) -> tuple[Tensor, Tensor, Tensor]:
    """Fold BN(sum_k A_kᵀ X W_k) into adjacency (K, V, V), weight (K, O, I) and bias (O,)."""
    gain, bias = batch_norm(layer.bn)
    weight = layer.weight.double()[..., 0] * gain[:, None, None]
    return layer.masked_adjacency().double(), weight.permute(2, 0, 1), bias


def attention_thresholds(layer: SpikingSelfAttention) -> tuple[Tensor, Tensor]:
    """Fold the gains g of both populations: LIF(g a) at threshold th fires as LIF(a) at th / g.

    Returns:
        The thresholds of m and z, (heads,) each.
    """
    threshold_m, threshold_z = layer.m_sn.threshold.double(), layer.z_sn.threshold.double()
    return threshold_m * torch.exp(-layer.log_gain_m.double()), threshold_z * torch.exp(-layer.log_gain_z.double())


def token_synapses(layer: SpikingTokenAttention, channels: int) -> tuple[Tensor, Tensor]:
    """Write token attention's sums and gates as block-diagonal 1 x 1 convolutions.

    Returns:
        The weights from Q to M, (heads, C, 1, 1), and from M to Z, (C, heads, 1, 1).
    """
    own = torch.eye(layer.heads, dtype=torch.float64).repeat_interleave(channels // layer.heads, dim=1)[..., None, None]
    return layer.weight(channels) * own, own.transpose(0, 1)


def per_edge(adjacency: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rewrite a graph convolution with one subset per edge: W_(i→j) = sum_k A_k[i, j] W_k.

    Returns:
        Adjacency (E, V, V) of 0 and 1, and weight (E, O, I).
    """
    source, target = np.nonzero(np.abs(adjacency).sum(0))
    edges = np.zeros((len(source), *adjacency.shape[1:]))
    edges[np.arange(len(source)), source, target] = 1.0
    return edges, edge_weights(adjacency, weight, source, target)


def edge_weights(adjacency: Array, weight: Array, source: np.ndarray, target: np.ndarray) -> Array:
    """Compute W_(i→j) = sum_k A_k[i, j] W_k, (E, O, I), for the edges from `source` to `target`, (E,) each."""
    einsum = torch.einsum if isinstance(weight, Tensor) else np.einsum
    return einsum("ke,koc->eoc", adjacency[:, source, target], weight)


def check_finite(name: str, *arrays: np.ndarray) -> None:
    """Raise NonFiniteWeightsError, which names `name`, if any value is NaN or infinite."""
    for x in arrays:
        if not np.isfinite(x).all():
            raise NonFiniteWeightsError(
                f"{name}: {int((~np.isfinite(x)).sum())} weights are not finite; train the model again"
            )
