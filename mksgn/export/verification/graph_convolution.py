"""Graph convolution with one block of weights per edge, in few matrix products."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Neighbourhoods:
    """Joints that equally many edges reach: `targets` (n,), and their `sources` and `edges`, (n, degree) each."""

    targets: np.ndarray
    sources: np.ndarray
    edges: np.ndarray

    def products(self, weight: Tensor, columns: Tensor) -> Tensor:
        """Multiply the blocks (E, C_out, C_in) of these edges by the columns (V, C_in, N) of the sources.

        Returns:
            The sums for each target, (n, C_out, N).
        """
        n, degree = self.edges.shape
        blocks = weight.index_select(0, _index(self.edges.ravel(), weight))
        rows = blocks.view(n, degree, *weight.shape[1:]).transpose(1, 2).flatten(2)  # (n, C_out, degree · C_in)
        if (self.sources == self.sources[0]).all():  # e.g. where every joint reaches every joint: one product for all
            one = columns[_index(self.sources[0], weight)].flatten(0, 1)
            return (rows.flatten(0, 1) @ one).view(*rows.shape[:2], -1)
        return torch.bmm(rows, columns[_index(self.sources, weight)].flatten(1, 2))


def by_degree(source: np.ndarray, target: np.ndarray) -> list[Neighbourhoods]:
    """Group the target joints of edges (E,) by how many edges reach them."""
    order = np.argsort(target, kind="stable")
    targets, first, degrees = np.unique(target[order], return_index=True, return_counts=True)
    groups = []
    for degree in np.unique(degrees):
        alike = degrees == degree
        edges = order[first[alike][:, None] + np.arange(degree)]
        groups.append(Neighbourhoods(targets[alike], source[edges], edges))
    return groups


def graph_convolution(x: Tensor, weight: Tensor, source: np.ndarray, target: np.ndarray) -> Tensor:
    """Apply the blocks (E, C_out, C_in) of edges from `source` to `target`, (E,) each.

    Args:
        x: (N, C_in, T, V).
        weight: The blocks.
        source: Joints.
        target: Joints.

    Returns:
        (N, C_out, T, V). The order of its sums depends on the edges; sums of integers are exact in any order.
    """
    n, c, t, v = x.shape
    columns = x.permute(3, 1, 0, 2).reshape(v, c, n * t)
    y = x.new_zeros(v, weight.shape[1], n * t)
    for group in by_degree(source, target):
        y = y.index_copy(0, _index(group.targets, x), group.products(weight, columns))
    return y.view(v, -1, n, t).permute(2, 1, 3, 0)


def _index(joints: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(joints).to(like.device)
