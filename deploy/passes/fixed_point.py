"""Float program of a quantised file → Loihi's integers. The integers are read from the file, never made anew.

Every range of LAVA.md is checked here, because Lava documents its bit widths and enforces none of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mksgn.deploy import operators as ops
from mksgn.deploy.arithmetic import FixedNeuron
from mksgn.deploy.errors import DeployError, RangeError
from mksgn.deploy.program import AnyProjection, Population, Product, Program, Projection, float_neuron
from mksgn.export.ranges import (
    BIAS_EXPONENT_LIMIT,
    BIAS_MANTISSA_LIMIT,
    FLOAT_BITS,
    MEMBRANE_LIMIT,
    THRESHOLD_LIMIT,
    WEIGHT_LIMIT,
    between_membranes,
)


def fixed_point(program: Program, quantization: dict[str, Any]) -> Program:
    """`quantization` is the file's metadata: the exponent of each population's unit. The host's encoder stays in float32."""
    units = {name: 2.0 ** int(scale["exponent"]) for name, scale in quantization["populations"].items()}
    populations: list[Population] = []
    projections: list[AnyProjection] = []
    for population in program.populations:
        incoming = program.into(population.name)
        if population.kind == "input" or population.place == "host":
            populations.append(population)
            projections += incoming
            continue
        unit = units.get(population.name)
        if unit is None:
            raise DeployError(
                f"population {population.name}: the file gives no unit for it; export it again with --quantize 8"
            )
        integers = [_integer_projection(projection, unit) for projection in incoming]
        projections += integers
        populations.append(_integer_population(population, unit, program.steps))
        _check_sums(program, populations[-1], integers)
    return replace(program, precision="fixed", populations=tuple(populations), projections=tuple(projections))


def _integer_projection(projection: AnyProjection, unit: float) -> AnyProjection:
    if isinstance(projection, Product):
        weight = _integers(f"{projection.name}: weight", np.array([projection.weight]) / unit, even=True)
        return replace(projection, weight=float(weight[0]))

    def change(weight: np.ndarray) -> np.ndarray:
        return _integers(f"{projection.name}: weights", weight.astype(np.float64) / unit, even=True).astype(np.float32)

    assert isinstance(projection, Projection)
    if len(ops.weights(projection.operators)) > 1:
        raise DeployError(
            f"projection {projection.name}: two weighted nodes in series have no integer form; merge them into one, or put a "
            "population between them"
        )
    return replace(projection, operators=ops.with_weights(projection.operators, change))


def _integer_population(population: Population, unit: float, steps: int | None) -> Population:
    if population.kind == "readout":
        assert population.bias is not None
        bias = _integers(f"{population.name}: bias", population.bias.astype(np.float64) / unit)
        return replace(population, unit=unit, bias=bias.astype(np.int64))
    neuron = float_neuron(population)
    units = neuron.threshold.astype(np.float64) / unit
    half = between_membranes(neuron.decay, steps or 1)
    threshold = np.rint(units - half)
    if threshold.min() < 0 or threshold.max() > THRESHOLD_LIMIT:
        raise RangeError(
            f"{population.name}: threshold ({threshold.min():.0f} … {threshold.max():.0f}) leaves 0 … {THRESHOLD_LIMIT} of vth's "
            "17 bits; quantise with fewer bits"
        )
    # exact where dt/tau is a power of two; any other tau is rounded to float32 on its way through the file
    dyadic = np.log2(neuron.decay) % 1 == 0
    if np.any(np.abs(units - threshold - half) > (0 if dyadic else half)):
        raise DeployError(
            f"{population.name}: threshold {units.flat[0]:.6f} is no integer plus half a step of its membrane; "
            "the file was changed after it was quantised: export it again"
        )
    bias = _integers(f"{population.name}: bias", neuron.bias.astype(np.float64) / unit)
    exponent = 6 if np.abs(bias).max() <= BIAS_MANTISSA_LIMIT else BIAS_EXPONENT_LIMIT
    mantissa = bias / 2.0 ** (exponent - 6)
    if np.abs(mantissa).max() > BIAS_MANTISSA_LIMIT or np.any(mantissa % 1):
        raise RangeError(
            f"{population.name}: bias ({np.abs(bias).max():.0f}) does not fit 13 bits << {BIAS_EXPONENT_LIMIT}, at most 8190 and even "
            "above 4095; export it again"
        )
    dv = round(4096 * neuron.decay)
    if not 0 < dv < 4096:
        raise RangeError(
            f"{population.name}: decay {neuron.decay:.6f} gives dv = {dv}, outside 1 … 4095; choose another dt"
        )
    return replace(
        population,
        unit=unit,
        neuron=FixedNeuron(dv, threshold.astype(np.int32), mantissa.astype(np.int32), exponent),
    )


def _check_sums(program: Program, population: Population, projections: list[AnyProjection]) -> None:
    """No sum may leave what float32 adds exactly, nor, before a threshold, what Loihi's membrane holds."""
    total = 0.0
    for projection in projections:
        if isinstance(projection, Product):
            shape = population.shape
            total += projection.weight * (projection._width if projection.part == "m" else shape[-1])
        else:
            total += ops.worst_sum(projection.operators, program[projection.source].shape)
    limit = 2**FLOAT_BITS if population.kind == "readout" else MEMBRANE_LIMIT
    if total >= limit:
        what = "24 bits of a float32 sum" if population.kind == "readout" else "the 24-bit membrane"
        raise RangeError(
            f"{population.name}: worst sum of weights ({total:.0f}) exceeds {limit} of {what}; quantise with fewer bits"
        )


def _integers(what: str, x: np.ndarray, *, even: bool = False) -> np.ndarray:
    rounded = np.rint(x)
    if np.any(rounded != x) or (even and np.any(rounded % 2)):
        raise DeployError(
            f"{what} are no {'even ' if even else ''}integers of the file's unit; export it again with --quantize"
        )
    if even and np.abs(rounded).max(initial=0) > WEIGHT_LIMIT:
        raise RangeError(
            f"{what} ({np.abs(rounded).max():.0f}) exceed {WEIGHT_LIMIT} of an 8-bit synapse; export it again with --quantize 8"
        )
    return rounded
