"""Neurons of other frameworks, by the options that mean them: each spike as the framework's own simulation has it.

A framework that is not installed here skips: `make test-interop`.
"""

import importlib
import importlib.util
import os

import nir
import numpy as np
import pytest
import torch

from mksgn.deploy import compile_graph, run
from tests.support.graphs import DT, F32, affine, chain, graph, inp, lif, linear, out

STEPS, SAMPLES = 40, 8


def framework(name: str):
    """Import a framework; skip the test without it, or fail under `make test-interop`, which installs it."""
    if not os.environ.get("MKSGN_INTEROP") and importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name} is not installed here: make test-interop")
    return importlib.import_module(name)


def currents(rng: np.random.Generator, inputs: int) -> np.ndarray:
    return rng.normal(0.2, 0.6, (SAMPLES, STEPS, inputs)).astype(F32)


def agree(g: nir.NIRGraph, x: np.ndarray, expected: dict[str, np.ndarray], **options) -> None:
    """0 decisions differ, in the reference that calibrates and in the emulator; with NIR's own rules some do."""
    execution = run(compile_graph(g, precision="float", analog=("x",), **options), {"x": x})
    for name, train in expected.items():
        assert 0.01 < train.mean() < 0.99, f"{name}: the test is blind"
        assert int((execution.spikes[name] != train).sum()) == 0, name
    plain = run(compile_graph(g, precision="float", analog=("x",)), {"x": x})
    assert not options or any((plain.spikes[name] != train).any() for name, train in expected.items())


def leaky(beta: float, threshold: float, neurons: int) -> nir.LIF:
    """As snnTorch's export_to_nir writes a Leaky."""
    tau = F32(DT) / (F32(1) - F32(beta))
    return lif(neurons, threshold=threshold, tau=tau, r=tau / F32(DT))


def weights(layer: torch.nn.Linear) -> nir.Affine:
    return affine(layer.weight.detach().numpy(), layer.bias.detach().numpy())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("settings", "options"), [({}, {"reset": "subtract"}), ({"reset_mechanism": "zero", "reset_delay": False}, {})]
)
@torch.no_grad()
def test_snntorch_leaky(seed, settings, options):
    snn = framework("snntorch")
    torch.manual_seed(seed)
    first, second = torch.nn.Linear(6, 20), torch.nn.Linear(20, 9)
    second.weight *= 3
    a, b = snn.Leaky(beta=0.8, threshold=0.4, **settings), snn.Leaky(beta=0.9, threshold=0.5, **settings)
    x = currents(np.random.default_rng(seed), 6)
    mem_a, mem_b, spikes = a.init_leaky(), b.init_leaky(), {"a": [], "b": []}
    for t in range(STEPS):
        s, mem_a = a(first(torch.from_numpy(x[:, t])), mem_a)
        z, mem_b = b(second(s), mem_b)
        spikes["a"].append(s.numpy() > 0)
        spikes["b"].append(z.numpy() > 0)
    g = chain(
        ("x", inp(6)), ("w", weights(first)), ("a", leaky(0.8, 0.4, 20)), ("v", weights(second)),
        ("b", leaky(0.9, 0.5, 9)), ("y", out(9)),
    )  # fmt: skip
    agree(g, x, {name: np.stack(train, 1) for name, train in spikes.items()}, **options)


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_snntorch_synaptic_and_recurrent(seed):
    """A recurrent weight's bias acts at the first step too, and a spike returns in the next."""
    snn = framework("snntorch")
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    first, second = torch.nn.Linear(6, 12), torch.nn.Linear(12, 9)
    second.weight *= 3
    a = snn.RLeaky(beta=0.8, threshold=0.6, linear_features=12)
    b = snn.Synaptic(alpha=0.5, beta=0.7, threshold=0.7)
    x = currents(rng, 6)
    spk, mem = a.init_rleaky()
    syn, mem_b = b.init_synaptic()
    spikes = {"a": [], "b": []}
    for t in range(STEPS):
        spk, mem = a(first(torch.from_numpy(x[:, t])), spk, mem)
        z, syn, mem_b = b(second(spk), syn, mem_b)
        spikes["a"].append(spk.numpy() > 0)
        spikes["b"].append(z.numpy() > 0)
    tau, tau_syn = F32(DT) / (F32(1) - F32(0.7)), F32(DT) / (F32(1) - F32(0.5))
    synaptic = nir.CubaLIF(*(np.full(9, v, F32) for v in (tau_syn, tau, tau / F32(DT), 0, 0.7, 0, tau_syn / F32(DT))))
    g = graph(
        {
            "x": inp(6), "w": weights(first), "a": leaky(0.8, 0.6, 12), "back": weights(a.recurrent),
            "v": weights(second), "b": synaptic, "y": out(9),
        },
        [("x", "w"), ("w", "a"), ("a", "back"), ("back", "a"), ("a", "v"), ("v", "b"), ("b", "y")],
    )  # fmt: skip
    agree(g, x, {name: np.stack(train, 1) for name, train in spikes.items()}, reset="subtract")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("v_reset", "options"), [(-0.3, {"v_init": "v_reset"}), (None, {"reset": "subtract-at-once"})])
@torch.no_grad()
def test_spikingjelly_lif(seed, v_reset, options):
    neurons = framework("spikingjelly.activation_based.neuron")
    torch.manual_seed(seed)
    layer = torch.nn.Linear(6, 20)
    node = neurons.LIFNode(tau=2.0, v_threshold=0.5, v_reset=v_reset, step_mode="m")
    x = 2 * currents(np.random.default_rng(seed), 6)
    train = node(layer(torch.from_numpy(x.swapaxes(0, 1)))).numpy().swapaxes(0, 1) > 0
    rest = v_reset or 0.0
    g = chain(
        ("x", inp(6)), ("w", weights(layer)), ("n", lif(20, threshold=0.5, leak=rest, reset=rest)), ("y", out(20))
    )
    agree(g, x, {"n": train}, **options)


@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_norse_lif(seed):
    norse = framework("norse.torch")
    torch.manual_seed(seed)
    layer = torch.nn.Linear(6, 20)
    parameters = norse.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1 / (4 * DT)),
        v_leak=torch.tensor(0.2),
        v_th=torch.tensor(0.5),
        v_reset=torch.tensor(0.0),
    )
    cell, state, train = norse.LIFBoxCell(parameters, dt=DT), None, []
    x = 2 * currents(np.random.default_rng(seed), 6)
    for t in range(STEPS):
        s, state = cell(layer(torch.from_numpy(x[:, t])), state)
        train.append(s.numpy() > 0)
    node = lif(20, threshold=0.5, tau=4 * DT, leak=0.2, reset=0.0)
    g = chain(("x", inp(6)), ("w", weights(layer)), ("n", node), ("y", out(20)))
    agree(g, x, {"n": np.stack(train, 1)}, v_init="leak")


def test_the_equation_of_snntorch_s_leaky():
    """The helpers above write what they mean: a Linear of one weight drives a Leaky of snnTorch's parameters."""
    g = chain(("x", inp(1)), ("w", linear([[0.7]])), ("n", leaky(0.9, 1.0, 1)), ("y", out(1)))
    v, expected = 0.0, []
    for _ in range(STEPS):  # v_{t+1} = beta v_t + x - theta [v_t > theta]
        v = 0.9 * v + 0.7 - (v > 1)
        expected.append(v > 1)
    x = np.ones((1, STEPS, 1), F32)
    agree(g, x, {"n": np.reshape(expected, (1, STEPS, 1))}, reset="subtract")
