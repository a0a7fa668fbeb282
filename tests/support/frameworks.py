"""Networks of other frameworks: built, exported by the framework's own exporter, and simulated by the framework itself.

One definition for the tests and for the table of docs/interop.md. Nothing of a framework is imported before its
network is built.
"""

import contextlib
import importlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import nir
import numpy as np
import torch

from mksgn.deploy.execution import Execution
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.kinds import FIRING

SAMPLES, STEPS = 4, 40
STATELESS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Flatten)
X = (np.random.default_rng(1).random((SAMPLES, STEPS, 6)) < 0.4).astype(np.float32)
IMAGES = (np.random.default_rng(2).random((SAMPLES, STEPS, 1, 8, 8)) < 0.4).astype(np.float32)


@dataclass(frozen=True)
class Recorded:
    """A network as its framework exports and simulates it.

    Attributes:
        graph: Of the framework's own exporter.
        x: Input spikes, (samples, steps, *shape).
        spikes: What each layer of neurons fired in the framework, in network order; (samples, steps, *shape).
        weights: The framework's weighted layers as dense matrices, (outputs, inputs) of flat shapes.
        network: The framework's network as a module of (samples, steps, *shape), where it computes step by step.
    """

    graph: nir.NIRGraph
    x: np.ndarray
    spikes: list[np.ndarray]
    weights: list[np.ndarray]
    network: torch.nn.Module | None = None


@dataclass(frozen=True)
class Case:
    """A row of the table: a network, and with which options its file means what the framework does."""

    package: str  # whose version counts
    module: str  # without which the case cannot be built
    neuron: str
    build: Callable[[], Recorded]
    options: dict[str, Any] = field(default_factory=dict)
    exact: bool = True  # whether the file, read with these options, says what the framework does
    corrected: Callable[[nir.NIRGraph], nir.NIRGraph] = lambda graph: graph  # what the exporter gets wrong

    @property
    def name(self) -> str:
        return f"{self.package} {self.neuron}"

    @property
    def installed(self) -> str | None:
        """The framework's version, or None where its exporter cannot be imported."""
        try:
            importlib.import_module(self.module)
        except ImportError:
            return None
        return importlib.metadata.version(self.package)

    def recorded(self) -> Recorded:
        """Build, export and simulate it."""
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # exporters print
            warnings.simplefilter("ignore")
            network = self.build()
        return replace(network, graph=self.corrected(network.graph))


def own_spikes(recorded: Recorded, execution: Execution, options: dict[str, Any]) -> list[np.ndarray]:
    """What the layers fired in one of our executions, as the framework would have recorded it."""
    names = [name for name, node in flatten(recorded.graph).nodes.items() if isinstance(node, FIRING)]
    trains = [execution.spikes[name] for name in execution.spikes if name in names]
    late = options.get("spike_delay", 0)
    return [np.pad(x, [(0, 0), (late, 0)] + [(0, 0)] * (x.ndim - 2))[:, : x.shape[1]] for x in trains]


def differing(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> int:
    """How many decisions, of all layers and steps, differ."""
    return sum(int((a != b).sum()) for a, b in zip(found, expected, strict=True))


def dense(layer: torch.nn.Module, shape: Sequence[int]) -> np.ndarray:
    """A linear layer's matrix: what each input neuron alone adds to each output."""
    units = torch.eye(int(np.prod(shape))).reshape(-1, *shape)
    with torch.no_grad():
        return (layer(units) - layer(torch.zeros(1, *shape))).flatten(1).numpy().T


def seeded(*modules: torch.nn.Module, gain: float) -> list[torch.nn.Module]:
    """Weights under which the populations fire: standard deviation gain / 10."""
    torch.manual_seed(0)
    for module in modules:
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=gain / 10)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.05)
    return list(modules)


class Stepwise(torch.nn.Module):
    """Layers that take a step at a time, over samples that have steps.

    Args:
        call: `call(layer, input)` returns a layer's output.
        reset: Sets all states to those of a sample's start.
    """

    def __init__(self, layers: Sequence[torch.nn.Module], call: Callable[..., torch.Tensor], reset: Callable[[], Any]):
        super().__init__()
        self.layers, self.call, self.reset = torch.nn.ModuleList(layers), call, reset
        self.spikes: list[np.ndarray] = []  # what each layer of neurons fired last

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.reset()
        fired: dict[int, list[np.ndarray]] = {}
        for t in range(x.shape[1]):
            y = x[:, t]
            for i, layer in enumerate(self.layers):
                y = self.call(layer, y)
                if not isinstance(layer, STATELESS):
                    fired.setdefault(i, []).append(y.numpy())
        self.spikes = [np.stack(train, 1) for train in fired.values()]
        return torch.from_numpy(self.spikes[-1])

    def recorded(self, graph: nir.NIRGraph, x: np.ndarray) -> Recorded:
        """Simulate, and return what was recorded."""
        self(torch.from_numpy(x))
        return Recorded(graph, x, self.spikes, matrices(self.layers, x), self)


def matrices(layers: Iterable[torch.nn.Module], x: np.ndarray) -> list[np.ndarray]:
    """The dense matrices of the weighted layers."""
    found, y = [], torch.zeros(1, *x.shape[2:])
    for layer in layers:
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            found.append(dense(layer, y.shape[1:]))
        if isinstance(layer, STATELESS):
            y = layer(y)
    return found


# ---- snnTorch


def snntorch_network(kind: str, reset: dict[str, Any], *, image: bool = False) -> Callable[[], Recorded]:
    def build() -> Recorded:
        import snntorch as snn
        from snntorch import utils
        from snntorch.export_nir import export_to_nir

        def neuron(kind: str, *shape: int, beta: float, **more: Any) -> torch.nn.Module:
            constants = {"beta": beta * torch.ones(shape), "threshold": torch.ones(shape)}
            return getattr(snn, kind)(init_hidden=True, **constants, **reset, **more)

        more = {"Synaptic": {"alpha": 0.8 * torch.ones(8)}, "RLeaky": {"linear_features": 8}}.get(kind, {})
        if image:
            layers = [torch.nn.Conv2d(1, 2, 3), neuron("Leaky", 2, 6, 6, beta=0.9), torch.nn.Flatten()]
            layers += [torch.nn.Linear(72, 4), neuron("Leaky", 4, beta=0.8, output=True)]
        else:
            layers = [torch.nn.Linear(6, 8), neuron(kind, 8, beta=0.9, **more)]
            layers += [torch.nn.Linear(8, 4), neuron("Leaky", 4, beta=0.8, output=True)]
        layers, x = seeded(*layers, gain=2.0 if image else 3.0), IMAGES if image else X
        network = torch.nn.Sequential(*layers)
        graph = export_to_nir(network, torch.from_numpy(x[:1, 0]), ignore_dims=[0])
        call = lambda layer, y: out[0] if isinstance(out := layer(y), tuple) else out  # noqa: E731
        return Stepwise(layers, call, lambda: utils.reset(network)).recorded(graph, x)

    return build


# ---- norse: its exporter writes tau = dt / tau_mem_inv, so that dt = 1e-6 gives its step of 1e-3


def norse_network(cell: str, gain: float) -> Callable[[], Recorded]:
    def build() -> Recorded:
        import norse.torch as norse
        from norse.torch.utils.export_nir import to_nir

        cells = [getattr(norse, cell)() for _ in range(2)]
        layers = seeded(torch.nn.Linear(6, 8), cells[0], torch.nn.Linear(8, 4), cells[1], gain=gain)
        states: dict[torch.nn.Module, Any] = {}

        def call(layer: torch.nn.Module, y: torch.Tensor) -> torch.Tensor:
            if layer not in cells:
                return layer(y)
            out, states[layer] = layer(y, states.get(layer))
            return out

        graph = to_nir(norse.SequentialState(*layers), torch.rand(1, 6))
        return Stepwise(layers, call, states.clear).recorded(graph, X)

    return build


# ---- SpikingJelly: its exporter's time step is 1e-4, and IF has r = 1 / dt


def spikingjelly_network(*, image: bool = False, v_reset: float = 0.0) -> Callable[[], Recorded]:
    def build() -> Recorded:
        from spikingjelly.activation_based import functional, layer, neuron
        from spikingjelly.activation_based.nir_exchange import export_to_nir

        last = neuron.LIFNode(v_reset=v_reset) if image else neuron.IFNode(v_reset=v_reset)
        layers = [layer.Conv2d(1, 2, 3) if image else layer.Linear(6, 8), neuron.LIFNode(v_reset=v_reset)]
        layers += [layer.Flatten(), layer.Linear(72, 4)] if image else [layer.Linear(8, 4)]
        layers = seeded(*layers, last, gain=12.0 if image else 8.0)
        network, x = torch.nn.Sequential(*layers), IMAGES if image else X
        graph = export_to_nir(network, torch.from_numpy(x[:1, 0]))
        call, reset = (lambda layer, y: layer(y)), (lambda: functional.reset_net(network))
        return Stepwise(layers, call, reset).recorded(graph, x)

    return build


# ---- sinabs and rockpool: layers take all steps at once, (batch, time, neurons)


@torch.no_grad()
def layerwise(layers: Sequence[Any], x: np.ndarray, call: Callable[..., torch.Tensor]) -> list[np.ndarray]:
    y, spikes = torch.from_numpy(x), []
    for i, layer in enumerate(layers):
        y = call(layer, y)
        if i % 2:
            spikes.append(y.numpy())
    return spikes


def sinabs_network(neuron: str, gain: float, *, single: bool = True, **settings: Any) -> Callable[[], Recorded]:
    def build() -> Recorded:
        import sinabs.activation as activation
        import sinabs.layers as sl
        from sinabs.nir import to_nir

        if single:
            settings["spike_fn"] = activation.SingleSpike
        cells = [getattr(sl, neuron)(**settings) for _ in range(2)]
        layers = seeded(torch.nn.Linear(6, 8), cells[0], torch.nn.Linear(8, 4), cells[1], gain=gain)
        spikes = layerwise(layers, X, lambda layer, y: layer(y))
        network = torch.nn.Sequential(*layers)
        for cell in cells:
            cell.reset_states()
        return Recorded(to_nir(network, torch.rand(1, 5, 6)), X, spikes, matrices(layers, X))

    return build


def rockpool_network(neuron: str, **settings: Any) -> Callable[[], Recorded]:
    def build() -> Recorded:
        from rockpool.nn import modules
        from rockpool.nn.combinators import Sequential

        torch.manual_seed(0)
        constants = {"dt": 1e-3, "max_spikes_per_dt": torch.tensor(1.0), **settings}
        layers = [modules.LinearTorch((6, 8), has_bias=False), getattr(modules, neuron)(8, **constants)]
        layers += [modules.LinearTorch((8, 4), has_bias=False), getattr(modules, neuron)(4, **constants)]
        spikes = layerwise(layers, X, lambda layer, y: layer(y)[0])
        weights = [layer.weight.detach().numpy().T for layer in layers[::2]]
        graph = modules.to_nir(Sequential(*layers), torch.rand(1, 5, 6))
        return Recorded(graph, X, spikes, weights)

    return build


# ---- spyx: in JAX; a spike leaves its neuron in the step after


def spyx_network(neuron: str, gain: float, **constants: float) -> Callable[[], Recorded]:
    def build() -> Recorded:
        import jax.numpy as jnp
        from flax import nnx
        from spyx import nir as spyx_nir
        from spyx import nn

        rngs = nnx.Rngs(0)
        cells = [getattr(nn, neuron)((n,), rngs=rngs, **constants) for n in (8, 4)]
        layers = [nnx.Linear(6, 8, rngs=rngs), cells[0], nnx.Linear(8, 4, rngs=rngs), cells[1]]
        generator = np.random.default_rng(0)
        for layer in layers[::2]:
            layer.kernel[...] = jnp.array(generator.normal(0, gain / 10, layer.kernel.shape), dtype=jnp.float32)
            layer.bias[...] = jnp.array(generator.normal(0, 0.05, layer.bias.shape), dtype=jnp.float32)
        states = {id(cell): cell.initial_state(SAMPLES) for cell in cells}
        for cell in cells:
            if hasattr(cell, "recurrent_w"):
                shape = cell.recurrent_w.shape
                cell.recurrent_w[...] = jnp.array(generator.normal(0, 0.3, shape), dtype=jnp.float32)
        spikes: list[list[np.ndarray]] = [[], []]
        for t in range(STEPS):
            y = jnp.array(X[:, t])
            for i, layer in enumerate(layers):
                if i % 2 == 0:
                    y = layer(y)
                    continue
                y, states[id(layer)] = layer(y, states[id(layer)])
                spikes[i // 2].append(np.array(y))
        graph = spyx_nir.to_nir(nn.Sequential(*layers), {"input": np.array([6])}, {"output": np.array([4])}, dt=1)
        weights = [np.array(layer.kernel[...]).T for layer in layers[::2]]
        return Recorded(graph, X, [np.stack(train, 1) for train in spikes], weights)

    return build


def into_the_neurons(graph: nir.NIRGraph) -> nir.NIRGraph:
    """Correct what spyx 1.0 writes of a recurrent layer: its input joins the neurons, not their recurrent weights."""
    nodes = dict(graph.nodes)
    for name, node in graph.nodes.items():
        if isinstance(node, nir.NIRGraph):
            wrong, right = (f"{name}.input", f"{name}.w_rec"), (f"{name}.input", f"{name}.lif")
            edges = [right if edge == wrong else edge for edge in node.edges]
            nodes[name] = nir.NIRGraph(node.nodes, edges, type_check=False)
    return nir.NIRGraph(nodes, graph.edges, type_check=False)


ZERO = {"reset_mechanism": "zero", "reset_delay": False}
SNNTORCH, SPIKINGJELLY = "snntorch.export_nir", "spikingjelly.activation_based.nir_exchange"
NORSE, SINABS, ROCKPOOL = "norse.torch.utils.export_nir", "sinabs.nir", "rockpool.nn.modules.torch.nir"
SUBTRACT = {"reset": "subtract"}
IN_SINABS = {"dt": 1.0, "reset": "subtract-at-once", "integration": "exponential"}
IN_ROCKPOOL = {"dt": 1e-3, "reset": "subtract-at-once", "integration": "exponential-unit"}
SPYX = "spyx.nir"
IN_SPYX = {"dt": 1.0, "reset": "subtract", "integration": "euler-unit", "spike_delay": 1}
CASES = (
    Case("snntorch", SNNTORCH, "Leaky", snntorch_network("Leaky", {}), SUBTRACT),
    Case("snntorch", SNNTORCH, "Leaky, reset to zero without delay", snntorch_network("Leaky", ZERO)),
    Case("snntorch", SNNTORCH, "the same, after a convolution", snntorch_network("Leaky", ZERO, image=True)),
    Case("snntorch", SNNTORCH, "Synaptic", snntorch_network("Synaptic", {}), SUBTRACT),
    Case("snntorch", SNNTORCH, "RLeaky", snntorch_network("RLeaky", {}), SUBTRACT),
    Case("spikingjelly", SPIKINGJELLY, "LIFNode, IFNode", spikingjelly_network()),
    Case("spikingjelly", SPIKINGJELLY, "LIFNode, after a convolution", spikingjelly_network(image=True)),
    Case("spikingjelly", SPIKINGJELLY, "LIFNode, IFNode, v_reset -0.3", spikingjelly_network(v_reset=-0.3), {"v_init": "v_reset"}),
    Case("norse", NORSE, "LIFBoxCell", norse_network("LIFBoxCell", 120.0), {"dt": 1e-6}),
    Case("norse", NORSE, "IAFCell", norse_network("IAFCell", 3.0), {"if_dt": 1.0}),
    Case("norse", NORSE, "LIFCell", norse_network("LIFCell", 30.0), {"dt": 1e-6, "integration": "euler-unit-current"}),
    Case("sinabs", SINABS, "LIF, SingleSpike", sinabs_network("LIF", 60.0, tau_mem=10.0), IN_SINABS),
    Case("sinabs", SINABS, "LIF, several spikes in a step", sinabs_network("LIF", 60.0, tau_mem=10.0, single=False),
         IN_SINABS, exact=False),
    Case("sinabs", SINABS, "IAF, SingleSpike", sinabs_network("IAF", 6.0), {"dt": 1.0, "reset": "subtract-at-once"}),
    Case("rockpool", ROCKPOOL, "LIFNeuronTorch, one spike in a step", rockpool_network("LIFNeuronTorch", tau_mem=0.01), IN_ROCKPOOL),
    Case("rockpool", ROCKPOOL, "LIFTorch, one spike in a step", rockpool_network("LIFTorch", tau_mem=0.01, tau_syn=0.02), IN_ROCKPOOL),
    Case("spyx", SPYX, "LIF", spyx_network("LIF", 5.0, beta=0.8), IN_SPYX),
    Case("spyx", SPYX, "IF", spyx_network("IF", 5.0), {"dt": 1.0, "reset": "subtract", "spike_delay": 1}),
    Case("spyx", SPYX, "CuBaLIF", spyx_network("CuBaLIF", 5.0, alpha=0.5, beta=0.8), IN_SPYX | {"reset": "subtract-at-once"}),
    Case("spyx", SPYX, "RLIF", spyx_network("RLIF", 5.0, beta=0.8), IN_SPYX, exact=False),
    Case("spyx", SPYX, "RLIF, its input's edge corrected", spyx_network("RLIF", 5.0, beta=0.8), IN_SPYX, corrected=into_the_neurons),
)  # fmt: skip
