"""The first screen's energies: positions on one axis, what the prices contain, and the answers."""

import math

import pytest

from mksgn.bench.numbers import energy
from mksgn.bench.record import EnergyEntry
from mksgn.bench.report.answers import answers
from mksgn.bench.report.facts import facts_of
from mksgn.bench.report.price_range import ARITHMETIC, CHIP, PARTLY, price_range
from mksgn.bench.report.timing import limited_by
from mksgn.bench.step_time import Binding, PlacementTime
from tests.support.records import changed, dense_run, small_run
from tests.support.report_pages import full_run


def _range(record=None):
    facts = facts_of(record or full_run(), {})
    prices = price_range(facts.record.energy, facts.repriced, facts.reference_mJ)
    assert prices is not None
    return facts, prices


def test_models_are_grouped_by_what_their_prices_contain():
    _, prices = _range()
    groups = {title: {row.model for row in rows} for title, rows in prices.groups}
    assert {"horowitz45-fp32", "horowitz45-int8"} <= groups[ARITHMETIC]
    assert groups[PARTLY] == {"lemaire2022"}
    assert groups[CHIP] == {"davies2018-loihi1", "keras-spiking-loihi", "sana-fe-loihi", "sana-fe-loihi-2023"}
    assert "loihi2-pilotnet" not in {row.model for row in prices.rows}  # it prices nothing


def test_positions_are_logarithmic_and_bounds_are_marked():
    facts, prices = _range()
    rows = {row.model: row for row in prices.rows}
    lowest = min(prices.rows, key=lambda row: row.energy_mJ)
    decade = prices.ticks[1][0] - prices.ticks[0][0]
    for entry in facts.record.energy:
        if entry.model in rows:
            assert rows[entry.model].bound == (entry.total_mJ is None)
            expected = decade * math.log10(entry.priced_mJ / lowest.energy_mJ)
            assert rows[entry.model].at - lowest.at == pytest.approx(expected)
    published = rows["horowitz45-fp32"]
    (published_at,) = published.repriced
    assert published_at.energy_mJ == pytest.approx(0.596)
    (chip,) = rows["davies2018-loihi1"].repriced
    assert chip is not None
    assert (round(chip.energy_mJ, 1), round(chip.reduction, 2)) == (15.6, 0.55)
    assert facts.repriced_sops == pytest.approx(0.596e9 / 0.9)
    assert all(0 <= row.at <= 100 for row in prices.rows)


def test_nothing_priced_has_no_range():
    assert price_range([], []) is None


def entry(model, priced_mJ, *, total=True, excludes=(), terms=("syn_ops",)):
    return EnergyEntry.model_construct(
        model=model, evidence="declared", priced_mJ=priced_mJ, total_mJ=priced_mJ if total else None,
        terms=dict.fromkeys(terms, priced_mJ), excludes=list(excludes), unpriced=[] if total else ["host_macs"],
    )  # fmt: skip


ALONE = ("neuron_updates", "memory")


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        ([entry("a", 1.0, excludes=ALONE), entry("b", 2.0, excludes=ALONE)], "1 mJ to 2 mJ in arithmetic alone"),
        (
            [
                entry("a", 1.0, excludes=ALONE),
                entry("b", 0.5, excludes=ALONE, total=False),
                entry("chip", 4.0, total=False),
            ],
            "1 mJ in arithmetic alone; at least 4 mJ with memory or at a chip's prices",
        ),
        ([entry("chip", 3.0), entry("other", 4.0)], "3 mJ to 4 mJ with memory or at a chip's prices"),
        ([entry("a", 0.5, excludes=ALONE, total=False)], "at least 0.500 mJ"),
    ],
)
def test_the_range_tells_arithmetic_from_the_rest_and_bounds_from_totals(entries, text):
    prices = price_range(entries, [])
    assert prices is not None
    assert prices.summary.replace("\N{NO-BREAK SPACE}", " ") == text


def test_better_than_the_gcn_is_never_claimed():
    facts, prices = _range()
    correct, fit, better, confirmed = answers(facts, prices)
    text = better.text.replace("\N{NO-BREAK SPACE}", " ")
    assert better.word == "Not shown."
    assert (
        "the published 0.596 mJ would be 15.6 mJ to 23.5 mJ: 55.3 % to 32.8 % below the GCN's 35 mJ, not 98.3 %" in text
    )
    assert "In INT8 arithmetic alone, the GCN of this network's preset takes 0.460 µJ and this network" in text
    assert (correct.question, correct.word) == ("Is the run correct?", "Yes.")
    assert fit.question == "Does it fit on a chip?"
    assert (confirmed.question, confirmed.word) == ("Does it confirm the paper's energy?", "It cannot.")


@pytest.mark.parametrize(
    ("parity", "mark", "word", "text"),
    [
        (None, "open", "Not compared.", "No other execution of the network was run."),
        (
            {"mismatches": 0},
            "good",
            "Yes.",
            "0 of 4,800 decisions, each one neuron at one time step, differ from torch.",
        ),
        (
            {"mismatches": 1, "rounding": 1},
            "good",
            "Yes, up to rounding.",
            "1 of 4,800 decisions, each one neuron at one time step, differs from torch, which rounds differently.",
        ),
        (
            {"mismatches": 2, "rounding": 1},
            "bad",
            "No.",
            "2 of 4,800 decisions, each one neuron at one time step, differ from torch.",
        ),
    ],
)
def test_the_first_answer_is_whether_another_execution_agrees(parity, mark, word, text):
    run = small_run()
    run["parity"] = None if parity is None else {**run["parity"], **parity}
    facts, prices = _range(full_run(run))
    first = answers(facts, prices)[0]
    assert (first.mark, first.word, first.text) == (mark, word, text)


def test_a_run_without_a_spike_is_not_called_correct():
    record = full_run()
    layers = [layer.model_copy(update={"spikes": 0}) if layer.place == "chip" else layer for layer in record.layers]
    facts, prices = _range(record.model_copy(update={"layers": layers}))
    first = answers(facts, prices)[0]
    assert (first.mark, first.word) == ("open", "Nothing fired.")
    faulty = record.parity.model_copy(update={"mismatches": 2, "rounding": 0})
    facts, prices = _range(record.model_copy(update={"layers": layers, "parity": faulty}))
    assert (answers(facts, prices)[0].mark, answers(facts, prices)[0].word) == ("bad", "No.")
    one = [*layers[:-1], record.layers[-1]]
    facts, prices = _range(record.model_copy(update={"layers": one}))
    word = answers(facts, prices)[0].word
    assert word == ("Parts never fired." if record.layers[-1].kind != "readout" else "Nothing fired.")


def test_an_ann_of_the_same_shape_is_answered_with_and_without_memory():
    facts, prices = _range(full_run(dense_run(16)))
    (ann,) = [answer for answer in answers(facts, prices) if answer.section == "ann"]
    for row in (next(row for row in facts.ann if not row.memory), [row for row in facts.ann if row.memory][-1]):
        assert f"({row.model}), this network takes {energy(row.total.snn_mJ)}" in ann.text
        assert f"it is cheaper at {row.total.limit}" in ann.text
    assert (ann.mark, ann.word) == ("good", "Yes, under every model.")
    assert all(row.total.wins for row in facts.ann)


def test_the_busiest_core_s_populations_are_summed_over_what_binds_them():
    bindings = [
        ("lif1", "dense", 0.81),
        ("lif1", "messages_in", 0.14),
        ("lif2", "dense", 0.03),
        ("lif0", "spikes", 0.02),
    ]
    row = PlacementTime.model_construct(binding=[Binding(population=p, event=e, share=s) for p, e, s in bindings])
    assert limited_by(row) == (
        "The busiest core, which sets the time of a step, is one of lif1 in 95.0 % of the time, of lif2 in 3.0 %, of lif0 "
        "in 2.0 %."
    )


@pytest.mark.parametrize(
    ("limits", "mark", "word"),
    [
        ([("neurons per core", 100, 8192)], "good", "Yes."),
        (
            [("neurons per core", 100, 8192), ("output axons per core", 12, None)],
            "open",
            "As far as limits are published.",
        ),
        ([("neurons per core", 9000, 8192), ("output axons per core", 12, None)], "bad", "No."),
    ],
)
def test_a_limit_that_is_not_published_leaves_the_fit_open(limits, mark, word):
    rows = [{"name": name, "value": value, "max": most} for name, value, most in limits]
    facts, prices = _range(full_run(changed("placement.limits", rows)))
    (fit,) = [answer for answer in answers(facts, prices) if answer.question == "Does it fit on a chip?"]
    assert (fit.mark, fit.word) == (mark, word)
    assert ("not published: output axons per core" in fit.text) == (rows[-1]["max"] is None)


def test_a_run_without_a_placement_or_a_gcn_answers_what_it_can():
    facts, prices = _range(full_run({**small_run(), "placement": None, "gcn": None}))
    _, better, _ = answers(facts, prices)
    assert better.section == "claims"
    assert "this network's preset" not in better.text
    assert [answer.section for answer in answers(facts, None)] == ["parity", "theory"]
