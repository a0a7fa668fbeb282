"""The folder of a training: what is written after an epoch, and what is restored or refused."""

import json

import pytest
import torch

from mksgn.common.errors import BadInputError
from mksgn.train import resume
from mksgn.train.resume import TrainingFolder, weights_digest


@pytest.fixture
def folder(tmp_path):
    def make(settings=None):
        module = torch.nn.Linear(3, 2)
        parts = {"objective": module, "optimizer": torch.optim.AdamW(module.parameters(), lr=0.1)}
        return TrainingFolder(tmp_path / "model.pt", json.dumps(settings or {"batch": 4, "seed": 0}), parts)

    return make


def step(folder):
    module, optimizer = folder.parts.values()
    optimizer.zero_grad()
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()


def test_nothing_is_restored_from_an_empty_folder(folder):
    assert folder().restore() == []


def test_a_restored_training_continues_bitwise(folder):
    whole, lines = folder(), [{"epoch": 1, "loss": 0.5}]
    whole.start([], {"batch": 4})
    step(whole)
    whole.keep(lines)
    resumed = folder()
    assert resumed.restore() == lines
    for training in (whole, resumed):
        step(training)
    assert weights_digest(whole.parts["objective"]) == weights_digest(resumed.parts["objective"])
    assert json.loads((whole.product.parent / "config.json").read_text()) == {"batch": 4}


def test_a_line_without_its_state_is_dropped(folder, monkeypatch):
    """A training killed between the two repeats the epoch."""
    training = folder()
    training.start([], {})
    training.keep([{"epoch": 1}])
    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_atomically", lambda values, path: None)
        training.keep([{"epoch": 1}, {"epoch": 2}])
    assert len(training.metrics.read_text().splitlines()) == 2
    lines = folder().restore()
    training.start(lines, {})
    assert [json.loads(line) for line in training.metrics.read_text().splitlines()] == lines == [{"epoch": 1}]


def test_another_training_and_a_damaged_state_are_refused(folder):
    training = folder()
    training.start([], {})
    training.keep([{"epoch": 1}])
    with pytest.raises(
        BadInputError, match=r"state.pt: is of another training \(batch 4 → 8; seed 0 → 1\); use the same"
    ):
        folder({"batch": 8, "seed": 1}).restore()
    training.state.write_bytes(b"no state")
    with pytest.raises(
        BadInputError, match=r"state.pt: refused: not a file of plain tensors .* start over with --overwrite"
    ):
        folder().restore()
