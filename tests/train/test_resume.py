"""The folder of a training: what is written after an epoch, and what is restored or refused."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train import resume
from mksgn.train.resume import TrainingFolder, weights_digest
from tests.support.damaged_archives import damage_settings, edited
from tests.support.refusals import read_or_refused, refusal


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
        BadInputError, match=r"state.pt: belongs to another training \(batch 4 → 8; seed 0 → 1\); use the same"
    ):
        folder({"batch": 8, "seed": 1}).restore()
    training.state.write_bytes(b"no state")
    with pytest.raises(
        BadInputError, match=r"state.pt: refused: not a file of plain tensors .* start over with --overwrite"
    ):
        folder().restore()


def restorable(folder) -> dict:
    """Keep a training of one step, and return what its state.pt holds."""
    training = folder()
    training.start([], {})
    step(training)
    training.keep([{"epoch": 1, "loss": 0.5}])
    return torch.load(training.state, weights_only=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda saved: saved["objective"].pop("bias"), "objective: 'bias' is missing"),
        (lambda saved: saved["objective"]["weight"].fill_(float("nan")), "objective.weight has values that are not"),
        (
            lambda saved: saved["optimizer"]["state"].update({7: {}}),
            "has moments of parameter 7, but there are 2 parameters",
        ),
        (lambda saved: saved["optimizer"]["state"][0].pop("exp_avg"), "optimizer.state.0: 'exp_avg' is missing"),
        (lambda saved: saved["optimizer"]["state"][0].update(exp_avg=torch.zeros(1)), "float32 of shape (1,)"),
        (lambda saved: saved["optimizer"]["param_groups"][0].update(lr="fast"), "lr is of type str, expected of"),
        (lambda saved: saved["optimizer"]["param_groups"][0].update(lr=float("inf")), "lr is inf"),
        (lambda saved: saved.update(optimizer=[]), "optimizer is of type list, expected a dictionary"),
        (lambda saved: saved.update(settings="[]"), "settings: expected a dictionary"),
        (lambda saved: saved.update(settings="[" * 100_000), "cannot be resumed"),
        (lambda saved: saved.update(settings=3), "cannot be resumed"),
        (lambda saved: saved.update(metrics={}), "metrics is of type dict, expected a list"),
        (lambda saved: saved.update(metrics=[{"epoch": 2}]), "line 1 is not of epoch 1"),
        (lambda saved: saved["metrics"][0].update(loss=float("nan")), "metrics.0.loss is nan"),
    ],
)
def test_a_state_of_other_types_and_shapes_is_refused(folder, change, message):
    saved = restorable(folder)
    change(saved)
    torch.save(saved, folder().state)
    found = refusal(folder().restore)
    assert message in found
    assert found.endswith("start over with --overwrite instead of --resume")


@damage_settings(100, 10)
@given(st.data())
def test_any_edit_of_a_state_is_restored_or_refused(folder, data):
    saved = restorable(folder)
    torch.save(data.draw(edited(saved)), folder().state)
    read_or_refused(folder().restore)
