"""Counting a population's events while it runs: spikes, deliveries, coincidences, the largest membrane and current."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.execution import Counters
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program


class EventCounter:
    """Counts one population's events while it runs. `spikes` and values are tensors with any axes before the population's own."""

    def __init__(self, program: Program, population: Population):
        self.program, self.population = program, population
        self.per_neuron = np.zeros(population.shape, dtype=np.int64)
        self.coincidences = 0.0
        self.max_membrane = self.max_current = 0.0
        self.deliveries: dict[tuple[AnyProjection, int], np.ndarray] = {}  # where not all spikes of a source arrive

    def record_spikes(self, spikes: Tensor) -> None:
        self.per_neuron += _summed(spikes, self.population)

    def record_membrane(self, h: Tensor, scale: float) -> None:
        self.max_membrane = max(self.max_membrane, largest(h) / scale)

    def record_current(self, current: Tensor) -> None:
        self.max_current = max(self.max_current, largest(current))

    def record_coincidences(self, projection: AnyProjection, current: Tensor) -> None:
        if isinstance(projection, Product):
            self.coincidences += coincidences(projection, current)

    def record_deliveries(self, projection: AnyProjection, inputs: list[Tensor]) -> None:
        """Spikes that did arrive, of a projection whose last ones of a clip do not."""
        for index, (source, x) in enumerate(zip(projection.sources, inputs, strict=True)):
            if self.program.sends_spikes(source):
                self.deliveries[projection, index] += _summed(x, self.program[source])

    def expect_deliveries(self, projection: AnyProjection) -> None:
        """Of this projection only what `arrived` is told counts: a delay may hold back all spikes of a clip."""
        for index, source in enumerate(projection.sources):
            if self.program.sends_spikes(source):
                self.deliveries[projection, index] = np.zeros(self.program[source].shape, dtype=np.int64)

    def counters(self, event_counters: dict[str, EventCounter]) -> Counters:
        """Each spike that arrived times the synapses that it reaches; a current's are MACs and no synaptic operations."""
        counters = Counters(
            spikes=int(self.per_neuron.sum()),
            coincidences=round(self.coincidences),
            max_membrane=self.max_membrane,
            max_current=self.max_current,
            per_neuron=self.per_neuron,
        )
        for projection in self.program.into(self.population.name):
            every, nonzero = self.program.fan_outs(projection), self.program.fan_outs(projection, nonzero=True)
            for index, source in enumerate(projection.sources):
                if self.program.sends_spikes(source):
                    counts = self.deliveries.get((projection, index), event_counters[source].per_neuron)
                    counters.syn_ops += int((counts * every[index]).sum())
                    counters.effective_acs += int((counts * nonzero[index]).sum())
        return counters


def coincidences(product: Product, current: Tensor) -> float:
    """Of a product's current: sums of two axes are exact in float32, and all of them in float64."""
    counts = (
        current if product.weight == 1.0 else (current / product.weight).round_()
    )  # a gain rounds each, not their sum
    return float(counts.sum((-1, -2)).sum(dtype=torch.float64))


def largest(x: Tensor) -> float:
    """Largest |value|."""
    dense = _dense(x)
    return max(-float(dense.amin()), float(dense.amax()))


def _dense(x: Tensor) -> Tensor:
    """The same values, once each, with their axes in the order of memory, so that a reduction need not copy them."""
    for axis in range(x.ndim):
        x = x.narrow(axis, 0, 1) if x.stride(axis) == 0 else x
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True))


def _summed(spikes: Tensor, population: Population) -> np.ndarray:
    """Per neuron, int64."""
    rows = spikes.reshape(-1, *population.shape)
    narrow = torch.uint8 if len(rows) <= torch.iinfo(torch.uint8).max else torch.int64  # the sum fits: no wider pass
    order = sorted(range(1, rows.ndim), key=rows.stride, reverse=True)
    counts = rows.permute(0, *order).sum(0, dtype=narrow)
    back = [order.index(axis) for axis in range(1, rows.ndim)]
    return counts.permute(back).cpu().numpy().astype(np.int64)
