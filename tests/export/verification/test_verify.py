"""Verification: quantised executions run freely, unquantised ones are teacher-forced."""

import nir
import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.export import export_to_nir
from mksgn.export.errors import ExportError, ParityError
from mksgn.export.graph import files
from mksgn.export.reference import execute as reference
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import MARGIN, compare
from mksgn.export.verification.verify import reference_spikes, torch_spikes, verify
from tests.support.students import calibration, tiny


def test_an_unquantised_file_is_compared_layer_by_layer():
    """Without forcing, a rounded decision would be counted again in everything that follows from it."""
    model, inputs = tiny()
    graph = export_to_nir(model)
    (parity,) = verify(graph, model.student, inputs)
    assert parity.decisions > 500_000
    assert {layer.layer for layer in parity.layers} >= {"ssc", "block1_attention.m", "block2_attention.z", "block2_stc"}
    assert parity.mismatches <= 3
    assert parity.largest_margin is None or parity.largest_margin < MARGIN


def test_teacher_forcing_counts_every_layer_by_itself():
    """If the weights of one layer change, only that layer differs: later ones get the reference's spikes."""
    model, inputs = tiny()
    graph = export_to_nir(model)
    with torch.no_grad():
        model.student.sgc[0].qkv.conv.weight.mul_(1.05)
    (parity,) = verify(graph, model.student, inputs)
    differing = {layer.layer for layer in parity.layers if layer.mismatches > 3}
    assert differing == {"block1_qkv"}
    assert parity.first is not None
    assert parity.first.layer == "block1_qkv"
    assert MARGIN < parity.first.margin < 1
    with pytest.raises(
        ParityError,
        match=r"model\.nir: \d+ of \d+ decisions differ \(torch ↔ NIR reference\), first in block1_qkv at sample",
    ):
        parity.check("model.nir")
    free, _ = torch_spikes(model.student, inputs)
    expected, _ = reference_spikes(graph, inputs, 4, 1e-4)
    assert compare("freely", expected, free).layers[-1].mismatches > 3


def test_teacher_forcing_leaves_the_student_as_it_was():
    model, inputs = tiny()
    before, logits = torch_spikes(model.student, inputs)
    verify(export_to_nir(model), model.student, inputs)
    after, again = torch_spikes(model.student, inputs)
    assert np.array_equal(logits, again)
    assert compare("again", before, after).mismatches == 0


def test_one_changed_weight_of_a_quantised_file_is_found_where_it_acts():
    """If one synapse changes, the comparison names its layer and the first decision that differs."""
    model, inputs = tiny()
    graph = export_to_nir(model, quantize=8, calibration=calibration(model))
    expected, _ = reference_spikes(graph, inputs, 4, 1e-4)
    assert verify(graph, None, inputs)[0].mismatches == 0
    node = graph.nodes["block1_stc_conv"]
    node.weight = node.weight.copy()
    node.weight[2] += np.float32(0.25)
    actual, _ = torch_spikes(FoldedStudent(graph), inputs)
    parity = compare("changed", expected, actual)
    assert parity.first.layer == "block1_stc"
    assert parity.first.neuron[0] == 2
    changed = next(layer for layer in parity.layers if layer.layer == "block1_stc")
    assert sum(changed.per_step) == changed.mismatches > 0
    sample, step = changed.first.sample, changed.first.step
    assert (
        expected["block1_stc"][(sample, step, *changed.first.neuron)]
        != actual["block1_stc"][(sample, step, *changed.first.neuron)]
    )


def test_a_flip_is_counted_once_and_not_at_the_neuron_s_later_steps():
    """Forcing the inputs alone is not enough: a neuron that fires by a rounding would be reset."""
    model, inputs = tiny()
    graph = export_to_nir(model)
    with torch.no_grad():
        model.student.sgc[0].qkv.bn.bias.add_(1e-3)
    (parity,) = verify(graph, model.student, inputs)
    assert {layer.layer for layer in parity.layers if layer.mismatches} == {"block1_qkv"}
    assert parity.mismatches > 3
    assert parity.largest_margin < 2e-3  # the current's own change: no difference follows from another


def test_margins_are_those_of_all_samples():
    model, inputs = tiny()
    graph = export_to_nir(model)
    inputs = np.concatenate([inputs] * 12)[:40]
    forced, _ = reference_spikes(graph, inputs, 4, 1e-4)
    with torch.no_grad():
        model.student.stc[0].conv.bn.bias.add_(1e-2)
    (parity,) = verify(graph, model.student, inputs)
    own, _ = torch_spikes(model.student, inputs, teacher_forced=forced)
    largest = 0.0
    for sample in np.flatnonzero((own["block1_stc"] != forced["block1_stc"]).reshape(40, -1).any(1)):
        run = reference.execute(graph, inputs[sample : sample + 1], 4, 1e-4, margins_of="block1_stc")
        different = own["block1_stc"][sample] != forced["block1_stc"][sample]
        largest = max(largest, float(run.margins[:, 0][different].max()))
    assert parity.largest_margin == pytest.approx(largest, rel=1e-5)
    assert not parity.agrees


def test_other_executions_of_an_unquantised_file_run_freely():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    model, inputs = tiny()
    _, parity = verify(export_to_nir(model), model.student, inputs, against=("onnxruntime",))
    assert parity.rule == "rounding, then free"
    assert parity.agrees
    assert parity.mismatches < parity.decisions / 1000


def test_what_cannot_be_compared_is_said():
    model, inputs = tiny()
    graph = export_to_nir(model)
    with pytest.raises(ExportError, match="an unquantised file is compared with its student"):
        verify(graph, None, inputs)


@pytest.mark.parametrize("content", [None, b"", b"no HDF5 at all"])
def test_a_file_that_is_no_nir_graph_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.nir"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"a\.nir") as caught:
        files.read(path)
    assert "\n" not in str(caught.value)


def test_structured_files_are_type_checked(tmp_path):
    model, _ = tiny()
    graph = export_to_nir(model)
    graph.nodes["smf_conv"].weight = graph.nodes["smf_conv"].weight[:, :3]
    nir.write(tmp_path / "a.nir", graph)
    with pytest.raises(BadInputError, match="type mismatch"):
        files.read(tmp_path / "a.nir")
