"""mksgn/bench/compare and bench/gate: differences per figure and layer, bounds with their numbers, and what is refused."""

import copy
import json
import shutil
from dataclasses import fields
from io import StringIO
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mksgn.bench.compare.gate import Bounds, judge, raise_missed
from mksgn.bench.compare.runs import Comparison, compare, compare_folders
from mksgn.bench.compare.tables import as_json, markdown, notes, tables
from mksgn.bench.energy_models import known_models, price
from mksgn.bench.errors import BoundMissedError
from mksgn.bench.manifest import load_manifest
from mksgn.bench.record import Record
from mksgn.common.errors import BadInputError
from tests.support.bench_folders import make_run, run_again
from tests.support.records import small_run

REFERENCE = {"totals__spikes": 300.0, "totals__syn_ops": 3000.0, "totals__host_macs": 10_000.0, "placement__cores": 5}


def record(**changes: Any) -> Record:
    """The hand-made run with the totals of REFERENCE, priced; `changes` by path, parts joined by two underscores."""
    values = copy.deepcopy(small_run())
    for path, value in {**REFERENCE, **changes}.items():
        *way, last = path.split("__")
        at: Any = values
        for part in way:
            at = at[int(part)] if part.isdigit() else at[part]
        at[last] = value
    bare = Record.model_validate(values)
    energy = [price(model, bare.totals, steps=bare.execution.steps) for model in known_models()]
    return bare.model_copy(update={"energy": energy})


def judged(b: Record, bounds: Bounds, a: Record | None = None, **options: Any) -> list:
    return judge(compare(a or record(), b, names=("ref", "new")), bounds, **options)


WORSE = {
    "accuracy__confusion": [[2, 0, 0], [1, 0, 1], [0, 0, 0]],
    "accuracy__correct": 2,
    "accuracy__top1": 0.5,
    "accuracy__per_class": {"wave": 1.0, "sit down": 0.0, "throw": None},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same model run twice, on more clips, and on other clips; and another model on the first clips."""
    lab = tmp_path_factory.mktemp("lab")
    first = make_run(lab / "one")
    model = first.parent / "model.nir"
    return {
        "first": first,
        "again": run_again(model, lab / "one" / "again"),
        "more": run_again(model, lab / "one" / "more", clips=8),
        "other clips": run_again(model, lab / "one" / "other", seed=3),
        "other model": make_run(lab / "two", seed=5),
    }


def test_figures_classes_and_layers_are_laid_side_by_side():
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


@pytest.mark.parametrize(
    ("bound", "changes", "kept", "missed", "text"),
    [
        ("max_drop_accuracy", WORSE, 0.25, 0.2499, "0.7500 to 0.5000, a drop of 0.2500 against 0.2499 allowed"),
        (
            "max_rise_spikes",
            {"totals__spikes": 330.0},
            0.1,
            0.099,
            r"300 to 330 per clip, \+10.00% against \+9.90% allowed",
        ),
        ("max_rise_syn_ops", {"totals__syn_ops": 3600.0}, 0.2, 0.19, r"3,000 to 3,600 per clip, \+20.00%"),
        ("max_rise_latency", {"execution__latency_steps": 10}, 1.0, 0.99, r"7 to 14 steps, .*, \+100.00%"),
        ("max_rise_cores", {"placement__cores": 6}, 0.2, 0.1, r"5 to 6, \+20.00% against \+10.00% allowed"),
        # 10 000 MACs at 4.6 pJ and 3000 to 3600 accumulations at 0.9: 48.7 to 49.24 nJ, 1.109 %
        ("max_rise_energy", {"totals__syn_ops": 3600.0}, 0.0111, 0.0110, r"4.87e-05 to 4.924e-05 mJ per clip, \+1.11%"),
    ],
)
def test_a_bound_is_kept_at_its_limit_and_missed_beyond_with_number_against_limit(bound, changes, kept, missed, text):
    worse = record(**changes)
    (verdict,) = judged(worse, Bounds(**{bound: kept}))
    assert verdict.kept
    found = compare(record(), worse, names=("ref", "new"))
    with pytest.raises(BoundMissedError, match=text) as error:
        raise_missed(found, judge(found, Bounds(**{bound: missed})))
    assert error.value.exit_code == 5
    assert f"new against ref: 1 bound missed\n  --{bound.replace('_', '-')}: " in str(error.value)
    raise_missed(found, judge(compare(worse, record()), Bounds(**{bound: 0.0})))  # what gets better misses nothing


def test_all_missed_bounds_are_listed_and_dropped_classes_named():
    worse = compare(record(), record(**WORSE, totals__spikes=330.0), names=("ref", "new"))
    with pytest.raises(BoundMissedError) as error:
        raise_missed(worse, judge(worse, Bounds(max_drop_accuracy=0, max_rise_spikes=0, max_rise_syn_ops=0)))
    assert "2 bounds missed" in str(error.value)
    assert "most in sit down 0.50 to 0.00" in str(error.value)
    assert len(error.value.missed) == 2


def test_a_rise_from_nothing_is_a_rise():
    (verdict,) = judged(record(), Bounds(max_rise_spikes=100.0), a=record(totals__spikes=0.0))
    assert not verdict.kept
    assert "from nothing" in verdict.text


def test_a_lower_bound_is_no_energy_to_bound():
    with pytest.raises(BadInputError, match=r"ref: davies2018-loihi1 gives only a lower bound, without .*static_power"):
        judged(record(), Bounds(max_rise_energy=0.05, energy_model="davies2018-loihi1"))
    with pytest.raises(BadInputError, match="was not priced with mine; its energy models are horowitz45-fp32"):
        judged(record(), Bounds(max_rise_energy=0.05, energy_model="mine"))


def test_prices_of_one_name_and_two_sources_are_not_compared():
    b = record()
    changed = [e.model_copy(update={"source": "my own"}) if e.model == "horowitz45-fp32" else e for e in b.energy]
    with pytest.raises(BadInputError, match="horowitz45-fp32 is not the same model in both runs: other source"):
        judged(b.model_copy(update={"energy": changed}), Bounds(max_rise_energy=0.05))


@pytest.mark.parametrize(
    ("changes", "bounds", "fault"),
    [
        ({"accuracy": None}, Bounds(max_drop_accuracy=0), "new: no accuracy"),
        ({"placement": None}, Bounds(max_rise_cores=0), "placed on loihi2 and no chip"),
        ({"placement__chip": "loihi1"}, Bounds(max_rise_cores=0), "placed on loihi2 and loihi1"),
        (
            {"totals__axon_out": None, "data__split": "xview"},
            Bounds(max_rise_spikes=0),
            "other clips .split test and xview",
        ),
        ({"seed": 1}, Bounds(identical=True), "synthetic clips of seed 0 and 1"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_reason(changes, bounds, fault):
    with pytest.raises(BadInputError, match=fault):
        judged(record(**changes), bounds)


def test_other_clips_are_judged_only_when_asked_for():
    other = record(data__split="xview", totals__spikes=310.0)
    assert compare(record(), other).other_data == ("split test and xview",)
    assert judged(other, Bounds()) == []  # without a bound the comparison is shown
    assert not judged(other, Bounds(max_rise_spikes=0), allow_different_data=True)[0].kept


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [f.name for f in fields(Bounds) if f.name.startswith("max_")])
def test_a_limit_is_a_fraction_of_0_or_more(name, value):
    with pytest.raises(BadInputError, match=f"--{name.replace('_', '-')} is "):
        Bounds(**{name: value})


def test_identical_allows_other_times_and_environments_only():
    slower = record(
        execution__seconds=2.4, execution__backend="emulator", environment__torch="2.4.0", model__sha256="e" * 64
    )
    assert judged(slower, Bounds(identical=True))[0].kept
    for changes, text in (
        ({"layers__2__coincidences": 91}, "blocks.0.attention.m: coincidences"),
        ({"layers__1__max_membrane": 813.0}, "blocks.0.conv: max_membrane 812 and 813"),
        ({"layers__1__name": "x"}, "blocks.0.conv is only in ref; x is only in new"),
        (WORSE, "the confusion differs"),
        ({"totals__Footprint": 1.0}, "totals.Footprint 12,345 and 1"),
    ):
        (verdict,) = judged(record(**changes), Bounds(identical=True))
        assert not verdict.kept
        assert text in verdict.text


def test_largest_membranes_of_a_float_run_may_differ_in_their_last_digits():
    a, b = (record(execution__precision="float", layers__1__max_membrane=value) for value in (812.0, 812.0000001))
    assert judged(b, Bounds(identical=True), a=a)[0].kept
    fixed = (record(layers__1__max_membrane=value) for value in (812.0, 812.0000001))
    assert not judge(compare(*fixed), Bounds(identical=True))[0].kept


def test_neurons_are_compared_one_by_one_where_the_sums_are_equal():
    ours, theirs = (np.zeros((4, 5, 5), dtype=np.int64) for _ in range(2))
    ours[0, 0, 0], theirs[0, 0, 1] = 7, 7
    found = compare(record(), record(), counts=({"blocks.0.conv": ours}, {"blocks.0.conv": theirs}))
    assert {each.name: each.neurons for each in found.layers}["blocks.0.conv"] == 2
    (verdict,) = judge(found, Bounds(identical=True))
    assert verdict.text == "blocks.0.conv: 2 neurons fired another number of times"


def test_a_run_repeated_is_identical(runs):
    found = compare_folders(runs["first"], runs["again"])
    assert all(each.same for each in found.layers)
    assert found.predictions == 0
    assert all(verdict.kept for verdict in judge(found, Bounds(0, 0, 0, 0, 0, 0, identical=True)))


def test_another_network_on_the_same_clips_differs_layer_by_layer(runs):
    found = compare_folders(runs["first"], runs["other model"])
    assert found.other_data == ()
    assert not next(each for each in found.conditions if each.name == "model").same
    assert any(each.neurons for each in found.layers)
    predictions = [load_manifest(runs[name]).predictions for name in ("first", "other model")]
    assert found.predictions == sum(a != b for a, b in zip(*predictions, strict=True))
    assert not judge(found, Bounds(identical=True))[0].kept


def test_clips_are_compared_by_name(runs):
    assert compare_folders(runs["first"], runs["more"]).other_data == ("6 and 8 clips",)
    (reason,) = compare_folders(runs["first"], runs["other clips"]).other_data[:1]
    assert reason == "synthetic clips of seed 0 and 3"


def test_single_files_are_compared_by_what_they_hold(runs):
    found = compare_folders(runs["first"] / "run.json", runs["again"] / "run.json")
    assert found.predictions is None
    assert {each.neurons for each in found.layers} == {None}
    verdict = judge(found, Bounds(identical=True))[0]
    assert verdict.kept
    assert "predictions and spikes per neuron are not known" in verdict.text


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


def shown(found: Comparison, bounds: Bounds) -> tuple[str, str, dict[str, Any]]:
    verdicts = judge(found, bounds)
    text = StringIO()
    console = Console(file=text, width=140, highlight=False, markup=False)
    for table in tables(found, verdicts):
        console.print(table)
    return text.getvalue(), markdown(found, verdicts), json.loads(as_json(found, verdicts))


def test_terminal_markdown_and_json_hold_the_same_figures():
    found = compare(record(), record(**WORSE, totals__spikes=330.0, layers__1__spikes=520), names=("ref", "new|x"))
    text, page, values = shown(found, Bounds(max_rise_spikes=0.05))
    for part in ("spikes", "+10.00%", "MISSED", "sit down"):
        assert part in text
        assert part in page
    assert "new\\|x against ref" in page
    spikes = next(each for each in values["metrics"] if each["name"] == "spikes")
    assert (spikes["a"], spikes["b"], spikes["rise"]) == (300, 330, pytest.approx(0.1))
    assert values["bounds"][0]["kept"] is False
    assert values["schema"] == "mksgn.compare/1"
    assert "3 of 4 layers are the same in every count." in notes(found)
    widths = [line.count("|") - line.count("\\|") for line in page.splitlines() if line.startswith("|")]
    assert min(widths) >= 4
    assert "layers that differ" in text


def test_a_lower_bound_is_shown_as_one():
    text, page, _ = shown(compare(record(), record()), Bounds())
    for output in (text, page):
        line = next(line for line in output.splitlines() if "davies2018" in line)
        assert line.count("≥") == 2
