"""What the commands print, whatever the width of their terminal; and --json and --quiet of each.

The tables at 80 and 60 columns have the rows of those at 140: no line is longer, and no name is cut.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from mksgn.bench.record_io import load
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.bench.sweep import pareto
from mksgn.common.console import output
from mksgn.train.datasets import open_source
from tests.support.bench_runs import student_files
from tests.support.chip_readings import ENERGY, counts
from tests.support.printed_tables import first_cells, tables_of

WIDTHS = (80, 60)
SYNTHETIC = ("--data", "synthetic", "--limit", 4, "--backend", "emulator")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return student_files(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory) -> list[Path]:
    """Folders of two runs that differ."""
    folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    for folder, seed in zip(folders, (0, 1), strict=True):
        bench(model, open_source("synthetic", part="test", limit=4, seed=seed), folder, Settings(), seed=seed)
    return folders


@pytest.fixture
def fits(run_command, monkeypatch):
    """Run a command at 140 columns and at narrower widths, and compare."""

    def check(*arguments):
        monkeypatch.setattr(output, "_width", 140)
        wide = tables_of(run_command(*arguments).out)
        assert wide
        for width in WIDTHS:
            monkeypatch.setattr(output, "_width", width)
            text = run_command(*arguments).out
            paths = ("wrote ", "report: ")  # stay in one line
            assert not [line for line in text.splitlines() if len(line.rstrip()) > width and not line.startswith(paths)]
            assert {names(part) for part in tables_of(text)} == {names(part) for part in wide}

    return check


def names(part: list[str]) -> str:
    """The first column, in however many lines its names are."""
    return "".join("".join(first_cells(part)).split())


def test_tables_of_train_and_export_fit(fits, model):
    fits("train", model.with_name("model.pt"), "--describe", "--limit", 2)
    fits("train", "demo", "--describe", "--limit", 2, "--teacher")
    fits(
        "export", model.with_name("model.pt"), "--calibration", "synthetic", "--verify", 2, "-o", model.parent / "x.nir"
    )


def test_tables_of_deploy_fit(fits, model):
    fits("deploy", model, "--describe", "--check")
    fits("deploy", model, "--describe", *SYNTHETIC)


def test_tables_of_the_bench_fit(fits, model, runs, tmp_path):
    fits("bench", "run", model, *SYNTHETIC, "--resume", "-o", tmp_path / "run")
    fits("bench", "compare", *runs)
    record = load(runs[0])
    taken = {"count": record.data.clips, "source": "synthetic", "split": record.data.split}
    (tmp_path / "counts.yaml").write_text(counts(record, clips=taken, energy=ENERGY).model_dump_json(by_alias=True))
    fits("bench", "compare-chip", runs[0], tmp_path / "counts.yaml", "--all")


def test_the_table_of_recordings_fits(fits, run_command, runs, tmp_path):
    run_command("bench", "nir-data", runs[0], "-o", tmp_path / "one.h5")
    fits("bench", "compare", tmp_path / "one.h5", runs[0])


@pytest.mark.parametrize("width", WIDTHS)
def test_the_front_of_a_sweep_fits(monkeypatch, capsys, width):
    labels = [f"network-{kind}_steps-4_threshold-1.2_bits-8_loihi{i}" for kind in ("small", "large") for i in (1, 2)]
    energy = {"e": pareto.Energy(0.00123, True)}
    points = [
        pareto.Row(label, "m", 4, 1.2, 8, "loihi2", 0.5, 1e6, 2e7, 55, 3000, 1, 0, energy, fit="not checked")
        for label in labels
    ]
    monkeypatch.setattr(output, "_width", width)
    output.print(pareto.front_table(points, "e"))
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    folded = "".join(line.split("│")[1].strip(" *") for line in lines if line.startswith("│"))
    assert all(label in folded for label in labels)


def test_a_run_as_json_is_its_run_json(run_command, model, tmp_path):
    printed = run_command("bench", "run", model, *SYNTHETIC, "-o", tmp_path / "run", "--json")
    assert json.loads(printed.out) == json.loads((tmp_path / "run" / "run.json").read_text())
    assert "running 4 clips on emulator" in printed.err
    assert "┏" not in printed.err


def test_a_check_as_json_lists_the_findings(run_command, model, runs, tmp_path):
    found = json.loads(run_command("bench", "check", runs[0], "--near", model.parent, "--json").out)
    assert found["schema"] == "mksgn.check/1"
    assert (found["passed"], found["faults"]) == (True, [])
    assert any("run.json: its schema" in what for what in found["checked"])
    for path in runs[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "report.md").write_text("changed")
    printed = run_command("bench", "check", tmp_path, "--json", code=2)
    found = json.loads(printed.out)
    assert not found["passed"]
    assert [fault["where"] for fault in found["faults"]] == ["report.md"]
    assert "report.md: changed since the run" in printed.err


def test_a_description_of_a_config_as_json(run_command):
    printed = run_command("train", "demo", "--describe", "--limit", 2, "--json")
    described = json.loads(printed.out)
    (network,) = described["networks"]
    assert described["schema"] == "mksgn.description/1"
    assert (network["name"], network["trained"], network["data"]["clips"]) == ("demo", False, 2)
    assert network["parameters"] == sum(layer["parameters"] for layer in network["layers"])
    first, *_, last = network["layers"]
    assert (first["name"], last["name"], last["firing_rate"]) == ("ssc", "readout", None)
    assert 0 < first["firing_rate"] < 1
    run_command("train", "demo", "--json", code=2)


def test_a_description_of_a_program_as_json(run_command, model, runs):
    described = json.loads(run_command("deploy", model, "--describe", "--json").out)
    record = load(runs[0])
    assert described["schema"] == "mksgn.program/1"
    assert described["model"] == {"file": model.name, "sha256": record.model.sha256}
    assert described["execution"]["steps"] == record.execution.steps
    places = {layer["name"]: (layer["place"], layer["neurons"]) for layer in described["layers"]}
    for layer in record.layers:
        assert places[layer.name] == (layer.place, layer.neurons)
    assert all(layer["window"] is not None and np.prod(layer["shape"]) for layer in described["layers"])
    assert "give both" in run_command("deploy", model, "--json", code=2).err


def test_quiet_prints_the_path_of_the_result_alone(run_command, model, runs, tmp_path):
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text("student: {frames: 4, stream_channels: 2, widths: [4], heads: 2, kernel: 3}\nepochs: 1\nbatch: 4\n")
    trained, file, run, spikes = (tmp_path / name for name in ("trained", "x.nir", "run", "spikes"))
    calls = [
        (("train", tiny, "--limit", 8, "--out", trained), trained / "model.pt"),
        (("export", model.with_name("model.pt"), "--calibration", "synthetic", "-o", file), file),
        (("deploy", file, *SYNTHETIC, "-o", spikes), spikes),
        (("bench", "run", file, *SYNTHETIC, "-o", run), run),
        (("bench", "nir-data", run, "-o", tmp_path / "x.h5"), tmp_path / "x.h5"),
    ]
    for arguments, path in calls:
        assert run_command(*arguments, "-q") == (f"{path}\n", "")
    assert run_command("bench", "check", runs[0], "--near", model.parent, "-q") == ("", "")
    assert run_command("bench", "compare", runs[0], runs[0], "--identical", "-q") == ("", "")
    assert run_command("bench", "report", run, "-q").out.splitlines() == [
        f"{run / 'report.html'}",
        f"{run / 'report.md'}",
    ]
