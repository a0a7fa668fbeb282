"""Portable files give torch's spikes in other simulators, which read them with their own importers.

SpikingJelly 2.0 needs Python 3.11: `make test-interop`. A simulator that is not installed skips.
"""

import importlib
import importlib.util
import os
import sys

import nir
import numpy as np
import pytest

from mksgn.export import export_to_nir
from mksgn.export.errors import ExportError, MissingToolError, NotPortableError
from mksgn.export.graph import files
from mksgn.export.lowering import portable_attention
from mksgn.export.verification import simulators
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import compare
from mksgn.export.verification.verify import torch_spikes
from mksgn.train.config import PRESETS
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs
from tests.support.students import calibration, tiny

DECISIONS = 10_000_000
STUDENTS = {
    "demo": {**PRESETS["demo"]["student"], "attention": "none"},
    "small": {**PRESETS["small"]["student"], "attention": "none"},
    "token attention": {"attention": "token", "frames": 8, "widths": (8, 16), "heads": 2},
    "stride 2": {"attention": "none", "frames": 9, "widths": (8, 16, 32), "stream_channels": 8, "kernel": 3},
}


def installed(simulator: str) -> None:
    """Skip the test if it is not installed, or fail under `make test-interop`, which installs it."""
    if os.environ.get("MKSGN_INTEROP"):
        importlib.import_module(simulators.MODULES[simulator])
    pytest.importorskip(simulators.MODULES[simulator], reason=f"{simulator} is not installed here: make test-interop")


@pytest.fixture(scope="module", params=STUDENTS)
def exported(request, tmp_path_factory):
    """A portable file as another project reads it, inputs, and torch's spikes."""
    if not os.environ.get("MKSGN_INTEROP") and not any(map(importlib.util.find_spec, ("snntorch", "norse"))):
        pytest.skip("no other simulator is installed here: make test-interop")
    model, _ = tiny(**STUDENTS[request.param])
    graph = export_to_nir(model, quantize=8, calibration=calibration(model), profile="portable")
    path = tmp_path_factory.mktemp("portable") / "model.nir"
    files.write(graph, path)
    config = model.student.config
    assert len(config.streams) == 4
    assert 2 in config.strides
    neurons = sum(node.v_threshold.size for node in graph.nodes.values() if isinstance(node, nir.LIF))
    clips = open_source("synthetic", part="test", limit=-(-DECISIONS // (neurons * config.steps)))
    inputs, _ = body_inputs(clips.clips, model.normaliser)
    return nir.read(path, type_check=False), inputs, torch_spikes(FoldedStudent(graph), inputs)[0]


@pytest.mark.parametrize("simulator", ["spikingjelly", "snntorch"])
def test_the_same_spikes(simulator, exported):
    installed(simulator)
    graph, inputs, expected = exported
    actual = simulators.spikes(simulator, graph, inputs, 4, 1e-4, batch=64)
    parity = compare(simulator, expected, actual)
    assert parity.decisions >= DECISIONS
    assert parity.mismatches == 0, parity.first
    assert all(spikes.any() for spikes in expected.values())


def test_norse_agrees_up_to_the_first_join(exported):
    """norse 1.1 runs a node once one of its sources has run, so that joins lack a branch (docs/export.md)."""
    installed("norse")
    graph, inputs, expected = exported
    samples = slice(0, 16)
    actual = simulators.spikes("norse", graph, inputs[samples], 4, 1e-4)
    layers = {
        layer.layer: layer for layer in compare("norse", {n: s[samples] for n, s in expected.items()}, actual).layers
    }
    assert [layers[name].mismatches for name in ("ssc", "smf")] == [0, 0]
    assert layers["block1_sgc"].mismatches > 0, (
        "norse joins branches now: compare all populations and correct docs/export.md"
    )


def test_a_structured_file_goes_to_them_in_its_portable_form():
    installed("snntorch")
    model, inputs = tiny(attention="none")
    graph = export_to_nir(model, quantize=4, calibration=calibration(model))
    expected, _ = torch_spikes(FoldedStudent(graph), inputs)
    assert compare("snntorch", expected, simulators.spikes("snntorch", graph, inputs, 4, 1e-4, batch=5)).mismatches == 0


@pytest.mark.parametrize("simulator", ["spikingjelly", "snntorch"])
def test_attention_as_neurons(simulator):
    installed(simulator)
    model, inputs = tiny(widths=(8,))
    graph = export_to_nir(model, quantize=8, calibration=calibration(model))
    expected, _ = torch_spikes(FoldedStudent(graph), inputs)
    parity = compare(simulator, expected, simulators.spikes(simulator, graph, inputs, 4, 1e-4))
    assert {layer.layer for layer in parity.layers} >= {"block1_qkv", "block1_attention.m", "block1_attention.z"}
    assert parity.mismatches == 0, parity.first


def test_what_cannot_be_asked_is_named(monkeypatch):
    model, inputs = tiny()
    graph = export_to_nir(model, quantize=8, calibration=calibration(model, 2))
    monkeypatch.setattr(portable_attention, "MOST_UNITS", 1000)
    with pytest.raises(NotPortableError, match=r"product units, more than 1,000; export with --profile structured"):
        simulators.spikes("spikingjelly", graph, inputs, 4, 1e-4)
    with pytest.raises(ExportError, match="--against brian: unknown simulator; choose from spikingjelly, snntorch"):
        simulators.spikes("brian", graph, inputs, 4, 1e-4)
    for name in ("norse", "norse.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    plain = export_to_nir(tiny(attention="none")[0])
    with pytest.raises(MissingToolError, match="--against norse: it cannot be imported here"):
        simulators.spikes("norse", plain, inputs, 4, 1e-4)
    with pytest.raises(ExportError, match=r"snntorch reads every file with dt = 0.0001 s, this one has 0.001 s"):
        simulators.spikes("snntorch", plain, inputs, 4, 1e-3)


def test_what_an_importer_refuses_is_its_own_word():
    installed("spikingjelly")
    graph = export_to_nir(tiny(attention="none")[0])
    graph.nodes["ssc"].r = np.full_like(graph.nodes["ssc"].r, 3.0)
    with pytest.raises(ExportError, match=r"the simulator's importer refuses the file: nir.LIF.r must equal 1"):
        simulators.spikes("spikingjelly", graph, np.zeros((1, 12, 8, 25), dtype=np.float32), 4, 1e-4)
