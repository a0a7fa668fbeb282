"""Comparison of two runs by figure, class, layer, clip and neuron."""

import shutil

import pytest

from mksgn.bench.compare.gate import Bounds, evaluate_bounds
from mksgn.bench.compare.runs import compare, compare_folders
from mksgn.bench.manifest import load_manifest
from mksgn.common.errors import BadInputError
from tests.support.comparable_records import WORSE, record


def test_figures_classes_and_layers_are_compared():
    comparison = compare(
        record(), record(**WORSE, totals__spikes=330.0, layers__1__spikes=520, layers__1__max_membrane=900.0)
    )
    assert (comparison["accuracy"].a, comparison["accuracy"].b, comparison["accuracy"].change) == (0.75, 0.5, -0.25)
    assert comparison["spikes"].rise == pytest.approx(0.1)
    assert comparison["latency"].a == 4 + 3
    assert [(recall.name, recall.change) for recall in comparison.dropped_classes] == [("sit down", -0.5)]
    (layer,) = [layer for layer in comparison.layers if not layer.same]
    assert layer.name == "blocks.0.conv"
    assert (layer["spikes"].a, layer["spikes"].b) == (100, 130)  # per clip, of 400 and 520 in four clips
    assert layer["max_membrane"].change == 88
    assert not comparison["energy, horowitz45-fp32"].bound
    assert comparison["energy, davies2018-loihi1"].bound


def test_layers_are_matched_by_name():
    renamed = record(layers__1__name="blocks.0.other")
    comparison = compare(record(), renamed)
    assert {layer.name: layer.only_in for layer in comparison.layers if layer.only_in} == {
        "blocks.0.conv": "a",
        "blocks.0.other": "b",
    }


def test_another_network_on_the_same_clips_differs_layer_by_layer(runs):
    comparison = compare_folders(runs["first"], runs["other model"])
    assert comparison.other_data == ()
    assert not next(condition for condition in comparison.conditions if condition.name == "model").same
    assert any(layer.neurons for layer in comparison.layers)
    predictions = [load_manifest(runs[name]).predictions for name in ("first", "other model")]
    assert comparison.predictions == sum(a != b for a, b in zip(*predictions, strict=True))
    assert not evaluate_bounds(comparison, Bounds(identical=True))[0].kept


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
