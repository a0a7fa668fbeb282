"""The student in torch with the folded, quantised weights of a NIR file.

The structure is the student's own, from the config in the file's metadata; only the weights come
from the graph's nodes, by name. The neuron and the products of attention are those of mksgn.train.
"""

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mksgn.export.errors import ExportError
from mksgn.export.graph.metadata import student_config
from mksgn.export.lowering.portable_attention import PARTS
from mksgn.export.verification.graph_convolution import graph_convolution
from mksgn.train.layers import Record, attention_map_counts, attention_value_counts, over_steps
from mksgn.train.neurons import SURROGATE_SLOPE, Current, lif, lif_of_currents

Populate = Callable[..., Tensor]  # a population's name and the currents of its branches → its spikes


class FoldedStudent(nn.Module):
    """A student on a graph's weights: (L, 3 · streams, T, V) → logits (L, classes).

    Args:
        graph: A graph exported from a student, in either profile.
        silence_attention: Whether to force the spikes of every z population to 0, which shows what
            the network does without its attention.

    Raises:
        ExportError: The graph was not exported from a student.
    """

    def __init__(self, graph: nir.NIRGraph, *, silence_attention: bool = False):
        super().__init__()
        config = student_config(graph)
        if config is None:
            raise ExportError(
                "the graph holds no student's config, so torch cannot run it; compare it with its NIR reference instead"
            )
        self.config, self.nodes = config, graph.nodes
        self.silence_attention = silence_attention

    def forward(self, x: Tensor, spikes: dict[str, Tensor] | None = None) -> Tensor:
        """Return the logits; `spikes`, if given, receives (S, L, *shape) of each population."""
        config = self.config
        record: Record = spikes.__setitem__ if spikes is not None else (lambda name, value: None)

        def population(name: str, *currents: Tensor) -> Tensor:
            branches = [Current(current, config.steps) for current in currents]
            s = lif_of_currents(branches, config.tau, self.threshold(name, x.device), self.slope(name))
            record(name, s)
            return s

        y = population("ssc", self.conv("ssc_conv", x, padding=1).unsqueeze(0))
        y = population("smf", self.convolved("smf_conv", y))
        for i, stride in enumerate(config.strides, start=1):
            y = self.block(f"block{i}", y, stride, population, record)
        pooled = y.sum((3, 4)) @ self.number("readout", "weight", x).T + self.number("readout", "bias", x)
        return pooled.mean(0)

    def number(self, name: str, field: str, like: Tensor) -> Tensor:
        """Return a node's weight, bias, or the like as float32, on the device of another tensor."""
        return _t(getattr(self.nodes[name], field)).to(like.device)

    def threshold(self, name: str, device: torch.device) -> Tensor:
        """Return a population's threshold: one number if all neurons share it, else of the population's shape."""
        values = self.nodes[name].v_threshold
        return _t(values.flat[0] if np.ptp(values) == 0 else values).to(device)

    def slope(self, name: str) -> float:
        """Return the slope of a population's surrogate gradient."""
        return SURROGATE_SLOPE

    def per_head(self, name: str, part: str, like: Tensor) -> tuple[Tensor, Tensor, float | Tensor]:
        """Return gain, threshold and slope of attention's population `part`, each (heads, 1, 1, 1)."""
        gain, threshold = (self.number(name, f"{field}_{part}", like) for field in ("gain", "threshold"))
        return gain.view(-1, 1, 1, 1), threshold.view(-1, 1, 1, 1), SURROGATE_SLOPE

    def block(self, block: str, x: Tensor, stride: int, population: Populate, record: Record) -> Tensor:
        config = self.config
        y = population(
            f"{block}_sgc",
            over_steps(lambda t: self.graph(f"{block}_sgc_graph", t), x),
            self.convolved(f"{block}_sgc_skip", x),
        )
        if config.attention != "none":
            if config.attention == "token":
                z = self.token_attention(block, y, population, record)
                current = self.convolved(f"{block}_proj_conv", z)
            elif f"{block}_attention" in self.nodes:
                qkv = population(f"{block}_qkv", self.convolved(f"{block}_qkv_conv", y))
                z = self.attention(f"{block}_attention", qkv, record)
                current = self.convolved(f"{block}_proj_conv", z)
            else:
                current = self.portable_attention(block, y, population, record)
            y = population(f"{block}_proj", current, self.convolved(f"{block}_proj_skip", y))
        conv = self.convolved(f"{block}_stc_conv", y, stride, (config.kernel // 2, 0))
        return population(f"{block}_stc", conv, self.convolved(f"{block}_stc_skip", x, stride))

    def convolved(self, name: str, x: Tensor, *options: Any) -> Tensor:
        """Apply `conv` to all time steps, (S, L, ...)."""
        return over_steps(lambda spikes: self.conv(name, spikes, *options), x)

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int | tuple[int, int] = 0) -> Tensor:
        weight, bias = self.number(name, "weight", x), self.number(name, "bias", x)
        return F.conv2d(x, weight, bias, (stride, 1), padding)

    def graph(self, name: str, x: Tensor) -> Tensor:
        """Apply a GraphConv, or the branches that stand for it in a portable graph."""
        if name not in self.nodes:
            return self.branches(name, x)
        subset, source, target = np.nonzero(self.nodes[name].adjacency)
        values = self.number(name, "adjacency", x)[subset, source, target].view(-1, 1, 1)
        weight = self.number(name, "weight", x).index_select(0, torch.from_numpy(subset).to(x.device)) * values
        return graph_convolution(x, weight, source, target) + self.number(name, "bias", x).view(-1, 1, 1)

    def branches(self, name: str, x: Tensor) -> Tensor:
        """Apply the branches of a portable graph convolution, one per joint."""
        targets = []
        for j in range(x.shape[3]):
            joints = torch.from_numpy(self.nodes[f"{name}_{j}_gather"].weight.argmax(1))
            targets.append(self.conv(f"{name}_{j}_conv", x[..., joints]))
        return torch.cat(targets, dim=3)

    def attention(self, name: str, qkv: Tensor, record: Record) -> Tensor:
        tau, heads = self.config.tau, self.config.heads
        q, k, v = qkv.chunk(3, dim=2)
        gain, threshold, slope = self.per_head(name, "m", qkv)
        m = lif(gain * attention_map_counts(q, k, heads), tau, threshold, slope)
        record(f"{name}.m", m)
        gain, threshold, slope = self.per_head(name, "z", qkv)
        z = lif(gain * attention_value_counts(m, v).unflatten(2, (heads, -1)), tau, threshold, slope).flatten(2, 3)
        z = torch.zeros_like(z) if self.silence_attention else z
        record(f"{name}.z", z)
        return z

    def token_attention(self, block: str, y: Tensor, population: Populate, record: Record) -> Tensor:
        name = f"{block}_attention_z"
        k, q = (population(f"{block}_{part}", self.convolved(f"{block}_{part}_conv", y)) for part in "kq")
        m = population(f"{block}_attention_m", self.convolved(f"{block}_attention_m_conv", q))
        key, synapse = k, f"{block}_k_{name}_synapse"  # in a quantised file, on the edge from k
        if synapse in self.nodes:
            portable = isinstance(self.nodes[synapse], nir.Linear)
            key = k @ self.number(synapse, "weight", k).T if portable else k * self.number(synapse, "scale", k)
        z = population(name, self.convolved(f"{name}_conv", m), key)
        z = torch.zeros_like(z) if self.silence_attention else z
        record(name, z)
        return z

    def portable_attention(self, block: str, y: Tensor, population: Populate, record: Record) -> Tensor:
        """Return the current after attention, from the populations that stand for it in a portable graph."""
        name, currents = f"{block}_attention", []
        for h in range(self.config.heads):
            q, k, v = (
                population(f"{block}_qkv_{part}{h}", self.convolved(f"{block}_qkv_conv_{part}{h}", y)) for part in PARTS
            )
            threshold_m, threshold_z = (_t(self.nodes[f"{name}_{part}{h}"].v_threshold) for part in "mz")
            products = q[..., :, None] * k[..., None, :]  # (S, L, d, T, query, key)
            m = lif(products.sum(2, keepdim=True), self.config.tau, threshold_m[..., :1, None])
            values = m * v[..., None, :]
            z = lif(values.sum(-1), self.config.tau, threshold_z)
            z = torch.zeros_like(z) if self.silence_attention else z
            for part, spikes in {"qk": products, "m": m, "mv": values}.items():
                record(f"{name}_{part}{h}", spikes.flatten(-2))
            record(f"{name}_z{h}", z)
            currents.append(self.convolved(f"{block}_proj_conv_{h}", z))
        return torch.stack(currents).sum(0)


def _t(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(x, dtype=np.float32))
