"""A population of stock Lava Processes: a LIFReset for each threshold and pair of decays that occurs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIFReset

from mksgn.deploy.errors import DeployError
from mksgn.deploy.lava.process_models import process_name
from mksgn.deploy.passes.schedule import Window
from mksgn.deploy.program.neurons import FixedNeuron, FloatNeuron
from mksgn.deploy.program.program import Population
from mksgn.export.loihi import CURRENT_WRAP, DECAY_STEPS, SUB_UNIT_BITS

MAX_LIFS = 16  # for one population


@dataclass(frozen=True, eq=False)
class Lif:
    """One stock LIF of the whole population's shape.

    `members` (bool) are its neurons, None for all. No current and no bias reaches the others, which
    therefore stay at 0 and silent.
    """

    process: LIFReset
    members: np.ndarray | None


def make_lifs(population: Population, window: Window) -> list[Lif]:
    """Make a population's LIFs, reset at the first step of each sample, at the population's own depth."""
    neuron = population.neuron
    if neuron is None or not population.fires:
        raise DeployError(
            f"population {population.name}: outputs its membrane potential, which stock LIF does not send; "
            "run the fused network"
        )
    if any(getattr(neuron, name) is not None for name in ("subtract", "subtract_next", "initial")):
        raise DeployError(
            f"population {population.name}: stock LIF resets to 0 and starts there; run the fused network"
        )
    biases, differing = _terms(population, neuron)
    table = np.stack([np.broadcast_to(x, population.shape).ravel() for x in differing.values()])
    kinds, kind_of = np.unique(table, axis=1, return_inverse=True)
    if kinds.shape[1] > MAX_LIFS:
        raise DeployError(
            f"population {population.name}: a stock LIF has one threshold and one pair of decays, "
            f"and this population needs {kinds.shape[1]} of them, more than {MAX_LIFS}; run the fused network"
        )
    if kinds.shape[1] > 1 and kinds[-1].min() < 0:
        raise DeployError(
            f"population {population.name}: several thresholds, some below 0, cannot be spread over stock LIFs; "
            "run the fused network"
        )
    number = type(next(iter(differing.values())).flat[0].item())
    bias = np.broadcast_to(biases.pop("bias_mant"), population.shape)
    lifs = []
    for index, values in enumerate(kinds.T):
        members = None if kinds.shape[1] == 1 else (kind_of.ravel() == index).reshape(population.shape)
        process = LIFReset(
            shape=population.shape,
            bias_mant=(bias if members is None else bias * members).copy(),
            reset_interval=window.period,
            reset_offset=window.offset + 1,  # Lava's time steps begin at 1
            name=process_name(population.name),
            **biases,
            **{name: number(value) for name, value in zip(differing, values, strict=True)},
        )
        lifs.append(Lif(process, members))
    return lifs


def hold_back(population: Population, lif: Lif, steps: int, length: int) -> None:
    """Compensate a bias by currents that keep a LIF silent for the first `steps` of `length` time steps."""
    neuron = population.neuron
    bias = np.maximum(np.asarray(lif.process.bias_mant.init, dtype=np.float64), 0)
    dtype: type = np.float64
    if isinstance(neuron, FixedNeuron):
        bias, dtype = np.ceil(bias * 2.0 ** (neuron.bias_exp - SUB_UNIT_BITS)), np.int32
        if bias.max() * 2**SUB_UNIT_BITS * steps >= CURRENT_WRAP / 2:
            raise DeployError(
                f"population {population.name}: {steps} steps of its bias ({bias.max():.0f}) exceed the 24 bits of a "
                "stock current; run the fused network"
            )
    if steps and bias.any():
        currents: np.ndarray = np.zeros((*population.shape, length), dtype=dtype)
        currents[..., :steps] = -bias[..., None]
        RingBuffer(data=currents).s_out.connect(lif.process.a_in)


def _terms(population: Population, neuron: FixedNeuron | FloatNeuron) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Split the arguments of LIFReset into those that may be arrays and those that may not, the threshold last."""
    if isinstance(neuron, FixedNeuron):
        assert neuron.vth is not None
        fixed = {"du": DECAY_STEPS - 1 if neuron.du is None else neuron.du, "dv": neuron.dv, "vth": neuron.vth}
        return (
            {"bias_mant": neuron.bias_mant, "bias_exp": neuron.bias_exp},
            {name: np.asarray(x, dtype=np.int64) for name, x in fixed.items()},
        )
    for name in ("gain", "input_bias", "reset"):
        if getattr(neuron, name) is not None:
            raise DeployError(
                f"population {population.name}: stock LIF has no {name.replace('_', ' ')}; run the fused network"
            )
    assert neuron.threshold is not None
    du = 1.0 if neuron.current_decay is None else neuron.current_decay
    floating = {"du": du, "dv": neuron.decay, "vth": neuron.threshold}
    return {"bias_mant": neuron.bias}, {name: np.asarray(x, dtype=np.float64) for name, x in floating.items()}
