"""Results of a run, the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mksgn.deploy.program.program import Program


@dataclass
class Counters:
    """Events of one population over a run, by the rules of mksgn/deploy/event_counts.

    Attributes:
        spikes: spikes that its neurons sent.
        syn_ops: synaptic operations that reached it.
        effective_acs: those of them over a nonzero weight.
        coincidences: coincidences in its product units.
        updates: neurons times time steps.
        product_updates: product units times time steps.
        deliveries: syn_ops by projection, in the order of Program.into.
        arrivals: spikes that arrived over at least one synapse, by projection.
        max_membrane: largest |membrane potential|; in a fixed-point program in weight units.
        max_current: largest |current|, in the same unit.
        per_neuron: spikes per neuron, of the population's shape.
    """

    spikes: int = 0
    syn_ops: int = 0
    effective_acs: int = 0
    coincidences: int = 0
    updates: int = 0
    product_updates: int = 0
    deliveries: list[int] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    max_membrane: float = 0.0
    max_current: float = 0.0
    per_neuron: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __add__(self, other: Counters) -> Counters:
        """Merge the counts of other samples. Integer sums and maxima are the same in any order."""
        return Counters(
            spikes=self.spikes + other.spikes,
            syn_ops=self.syn_ops + other.syn_ops,
            effective_acs=self.effective_acs + other.effective_acs,
            coincidences=self.coincidences + other.coincidences,
            updates=self.updates + other.updates,
            product_updates=self.product_updates + other.product_updates,
            deliveries=[a + b for a, b in zip(self.deliveries, other.deliveries, strict=True)],
            arrivals=[a + b for a, b in zip(self.arrivals, other.arrivals, strict=True)],
            max_membrane=max(self.max_membrane, other.max_membrane),
            max_current=max(self.max_current, other.max_current),
            per_neuron=self.per_neuron + other.per_neuron,
        )


@dataclass
class Execution:
    """Results with the latency removed: step t of an output belongs to step t of the input.

    Attributes:
        outputs: (samples, steps, *shape) float32 by output's name, in the file's units.
        spikes: (samples, steps, *shape) bool by population; empty where recording was off.
        counters: events by population.
        seconds: duration of the run, without compiling and starting.
        constant: whether each input was a view that repeats one value over the steps, so that the host
            computed it once.
    """

    backend: str
    precision: str
    samples: int
    steps: int
    latency_steps: int
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    spikes: dict[str, np.ndarray] = field(default_factory=dict)
    counters: dict[str, Counters] = field(default_factory=dict)
    seconds: float = 0.0
    constant: bool = False

    def logits(self) -> np.ndarray:
        """Return the mean of the only output over the steps, (samples, classes)."""
        (output,) = self.outputs.values()
        return output.mean(1)


def add_updates(program: Program, counters: dict[str, Counters], samples: int, steps: int) -> None:
    """Fill in updates: every neuron and product unit is updated at every step of its window."""
    for population in program.populations:
        if population.kind == "input":
            continue
        counter = counters[population.name]
        counter.updates = population.size * samples * steps
        units = sum(projection.product_units(population.shape) for projection in program.into(population.name))
        counter.product_updates = units * samples * steps
