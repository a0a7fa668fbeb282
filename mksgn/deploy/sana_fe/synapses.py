"""The synapses of a projection, one by one."""

from dataclasses import dataclass

import numpy as np
import torch

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Projection

VALUES = 1 << 24  # currents held at a time


@dataclass(frozen=True, eq=False)
class Synapses:
    """Synapses of a projection, sorted by source: flat indices and integer weights, int64 (synapses,).

    Weights of 0 are synapses too. Where several paths join two neurons, each is a synapse, as everywhere
    in the counts; the first carries the sum, the others 0.
    """

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray


@torch.no_grad()
def synapses(projection: Projection, shape: tuple[int, ...]) -> Synapses:
    """List the synapses of a projection from a population of `shape`, from the current of each single spike."""
    size = int(np.prod(shape))
    targets = int(np.prod(ops.out_shape(projection.operators, shape)))
    ones = ops.with_weights(projection.operators, np.ones_like)
    parts = []
    chunk = max(1, VALUES // max(size, targets))
    for first in range(0, size, chunk):
        count = min(chunk, size - first)
        spikes = torch.zeros(count, size)
        spikes[torch.arange(count), first + torch.arange(count)] = 1
        weight = ops.apply(projection.operators, spikes.view(count, *shape)).reshape(count, -1).numpy()
        paths = ops.apply(ones, spikes.view(count, *shape)).reshape(count, -1).numpy()
        source, target = np.nonzero(paths)
        parts.append((source + first, target, weight[source, target], np.rint(paths[source, target])))
    source, target, weight, paths = (np.concatenate(x).astype(np.int64) for x in zip(*parts, strict=True))
    first_path = np.cumsum(paths) - paths
    every = np.zeros(int(paths.sum()), dtype=np.int64)
    every[first_path] = weight
    return Synapses(np.repeat(source, paths), np.repeat(target, paths), every)
