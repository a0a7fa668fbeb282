"""What a program needs of a chip's ranges: the widths of weights and of neurons, delays, and messages."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mksgn.deploy.passes.balance import chip_steps
from mksgn.deploy.placement.chips import Chip
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program
from mksgn.export import loihi
from mksgn.export.graph.blocks import blocks_of_rows

MEMBRANE_BITS = 24  # of a message that carries a membrane potential or a current


@dataclass(frozen=True)
class Need:
    """The extreme values of one quantity of an object, and the chip's range; None: not published."""

    name: str
    quantity: str
    low: int
    high: int
    least: int | None
    most: int | None
    remedy: str

    def violations(self, chip: Chip) -> Iterator[str]:
        if self.most is not None and self.high > self.most:
            yield exceeds(self.name, self.quantity, self.high, self.most, chip, self.remedy)
        if self.least is not None and self.low < self.least:
            yield f"{self.name}: {self.quantity} ({self.low}) is below limit ({self.least}) of {chip.name}; {self.remedy}"


def exceeds(name: str, quantity: str, value: int, limit: int, chip: Chip, remedy: str) -> str:
    return f"{name}: {quantity} ({value}) exceeds limit ({limit}) of {chip.name}; {remedy}"


def needs(program: Program, chip: Chip) -> list[Need]:
    """List what a program needs; a float program has no integers, so only delays and messages are listed."""
    found = [*_delays(program, chip), *_messages(program, chip)]
    if program.precision == "fixed":
        for population in program.populations:
            if population.location == "chip":
                found += _neuron(population, chip)
        found += _weights(program, chip)
    return found


def _extremes(values: object) -> tuple[int, int]:
    x = np.asarray(values)
    return (int(x.min()), int(x.max())) if x.size else (0, 0)


def _neuron(population: Population, chip: Chip) -> Iterator[Need]:
    neuron = population.neuron
    if not isinstance(neuron, FixedNeuron):
        return
    largest, fewer_bits = chip.bias_limit, "quantise with fewer bits"
    smallest = None if largest is None else -largest
    slower = "choose a network of IF neurons" if chip.decay_bits == 0 else "choose another dt or tau"
    ranges = [
        ("decay dv", neuron.dv, 0, chip.decay_limit, slower),
        ("decay du", neuron.du, 0, chip.decay_limit, "choose another dt or tau of the current"),
        ("threshold", neuron.vth, 0, chip.threshold_limit, fewer_bits),
        ("bias mantissa", neuron.bias_mant, smallest, largest, f"give the bias a larger exponent, or {fewer_bits}"),
        ("bias exponent", neuron.bias_exp, 0, chip.bias_exponent, fewer_bits),
    ]
    for quantity, values, low, high, remedy in ranges:
        if values is None or (quantity == "decay du" and not chip.synaptic_current):
            continue
        yield Need(population.name, quantity, *_extremes(values), low, high, remedy)


def _weights(program: Program, chip: Chip) -> Iterator[Need]:
    limit, step = chip.weight_limit, chip.weight_step
    few = chip.weight_bits is not None and chip.weight_bits < loihi.WEIGHT_BITS  # it is not known to have exponents
    remedy = f"export it again with --quantize {f'{chip.weight_bits} --no-weight-exponents' if few else 8}"
    for projection in program.projections:
        if program[projection.target].location == "host":
            continue
        for weights, axis in _weight_arrays(projection):
            least = None if limit is None else -limit
            yield Need(projection.name, "weight", *_extremes(weights), least, limit, remedy)
            odd = sum(int(np.count_nonzero(weights[rows] % step)) for rows in blocks_of_rows(weights))
            integers = {1: "integers", 2: "even integers"}.get(step, f"multiples of {step}")
            yield Need(projection.name, f"weights that are not {integers}", odd, odd, None, 0, remedy)
            if chip.weights_per_neuron is not None:
                most = _different(weights, axis)
                yield Need(
                    projection.name, "different weights of one neuron", most, most, None, chip.weights_per_neuron,
                    "export it again with --quantize 2",
                )  # fmt: skip


def _weight_arrays(projection: AnyProjection) -> Iterator[tuple[np.ndarray, int | None]]:
    """Yield the weights of a projection, with the axis of the output channels where there is one."""
    if isinstance(projection, Product):
        yield np.array([projection.weight]), None
        return
    for operator in projection.operators:
        for weight in ops.weights((operator,)):
            yield weight, ops.OUTPUT_AXIS.get(operator.kind)


def _different(weights: np.ndarray, axis: int | None) -> int:
    """Return the largest number of distinct nonzero weights of any output channel; 1 for a weight per source neuron."""
    if axis is None or not weights.size:
        return int(bool(np.any(weights)))
    channels = np.moveaxis(weights, axis, 0)
    rows = np.sort(channels.reshape(len(channels), -1), axis=1)
    first = np.concatenate([np.ones((len(rows), 1), dtype=bool), np.diff(rows, axis=1) != 0], axis=1)
    return int((first & (rows != 0)).sum(axis=1).max())


def _delays(program: Program, chip: Chip) -> Iterator[Need]:
    remedy = "put populations into the short branch, or cut the long one"
    for (q, source), delay in chip_delays(program).items():
        yield Need(f"{q.name} from {source}", "synaptic delay", delay, delay, None, chip.delay, remedy)


def chip_delays(program: Program) -> dict[tuple[AnyProjection, str], int]:
    """Find the synaptic delays by projection and source if product units are neurons that take a time step."""
    delays = {}
    for q in program.projections:
        if program[q.target].location != "chip":
            continue
        for index, source in enumerate(q.sources):
            units = [p.chip_depth - p.depth for p in (program[source], program[q.target])]
            more = units[1] - units[0] - (chip_steps(q) - 1) if program.crosses_synapses(q, source) else 0
            delays[q, source] = program.synaptic_delay(q, index) + more
    return delays


def graded_senders(program: Program) -> list[Population]:
    """List the populations that send values other than spikes to the chip."""
    senders = {
        source
        for q in program.projections
        if program[q.target].location == "chip"
        for source in q.sources
        if not program.sends_spikes(source)
    }
    return [p for p in program.populations if p.name in senders]


def _messages(program: Program, chip: Chip) -> Iterator[Need]:
    """Yield what populations send to the chip other than spikes."""
    remedy = "its spikes are binary: let the population fire, or choose a chip with graded spikes (--chip loihi2)"
    for p in graded_senders(program):
        yield Need(p.name, "bits of a message", MEMBRANE_BITS, MEMBRANE_BITS, None, chip.spike_bits, remedy)
