"""Folding of batch norms, fusion weights and gains into synapses and thresholds, in float64.

There is one function per equation. A batch norm y = gamma (x - mean) / sqrt(var + eps) + beta after
a linear map W x gives (g W) x + b with g = gamma / sqrt(var + eps) and b = beta - g mean.
"""

import numpy as np
from torch import Tensor, nn

from mksgn.export.errors import NonFiniteWeightsError
from mksgn.train.layers import SMF, SSC, ConvBN, GraphConvBN, SpikingSelfAttention, folded_norm


def array(x: Tensor) -> np.ndarray:
    """Convert a parameter to float64."""
    return x.detach().cpu().double().numpy()


def batch_norm(bn: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Return g and b of y = g x + b, (C,) each."""
    gain, shift = folded_norm(bn)
    return array(gain), array(shift)


def conv(layer: ConvBN) -> tuple[np.ndarray, np.ndarray]:
    """Fold BN(Conv(x)) into a weight (O, I, kh, kw) and a bias (O,)."""
    gain, bias = batch_norm(layer.bn)
    return array(layer.conv.weight) * gain[:, None, None, None], bias


def encoder(layer: SSC) -> tuple[np.ndarray, np.ndarray]:
    """Write the encoder's grouped convolution as a block-diagonal one.

    NIR's grouped Conv2d never passes its type check.

    Returns:
        Weight (G·O, G·I, 3, 3) and bias (G·O,).
    """
    gain, bias = batch_norm(layer.bn)
    grouped = array(layer.conv.weight) * gain[:, None, None, None]
    groups = layer.conv.groups
    outputs, inputs = grouped.shape[0] // groups, grouped.shape[1]
    weight = np.zeros((groups * outputs, groups * inputs, *grouped.shape[2:]))
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        weight[rows, g * inputs : (g + 1) * inputs] = grouped[rows]
    return weight, bias


def fusion(layer: SMF) -> tuple[np.ndarray, np.ndarray]:
    """Fold BN(Conv1x1(sum_i n w_i P_i)) into one 1 x 1 convolution over the n stacked streams.

    Returns:
        Weight (O, n·C0, 1, 1) and bias (O,).
    """
    weight, bias = conv(layer.current)
    shares = layer.streams * array(layer.weights(layer.information))
    return np.concatenate([share * weight for share in shares], axis=1), bias


def graph_conv(layer: GraphConvBN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fold BN(sum_k A_kᵀ X W_k) into adjacency (K, V, V), weight (K, O, I) and bias (O,)."""
    gain, bias = batch_norm(layer.bn)
    weight = array(layer.weight)[..., 0] * gain[:, None, None]
    return array(layer.masked_adjacency()), weight.transpose(2, 0, 1), bias


def attention_thresholds(layer: SpikingSelfAttention) -> tuple[np.ndarray, np.ndarray]:
    """Fold the gains g of both populations: LIF(g a) at threshold th fires as LIF(a) at th / g.

    Returns:
        The thresholds of m and z, (heads,) each.
    """
    threshold_m, threshold_z = array(layer.m_sn.threshold), array(layer.z_sn.threshold)
    return threshold_m * np.exp(-array(layer.log_gain_m)), threshold_z * np.exp(-array(layer.log_gain_z))


def per_edge(adjacency: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rewrite a graph convolution with one subset per edge: W_(i→j) = sum_k A_k[i, j] W_k.

    Returns:
        Adjacency (E, V, V) of 0 and 1, and weight (E, O, I).
    """
    source, target = np.nonzero(np.abs(adjacency).sum(0))
    edges = np.zeros((len(source), *adjacency.shape[1:]))
    edges[np.arange(len(source)), source, target] = 1.0
    return edges, np.einsum("ke,koc->eoc", adjacency[:, source, target], weight)


def check_finite(name: str, *arrays: np.ndarray) -> None:
    """Raise NonFiniteWeightsError, which names `name`, if any value is NaN or infinite."""
    for x in arrays:
        if not np.isfinite(x).all():
            raise NonFiniteWeightsError(
                f"{name}: {int((~np.isfinite(x)).sum())} weights are not finite; train the model again"
            )
