"""What every error of ours shows, whichever names of files and populations are in it."""

from pathlib import Path

import pytest

from mksgn.bench.errors import BoundMissedError, FaultyRecordError
from mksgn.common.errors import BadInputError, without_path
from mksgn.deploy.errors import ChipLimitError
from mksgn.deploy.lava.guard.errors import LavaRuntimeError


@pytest.mark.parametrize("kind", [BadInputError, LavaRuntimeError])
def test_a_name_ends_no_line(kind):
    assert str(kind("\x1b[2J\nmodel: 2 clips, expected 4")) == "\\x1b[2J\\nmodel: 2 clips, expected 4"


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (ChipLimitError("2 limits\n", ["\x1b[2Jneurons\nforged", "axons"]), ["2 limits\\n", "\\x1b[2Jneurons\\nforged", "axons"]),
        (FaultyRecordError("runs/a\nb", ["layer x\ny: spikes"]), ["runs/a\\nb: 1 fault", "  layer x\\ny: spikes"]),
        (BoundMissedError("runs/a", ["accuracy"]), ["runs/a: 1 bound missed", "  accuracy"]),
    ],
)  # fmt: skip
def test_a_list_of_faults_has_a_line_of_each(error, lines):
    assert str(error).split("\n") == lines


def test_a_path_in_front_is_dropped_whatever_is_in_it():
    path = Path("runs/a\tb/run.json")
    assert without_path(BadInputError(f"{path}: no such file"), path) == "no such file"
