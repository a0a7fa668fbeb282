"""Comparison of two runs by figure, class, layer, clip and neuron."""

import shutil

import pytest

from mksgn.bench.compare.gate import Bounds, evaluate_bounds
from mksgn.bench.compare.runs import compare, compare_folders
from mksgn.bench.manifest import load_manifest
from mksgn.common.errors import BadInputError
from tests.support.comparable_records import WORSE, record


def test_figures_classes_and_layers_are_compared():
    found = compare(
        record(), record(**WORSE, totals__spikes=330.0, layers__1__spikes=520, layers__1__max_membrane=900.0)
    )
    assert (found["accuracy"].a, found["accuracy"].b, found["accuracy"].change) == (0.75, 0.5, -0.25)
    assert found["spikes"].rise == pytest.approx(0.1)
    assert found["latency"].a == 4 + 3
    assert [(each.name, each.change) for each in found.dropped_classes] == [("sit down", -0.5)]
    (layer,) = [each for each in found.layers if not each.same]
    assert layer.name == "blocks.0.conv"
    assert (layer["spikes"].a, layer["spikes"].b) == (100, 130)  # per clip, of 400 and 520 in four clips
    assert layer["max_membrane"].change == 88
    assert not found["energy, horowitz45-fp32"].bound
    assert found["energy, davies2018-loihi1"].bound


def test_layers_are_matched_by_name():
    renamed = record(layers__1__name="blocks.0.other")
    found = compare(record(), renamed)
    assert {each.name: each.only_in for each in found.layers if each.only_in} == {
        "blocks.0.conv": "a",
        "blocks.0.other": "b",
    }


def test_another_network_on_the_same_clips_differs_layer_by_layer(runs):
    found = compare_folders(runs["first"], runs["other model"])
    assert found.other_data == ()
    assert not next(each for each in found.conditions if each.name == "model").same
    assert any(each.neurons for each in found.layers)
    predictions = [load_manifest(runs[name]).predictions for name in ("first", "other model")]
    assert found.predictions == sum(a != b for a, b in zip(*predictions, strict=True))
    assert not evaluate_bounds(found, Bounds(identical=True))[0].kept


def test_clips_are_compared_by_name(runs):
    assert compare_folders(runs["first"], runs["more"]).other_data == ("6 and 8 clips",)
    (reason,) = compare_folders(runs["first"], runs["other clips"]).other_data[:1]
    assert reason == "synthetic clips of seed 0 and 3"


def test_a_damaged_folder_is_not_compared(runs, tmp_path):
    for name in ("run.json", "spikes.npz"):
        (tmp_path / name).write_bytes((runs["first"] / name).read_bytes())
    (tmp_path / "spikes.npz").write_bytes(b"PK" + (runs["first"] / "spikes.npz").read_bytes()[2:500])
    with pytest.raises(BadInputError, match=r"has no manifest\.json, so the run is not finished"):
        compare_folders(runs["first"], tmp_path)


def test_a_folder_that_was_changed_is_not_compared(runs, tmp_path):
    changed = tmp_path / "run"
    shutil.copytree(runs["first"], changed)
    (changed / "run.json").write_text((changed / "run.json").read_text().replace('"top1": 0', '"top1": 1', 1))
    with pytest.raises(BadInputError, match=r"run\.json: changed since the run; see mksgn-bench check"):
        compare_folders(runs["first"], changed)
