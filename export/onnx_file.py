"""A NIR graph, or the GCN teacher, as an ONNX file: what any ONNX runtime executes without torch, NIR or us.

Time is unrolled. A signal is a constant (clips, *shape), computed once, or runs over the steps, folded into the batch as
(steps · clips, *shape), step after step: stateless nodes run once over all steps and each weight is stored once. Only a LIF
population splits the steps apart, one set of elementwise operators per step, and joins its spikes again. Outputs:

    logits               (clips, classes)          mean over the steps; for a student, and the teacher
    logits/<stream>      (clips, classes)          the teacher's streams
    <nir.Output's name>  (steps, clips, *shape)    step by step
    spikes/<population>  (steps, clips, *shape)    bool; attention's are <node>.m (heads, T, V, V) and <node>.z (C, T, V)

A file's weights stay the float32 integers-times-2^k of the NIR file. onnxruntime reorders sums (blocked convolutions, a bias or a
branch added inside them, a scalar factor moved into the product before it: a power of two in quantised files), it has no Winograd
on a CPU and computes in float32: so exact sums stay exact. Measured: 0 of 228 million decisions differ, at every level of its
optimiser, in 1.23 and 1.32 (tests/test_export_onnx_file.py).
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nir
import numpy as np

from mksgn.export import fold
from mksgn.export.errors import ExportError, MissingToolError, UnsupportedNodeError
from mksgn.export.nodes import GraphConv, SpikingSelfAttention
from mksgn.train.checkpoint import TrainedTeacher, tool_versions
from mksgn.train.teacher import GCN

if TYPE_CHECKING:
    import onnx

SCHEMA = "mksgn.onnx/1"
OPSET, IR_VERSION = 17, 8  # what onnx 1.12 and onnxruntime 1.12 (2022) brought: nothing here needs more
PROTOBUF_LIMIT = 2**31 - 1  # bytes of one protobuf message
CLIPS, FOLDED = "clips", "steps_clips"  # names of the dynamic axes: clips, and steps times clips
RUN_CLIPS = 16  # clips that `execute` runs at a time: all spikes of a student's batch stay in hundreds of megabytes

STATELESS = (nir.Conv2d, nir.Affine, nir.Linear, nir.SumPool2d, nir.Flatten, nir.Scale, GraphConv)
REMEDIES = {
    "AvgPool2d": "write it as SumPool2d and Scale",
    "Conv1d": "write it as a Conv2d whose kernel has height 1",
    "NIRGraph": "put the nodes of the nested graph into the outer one",
    "IF": "write it as a LIF with a long tau",
}

Dims = tuple["int | str | None", ...]  # None: a dynamic axis without a name


@dataclass(frozen=True)
class Signal:
    """A node's float32 value: (clips, *shape), the same at every step, or (steps · clips, *shape) where it is `folded`."""

    name: str
    shape: tuple[int, ...]
    folded: bool = False

    @property
    def batch(self) -> str:
        return FOLDED if self.folded else CLIPS


def from_nir(graph: nir.NIRGraph, *, steps: int, dt: float) -> onnx.ModelProto:
    """A feed-forward graph, unrolled over `steps` steps of `dt` seconds with constant inputs; forward Euler as NIR gives it.

    Raises UnsupportedNodeError for what has no encoding, ExportError for shapes and numbers that don't fit.
    """
    if not (isinstance(steps, int | np.integer) and steps >= 1 and dt > 0):
        raise ExportError(
            f"ONNX: steps is {steps!r} and dt {dt!r}; expected at least one step, and a positive time in seconds"
        )
    return _Unrolled(graph, int(steps), float(dt)).model()


def from_teacher(model: TrainedTeacher) -> onnx.ModelProto:
    """The GCN teacher at inference, batch norm folded; input (clips, 3 · streams, T, V) as the model's normaliser makes it."""
    config = model.teacher.config
    joints, classes = next(iter(model.teacher.by_stream.values())).input_bn.num_features // 3, len(config.classes)
    shape = (3 * len(config.streams), config.frames, joints)
    file = _File({"input", "logits", *(f"logits/{stream}" for stream in config.streams)})
    x = file.input("input", shape)
    names = [f"{stream}/input" for stream in config.streams]
    parts = file.split(x.name, names, (CLIPS, 3, *shape[1:]), axis=1)
    logits = [
        _network(file, stream, net, Signal(part, (3, *shape[1:])), f"logits/{stream}")
        for (stream, net), part in zip(model.teacher.by_stream.items(), parts, strict=True)
    ]
    file.add("Mean", logits, "logits", (CLIPS, classes))
    for name in ("logits", *logits):
        file.output(name, (CLIPS, classes))
    training = {key: value for key, value in model.training.items() if key != "source"}
    return file.model(
        "GCN teacher",
        {
            "network": "teacher",
            "teacher": json.dumps(config.to_dict()),
            "classes": json.dumps(list(config.classes)),
            "streams": json.dumps(list(config.streams)),
            "normaliser": json.dumps(model.normaliser.to_dict()),
            "training": json.dumps(training),
            "versions": json.dumps(tool_versions("mksgn", "torch", "numpy", "onnx")),
        },
    )


def write(model: onnx.ModelProto, path: Path) -> None:
    """Check the model, strict shape inference included, and write it: atomic, and the same bytes for the same model."""
    onnx = _tool("onnx")
    if model.ByteSize() > PROTOBUF_LIMIT:
        raise ExportError(
            f"{path}: the model has {model.ByteSize()} bytes, one ONNX file holds {PROTOBUF_LIMIT}; export NIR"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path}: no valid ONNX model ({_first_line(error)}); export it again") from error
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(temporary, path)


def execute(model: onnx.ModelProto | Path, inputs: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """onnxruntime on a CPU: spikes[population] (L, S, *shape) bool; outputs[name] (L, S, *shape), of logits (L, classes).

    `inputs` is (L, *input shape), given to each input of the model. One thread, unless OMP_NUM_THREADS says otherwise.
    """
    runtime = _tool("onnxruntime")
    options = runtime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]
    options.intra_op_num_threads = int(threads) if threads.isdigit() and int(threads) else 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors: they are raised, too
    source = os.fspath(model) if isinstance(model, os.PathLike | str) else model.SerializeToString()
    try:
        session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has one class per status code, and no common base but this
        where = source if isinstance(source, str) else "the model"
        raise ExportError(f"{where}: onnxruntime can't load it ({_first_line(error)}); export it again") from error
    for given in session.get_inputs():
        if not len(inputs) or list(inputs.shape[1:]) != given.shape[1:]:
            raise ExportError(
                f"input {given.name}: got an array of shape {inputs.shape}, the model takes (at least one clip, "
                f"{', '.join(map(str, given.shape[1:]))}); give lanes of clips as the file's normaliser makes them"
            )
    names = [given.name for given in session.get_outputs()]
    lanes_first = [given.shape.index(CLIPS) for given in session.get_outputs()]
    chunks = []
    for i in range(0, len(inputs), RUN_CLIPS):
        x = np.ascontiguousarray(inputs[i : i + RUN_CLIPS], dtype=np.float32)
        values = session.run(names, {given.name: x for given in session.get_inputs()})
        chunks.append([np.moveaxis(value, axis, 0) for value, axis in zip(values, lanes_first, strict=True)])
    joined = {name: np.concatenate(parts) for name, parts in zip(names, zip(*chunks, strict=True), strict=True)}
    spikes = {name.removeprefix("spikes/"): x for name, x in joined.items() if name.startswith("spikes/")}
    return spikes, {name: x for name, x in joined.items() if not name.startswith("spikes/")}


class _File:
    """An ONNX graph in the making. Names are unique; those of inputs and outputs are kept for them."""

    def __init__(self, reserved: set[str]):
        self.onnx, self.reserved = _tool("onnx"), reserved
        self.used: set[str] = set(reserved)
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.values: dict[str, Any] = {}
        self.constants: list[Any] = []

    def fresh(self, name: str) -> str:
        while name in self.used:
            name += "_"
        self.used.add(name)
        return name

    def input(self, name: str, shape: tuple[int, ...]) -> Signal:
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, (CLIPS, *shape)))
        return Signal(name, shape)

    def output(self, name: str, dims: Dims, kind: str = "FLOAT") -> None:
        self.values.pop(name, None)
        kind = getattr(self.onnx.TensorProto, kind)
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, dims))

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        array = np.ascontiguousarray(values, dtype=dtype)
        fold.check_finite(name, array)
        name = self.fresh(name)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: Sequence[str], name: str, dims: Dims, kind: str = "FLOAT", **attributes: Any) -> str:
        """One operator with one result; returns the name of the result, which the operator bears too."""
        name = name if name in self.reserved else self.fresh(name)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        kind = getattr(self.onnx.TensorProto, kind)
        self.values[name] = self.onnx.helper.make_tensor_value_info(name, kind, dims)
        return name

    def split(self, x: str, names: Sequence[str], dims: Dims, axis: int) -> list[str]:
        """Equal parts, each of shape `dims`."""
        names = [self.fresh(name) for name in names]
        self.nodes.append(self.onnx.helper.make_node("Split", [x], names, name=f"{names[0]}/split", axis=axis))
        for name in names:
            self.values[name] = self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, dims)
        return names

    def reshape(self, x: str, name: str, dims: Dims, kind: str = "FLOAT") -> str:
        """To `dims`, of which at most one is dynamic."""
        target = [d if isinstance(d, int) else -1 for d in dims]
        return self.add("Reshape", [x, self.constant(f"{name}/shape", target, np.int64)], name, dims, kind)

    def transpose(self, x: str, name: str, order: Sequence[int], dims: Dims) -> str:
        return self.add("Transpose", [x], name, dims, perm=list(order))

    def apply(
        self, op: str, x: Signal, others: Sequence[str], name: str, shape: Sequence[int], **attributes: Any
    ) -> Signal:
        """An operator that leaves the batch axis alone, as a signal."""
        shape = tuple(int(n) for n in shape)
        return Signal(self.add(op, [x.name, *others], name, (x.batch, *shape), **attributes), shape, x.folded)

    def conv(
        self,
        name: str,
        x: Signal,
        weight: np.ndarray,
        bias: np.ndarray | None,
        stride: tuple[int, ...] = (1, 1),
        pads: tuple[int, ...] = (0, 0, 0, 0),
        dilation: tuple[int, ...] = (1, 1),
        groups: int = 1,
    ) -> Signal:
        """Signal (C, H, W), weight (O, C / groups, kh, kw), bias (O,), pads (top, left, bottom, right)."""
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        size = [(x.shape[1 + i] + pads[i] + pads[2 + i] - reach[i]) // stride[i] + 1 for i in range(2)]
        _require(min(size) >= 1, name, f"a window of {reach} on an input of shape {x.shape} padded by {pads}")
        parameters = [self.constant(f"{name}/weight", weight)]
        if bias is not None:
            parameters.append(self.constant(f"{name}/bias", bias))
        settings = {"strides": stride, "pads": pads, "dilations": dilation, "group": groups}
        return self.apply("Conv", x, parameters, name, (len(weight), *size), kernel_shape=weight.shape[2:], **settings)

    def graph_conv(self, name: str, x: Signal, adjacency: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Signal:
        """Signal (C, T, V); adjacency (K, V, V) [source, target], weight (K, O, C), bias (O,)."""
        _require(
            len(x.shape) == 3 and (x.shape[0], x.shape[2]) == (weight.shape[2], adjacency.shape[1]),
            name, f"GraphConv of {weight.shape[2]} channels and {adjacency.shape[1]} joints on an input of shape {x.shape}",
        )  # fmt: skip
        if (np.count_nonzero(adjacency, axis=(1, 2)) <= 1).all():
            return self.graph_conv_by_edge(name, x, adjacency, weight, bias)
        channels, frames, joints = x.shape
        subsets = len(adjacency)
        spread = self.constant(
            f"{name}/adjacency", adjacency.transpose(1, 0, 2).reshape(joints, -1)
        )  # [source, (k, target)]
        y = self.apply("MatMul", x, [spread], f"{name}/spread", (channels, frames, subsets * joints))
        shape = (channels, frames * subsets, joints)  # a kernel of height K takes one frame's subsets at a time
        y = Signal(self.reshape(y.name, f"{name}/frames", (x.batch, *shape)), shape, x.folded)
        return self.conv(name, y, weight.transpose(1, 2, 0)[..., None], bias, stride=(subsets, 1))

    def graph_conv_by_edge(
        self, name: str, x: Signal, adjacency: np.ndarray, weight: np.ndarray, bias: np.ndarray
    ) -> Signal:
        """One subset per edge, as in quantised files: V x V products would be zeros but for one.

        Joints that are reached by equally many edges g are one batched product of (O, g C) and (g C, clips · T): no weight is
        stored twice, and none is padding.
        """
        channels, frames, joints = x.shape
        outputs = weight.shape[1]
        edges: dict[int, dict[int, np.ndarray]] = {target: {} for target in range(joints)}
        for k, source, target in zip(*np.nonzero(adjacency), strict=True):
            part = np.float64(adjacency[k, source, target]) * weight[k]
            edges[int(target)][int(source)] = edges[int(target)].get(int(source), 0.0) + part
        by_degree = defaultdict(list)
        for target, sources in edges.items():
            if not sources:
                sources[target] = np.zeros((outputs, channels))  # nothing reaches it
            by_degree[len(sources)].append(target)
        # two transpositions of whole rows, a reshape between them: one alone moves single numbers, and is eight times slower
        rows = self.transpose(x.name, f"{name}/by_channel", (1, 0, 2, 3), (channels, x.batch, frames, joints))
        rows = self.reshape(rows, f"{name}/rows", (None, joints))
        columns = self.transpose(rows, f"{name}/by_joint", (1, 0), (joints, None))
        parts, order = [], []
        for degree, targets in sorted(by_degree.items()):
            at = f"{name}/degree{degree}"
            n, order = len(targets), order + targets
            index = self.constant(f"{at}/sources", [list(edges[t]) for t in targets], np.int64)
            stacked = self.constant(f"{at}/weight", [np.concatenate([*edges[t].values()], axis=1) for t in targets])
            y = self.add("Gather", [columns, index], f"{at}/gather", (n, degree, None), axis=0)
            y = self.reshape(y, f"{at}/columns", (n, degree * channels, None))
            parts.append(self.add("MatMul", [stacked, y], at, (n, outputs, None)))
        y = self.add("Concat", parts, f"{name}/targets", (joints, outputs, None), axis=0)
        index = self.constant(f"{name}/order", np.argsort(order), np.int64)
        y = self.add("Gather", [y, index], f"{name}/ordered", (joints, outputs, None), axis=0)
        y = self.reshape(y, f"{name}/columns", (joints, None))
        y = self.transpose(y, f"{name}/joints_last", (1, 0), (None, joints))
        y = self.reshape(y, f"{name}/channels_first", (outputs, x.batch, frames, joints))
        shape = (outputs, frames, joints)
        y = self.transpose(y, f"{name}/sum", (1, 0, 2, 3), (x.batch, *shape))
        return self.apply(
            "Add", Signal(y, shape, x.folded), [self.constant(f"{name}/bias", bias[:, None, None])], name, shape
        )

    def model(self, title: str, metadata: dict[str, str]) -> onnx.ModelProto:
        helper = self.onnx.helper
        graph = helper.make_graph(
            self.nodes, title, self.inputs, self.outputs, self.constants, value_info=list(self.values.values())
        )
        model = helper.make_model(
            graph,
            producer_name="mksgn",
            producer_version=tool_versions("mksgn").get("mksgn", ""),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(sorted({**metadata, "schema": SCHEMA}.items())))
        return model


class _Unrolled:
    """One NIR graph, node by node in topological order; ties by name, so that the file's order has no effect."""

    def __init__(self, graph: nir.NIRGraph, steps: int, dt: float):
        self.graph, self.steps, self.dt = graph, steps, dt
        self.sources = {name: sorted(a for a, b in graph.edges if b == name) for name in sorted(graph.nodes)}
        self.targets = {name: [b for a, b in graph.edges if a == name] for name in graph.nodes}
        self.outputs = sorted(name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
        self.averaged = "student" in graph.metadata and self.outputs == ["output"]
        self.populations: dict[str, tuple[str, tuple[int, ...]]] = {}  # joined bool spikes and their shape
        self.signals: dict[str, Signal] = {}

    def model(self) -> onnx.ModelProto:
        order = self.order()
        inputs = [name for name, node in self.graph.nodes.items() if isinstance(node, nir.Input)]
        spikes = [f"spikes/{p}" for name in order for p in _populations(name, self.graph.nodes[name])]
        public = [*inputs, *self.outputs, *spikes, *["logits"] * self.averaged]
        for name in public:
            if public.count(name) > 1:
                raise UnsupportedNodeError(
                    f"node {name.removeprefix('spikes/')}: two values of this name; rename the node"
                )
        self.file = _File(set(public))
        for name in order:
            self.node(name, self.graph.nodes[name])
        for name, (joined, shape) in self.populations.items():
            dims = (self.steps, CLIPS, *shape)
            self.file.output(self.file.reshape(joined, f"spikes/{name}", dims, "BOOL"), dims, "BOOL")
        return self.file.model("NIR graph", self.metadata(inputs))

    def order(self) -> list[str]:
        for name, node in self.graph.nodes.items():
            if not isinstance(node, (nir.Input, nir.Output, nir.LIF, SpikingSelfAttention, *STATELESS)):
                kind = type(node).__name__
                raise UnsupportedNodeError(
                    f"node {name}: {kind} has no encoding in ONNX here, only LIF, SpikingSelfAttention and "
                    f"{', '.join(c.__name__ for c in STATELESS)} do; {REMEDIES.get(kind, 'rewrite it with these')}"
                )
            _require(
                isinstance(node, nir.Input) != bool(self.sources[name]),
                name,
                f"{len(self.sources[name])} edges into it",
            )
            _require(not isinstance(node, nir.Output) or not self.targets[name], name, "edges out of an Output")
        done: list[str] = []
        while len(done) < len(self.sources):
            ready = [n for n, sources in self.sources.items() if n not in done and set(done).issuperset(sources)]
            if not ready:
                left = [n for n in self.sources if n not in done]
                while idle := [n for n in left if not set(self.targets[n]) & set(left)]:  # behind the loop, not in it
                    left = [n for n in left if n not in idle]
                kinds = ", ".join(f"{n} ({type(self.graph.nodes[n]).__name__})" for n in left)
                raise UnsupportedNodeError(
                    f"nodes {kinds}: a recurrent loop has no encoding in ONNX here; unroll it or cut it"
                )
            done += ready
        return done

    def metadata(self, inputs: list[str]) -> dict[str, str]:
        """Texts and numbers of the graph's metadata and of its inputs'; the graph's own win, but for steps and dt."""
        found: dict[str, Any] = {}
        for name in inputs:
            prefix = "" if len(inputs) == 1 else f"{name}."
            found |= {prefix + key: value for key, value in self.graph.nodes[name].metadata.items()}
        found |= self.graph.metadata
        found["nir_schema"] = found.pop("schema", "")
        found |= {"steps": self.steps, "dt": self.dt, "onnx": tool_versions("onnx").get("onnx", "")}
        plain = {key: x.item() if isinstance(x, np.generic) else x for key, x in found.items()}
        return {key: str(x) for key, x in plain.items() if isinstance(x, str | int | float)}

    def node(self, name: str, node: nir.NIRNode) -> None:
        if isinstance(node, nir.Input):
            self.signals[name] = self.file.input(name, tuple(int(n) for n in node.input_type["input"]))
            return
        x = self.sum([self.signals[source] for source in self.sources[name]], name)
        if isinstance(node, nir.Output):
            self.output(name, x)
        elif isinstance(node, nir.LIF):
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
        """Several edges into a node are added up."""
        folded = any(part.folded for part in parts)
        total, *others = [self.fold(part) if folded else part for part in parts]
        for i, part in enumerate(others, start=1):
            _require(part.shape == total.shape, name, f"a sum of inputs of shapes {total.shape} and {part.shape}")
            total = self.file.apply("Add", total, [part.name], f"{name}/sum{i}", total.shape)
        return total

    def fold(self, x: Signal) -> Signal:
        if x.folded:
            return x
        dims = (FOLDED, *x.shape)
        return Signal(self.file.add("Concat", [x.name] * self.steps, f"{x.name}/steps", dims, axis=0), x.shape, True)

    def output(self, name: str, x: Signal) -> None:
        dims = (self.steps, CLIPS, *x.shape)
        if self.averaged:
            self.file.output("logits", (CLIPS, *x.shape))
        self.file.output(self.file.reshape(self.fold(x).name, name, dims), dims)
        if self.averaged:
            self.file.add("ReduceMean", [name], "logits", (CLIPS, *x.shape), axes=[0], keepdims=0)
            self.file.values.pop("logits")

    def fire(
        self, name: str, x: Signal, rate: Any, threshold: Any, r: Any = 1.0, leak: Any = 0.0, reset: Any = 0.0
    ) -> Signal:
        """v ← v + rate ((leak - v) + r x) from v = leak; spike where v > threshold, then v = reset. Returns the spikes."""
        file, dims = self.file, (CLIPS, *x.shape)
        compact = {}
        for key, values in {"rate": rate, "threshold": threshold, "r": r, "v_leak": leak, "v_reset": reset}.items():
            compact[key] = _compact(_f32(values))
            fits = len(np.shape(values)) <= len(x.shape) and _broadcast(np.shape(values), x.shape) == x.shape
            _require(fits, name, f"{key} of shape {np.shape(values)} for a current of shape {x.shape}")
        names = {
            k: file.constant(f"{name}/{k}", v) for k, v in compact.items() if k in ("rate", "threshold", "v_reset")
        }
        leaky = bool(compact["v_leak"].any())  # without, (0 - v) + x is x - v, bit for bit
        if leaky:
            names["v_leak"] = file.constant(f"{name}/v_leak", compact["v_leak"])
        if np.any(compact["r"] != 1):
            x = file.apply("Mul", x, [file.constant(f"{name}/r", compact["r"])], f"{name}/current", x.shape)
        at = [f"{name}/step{t}" for t in range(self.steps)]
        currents = [x.name] * self.steps
        if x.folded:
            currents = file.split(x.name, [f"{step}/current" for step in at], dims, axis=0)
        spikes: list[str] = []
        for step, current in zip(at, currents, strict=True):
            if not spikes:  # v = leak
                v = file.add("Mul", [names["rate"], current], f"{step}/{'change' if leaky else 'v'}", dims)
                v = file.add("Add", [names["v_leak"], v], f"{step}/v", dims) if leaky else v
            else:
                v = file.add("Where", [spikes[-1], names["v_reset"], v], f"{step}/start", dims)
                pull = file.add("Sub", [names["v_leak"] if leaky else current, v], f"{step}/pull", dims)
                pull = file.add("Add", [pull, current], f"{step}/drive", dims) if leaky else pull
                v = file.add(
                    "Add", [v, file.add("Mul", [names["rate"], pull], f"{step}/change", dims)], f"{step}/v", dims
                )
            spikes.append(file.add("Greater", [v, names["threshold"]], f"{step}/spikes", dims, "BOOL"))
        joined = file.add("Concat", spikes, f"{name}/spikes", (FOLDED, *x.shape), "BOOL", axis=0)
        self.populations[name] = joined, x.shape
        return Signal(
            file.add("Cast", [joined], name, (FOLDED, *x.shape), to=file.onnx.TensorProto.FLOAT), x.shape, True
        )

    def attention(self, name: str, node: SpikingSelfAttention, x: Signal) -> Signal:
        file, heads = self.file, node.heads
        _require(
            len(x.shape) == 3 and x.shape[0] % (3 * heads) == 0, name, f"{heads} heads on an input of shape {x.shape}"
        )
        stacked, frames, joints = x.shape
        width, batch = stacked // 3 // heads, x.batch
        rate = np.float32(self.dt) / _f32(node.tau)
        qkv = file.reshape(x.name, f"{name}/heads", (batch, 3 * heads, width, frames, joints))
        qkv = file.transpose(qkv, f"{name}/frames", (0, 1, 3, 2, 4), (batch, 3 * heads, frames, width, joints))
        parts = [f"{name}/{part}" for part in ("q", "k", "v")]
        q, k, v = file.split(qkv, parts, (batch, heads, frames, width, joints), axis=1)
        shape = (heads, frames, joints, joints)
        q = file.transpose(q, f"{name}/q_transposed", (0, 1, 2, 4, 3), (batch, heads, frames, joints, width))
        counts = Signal(file.add("MatMul", [q, k], f"{name}/map", (batch, *shape)), shape, x.folded)  # [query, key]
        m = self.fire(f"{name}.m", self.gain(name, "m", node.gain_m, counts), rate, _per(node.threshold_m, 4))
        m_transposed = file.transpose(m.name, f"{name}/m_transposed", (0, 1, 2, 4, 3), (FOLDED, *shape))
        v = self.fold(Signal(v, (heads, frames, width, joints), x.folded)).name
        z = file.add("MatMul", [v, m_transposed], f"{name}/values", (FOLDED, heads, frames, width, joints))
        z = file.transpose(z, f"{name}/by_channel", (0, 1, 3, 2, 4), (FOLDED, heads, width, frames, joints))
        shape = (stacked // 3, frames, joints)
        counts = Signal(file.reshape(z, f"{name}/channels", (FOLDED, *shape)), shape, True)
        counts = self.gain(name, "z", np.repeat(node.gain_z, width), counts)
        return self.fire(f"{name}.z", counts, rate, _per(np.repeat(node.threshold_z, width), 3))

    def gain(self, name: str, part: str, gain: np.ndarray, counts: Signal) -> Signal:
        if np.all(gain == 1):
            return counts
        factor = self.file.constant(f"{name}/gain_{part}", _compact(_per(gain, len(counts.shape))))
        return self.file.apply("Mul", counts, [factor], f"{name}/current_{part}", counts.shape)

    def conv(self, name: str, node: nir.Conv2d, x: Signal) -> Signal:
        weight, groups = _f32(node.weight), int(node.groups)
        stride, dilation = _pair(node.stride), _pair(node.dilation)
        _require(
            len(x.shape) == 3 and x.shape[0] == weight.shape[1] * groups,
            name, f"Conv2d of {weight.shape[1] * groups} channels on an input of shape {x.shape}",
        )  # fmt: skip
        if (
            isinstance(node.padding, str) and node.padding == "same"
        ):  # an odd row goes below, an odd column to the right
            total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            pads = (total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2)
            _require(stride == (1, 1), name, f"padding 'same' with stride {stride}")
        else:
            pads = _pair((0, 0) if isinstance(node.padding, str) else node.padding) * 2
        return self.file.conv(name, x, weight, _f32(node.bias), self.thinned(name, stride), pads, dilation, groups)

    def thinned(self, name: str, stride: tuple[int, ...]) -> tuple[int, ...]:
        """The stride of a convolution, times that of a SumPool2d of kernel 1 that alone reads it: nothing is summed there.

        The exporter writes strided convolutions so, for NIR's type check; the frames left out need not be computed.
        """
        readers = self.targets[name]
        pool = self.graph.nodes[readers[0]] if len(readers) == 1 else None
        if isinstance(pool, nir.SumPool2d) and _decimates(pool) and len(self.sources[readers[0]]) == 1:
            return tuple(a * b for a, b in zip(stride, _pair(pool.stride), strict=True))
        return stride

    def pool(self, name: str, node: nir.SumPool2d, x: Signal) -> Signal:
        """A sum over windows is a convolution with ones: ONNX's AveragePool would divide, which does not stay exact."""
        kernel, stride, padding = _pair(node.kernel_size), _pair(node.stride), _pair(node.padding)
        _require(len(x.shape) == 3, name, f"SumPool2d on an input of shape {x.shape}")
        before = self.sources[name][0]
        if isinstance(self.graph.nodes[before], nir.Conv2d) and _decimates(node) and len(self.targets[before]) == 1:
            if len(self.sources[name]) == 1:
                return x  # see `thinned`
        if kernel == x.shape[1:] and padding == (0, 0):
            axes = self.file.constant(f"{name}/axes", [2, 3], np.int64)
            return self.file.apply("ReduceSum", x, [axes], name, (x.shape[0], 1, 1), keepdims=1)
        ones = np.ones((x.shape[0], 1, *kernel))
        return self.file.conv(name, x, ones, None, stride, padding * 2, groups=x.shape[0])

    def elementary(self, name: str, node: nir.NIRNode, x: Signal) -> Signal:
        """Flatten, Scale, Linear and Affine."""
        file = self.file
        if isinstance(node, nir.Flatten):
            rank = len(x.shape)
            start, end = (int(d) + (rank if d < 0 else 0) for d in (node.start_dim, node.end_dim))
            _require(0 <= start <= end < rank, name, f"Flatten of axes {start} to {end} on an input of shape {x.shape}")
            shape = (*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])
            return Signal(file.reshape(x.name, name, (x.batch, *shape)), shape, x.folded)
        if isinstance(node, nir.Scale):
            scale = _f32(node.scale)
            _require(
                _broadcast(scale.shape, x.shape) == x.shape, name, f"scale {scale.shape} on an input of shape {x.shape}"
            )
            return file.apply("Mul", x, [file.constant(f"{name}/scale", _compact(scale))], name, x.shape)
        weight = _f32(node.weight)
        _require(
            weight.ndim == 2 and x.shape[-1] == weight.shape[1],
            name, f"a weight of shape {weight.shape} on the last axis of an input of shape {x.shape}",
        )  # fmt: skip
        shape = (*x.shape[:-1], len(weight))
        bias = getattr(node, "bias", None)
        factor = [file.constant(f"{name}/weight", weight.T)]
        y = file.apply("MatMul", x, factor, name if bias is None else f"{name}/product", shape)
        if bias is None:
            return y
        _require(
            _broadcast(np.shape(bias), shape) == shape, name, f"bias {np.shape(bias)} on an output of shape {shape}"
        )
        return file.apply("Add", y, [file.constant(f"{name}/bias", bias)], name, shape)


def _network(file: _File, stream: str, net: GCN, x: Signal, logits: str) -> str:
    """One stream of the teacher; returns `logits`. The input's norm stays an affine map: its offset is none where a kernel is padded."""
    gain, shift = (g.numpy().reshape(3, 1, -1) for g in fold.folded_norm(net.input_bn))  # type: ignore[arg-type]  # any norm
    x = file.apply("Mul", x, [file.constant(f"{stream}/norm/gain", gain)], f"{stream}/norm/scaled", x.shape)
    x = file.apply("Add", x, [file.constant(f"{stream}/norm/shift", shift)], f"{stream}/norm", x.shape)
    for i, layer in enumerate(net.layers, start=1):
        at = f"{stream}/layer{i}"
        branches: list[tuple[str, Any, Any]] = [("graph", layer.spatial_skip, None), ("conv", layer.skip, layer.conv)]
        before = x
        for part, skip, conv in branches:
            if conv is None:
                y = file.graph_conv(f"{at}/{part}", x, *fold.graph_conv(layer.graph))
            else:
                y = _folded_conv(file, f"{at}/{part}", conv, x)
            if skip is not None:
                other = before if not hasattr(skip, "conv") else _folded_conv(file, f"{at}/{part}_skip", skip, before)
                y = file.apply("Add", y, [other.name], f"{at}/{part}_sum", y.shape)
            x = file.apply("Relu", y, [], f"{at}/{part}_relu", y.shape)
    pooled = file.add("ReduceMean", [x.name], f"{stream}/pool", (CLIPS, x.shape[0]), axes=[2, 3], keepdims=0)
    weight, bias = file.constant(f"{stream}/fc/weight", fold.array(net.fc.weight)), fold.array(net.fc.bias)
    inputs = [pooled, weight, file.constant(f"{stream}/fc/bias", bias)]
    return file.add("Gemm", inputs, logits, (CLIPS, net.fc.out_features), transB=1)


def _folded_conv(file: _File, name: str, layer: Any, x: Signal) -> Signal:
    weight, bias = fold.conv(layer)
    return file.conv(name, x, weight, bias, layer.conv.stride, layer.conv.padding * 2)


def _populations(name: str, node: nir.NIRNode) -> list[str]:
    if isinstance(node, SpikingSelfAttention):
        return [f"{name}.m", f"{name}.z"]
    return [name] if isinstance(node, nir.LIF) else []


def _decimates(node: nir.SumPool2d) -> bool:
    return _pair(node.kernel_size) == (1, 1) and _pair(node.padding) == (0, 0)


def _require(condition: bool, name: str, what: str) -> None:
    if not condition:
        raise UnsupportedNodeError(f"node {name}: {what} has no meaning; mend the graph's edges and shapes")


def _compact(x: np.ndarray) -> np.ndarray:
    """One value for each axis along which `x` is constant: of shape () if it is so along all."""
    for axis in range(x.ndim):
        first = x.take([0], axis)
        x = first if (x == first).all() else x
    return x.reshape(()) if x.size == 1 else x


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _pair(x: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.broadcast_to(x, 2))


def _per(x: np.ndarray, rank: int) -> np.ndarray:
    """One value per entry of the first of `rank` axes."""
    return _f32(x).reshape(-1, *(1,) * (rank - 1))


def _f32(x: Any) -> np.ndarray:
    return np.asarray(x, dtype=np.float32)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _tool(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingToolError(f"{name} is not installed; pip install 'mksgn[onnx]'") from error
