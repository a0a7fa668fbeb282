"""scripts/soak.py at small size: nothing found where all holds, and a finding where something is left or differs."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("psutil")

from mksgn.deploy import run
from scripts import soak
from tests.support.bench_runs import student_files


def test_threads_and_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "soak.json"
    monkeypatch.setattr(sys, "argv", ["soak", "threads", "--runs", "5", "--json", str(path)])
    with pytest.raises(SystemExit) as ended:
        soak.main()
    assert ended.value.code == 0
    figures = json.loads(path.read_text())["results"]["threads"]
    assert figures["findings"] == []
    assert figures["decisions that differ"] == 0 < figures["decisions"]
    assert f"| threads | decisions | {figures['decisions']:,} |" in capsys.readouterr().out


def test_what_differs_is_counted() -> None:
    _, program = next(soak.networks())
    wanted = run(program, soak.inputs_of(program, 0))
    found = copy.deepcopy(wanted)
    name, train = next(iter(found.spikes.items()))
    train[0] = ~train[0]
    found.counters[name].per_neuron += 1
    total = sum(x.size for x in (*wanted.spikes.values(), *wanted.outputs.values()))
    assert soak.differing(wanted, wanted) == (total, 0)
    assert soak.differing(found, wanted) == (total, train[0].size + 1)


def test_what_is_left_is_a_finding() -> None:
    now = soak.held()
    first = now | {"descriptors": now["descriptors"] - 1, "rss_mib": now["rss_mib"] - 2 * soak.GROWTH_MIB}
    assert soak.soaked(13, 100, 0, [], now | {"rss_mib": np.inf}, 1.0)["findings"] == []
    findings = soak.soaked(13, 100, 1, ["start 3, resets: OSError: full"], first, 1.0)["findings"]
    assert findings == ["rss_mib grew", "descriptors grew", "start 3, resets: OSError: full", "spikes differ"]


@pytest.mark.slow
@pytest.mark.serial
def test_starts_and_stops_of_lava(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    monkeypatch.setattr(soak, "WARM_UP", 4)
    figures = soak.soak_lava(0.0, lambda figures: None)
    assert set(figures["findings"]) <= {"rss_mib grew"}  # which five starts do not tell
    assert figures["starts"] == 5
    assert figures["decisions"] > 0


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A smaller network than the demo's: two processes beside each other are tested, and not what they compute."""
    monkeypatch.setattr(soak, "DEMO", student_files(tmp_path).with_name("model.pt"))


@pytest.mark.slow
def test_clips_take_no_memory() -> None:
    assert soak.many_clips(40)["findings"] == []


@pytest.mark.slow
def test_two_demos_side_by_side(small_demo) -> None:
    assert soak.side_by_side(3, "emulator")["findings"] == []
