"""Read and replace the weights of nodes, and merge two nodes in series where one of them is simple."""

import copy

import nir
import numpy as np

from mksgn.export.graph.blocks import BLOCK, blocks_of_rows
from mksgn.export.graph.kinds import DENSE
from mksgn.export.graph.nodes import GraphConv, f32


def stored_weight(node: nir.NIRNode) -> np.ndarray:
    """Return the node's weights as it holds them, without a copy."""
    return np.asarray(node.scale if isinstance(node, nir.Scale) else node.weight)


def weight_of(node: nir.NIRNode) -> np.ndarray:
    """Return the node's weights as float64."""
    return np.asarray(stored_weight(node), dtype=np.float64)


def largest_weight(weight: np.ndarray) -> float:
    """Return the largest |weight|, or 0 if there is none."""
    return max(float(weight.max(initial=0)), -float(weight.min(initial=0)))


def bias_of(node: nir.NIRNode) -> np.ndarray:
    """Return the node's bias as float64; a single 0 if it has none."""
    return np.asarray(getattr(node, "bias", np.zeros(1)), dtype=np.float64)


def set_weight(node: nir.NIRNode, weight: np.ndarray) -> None:
    """Replace the node's weights, in place."""
    setattr(node, "scale" if isinstance(node, nir.Scale) else "weight", f32(weight))


def row_sums(node: nir.NIRNode, weight: np.ndarray) -> np.ndarray:
    """Sum |weight| into each neuron in float64, as if there were no borders; the result has any shape."""
    if isinstance(node, DENSE) and weight.size > BLOCK:
        rows = blocks_of_rows(weight)
        return np.concatenate([np.abs(np.asarray(weight[part], dtype=np.float64)).sum(-1) for part in rows])
    weight = np.abs(np.asarray(weight, dtype=np.float64))
    if isinstance(node, GraphConv):
        return weight.sum(2).T @ np.abs(node.adjacency).sum(1, dtype=np.float64)
    if isinstance(node, nir.Scale):
        return weight
    if isinstance(node, DENSE):
        return weight.sum(-1)
    return weight.reshape(weight.shape[0], -1).sum(1)


def scaled(node: nir.NIRNode, weight: float, bias: float) -> nir.NIRNode:
    """Copy the node, with its weights and its bias multiplied by these factors."""
    new = copy.copy(node)
    set_weight(new, weight_of(node) * weight)
    if hasattr(node, "bias"):
        new.bias = f32(bias_of(node) * bias)
    return new


def merged(first: nir.NIRNode, second: nir.NIRNode) -> nir.NIRNode | None:
    """Merge two weighted nodes in series into one; None if that has no simple form.

    A Scale merges into any node if it has one factor per channel; two dense nodes of one matrix each
    become their product.
    """
    if isinstance(second, nir.Scale):
        return _with_scale_after(first, weight_of(second))
    if isinstance(first, nir.Scale):
        return _with_scale_before(second, weight_of(first))
    both = isinstance(first, DENSE) and isinstance(second, DENSE)
    if not both or first.weight.ndim != 2 or second.weight.ndim != 2:
        return None
    bias = weight_of(second) @ _dense_bias(first) + bias_of(second)
    return _dense(weight_of(second) @ weight_of(first), bias, affine=bool(bias.any()))


def _dense(weight: np.ndarray, bias: np.ndarray, *, affine: bool) -> nir.NIRNode:
    return nir.Affine(f32(weight), f32(bias)) if affine else nir.Linear(f32(weight))


def _dense_bias(node: nir.NIRNode) -> np.ndarray:
    return bias_of(node) if hasattr(node, "bias") else np.zeros(node.weight.shape[-2])


def _with_scale_after(node: nir.NIRNode, scale: np.ndarray) -> nir.NIRNode | None:
    if isinstance(node, nir.Scale):
        return nir.Scale(f32(weight_of(node) * scale))
    if isinstance(node, DENSE):
        weight, bias = weight_of(node) * scale[..., None], _dense_bias(node) * scale
        return _dense(weight, bias, affine=isinstance(node, nir.Affine))
    factors = _per_channel(scale)
    if factors is None:
        return None
    new, outputs = copy.copy(node), 1 if isinstance(node, GraphConv) else 0
    set_weight(new, np.moveaxis(np.moveaxis(weight_of(node), outputs, -1) * factors, -1, outputs))
    new.bias = f32(bias_of(node) * factors)
    return new


def _with_scale_before(node: nir.NIRNode, scale: np.ndarray) -> nir.NIRNode | None:
    weight = weight_of(node)
    if isinstance(node, DENSE):
        weight = weight * scale[..., None, :]
        bias = np.broadcast_to(_dense_bias(node), weight.shape[:-1])
        return _dense(weight, bias, affine=isinstance(node, nir.Affine))
    factors = _per_channel(scale)
    if factors is None:
        return None
    if not isinstance(node, GraphConv):
        groups, width = int(node.groups), weight.shape[1]
        # for each output, the factors of its inputs
        factors = np.repeat(factors.reshape(groups, width), len(weight) // groups, axis=0)
        factors = factors.reshape(*factors.shape, *(1,) * (weight.ndim - 2))
    new = copy.copy(node)
    set_weight(new, weight * factors)
    return new


def _per_channel(scale: np.ndarray) -> np.ndarray | None:
    """Return the factors as (C,) if they differ between channels only, else None."""
    flat = scale.reshape(len(scale), -1)
    return flat[:, 0] if np.array_equal(flat, np.broadcast_to(flat[:, :1], flat.shape)) else None
