"""A population's bias in Loihi's integers: biases of the linear nodes on its paths, and the drive of its v_leak.

They add up to the bias of its membrane. In a neuron with a synaptic current, the nodes' biases enter the
current instead: deploy adds neurons that fire at every step, whose weights are even.
"""

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import CONVOLUTIONS, CURRENT_BASED
from mksgn.export.graph.membranes import Membrane
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.paths import source_shape
from mksgn.export.graph.weights import bias_of
from mksgn.export.quantization.paths import WeightedPath, pooled, shape_after
from mksgn.export.reference.nodes import linear, tensor


class Biases:
    """Biases of the nodes on the paths into a population, in units of the unquantised network.

    Attributes:
        drive: (*shape), what v_leak adds to the membrane at each step.
        total: (*shape), the sum of all biases and the drive.
        to_membrane: (*shape), the part that Loihi's own bias adds to the membrane.
    """

    def __init__(self, graph: nir.NIRGraph, name: str, paths: list[WeightedPath], drive: np.ndarray) -> None:
        self.node, self.drive = graph.nodes[name], drive
        shape = source_shape(graph, name)
        biased = [path for path in paths if hasattr(graph.nodes[path.weighted], "bias")]
        self.nodes = [graph.nodes[path.weighted] for path in biased]
        self.elements = [
            _elements(graph, path, shape) if node.bias.any() or len(biased) > 1 else np.zeros(shape, dtype=int)
            for path, node in zip(biased, self.nodes, strict=True)
        ]
        # where all biases reach the same neurons, the first node gets their sum, which is then rounded once
        self.same_neurons = len({n.bias.shape for n in self.nodes}) < 2 and all(
            np.array_equal(p, self.elements[0]) for p in self.elements
        )
        self.into_current = isinstance(self.node, CURRENT_BASED)
        self.read()

    def read(self) -> None:
        """Read the biases from the nodes."""
        self.total = self._at_neurons([bias_of(n) for n in self.nodes]) + self.drive
        self.to_membrane = self.drive if self.into_current else self.total

    def _at_neurons(self, biases: list[np.ndarray]) -> np.ndarray:
        parts = [np.append(0.0, b)[element] for b, element in zip(biases, self.elements, strict=True)]
        return sum(parts, np.zeros(self.drive.shape))

    def integers(self, scale: float) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """Return, in integers, each node's bias, and what enters the membrane and the current at each step."""
        separate = 0 if self.same_neurons or self.into_current else len(self.nodes)
        wide = np.abs(self.to_membrane * scale).max() > loihi.BIAS_MANTISSA_LIMIT - separate
        step = 2 if wide or self.into_current else 1
        biases = [bias_of(n) for n in self.nodes]
        if self.same_neurons and biases:
            biases = [sum(biases[1:], biases[0]), *(np.zeros_like(b) for b in biases[1:])]
        own = [step * np.rint(b * scale / step) for b in biases]
        membrane = loihi.round_biases(self.to_membrane * scale)
        if self.into_current:
            return own, membrane, self._at_neurons(own)
        return own, membrane if self.drive.any() else self._at_neurons(own), np.zeros(1)

    def write(self, scale: float, unit: float, membrane: Membrane) -> None:
        """Set the nodes' biases, and v_leak, to the integers of `scale`, times `unit`."""
        own, total, _ = self.integers(scale)
        for node, bias in zip(self.nodes, own, strict=True):
            node.bias = f32(bias * unit)
        if self.drive.any():
            rest = total if self.into_current else total - self._at_neurons(own)
            leak = rest * unit * membrane.gain / membrane.decay
            self.node.v_leak = f32(np.broadcast_to(leak, self.node.v_leak.shape))


def _elements(graph: nir.NIRGraph, path: WeightedPath, shape: tuple[int, ...]) -> np.ndarray:
    """Return which element of the node's bias each neuron gets, counted from 1; 0 for none. No bias may be pooled."""
    node = graph.nodes[path.weighted]
    nodes = {name: graph.nodes[name] for name in (*path.before, path.weighted)}
    shape_there = shape_after(graph, path.source, list(nodes.items()))
    index = np.arange(1, node.bias.size + 1).reshape(node.bias.shape)
    if isinstance(node, CONVOLUTIONS):
        index = index.reshape(-1, *(1,) * (len(shape_there) - 1))
    y = tensor(np.broadcast_to(index, (1, *shape_there)))
    for name in path.after:
        y = linear(graph.nodes[name], name, y) if not isinstance(graph.nodes[name], nir.Delay) else y
    return np.broadcast_to(y.numpy()[0].astype(int), shape)


def check_unbiased(graph: nir.NIRGraph, target: str, paths: list[WeightedPath]) -> None:
    """Check that all biases reach the population unchanged, from the first step on, so that they add up to one bias."""
    for path in paths:
        node = graph.nodes[path.weighted]
        if not np.any(bias_of(node)):
            continue
        output = isinstance(graph.nodes[target], nir.Output)
        if not output and pooled(graph, path.after) > 1:
            raise UnsupportedNodeError(
                f"node {path.weighted}: its bias is pooled before {target}; put the bias into a node after the pool"
            )
        if any(isinstance(graph.nodes[n], nir.Delay) for n in path.after):
            raise UnsupportedNodeError(
                f"node {path.weighted}: its bias reaches {target} through a delay, and Loihi's "
                "bias applies from the first step; put it into a node after the delay"
            )
        last_axis = isinstance(node, nir.Affine) and node.weight.ndim == 2
        if last_axis and not output and len(source_shape(graph, target)) > 1:
            raise UnsupportedNodeError(
                f"node {path.weighted}: an Affine's bias on the last axis of {target} is not one per channel; "
                "use a Linear, or flatten"
            )
