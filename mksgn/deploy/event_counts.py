"""Counts of a population's events while it runs. When an event is counted:

- A spike is counted where it is sent, at each step of the sender's window of a sample.
- A synaptic operation is counted where the spike arrives, once for each synapse over which it
  arrives, if it arrives within the target's window of the same sample. A spike that a delay or a
  loop holds back beyond the last step of the sample is sent but never delivered.
- A coincidence is counted where both inputs of a product unit arrive in the same step.
- Currents of analog inputs and graded populations are counted as multiply-accumulates, not as
  synaptic operations.

Lava's leaves count deliveries one by one (mksgn/deploy/lava/results). Where all spikes arrive,
`EventCounter` uses the number of spikes sent instead, which is the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.execution import Counters
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program


class EventCounter:
    """Events of one population. Tensors may have any axes before the population's own."""

    def __init__(self, program: Program, population: Population):
        self.program, self.population = program, population
        # channels last in memory, as the compiled loops count
        shape = population.shape
        self.per_neuron = np.zeros((*shape[1:], *shape[:1]), dtype=np.int64)
        if shape:
            self.per_neuron = np.moveaxis(self.per_neuron, -1, 0)
        self.coincidences = 0.0
        self.max_membrane = self.max_current = 0.0
        # deliveries per neuron of a source, where not all of its spikes arrive
        self.deliveries = {
            (projection, index): np.zeros(program[source].shape, dtype=np.int64)
            for projection in program.into(population.name)
            if not _all_arrive(program, projection)
            for index, source in enumerate(projection.sources)
            if program.sends_spikes(source)
        }

    def record_spikes(self, spikes: Tensor) -> None:
        self.per_neuron += _summed(spikes, self.population)

    def record_membrane(self, largest_membrane: float) -> None:
        self.max_membrane = max(self.max_membrane, largest_membrane)

    def record_current(self, largest_current: float) -> None:
        self.max_current = max(self.max_current, largest_current)

    def record_deliveries(self, projection: AnyProjection, inputs: list[Tensor]) -> None:
        """Count the spikes that arrive over a projection that does not deliver all of them."""
        for index, (source, x) in enumerate(zip(projection.sources, inputs, strict=True)):
            if (projection, index) in self.deliveries:
                self.deliveries[projection, index] += _summed(x, self.program[source])

    def counters(self, event_counters: dict[str, EventCounter]) -> Counters:
        """Return the counts of the run; `event_counters` are those of all populations."""
        counters = Counters(
            spikes=int(self.per_neuron.sum()),
            coincidences=round(self.coincidences),
            max_membrane=self.max_membrane,
            max_current=self.max_current,
            per_neuron=np.ascontiguousarray(self.per_neuron),
        )
        for projection in self.program.into(self.population.name):
            delivered = arrived = 0
            every, nonzero = self.program.fan_outs(projection), self.program.fan_outs(projection, nonzero=True)
            for index, source in enumerate(projection.sources):
                if self.program.sends_spikes(source):
                    counts = self.deliveries.get((projection, index), event_counters[source].per_neuron)
                    delivered += int((counts * every[index]).sum())
                    arrived += int(counts[every[index] > 0].sum())
                    counters.effective_acs += int((counts * nonzero[index]).sum())
            counters.syn_ops += delivered
            counters.deliveries.append(delivered)
            counters.arrivals.append(arrived)
        return counters


def _all_arrive(program: Program, projection: AnyProjection) -> bool:
    """Return whether each spike that is sent within a sample arrives within it."""
    delays = (program.arrival_delay(projection, i) for i in range(len(projection.sources)))
    return not program.loops(program[projection.target].group) and not any(delays)


def coincidences(product: Product, current: Tensor) -> float:
    """Return the number of coincidences in a product's current.

    Sums over two axes are exact in float32, and sums over all axes in float64.
    """
    # the quotient by a gain is rounded for each unit, not for their sum
    counts = current if product.weight == 1.0 else (current / product.weight).round_()
    return float(counts.sum((-1, -2)).sum(dtype=torch.float64))


def largest(x: Tensor) -> float:
    """Return the largest |value|."""
    dense = _dense(x)
    return max(-float(dense.amin()), float(dense.amax()))


def _dense(x: Tensor) -> Tensor:
    """Return each value once, with axes in memory order, so that a reduction does not copy them."""
    for axis in range(x.ndim):
        x = x.narrow(axis, 0, 1) if x.stride(axis) == 0 else x
    return x.permute(sorted(range(x.ndim), key=x.stride, reverse=True))


def _summed(spikes: Tensor, population: Population) -> np.ndarray:
    """Return spikes per neuron, int64."""
    rows = spikes.reshape(-1, *population.shape)
    # if the sum fits in a byte, no wider copy is made
    narrow = torch.uint8 if len(rows) <= torch.iinfo(torch.uint8).max else torch.int64
    order = sorted(range(1, rows.ndim), key=rows.stride, reverse=True)
    counts = rows.permute(0, *order).sum(0, dtype=narrow)
    back = [order.index(axis) for axis in range(1, rows.ndim)]
    return counts.permute(back).cpu().numpy().astype(np.int64)
