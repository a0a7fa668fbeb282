"""The unquantised network on calibration samples, and how well a quantised population reproduces its decisions."""

import copy
import math

import nir
import numpy as np
import torch

from mksgn.export.errors import ExportError
from mksgn.export.graph.arrays import Arrays, arrays_by_input
from mksgn.export.graph.kinds import SPIKING
from mksgn.export.graph.membranes import Membrane, PerNeuron
from mksgn.export.graph.metadata import input_normaliser
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.graph.paths import source_shape
from mksgn.export.graph.weights import set_weight
from mksgn.export.quantization.paths import WeightedPath
from mksgn.export.quantization.scales import FixedScales
from mksgn.export.reference import execute as reference
from mksgn.export.reference.nodes import delay_steps, linear, map_counts, split_heads, value_counts
from mksgn.train.streams import INTEGER_LIMIT

# Enough decisions to estimate a disagreement of 0.1 % to within a tenth of itself; one sample of a
# large network provides that many.
DECISIONS = 1 << 18


class Calibration:
    """The run in floating point: the spikes and inputs that feed each population.

    Args:
        graph: The unquantised graph.
        inputs: An array for the only input, or a dict by input name; each (L, *input shape), constant,
            or (L, steps, *input shape).
        steps: Time steps of a sample.
        dt: Time step, seconds.
        if_dt: Time step that IF and I integrate with in place of `dt`, in seconds.

    Raises:
        ExportError: The inputs do not fit.
    """

    def __init__(self, graph: nir.NIRGraph, inputs: Arrays, steps: int, dt: float, if_dt: float | None = None) -> None:
        self.graph, self.steps, self.dt = graph, steps, dt
        named = _given(graph, inputs, steps)
        sizes = [math.prod(node.v_threshold.shape) for node in graph.nodes.values() if isinstance(node, SPIKING)]
        samples = min(len(x) for x in named.values())
        spread = np.linspace(0, samples - 1, min(samples, -(-DECISIONS // (steps * min(sizes, default=1)))))
        self.inputs = {name: x[spread.round().astype(int)] for name, x in named.items()}
        shapes = {name: source_shape(graph, name) for name in named}
        self.constant = {name for name, x in self.inputs.items() if x.ndim == len(shapes[name]) + 1}
        stepwise = len(self.constant) < len(self.inputs)
        given = {
            name: np.broadcast_to(x[:, None], (len(x), steps, *shapes[name]))
            if stepwise and name in self.constant
            else x
            for name, x in self.inputs.items()
        }
        self.analog = {name for name in self.inputs if self._analog(name)}
        self.run = reference.execute(graph, given, steps, dt, stepwise=stepwise, if_dt=if_dt)

    def _analog(self, name: str) -> bool:
        """Return whether an input is analog: it is not unless the file, or else the samples' values, say so."""
        signal = self.graph.nodes[name].metadata.get("signal")
        spikes = bool(np.isin(self.inputs[name], (0, 1)).all())
        if signal == "spikes" and not spikes:
            raise ExportError(
                f"input {name}: the file says spikes, and calibration has values other than 0 and 1; set its "
                '"signal" to analog'
            )
        return signal == "analog" or not spikes

    def spikes(self, population: str) -> np.ndarray:
        """Return a population's spikes, (S, L, *shape) bool."""
        return self.run.spikes[population]

    def firing_rate(self, population: str) -> float:
        """Return the spikes per neuron and step."""
        return float(self.spikes(population).mean())

    def source(self, name: str) -> np.ndarray:
        """Return a population's, attention node's or input's output, (S, L, …) float32; (1, L, …) if it is constant."""
        node = self.graph.nodes[name]
        if isinstance(node, nir.Input):
            return self.inputs[name][None] if name in self.constant else self.inputs[name].swapaxes(0, 1)
        return self.run.spikes[f"{name}.z" if isinstance(node, SpikingSelfAttention) else name].astype(np.float32)

    @torch.no_grad()
    def currents(
        self, nodes: dict[str, nir.NIRNode], paths: list[WeightedPath], weights: dict[str, np.ndarray]
    ) -> np.ndarray:
        """Compute a population's currents (S, L, *shape) for given weights of its weighted `nodes`, without biases."""
        currents = []
        for path in paths:
            node = copy.copy(nodes[path.weighted])
            set_weight(node, weights[path.weighted])
            if hasattr(node, "bias"):
                node.bias = np.zeros_like(node.bias)
            currents.append(self._along(path, node))
        total = sum(currents[1:], currents[0])
        return np.broadcast_to(total, (self.steps, *total.shape[1:]))

    def _along(self, path: WeightedPath, weighted: nir.NIRNode) -> np.ndarray:
        """Compute the current of one path, (S or 1, L, …), with `weighted` in place of its weighted node."""
        names = (*path.before, path.weighted, *path.after)
        x = self.source(path.source)
        if path.late or any(isinstance(self.graph.nodes[name], nir.Delay) for name in names):
            x = _late(np.broadcast_to(x, (self.steps, *x.shape[1:])), np.array(path.late))
        samples = x.shape[1]
        y = torch.from_numpy(np.array(x, dtype=np.float32)).flatten(0, 1)
        for name in names:
            node = weighted if name == path.weighted else self.graph.nodes[name]
            if isinstance(node, nir.Delay):
                late = _late(y.unflatten(0, (-1, samples)).numpy(), delay_steps(node, name, self.dt))
                y = torch.from_numpy(late).flatten(0, 1)
            else:
                y = linear(node, name, y)
        return y.numpy().reshape(-1, samples, *y.shape[1:])


def _given(graph: nir.NIRGraph, inputs: Arrays, steps: int) -> dict[str, np.ndarray]:
    arrays = arrays_by_input(inputs, graph.inputs, "calibration of")
    for name, x in arrays.items():
        shape = source_shape(graph, name)
        fits = x.shape[1:] == shape or x.shape[1:] == (steps, *shape)
        what = "calibration" if len(arrays) == 1 else f"calibration of {name}"
        if not x.size or not fits:
            of_one = ", ".join(map(str, shape))
            raise ExportError(
                f"{what} has shape {x.shape}; expected (samples, {of_one}) or, with {steps} steps, (samples, {steps}, "
                f"{of_one})"
            )
        if not np.isfinite(x).all():
            raise ExportError(f"{what} has values that are not finite; repair or leave out their samples")
    samples = {len(x) for x in arrays.values()}
    if len(samples) > 1:
        raise ExportError(
            f"calibration: the inputs differ in their number of samples ({sorted(samples)}); give each the same samples"
        )
    return arrays


def _late(x: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Delay x (S, L, …) by `steps`, which broadcasts against (…); values before are 0."""
    y = np.zeros_like(x)
    for delay in np.unique(steps):
        here = np.broadcast_to(steps == delay, x.shape[2:])
        y[delay:][..., here] = x[: max(len(x) - delay, 0)][..., here]
    return y


def coincidences(node: SpikingSelfAttention, qkv: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the coincidences that attention's two populations receive.

    Args:
        node: The attention node.
        qkv: (S, L, 3C, T, V), stacked spikes.
        m: (S, L, heads, T, V, V), spikes of the map.

    Returns:
        (S, L, heads, T, V, V) and (S, L, heads, d, T, V).
    """
    q, k, v = split_heads(node, torch.from_numpy(qkv).flatten(0, 1))
    maps = torch.from_numpy(m.astype(np.float32)).flatten(0, 1)
    counts = map_counts(q, k), value_counts(maps, v)
    at_map, at_value = (c.unflatten(0, qkv.shape[:2]).numpy() for c in counts)
    return at_map, at_value


def input_lattice(graph: nir.NIRGraph) -> float:
    """Return the step between an analog input's values; 1 if the file does not say."""
    normaliser = input_normaliser(graph)
    return 1.0 if normaliser is None else 2.0**normaliser.lattice_exponent


def input_peak(graph: nir.NIRGraph, values: Calibration | FixedScales, name: str) -> float:
    """Return the largest |value| of an analog input: where its streams saturate, or else the samples' largest."""
    if input_normaliser(graph) is None and isinstance(values, Calibration):
        return float(np.abs(values.inputs[name]).max())
    return INTEGER_LIMIT * input_lattice(graph)


def agreement(
    expected: np.ndarray, current: np.ndarray, membrane: Membrane, threshold: PerNeuron, drive: PerNeuron = 0.0
) -> float:
    """Compute the share of equal decisions of a population that runs in units of its integers.

    v ← v - decay v + x, spike where v > threshold. A current with memory is u ← u - current_decay u + x,
    and v gets u + `drive` in place of x.

    Args:
        expected: (S, L, *shape) bool, the spikes of the unquantised population.
        current: (S, L, *shape), the current of the synapses at each step.
        membrane: The population's decays, and its initial state and what a spike subtracts in the same units.
        threshold: What v is compared with.
        drive: What v gets at each step besides u.
    """
    decay, current_decay = membrane.decay, membrane.current_decay
    has_synaptic_state = not np.all(np.asarray(current_decay) == 1)
    v, u, equal = np.zeros_like(current[0]) + membrane.initial, np.zeros_like(current[0]), 0
    taken = 0.0 if membrane.subtract is None else membrane.subtract
    for t, x in enumerate(current):
        if has_synaptic_state:
            u = u * (1 - current_decay) + x
            x = u + drive
        owed = taken * (v > threshold) if membrane.in_next_step else 0.0
        v = v * (1 - decay) + x - owed
        s = v > threshold
        equal += int((s == expected[t]).sum())
        if membrane.subtract is None:
            v[s] = 0.0
        elif not membrane.in_next_step:
            v = v - taken * s
    return equal / expected.size
