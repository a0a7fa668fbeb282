"""What the unquantised network did on the calibration clips, and how well a quantised population repeats it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import nir
import numpy as np
import torch

from mksgn.export import reference
from mksgn.export.metadata import input_normaliser
from mksgn.export.nodes import SpikingSelfAttention, f32
from mksgn.train.streams import INTEGER_LIMIT

# A share of differing decisions of 0.1 % is found to a tenth of itself by this many. Large networks need one lane for that.
DECISIONS = 1 << 18


@dataclass(frozen=True)
class Branch:
    """One way into a population: `source` (a population, attention or an input), and on the way one weighted node between
    weightless ones (pooling, flattening), in the order that the signal takes."""

    source: str
    before: tuple[str, ...]
    weighted: str
    behind: tuple[str, ...]


class Calibration:
    """The float run: the spikes and inputs that feed each population. `inputs` is (L, *input shape)."""

    def __init__(self, graph: nir.NIRGraph, inputs: np.ndarray, steps: int, dt: float):
        self.graph, self.steps = graph, steps
        sizes = [
            math.prod(int(n) for n in node.output_type["output"])
            for node in graph.nodes.values()
            if isinstance(node, nir.LIF)
        ]
        lanes = min(len(inputs), -(-DECISIONS // (steps * min(sizes, default=1))))
        spread = np.linspace(0, len(inputs) - 1, lanes).round().astype(int)
        self.inputs = inputs[spread]
        self.run = reference.execute(graph, self.inputs, steps, dt)

    def spikes(self, population: str) -> np.ndarray:
        """(S, L, *shape) bool."""
        return self.run.spikes[population]

    def source(self, name: str) -> np.ndarray:
        """(S, L, …) float32 output of a node that is a population or attention; of an input, the same at each step, (1, L, …)."""
        node = self.graph.nodes[name]
        if isinstance(node, nir.Input):
            return self.inputs[None]
        return self.run.spikes[f"{name}.z" if isinstance(node, SpikingSelfAttention) else name].astype(np.float32)

    def currents(
        self, nodes: dict[str, nir.NIRNode], branches: list[Branch]
    ) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Currents (S, L, *shape) of a population for given weights of its weighted `nodes`, without biases."""

        @torch.no_grad()
        def currents(weights: dict[str, np.ndarray]) -> np.ndarray:
            total: np.ndarray | None = None
            for branch in branches:
                node = copy.copy(nodes[branch.weighted])
                node.weight = f32(weights[branch.weighted])
                if hasattr(node, "bias"):
                    node.bias = np.zeros_like(node.bias)
                x = self.source(branch.source)
                y = torch.from_numpy(np.array(x, dtype=np.float32)).flatten(0, 1)
                for name in (*branch.before, branch.weighted, *branch.behind):
                    y = reference.linear(node if name == branch.weighted else self.graph.nodes[name], name, y)
                current = y.numpy().reshape(-1, x.shape[1], *y.shape[1:])
                total = current if total is None else total + current
            assert total is not None
            return np.broadcast_to(total, (self.steps, *total.shape[1:]))

        return currents


def coincidences(node: SpikingSelfAttention, qkv: np.ndarray, m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What attention's two populations count, for spikes qkv (S, L, 3C, T, V) and m: (S, L, heads, T, V, V), (S, L, heads, d, T, V)."""
    q, k, v = reference.split_heads(node, torch.from_numpy(qkv).flatten(0, 1))
    maps = torch.from_numpy(m.astype(np.float32)).flatten(0, 1)
    counts = reference.map_counts(q, k), reference.value_counts(maps, v)
    at_map, at_value = (c.unflatten(0, qkv.shape[:2]).numpy() for c in counts)
    return at_map, at_value


def input_lattice(graph: nir.NIRGraph) -> float:
    """The finest step of an analog input's values; 1 where the file does not say."""
    normaliser = input_normaliser(graph)
    return 1.0 if normaliser is None else 2.0**normaliser.lattice_exponent


def input_peak(graph: nir.NIRGraph, inputs: np.ndarray) -> float:
    """The largest |value| of an analog input: where its streams saturate, or what the clips have where the file does not say."""
    return float(np.abs(inputs).max()) if input_normaliser(graph) is None else INTEGER_LIMIT * input_lattice(graph)


def agreement(wanted: np.ndarray, current: np.ndarray, rate: float, threshold: float | np.ndarray) -> float:
    """Share of equal decisions of a LIF population in units of its integers: v ← v - rate v + x, spike where v > threshold."""
    v, equal = np.zeros_like(current[0]), 0
    for t in range(len(current)):
        v = v * (1 - rate) + current[t]
        s = v > threshold
        equal += int((s == wanted[t]).sum())
        v[s] = 0.0
    return equal / wanted.size
