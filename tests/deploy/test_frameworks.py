"""Networks as other frameworks export them today, in memory, against the frameworks' own simulation.

`make test-interop` has snnTorch, norse and SpikingJelly; sinabs, rockpool and spyx run where they are installed.
Each case says with which options a file means what its framework does.
"""

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import pytest
import torch

from mksgn.deploy import compile_graph, run

SAMPLES, STEPS = 4, 40
X = (np.random.default_rng(1).random((SAMPLES, STEPS, 6)) < 0.4).astype(np.float32)
IMAGES = (np.random.default_rng(2).random((SAMPLES, STEPS, 1, 8, 8)) < 0.4).astype(np.float32)

pytestmark = pytest.mark.filterwarnings("ignore")


def layers(*modules: torch.nn.Module, gain: float = 3.0) -> torch.nn.Module:
    """A network whose populations fire: the weights of its linear layers are multiplied."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(*modules)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=gain / 10)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.05)
    return network


def same(
    export: Callable[[], nir.NIRGraph],
    expected: np.ndarray,
    x: np.ndarray = X,
    precisions=("float", "fixed"),
    **options: Any,
) -> None:
    """Assert that the exported graph gives the framework's output spikes."""
    assert 0.02 < expected.mean() < 0.98
    for precision in precisions:
        calibration = x if precision == "fixed" else None
        program = compile_graph(export(), precision=precision, calibration=calibration, **options)
        (out,) = run(program, x).outputs.values()
        if precision == "float":
            assert int((out != expected).sum()) == 0
        else:  # the weights are rounded to 8 bits
            assert (out == expected).mean() > 0.97


@torch.no_grad()
def stepwise(step: Callable[[torch.Tensor], torch.Tensor], x: np.ndarray = X) -> np.ndarray:
    return np.stack([step(torch.from_numpy(x[:, t])).numpy() for t in range(x.shape[1])], 1)


# ---- snnTorch: reset to zero without its delay is what NIR's neurons do


@pytest.mark.parametrize("neuron", ["Leaky", "Synaptic"])
def test_snntorch(neuron):
    snn = pytest.importorskip("snntorch")
    from snntorch import utils
    from snntorch.export_nir import export_to_nir

    reset = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    first = {"alpha": 0.8 * torch.ones(8)} if neuron == "Synaptic" else {}
    network = layers(
        torch.nn.Linear(6, 8, bias=False), getattr(snn, neuron)(beta=0.9 * torch.ones(8), threshold=torch.ones(8), **first, **reset),
        torch.nn.Linear(8, 4), snn.Leaky(beta=0.8 * torch.ones(4), threshold=torch.ones(4), output=True, **reset),
    )  # fmt: skip
    utils.reset(network)
    expected = stepwise(lambda x: network(x)[0])
    same(lambda: export_to_nir(network, torch.rand(1, 6), ignore_dims=[0]), expected)


def test_snntorch_convolution():
    snn = pytest.importorskip("snntorch")
    from snntorch import utils
    from snntorch.export_nir import export_to_nir

    reset = {"init_hidden": True, "reset_mechanism": "zero", "reset_delay": False}
    network = layers(
        torch.nn.Conv2d(1, 2, 3), snn.Leaky(beta=0.9 * torch.ones(2, 6, 6), threshold=torch.ones(2, 6, 6), **reset),
        torch.nn.Flatten(), torch.nn.Linear(72, 4),
        snn.Leaky(beta=0.8 * torch.ones(4), threshold=torch.ones(4), output=True, **reset), gain=2.0,
    )  # fmt: skip
    utils.reset(network)
    expected = stepwise(lambda x: network(x)[0], IMAGES)
    same(lambda: export_to_nir(network, torch.rand(1, 1, 8, 8), ignore_dims=[0]), expected, IMAGES, ("float",))


# ---- norse: its exporter writes tau = dt / tau_mem_inv, so that dt = 1e-6 gives its step of 1e-3


def test_norse():
    norse = pytest.importorskip("norse.torch")
    from norse.torch.utils.export_nir import to_nir

    network = layers(torch.nn.Linear(6, 8), torch.nn.Identity(), torch.nn.Linear(8, 4), gain=120.0)
    network = norse.SequentialState(network[0], norse.LIFBoxCell(), network[2], norse.LIFBoxCell())
    state = None

    def step(x: torch.Tensor) -> torch.Tensor:
        nonlocal state
        y, state = network(x, state)
        return y

    same(lambda: to_nir(network, torch.rand(1, 6)), stepwise(step), dt=1e-6)


# ---- SpikingJelly: its exporter's time step is 1e-4, and IF has r = 1 / dt


@pytest.mark.parametrize("image", [False, True])
def test_spikingjelly(image):
    pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    if image:
        network = layers(
            layer.Conv2d(1, 2, 3), neuron.LIFNode(), layer.Flatten(), layer.Linear(72, 4), neuron.LIFNode(), gain=12.0
        )
    else:
        network = layers(layer.Linear(6, 8), neuron.LIFNode(), layer.Linear(8, 4), neuron.IFNode(), gain=8.0)
    x = IMAGES if image else X
    functional.reset_net(network)
    expected = stepwise(network, x)
    functional.reset_net(network)
    same(
        lambda: export_to_nir(network, torch.from_numpy(x[:1, 0])),
        expected,
        x,
        ("float", "fixed") if not image else ("float",),
    )


# ---- sinabs and rockpool: the axes of time and batch are dropped; their neurons fire several times per step, or decay
# exponentially, which NIR does not say: the graph is compared with NIR's equation


def lif(x: np.ndarray, rate: float, gain: float = 1.0) -> np.ndarray:
    v, out = np.zeros(x[:, 0].shape), []
    for step in x.swapaxes(0, 1):
        v = v + rate * (gain * step - v)
        out.append(v > 1)
        v[v > 1] = 0
    return np.stack(out, 1).astype(np.float32)


def test_sinabs():
    sinabs = pytest.importorskip("sinabs.layers")
    from sinabs.nir import to_nir

    network = layers(
        torch.nn.Linear(6, 8), sinabs.LIF(tau_mem=10.0), torch.nn.Linear(8, 4), sinabs.LIF(tau_mem=10.0), gain=60.0
    )
    with torch.no_grad():
        hidden = lif(network[0](torch.from_numpy(X)).numpy(), 0.1)
        expected = lif(network[2](torch.from_numpy(hidden)).numpy(), 0.1)
    same(lambda: to_nir(network, torch.rand(1, 5, 6)), expected, dt=1.0)


def test_rockpool():
    pytest.importorskip("rockpool")
    pytest.importorskip("rockpool.nn.modules.torch.nir")
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFNeuronTorch, LinearTorch, to_nir

    torch.manual_seed(0)
    neuron = {"dt": 1e-3, "tau_mem": 0.01}
    network = Sequential(
        LinearTorch((6, 8), has_bias=False), LIFNeuronTorch(8, **neuron), LinearTorch((8, 4), has_bias=False),
        LIFNeuronTorch(4, **neuron),
    )  # fmt: skip
    graph = to_nir(network, torch.rand(1, 5, 6))
    w1, w2 = (np.array(node.weight) for name, node in sorted(graph.nodes.items()) if isinstance(node, nir.Linear))
    gain = 10 * np.exp(-0.1)
    expected = lif(lif(X @ w1.T, 0.1, gain) @ w2.T, 0.1, gain)
    same(lambda: to_nir(network, torch.rand(1, 5, 6)), expected, dt=1e-3)
