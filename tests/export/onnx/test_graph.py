"""The builder of ONNX graphs: unique names, constants, convolutions and graph convolutions."""

import sys

import numpy as np
import pytest

from mksgn.export.errors import MissingToolError, NonFiniteWeightsError, UnsupportedNodeError
from mksgn.export.lowering.fold import per_edge
from mksgn.export.onnx import file as onnx_file
from mksgn.export.onnx.graph import CLIPS, OnnxGraph, Signal, tool

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")


def test_names_are_made_unique_and_reserved_ones_are_kept_for_outputs():
    graph = OnnxGraph({"logits"})
    x = graph.input("x", (2,))
    assert graph.add("Relu", [x.name], "logits", (CLIPS, 2)) == "logits_"
    assert graph.add("Relu", [x.name], "a", (CLIPS, 2)) == "a"
    assert graph.add("Relu", [x.name], "a", (CLIPS, 2)) == "a_"
    assert graph.output("Relu", [x.name], "logits", (CLIPS, 2)) == "logits"


def test_a_weight_that_is_not_finite_is_refused():
    with pytest.raises(NonFiniteWeightsError, match="w/weight: 1 weights are not finite"):
        OnnxGraph(set()).constant("w/weight", [[1, np.nan], [0, 1]])


def test_an_absent_onnx_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingToolError, match=r"onnx is not installed; pip install 'mksgn\[onnx\]'"):
        tool("onnx")


def test_a_convolution_must_fit_its_input():
    with pytest.raises(UnsupportedNodeError, match=r"node c: a window of \[3, 1\] on an input of shape \(1, 2, 4\)"):
        OnnxGraph(set()).conv("c", Signal("x", (1, 2, 4)), np.zeros((1, 1, 3, 1)), None)


@pytest.mark.parametrize("by_edge", [False, True])
def test_a_graph_convolution_follows_its_equation(by_edge):
    """Both encodings give exact sums of integers, also for a joint without edges."""
    rng = np.random.default_rng(0)
    adjacency, weight = rng.integers(0, 2, (2, 4, 4)) * 1.0, rng.integers(-4, 5, (2, 5, 3)) * 1.0
    adjacency[:, :, 1] = 0
    bias, x = rng.integers(-4, 5, 5) * 1.0, rng.integers(0, 2, (6, 3, 7, 4)).astype(np.float32)
    graph = OnnxGraph({"x", "y"})
    signal = graph.input("x", (3, 7, 4))
    parts = per_edge(adjacency, weight) if by_edge else (adjacency, weight)
    y = graph.graph_conv("conv", signal, *parts, bias)
    graph.output("Identity", [y.name], "y", (CLIPS, *y.shape))
    expected = np.einsum("koc,kij,ncti->notj", weight, adjacency, x) + bias[:, None, None]
    assert y.shape == (5, 7, 4)
    np.testing.assert_array_equal(onnx_file.execute(graph.model("test", {}), x)[1]["y"], expected)
    assert any(node.op_type == "Gather" for node in graph.nodes) == by_edge
