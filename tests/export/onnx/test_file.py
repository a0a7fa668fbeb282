"""ONNX files give the spikes of the reference execution and of torch, in onnxruntime."""

import copy
import json
import sys

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mksgn.export import export_to_nir
from mksgn.export.errors import ExportError, MissingToolError
from mksgn.export.onnx import file as onnx_file
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import compare
from mksgn.export.verification.verify import reference_spikes, torch_spikes
from mksgn.train.checkpoint import TrainedTeacher
from mksgn.train.streams import STREAMS
from mksgn.train.teacher import Teacher, TeacherConfig
from tests.support.students import calibration, tiny
from tests.support.tiers import examples, one_in

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")

DT, STEPS = 1e-4, 4
F32 = np.float32


def quantised(bits=8, profile="structured", **changes) -> tuple[nir.NIRGraph, np.ndarray]:
    model, inputs = tiny(**changes)
    return export_to_nir(model, quantize=bits, calibration=calibration(model), profile=profile), inputs


def assert_same(graph: nir.NIRGraph, inputs: np.ndarray, *, alive: bool) -> None:
    spikes, outputs = onnx_file.execute(onnx_file.from_nir(graph, steps=STEPS, dt=DT), inputs)
    expected, expected_outputs = reference_spikes(graph, inputs, STEPS, DT)
    in_torch, logits = torch_spikes(FoldedStudent(graph), inputs)
    assert set(spikes) == set(expected) == set(in_torch)
    for name, other in (("reference", expected), ("torch", in_torch)):
        parity = compare(name, other, spikes)
        assert parity.mismatches == 0, parity.first
        assert parity.decisions > 10_000
    assert all(s.dtype == bool for s in spikes.values())
    silent = [name for name, s in spikes.items() if not s.any()]
    assert not (alive and silent), f"the comparison means nothing for {silent}"
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-6, rtol=1e-6)
    assert (outputs["logits"].argmax(1) == logits.argmax(1)).all()
    np.testing.assert_array_equal(outputs["output"], expected_outputs["output"])


@pytest.mark.parametrize(
    "changes",
    one_in(
        4,
        [
            {"bits": 2, "seed": 2},
            {"attention": "none", "bits": 4},
            {"attention": "token"},
            {"adjacency": "learned", "widths": (8, 8)},
            {"frames": 7, "kernel": 3, "streams": ("bone", "joint_motion"), "fusion": "mean"},
            {"profile": "portable", "attention": "none", "frames": 7},
        ],
    ),
    ids=str,
)
def test_a_quantised_student_keeps_every_spike(changes):
    assert_same(*quantised(**changes), alive=True)


def test_the_fixture_too(student):
    assert_same(*student, alive=True)


@settings(max_examples=examples(5, 1), deadline=None, derandomize=True, database=None)
@given(
    bits=st.sampled_from([2, 4, 8]),
    attention=st.sampled_from(["self", "token", "none"]),
    adjacency=st.sampled_from(["skeleton", "learned"]),
    streams=st.lists(st.sampled_from(STREAMS), min_size=1, max_size=4, unique=True).map(tuple),
    widths=st.sampled_from([(4,), (4, 8), (6, 6), (4, 8, 8)]),
    frames=st.integers(2, 9),
    seed=st.integers(0, 99),
)
def test_any_quantised_student_keeps_every_spike(bits, attention, adjacency, streams, widths, frames, seed):
    graph, inputs = quantised(
        bits, attention=attention, adjacency=adjacency, streams=streams, widths=widths, frames=frames, seed=seed
    )
    assert_same(graph, inputs, alive=False)


@pytest.mark.parametrize("profile", ["structured", "portable"])
def test_an_unquantised_student_may_round_apart_at_a_tie_and_nowhere_else(profile):
    model, inputs = tiny(attention="self" if profile == "structured" else "none")
    graph = export_to_nir(model, profile=profile)
    spikes, outputs = onnx_file.execute(onnx_file.from_nir(graph, steps=STEPS, dt=DT), inputs)
    expected, expected_outputs = reference_spikes(graph, inputs, STEPS, DT)
    parity = compare("reference", expected, spikes)
    first = parity.layers[0]  # nothing before it could have differed
    assert first.layer == "ssc"
    assert first.mismatches <= max(1, first.decisions * 1e-6)
    assert parity.mismatches <= parity.decisions // 1000
    assert (outputs["logits"].argmax(1) == expected_outputs["output"].mean(1).argmax(1)).mean() > 0.8


def test_spikes_do_not_depend_on_the_batch(student, student_model):
    _, inputs = student
    many = np.concatenate([inputs] * 5)[: onnx_file.RUN_CLIPS + 7]
    spikes, outputs = onnx_file.execute(student_model, many)
    for part in (slice(0, 1), slice(3, 10)):
        alone, alone_outputs = onnx_file.execute(student_model, many[part])
        for name in spikes:
            np.testing.assert_array_equal(alone[name], spikes[name][part])
        np.testing.assert_array_equal(alone_outputs["logits"], outputs["logits"][part])


@pytest.mark.parametrize("level", ["DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"])
def test_no_optimisation_level_of_onnxruntime_changes_a_spike(student, student_model, level):
    _, inputs = student
    options = runtime.SessionOptions()
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, f"ORT_{level}")
    session = runtime.InferenceSession(student_model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    assert names[0] == "logits"
    values = dict(zip(names, session.run(names, {"input": inputs}), strict=True))
    spikes, outputs = onnx_file.execute(student_model, inputs)
    for name, train in spikes.items():
        np.testing.assert_array_equal(values[f"spikes/{name}"].swapaxes(0, 1), train)
    np.testing.assert_allclose(values["logits"], outputs["logits"], atol=1e-6)


def test_the_same_graph_gives_the_same_bytes_in_whatever_order_it_lists_its_nodes(student, student_model, tmp_path):
    graph, inputs = student
    other = nir.NIRGraph(
        dict(reversed(graph.nodes.items())), graph.edges[::-1], metadata=dict(reversed(graph.metadata.items()))
    )
    onnx_file.write(student_model, tmp_path / "a.onnx")
    onnx_file.write(onnx_file.from_nir(other, steps=STEPS, dt=DT), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]
    spikes, _ = onnx_file.execute(tmp_path / "a.onnx", inputs)
    for name, train in onnx_file.execute(student_model, inputs)[0].items():
        np.testing.assert_array_equal(spikes[name], train)


def test_a_model_that_is_not_valid_is_not_written(student_model, tmp_path):
    broken = copy.deepcopy(student_model)
    broken.graph.node[3].input[0] = "nobody"
    with pytest.raises(ExportError, match=r"a\.onnx: not a valid ONNX model") as caught:
        onnx_file.write(broken, tmp_path / "a.onnx")
    assert "\n" not in str(caught.value)
    wrong_shape = copy.deepcopy(student_model)
    wrong_shape.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value += 1
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        onnx_file.write(wrong_shape, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("streams", [pytest.param(STREAMS, marks=pytest.mark.slow), ("bone",)])
def test_the_teacher_agrees_with_torch(streams, tmp_path):
    model, _ = tiny(streams=streams)
    torch.manual_seed(0)
    widths = (4, 4, 4, 6, 6, 6, 6, 8, 8, 5)  # strides of 2, and a layer that narrows
    config = TeacherConfig(
        model.student.config.graph, ("a", "b", "c"), frames=9, widths=widths, kernel=3, streams=streams
    )
    teacher = Teacher(config)
    for part in teacher.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):  # norms that have seen something
            part.running_mean.normal_(0.0, 0.3)
            part.running_var.uniform_(0.3, 2.0)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0.2, 0.3)
        elif hasattr(part, "adjacency"):
            torch.nn.init.normal_(part.adjacency, 0.0, 0.3)
    teacher.eval()
    exported = onnx_file.from_teacher(TrainedTeacher(teacher, model.normaliser, {"seed": 0, "source": "/home/me"}))
    path = tmp_path / "teacher.onnx"
    onnx_file.write(exported, path)
    x = np.random.default_rng(0).normal(size=(19, 3 * len(streams), 9, 25)).astype(F32)
    spikes, outputs = onnx_file.execute(path, x)
    with torch.no_grad():
        logits = dict(zip(config.streams, teacher.look(torch.from_numpy(x))[0].numpy(), strict=True))
    assert not spikes
    assert list(outputs) == ["logits", *(f"logits/{stream}" for stream in config.streams)]
    for name, expected in {
        "logits": np.mean(list(logits.values()), 0),
        **{f"logits/{s}": v for s, v in logits.items()},
    }.items():
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        assert (outputs[name].argmax(1) == expected.argmax(1)).all()
    properties = {p.key: p.value for p in exported.metadata_props}
    assert TeacherConfig(**json.loads(properties["teacher"])) == config
    assert json.loads(properties["training"]) == {"seed": 0}
    assert (properties["network"], properties["schema"]) == ("teacher", "mksgn.onnx/1")
    assert path.read_bytes() == onnx_file.from_teacher(
        TrainedTeacher(teacher, model.normaliser, {"seed": 0})
    ).SerializeToString(deterministic=True)


@pytest.mark.parametrize(("steps", "dt"), [(0, DT), (1.5, DT), (4, 0.0), (4, float("nan"))])
def test_steps_and_dt_must_make_sense(steps, dt, student):
    with pytest.raises(ExportError, match="at least one step, and a positive time"):
        onnx_file.from_nir(student[0], steps=steps, dt=dt)


def test_execute_refuses_what_it_cannot_run(student_model, tmp_path):
    with pytest.raises(
        ExportError, match=r"input input: got an array of shape \(2, 3\), the model takes .*12, 8, 25\)"
    ):
        onnx_file.execute(student_model, np.zeros((2, 3), F32))
    with pytest.raises(ExportError, match="at least one clip"):
        onnx_file.execute(student_model, np.zeros((0, 12, 8, 25), F32))
    (tmp_path / "torn.onnx").write_bytes(student_model.SerializeToString()[:5000])
    for name in ("torn.onnx", "absent.onnx"):
        with pytest.raises(ExportError, match=rf"{name}: onnxruntime cannot load it") as caught:
            onnx_file.execute(tmp_path / name, np.zeros((1, 12, 8, 25), F32))
        assert "\n" not in str(caught.value)
    foreign = copy.deepcopy(student_model)
    del foreign.metadata_props[:]
    with pytest.raises(ExportError, match="not a model of schema mksgn"):
        onnx_file.execute(foreign, np.zeros((1, 12, 8, 25), F32))


def test_an_absent_onnxruntime_is_named_with_its_remedy(student_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingToolError, match=r"onnxruntime is not installed; pip install 'mksgn\[onnx\]'"):
        onnx_file.execute(student_model, np.zeros((1, 12, 8, 25), F32))
