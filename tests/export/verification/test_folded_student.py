"""The student on a file's weights, with and without its attention."""

import nir
import numpy as np
import pytest

from mksgn.export.errors import ExportError
from mksgn.export.lowering.lower import lower
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.verify import torch_spikes
from tests.support.students import tiny


@pytest.mark.parametrize(("attention", "z"), [("self", "attention.z"), ("token", "attention_z")])
def test_a_spike_of_z_matters(attention, z):
    model, inputs = tiny(attention=attention)
    graph = lower(model.student, model.normaliser)
    logits = torch_spikes(FoldedStudent(graph), inputs)[1]
    silent, without = torch_spikes(FoldedStudent(graph, silence_attention=True), inputs)
    assert not silent[f"block1_{z}"].any()
    assert np.abs(logits - without).max() > 1e-3


def test_a_graph_that_was_not_made_from_a_student_is_refused():
    with pytest.raises(ExportError, match="the graph holds no student's config"):
        FoldedStudent(nir.NIRGraph({}, [], type_check=False))
