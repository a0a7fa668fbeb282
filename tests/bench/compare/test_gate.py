"""Bounds on a comparison: kept, missed with number and limit, and refused."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from mksgn.bench.compare.gate import Bounds, evaluate_bounds, raise_missed
from mksgn.bench.compare.runs import compare, compare_folders
from mksgn.bench.compare.tables import sentences
from mksgn.bench.energy_models import model_named
from mksgn.bench.errors import BoundMissedError
from mksgn.bench.record import Record
from mksgn.common.errors import BadInputError
from tests.support.comparable_records import WORSE, record


def evaluated(b: Record, bounds: Bounds, a: Record | None = None, **options: Any) -> list:
    return evaluate_bounds(compare(a or record(), b, names=("ref", "new")), bounds, **options)


@pytest.mark.parametrize(
    ("bound", "changes", "kept", "missed", "text"),
    [
        ("max_drop_accuracy", WORSE, 0.25, 0.2499, "0.7500 to 0.5000, a drop of 0.2500; 0.2499 allowed"),
        ("max_rise_spikes", {"totals__spikes": 330.0}, 0.1, 0.099, r"300 to 330 per clip, \+10.00%; \+9.90% allowed"),
        ("max_rise_syn_ops", {"totals__syn_ops": 3600.0}, 0.2, 0.19, r"3,000 to 3,600 per clip, \+20.00%"),
        ("max_rise_latency", {"execution__latency_steps": 10}, 1.0, 0.99, r"7 to 14 steps, .*, \+100.00%"),
        ("max_rise_cores", {"placement__cores": 6}, 0.2, 0.1, r"5 to 6, \+20.00%; \+10.00% allowed"),
        # 10 000 MACs at 4.6 pJ and 3000 to 3600 accumulations at 0.9: 48.7 to 49.24 nJ, 1.109 %
        ("max_rise_energy", {"totals__syn_ops": 3600.0}, 0.0111, 0.0110, r"4.87e-05 to 4.924e-05 mJ per clip, \+1.11%"),
    ],
)
def test_a_bound_is_kept_at_its_limit_and_missed_beyond_with_number_against_limit(bound, changes, kept, missed, text):
    worse = record(**changes)
    (verdict,) = evaluated(worse, Bounds(**{bound: kept}))
    assert verdict.kept
    comparison = compare(record(), worse, names=("ref", "new"))
    with pytest.raises(BoundMissedError, match=text) as error:
        raise_missed(comparison, evaluate_bounds(comparison, Bounds(**{bound: missed})))
    assert error.value.exit_code == 5
    assert f"new compared with ref: 1 bound missed\n  --{bound.replace('_', '-')}: " in str(error.value)
    raise_missed(
        comparison, evaluate_bounds(compare(worse, record()), Bounds(**{bound: 0.0}))
    )  # what gets better misses nothing


def test_all_missed_bounds_are_listed_and_dropped_classes_named():
    worse = compare(record(), record(**WORSE, totals__spikes=330.0), names=("ref", "new"))
    with pytest.raises(BoundMissedError) as error:
        raise_missed(worse, evaluate_bounds(worse, Bounds(max_drop_accuracy=0, max_rise_spikes=0, max_rise_syn_ops=0)))
    assert "2 bounds missed" in str(error.value)
    assert "most in sit down 0.50 to 0.00" in str(error.value)
    assert len(error.value.missed) == 2


def test_a_rise_from_zero_is_a_rise():
    (verdict,) = evaluated(record(), Bounds(max_rise_spikes=100.0), a=record(totals__spikes=0.0))
    assert not verdict.kept
    assert "from zero" in verdict.text


def test_a_lower_bound_is_not_an_energy_to_bound():
    with pytest.raises(BadInputError, match=r"ref: davies2018-loihi1 gives only a lower bound, without .*static_power"):
        evaluated(record(), Bounds(max_rise_energy=0.05, energy_model="davies2018-loihi1"))
    with pytest.raises(BadInputError, match="not priced with mine; its energy models are horowitz45-fp32"):
        evaluated(record(), Bounds(max_rise_energy=0.05, energy_model="mine"))


def test_prices_of_one_name_and_two_sources_are_not_compared():
    b = record()
    changed = [e.model_copy(update={"source": "my own"}) if e.model == "horowitz45-fp32" else e for e in b.energy]
    other = b.model_copy(update={"energy": changed})
    with pytest.raises(BadInputError, match=r"energies under horowitz45-fp32 at different prices \(another source\)"):
        evaluated(other, Bounds(max_rise_energy=0.05))
    assert evaluated(other, Bounds(max_rise_spikes=0), allow_different_prices=True)[0].kept
    with pytest.raises(BadInputError, match="horowitz45-fp32 has different prices in the two runs"):
        evaluated(other, Bounds(max_rise_energy=0.05), allow_different_prices=True)


def test_counts_that_an_earlier_version_did_not_make_do_not_differ_and_others_do():
    kinds = {"dense": 1.0, "sparse": 0.0, "convolution": 0.0}
    counted = record(totals__syn_ops_by_kind=kinds)
    assert evaluated(counted, Bounds(identical=True))[0].kept
    (verdict,) = evaluated(record(totals__syn_ops_by_kind={**kinds, "dense": 2.0}), Bounds(identical=True), a=counted)
    assert not verdict.kept
    assert "totals.syn_ops_by_kind dense 1, sparse 0, convolution 0 and dense 2," in verdict.text


def test_other_prices_under_one_name_are_not_compared_even_without_a_bound():
    b = record()
    energy = [
        entry.model_copy(update={"prices": model_named("sana-fe-loihi-2023").pricing})
        if entry.model == "sana-fe-loihi"
        else entry
        for entry in b.energy
    ]
    other = b.model_copy(update={"energy": energy})
    with pytest.raises(BadInputError, match=r"sana-fe-loihi at different prices \(synaptic_op {'dense': .* and 35.5\)"):
        evaluated(other, Bounds())
    # a record of a version that kept no prices
    unknown = [
        entry.model_copy(update={"prices": None, "terms": {**entry.terms, "memory": 1.0}})
        if entry.model == "lemaire2022"
        else entry.model_copy(update={"prices": None})
        for entry in b.energy
    ]
    assert compare(record(), b.model_copy(update={"energy": unknown})).other_prices == {
        "lemaire2022": "memory priced in one of them"
    }
    left = compare(record(), other)
    assert list(left.other_prices) == ["sana-fe-loihi"]
    assert sentences(left)[0].startswith("Left out: energy, sana-fe-loihi (different prices: synaptic_op ")
    assert "energy, sana-fe-loihi" not in {row.name for row in left.energies}
    assert "energy, sana-fe-loihi-2023" in {row.name for row in left.energies}


@pytest.mark.parametrize(
    ("changes", "bounds", "fault"),
    [
        ({"accuracy": None}, Bounds(max_drop_accuracy=0), "new: no accuracy"),
        ({"placement": None}, Bounds(max_rise_cores=0), "placed on loihi2 and no chip"),
        ({"placement__chip": "loihi1"}, Bounds(max_rise_cores=0), "placed on loihi2 and loihi1"),
        (
            {"totals__axon_out": None, "data__split": "xview"},
            Bounds(max_rise_spikes=0),
            "different clips .split test and xview",
        ),
        ({"seed": 1}, Bounds(identical=True), "synthetic clips of seed 0 and 1"),
    ],
)
def test_bounds_that_cannot_be_evaluated_are_refused_with_the_reason(changes, bounds, fault):
    with pytest.raises(BadInputError, match=fault):
        evaluated(record(**changes), bounds)


def test_different_clips_are_evaluated_only_on_request():
    other = record(data__split="xview", totals__spikes=310.0)
    assert compare(record(), other).other_data == ("split test and xview",)
    assert evaluated(other, Bounds()) == []  # without a bound the comparison is still possible
    assert not evaluated(other, Bounds(max_rise_spikes=0), allow_different_data=True)[0].kept


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", [f.name for f in fields(Bounds) if f.name.startswith("max_")])
def test_a_limit_is_a_fraction_of_0_or_more(name, value):
    with pytest.raises(BadInputError, match=f"--{name.replace('_', '-')} is "):
        Bounds(**{name: value})


def test_identical_allows_other_times_and_environments_only():
    slower = record(
        execution__seconds=2.4, execution__backend="emulator", environment__torch="2.4.0", model__sha256="e" * 64
    )
    assert evaluated(slower, Bounds(identical=True))[0].kept
    for changes, text in (
        ({"layers__2__coincidences": 91}, "blocks.0.attention.m: coincidences"),
        ({"layers__1__max_membrane": 813.0}, "blocks.0.conv: max_membrane 812 and 813"),
        ({"layers__1__name": "x"}, "blocks.0.conv is only in ref; x is only in new"),
        (WORSE, "the confusion matrix differs"),
        ({"totals__Footprint": 1.0}, "totals.Footprint 12,345 and 1"),
    ):
        (verdict,) = evaluated(record(**changes), Bounds(identical=True))
        assert not verdict.kept
        assert text in verdict.text


def test_largest_membranes_of_a_float_run_may_differ_in_their_last_digits():
    a, b = (record(execution__precision="float", layers__1__max_membrane=value) for value in (812.0, 812.0000001))
    assert evaluated(b, Bounds(identical=True), a=a)[0].kept
    fixed = (record(layers__1__max_membrane=value) for value in (812.0, 812.0000001))
    assert not evaluate_bounds(compare(*fixed), Bounds(identical=True))[0].kept


def test_neurons_are_compared_one_by_one_where_the_sums_are_equal():
    first, second = (np.zeros((4, 5, 5), dtype=np.int64) for _ in range(2))
    first[0, 0, 0], second[0, 0, 1] = 7, 7
    comparison = compare(record(), record(), counts=({"blocks.0.conv": first}, {"blocks.0.conv": second}))
    assert {layer.name: layer.neurons for layer in comparison.layers}["blocks.0.conv"] == 2
    (verdict,) = evaluate_bounds(comparison, Bounds(identical=True))
    assert verdict.text == "blocks.0.conv: spike counts of 2 neurons differ"


def test_a_run_repeated_is_identical(runs):
    comparison = compare_folders(runs["first"], runs["again"])
    assert all(layer.same for layer in comparison.layers)
    assert comparison.predictions == 0
    assert all(verdict.kept for verdict in evaluate_bounds(comparison, Bounds(0, 0, 0, 0, 0, 0, identical=True)))


def test_single_files_are_compared_by_what_they_hold(runs):
    comparison = compare_folders(runs["first"] / "run.json", runs["again"] / "run.json")
    assert comparison.predictions is None
    assert {layer.neurons for layer in comparison.layers} == {None}
    verdict = evaluate_bounds(comparison, Bounds(identical=True))[0]
    assert verdict.kept
    assert "predictions and spikes per neuron are unknown" in verdict.text
