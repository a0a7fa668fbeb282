"""The whole toolchain through its commands: synthetic clips → model.pt → model.nir → real Lava → run.json, report.

The fixture's training is a process of its own, as a user starts it; the other commands run in this process.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mksgn.bench import record
from mksgn.deploy.run_folder import read_train
from mksgn.export import cli, command, export_to_nir
from mksgn.train import checkpoint
from tests.support.paths import NW_UCLA, needs_nw_ucla
from tests.support.tiers import one_in

SYNTHETIC = ("--calibration", "synthetic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pipeline")
    config = out / "tiny.yaml"
    config.write_text(
        "student: {frames: 8, stream_channels: 4, widths: [8, 8, 8, 16, 16, 16], heads: 2}\n"
        "epochs: 1\nbatch: 12\nlearning_rate: 0.03\n"
    )
    call = [sys.executable, "-m", "mksgn.train.cli", config, "--data", "synthetic", "--limit", "36", "--out", out]
    process = subprocess.run(call, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["mksgn-export", f"{out}/model.pt", "--quantize", "8", *SYNTHETIC, "--verify", "4"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    return out


def test_export_verifies_every_decision(folder):
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["mismatches"] == 0
    assert parity["decisions"] > 1_000_000
    (compared,) = parity["comparisons"]
    assert {layer["layer"] for layer in compared["layers"]} >= {"ssc", "smf", "block6_attention.z", "block6_stc"}
    assert all(layer["per_step"] == [0, 0, 0, 0] and layer["first"] is None for layer in compared["layers"])


def test_model_loads_with_weights_only(folder):
    assert torch.load(folder / "model.pt", weights_only=True)["schema"] == "mksgn.model/1"


@pytest.mark.parametrize("backend", one_in(2, ["lava", "emulator"]))
def test_bench_writes_a_record_that_validates(folder, tmp_path, run_command, backend):
    if backend == "lava":
        pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    jsonschema = pytest.importorskip("jsonschema")
    arguments = ("run", folder / "model.nir", "--data", "synthetic", "--limit", 4, "--backend", backend, "-o", tmp_path)
    printed = run_command("bench", *arguments).out
    assert "0 mismatches" in printed
    run = json.loads((tmp_path / "run.json").read_text())
    schema = json.loads((Path(record.__file__).parent / "data" / "run.schema.json").read_text())
    jsonschema.validate(run, schema)
    assert run["execution"]["backend"] == backend
    assert run["parity"]["mismatches"] == 0
    assert run["parity"]["decisions"] > 1_000_000
    alive = [layer for layer in run["layers"] if layer["kind"] != "readout"]
    assert all(layer["spikes"] > 0 for layer in alive), [layer["name"] for layer in alive if not layer["spikes"]]
    assert run["totals"]["syn_ops"] > 0
    assert sum(layer["syn_ops"] for layer in run["layers"]) == round(run["totals"]["syn_ops"] * 4)
    page = (tmp_path / "report.html").read_text()
    assert "block6_stc" in page
    assert "0.596" in page
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["files"]) >= {"run.json", "spikes.npz"}
    z = read_train(tmp_path / "spikes.npz", "block6_attention.z")
    assert z.shape[1:] == (4, 16, 4, 25)
    with np.load(tmp_path / "spikes.npz") as arrays:
        assert arrays["counts/smf"].sum() == next(r["spikes"] for r in run["layers"] if r["name"] == "smf")


def test_deploy_describes_checks_and_runs(folder, tmp_path, run_command):
    options = ("--data", "synthetic", "--limit", 2, "--backend", "emulator", "-o", tmp_path)
    printed = run_command("deploy", folder / "model.nir", "--describe", "--check", *options).out
    for text in ("block6_attention.z", "block1_qkv +1", "latency 50", "neurons per core", "top-1"):
        assert text in printed
    assert (tmp_path / "spikes.npz").is_file()


@pytest.mark.slow
def test_onnx_gives_the_same_spikes(folder, tmp_path, run_command):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    model, out = folder / "model.pt", tmp_path / "m.onnx"
    printed = run_command("export", model, "--to", "onnx", *SYNTHETIC, "--verify", 3, "-o", out).out
    assert "0 mismatches in" in printed
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert [c["against"].partition(" ")[0] for c in parity["comparisons"]] == ["torch", "onnxruntime"]
    assert parity["mismatches"] == 0


def test_an_unquantised_file_is_compared_layer_by_layer(folder, tmp_path, run_command):
    model, out = folder / "model.pt", tmp_path / "f.nir"
    printed = run_command("export", model, "--quantize", "none", *SYNTHETIC, "--verify", 3, "-o", out).out
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert parity["mismatches"] <= 1e-6 * parity["decisions"]
    assert "saturated" not in printed


def test_two_executions_that_differ_end_with_code_3(folder, tmp_path):
    """The unquantised file against a student whose weights were changed after it was written."""
    from mksgn.export.errors import ParityError

    trained = checkpoint.load(folder / "model.pt")
    graph = export_to_nir(folder / "model.pt")
    with torch.no_grad():
        trained.student.stc[2].conv.conv.weight.mul_(1.1)
    options = command.Options(
        model=folder / "model.pt", to="nir", out=Path(shutil.copy(folder / "model.pt", tmp_path)), profile=None,
        quantize="none", weight_exponents=True, calibration="synthetic", split=None, dt=1e-4, verify_clips=2, against="",
        steps=None, if_dt=None, analog=None, reset="zero", v_init="zero", integration="euler", spike_delay=0, overwrite=False,
    )  # fmt: skip
    with pytest.raises(ParityError, match="first in block3_stc") as caught:
        command._verify(options, graph, trained)
    assert caught.value.exit_code == 3


class Bomb:
    """A pickle that would create a file if any code of it were run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_bad_inputs_end_with_code_2_and_one_line(folder, tmp_path, run_command):
    trace = tmp_path / "bomb-went-off"
    torch.save(Bomb(trace), tmp_path / "bomb.pt")
    whole = (folder / "model.nir").read_bytes()
    (tmp_path / "cut.nir").write_bytes(whole[: len(whole) // 2])
    clip = {"file_name": "a01_s01_e00_v02", "skeletons": np.zeros((3, 20, 3)).tolist(), "label": 1}
    for name, change in {
        "joints": {"skeletons": np.zeros((3, 19, 3)).tolist()},
        "nan": {"skeletons": np.full((3, 20, 3), np.nan).tolist()},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a01_s01_e00_v02.json").write_text(json.dumps({**clip, **change}))
    pt, nir = folder / "model.pt", folder / "model.nir"
    joints, nan = ([nir, "--data", f"nw-ucla:{tmp_path}/{name}", "--split", "view1-2"] for name in ("joints", "nan"))
    cases = [
        ("export", [tmp_path / "bomb.pt", *SYNTHETIC], ["bomb.pt", "weights_only", "mksgn-train"]),
        ("deploy", [tmp_path / "cut.nir"], ["cut.nir", "truncated", "export it again"]),
        ("bench", ["run", *joints], ["a01_s01_e00_v02", "19", "20"]),
        ("bench", ["run", *nan], ["a01_s01_e00_v02", "frame 0"]),
        ("deploy", [nir, "--backend", "abacus", "--data", "synthetic", "--limit", 1], ["abacus", "lava"]),
        ("export", [pt, "--bits", 8], ["--bits"]),
        ("export", [pt], ["--calibration synthetic"]),
        ("export", [pt, *SYNTHETIC, "--against", "brian", "--verify", 1], ["brian", "onnxruntime"]),
        ("export", [pt, *SYNTHETIC, "--against", "norse"], ["--verify 10"]),
    ]
    for stage, arguments, words in cases:
        errors = run_command(stage, *arguments, code=2).err
        (line,) = errors.strip().splitlines()
        assert line.startswith(f"mksgn-{stage}: ")
        for word in words:
            assert word in line
    assert not trace.exists()


@pytest.mark.slow
@needs_nw_ucla
def test_real_clips_take_the_same_path(tmp_path, run_command):
    config = tmp_path / "tiny.yaml"
    config.write_text("student: {frames: 8, stream_channels: 4, widths: [8, 16], heads: 2}\nepochs: 1\n")
    source = f"nw-ucla:{NW_UCLA}"
    data = ("--data", source, "--split", "view1-2")
    run_command("train", config, *data, "--limit", 40, "--out", tmp_path)
    run_command("export", tmp_path / "model.pt", "--calibration", source, "--verify", 4)
    options = ("--limit", 10, "--backend", "emulator", "-o", tmp_path)
    assert "0 mismatches" in run_command("bench", "run", tmp_path / "model.nir", *data, *options).out
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["data"] == {"source": "nw-ucla", "split": "view1-2", "clips": 10}
