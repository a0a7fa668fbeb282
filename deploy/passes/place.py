"""Populations onto cores: how many each needs, for its neurons, its product units and its synapses.

A first placement: a core holds neurons of one population only, each synapse is stored with its 8-bit weight where it ends, and
nothing is shared, so that the count is an upper bound. Routes and axons are not laid out yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from mksgn.deploy import operators as ops
from mksgn.deploy.chips import Chip
from mksgn.deploy.program import Population, Product, Program

WEIGHT_BITS = 8


@dataclass(frozen=True)
class PopulationPlacement:
    """One lane's population: `neurons` includes product units; `synapses` that end here."""

    name: str
    neurons: int
    synapses: int
    fan_in: int  # synapses of the neuron that has most
    cores: int

    @property
    def neurons_per_core(self) -> int:
        return -(-self.neurons // self.cores)

    @property
    def synaptic_bits_per_core(self) -> int:
        """At most: as if each neuron of the core had the largest fan-in."""
        return self.neurons_per_core * self.fan_in * WEIGHT_BITS


@dataclass(frozen=True)
class Placement:
    chip: Chip
    populations: tuple[PopulationPlacement, ...]

    @property
    def cores(self) -> int:
        return sum(p.cores for p in self.populations)

    @property
    def chips(self) -> int:
        return -(-self.cores // self.chip.cores)

    @property
    def limits(self) -> list[tuple[str, int, int]]:
        """(quantity, largest value on any core, limit of the chip)."""
        most_neurons = max((p.neurons_per_core for p in self.populations), default=0)
        most_bits = max((p.synaptic_bits_per_core for p in self.populations), default=0)
        return [
            ("neurons per core", most_neurons, self.chip.neurons_per_core),
            ("synaptic bits per core", most_bits, self.chip.synaptic_bits_per_core),
        ]

    def violations(self) -> list[str]:
        """Each as "object: quantity (n) exceeds limit (m) of chip; remedy". Needing several chips is no violation."""
        found = []
        for p in self.populations:
            bits = p.fan_in * WEIGHT_BITS
            if bits > self.chip.synaptic_bits_per_core:
                found.append(
                    f"{p.name}: synaptic bits of one neuron ({bits}) exceed {self.chip.synaptic_bits_per_core} of a core of "
                    f"{self.chip.name}; use fewer channels or a smaller kernel"
                )
        return found


def synapses(program: Program, population: Population) -> int:
    """Synapses that end in a population, or in its product units."""
    total = 0
    for projection in program.into(population.name):
        total += sum(int(fan_out.sum()) for fan_out in program.fan_outs(projection))
    return total


def fan_in(program: Program, population: Population) -> int:
    """Synapses of the neuron, or product unit, that has most."""
    total = 0
    for projection in program.into(population.name):
        if isinstance(projection, Product):
            total += projection.product_units(population.shape) // population.size  # units that lead to one neuron
        else:
            total += ops.largest_fan_in(projection.operators, program[projection.source].shape)
    return max(1, total)


def place(program: Program, chip: Chip) -> Placement:
    """One lane of the program on as many cores as it needs."""
    placed = []
    for population in program.populations:
        if population.place == "host" or population.kind == "input":
            continue
        neurons = population.size + sum(p.product_units(population.shape) for p in program.into(population.name))
        most = fan_in(program, population)
        per_core = min(chip.neurons_per_core, chip.synaptic_bits_per_core // (most * WEIGHT_BITS))
        cores = -(-neurons // max(1, per_core))
        placed.append(PopulationPlacement(population.name, neurons, synapses(program, population), most, cores))
    return Placement(chip, tuple(placed))
