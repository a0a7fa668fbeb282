"""What a run of a program gives, whichever backend ran it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mksgn.deploy.program.program import Program


@dataclass
class Counters:
    """Events of one population over a run, counted inside its window only.

    `spikes` of its neurons; `syn_ops` that reached it: each spike of a source times the synapses it really reaches;
    `effective_acs` of them over a weight that is not 0; `coincidences` of its product units; `updates` of its neurons and
    `product_updates` of its product units; the largest |membrane| and |current| seen, in weight units of a fixed-point program;
    `per_neuron` spike counts, of the population's shape.
    """

    spikes: int = 0
    syn_ops: int = 0
    effective_acs: int = 0
    coincidences: int = 0
    updates: int = 0
    product_updates: int = 0
    max_membrane: float = 0.0
    max_current: float = 0.0
    per_neuron: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __add__(self, other: Counters) -> Counters:
        """Of other samples through the same population. Sums of whole numbers and largest values: in any order the same."""
        return Counters(
            spikes=self.spikes + other.spikes,
            syn_ops=self.syn_ops + other.syn_ops,
            effective_acs=self.effective_acs + other.effective_acs,
            coincidences=self.coincidences + other.coincidences,
            updates=self.updates + other.updates,
            product_updates=self.product_updates + other.product_updates,
            max_membrane=max(self.max_membrane, other.max_membrane),
            max_current=max(self.max_current, other.max_current),
            per_neuron=self.per_neuron + other.per_neuron,
        )


@dataclass
class Execution:
    """Aligned results, latency removed: step t of an output belongs to step t of the input.

    `outputs[name]` (samples, steps, *shape) float32, in the file's units; `spikes[population]` (samples, steps, *shape) bool, empty
    where recording was off; `seconds` of the run without compiling and starting.
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

    def logits(self) -> np.ndarray:
        """Mean over the steps of the one output there is: (samples, classes)."""
        (output,) = self.outputs.values()
        return output.mean(1)


def add_updates(program: Program, counters: dict[str, Counters], samples: int, steps: int) -> None:
    """Every neuron and product unit is updated at every step of its window."""
    for population in program.populations:
        if population.kind == "input":
            continue
        counter = counters[population.name]
        counter.updates = population.size * samples * steps
        units = sum(projection.product_units(population.shape) for projection in program.into(population.name))
        counter.product_updates = units * samples * steps
