"""The first screen's energies: positions on one axis, what the prices contain, and the three answers."""

import math

import pytest

from mksgn.bench.report.answers import answers
from mksgn.bench.report.facts import facts_of
from mksgn.bench.report.price_range import ARITHMETIC, CHIP, PARTLY, price_range
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
    decade = prices.ticks[1][0] - prices.ticks[0][0]
    for entry in facts.record.energy:
        if entry.model in rows:
            assert rows[entry.model].bound == (entry.total_mJ is None)
            expected = decade * math.log10(entry.priced_mJ / prices.lowest.energy_mJ)
            assert rows[entry.model].at - prices.lowest.at == pytest.approx(expected)
    published = rows["horowitz45-fp32"]
    (published_at,) = published.repriced
    assert published_at.energy_mJ == pytest.approx(0.596)
    (chip,) = rows["davies2018-loihi1"].repriced
    assert chip is not None
    assert (round(chip.energy_mJ, 1), round(chip.reduction, 2)) == (15.6, 0.55)
    assert facts.repriced_sops == pytest.approx(0.596e9 / 0.9)
    assert all(0 <= row.at <= 100 for row in prices.rows)
    assert prices.highest.energy_mJ == max(row.energy_mJ for row in prices.rows)


def test_nothing_priced_has_no_range():
    assert price_range([], []) is None


def test_better_than_the_gcn_is_never_claimed():
    facts, prices = _range()
    better, fit, confirmed = answers(facts, prices)
    text = better.text.replace("\N{NO-BREAK SPACE}", " ")
    assert better.word == "Not shown."
    assert "the published 0.596 mJ would be 15.6 mJ to 23.5 mJ: 55 % to 33 % below the GCN's 35 mJ, not 98.3 %" in text
    assert "In INT8 arithmetic alone the GCN of this network's preset takes 0.460 µJ and this network" in text
    assert fit.question == "Does it fit?"
    assert (confirmed.question, confirmed.word) == ("The paper's energy confirmed?", "No.")


def test_an_ann_of_the_same_shape_is_answered_where_memory_is_priced_on_both_sides():
    facts, prices = _range(full_run(dense_run(16)))
    (ann,) = [answer for answer in answers(facts, prices) if answer.section == "ann"]
    total = [row for row in facts.ann if row.memory][-1].total
    assert ann.word == ("Yes, by a model." if total.snn_mJ < total.ann_mJ else "No, by a model.")
    assert f"It is cheaper at {total.limit}; this run's rate is" in ann.text


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
    (fit,) = [answer for answer in answers(facts, prices) if answer.question == "Does it fit?"]
    assert (fit.mark, fit.word) == (mark, word)
    assert ("not published: output axons per core" in fit.text) == (rows[-1]["max"] is None)


def test_a_run_without_a_placement_or_a_gcn_answers_what_it_can():
    facts, prices = _range(full_run({**small_run(), "placement": None, "gcn": None}))
    better, _ = answers(facts, prices)
    assert better.section == "claims"
    assert "this network's preset" not in better.text
    assert [answer.section for answer in answers(facts, None)] == ["theory"]
