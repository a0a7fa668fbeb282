"""The expected work of a tile in a time step, for every choice of a cut: what balanced placement bounds.

A cut is made before the network runs on it, from the spikes per neuron and step of each population
and the latency of each event. The actual work of a tile, step by step, is in `loads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mksgn.deploy.placement import axons
from mksgn.deploy.placement.axons import Choices
from mksgn.deploy.placement.connectivity import Group

DEFAULT_RATE = 0.1  # spikes per neuron and step, where none is known


@dataclass(frozen=True)
class Work:
    """Latencies of a core's events and firing rates.

    Attributes:
        latency: ns by event of `loads.EVENTS`.
        rates: spikes per neuron and step by population and by product units.
        most: ns that a tile may work per step, on its neurons and on its messages each by itself.
    """

    latency: Mapping[str, float]
    rates: Mapping[str, float]
    most: float = np.inf

    def rate(self, name: str) -> float:
        return self.rates.get(name, DEFAULT_RATE)

    def expected(
        self, group: Group, choices: Choices, cores: np.ndarray, neurons: np.ndarray, output_axons: int
    ) -> np.ndarray:
        """Return the fullest tile's work in ns for every choice: on neurons or on messages, whichever is longer.

        Args:
            cores: of every choice, (choices per axis …).
            neurons: of its fullest tile.
            output_axons: over all neurons of the group, the cores that each reaches.
        """
        latency, rate = self.latency, self.rate(group.name)
        own = neurons * (latency["accesses"] + latency["updates"] + rate * latency["spikes"])
        own = own + rate * latency["messages_out"] * output_axons / cores
        arriving = np.zeros(cores.shape)
        for edge in group.edges:
            rate = self.rate(edge.source)
            size = np.prod(edge.source_shape)
            synapses = float(np.broadcast_to(edge.fan_in, group.shape).sum())
            reach = synapses / cores if edge.link is None else axons.fullest(edge.link, choices)
            arriving = arriving + rate * latency["messages_in"] * np.minimum(reach, size)
            arriving = arriving + rate * latency[edge.kind] * synapses / cores
        return np.maximum(own, arriving)
