"""Nodes with weights: reading and replacing these, and merging two nodes in series into one, where one of them is simple."""

from __future__ import annotations

import copy

import nir
import numpy as np

from mksgn.export.graph.kinds import DENSE
from mksgn.export.graph.nodes import GraphConv, f32


def weight_of(node: nir.NIRNode) -> np.ndarray:
    """float64."""
    return np.asarray(node.scale if isinstance(node, nir.Scale) else node.weight, dtype=np.float64)


def bias_of(node: nir.NIRNode) -> np.ndarray:
    """float64; of a node without a bias, one 0."""
    return np.asarray(getattr(node, "bias", np.zeros(1)), dtype=np.float64)


def set_weight(node: nir.NIRNode, weight: np.ndarray) -> None:
    setattr(node, "scale" if isinstance(node, nir.Scale) else "weight", f32(weight))


def row_sums(node: nir.NIRNode, weight: np.ndarray) -> np.ndarray:
    """Sums of |weight| into each neuron, borders left aside; of any shape."""
    weight = np.abs(weight)
    if isinstance(node, GraphConv):
        return np.einsum("koc,kij->oj", weight, np.abs(node.adjacency))
    if isinstance(node, nir.Scale):
        return weight
    if isinstance(node, DENSE):
        return weight.sum(-1)
    return weight.reshape(weight.shape[0], -1).sum(1)


def scaled(node: nir.NIRNode, weight: float, bias: float) -> nir.NIRNode:
    """A copy, its weights and its bias times these."""
    new = copy.copy(node)
    set_weight(new, weight_of(node) * weight)
    if hasattr(node, "bias"):
        new.bias = f32(bias_of(node) * bias)
    return new


def merged(first: nir.NIRNode, second: nir.NIRNode) -> nir.NIRNode | None:
    """One node that does what both do, the signal taking `first` first; None where that has no simple form.

    A Scale goes into anything where it is one factor per channel; two dense nodes of one matrix each become their product.
    """
    if isinstance(second, nir.Scale):
        return _scaled_behind(first, weight_of(second))
    if isinstance(first, nir.Scale):
        return _scaled_before(second, weight_of(first))
    both = isinstance(first, DENSE) and isinstance(second, DENSE)
    if not both or first.weight.ndim != 2 or second.weight.ndim != 2:
        return None
    weight, bias = weight_of(second) @ weight_of(first), weight_of(second) @ _row(first) + bias_of(second)
    return nir.Affine(f32(weight), f32(bias)) if bias.any() else nir.Linear(f32(weight))


def _row(node: nir.NIRNode) -> np.ndarray:
    return bias_of(node) if hasattr(node, "bias") else np.zeros(node.weight.shape[-2])


def _scaled_behind(node: nir.NIRNode, scale: np.ndarray) -> nir.NIRNode | None:
    new = copy.copy(node)
    if isinstance(node, nir.Scale):
        return nir.Scale(f32(weight_of(node) * scale))
    if isinstance(node, DENSE):
        weight, bias = weight_of(node) * scale[..., None], _row(node) * scale
        return nir.Affine(f32(weight), f32(bias)) if isinstance(node, nir.Affine) else nir.Linear(f32(weight))
    factors = _per_channel(scale)
    if factors is None:
        return None
    weight = np.moveaxis(weight_of(node), 1 if isinstance(node, GraphConv) else 0, -1) * factors
    set_weight(new, np.moveaxis(weight, -1, 1 if isinstance(node, GraphConv) else 0))
    new.bias = f32(bias_of(node) * factors)
    return new


def _scaled_before(node: nir.NIRNode, scale: np.ndarray) -> nir.NIRNode | None:
    new = copy.copy(node)
    if isinstance(node, DENSE):
        weight = weight_of(node) * scale[..., None, :]
        bias = np.broadcast_to(_row(node), weight.shape[:-1])
        return nir.Affine(f32(weight), f32(bias)) if isinstance(node, nir.Affine) else nir.Linear(f32(weight))
    factors = _per_channel(scale)
    if factors is None:
        return None
    weight = weight_of(node)
    if isinstance(node, GraphConv):
        set_weight(new, weight * factors)
        return new
    groups, width = int(node.groups), weight.shape[1]
    rows = np.repeat(factors.reshape(groups, width), len(weight) // groups, axis=0)  # of each output, its inputs'
    set_weight(new, weight * rows.reshape(*rows.shape, *(1,) * (weight.ndim - 2)))
    return new


def _per_channel(scale: np.ndarray) -> np.ndarray | None:
    """(C,) where nothing else changes the factor."""
    flat = scale.reshape(len(scale), -1)
    return flat[:, 0] if np.array_equal(flat, np.broadcast_to(flat[:, :1], flat.shape)) else None
