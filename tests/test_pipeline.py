"""The whole way, through the commands: synthetic clips → model.pt → model.nir → real Lava → run.json and report.html."""

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
from mksgn.export import export_to_nir
from mksgn.train import checkpoint
from mksgn.train.datasets import open_source
from tests.support.paths import NW_UCLA


def command(stage: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", f"mksgn.{stage}.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pipeline")
    config = out / "tiny.yaml"
    config.write_text(
        "student: {frames: 8, stream_channels: 4, widths: [8, 8, 8, 16, 16, 16], heads: 2}\nepochs: 10\nbatch: 12\nlearning_rate: 0.01\n"
    )
    command("train", config, "--data", "synthetic", "--limit", 96, "--out", out)
    command("export", out / "model.pt", "--quantize", 8, "--calibration", "synthetic", "--verify", 4)
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


@pytest.mark.parametrize("backend", ["lava", "emulator"])
def test_bench_leaves_a_record_that_validates(folder, tmp_path, backend):
    if backend == "lava":
        pytest.importorskip("lava", reason="Lava needs Python 3.10")
    jsonschema = pytest.importorskip("jsonschema")
    done = command(
        "bench", "run", folder / "model.nir", "--data", "synthetic", "--limit", 6, "--backend", backend, "-o", tmp_path
    )
    assert "0 mismatches" in done.stdout
    run = json.loads((tmp_path / "run.json").read_text())
    schema = json.loads((Path(record.__file__).parent / "data" / "run.schema.json").read_text())
    jsonschema.validate(run, schema)
    assert run["execution"]["backend"] == backend
    assert run["parity"]["mismatches"] == 0
    assert run["parity"]["decisions"] > 1_000_000
    alive = [layer for layer in run["layers"] if layer["kind"] != "readout"]
    assert all(layer["spikes"] > 0 for layer in alive), [layer["name"] for layer in alive if not layer["spikes"]]
    assert run["totals"]["syn_ops"] > 0
    assert sum(layer["syn_ops"] for layer in run["layers"]) == round(run["totals"]["syn_ops"] * 6)
    page = (tmp_path / "report.html").read_text()
    assert "block6_stc" in page
    assert "0.596" in page
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(manifest["files"]) >= {"run.json", "spikes.npz"}
    z = read_train(tmp_path / "spikes.npz", "block6_attention.z")
    assert z.shape[1:] == (4, 16, 4, 25)
    with np.load(tmp_path / "spikes.npz") as arrays:
        assert arrays["counts/smf"].sum() == next(r["spikes"] for r in run["layers"] if r["name"] == "smf")


def test_deploy_describes_checks_and_runs(folder, tmp_path):
    done = command(
        "deploy",
        folder / "model.nir",
        "--describe",
        "--check",
        "--data",
        "synthetic",
        "--limit",
        2,
        "--backend",
        "emulator",
        "-o",
        tmp_path,
    )
    for text in ("block6_attention.z", "block1_qkv +1", "latency 38", "neurons per core", "top-1"):
        assert text in done.stdout
    assert (tmp_path / "spikes.npz").is_file()


def test_onnx_gives_the_same_spikes_and_an_unquantised_file_is_compared_layer_by_layer(folder, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    done = command(
        "export",
        folder / "model.pt",
        "--to",
        "onnx",
        "--calibration",
        "synthetic",
        "--verify",
        3,
        "-o",
        tmp_path / "m.onnx",
    )
    assert "0 mismatches in" in done.stdout
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert [c["against"].partition(" ")[0] for c in parity["comparisons"]] == ["torch", "onnxruntime"]
    assert parity["mismatches"] == 0
    done = command(
        "export",
        folder / "model.pt",
        "--quantize",
        "none",
        "--calibration",
        "synthetic",
        "--verify",
        3,
        "-o",
        tmp_path / "f.nir",
    )
    parity = json.loads((tmp_path / "parity.json").read_text())
    assert parity["mismatches"] <= 1e-6 * parity["decisions"]
    assert "saturated" not in done.stdout


def test_two_executions_that_differ_end_with_code_3(folder, tmp_path):
    """The unquantised file against a student whose weights were changed after it was written."""
    from mksgn.export import cli
    from mksgn.export.errors import ParityError

    trained = checkpoint.load(folder / "model.pt")
    graph = export_to_nir(folder / "model.pt")
    with torch.no_grad():
        trained.student.stc[2].conv.conv.weight.mul_(1.1)
    clips = open_source("synthetic", part="test", limit=2)
    with pytest.raises(ParityError, match="first in block3_stc") as caught:
        cli._verify(Path(shutil.copy(folder / "model.pt", tmp_path)), graph, trained, clips, ())
    assert caught.value.exit_code == 3


class Bomb:
    """A pickle that would leave a file behind if any code of it were run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


def test_bad_inputs_end_with_code_2_and_one_line(folder, tmp_path):
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
    cases = [
        ("export", [tmp_path / "bomb.pt", "--calibration", "synthetic"], ["bomb.pt", "weights_only", "mksgn-train"]),
        ("deploy", [tmp_path / "cut.nir"], ["cut.nir", "truncated", "export it again"]),
        (
            "bench",
            ["run", folder / "model.nir", "--data", f"nw-ucla:{tmp_path}/joints", "--split", "view1-2"],
            ["a01_s01_e00_v02", "19", "20"],
        ),
        (
            "bench",
            ["run", folder / "model.nir", "--data", f"nw-ucla:{tmp_path}/nan", "--split", "view1-2"],
            ["a01_s01_e00_v02", "frame 0"],
        ),
        (
            "deploy",
            [folder / "model.nir", "--backend", "abacus", "--data", "synthetic", "--limit", 1],
            ["abacus", "lava"],
        ),
        ("export", [folder / "model.pt", "--bits", 8], ["--bits"]),
        (
            "export",
            [folder / "model.pt", "--profile", "portable", "--calibration", "synthetic"],
            ["block1_attention", "--profile structured"],
        ),
        ("export", [folder / "model.pt"], ["--calibration synthetic"]),
        (
            "export",
            [folder / "model.pt", "--calibration", "synthetic", "--against", "brian", "--verify", 1],
            ["brian", "onnxruntime"],
        ),
        ("export", [folder / "model.pt", "--calibration", "synthetic", "--against", "norse"], ["--verify 10"]),
    ]
    for stage, arguments, words in cases:
        done = command(stage, *arguments, code=2)
        lines = done.stderr.strip().splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith(f"mksgn-{stage}: ")
        for word in words:
            assert word in lines[0], lines[0]
    assert not trace.exists()


@pytest.mark.skipif(
    not NW_UCLA.is_dir(), reason="the real NW-UCLA clips are not beside this checkout (../shared/data/nw_ucla)"
)
def test_real_clips_go_the_same_way(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text("student: {frames: 8, stream_channels: 4, widths: [8, 16], heads: 2}\nepochs: 1\n")
    source = f"nw-ucla:{NW_UCLA}"
    command("train", config, "--data", source, "--split", "view1-2", "--limit", 40, "--out", tmp_path)
    command("export", tmp_path / "model.pt", "--calibration", source, "--verify", 4)
    done = command(
        "bench",
        "run",
        tmp_path / "model.nir",
        "--data",
        source,
        "--split",
        "view1-2",
        "--limit",
        10,
        "--backend",
        "emulator",
        "-o",
        tmp_path,
    )
    assert "0 mismatches" in done.stdout
    assert json.loads((tmp_path / "run.json").read_text())["data"] == {
        "source": "nw-ucla",
        "split": "view1-2",
        "clips": 10,
    }
