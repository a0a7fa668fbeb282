"""The programs of examples/: what the README shows of them is what they are, and they run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nir
import pytest
from typer.testing import CliRunner

from mksgn.bench import load
from mksgn.bench.cli import app
from mksgn.export import export_to_nir
from mksgn.train import checkpoint as checkpoints
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits.py"


def test_the_readme_shows_the_end_of_the_example():
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    _, _, end = DIGITS.read_text().partition("# from here on: README.md\n")
    assert shown[1] == end
    assert len([line for line in end.splitlines() if line.strip()]) <= 15


@pytest.mark.slow
def test_the_digits_are_right_and_decided_as_snntorch_decides(tmp_path):
    """The example, then its output spike by spike against snnTorch's."""
    if "MKSGN_INTEROP" not in os.environ:
        pytest.importorskip("snntorch", reason="snnTorch is not installed: make setup-interop")
        pytest.importorskip("sklearn", reason="scikit-learn is not installed: make setup-interop")
    compare = (
        "import runpy, torch\n"
        f"names = runpy.run_path({str(DIGITS)!r})\n"
        "net, images, run = names['net'], names['images'], names['runs']['float']\n"
        "names['utils'].reset(net)\n"
        "theirs = torch.stack([net(images) for _ in range(names['STEPS'])], 1).detach().bool().numpy()\n"
        "from mksgn.deploy import run as execute\n"
        "ours = execute(run.network.program, run.samples.presented(None, run.network.program).arrays).outputs['output']\n"
        "print('decisions that differ', int((ours.astype(bool) != theirs).sum()), 'of', theirs.size, theirs.any())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", compare], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "decisions that differ 0 of 99250 True" in done.stdout
    accuracies = dict(re.findall(r"^(torch|float|fixed) ([0-9.]+)%", done.stdout, re.MULTILINE))
    assert accuracies["torch"] == accuracies["float"]
    assert float(accuracies["fixed"]) > float(accuracies["float"]) - 2 > 85
    record = load(tmp_path / "runs" / "digits")
    assert f"fixed {record.accuracy.top1:.1%}" in done.stdout
    assert record.execution.compiling == {"analog": ["input"]}


@pytest.mark.slow
def test_the_trained_demo_recognises_the_synthetic_actions_on_a_chips_integers(tmp_path):
    checkpoint = ROOT / "examples" / "demo" / "model.pt"
    assert checkpoint.stat().st_size < 1_000_000
    clips = open_source("synthetic", split=None, part="train", limit=24)
    trained = checkpoints.load(checkpoint)
    calibration, _ = body_inputs(clips.clips, trained.normaliser)
    nir.write(tmp_path / "model.nir", export_to_nir(trained, quantize=8, calibration=calibration))
    result = CliRunner().invoke(
        app, f"run {tmp_path}/model.nir --data synthetic --limit 60 --backend emulator -o {tmp_path}/run".split()
    )
    assert result.exit_code == 0, result.output
    record = load(tmp_path / "run")
    assert record.accuracy.top1 >= 0.95
    assert record.parity.mismatches == 0
