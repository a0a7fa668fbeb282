"""docs/own-chip.md as a reader follows it: every command, in order, on the files of the repository alone."""

import importlib.util
import re
import shlex

import pytest
import yaml

from mksgn.bench.chip_counts.counts import COUNTERS
from tests.support import pages
from tests.support.paths import DOCS, EXAMPLES

PAGE = DOCS / "own-chip.md"
OWN = EXAMPLES / "own_chip"
CODES = {"compare runs/ref runs/three": 5}  # the page says so; every other command ends with 0
LAVA = ("--backend lava", "runs/lava")


def commands() -> list[str]:
    return pages.commands(PAGE)


def call(command: str) -> str:
    return pages.call(command, CODES)


def test_the_page_names_only_files_that_exist_or_that_a_command_before_wrote():
    written: set[str] = set()
    for command in commands():
        arguments = shlex.split(command)
        for path in (argument for argument in arguments if "/" in argument):
            after = arguments[arguments.index(path) - 1]
            if path.startswith("examples/"):
                assert (EXAMPLES.parent / path).exists(), command
            elif after in ("-o", "--template", "--model-file", "--markdown"):
                written |= {path, *(parent for parent in (path.rpartition("/")[0],) if parent != "runs")}
            else:
                assert path in written, command


@pytest.mark.parametrize("name", ["counts", "energy_models", "claims"])
def test_the_page_shows_the_examples_as_they_are(name):
    shown = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)]
    text = (OWN / f"{name}.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) in shown
    assert "INVENTED" in text.upper()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_of_the_page_runs_as_written(tmp_path, monkeypatch):
    """Without Lava, all but the two that compare with it; then the template is filled in and compared.

    Of the grid that the page sweeps, one of two thresholds.
    """
    pytest.importorskip("distributed", reason="sweeps need the extra mksgn[sweep]")
    pages.copy_examples(tmp_path, "own_chip/grid.yaml", threshold=[1.1])
    monkeypatch.chdir(tmp_path)
    has_lava = importlib.util.find_spec("lava") is not None
    printed = {c: call(c) for c in commands() if has_lava or not any(part in c for part in LAVA)}
    assert len(printed) >= 12
    (comparison,) = (text for command, text in printed.items() if "own_chip/counts.yaml" in command)
    assert "Look at block1_attention.z first" in comparison
    values = yaml.safe_load((tmp_path / "runs/own/counts.yaml").read_text())
    filled = yaml.safe_load((OWN / "counts.yaml").read_text())
    assert len(values["model_sha256"]) == len(values["clips"]["names_sha256"]) == 64
    values |= {name: filled[name] for name in ("chip", "board", "software", "method", "energy", "seconds_per_clip")}
    for population, readings in filled["populations"].items():
        assert set(values["populations"][population]) == set(COUNTERS)
        values["populations"][population] |= readings
    (tmp_path / "runs/own/filled.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    again = call("mksgn-bench compare-chip runs/ref runs/own/filled.yaml")
    assert [line for line in again.splitlines() if "counters are equal" in line] == [
        line for line in comparison.splitlines() if "counters are equal" in line
    ]
