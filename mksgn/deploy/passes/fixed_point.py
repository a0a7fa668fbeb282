"""Recover Loihi's integers from the floating-point program of a quantised file; nothing is quantised again.

Every range of LAVA.md is checked here, because Lava documents its bit widths and enforces none of them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.bias_neurons import bias_neurons
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron, FloatNeuron
from mksgn.deploy.program.program import AnyProjection, Population, Product, Program, Projection, float_neuron
from mksgn.export.errors import RangeError
from mksgn.export.graph.blocks import by_rows
from mksgn.export.loihi import (
    BIAS_EXPONENT_LIMIT,
    BIAS_LIMIT,
    BIAS_MANTISSA_LIMIT,
    FLOAT_EXACT,
    HALF_STEP,
    MEMBRANE_LIMIT,
    MEMBRANE_MAX,
    SUB_UNIT_BITS,
    SUB_UNITS,
    THRESHOLD_LIMIT,
    WEIGHT_LEAST,
    WEIGHT_LIMIT,
    decay_integers,
)

PLAIN_UNIT = 0.5  # of a read-out without weights: each of its synapses has the weight 2
FLOAT_STEP = 2.0**-22  # relative error that float32 may have left in a threshold


def fixed_point(program: Program, quantization: dict[str, Any]) -> Program:
    """Convert a program to integers; the host's populations stay in float32.

    Args:
        program: A program in floating point.
        quantization: The file's metadata, with the exponent of each population's unit.

    Raises:
        RangeError: A number that does not fit Loihi's widths.
        DeployError: A number that is no integer multiple of its unit, or what Loihi's neuron cannot do.
    """
    units = {name: 2.0 ** int(scale["exponent"]) for name, scale in quantization["populations"].items()}
    populations: list[Population] = []
    projections: list[AnyProjection] = []
    drivers: list[Population] = []  # the neurons of biases into synaptic currents
    shapes = {p.name: p.shape for p in program.populations}
    for population in program.populations:
        incoming = program.into(population.name)
        if population.kind == "input" or population.location == "host":
            populations.append(population)
            projections += incoming
            continue
        _check_sources(program, population)
        unit = units.get(population.name)
        if unit is None and population.kind == "readout" and not any(_weighted(projection) for projection in incoming):
            unit = PLAIN_UNIT
        if unit is None:
            raise DeployError(
                f"population {population.name}: the file gives no unit for it; export it again with --quantize 8"
            )
        integers: list[AnyProjection] = [
            _integer_projection(projection, unit, population.shape) for projection in incoming
        ]
        if population.neuron is not None and (bias := float_neuron(population).input_bias) is not None:
            even = _near_integers(f"{population.name}: bias", bias.astype(np.float64) / unit, even=True)
            driver, synapses = bias_neurons(shapes, population, even)
            drivers.append(driver)
            integers.append(synapses)
            shapes[driver.name] = driver.shape
        projections += integers
        populations.append(_with_worst_sum(shapes, _integer_population(population, unit), integers))
    first = next((i for i, p in enumerate(populations) if p.kind != "input"), 0)
    ordered = (*populations[:first], *drivers, *populations[first:])  # not between the members of a loop
    return replace(program, precision="fixed", populations=ordered, projections=tuple(projections))


def _check_sources(program: Program, population: Population) -> None:
    """Check that all sources send spikes, from the first step on."""
    sources = {s for projection in program.into(population.name) for s in projection.sources}
    analog = sorted(sources & program.analog)
    if analog:
        raise DeployError(
            f"population {population.name}: reads the analog input {', '.join(analog)} and is not a "
            "plain encoder; only a population fed by analog inputs alone can stay on the host"
        )
    graded = sorted(s for s in sources if not program.sends_spikes(s))
    if graded:
        raise DeployError(
            f"population {population.name}: reads the membrane of {', '.join(graded)}, and Loihi's synapses take "
            "spikes; put a threshold there, or run with --precision float"
        )
    if population.late_biases:
        raise DeployError(
            f"population {population.name}: a bias comes through a delay, and a chip's bias applies "
            "from the first step; put the bias after the delay"
        )


def _weighted(projection: AnyProjection) -> bool:
    return isinstance(projection, Product) or bool(ops.weights(projection.operators))


def _integer_projection(projection: AnyProjection, unit: float, target: ops.Shape) -> AnyProjection:
    if isinstance(projection, Product):
        weight = _integers(f"{projection.name}: weight", np.array([projection.weight]) / unit, even=True)
        return replace(projection, weight=float(weight[0]))
    assert isinstance(projection, Projection)
    operators = projection.operators
    if not _weighted(projection):  # one-to-one synapses of weight 1
        operators = (*operators, ops.Scale(np.ones(target, dtype=np.float32)))

    def change(weight: np.ndarray) -> np.ndarray:
        return by_rows(lambda w: _integers(f"{projection.name}: weights", w / unit, even=True), weight)

    if len(ops.weights(operators)) > 1:
        raise DeployError(
            f"projection {projection.name}: two weighted nodes in series have no integer form; merge them "
            "into one, or put a population between them"
        )
    return replace(projection, operators=ops.with_weights(operators, change))


def _integer_population(population: Population, unit: float) -> Population:
    if population.kind == "readout":
        assert population.bias is not None
        bias = _integers(f"{population.name}: bias", population.bias.astype(np.float64) / unit)
        return replace(population, unit=unit, bias=bias.astype(np.int64))
    neuron = float_neuron(population)
    _check_neuron(population.name, neuron)
    bias = _near_integers(f"{population.name}: bias", neuron.bias.astype(np.float64) / unit)
    exponent = SUB_UNIT_BITS if np.abs(bias).max() <= BIAS_MANTISSA_LIMIT else BIAS_EXPONENT_LIMIT
    mantissa = bias / 2.0 ** (exponent - SUB_UNIT_BITS)
    if np.abs(mantissa).max() > BIAS_MANTISSA_LIMIT or np.any(mantissa % 1):
        raise RangeError(
            f"{population.name}: bias ({np.abs(bias).max():.0f}) does not fit 13 bits << "
            f"{BIAS_EXPONENT_LIMIT}: it must be at most {BIAS_LIMIT}, and even above {BIAS_MANTISSA_LIMIT}; export it "
            "again"
        )
    fixed = FixedNeuron(
        decay_integers(population.name, neuron.decay, leakless=not np.any(neuron.decay)),
        None if neuron.threshold is None else _threshold(population, neuron, unit),
        mantissa.astype(np.int32),
        exponent,
        None if neuron.current_decay is None else decay_integers(population.name, neuron.current_decay, current=True),
        subtract=_sub_units(population.name, "the value that a spike subtracts", neuron.subtract, unit),
        subtract_next=_sub_units(population.name, "the value that a spike subtracts", neuron.subtract_next, unit),
        initial=_sub_units(population.name, "the initial membrane potential", neuron.initial, unit),
    )
    return replace(population, unit=unit if population.fires else population.unit * unit, neuron=fixed)


def _check_neuron(name: str, neuron: FloatNeuron) -> None:
    """Check for what Loihi's neuron cannot do."""
    if np.any(np.asarray(neuron.decay) >= 1):
        raise RangeError(
            f"{name}: a membrane without memory (Threshold, or tau = dt) needs dv = 4096, beyond 4095 of its 12 bits; "
            "give it a tau, or run with --precision float"
        )
    if neuron.gain is not None:
        raise DeployError(f"{name}: r or w_in is not positive; fold its sign into the weights")
    if neuron.reset is not None:
        raise DeployError(
            f"{name}: v_reset is not 0, to which Loihi resets its membrane; quantise the file here, which shifts the "
            "node's potentials (--calibration), or run with --precision float"
        )


def _sub_units(name: str, what: str, x: np.ndarray | None, unit: float) -> np.ndarray | None:
    """Round a potential to the membrane's sub-units, int32."""
    if x is None:
        return None
    rounded = np.rint(x.astype(np.float64) / unit * SUB_UNITS)
    if np.abs(rounded).max() > MEMBRANE_MAX:
        raise RangeError(
            f"{name}: {what} ({np.abs(rounded).max():.0f}) exceeds {MEMBRANE_MAX}, the limit of the 24-bit membrane; "
            "quantise with fewer bits"
        )
    return rounded.astype(np.int32)


def _threshold(population: Population, neuron: FloatNeuron, unit: float) -> np.ndarray:
    """Return the chip's threshold, at most half a sub-unit below the file's (mksgn/export/loihi)."""
    assert neuron.threshold is not None
    units = neuron.threshold.astype(np.float64) / unit
    threshold = np.rint(units - HALF_STEP)
    if threshold.min() < 0 or threshold.max() > THRESHOLD_LIMIT:
        raise RangeError(
            f"{population.name}: threshold ({threshold.min():.0f} … {threshold.max():.0f}) is outside 0 … "
            f"{THRESHOLD_LIMIT}, the range of vth's 17 bits; quantise with fewer bits"
        )
    rounding = FLOAT_STEP * threshold  # by float32, where the gain is not a power of two
    above = units - threshold
    if np.any(above < -rounding) or np.any(above > HALF_STEP + rounding):
        raise DeployError(
            f"{population.name}: threshold {units.flat[0]:.6f} is not an integer plus half a step of its membrane; "
            "the file was changed after it was quantised: export it again"
        )
    return threshold.astype(np.int32)


def _with_worst_sum(
    shapes: Mapping[str, ops.Shape], population: Population, projections: list[AnyProjection]
) -> Population:
    """Check that sums stay within what float32 adds exactly and, before a threshold, within Loihi's membrane."""
    total = 0.0
    for projection in projections:
        if isinstance(projection, Product):
            shape = population.shape
            total += projection.weight * (projection._width if projection.part == "m" else shape[-1])
        else:
            total += ops.worst_sum(projection.operators, shapes[projection.source])
    limit = FLOAT_EXACT if population.kind == "readout" else MEMBRANE_LIMIT
    if total >= limit:
        what = "the 24 bits of a float32 sum" if population.kind == "readout" else "the 24-bit membrane"
        raise RangeError(
            f"{population.name}: worst-case sum of weights ({total:.0f}) exceeds {limit}, the limit of {what}; "
            "quantise with fewer bits"
        )
    neuron = population.neuron
    if not isinstance(neuron, FixedNeuron):
        return population
    bias = float(np.abs(neuron.bias_mant).max()) * 2.0**neuron.bias_exp / SUB_UNITS
    return replace(population, neuron=replace(neuron, worst=total + bias))


def _near_integers(what: str, x: np.ndarray, *, even: bool = False) -> np.ndarray:
    """Return the integers, of any size, that float32 has rounded in the file."""
    rounded = np.rint(x)
    near = _integers(what, np.where(np.abs(x - rounded) <= FLOAT_STEP * np.abs(x), rounded, x))
    if even and np.any(near % 2):
        raise DeployError(f"{what} are not even integers in the file's unit; export it again with --quantize")
    return near


def _integers(what: str, x: np.ndarray, *, even: bool = False) -> np.ndarray:
    rounded = np.rint(x)
    if np.any(rounded != x) or (even and np.any(rounded % 2)):
        raise DeployError(
            f"{what} are not {'even ' if even else ''}integers in the file's unit; export it again with --quantize"
        )
    if even and (rounded.min(initial=0) < WEIGHT_LEAST or rounded.max(initial=0) > WEIGHT_LIMIT):
        raise RangeError(
            f"{what} ({np.abs(rounded).max():.0f}) are outside {WEIGHT_LEAST} … {WEIGHT_LIMIT}, the range of an 8-bit "
            "synapse; export it again with --quantize 8"
        )
    return rounded
