"""The command mksgn-export: inputs and formats, and errors before anything is written."""

import json

import h5py
import nir
import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, run
from mksgn.export import cli, command, export_to_nir
from mksgn.export.errors import ExportError, ParityError
from mksgn.export.graph import files
from mksgn.export.graph.metadata import json_of
from mksgn.export.onnx import file as onnx_file
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.export.quantization.aware import HEADROOM, choose_scales
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedTeacher
from mksgn.train.teacher import Teacher, TeacherConfig
from tests.support.full_disk import full_disk
from tests.support.graphs import chain, lif, linear
from tests.support.graphs import inp as inp_node
from tests.support.graphs import out as out_node
from tests.support.lava_dl_files import FLATTEN, conv, dense, inp, write
from tests.support.students import calibration, tiny
from tests.support.tiers import one_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained student, an untrained teacher, and a lava-dl network."""
    out = tmp_path_factory.mktemp("export")
    model, _ = tiny(attention="none")
    checkpoint.save(model, out / "model.pt")
    config = model.student.config
    torch.manual_seed(0)
    teacher = Teacher(TeacherConfig(config.graph, config.classes, frames=config.frames, widths=(4,) * 10, kernel=3))
    checkpoint.save_teacher(
        TrainedTeacher(teacher.eval(), model.normaliser, {"split": "synthetic"}), out / "teacher.pt"
    )
    rng = np.random.default_rng(0)
    layers = [inp(2, 4, 5), conv(rng.integers(-9, 9, (3, 2, 3, 3)) * 2, (4, 5), padding=1), FLATTEN]
    write(out / "network.net", [*layers, dense(rng.integers(-9, 9, (4, 60)) * 2)])
    return out


def test_a_lava_dl_network_becomes_a_nir_file(folder, tmp_path):
    cli.export(folder / "network.net", out=tmp_path / "deep" / "network.nir")
    graph = files.read(tmp_path / "deep" / "network.nir")
    assert graph.metadata["source"] == "lava-dl"
    assert sum(isinstance(node, nir.LIF) for node in graph.nodes.values()) == 2


def test_only_a_file_of_the_same_format_is_replaced(folder, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
    options = {"calibration": "synthetic", "quantize": "none"}
    for to in ("nir", "onnx"):
        path = tmp_path / f"taken.{to}"
        path.write_bytes(b"mine")
        with pytest.raises(BadInputError, match=rf"taken\.{to}: exists, and is not an? .* --overwrite"):
            cli.export(folder / "model.pt", to=to, out=path, **options)
        assert path.read_bytes() == b"mine"
        cli.export(folder / "model.pt", to=to, out=path, **options, overwrite=True)
        before = path.read_bytes()
        with full_disk(), pytest.raises(BadInputError, match=r"cannot be written \(File too large\)"):
            cli.export(folder / "model.pt", to=to, out=path, **options)
        assert path.read_bytes() == before
        cli.export(folder / "model.pt", to=to, out=path, **options)
        assert path.read_bytes() == before
    (tmp_path / "parity.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"parity\.json: exists"):
        cli.export(folder / "model.pt", out=tmp_path / "taken.nir", **options, verify_clips=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parity.json", "taken.nir", "taken.onnx"]


def test_a_teacher_becomes_an_onnx_file_that_is_compared_with_torch(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    path = tmp_path / "teacher.onnx"
    cli.export(folder / "teacher.pt", to="onnx", out=path, calibration="synthetic", verify_clips=3)
    assert "same prediction on 3" in capsys.readouterr().out
    monkeypatch.setattr("mksgn.export.verification.verify.LOGIT_CHANGE", 0.0)
    with pytest.raises(ParityError, match=r"teacher\.onnx: a logit differs from torch's by .* allowed: 0\.0"):
        cli.export(folder / "teacher.pt", to="onnx", out=path, calibration="synthetic", verify_clips=3)


@pytest.mark.parametrize(("profile", "quantize"), one_in(2, [("portable", "8"), ("structured", "none")]))
def test_a_portable_onnx_file_gives_the_same_spikes(folder, tmp_path, profile, quantize):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    path = tmp_path / "m.onnx"
    options = {"profile": profile, "quantize": quantize, "calibration": "synthetic", "verify_clips": 2}
    cli.export(folder / "model.pt", to="onnx", out=path, **options)
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert parity["sha256"] == checkpoint.sha256(path)
    assert [c["against"].partition(" ")[0] for c in parity["comparisons"]] == ["torch", "onnxruntime"]
    assert parity["mismatches"] <= (0 if quantize == "8" else 10)


def test_verify_runs_the_onnx_file_that_was_written(folder, tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'mksgn[onnx]'")
    write = command.onnx_file.write

    def spoilt(model, path):
        weight = next(w for w in model.graph.initializer if w.name.startswith("block1_sgc") and "bias" in w.name)
        values = onnx.numpy_helper.to_array(weight) + np.float32(0.5)
        weight.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), weight.name))
        write(model, path)

    monkeypatch.setattr(command.onnx_file, "write", spoilt)
    with pytest.raises(ParityError, match=r"onnxruntime ↔ NIR reference\), first in block1_sgc"):
        cli.export(folder / "model.pt", to="onnx", out=tmp_path / "m.onnx", calibration="synthetic", verify_clips=2)


@pytest.fixture
def foreign(tmp_path):
    """A network of another framework, without metadata, and samples for it."""
    rng = np.random.default_rng(0)
    graph = chain(
        ("x", inp_node(5)),
        ("w", linear(rng.normal(0.2, 0.6, (6, 5)))),
        ("n", nir.IF(np.ones(6, np.float32), np.ones(6, np.float32), np.zeros(6, np.float32))),
        ("r", linear(rng.normal(0.2, 0.6, (3, 6)))),
        ("y", out_node(3)),
    )
    graph.metadata = {}
    files.write(graph, tmp_path / "net.nir")
    x = rng.random((8, 6, 5)) < 0.5
    np.savez(tmp_path / "x.npz", x_train=x, x_test=x[:2])
    return tmp_path


def test_any_nir_file_is_quantised_and_runs_as_it_is(foreign, capsys):
    path, source = foreign / "net.nir", f"npz:{foreign / 'x.npz'}"
    cli.export(path, quantize="5", calibration=source, if_dt=1.0)
    assert "5-bit weights" in capsys.readouterr().out
    written = files.read(foreign / "net_quantized.nir")
    assert json_of(written, "quantization")["bits"] == 5
    assert (written.metadata["parent"], written.metadata["steps"]) == (checkpoint.sha256(path), 6)
    x = np.load(foreign / "x.npz")["x_train"]
    expected = run(compile_graph(quantize_any(files.read(path), 5, x, if_dt=1.0), if_dt=1.0), x)
    actual = run(compile_graph(foreign / "net_quantized.nir"), x)  # which says how its IF is integrated
    np.testing.assert_array_equal(actual.spikes["n"], expected.spikes["n"])
    assert expected.spikes["n"].any()
    with pytest.raises(ExportError, match="is quantised already"):
        cli.export(foreign / "net_quantized.nir", out=foreign / "b.nir", calibration=source)


def test_any_nir_file_as_onnx_or_the_node_that_has_no_encoding(foreign):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    with pytest.raises(BadInputError, match=r"node n: IF.*write it as a LIF"):
        cli.export(foreign / "net.nir", to="onnx", quantize="none", steps=4)
    graph = files.read(foreign / "net.nir")
    graph.nodes["n"] = lif(6)
    files.write(graph, foreign / "lif.nir")
    with pytest.raises(ExportError, match="how many steps a sample has; give --steps"):
        cli.export(foreign / "lif.nir", to="onnx", quantize="none")
    cli.export(foreign / "lif.nir", to="onnx", calibration=f"npz:{foreign / 'x.npz'}")
    once = np.eye(5, dtype=np.float32)
    spikes = onnx_file.execute(foreign / "lif.onnx", once)[0]["n"]
    quantised = quantize_any(graph, 8, np.load(foreign / "x.npz")["x_train"])
    expected = run(compile_graph(quantised), np.broadcast_to(once[:, None], (5, 6, 5))).spikes["n"]
    np.testing.assert_array_equal(np.asarray(spikes), expected)
    assert expected.any()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({}, "give samples that choose the scales, e.g. --calibration npz:FILE"),
        ({"calibration": "synthetic"}, "carries no normalisation of skeleton clips; give arrays, npz:FILE"),
        ({"profile": "portable"}, "are for students, this is a NIR file"),
    ],
)
def test_what_a_nir_file_lacks_is_named(foreign, options, fault):
    with pytest.raises(ExportError, match=fault):
        cli.export(foreign / "net.nir", **options)


REFUSED = [
    ({"dt": float("inf")}, "dt inf: expected 1e-09 to 1.0 seconds"),
    ({"dt": 1e-46}, "dt 1e-46: expected"),
    ({"dt": float("nan")}, "dt nan: expected"),
    ({"profile": "tiny"}, "profile 'tiny' is unknown"),
    ({"against": "norse"}, "give their number"),
    ({"against": "brian, norse", "verify_clips": 1}, "--against brian: unknown simulator"),
    ({}, "name them, e.g. --calibration synthetic"),
    ({"quantize": "none", "verify_clips": 2}, "name them, e.g. --calibration synthetic"),
    ({"out": "model.pt", "quantize": "none"}, "would overwrite the model itself"),
    ({"model": "."}, "is a directory; make one with"),
    ({"model": "absent.pt", "out": "new/absent.nir"}, "absent.pt: no such file"),
    ({"model": "network.net", "to": "onnx"}, "can only be written with --to nir"),
    ({"model": "network.net", "quantize": "8"}, "are for students, this is a lava-dl network"),
    ({"model": "teacher.pt", "to": "onnx", "profile": "portable"}, "are for students, this is a teacher"),
    ({"model": "teacher.pt"}, "write it with --to onnx"),
    ({"model": "teacher.pt", "to": "onnx", "verify_clips": 1}, "name them, e.g. --calibration synthetic"),
    ({"model": "some.nir", "out": "other.nir"}, "not a readable NIR file"),
    ({"out": "folder", "quantize": "none"}, "is a directory; name a file in it"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_is_refused_leaves_no_trace(folder, options, message):
    with h5py.File(folder / "some.nir", "w") as file:
        file.create_group("node")
    (folder / "folder").mkdir(exist_ok=True)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "some.nir"}
    options = {**options, "model": folder / options.get("model", "model.pt")}
    if "out" in options:
        options["out"] = folder / options["out"]
    with pytest.raises((ExportError, BadInputError)) as caught:
        cli.export(**options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "some.nir"}
    assert {k: v for k, v in after.items() if k.is_file()} == {k: v for k, v in before.items() if k.is_file()}
    assert not (folder / "new").exists()


def test_a_model_that_was_trained_for_its_width_needs_no_clips(tmp_path):
    model, _ = tiny(attention="none")
    inputs = calibration(model)
    model.quantization = choose_scales(model.student, model.normaliser, 3, inputs)
    checkpoint.save(model, tmp_path / "model.pt")
    cli.export(tmp_path / "model.pt")
    graph = files.read(tmp_path / "model.nir")
    entry = json_of(graph, "quantization")
    assert entry["bits"] == 3
    assert entry["populations"]["smf"]["agreement"] is None
    model.quantization = None
    calibrated = export_to_nir(model, quantize=3, calibration=inputs)
    room = {name: HEADROOM if name == "ssc" else 1.0 for name in entry["populations"]}  # of what float32 bounds
    scales = json_of(calibrated, "quantization")["populations"]
    assert {name: scale["scale"] for name, scale in entry["populations"].items()} == {
        name: scale["scale"] * room[name] for name, scale in scales.items()
    }
    for name, node in calibrated.nodes.items():  # the same scales, the same file
        if hasattr(node, "weight") and name != "ssc_conv":
            np.testing.assert_array_equal(graph.nodes[name].weight, node.weight)
    with pytest.raises(ExportError, match=r"model\.pt: was trained for 3 bits, not 8; quantise it to 3"):
        cli.export(tmp_path / "model.pt", quantize="8")
    cli.export(tmp_path / "model.pt", quantize="none", out=tmp_path / "float.nir")
    assert json_of(files.read(tmp_path / "float.nir"), "quantization") is None
