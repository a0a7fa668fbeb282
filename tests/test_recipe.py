"""scripts/recipe.sh, the whole way from clips to a checked run by one command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RECIPE = ROOT / "scripts" / "recipe.sh"


def recipe(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [RECIPE, *arguments],
        env={**os.environ, "PATH": path, "CLIPS": "4"},
        capture_output=True,
        text=True,
        timeout=220,
    )


def test_without_arguments_it_says_what_it_takes() -> None:
    done = recipe()
    assert done.returncode == 2
    assert done.stderr.startswith("recipe.sh PRESET SOURCE SPLIT DIRECTORY")


@pytest.mark.slow
def test_from_clips_to_a_checked_run_and_again(tmp_path: Path) -> None:
    given = ("demo", "synthetic", "-", str(tmp_path), "--epochs", "1", "--limit", "24")
    first = recipe(*given)
    assert first.returncode == 0, first.stdout + first.stderr
    record = (tmp_path / "run" / "run.json").read_bytes()
    second = recipe(*given)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "finished already" in second.stdout
    assert (tmp_path / "run" / "run.json").read_bytes() == record
