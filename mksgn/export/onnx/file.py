"""ONNX files of a NIR graph or of the GCN teacher, for any ONNX runtime.

Time is unrolled. A signal is either constant over the steps, (clips, *shape), and computed once, or
has the steps folded into the batch, (steps · clips, *shape), step after step. Stateless nodes run
once over all steps and each weight is stored once. Only a LIF population splits the steps, with one
set of elementwise operators per step, and concatenates its spikes again. Outputs:

    logits               (clips, classes)          mean over the steps; of a student or the teacher
    logits/<stream>      (clips, classes)          of each stream of the teacher
    <Output's name>      (steps, clips, *shape)    float32
    spikes/<population>  (steps, clips, *shape)    bool

The populations of attention are <node>.m, (heads, T, V, V), and <node>.z, (C, T, V).

Weights remain the NIR file's integers times 2^k, in float32. onnxruntime's optimiser reorders
sums: it blocks convolutions, adds a bias or a branch inside them, and moves a scalar factor into
the preceding product. On a CPU it uses neither Winograd nor, unless asked to, a precision other
than float32, so sums that are exact in any order stay exact. Measured on the demo: 0 of 114
million decisions differ from torch's at each of its four levels, in onnxruntime 1.23 and 1.32.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nir
import numpy as np

from mksgn.common.errors import first_line
from mksgn.export.errors import ExportError
from mksgn.export.graph import files
from mksgn.export.graph.standard import standard_form
from mksgn.export.lowering import fold
from mksgn.export.onnx.graph import CLIPS, SCHEMA, OnnxGraph, Signal, tool
from mksgn.export.onnx.unroll import Unrolled
from mksgn.train.checkpoint import TrainedTeacher, sha256, tool_versions
from mksgn.train.layers import ConvBN
from mksgn.train.teacher import GCN

if TYPE_CHECKING:
    import onnx

PROTOBUF_LIMIT = 2**31 - 1  # bytes of one protobuf message
RUN_CLIPS = 16  # clips that `execute` runs at a time: the spikes of a batch take hundreds of megabytes


def from_nir(graph: nir.NIRGraph, *, steps: int, dt: float) -> onnx.ModelProto:
    """Unroll a feed-forward graph over its time steps, with inputs constant over the steps.

    Args:
        graph: The network; integrated by forward Euler, as NIR defines it.
        steps: Number of time steps.
        dt: Time step in seconds.

    Raises:
        UnsupportedNodeError: A node, a loop or a shape has no encoding.
        ExportError: `steps` or `dt` is out of range.
    """
    if not (isinstance(steps, int | np.integer) and steps >= 1 and dt > 0):
        raise ExportError(
            f"ONNX: steps is {steps!r} and dt {dt!r}; expected at least one step, and a positive time in seconds"
        )
    return Unrolled(standard_form(graph), int(steps), float(dt)).model()


def from_teacher(model: TrainedTeacher) -> onnx.ModelProto:
    """Convert the GCN teacher in evaluation mode, with its batch norms folded.

    The model's input is (clips, 3 · streams, T, V), as the teacher's normaliser makes it.
    """
    config = model.teacher.config
    joints, classes = next(iter(model.teacher.networks.values())).input_bn.num_features // 3, len(config.classes)
    shape = (3 * len(config.streams), config.frames, joints)
    file = OnnxGraph({"input", "logits", *(f"logits/{stream}" for stream in config.streams)})
    x = file.input("input", shape)
    names = [f"{stream}/input" for stream in config.streams]
    parts = file.split(x.name, names, (CLIPS, 3, *shape[1:]), axis=1)
    logits = [
        _stream_logits(file, stream, net, Signal(part, (3, *shape[1:])))
        for (stream, net), part in zip(model.teacher.networks.items(), parts, strict=True)
    ]
    file.output("Mean", logits, "logits", (CLIPS, classes))
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
            **({} if model.path is None else {"parent": sha256(model.path)}),
        },
    )


def _stream_logits(file: OnnxGraph, stream: str, net: GCN, x: Signal) -> str:
    """Add the network of one stream; return the name of its logits.

    The norm of the input stays an affine map: folded into the first layer, its offset would be
    wrong wherever a kernel is padded.
    """
    # fold takes any batch norm; this one is a BatchNorm1d
    norm = fold.arrays(fold.batch_norm(net.input_bn))  # type: ignore[arg-type]
    gain, shift = (p.reshape(3, 1, -1) for p in norm)
    x = file.apply("Mul", x, [file.constant(f"{stream}/norm/gain", gain)], f"{stream}/norm/scaled", x.shape)
    x = file.apply("Add", x, [file.constant(f"{stream}/norm/shift", shift)], f"{stream}/norm", x.shape)

    def conv(name: str, layer: Any, x: Signal) -> Signal:
        weight, bias = fold.arrays(fold.conv(layer))
        return file.conv(name, x, weight, bias, layer.conv.stride, layer.conv.padding * 2)

    def relu(name: str, y: Signal, skip: Any, x: Signal) -> Signal:
        """Add ReLU(y + skip(x)), where the skip path is absent, the identity or a convolution."""
        if skip is not None:
            branch = conv(f"{name}_skip", skip, x) if isinstance(skip, ConvBN) else x
            y = file.apply("Add", y, [branch.name], f"{name}_sum", y.shape)
        return file.apply("Relu", y, [], f"{name}_relu", y.shape)

    for i, layer in enumerate(net.typed_layers, start=1):
        at = f"{stream}/layer{i}"
        y = file.graph_conv(f"{at}/graph", x, *fold.arrays(fold.graph_conv(layer.graph)))
        y = relu(f"{at}/graph", y, layer.spatial_skip, x)
        x = relu(f"{at}/conv", conv(f"{at}/conv", layer.conv, y), layer.skip, x)
    pooled = file.add("ReduceMean", [x.name], f"{stream}/pool", (CLIPS, x.shape[0]), axes=[2, 3], keepdims=0)
    weight = file.constant(f"{stream}/fc/weight", fold.array(net.fc.weight))
    bias = file.constant(f"{stream}/fc/bias", fold.array(net.fc.bias))
    return file.output("Gemm", [pooled, weight, bias], f"logits/{stream}", (CLIPS, net.fc.out_features), transB=1)


def write(model: onnx.ModelProto, path: Path) -> None:
    """Check a model, with strict shape inference, and write it atomically and deterministically.

    Raises:
        ExportError: The model is invalid or too large for one file.
    """
    onnx = tool("onnx")
    size = sum(len(weights.raw_data) for weights in model.graph.initializer)
    if size > PROTOBUF_LIMIT:
        raise ExportError(
            f"{path}: {size} bytes of weights exceed the {PROTOBUF_LIMIT} of one ONNX file; export NIR instead"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"{path}: not a valid ONNX model ({first_line(error)}); export it again") from error
    content = model.SerializeToString(deterministic=True)
    files.put(path, lambda file: file.write(content))


def execute(model: onnx.ModelProto | Path, inputs: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run one of our models in onnxruntime, on a CPU with OMP_NUM_THREADS threads (default 1).

    Args:
        model: The model or its file.
        inputs: (L, *input shape), passed to every input of the model.

    Returns:
        Spikes (L, S, *shape) bool of each population, and the other outputs: (L, S, *shape), or
        (L, classes) for logits.

    Raises:
        ExportError: The file cannot be loaded, has another schema, or takes other inputs.
    """
    runtime = tool("onnxruntime")
    options = runtime.SessionOptions()
    threads = os.environ.get("OMP_NUM_THREADS", "1").split(",")[0]
    options.intra_op_num_threads = int(threads) if threads.isdigit() and int(threads) else 1
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # only errors, which are raised as well
    source = os.fspath(model) if isinstance(model, os.PathLike | str) else model.SerializeToString()
    place = source if isinstance(source, str) else "the model"
    try:
        session = runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class per status code, without a common base
        raise ExportError(f"{place}: onnxruntime cannot load it ({first_line(error)}); export it again") from error
    if session.get_modelmeta().custom_metadata_map.get("schema") != SCHEMA:
        raise ExportError(f"{place}: not a model of schema {SCHEMA}; make one with mksgn-export --to onnx")
    for declared in session.get_inputs():
        if not len(inputs) or list(inputs.shape[1:]) != declared.shape[1:]:
            raise ExportError(
                f"input {declared.name}: got an array of shape {inputs.shape}, the model takes (at least one clip, "
                f"{', '.join(map(str, declared.shape[1:]))}); give bodies of clips that the file's normaliser has "
                "prepared"
            )
    names = [output.name for output in session.get_outputs()]
    sample_axes = [output.shape.index(CLIPS) for output in session.get_outputs()]
    chunks = []
    for i in range(0, len(inputs), RUN_CLIPS):
        x = np.ascontiguousarray(inputs[i : i + RUN_CLIPS], dtype=np.float32)
        values = session.run(names, {declared.name: x for declared in session.get_inputs()})
        chunks.append([np.moveaxis(value, axis, 0) for value, axis in zip(values, sample_axes, strict=True)])
    joined = {name: np.concatenate(parts) for name, parts in zip(names, zip(*chunks, strict=True), strict=True)}
    spikes = {name.removeprefix("spikes/"): x for name, x in joined.items() if name.startswith("spikes/")}
    return spikes, {name: x for name, x in joined.items() if not name.startswith("spikes/")}
