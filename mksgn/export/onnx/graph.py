"""A builder of ONNX graphs: operators with names and shapes, and graph convolutions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from mksgn.export.errors import MissingToolError, UnsupportedNodeError
from mksgn.export.lowering import fold
from mksgn.train.checkpoint import tool_versions

if TYPE_CHECKING:
    import onnx

SCHEMA = "mksgn.onnx/1"
OPSET, IR_VERSION = 17, 8  # introduced by onnx 1.12 and onnxruntime 1.12 (2022); nothing here needs more
CLIPS, FOLDED = "clips", "steps_clips"  # names of the dynamic axis: clips, or steps · clips

Dims = tuple[Any, ...]  # int; str, a dynamic axis by name; None, a dynamic axis without a name


@dataclass(frozen=True)
class Signal:
    """The float32 value of a node.

    It is (clips, *shape), the same at every step, or, if `folded`, (steps · clips, *shape).
    """

    name: str
    shape: tuple[int, ...]
    folded: bool = False

    @property
    def batch(self) -> str:
        return FOLDED if self.folded else CLIPS


class OnnxGraph:
    """The operators of one model. Names are unique; inputs and outputs have the `reserved` ones."""

    def __init__(self, reserved: set[str]):
        self.onnx, self.used = tool("onnx"), set(reserved)
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.values: list[Any] = []
        self.constants: list[Any] = []

    def fresh(self, name: str) -> str:
        """Make a name unique."""
        while name in self.used:
            name += "_"
        self.used.add(name)
        return name

    def info(self, name: str, dims: Dims, kind: str) -> Any:
        return self.onnx.helper.make_tensor_value_info(name, getattr(self.onnx.TensorProto, kind), dims)

    def input(self, name: str, shape: tuple[int, ...]) -> Signal:
        self.inputs.append(self.info(name, (CLIPS, *shape), "FLOAT"))
        return Signal(name, shape)

    def output(
        self, op: str, inputs: Sequence[str], name: str, dims: Dims, kind: str = "FLOAT", **attributes: Any
    ) -> str:
        """Add an operator whose result is the output `name` of the model; return the name."""
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        self.outputs.append(self.info(name, dims, kind))
        return name

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Store an array; return its name."""
        array = np.array(values, dtype=dtype, order="C")
        fold.check_finite(name, array)
        name = self.fresh(name)
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: Sequence[str], name: str, dims: Dims, kind: str = "FLOAT", **attributes: Any) -> str:
        """Add an operator with one result; return the name that both have."""
        name = self.fresh(name)
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [name], name=name, **attributes))
        self.values.append(self.info(name, dims, kind))
        return name

    def split(self, x: str, names: Sequence[str], dims: Dims, axis: int) -> list[str]:
        """Split a value into equal parts of shape `dims`; return their names."""
        names = [self.fresh(name) for name in names]
        self.nodes.append(self.onnx.helper.make_node("Split", [x], names, name=f"{names[0]}/split", axis=axis))
        self.values += [self.info(name, dims, "FLOAT") for name in names]
        return names

    def target(self, name: str, dims: Dims) -> str:
        """Store the second operand of a Reshape to `dims`, at most one of which is dynamic."""
        return self.constant(f"{name}/shape", [d if isinstance(d, int) else -1 for d in dims], np.int64)

    def reshape(self, x: str, name: str, dims: Dims) -> str:
        return self.add("Reshape", [x, self.target(name, dims)], name, dims)

    def transpose(self, x: str, name: str, order: Sequence[int], dims: Dims) -> str:
        return self.add("Transpose", [x], name, dims, perm=list(order))

    def apply(
        self, op: str, x: Signal, others: Sequence[str], name: str, shape: Sequence[int], **attributes: Any
    ) -> Signal:
        """Add an operator that keeps the batch axis; return its result as a signal."""
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
        """Add a convolution.

        Args:
            name: Its name.
            x: Signal (C, H, W).
            weight: (O, C / groups, kh, kw).
            bias: (O,) or None.
            stride: Along H and W.
            pads: (top, left, bottom, right).
            dilation: Along H and W.
            groups: Number of groups.
        """
        window = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
        size = [(x.shape[1 + i] + pads[i] + pads[2 + i] - window[i]) // stride[i] + 1 for i in range(2)]
        require(min(size) >= 1, name, f"a window of {window} on an input of shape {x.shape} padded by {pads}")
        parameters = [self.constant(f"{name}/weight", weight)]
        if bias is not None:
            parameters.append(self.constant(f"{name}/bias", bias))
        settings = {"strides": stride, "pads": pads, "dilations": dilation, "group": groups}
        return self.apply("Conv", x, parameters, name, (len(weight), *size), kernel_shape=weight.shape[2:], **settings)

    def graph_conv(self, name: str, x: Signal, adjacency: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Signal:
        """Add a graph convolution.

        Args:
            name: Its name.
            x: Signal (C, T, V).
            adjacency: (K, V, V), [subset, source, target].
            weight: (K, O, C).
            bias: (O,).
        """
        channels, joints = weight.shape[2], adjacency.shape[1]
        fits = len(x.shape) == 3 and (x.shape[0], x.shape[2]) == (channels, joints)
        require(fits, name, f"GraphConv of {channels} channels and {joints} joints on an input of shape {x.shape}")
        if (np.count_nonzero(adjacency, axis=(1, 2)) <= 1).all():
            return self.graph_conv_by_edge(name, x, adjacency, weight, bias)
        frames, subsets = x.shape[1], len(adjacency)
        rows = adjacency.transpose(1, 0, 2).reshape(joints, -1)  # [source, (k, target)]
        spread = self.constant(f"{name}/adjacency", rows)
        y = self.apply("MatMul", x, [spread], f"{name}/spread", (channels, frames, subsets * joints))
        shape = (channels, frames * subsets, joints)  # a kernel of height K covers the subsets of one frame
        y = Signal(self.reshape(y.name, f"{name}/frames", (x.batch, *shape)), shape, x.folded)
        return self.conv(name, y, weight.transpose(1, 2, 0)[..., None], bias, stride=(subsets, 1))

    def graph_conv_by_edge(
        self, name: str, x: Signal, adjacency: np.ndarray, weight: np.ndarray, bias: np.ndarray
    ) -> Signal:
        """Add a graph convolution with one subset per edge, as in quantised files.

        A V x V product per subset would be zero but for one entry. Instead, all joints with the
        same number g of incoming edges share one batched product of (O, g C) and (g C, clips · T):
        no weight is stored twice or padded.
        """
        channels, frames, joints = x.shape
        outputs = weight.shape[1]
        edges: dict[int, dict[int, np.ndarray]] = {target: {} for target in range(joints)}
        for k, source, target in zip(*np.nonzero(adjacency), strict=True):
            part = adjacency[k, source, target] * weight[k]
            edges[int(target)][int(source)] = edges[int(target)].get(int(source), 0.0) + part
        by_degree = defaultdict(list)
        for target, sources in edges.items():
            if not sources:
                sources[target] = np.zeros((outputs, channels))  # no edge leads to this joint
            by_degree[len(sources)].append(target)
        # Two transpositions of whole rows with a reshape between them: a single one would move
        # individual numbers, which is eight times slower.
        rows = self.transpose(x.name, f"{name}/by_channel", (1, 0, 2, 3), (channels, x.batch, frames, joints))
        rows = self.reshape(rows, f"{name}/rows", (None, joints))
        columns = self.transpose(rows, f"{name}/by_joint", (1, 0), (joints, None))
        parts: list[str] = []
        order: list[int] = []
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
        added = self.constant(f"{name}/bias", bias[:, None, None])
        return self.apply("Add", Signal(y, shape, x.folded), [added], name, shape)

    def model(self, title: str, metadata: dict[str, str]) -> onnx.ModelProto:
        """Assemble the model; logits are its first output."""
        helper = self.onnx.helper
        outputs = sorted(self.outputs, key=lambda value: value.name != "logits")
        graph = helper.make_graph(self.nodes, title, self.inputs, outputs, self.constants, value_info=self.values)
        model = helper.make_model(
            graph,
            producer_name="mksgn",
            producer_version=tool_versions("mksgn").get("mksgn", ""),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(sorted({**metadata, "schema": SCHEMA}.items())))
        return model


def require(condition: bool, name: str, what: str) -> None:
    """Raise UnsupportedNodeError, which says `what` is wrong, unless a condition holds."""
    if not condition:
        raise UnsupportedNodeError(f"node {name}: {what} is not defined; correct the graph's edges and shapes")


def tool(name: str) -> Any:
    """Import onnx or onnxruntime; raise MissingToolError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingToolError(f"{name} is not installed; pip install 'mksgn[onnx]'") from error
