"""The lowered graph: typed, named, complete, and the same spikes as the student."""

import nir
import numpy as np
import pytest
import torch

from mksgn.export.graph.metadata import input_normaliser, student_config
from mksgn.export.graph.nodes import GraphConv, SpikingSelfAttention
from mksgn.export.lowering.lower import lower
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import compare
from mksgn.export.verification.verify import reference_spikes, torch_spikes
from tests.support.students import tiny
from tests.support.tiers import one_in


@pytest.mark.parametrize(
    "changes",
    one_in(
        2,
        [
            {},
            {"attention": "none"},
            {"attention": "token"},
            {"adjacency": "learned", "widths": (8, 8)},
            {"frames": 7, "kernel": 3},
            {"streams": ("bone", "joint_motion"), "fusion": "mean"},
            {"streams": ("joint",)},
        ],
    ),
)
def test_unquantised_graph_gives_the_students_spikes(changes):
    """Two implementations of an unquantised graph may round differently at a tie, and nowhere else."""
    model, inputs = tiny(**changes)
    graph = lower(model.student, model.normaliser)
    graph.check_types()
    expected, logits = torch_spikes(model.student, inputs)
    for actual in (torch_spikes(FoldedStudent(graph), inputs)[0], reference_spikes(graph, inputs, 4, 1e-4)[0]):
        parity = compare("student", expected, actual)
        assert {layer.layer for layer in parity.layers} == set(expected)
        first = parity.layers[0]
        assert first.mismatches <= max(1, first.decisions // 100_000), first  # nothing before it could have differed
        assert parity.mismatches <= parity.decisions // 1000
        for name, spikes in expected.items():
            assert spikes.any(), f"{name} is silent: the comparison means nothing"
    outputs = reference_spikes(graph, inputs, 4, 1e-4)[1]["output"].mean(1)
    assert (outputs.argmax(1) == logits.argmax(1)).mean() > 0.8


def test_nodes_names_and_metadata():
    model, _ = tiny()
    graph = lower(model.student, model.normaliser, dt=1e-3)
    kinds = {type(node) for node in graph.nodes.values()}
    assert {nir.Conv2d, nir.LIF, nir.SumPool2d, nir.Flatten, nir.Affine, GraphConv, SpikingSelfAttention} <= kinds
    assert not any(set("/.") & set(name) for name in graph.nodes)
    assert graph.metadata["dt"] == 1e-3
    assert graph.metadata["steps"] == 4
    assert student_config(graph) == model.student.config
    assert input_normaliser(graph) == model.normaliser
    for node in graph.nodes.values():
        if isinstance(node, nir.LIF):
            assert node.tau.shape == node.v_threshold.shape
            np.testing.assert_array_equal(node.v_threshold, np.nextafter(np.float32(1), np.float32(0)))
            np.testing.assert_array_equal(node.tau, np.float32(2e-3))


def test_the_strided_convolution_type_checks_as_two_nodes():
    model, _ = tiny()
    graph = lower(model.student, model.normaliser)
    assert "block2_stc_conv_stride" in graph.nodes
    assert list(graph.nodes["block2_stc_conv_stride"].output_type["output"]) == [16, 4, 25]


def test_lowering_leaves_the_student_as_it_was():
    model, _ = tiny()
    before = {name: value.clone() for name, value in model.student.state_dict().items()}
    lower(model.student, model.normaliser)
    assert all(torch.equal(before[name], value) for name, value in model.student.state_dict().items())
