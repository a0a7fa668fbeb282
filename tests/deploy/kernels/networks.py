"""Small fixed-point programs for the kernels' tests, and a population computed by torch's operators and states."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron, prepare
from mksgn.deploy.program.program import Population, Program, Projection


def weights(rng: np.random.Generator, *shape: int, largest: int = 127) -> np.ndarray:
    return (2 * rng.integers(-largest, largest + 1, shape)).astype(np.float32)


def conv(rng: np.random.Generator, shape: ops.Shape, outputs: int, kernel: ops.Shape, **geometry) -> ops.Conv:
    axes = len(kernel)
    plain = {"stride": (1,) * axes, "padding": (0,) * axes, "dilation": (1,) * axes, "extra_end_padding": (0,) * axes}
    return ops.Conv(weights(rng, outputs, shape[0], *kernel), **{**plain, **geometry})


def graph_conv(rng: np.random.Generator, shape: ops.Shape, outputs: int, edges: int) -> ops.GraphConv:
    source, target = rng.integers(0, shape[2], (2, edges))
    return ops.GraphConv(weights(rng, edges, outputs, shape[0]), source, target, shape[2])


def neuron(rng: np.random.Generator, shape: ops.Shape, *, halving: bool, remembers: bool, worst: float) -> FixedNeuron:
    """Draw a neuron; its threshold and decays have a value for all, for each channel or for each neuron.

    A third of them reset to 0, the others by subtraction, at once or in the next step; half start elsewhere than at 0.
    """
    per = [(), (shape[0], *[1] * (len(shape) - 1)), shape][rng.integers(3)]
    reset = [None, "subtract", "subtract_next"][rng.integers(3)]
    return FixedNeuron(
        dv=2048 if halving else rng.integers(0, 4096, per),
        vth=rng.integers(0, 600, per).astype(np.int32).reshape(per),
        bias_mant=rng.integers(-300, 300, shape).astype(np.int32),
        bias_exp=int(rng.integers(0, 8)),
        du=rng.integers(0, 4095, per) if remembers else None,
        worst=worst,
        initial=rng.integers(-20_000, 20_000, per).astype(np.int32).reshape(per) if rng.integers(2) else None,
        **({} if reset is None else {reset: rng.integers(0, 600 * 64, per).astype(np.int32).reshape(per)}),
    )


def program(shapes: dict[str, ops.Shape], paths: list[ops.Operators], target: ops.Shape, n: FixedNeuron) -> Program:
    """One population `y`, into which a path from each source leads."""
    sources = tuple(Population(name, shape, "input") for name, shape in shapes.items())
    y = Population("y", target, "spiking", neuron=n)
    projections = tuple(
        Projection(f"{name}_y", name, "y", path) for (name, _), path in zip(shapes.items(), paths, strict=True)
    )
    return Program("fixed", 1.0, None, (*sources, y), projections, ())


@dataclass
class Expected:
    spikes: Tensor
    per_neuron: np.ndarray
    max_current: float
    max_membrane: float


def by_torch(program: Program, inputs: dict[str, Tensor], delays: list[int], extra: Tensor | None) -> Expected:
    """Compute `y` step by step with float32 sums."""
    y = program["y"]
    steps, samples = next(iter(inputs.values())).shape[:2]
    currents = []
    for t in range(steps):
        total = torch.zeros((samples, *y.shape)) if extra is None else extra[t].float()
        for projection, delay in zip(program.into("y"), delays, strict=True):
            if 0 <= t - delay < steps:
                total = total + projection.current((inputs[projection.sources[0]][t - delay],))
        currents.append(total)
    return integrated(y, currents)


def integrated(y: Population, currents: list[Tensor]) -> Expected:
    """Integrate currents, (N, *shape) of each step, by the torch form of Loihi's neuron, in sub-units."""
    state = prepare(y.neuron)
    membrane = state.start(currents[0])
    sent, membranes = [], []
    for current in currents:
        s, membrane, h = state.step(current, membrane)
        sent.append(s)
        membranes.append(float(h.abs().max()) / state.scale)
    spikes = torch.stack(sent)
    largest = max(float(current.abs().max()) for current in currents)
    return Expected(spikes, spikes.sum((0, 1)).numpy(), largest, max(membranes))
