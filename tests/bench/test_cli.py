"""mksgn-bench as a user calls it: output and exit codes of each command."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from mksgn.bench.cli import main
from mksgn.bench.folder import write_reports
from mksgn.bench.record_io import load
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.common.lock import locked
from mksgn.train.datasets import open_source
from tests.support.bench_runs import student_files
from tests.support.full_disk import content_of, full_disk
from tests.support.paths import EXAMPLES
from tests.support.sweep_grids import GRID

CHIP = EXAMPLES / "own_chip" / "chip.yaml"
PRICES = """
schema: mksgn.energy_models/1
models:
  - {name: our-chip, evidence: measured, source: our board, prices_pJ: {synaptic_op: 2.0}, excludes: [host_macs,
     coincidences, neuron_updates, spike_messages, host_to_chip_spikes, memory, static_power]}
"""
CLAIM = """
schema: mksgn.claims/1
claims:
  - {name: our figure, quantity: energy, value: VALUE, unit: mJ, version: ours, grade: own, source: our paper,
     energy_model: our-chip}
"""


@pytest.fixture
def command(monkeypatch, capfd):
    def call(*arguments: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["mksgn-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert ended.value.code == code, printed.out + printed.err
        assert "Traceback" not in printed.err
        if code in (2, 5):
            assert printed.err.startswith("mksgn-bench: ")
        return printed.out + printed.err

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return student_files(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    bench(model, open_source("synthetic", part="test", limit=12), out, Settings(), seed=0)
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    """A copy of a run's folder that a test may change."""
    return shutil.copytree(finished, tmp_path / "run")


def test_run_prints_the_record_and_resume_repeats_nothing(command, model, tmp_path):
    run = tmp_path / "run"
    options = ("--data", "synthetic", "--limit", 12, "--backend", "emulator", "--resume", "-o", run)
    text = command("run", model, *options)
    assert f"report: {run / 'report.html'}" in text
    text = command("run", model, *options)
    record = json.loads((run / "run.json").read_text())
    assert f"{run}: finished already" in text
    assert f"syn_ops per clip {record['totals']['syn_ops']:,.0f}" in " ".join(text.split())
    assert "parity against torch: 0 mismatches" in text
    assert "top-1 in torch, unquantised" in text
    assert "begun with repeats 1, now 2" in command("run", model, *options, "--repeat", 2, code=2)


def test_a_finished_run_stays_until_another_one_is_finished(command, model, run):
    before = content_of(run)
    arguments = ("run", model, "--data", "synthetic", "--limit", 4, "--backend", "emulator", "-o", run)
    text = command(*arguments, code=2)
    assert text.count("\n") == 1
    assert (
        f"{run}: holds a finished run (run.json, spikes.npz, run.log and 3 more); continue it with --resume, replace it"
        in text
    )
    with locked(run):
        assert "is writing to it; wait until it ends" in command(*arguments, "--overwrite", code=2)
    with full_disk():
        assert "progress.npz: File too large" in command(*arguments, "--overwrite", code=2).splitlines()[-1]
    assert content_of(run) == before
    command(*arguments, "--overwrite")
    assert load(run).data.clips == 4
    assert sorted(content_of(run)) == sorted(before)
    command("check", run, "--near", model.parent)


def test_a_report_is_replaced_with_its_manifest_or_not_at_all(command, run):
    before = content_of(run)
    with full_disk():
        assert "report.html: cannot be written (File too large)" in command("report", run, code=2)
    with locked(run):
        assert "is writing to it" in command("report", run, code=2)
    assert content_of(run) == before
    command("report", run)
    command("check", run)
    assert sorted(content_of(run)) == sorted(before)


def test_only_its_own_files_are_replaced_without_a_word(command, run, model, tmp_path):
    for words in (("compare", run, run, "--markdown"), ("compare-chip", run, "--template"), ("nir-data", run, "-o")):
        path = tmp_path / "taken"
        path.write_bytes(b"mine")
        text = command(*words, path, code=2)
        assert text.count("\n") == 1
        assert f"{path}: exists, and is not " in text
        assert path.read_bytes() == b"mine"
        command(*words, path, "--overwrite")
        assert path.read_bytes() != b"mine"
    command("compare", run, run, "--markdown", tmp_path / "a.md")
    command("compare", run, run, "--markdown", tmp_path / "a.md")
    counts = tmp_path / "counts.yaml"
    command("compare-chip", run, "--template", counts)
    command("compare-chip", run, "--template", counts)
    counts.write_text(counts.read_text().replace("null", "3", 1))
    assert "is not an unfilled template written by this command" in command(
        "compare-chip", run, "--template", counts, code=2
    )
    assert "3" in counts.read_text()


def test_repetitions_are_printed_with_their_spread(command, model, tmp_path):
    text = command(
        "run", model, "--data", "synthetic", "--limit", 4, "--backend", "emulator", "--repeat", 3, "-o", tmp_path / "r"
    )
    assert " s in 3 repetitions), " in text


def test_check_finds_a_flipped_byte(command, model, run):
    text = command("check", run, "--near", model.parent)
    assert f"model: {model} is the file that was run" in text
    assert text.endswith("no fault found\n")
    data = bytearray((run / "run.json").read_bytes())
    data[len(data) // 2] ^= 1
    (run / "run.json").write_bytes(data)
    assert "run.json" in command("check", run, code=2)


def test_compare_is_a_gate(command, model, run, tmp_path):
    other = tmp_path / "other"
    command("run", model, "--data", "synthetic", "--limit", 12, "--backend", "emulator", "--shard", 1, "-o", other)
    assert "identical" in command("compare", run, other, "--identical").lower()
    command("run", model, "--data", "synthetic", "--limit", 11, "--backend", "emulator", "--overwrite", "-o", other)
    text = command("compare", run, other, "--max-rise-spikes", 0.0, code=2)
    assert "--allow-different-data" in text
    text = command("compare", run, other, "--identical", "--allow-different-data", code=5)
    assert "bound" in text
    command("compare", run, other, "--markdown", tmp_path / "comment.md")
    assert "|" in (tmp_path / "comment.md").read_text()


def test_report_with_prices_and_claims_of_one_s_own(command, run, tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICES)
    own = ("report", run, "--energy-model", tmp_path / "prices.yaml", "--claims", tmp_path / "claims.yaml")
    before = (run / "run.json").read_bytes()
    for value, code, outcome in (("1000.0", 0, "holds"), ("1.0e-9", 5, "fails")):
        (tmp_path / "claims.yaml").write_text(CLAIM.replace("VALUE", value))
        text = command(*own, "--require-claim", "our figure", code=code)
        assert f"our figure under our-chip: {outcome}" in text
    page = (run / "report.html").read_text()
    assert "our-chip" in page
    assert "our figure" in page
    assert (run / "run.json").read_bytes() == before
    command("check", run)
    assert "no claim 'another'" in command("report", run, "--require-claim", "another", code=2)


def test_a_chip_of_a_file_is_placed_on_and_checked_with_its_file(command, model, tmp_path):
    """Its delay is not stated: the run never simply fits it, and says so in each of its outputs."""
    run = ("run", model, "--data", "synthetic", "--limit", 4, "--backend", "emulator", "--chip", "our-chip", "-o",
           tmp_path / "run")  # fmt: skip
    assert "chip 'our-chip' is not known; choose one of loihi1, loihi2, truenorth, or add" in command(*run, code=2)
    words = "fits what is published of our-chip; NOT CHECKED, no limit published: synaptic delay"
    assert words in command(*run, "--chip-file", CHIP).replace("\n", " ")
    limits = {limit.name: limit for limit in load(tmp_path / "run").placement.limits}
    assert (limits["neurons per core"].max, limits["neurons per core"].evidence) == (512, "declared")
    assert limits["input axons per core"].source == "the mapper refused the 2,049th on board 3 (invented)"
    assert limits["synaptic delay"].max is None
    for name in ("report.md", "report.html"):
        assert words in (tmp_path / "run" / name).read_text()
    assert "limits of our-chip: no such chip here; name its file (--chip-file)" in command("check", tmp_path / "run")
    assert "checked: run.json: 5 limits of our-chip" in command("check", tmp_path / "run", "--chip-file", CHIP)
    (tmp_path / "other.yaml").write_text(CHIP.read_text().replace("value: 512,", "value: 600,"))
    assert "neurons per core: limit 512, our-chip has 600" in command(
        "check", tmp_path / "run", "--chip-file", tmp_path / "other.yaml", code=2
    )
    again = command(*run, "--chip-file", tmp_path / "other.yaml", "--resume", code=2)
    assert "begun with chip_limits" in again
    (tmp_path / "known.yaml").write_text(CHIP.read_text().replace("name: our-chip", "name: loihi2"))
    taken = command(*run, "--chip-file", tmp_path / "known.yaml", "--overwrite", code=2)
    assert "a chip named 'loihi2' exists already" in taken


def test_a_run_that_exceeds_its_chip_says_so(command, model, tmp_path):
    text = command("run", model, "--data", "synthetic", "--limit", 2, "--backend", "emulator", "--chip", "truenorth",
                   "-o", tmp_path / "run")  # fmt: skip
    assert "exceeds truenorth: " in text
    violations = load(tmp_path / "run").placement.violations
    assert any("decay dv (2048) exceeds limit (0) of truenorth" in line for line in violations)
    assert (tmp_path / "run" / "report.html").read_text().count("exceeds limit (0) of truenorth") >= len(
        [line for line in violations if "exceeds limit (0) of truenorth" in line]
    )
    assert f"{len(violations) - 3:,} more" in text.replace("\n", " ")


@pytest.mark.parametrize("name", ["compare-chip", "beside"])
def test_compare_chip_writes_a_template_for_the_run(command, run, tmp_path, name):
    """`beside` is its former name."""
    command(name, run, "--template", tmp_path / "counts.yaml")
    assert "mksgn.chip_counts/1" in (tmp_path / "counts.yaml").read_text()
    assert "--template" in command(name, run, code=2)
    assert "compare-chip" in command("--help")
    assert "beside" not in command("--help")


@pytest.mark.slow
def test_sweep_prints_the_front(command, model, tmp_path):
    grid = (
        GRID.replace("limit: 12", "limit: 8")
        .replace("[2, 4]", "[2]")
        .replace("loihi2, loihi1]", "loihi2, our-chip]")
        .replace("tiny: model.pt", f"tiny: {model.parent}/model.pt")
    )
    (tmp_path / "grid.yaml").write_text(grid)
    text = command("sweep", tmp_path / "grid.yaml", "--workers", 1, "-o", tmp_path / "sweep", "--chip-file", CHIP)
    assert "NOT CHECKED, no limit published: synaptic delay" in text.replace("\n", " ")
    assert "accuracy and energy under horowitz45-fp32" in text
    assert "* tiny-S2-th1" in text
    assert "pareto-davies2018-loihi1.png" in text
    assert "holds a finished sweep" in command(
        "sweep", tmp_path / "grid.yaml", "-o", tmp_path / "sweep", "--chip-file", CHIP, code=2
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("run", "absent.nir", "--data", "synthetic"), "absent.nir"),
        (
            ("run", "absent.nir", "--data", "synthetic", "--backend", "chip"),
            "'--backend': 'chip': choose one of emulator, lava",
        ),
        (("report", "absent"), "absent"),
        (("check", "absent"), "absent: no such folder"),
        (("compare", "absent", "absent"), "absent"),
        (("sweep", "absent.yaml"), "absent.yaml"),
        (("run", "net.nir", "--data", "synthetic", "--energy-model", "absent.yaml"), "absent.yaml"),
        (
            ("run", "absent.nir", "--data", "synthetic", "--energy-model", "absent.yaml"),
            "absent.nir: no such file; make one",
        ),
    ],
)
def test_what_is_wrong_is_one_line(command, tmp_path, monkeypatch, arguments, fault):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.nir").touch()
    text = command(*arguments, code=2)
    assert fault in text
    assert text.count("\n") == 1


def test_without_the_packages_of_an_extra_all_but_its_commands_work(command, model, run, tmp_path, monkeypatch):
    for module in ("jinja2", "matplotlib", "PIL", "distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    out = tmp_path / "plain"
    text = command("run", model, "--data", "synthetic", "--limit", 12, "--backend", "emulator", "-o", out)
    assert "no report: a report needs jinja2" in text
    assert "pip install 'mksgn[report]'" in text
    assert "report: " not in text.replace("no report: ", "")
    assert not list(out.glob("report.*"))
    assert "finished already" in command(
        "run", model, "--data", "synthetic", "--limit", 12, "--backend", "emulator", "--resume", "-o", out
    )
    command("check", out)
    assert "all counts, spikes per neuron and predictions are equal" in " ".join(
        command("compare", run, out, "--identical").split()
    )
    for arguments, extra in ((("report", out), "report"), (("sweep", "grid.yaml"), "sweep")):
        text = command(*arguments, code=2)
        assert f"pip install 'mksgn[{extra}]'" in text
        assert text.count("\n") == 1
    monkeypatch.undo()
    write_reports(out)
    command("check", out)  # the manifest vouches for reports written later


def test_folders_and_files_of_names_that_are_no_utf_8(command, run, tmp_path):
    folder = tmp_path / os.fsdecode(b"r\xff")
    shutil.copytree(run, folder)
    command("report", folder)
    command("check", folder)
    for words, name in (
        (("compare", folder, folder, "--markdown"), b"\xff.md"),
        (("compare-chip", folder, "--template"), b"\xff.yaml"),
        (("nir-data", folder, "-o"), b"\xff.h5"),
    ):
        command(*words, tmp_path / os.fsdecode(name))
        assert (tmp_path / os.fsdecode(name)).stat().st_size > 100
