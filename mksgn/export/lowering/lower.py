"""The conversion of a student to a NIR graph of the structured profile.

A population has the name that the student records its spikes under; the linear nodes before it have
that name with a suffix. No name contains "/", which breaks the file, or ".", which causes
collisions when nirtorch renames nodes.
"""

import json
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from torch import Tensor

from mksgn.export.graph.metadata import SCHEMA
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention, f32
from mksgn.export.lowering import fold
from mksgn.export.lowering.supported_modules import check_student
from mksgn.train.checkpoint import tool_versions
from mksgn.train.layers import SASGC, SpikingTokenAttention
from mksgn.train.layers import SpikingSelfAttention as SelfAttention
from mksgn.train.skeletons import graph as skeleton
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student


def lower(student: Student, normaliser: StreamNormaliser, *, dt: float = 1e-4) -> nir.NIRGraph:
    """Convert a student to an unquantised graph in float32.

    The student fires at v >= threshold and NIR at v > threshold: each threshold is moved down to
    the next float32 (NIR.md).

    Args:
        student: A student in evaluation mode.
        normaliser: Turns clips into the student's input; kept in the Input's metadata.
        dt: Time step in seconds.

    Raises:
        ExportError: A module or a weight cannot be exported.
    """
    check_student(student)
    lowering = Lowering(student, normaliser, dt=dt)
    return nir.NIRGraph(lowering.nodes, lowering.edges, metadata=lowering.metadata())


class Lowering:
    """The nodes and edges of one graph; a method for each part of the student adds them.

    Attributes:
        nodes: The nodes by name, in float32.
        edges: The edges.
        folded: What the nodes' numbers are rounded from, by name, with the gradients of the student's
            parameters: weight and bias; for a graph convolution, adjacency, weight and bias; for
            attention, the thresholds of m and z.
    """

    def __init__(self, student: Student, normaliser: StreamNormaliser, *, dt: float = 1e-4):
        self.student, self.config, self.dt, self.neurons = student, student.config, dt, student.neurons()
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.folded: dict[str, tuple[Tensor, ...]] = {}
        self._add_all(normaliser)

    def _add_all(self, normaliser: StreamNormaliser) -> None:
        config, student = self.config, self.student
        frames, joints = config.frames, config.joints
        self.nodes["input"] = nir.Input({"input": np.array([3 * len(config.streams), frames, joints])})
        self.nodes["input"].metadata = {
            "signal": "analog",
            "streams": json.dumps(config.streams),
            "normaliser": json.dumps(normaliser.to_dict()),
        }
        self.conv("ssc_conv", fold.encoder(student.ssc), "input", frames, padding=(1, 1))
        self.lif("ssc", len(config.streams) * config.stream_channels, frames, ["ssc_conv"])
        self.conv("smf_conv", fold.fusion(student.smf), "ssc", frames)
        self.lif("smf", config.widths[0], frames, ["smf_conv"])
        source = "smf"
        for i, (sgc, stc) in enumerate(student.blocks):
            name, width, stride, after = f"block{i + 1}", config.widths[i], config.strides[i], config.block_frames[i]
            y = self.spatial(name, sgc, source, width, frames)
            conv = self.conv(f"{name}_stc_conv", fold.conv(stc.conv), y, frames, padding="same", stride=stride)
            skip = self.conv(f"{name}_stc_skip", fold.conv(stc.skip), source, frames, stride=stride)
            source = self.lif(f"{name}_stc", width, after, [conv, skip])
            frames = after
        self.readout(source, frames)

    def metadata(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "profile": "structured",
            "dt": self.dt,
            "steps": self.config.steps,
            "reset": "hard, to 0; all state is 0 at the start of a clip",
            "streams": json.dumps(self.config.streams),
            "joints": json.dumps(skeleton(self.config.graph).joints),
            "classes": json.dumps(self.config.classes),
            "versions": json.dumps(tool_versions("mksgn", "nir", "torch", "numpy", "h5py")),
            "student": json.dumps(self.config.to_dict()),
        }

    def numbers(self, name: str, folded: tuple[Tensor, ...]) -> tuple[np.ndarray, ...]:
        """Keep a node's tensors in `folded`; return them as arrays, which must be finite."""
        self.folded[name] = folded
        values = fold.arrays(folded)
        fold.check_finite(name, *values)
        return values

    def spatial(self, name: str, layer: SASGC, source: str, width: int, frames: int) -> str:
        """Add an SA-SGC layer; return the name of its last population."""
        graph, skip = f"{name}_sgc_graph", f"{name}_sgc_skip"
        adjacency, weight, bias = self.numbers(graph, fold.graph_conv(layer.graph))
        self.nodes[graph] = GraphConv(f32(adjacency), f32(weight), f32(bias))
        self.edges.append((source, graph))
        self.conv(skip, fold.conv(layer.skip), source, frames)
        y = self.lif(f"{name}_sgc", width, frames, [graph, skip])
        if layer.attention is None:
            return y
        for suffix, (branch, _) in layer.attended.items():
            conv = self.conv(f"{name}_{suffix}_conv", fold.conv(branch), y, frames)
            self.lif(f"{name}_{suffix}", branch.conv.out_channels, frames, [conv])
        if isinstance(layer.attention, SpikingTokenAttention):
            z = self.token_attention(name, layer.attention, width, frames)
        else:
            z = self.self_attention(name, layer.attention)
        self.conv(f"{name}_proj_conv", fold.conv(layer.proj), z, frames)
        self.conv(f"{name}_proj_skip", fold.conv(layer.proj_skip), y, frames)
        return self.lif(f"{name}_proj", width, frames, [f"{name}_proj_conv", f"{name}_proj_skip"])

    def self_attention(self, block: str, layer: SelfAttention) -> str:
        """Add self-attention, one node with two populations; return its name."""
        name = f"{block}_attention"
        threshold_m, threshold_z = self.numbers(name, fold.attention_thresholds(layer))
        one = np.ones(self.config.heads, dtype=np.float32)
        self.nodes[name] = SpikingSelfAttention(
            self.config.heads,
            one,
            one,
            _strict(threshold_m),
            _strict(threshold_z),
            np.float32(self.config.tau * self.dt),
        )
        self.edges.append((f"{block}_qkv", name))
        return name

    def token_attention(self, block: str, layer: SpikingTokenAttention, width: int, frames: int) -> str:
        """Add token attention's populations, m for the sums and z for the gates; return the name of z."""
        name = f"{block}_attention"
        to_m, to_z = fold.token_synapses(layer, width)
        sums = self.conv(f"{name}_m_conv", (to_m, to_m.new_zeros(layer.heads)), f"{block}_q", frames)
        m = self.lif(f"{name}_m", layer.heads, frames, [sums])
        gates = self.conv(f"{name}_z_conv", (to_z, to_z.new_zeros(width)), m, frames)
        return self.lif(f"{name}_z", width, frames, [gates, f"{block}_k"])

    def conv(
        self,
        name: str,
        folded: tuple[Tensor, Tensor],
        source: str,
        frames: int,
        *,
        padding: tuple[int, int] | str = (0, 0),
        stride: int = 1,
    ) -> str:
        """Add a Conv2d; return the name of its last node.

        A strided convolution of height > 1 is written as one of stride 1 and a decimating SumPool2d
        of kernel 1. The strided form would not type-check, because nir computes the output type of
        both axes from the kernel's height (NIR.md).
        """
        weight, bias = self.numbers(name, folded)
        split = stride > 1 and weight.shape[2] > 1
        if weight.shape[2] == 1:
            padding = (0, 0)  # equals "same", which is only defined for stride 1
        self.nodes[name] = nir.Conv2d(
            input_shape=(frames, self.config.joints),
            weight=f32(weight),
            stride=(1 if split else stride, 1),
            padding=padding,
            dilation=(1, 1),
            groups=1,
            bias=f32(bias),
        )
        self.edges.append((source, name))
        if split:
            self.nodes[f"{name}_stride"] = nir.SumPool2d(np.array([1, 1]), np.array([stride, 1]), np.array([0, 0]))
            self.edges.append((name, f"{name}_stride"))
            return f"{name}_stride"
        return name

    def lif(self, name: str, channels: int, frames: int, sources: list[str]) -> str:
        """Add a LIF population in the form that SpikingJelly, snnTorch and norse read alike (NIR.md)."""
        shape = (channels, frames, self.config.joints)
        threshold = _strict(fold.array(self.neurons[name].threshold))
        self.nodes[name] = nir.LIF(
            tau=np.full(shape, self.config.tau * self.dt, dtype=np.float32),
            r=np.ones(shape, dtype=np.float32),
            v_leak=np.zeros(shape, dtype=np.float32),
            v_threshold=np.broadcast_to(threshold, shape).copy(),
            v_reset=np.zeros(shape, dtype=np.float32),
        )
        self.edges += [(source, name) for source in sources]
        return name

    def readout(self, source: str, frames: int) -> None:
        """Add the mean over frames and joints and the FC: SumPool2d → Flatten → Affine(W / (T V)).

        The mean over the time steps is left to the host.
        """
        joints, fc = self.config.joints, self.student.fc
        window = np.array([frames, joints])
        self.nodes["readout_pool"] = nir.SumPool2d(window, window, np.array([0, 0]))
        self.nodes["readout_flatten"] = nir.Flatten({"input": np.array([fc.in_features, 1, 1])}, -3, -1)
        weight, bias = self.numbers("readout", (fc.weight.double() / (frames * joints), fc.bias.double()))
        self.nodes["readout"] = nir.Affine(f32(weight), f32(bias))
        self.nodes["output"] = nir.Output({"output": np.array([fc.out_features])})
        self.edges += pairwise([source, "readout_pool", "readout_flatten", "readout", "output"])


def _strict(threshold: np.ndarray) -> np.ndarray:
    """Return the next float32 below: v > _strict(th) fires exactly where v >= th does."""
    return np.nextafter(f32(threshold), np.float32(0.0))
