"""Which neurons of a run are updated at which step: the part of a placement's counts that is the same for any cores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program


class Activity:
    """Spikes of a run, and what follows from them without a placement.

    Args:
        program: the compiled network.
        spikes: (samples, steps, *shape) bool by population, those of the host and of spiking inputs
            included.
    """

    def __init__(self, program: Program, spikes: Mapping[str, np.ndarray]):
        self.program, self.spikes = program, spikes
        self.samples, self.steps = next(iter(spikes.values())).shape[:2]

    @cached_property
    def updated(self) -> dict[str, np.ndarray]:
        """Whether each neuron on the chip received a spike, has a bias, or fired: (samples, steps, *shape) bool.

        A neuron that only decays does not count. Graded values arrive at every step.
        """
        return {
            p.name: self._updated(p) for p in self.program.populations if p.location == "chip" and p.kind != "input"
        }

    def _updated(self, population: Population) -> np.ndarray:
        updated = np.zeros((self.samples, self.steps, *population.shape), dtype=bool) | _has_bias(population)
        if population.fires:
            updated |= self.spikes[population.name]
        for projection in self.program.into(population.name):
            if not all(self.program.sends_spikes(source) for source in projection.sources):
                updated[:] = True
                continue
            for sample in range(self.samples):
                updated[sample] |= self._received(projection, sample)
        return updated

    def _received(self, projection: AnyProjection, sample: int) -> np.ndarray:
        """Return whether each neuron of the target receives a spike, over any synapse: (steps, *shape) bool."""
        arrays = [self.arrived(projection, i, sample) for i in range(len(projection.sources))]
        inputs = tuple(torch.from_numpy(x.astype(np.float32)) for x in arrays)
        with torch.no_grad():
            if isinstance(projection, Product):
                return np.asarray(projection.current(inputs) > 0)
            return np.asarray(ops.apply(ops.with_weights(projection.operators, np.ones_like), inputs[0]) > 0)

    def arrived(self, projection: AnyProjection, index: int, sample: int) -> np.ndarray:
        """Return the spikes of one source at the steps at which the target sees them: (steps, *shape) bool."""
        sent = self.spikes[projection.sources[index]][sample]
        delay = self.program.arrival_delay(projection, index)
        if not delay:
            return sent
        arrived = np.zeros_like(sent)
        arrived[delay:] = sent[: max(0, len(sent) - delay)]
        return arrived


def _has_bias(population: Population) -> np.ndarray:
    """Return whether a neuron has a bias; broadcasts against the shape."""
    if population.neuron is None:
        return np.asarray(population.bias is not None)
    late = any(np.any(bias) for _, bias in population.late_biases)
    return np.asarray(population.neuron.bias != 0) | late
