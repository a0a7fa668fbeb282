"""The table of accuracies at few bits: real trainings, resumed and not repeated."""

import re
import sys

import pytest

from mksgn.export import low_bits
from mksgn.train import checkpoint
from mksgn.train.datasets import synthetic
from tests.support.students import tiny


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(synthetic.DEFAULT_LIMIT, "train", 24)
    monkeypatch.setitem(synthetic.DEFAULT_LIMIT, "test", 12)
    model, _ = tiny(attention="none")
    model.training["preset"] = "demo"
    checkpoint.save(model, tmp_path / "model.pt")

    def with_options(*options):
        monkeypatch.setattr(sys, "argv", ["low_bits", str(tmp_path / "model.pt"), *options])
        with pytest.raises(SystemExit) as caught:
            low_bits.main()
        return caught.value.code, *capsys.readouterr()

    return with_options


@pytest.mark.slow
def test_a_row_per_width_whose_trainings_are_not_repeated(run, tmp_path):
    options = ("--bits", "8,3", "--epochs", "1", "--out", str(tmp_path / "low"))
    code, said, err = run(*options)
    assert (code, err) == (0, "")
    rows = [line for line in said.splitlines() if line.startswith("|")][-5:]
    assert [row.split("|")[1].strip() for row in rows] == ["bits", "---", "float", "8", "3"]
    assert all(re.fullmatch(r"(\| \d+\.\d% ){4}\|", row[row.index("|", 1) :]) for row in rows[3:])
    trained = checkpoint.load(tmp_path / "low" / "3-bit" / "model.pt")
    assert trained.quantization.bits == 3
    assert f"{trained.training['held_out_top1']:.1%}" in rows[4]
    before = (tmp_path / "low" / "3-bit" / "state.pt").stat().st_mtime_ns
    assert run(*options)[1] == said
    assert (tmp_path / "low" / "3-bit" / "state.pt").stat().st_mtime_ns == before


def test_other_widths_are_refused(run):
    assert run("--bits", "8,16")[::2] == (
        2,
        "mksgn.export.low_bits: --bits 8,16: expected widths from 2 to 8, such as 8,4,2\n",
    )
