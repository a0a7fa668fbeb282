"""Graphs unrolled to ONNX follow NIR's equations; nodes without an encoding are refused by name."""

import copy
import json

import nir
import numpy as np
import pytest

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from mksgn.export.onnx import file as onnx_file
from mksgn.export.reference import execute as reference
from mksgn.export.verification.verify import reference_spikes
from mksgn.train.streams import STREAMS

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")

DT, STEPS = 1e-4, 4
F32 = np.float32


def test_every_shape_is_known_but_for_the_clips_and_the_declared_ones_are_inferred_too(student_model):
    bare = copy.deepcopy(student_model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    actual = {v.name: v.type.tensor_type for v in (*inferred.graph.value_info, *inferred.graph.output)}
    declared = {v.name: v.type.tensor_type for v in (*student_model.graph.value_info, *student_model.graph.output)}
    assert set(declared) >= {name for node in bare.graph.node for name in node.output}
    for name, expected in declared.items():
        dims = [d.dim_value for d in expected.shape.dim]
        assert dims.count(0) == 1, f"{name}: {dims}"  # the clips
        assert actual[name].elem_type == expected.elem_type
        assert [d.dim_value for d in actual[name].shape.dim] == dims, name


def test_constant_input_is_convolved_once_and_each_weight_is_stored_once(student, student_model):
    graph, _ = student
    convolutions = [node.name for node in student_model.graph.node if node.op_type == "Conv"]
    assert sorted(n for n in convolutions if not n.endswith("_stride")) == sorted(
        name for name, node in graph.nodes.items() if isinstance(node, nir.Conv2d)
    )
    batch = {v.name: v.type.tensor_type.shape.dim[0].dim_param for v in student_model.graph.value_info}
    assert batch["ssc_conv"] == "clips"
    assert batch["smf_conv"] == "steps_clips"
    stored = sum(np.prod(w.dims) for w in student_model.graph.initializer if w.data_type == onnx.TensorProto.FLOAT)
    expected = sum(np.size(getattr(n, part, ())) for n in graph.nodes.values() for part in ("weight", "bias"))
    assert expected < stored < 1.02 * expected  # thresholds and rates: one value per population or channel


def test_opset_names_and_metadata(student, student_model):
    graph, _ = student
    assert [(o.domain, o.version) for o in student_model.opset_import] == [("", 17)]
    assert student_model.ir_version == 8
    assert {"ssc/step0/v", "ssc/spikes", "smf_conv", "block1_attention/map"} <= {
        n.name for n in student_model.graph.node
    }
    assert {"smf_conv/weight", "ssc/threshold"} <= {w.name for w in student_model.graph.initializer}
    properties = {p.key: p.value for p in student_model.metadata_props}
    assert list(properties) == sorted(properties)
    assert properties["schema"] == "mksgn.onnx/1"
    assert properties["nir_schema"] == "mksgn.nir/1"
    assert (properties["steps"], properties["dt"], properties["signal"]) == ("4", "0.0001", "analog")
    assert json.loads(properties["streams"]) == list(STREAMS)
    assert json.loads(properties["normaliser"])
    assert properties["quantization"] == graph.metadata["quantization"]


def lattice(seed: int, *shape: int) -> np.ndarray:
    """Draw multiples of 1/8, which float32 adds and halves without rounding."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(F32) / 8


def network(nodes: dict[str, nir.NIRNode], *chains: str) -> nir.NIRGraph:
    """Connect nodes by chains like "x conv lif", without nir's type check, which refuses such kernels (NIR.md)."""
    edges = {pair for chain in chains for pair in zip(chain.split(), chain.split()[1:], strict=False)}
    return nir.NIRGraph(nodes, sorted(edges), type_check=False)


def source(*shape: int) -> nir.Input:
    return nir.Input({"input": np.array(shape)})


def sink(*shape: int) -> nir.Output:
    return nir.Output({"output": np.array(shape)})


def lif(*shape: int, threshold=0.5, tau=2 * DT, r=1.0, leak=0.0, reset=0.0) -> nir.LIF:
    return nir.LIF(*(np.broadcast_to(F32(p), shape).copy() for p in (tau, r, leak, threshold, reset)))


def conv(weight, bias, stride=1, padding=0, dilation=1, groups=1) -> nir.Conv2d:
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)


def pool(kernel, stride, padding) -> nir.SumPool2d:
    return nir.SumPool2d(np.array(kernel), np.array(stride), np.array(padding))


def attention(heads: int) -> SpikingSelfAttention:
    per_head = np.arange(1, heads + 1, dtype=F32)
    return SpikingSelfAttention(heads, per_head / 2, per_head, per_head / 4, 0.5 + per_head / 4, F32(2 * DT))


PER_NEURON = lif(
    6, threshold=np.linspace(0.1, 0.6, 6), tau=np.linspace(2, 5, 6) * DT, r=[1, 2, 1, 2, 1, 2], leak=0.25, reset=-0.5
)
ADJACENCY = np.where(np.arange(27).reshape(3, 3, 3) % 4 == 1, F32(0.5), F32(0))  # several edges per subset
EDGES = np.zeros((4, 3, 3), dtype=F32)  # one each: 0 → 0, twice, 1 → 0, 2 → 2; nothing reaches joint 1
EDGES[0, 0, 0] = EDGES[1, 0, 0] = EDGES[2, 1, 0] = EDGES[3, 2, 2] = 1

FOREIGN = {
    "leak, reset and resistance, neuron by neuron": network(
        {"x": source(4), "fc": nir.Affine(lattice(0, 6, 4), lattice(1, 6)), "a": PER_NEURON, "y": sink(6)}, "x fc a y"
    ),
    "one parameter per channel": network(
        {"x": source(3, 4, 2), "a": lif(3, 4, 2, threshold=[[[0.25]], [[0.5]], [[1]]], leak=-0.125, reset=0.125), "y": sink(3, 4, 2)},
        "x a y",
    ),
    "edges summed, constant and by step": network(
        {
            "x": source(5), "fc": nir.Linear(lattice(2, 5, 5)), "a": lif(5), "back": nir.Linear(lattice(3, 5, 5)),
            "half": nir.Scale(np.full(5, 0.5, F32)), "b": lif(5, threshold=0.25), "y": sink(5),
        },
        "x fc a back b y", "x half b", "fc b", "a y", "x y",
    ),
    "pools, flattened and scaled": network(
        {
            "x": source(2, 5, 4), "a": lif(2, 5, 4, threshold=0.25), "sum": pool((3, 2), (2, 1), (1, 1)),
            "every": pool((1, 1), (2, 1), (0, 0)), "b": lif(2, 3, 5, threshold=1.5), "c": lif(2, 3, 4, threshold=0.25),
            "all": pool((3, 4), (3, 4), (0, 0)), "flat": nir.Flatten({"input": np.array([2, 1, 1])}, -3, -1),
            "scale": nir.Scale(lattice(4, 2)), "rows": nir.Flatten({"input": np.array([2, 3, 5])}, 1, 2),
            "y": sink(2), "z": sink(2, 15),
        },
        "x a sum b rows z", "a every c all flat scale y",
    ),
    "convolutions: groups, dilation, strides, even kernels": network(
        {
            "x": source(4, 7, 5), "grouped": conv(lattice(5, 6, 2, 3, 2), lattice(6, 6), (2, 1), (2, 1), (2, 1), 2),
            "a": lif(6, 4, 6), "same": conv(lattice(7, 3, 6, 2, 4), lattice(8, 3), 1, "same"), "b": lif(3, 4, 6),
            "valid": conv(lattice(9, 2, 3, 2, 2), lattice(10, 2), (1, 2), "valid"), "c": lif(2, 3, 3), "y": sink(2, 3, 3),
        },
        "x grouped a same b valid c y",
    ),
    "the last axis of frames and joints": network(
        {
            "x": source(2, 3, 4), "a": lif(2, 3, 4, threshold=0.25), "take": nir.Linear(np.eye(4, dtype=F32)[[2, 0]]),
            "conv": conv(lattice(11, 3, 2, 1, 2), lattice(12, 3)), "lay": nir.Linear(np.eye(4, dtype=F32)[:, 1:2]),
            "mix": nir.Affine(lattice(13, 4, 4), lattice(14, 4)), "wide": conv(lattice(15, 3, 2, 1, 1), lattice(16, 3)),
            "b": lif(3, 3, 4, threshold=0.25), "y": sink(3, 3, 4),
        },
        "x a take conv lay b y", "a mix wide b",
    ),
    "graph convolutions of an analog input and of spikes": network(
        {
            "x": source(2, 4, 3), "dense": GraphConv(ADJACENCY, lattice(17, 3, 4, 2), lattice(18, 4)), "a": lif(4, 4, 3, threshold=0.25),
            "edges": GraphConv(EDGES, lattice(19, 4, 5, 4), lattice(20, 5)), "b": lif(5, 4, 3, threshold=0.25), "y": sink(5, 4, 3),
        },
        "x dense a edges b y",
    ),
    "attention with gains, of spikes": network(
        {"x": source(12, 2, 3), "qkv": lif(12, 2, 3, threshold=0.2), "attend": attention(2), "y": sink(4, 2, 3)}, "x qkv attend y"
    ),
    "attention of an analog input": network({"x": source(6, 2, 3), "attend": attention(1), "y": sink(2, 2, 3)}, "x attend y"),
    "names that meet": network(
        {
            "x": source(3), "logits": nir.Linear(lattice(21, 3, 3)), "spikes": lif(3), "output": nir.Scale(np.ones(3, F32)),
            "current": lif(3, threshold=0.25), "y": sink(3),
        },
        "x logits spikes output current y",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # torch, of a copy that it makes
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("case", FOREIGN)
def test_foreign_graphs_follow_nir_s_equations(case, steps, tmp_path):
    graph = FOREIGN[case]
    inputs = 2 * lattice(99, 5, *graph.nodes["x"].input_type["input"])
    model = onnx_file.from_nir(graph, steps=steps, dt=DT)
    onnx_file.write(model, tmp_path / "foreign.onnx")  # checked
    spikes, outputs = onnx_file.execute(model, inputs)
    expected, expected_outputs = reference_spikes(graph, inputs, steps, DT)
    assert set(spikes) == set(expected)
    assert set(outputs) == set(expected_outputs)  # no logits: no student
    for name, train in expected.items():
        assert (spikes[name] != train).sum() == 0, name
        assert steps == 1 or 0 < train.mean() < 1, f"{name} never fires, or always: the comparison means nothing"
    for name, values in expected_outputs.items():
        np.testing.assert_array_equal(outputs[name], values)


def test_several_inputs_are_several_inputs(tmp_path):
    graph = network({"p": source(3), "q": source(3), "a": lif(3), "y": sink(3)}, "p a y", "q a")
    graph.nodes["q"].metadata["signal"] = "spikes"
    model = onnx_file.from_nir(graph, steps=2, dt=DT)
    onnx_file.write(model, tmp_path / "two.onnx")
    assert [value.name for value in model.graph.input] == ["p", "q"]
    assert {p.key: p.value for p in model.metadata_props}["q.signal"] == "spikes"
    x = lattice(0, 4, 3)
    expected = reference.execute(graph, {"p": x, "q": x}, 2, DT).spikes["a"].swapaxes(0, 1)  # clips before steps
    np.testing.assert_array_equal(onnx_file.execute(model, x)[0]["a"], expected)


def cuba() -> nir.CubaLIF:
    return nir.CubaLIF(*(np.ones(3, F32) for _ in range(6)))


def test_a_reset_or_a_state_that_is_not_unrolled_is_named():
    for metadata in ({"reset": "subtract"}, {"v_init": np.ones(3, F32)}):
        node = lif(3)
        node.metadata |= metadata
        with pytest.raises(UnsupportedNodeError, match="node a: a reset by subtraction, and a state that does not"):
            onnx_file.from_nir(network({"x": source(3), "a": node, "y": sink(3)}, "x a y"), steps=STEPS, dt=DT)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (network({"x": source(3), "n": cuba(), "y": sink(3)}, "x n y"), "node n: CubaLIF has no encoding .* rewrite it"),
        (network({"x": source(2, 4, 4), "p": nir.AvgPool2d(2, 2, 0), "y": sink(2, 2, 2)}, "x p y"), "node p: AvgPool2d .* SumPool2d"),
        (network({"x": source(3), "n": nir.IF(np.ones(3), np.ones(3)), "y": sink(3)}, "x n y"), "node n: IF .* long tau"),
        (
            network({"x": source(3), "a": lif(3), "w": nir.Linear(np.eye(3)), "y": sink(3)}, "x a w a", "w y"),
            r"nodes a \(LIF\), w \(Linear\): a recurrent loop",
        ),
        (network({"x": source(3), "w": nir.Linear(np.eye(4)), "y": sink(4)}, "x w y"), r"node w: a weight of shape \(4, 4\) on .* \(3,\)"),
        (network({"x": source(3), "w": nir.Linear(np.ones((2, 3, 3))), "y": sink(3)}, "x w y"), r"node w: a weight of shape \(2, 3, 3\)"),
        (network({"x": source(3), "a": lif(4), "y": sink(4)}, "x a y"), r"node a: rate of shape \(4,\) for a current of shape \(3,\)"),
        (network({"x": source(3), "a": lif(3), "y": sink(3)}, "a y"), "node a: 0 edges into it"),
        (network({"x": source(3), "y": sink(3), "a": lif(3)}, "x y a"), "node y: edges out of an Output"),
        (
            network({"x": source(2, 3), "s": nir.Scale(np.ones(3, F32)), "f": nir.Flatten(None, 0, 1), "y": sink(6)}, "x s y", "x f y"),
            r"node y: a sum of inputs of shapes \(6,\) and \(2, 3\)",
        ),
        (
            network({"x": source(2, 3, 3), "c": conv(np.ones((1, 3, 1, 1)), np.zeros(1)), "y": sink(1, 3, 3)}, "x c y"),
            r"node c: Conv2d of 3 channels on an input of shape \(2, 3, 3\)",
        ),
        (
            network({"x": source(2, 3, 3), "c": conv(np.ones((1, 2, 5, 5)), np.zeros(1)), "y": sink(1, 1, 1)}, "x c y"),
            r"node c: a window of \[5, 5\] on an input of shape \(2, 3, 3\)",
        ),
        (
            network({"x": source(2, 4, 3), "c": conv(np.ones((1, 2, 3, 1)), np.zeros(1), 2, "same"), "y": sink(1, 2, 2)}, "x c y"),
            r"node c: padding 'same' with stride \(2, 2\)",
        ),
        (
            network({"x": source(2, 4, 5), "g": GraphConv(ADJACENCY, np.ones((3, 1, 2)), np.ones(1)), "y": sink(1, 4, 5)}, "x g y"),
            r"node g: GraphConv of 2 channels and 3 joints on an input of shape \(2, 4, 5\)",
        ),
        (network({"x": source(7, 2, 3), "t": attention(2), "y": sink(2, 2, 3)}, "x t y"), "node t: 2 heads on an input"),
        (
            network({"x": source(12, 2, 3), "t": attention(2), "t.m": lif(12, 2, 3), "y": sink(4, 2, 3)}, "x t y", "x t.m"),
            r"node t\.m: two values would have this name",
        ),
        (network({"x": source(2, 3), "f": nir.Flatten(None, 1, 2), "y": sink(6)}, "x f y"), "node f: Flatten of axes 1 to 2"),
    ],
)  # fmt: skip
def test_what_has_no_encoding_is_named(graph, message):
    with pytest.raises(UnsupportedNodeError, match=message) as caught:
        onnx_file.from_nir(graph, steps=STEPS, dt=DT)
    assert "\n" not in str(caught.value)
