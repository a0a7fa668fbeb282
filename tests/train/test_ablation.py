"""The ablation: real trainings of two variants, continued and not repeated, and the table that they
make."""

import subprocess
import sys

import pytest

from mksgn.train import checkpoint
from mksgn.train.ablation import VARIANTS, Variant, main, table
from mksgn.train.config import load

pytestmark = pytest.mark.slow


TINY = (
    "student: {frames: 4, stream_channels: 2, widths: [4, 8], heads: 2, kernel: 3}\n"
    "teacher: {frames: 4, widths: [4, 4, 4, 4, 4, 4, 4, 4, 4, 4], kernel: 3}\nepochs: 1\nbatch: 16\n"
)
LIMIT = ("--limit", 24)  # two batches: which trainings there are is tested, and not what they learn


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two variants, one seed; the command's output and its folder."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "tiny.yaml").write_text(TINY)
    options = ["--out", folder / "runs", "--seeds", 1, *LIMIT, "--only", "distilled", "--only", "without attention"]
    return ablate(folder, *options), folder


def ablate(folder, *options):
    command = [sys.executable, "-m", "mksgn.train.ablation", str(folder / "tiny.yaml"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def ablate_here(monkeypatch, capfd):
    """The command in this process, which need not import torch once more; its trainings are processes as ever."""

    def run(folder, *options):
        monkeypatch.setattr(sys, "argv", ["mksgn.train.ablation", str(folder / "tiny.yaml"), *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capfd.readouterr()

    return run


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.folder)
def test_every_variant_is_a_config_and_only_the_first_changes_nothing(variant):
    config = load("small", changes=variant.changes)
    changed = config != load("small") or variant.distilled
    assert changed == (variant is not VARIANTS[0])


def test_a_row_per_variant(done):
    result, folder = done
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| variant", "| distilled", "| without attention"]
    model = checkpoint.load(folder / "runs" / "distilled" / "seed0" / "model.pt")
    assert rows[1][2] == f"{model.training['held_out_top1']:.1%}"
    assert model.training["teacher"]["preset"] == "custom"
    without = checkpoint.load(folder / "runs" / "without-attention" / "seed0" / "model.pt")
    assert without.student.config.attention == "none"
    assert (folder / "runs" / "teacher" / "teacher.pt").is_file()


def test_what_is_done_is_not_done_again(done, ablate_here):
    result, folder = done
    written = {path: path.read_text() for path in (folder / "runs").glob("*/seed0/metrics.jsonl")}
    options = ("--out", folder / "runs", "--seeds", 1, *LIMIT, "--only", "without attention")
    code, printed, errors = ablate_here(folder, *options)
    assert code == 0, errors
    assert {path: path.read_text() for path in written} == written  # seconds too: no epoch was run
    row = next(line for line in result.stdout.splitlines() if line.startswith("| without attention"))
    assert row.split(" | ")[:4] == printed.splitlines()[-1].split(" | ")[:4]


def test_a_training_that_fails_is_named(tmp_path, ablate_here):
    (tmp_path / "tiny.yaml").write_text("epochs: none\n")
    code, _, errors = ablate_here(tmp_path, "--out", tmp_path / "runs", "--only", "complete")
    assert code == 2
    assert "mksgn.train" in errors
    assert "config: epochs: Input should be a valid integer" in errors


def test_a_variant_without_a_training_has_no_row(tmp_path):
    assert len(table([Variant("complete")], tmp_path).splitlines()) == 2
