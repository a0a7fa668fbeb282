"""A population's bias in Loihi's integers: those of the linear nodes on its paths, and the drive of its v_leak."""

from __future__ import annotations

import nir
import numpy as np

from mksgn.export import loihi
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.kinds import CONVOLUTIONS, CURRENT_BASED
from mksgn.export.graph.membranes import Membrane
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.paths import source_shape
from mksgn.export.graph.weights import bias_of
from mksgn.export.quantization.paths import WeightedPath, pooled
from mksgn.export.reference.nodes import linear, tensor


class Biases:
    """Biases of the nodes on the paths into a population, in units of the unquantised network.

    Attributes:
        drive: (*shape), what v_leak adds to the membrane at each step.
        total: (*shape), the sum of all biases and the drive.
    """

    def __init__(self, graph: nir.NIRGraph, name: str, incoming: list[WeightedPath], drive: np.ndarray):
        self.node, self.drive = graph.nodes[name], drive
        shape = source_shape(graph, name)
        self.biased = [b for b in incoming if hasattr(graph.nodes[b.weighted], "bias")]
        self.nodes = [graph.nodes[b.weighted] for b in self.biased]
        self.places = [
            _place(graph, b, shape) if n.bias.any() or len(self.biased) > 1 else np.zeros(shape, dtype=int)
            for b, n in zip(self.biased, self.nodes, strict=True)
        ]
        if isinstance(self.node, CURRENT_BASED):
            for path, node in zip(self.biased, self.nodes, strict=True):
                if node.bias.any():
                    raise UnsupportedNodeError(
                        f"node {path.weighted}: its bias enters the synaptic current of {name}, and Loihi's bias "
                        "the membrane; use Linear for Affine, and v_leak for the bias"
                    )
        # where all biases reach the same neurons, the first node gets their sum, which is then rounded once
        self.alike = len({n.bias.shape for n in self.nodes}) < 2 and all(
            np.array_equal(p, self.places[0]) for p in self.places
        )
        self.total = self._placed([bias_of(n) for n in self.nodes]) + drive

    def _placed(self, biases: list[np.ndarray]) -> np.ndarray:
        parts = [np.append(0.0, b)[place] for b, place in zip(biases, self.places, strict=True)]
        return sum(parts, np.zeros(self.drive.shape))

    def whole(self, scale: float) -> tuple[list[np.ndarray], np.ndarray]:
        """Each node's bias, and the population's sum with the drive of v_leak, in integers."""
        total = loihi.round_biases(self.total * scale)
        rounded_apart = 0 if self.alike else len(self.nodes)
        step = 2 if np.abs(self.total * scale).max() > loihi.BIAS_MANTISSA_LIMIT - rounded_apart else 1
        biases = [bias_of(n) for n in self.nodes]
        if self.alike and biases:
            biases = [sum(biases[1:], biases[0]), *(np.zeros_like(b) for b in biases[1:])]
        own = [step * np.rint(b * scale / step) for b in biases]
        return own, total if self.drive.any() else self._placed(own)

    def write(self, scale: float, unit: float, membrane: Membrane) -> None:
        """Set the nodes' biases, and v_leak, to the integers of `scale`, times `unit`."""
        own, total = self.whole(scale)
        for node, bias in zip(self.nodes, own, strict=True):
            node.bias = f32(bias * unit)
        if self.drive.any():
            leak = (total - self._placed(own)) * unit * membrane.gain / membrane.decay
            self.node.v_leak = f32(np.broadcast_to(leak, self.node.v_leak.shape))


def _place(graph: nir.NIRGraph, path: WeightedPath, shape: tuple[int, ...]) -> np.ndarray:
    """Which element of the node's bias reaches each neuron, counted from 1; 0 for none. Biases must not be pooled."""
    node = graph.nodes[path.weighted]
    y = tensor(np.zeros((1, *source_shape(graph, path.source))))
    for name in (*path.before, path.weighted):
        if not isinstance(graph.nodes[name], nir.Delay):
            y = linear(graph.nodes[name], name, y)
    index = np.arange(1, node.bias.size + 1).reshape(node.bias.shape)
    if isinstance(node, CONVOLUTIONS):
        index = index.reshape(-1, *(1,) * (y.ndim - 2))
    y = tensor(np.broadcast_to(index, y.shape))
    for name in path.after:
        y = linear(graph.nodes[name], name, y) if not isinstance(graph.nodes[name], nir.Delay) else y
    return np.broadcast_to(y.numpy()[0].astype(int), shape)


def check_unbiased(graph: nir.NIRGraph, target: str, incoming: list[WeightedPath]) -> None:
    """Check that each bias reaches the population unchanged from the first step on, so that they add up to one bias."""
    for path in incoming:
        node = graph.nodes[path.weighted]
        if not np.any(bias_of(node)):
            continue
        output = isinstance(graph.nodes[target], nir.Output)
        if not output and pooled(graph, path.after) > 1:
            raise UnsupportedNodeError(
                f"node {path.weighted}: its bias is pooled before {target}; put the bias into a node after the pool"
            )
        if path.loop_edges or any(isinstance(graph.nodes[n], nir.Delay) for n in path.after):
            raise UnsupportedNodeError(
                f"node {path.weighted}: its bias reaches {target} through a delay or a loop, and Loihi's "
                "bias applies from the first step; put it into a node that leads there directly"
            )
        if (
            not output
            and isinstance(node, nir.Affine)
            and node.weight.ndim == 2
            and len(source_shape(graph, target)) > 1
        ):
            raise UnsupportedNodeError(
                f"node {path.weighted}: an Affine's bias on the last axis of {target} is not one per channel; "
                "use a Linear, or flatten"
            )
