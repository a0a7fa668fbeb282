"""Attention's products on bits give the spikes and counts of matrix products."""

import numpy as np
import pytest
import torch

from mksgn.deploy.event_counts import coincidences
from mksgn.deploy.kernels.population import FusedPopulation
from mksgn.deploy.program.program import Population, Product, Program
from tests.deploy.kernels import networks as net

FRAMES = 4


def attention(part: str, heads: int, width: int, joints: int, rng: np.random.Generator) -> Program:
    """A map or values with a neuron of its own parameters in each head."""
    shapes = {"m": (heads, FRAMES, joints, joints), "qkv": (3 * heads * width, FRAMES, joints)}
    target = shapes["m"] if part == "m" else (heads * width, FRAMES, joints)
    sources = ("qkv",) if part == "m" else ("m", "qkv")
    neuron = net.neuron(rng, target, halving=True, remembers=False, worst=1e9)
    product = Product("p", part, sources, "y", heads, 6.0, (0,) * len(sources), _width=width)
    populations = [Population(name, shapes[name], "input") for name in sources]
    return Program(
        "fixed", 1.0, None, (*populations, Population("y", target, "spiking", neuron=neuron)), (product,), ()
    )


@pytest.mark.parametrize("rate", [0.0, 0.15, 1.0])
@pytest.mark.parametrize("part", ["m", "z"])
@pytest.mark.parametrize(("heads", "width", "joints"), [(1, 1, 1), (2, 3, 5), (8, 8, 20), (2, 32, 25), (1, 70, 33)])
def test_spikes_and_coincidences(part, heads, width, joints, rate):
    rng = np.random.default_rng(heads)
    program = attention(part, heads, width, joints, rng)
    (product,) = program.into("y")
    inputs = {p.name: torch.from_numpy((rng.random((3, 2, *p.shape)) < rate).astype(np.uint8)) for p in program.inputs}
    fused = FusedPopulation(program, program["y"])
    assert fused.product is product
    fired = fused.run([(inputs[name], 0) for name in product.sources], None, (3, 2))
    currents = [product.current(tuple(inputs[name][t] for name in product.sources)) for t in range(3)]
    expected = net.integrated(program["y"], currents)
    assert torch.equal(fired.spikes, expected.spikes)
    assert np.array_equal(fired.per_neuron, expected.per_neuron)
    assert (fired.max_current, fired.max_membrane) == (expected.max_current, expected.max_membrane)
    assert fired.coincidences == sum(coincidences(product, current) for current in currents)
    assert fired.spikes.any() == (rate > 0) or program["y"].neuron.bias.max() > 0
