"""The unrolling of a NIR graph over its time steps into an ONNX graph, node by node."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import nir
import numpy as np

from mksgn.export.choices import ZERO
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.conventions import initial_of, reset_of
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from mksgn.export.graph.order import feed_forward_order, sources_of
from mksgn.export.onnx.graph import CLIPS, FOLDED, OnnxGraph, Signal, require
from mksgn.train.checkpoint import tool_versions

if TYPE_CHECKING:
    import onnx

STATELESS = (nir.Conv2d, nir.Affine, nir.Linear, nir.SumPool2d, nir.Flatten, nir.Scale, GraphConv)
REMEDIES = {
    "AvgPool2d": "write it as SumPool2d and Scale",
    "Conv1d": "write it as a Conv2d whose kernel has height 1",
    "IF": "write it as a LIF with a long tau and r scaled by it",
}


class Unrolled:
    """The unrolling of one feed-forward graph, independent of the node order in its file."""

    def __init__(self, graph: nir.NIRGraph, steps: int, dt: float):
        self.graph, self.steps, self.dt = graph, steps, dt
        self.sources = {name: sorted(sources) for name, sources in sources_of(graph).items()}
        self.outputs = sorted(name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
        self.averaged = "student" in graph.metadata and self.outputs == ["output"]
        # name of the concatenated bool spikes, and shape
        self.populations: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.signals: dict[str, Signal] = {}

    def model(self) -> onnx.ModelProto:
        """Build the ONNX model."""
        order = self.order()
        inputs = [name for name, node in self.graph.nodes.items() if isinstance(node, nir.Input)]
        spikes = [f"spikes/{p}" for name in order for p in _populations(name, self.graph.nodes[name])]
        public = [*inputs, *self.outputs, *spikes, *["logits"] * self.averaged]
        for name in public:
            if public.count(name) > 1:
                name = name.removeprefix("spikes/")
                raise UnsupportedNodeError(f"node {name}: two values would have this name; rename one of their nodes")
        self.file = OnnxGraph(set(public))
        for name in order:
            self.node(name, self.graph.nodes[name])
        for name, (joined, shape) in self.populations.items():
            self.unfold(joined, f"spikes/{name}", shape, "BOOL")
        return self.file.model("NIR graph", self.metadata(inputs))

    def order(self) -> list[str]:
        """Check the types and edges of all nodes; return the order of evaluation."""
        for name, node in self.graph.nodes.items():
            if not isinstance(node, (nir.Input, nir.Output, nir.LIF, SpikingSelfAttention, *STATELESS)):
                kind = type(node).__name__
                raise UnsupportedNodeError(
                    f"node {name}: {kind} has no encoding in ONNX, only LIF, SpikingSelfAttention and "
                    f"{', '.join(c.__name__ for c in STATELESS)} do; {REMEDIES.get(kind, 'rewrite it with these')}"
                )
            edges = len(self.sources[name])
            require(isinstance(node, nir.Input) != bool(edges), name, f"{edges} edges into it")
            require(
                not isinstance(node, nir.Output) or name not in dict(self.graph.edges), name, "edges out of an Output"
            )
        return feed_forward_order(self.graph)

    def metadata(self, inputs: list[str]) -> dict[str, str]:
        """Collect the texts and numbers in the metadata of the graph and its inputs.

        The graph's entries override those of inputs; `steps` and `dt` are those of the unrolling.
        """
        entries: dict[str, Any] = {}
        for name in inputs:
            prefix = "" if len(inputs) == 1 else f"{name}."
            entries |= {prefix + key: value for key, value in self.graph.nodes[name].metadata.items()}
        entries |= self.graph.metadata
        if "schema" in entries:
            entries["nir_schema"] = entries.pop("schema")
        entries |= {"steps": self.steps, "dt": self.dt, "onnx_version": tool_versions("onnx").get("onnx", "")}
        plain = {key: x.item() if isinstance(x, np.generic) else x for key, x in entries.items()}
        return {key: str(x) for key, x in plain.items() if isinstance(x, str | int | float)}

    def node(self, name: str, node: nir.NIRNode) -> None:
        """Add the operators of one node."""
        if isinstance(node, nir.Input):
            shape = node.input_type["input"]
            require(shape is not None, name, "an Input without a shape")
            self.signals[name] = self.file.input(name, tuple(int(n) for n in shape))
            return
        x = self.sum([self.signals[source] for source in self.sources[name]], name)
        if isinstance(node, nir.Output):
            values = self.unfold(self.fold(x).name, name, x.shape, "FLOAT")
            if self.averaged:
                self.file.output("ReduceMean", [values], "logits", (CLIPS, *x.shape), axes=[0], keepdims=0)
        elif isinstance(node, nir.LIF):
            if reset_of(node) != ZERO or initial_of(node).any():
                raise UnsupportedNodeError(
                    f"node {name}: a reset by subtraction, and a state that does not start at 0, are not unrolled; "
                    "export it --to nir, and run it with mksgn-deploy"
                )
            rate = np.float32(self.dt) / _f32(node.tau)
            self.signals[name] = self.fire(name, x, rate, node.v_threshold, node.r, node.v_leak, node.v_reset)
        elif isinstance(node, SpikingSelfAttention):
            self.signals[name] = self.attention(name, node, x)
        elif isinstance(node, nir.Conv2d):
            self.signals[name] = self.conv(name, node, x)
        elif isinstance(node, nir.SumPool2d):
            self.signals[name] = self.pool(name, node, x)
        elif isinstance(node, GraphConv):
            self.signals[name] = self.file.graph_conv(name, x, _f32(node.adjacency), _f32(node.weight), _f32(node.bias))
        else:
            self.signals[name] = self.elementary(name, node, x)

    def sum(self, parts: list[Signal], name: str) -> Signal:
        """Add up the edges into a node."""
        folded = any(part.folded for part in parts)
        total, *others = [self.fold(part) if folded else part for part in parts]
        for i, part in enumerate(others, start=1):
            require(part.shape == total.shape, name, f"a sum of inputs of shapes {total.shape} and {part.shape}")
            total = self.file.apply("Add", total, [part.name], f"{name}/sum{i}", total.shape)
        return total

    def fold(self, x: Signal) -> Signal:
        """Repeat a signal that is constant over the steps for every step."""
        if x.folded:
            return x
        dims = (FOLDED, *x.shape)
        return Signal(self.file.add("Concat", [x.name] * self.steps, f"{x.name}/steps", dims, axis=0), x.shape, True)

    def unfold(self, x: str, name: str, shape: tuple[int, ...], kind: str) -> str:
        """Make a folded value an output of the model, (steps, clips, *shape)."""
        dims = (self.steps, CLIPS, *shape)
        return self.file.output("Reshape", [x, self.file.target(name, dims)], name, dims, kind)

    def fire(
        self, name: str, x: Signal, rate: Any, threshold: Any, r: Any = 1.0, leak: Any = 0.0, reset: Any = 0.0
    ) -> Signal:
        """Integrate a LIF population step by step; return its spikes as a folded signal.

        From v = 0: v += rate ((leak - v) + r x);  s = v > threshold;  v = reset where s.
        """
        file, dims = self.file, (CLIPS, *x.shape)
        compact = {}
        for key, values in {"rate": rate, "threshold": threshold, "r": r, "v_leak": leak, "v_reset": reset}.items():
            compact[key] = _compact(_f32(values))
            fits = len(np.shape(values)) <= len(x.shape) and _broadcast(np.shape(values), x.shape) == x.shape
            require(fits, name, f"{key} of shape {np.shape(values)} for a current of shape {x.shape}")
        leaky = bool(compact["v_leak"].any())  # without a leak, (0 - v) + x equals x - v bit for bit
        needed = {"r": np.any(compact["r"] != 1), "v_leak": leaky, "v_reset": self.steps > 1}
        names = {key: file.constant(f"{name}/{key}", x) for key, x in compact.items() if needed.get(key, True)}
        if "r" in names:
            x = file.apply("Mul", x, [names["r"]], f"{name}/current", x.shape)
        at = [f"{name}/step{t}" for t in range(self.steps)]
        currents = [x.name] * self.steps
        if x.folded:
            currents = file.split(x.name, [f"{step}/current" for step in at], dims, axis=0)
        spikes: list[str] = []
        for step, current in zip(at, currents, strict=True):
            if not spikes:  # v = 0
                drive = file.add("Add", [names["v_leak"], current], f"{step}/drive", dims) if leaky else current
                v = file.add("Mul", [names["rate"], drive], f"{step}/v", dims)
            else:
                v = file.add("Where", [spikes[-1], names["v_reset"], v], f"{step}/start", dims)
                pull = file.add("Sub", [names["v_leak"] if leaky else current, v], f"{step}/pull", dims)
                pull = file.add("Add", [pull, current], f"{step}/drive", dims) if leaky else pull
                change = file.add("Mul", [names["rate"], pull], f"{step}/change", dims)
                v = file.add("Add", [v, change], f"{step}/v", dims)
            spikes.append(file.add("Greater", [v, names["threshold"]], f"{step}/spikes", dims, "BOOL"))
        joined = file.add("Concat", spikes, f"{name}/spikes", (FOLDED, *x.shape), "BOOL", axis=0)
        self.populations[name] = joined, x.shape
        values = file.add("Cast", [joined], name, (FOLDED, *x.shape), to=file.onnx.TensorProto.FLOAT)
        return Signal(values, x.shape, True)

    def attention(self, name: str, node: SpikingSelfAttention, x: Signal) -> Signal:
        """Add the two products and populations of attention; return the spikes z."""
        file, heads = self.file, node.heads
        fits = len(x.shape) == 3 and x.shape[0] % (3 * heads) == 0
        require(fits, name, f"{heads} heads on an input of shape {x.shape}")
        stacked, frames, joints = x.shape
        width, batch = stacked // 3 // heads, x.batch
        rate = np.float32(self.dt) / _f32(node.tau)
        qkv = file.reshape(x.name, f"{name}/heads", (batch, 3 * heads, width, frames, joints))
        qkv = file.transpose(qkv, f"{name}/frames", (0, 1, 3, 2, 4), (batch, 3 * heads, frames, width, joints))
        parts = [f"{name}/{part}" for part in ("q", "k", "v")]
        q, k, v = file.split(qkv, parts, (batch, heads, frames, width, joints), axis=1)
        maps, channels = (heads, frames, joints, joints), (stacked // 3, frames, joints)
        q = file.transpose(q, f"{name}/q_transposed", (0, 1, 2, 4, 3), (batch, heads, frames, joints, width))
        counts = Signal(file.add("MatMul", [q, k], f"{name}/map", (batch, *maps)), maps, x.folded)  # [query, key]
        m = self.fire(f"{name}.m", self.gain(name, "m", node.gain_m, counts), rate, _per(node.threshold_m, 4))
        m_transposed = file.transpose(m.name, f"{name}/m_transposed", (0, 1, 2, 4, 3), (FOLDED, *maps))
        v = self.fold(Signal(v, (heads, frames, width, joints), x.folded)).name
        z = file.add("MatMul", [v, m_transposed], f"{name}/values", (FOLDED, heads, frames, width, joints))
        z = file.transpose(z, f"{name}/by_channel", (0, 1, 3, 2, 4), (FOLDED, heads, width, frames, joints))
        counts = Signal(file.reshape(z, f"{name}/channels", (FOLDED, *channels)), channels, True)
        counts = self.gain(name, "z", np.repeat(node.gain_z, width), counts)
        return self.fire(f"{name}.z", counts, rate, _per(np.repeat(node.threshold_z, width), 3))

    def gain(self, name: str, part: str, gain: np.ndarray, counts: Signal) -> Signal:
        """Scale coincidences by a gain per head or channel, unless all gains are 1."""
        if np.all(gain == 1):
            return counts
        factor = self.file.constant(f"{name}/gain_{part}", _compact(_per(gain, len(counts.shape))))
        return self.file.apply("Mul", counts, [factor], f"{name}/current_{part}", counts.shape)

    def conv(self, name: str, node: nir.Conv2d, x: Signal) -> Signal:
        """Add a Conv2d."""
        weight, bias, groups = _f32(node.weight), _f32(node.bias), int(node.groups)
        stride, dilation = _pair(node.stride), _pair(node.dilation)
        fits = weight.ndim == 4 and bias.shape == (len(weight),) and len(weight) % groups == 0
        require(fits, name, f"a weight of shape {weight.shape}, a bias of shape {bias.shape} and {groups} groups")
        channels = weight.shape[1] * groups
        fits = len(x.shape) == 3 and x.shape[0] == channels
        require(fits, name, f"Conv2d of {channels} channels on an input of shape {x.shape}")
        if isinstance(node.padding, str) and node.padding == "same":
            # the larger half of an odd total goes to the bottom and the right
            total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            pads: tuple[int, ...] = (*(n // 2 for n in total), *(n - n // 2 for n in total))
            require(stride == (1, 1), name, f"padding 'same' with stride {stride}")
        else:
            pads = _pair((0, 0) if isinstance(node.padding, str) else node.padding) * 2
        return self.file.conv(name, x, weight, bias, stride, pads, dilation, groups)

    def pool(self, name: str, node: nir.SumPool2d, x: Signal) -> Signal:
        """Add a SumPool2d as a convolution with ones.

        ONNX's AveragePool divides, which is not exact.
        """
        kernel, stride, padding = _pair(node.kernel_size), _pair(node.stride), _pair(node.padding)
        require(len(x.shape) == 3, name, f"SumPool2d on an input of shape {x.shape}")
        if kernel == x.shape[1:] and padding == (0, 0):
            axes = self.file.constant(f"{name}/axes", [2, 3], np.int64)
            return self.file.apply("ReduceSum", x, [axes], name, (x.shape[0], 1, 1), keepdims=1)
        ones = np.ones((x.shape[0], 1, *kernel))
        return self.file.conv(name, x, ones, None, stride, padding * 2, groups=x.shape[0])

    def elementary(self, name: str, node: nir.NIRNode, x: Signal) -> Signal:
        """Add a Flatten, Scale, Linear or Affine."""
        file = self.file
        if isinstance(node, nir.Flatten):
            rank = len(x.shape)
            start, end = (int(d) + (rank if d < 0 else 0) for d in (node.start_dim, node.end_dim))
            require(0 <= start <= end < rank, name, f"Flatten of axes {start} to {end} on an input of shape {x.shape}")
            shape = (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
            return Signal(file.reshape(x.name, name, (x.batch, *shape)), shape, x.folded)
        if isinstance(node, nir.Scale):
            scale = _f32(node.scale)
            fits = _broadcast(scale.shape, x.shape) == x.shape
            require(fits, name, f"a scale of shape {scale.shape} on an input of shape {x.shape}")
            return file.apply("Mul", x, [file.constant(f"{name}/scale", _compact(scale))], name, x.shape)
        weight = _f32(node.weight)
        fits = weight.ndim == 2 and x.shape[-1] == weight.shape[1]
        require(fits, name, f"a weight of shape {weight.shape} on the last axis of an input of shape {x.shape}")
        shape = (*x.shape[:-1], len(weight))
        bias = getattr(node, "bias", None)
        factor = [file.constant(f"{name}/weight", weight.T)]
        y = file.apply("MatMul", x, factor, name if bias is None else f"{name}/product", shape)
        if bias is None:
            return y
        fits = _broadcast(np.shape(bias), shape) == shape
        require(fits, name, f"a bias of shape {np.shape(bias)} on an output of shape {shape}")
        return file.apply("Add", y, [file.constant(f"{name}/bias", bias)], name, shape)


def _populations(name: str, node: nir.NIRNode) -> list[str]:
    """Name the spiking populations of a node."""
    if isinstance(node, SpikingSelfAttention):
        return [f"{name}.m", f"{name}.z"]
    return [name] if isinstance(node, nir.LIF) else []


def _compact(x: np.ndarray) -> np.ndarray:
    """Reduce each axis along which `x` is constant to one value, and a constant array to a scalar."""
    for axis in range(x.ndim):
        first = x.take([0], axis)
        x = first if (x == first).all() else x
    return x.reshape(()) if x.size == 1 else x


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape that two shapes broadcast to, or None."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _pair(x: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.broadcast_to(x, 2))


def _per(x: np.ndarray, rank: int) -> np.ndarray:
    """Reshape one value per channel, or per head, to broadcast along the first of `rank` axes."""
    return _f32(x).reshape(-1, *(1,) * (rank - 1))


def _f32(x: Any) -> np.ndarray:
    return np.asarray(x, dtype=np.float32)
