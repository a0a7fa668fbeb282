"""The programs of examples/ as a reader starts them, and what each is meant to print and to leave.

README.md runs the first two (tests/test_docs.py), tests/test_examples.py the others.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from mksgn.bench import load
from mksgn.deploy.backends import lava_installed
from tests.support.paths import EXAMPLES, ROOT


def python(folder: Path, *arguments: object) -> str:
    """Run Python in a folder with the package on its path; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run(program: str, folder: Path) -> None:
    """Run examples/….py in a folder as a process of its own, and check it."""
    CHECKS[program](python(folder, ROOT / program), folder / "runs")


def own_network(printed: str, runs: Path) -> None:
    """Right in torch, in float, in eight bits, and in Lava where it is."""
    top1 = {
        name: float(value) for name, value in re.findall(r"^(torch|float|fixed|Lava) ([0-9.]+)%", printed, re.MULTILINE)
    }
    assert top1["torch"] == top1["float"] > 90
    assert abs(top1["fixed"] - top1["float"]) < 2
    assert top1.get("Lava", top1["fixed"]) == top1["fixed"]
    assert ("Lava" in top1) == lava_installed()
    record = load(runs / "own_network" / "fixed")
    assert record.execution.compiling == {"analog": ["input"]}
    # a decay of 7/8 is truncated at every step on the chip, and not in the reference
    assert record.parity.mismatches == record.parity.rounding < 100
    assert {path.name for path in (runs / "own_network").iterdir()} == {"fixed", "net.nir", "samples.npz"}


def mksgn_clips(printed: str, runs: Path) -> None:
    """Recognises the synthetic actions in integers."""
    assert (EXAMPLES / "demo" / "model.pt").stat().st_size < 1_000_000
    record = load(runs / "mksgn_clips")
    assert record.accuracy.top1 >= 0.95
    assert record.parity.mismatches == 0
    assert record.totals.syn_ops == 2805831.7
    assert "0 of 10,352,000 decisions differ from torch" in printed
    has_lava = lava_installed()
    assert ("Lava: 0 of 20,704,000 decisions differ from emulator, torch" in printed) == has_lava


def own_chip(printed: str, runs: Path) -> None:
    """The network is placed, priced and timed on the chip of one's own."""
    record = load(runs / "own_chip")
    assert record.placement.chip == "our-chip"
    assert record.placement.fit.unchecked == ("synaptic delay",)
    (timing,) = (each for each in record.timing if each.model == "our-chip-clock")
    assert (timing.chip, timing.placements[0].cores) == ("our-chip", record.placement.cores)
    energy = next(each for each in record.energy if each.model == "our-chip-a0-slopes")
    assert f"{energy.total_mJ:.6f} mJ per clip" in printed
    assert f"{record.placement.cores} cores on {record.placement.chips} chips" in printed


CHECKS = {
    "examples/own_network.py": own_network,
    "examples/mksgn_clips.py": mksgn_clips,
    "examples/own_chip/place.py": own_chip,
}
