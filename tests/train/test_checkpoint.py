"""model.pt: what is saved comes back, and a file that is anything else is refused without running
it."""

import hashlib
import io
import os
import pickle
import zipfile
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train import checkpoint
from mksgn.train.checkpoint import (
    SCHEMA,
    Quantization,
    TrainedModel,
    load,
    save,
    save_atomically,
    sha256,
    tool_versions,
)
from mksgn.train.datasets import synthetic
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.transforms import body_inputs
from tests.support.damaged_archives import damage_settings, edited
from tests.support.refusals import read_or_refused

CLIPS = synthetic.read(4, "train").clips


@pytest.fixture(scope="module")
def model():
    """A tiny student that has seen one batch, so that nothing in it is still at its first value."""
    torch.manual_seed(0)
    config = StudentConfig("ntu-25", synthetic.CLASSES, frames=4, stream_channels=2, widths=(4,), heads=2, kernel=3)
    student, normaliser = Student(config), StreamNormaliser.fit(CLIPS, 4)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the one batch is all that it remembers
    with torch.no_grad():
        student.train()(torch.from_numpy(body_inputs(CLIPS, normaliser)[0]))
    return TrainedModel(student.eval(), normaliser, {"seed": 3, "split": "synthetic"})


@pytest.fixture
def path(model, tmp_path):
    save(model, tmp_path / "model.pt")
    return tmp_path / "model.pt"


def logits(model):
    with torch.no_grad():
        return model.student(torch.from_numpy(body_inputs(CLIPS, model.normaliser)[0]))


def refused(path):
    """The message with which it is refused."""
    with pytest.raises(BadInputError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) - len(str(path)) < 400
    return message


def test_a_model_comes_back_as_it_was(model, path):
    again = load(str(path))
    assert torch.equal(logits(again), logits(model))
    assert logits(model).std(0).max() > 0
    assert again.student.config == model.student.config
    assert again.normaliser == model.normaliser
    assert again.training == {"seed": 3, "split": "synthetic"}
    assert not again.student.training
    state = model.student.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.student.state_dict().items())
    assert bool(again.student.sgc[0].attention.initialised)


def test_a_model_that_is_saved_again_is_the_same(model, path, tmp_path):
    save(load(path), tmp_path / "again.pt")
    assert torch.equal(logits(load(tmp_path / "again.pt")), logits(model))


def test_the_file_holds_plain_containers_and_tensors_only(path):
    values = torch.load(path, weights_only=True)
    assert set(values) == {"schema", "config", "normaliser", "state", "training", "versions"}
    assert values["schema"] == SCHEMA == "mksgn.model/1"
    assert {"python", "torch", "numpy"} <= set(values["versions"])

    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(inner) for key, inner in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or isinstance(value, (str, int, float, bool, torch.Tensor))

    assert all(plain(value) for value in values.values())


def test_saving_leaves_no_part_and_replaces_what_was_there(path, tmp_path):
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]
    save_atomically({"schema": "other"}, path)
    assert torch.load(path, weights_only=True) == {"schema": "other"}
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_a_save_that_is_cut_off_leaves_the_old_file(model, path, monkeypatch):
    def broken(values, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save(TrainedModel(model.student, model.normaliser, {"seed": 4}), path)
    monkeypatch.undo()
    assert load(path).training["seed"] == 3


def test_sha256_and_versions(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * (1 << 20) + b"y")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"x" * (1 << 20) + b"y").hexdigest()
    assert tool_versions("torch", "no-such-package").keys() == {"python", "torch"}


# what is refused


class Bomb:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (str(self.target),))


@pytest.mark.parametrize("form", ["torch", "torch-legacy", "pickle", "inside"])
def test_a_pickle_bomb_is_refused_and_does_not_go_off(model, path, tmp_path, form):
    target = tmp_path / "made-by-the-bomb"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Bomb(target)))
    elif form == "inside":  # a whole model, with the bomb among its facts
        save(TrainedModel(model.student, model.normaliser, {"seed": Bomb(target)}), path)
    else:
        torch.save({"schema": SCHEMA, "state": Bomb(target)}, path, _use_new_zipfile_serialization=form == "torch")
    assert "weights_only" in refused(path)
    assert not target.exists()
    if form == "pickle":  # the bomb is a real one
        pickle.loads(path.read_bytes())
        assert target.exists()


def test_a_truncated_file_is_refused(path):
    whole = path.read_bytes()
    for length in (1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "refused" in refused(path)


@pytest.mark.parametrize("content", [b"\x00" * 64, b"PK\x03\x04", b"epochs: 3\n", b"\x80\x02", bytes(range(256)) * 8])
def test_a_foreign_file_is_refused(path, content):
    path.write_bytes(content)
    assert "use a model.pt written by mksgn-train" in refused(path)


def test_an_empty_file_is_named_so(path):
    path.write_bytes(b"")
    assert "is empty, 0 bytes" in refused(path)


@pytest.mark.parametrize("said", ["first line\nsecond line\n\nadvice", "", "\n"])
def test_whatever_torch_says_becomes_one_line(path, monkeypatch, said):
    def load_of_another_version(*args, **kwargs):
        raise RuntimeError(said)

    monkeypatch.setattr(checkpoint.torch, "load", load_of_another_version)
    assert ("first line" if said.strip() else "RuntimeError") in refused(path)


def test_another_zip_is_refused(path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"nothing")
    path.write_bytes(buffer.getvalue())
    assert "refused" in refused(path)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"schema": "mksgn.model/0"}, "'mksgn.model/0', this version reads"),
        ({"schema": "mksgn.teacher/1"}, "'mksgn.teacher/1', expected"),
        ({"state": {}}, "None, this version reads"),
        ({"weight": torch.zeros(2)}, "None, this version reads"),
        ([1, 2], "None, this version reads"),
        (torch.zeros(2), "None, this version reads"),
    ],
)
def test_a_file_of_another_schema_is_refused(path, values, found):
    torch.save(values, path)
    assert f"schema is {found} 'mksgn.model/1'; " in refused(path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("config"),
        lambda values: values.pop("state"),
        lambda values: values.pop("normaliser"),
        lambda values: values["config"].pop("graph"),
        lambda values: values["config"].update(graph="coco-17"),
        lambda values: values["config"].update(widths=[8]),
        lambda values: values["config"].update(colour="red"),
        lambda values: values["config"].update(frames="many"),
        lambda values: values["state"].pop("fc.weight"),
        lambda values: values["state"].update(extra=torch.zeros(1)),
        lambda values: values["normaliser"].pop("units"),
        lambda values: values["normaliser"]["units"].update(bone=-1.0),
        lambda values: values.update(config=None),
        lambda values: values.update(state=None),
        lambda values: values.update(normaliser=None),
        lambda values: values["normaliser"].update(frames=-1),
        lambda values: values["normaliser"].update(frames=4.5),
        lambda values: values["normaliser"].update(frames=10**9),
        lambda values: values["normaliser"].update(graph="coco-17"),
        lambda values: values["normaliser"].update(lattice_exponent=-1000),
        lambda values: values["normaliser"]["units"].update(bone=1e-300),
        lambda values: values["state"].update({"fc.weight": values["state"]["fc.weight"].double()}),
        lambda values: values["state"].update({"fc.weight": values["state"]["fc.weight"].T.contiguous()}),
        lambda values: values["state"].update({"fc.weight": 1.0}),
        lambda values: values["state"]["fc.weight"].view(-1)[:1].fill_(float("nan")),
        lambda values: values["state"]["fc.weight"].view(-1)[:1].fill_(float("inf")),
        lambda values: values["config"].update(widths=[4096] * 20),
        lambda values: values["config"].update(frames=10**9),
        lambda values: values["config"].update(streams=[["joint"]]),
        lambda values: values.update(config={1: 2}),
        lambda values: values.update(training=[1]),
        lambda values: values.update(training={"loss": float("nan")}),
        lambda values: values.update(training={"split": 3}),
        lambda values: values.update(training={"teacher": torch.zeros(2)}),
        lambda values: values.update(training={1: "x"}),
        lambda values: values.update(versions=torch.zeros(2)),
    ],
)
def test_a_damaged_model_is_refused(path, damage):
    values = torch.load(path, weights_only=True)
    damage(values)
    torch.save(values, path)
    assert "incomplete or damaged model" in refused(path)


def test_another_normaliser_than_the_network_s_is_refused(path):
    values = torch.load(path, weights_only=True)
    values["normaliser"]["frames"] = 8
    torch.save(values, path)
    assert "a normaliser of ('ntu-25', 8) for a network of ('ntu-25', 4)" in refused(path)


@pytest.mark.filterwarnings("error")  # torch casts complex weights to real ones with a warning only
def test_complex_weights_are_refused(path):
    values = torch.load(path, weights_only=True)
    values["state"]["fc.weight"] = values["state"]["fc.weight"].to(torch.complex64)
    torch.save(values, path)
    assert "it names 'torch.ComplexFloatStorage'" in refused(path)


TENSORS = st.sampled_from(
    [torch.zeros(2), torch.zeros(0), torch.tensor(float("nan")), torch.zeros(2, dtype=torch.long), torch.ones(3, 3).T]
)


@damage_settings(100, 10)
@given(st.data())
def test_any_edit_of_a_model_is_read_or_refused(path, data):
    values = torch.load(path, weights_only=True)
    torch.save(data.draw(edited(values, TENSORS)), path)
    read_or_refused(lambda: load(path))
    save_atomically(values, path)


@pytest.fixture
def quantised(model, path):
    """The file of a student that was trained for 4 bits."""
    scales = dict.fromkeys([*model.student.neurons(), "readout"], 12.5)
    save(replace(model, quantization=Quantization(4, scales, {"smf_conv": 3})), path)
    return path


def test_bits_and_scales_come_back(quantised, model):
    scales = dict.fromkeys([*model.student.neurons(), "readout"], 12.5)
    assert load(quantised).quantization == Quantization(4, scales, {"smf_conv": 3})
    values = torch.load(quantised, weights_only=True)
    assert values["quantization"]["scales"]["ssc"] == 12.5
    del values["quantization"]["exponents"]  # a model.pt that has none: its weights are those of one scale
    torch.save(values, quantised)
    assert load(quantised).quantization == Quantization(4, scales, {})


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry.update(bits=9),
        lambda entry: entry.pop("bits"),
        lambda entry: entry["scales"].pop("ssc"),
        lambda entry: entry["scales"].update(other=1.0),
        lambda entry: entry["scales"].update(ssc=0.0),
        lambda entry: entry["scales"].update(ssc=float("inf")),
        lambda entry: entry.update(scales=None),
        lambda entry: entry["exponents"].update(smf_conv=7),
        lambda entry: entry["exponents"].update(smf_conv=-1),
        lambda entry: entry["exponents"].update(smf_conv=0.5),
    ],
)
def test_damaged_bits_and_scales_are_refused(quantised, damage):
    values = torch.load(quantised, weights_only=True)
    damage(values["quantization"])
    torch.save(values, quantised)
    assert "incomplete or damaged model (quantization" in refused(quantised)


def test_a_missing_file_is_refused_with_the_remedy(tmp_path):
    assert "no such file; make one with mksgn-train" in refused(tmp_path / "absent.pt")
    assert "is a directory; make one with mksgn-train" in refused(tmp_path)
