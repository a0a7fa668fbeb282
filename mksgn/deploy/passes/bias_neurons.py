"""A bias into a synaptic current: spikes of neurons that fire at every step. Loihi's own bias enters the membrane."""

import math
from collections.abc import Container

import numpy as np

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron
from mksgn.deploy.program.program import Population, Projection
from mksgn.export.loihi import DECAY_STEPS, SUB_UNIT_BITS, WEIGHT_LIMIT


def bias_neurons(taken: Container[str], population: Population, bias: np.ndarray) -> tuple[Population, Projection]:
    """Make the neurons that drive a population's synaptic current at every step, and their synapses.

    Args:
        taken: names that the new population must not have.
        population: the one whose current they drive.
        bias: even integers, in weight units; broadcasts against the population's shape.

    Returns:
        A population "NAME.bias", with as many neurons for each row of the last axis as the largest
        bias needs weights of 8 bits.
    """
    full = np.broadcast_to(bias, population.shape)
    neurons = max(1, math.ceil(np.abs(full).max() / WEIGHT_LIMIT))
    shares = [np.clip(full - np.sign(full) * i * WEIGHT_LIMIT, -WEIGHT_LIMIT, WEIGHT_LIMIT) for i in range(neurons)]
    within = [np.where(np.abs(full) > i * WEIGHT_LIMIT, share, 0) for i, share in enumerate(shares)]
    weight = np.stack(within, axis=-1).astype(np.float32)
    name = f"{population.name}.bias"
    while name in taken:
        name += "_"
    fires = FixedNeuron(
        dv=DECAY_STEPS - 1, vth=np.zeros(1, np.int32), bias_mant=np.ones(1, np.int32), bias_exp=SUB_UNIT_BITS, worst=1.0
    )
    source = Population(name, (*population.shape[:-1], neurons), "spiking", neuron=fires)
    return source, Projection(f"{name}_{population.name}", name, population.name, (ops.Dense(weight),))
