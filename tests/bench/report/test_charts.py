"""Geometry of the page's charts."""

import numpy as np
import pytest

from mksgn.bench.energy_models import known_models
from mksgn.bench.report.charts import LEFT, RIGHT, SQUARES, Column, bar_chart, energy_chart
from tests.support.report_pages import full_run


def test_bars_end_where_the_axis_says():
    chart = bar_chart("c", "t", "c", ["a", "b"], [Column("", [180_000.0, 0.0], ["180,000", "0"], marks=[90_000, None])])
    (panel,) = chart.panels
    assert [tick.text for tick in panel.ticks] == ["0", "50 k", "100 k", "150 k", "200 k"]
    first, second = panel.bars
    assert first is not None
    assert second is not None
    assert first.x - LEFT == pytest.approx(0.9 * (panel.ticks[-1].x - LEFT))
    assert first.mark == pytest.approx((first.x + LEFT) / 2)
    assert (second.x, second.mark) == (LEFT, None)
    long = bar_chart("c", "t", "c", ["x" * 90], [Column("", [0.07], ["7 %"], "%"), Column("", [None], ["none"])])
    assert len(long.labels[0].short) < 31
    assert long.labels[0].full == "x" * 90
    assert [tick.text for tick in long.panels[0].ticks] == ["0 %", "5 %", "10 %"]
    assert long.panels[1].bars == (None,)
    assert long.panels[0].ticks[-1].x < long.panels[1].left < RIGHT


def test_a_core_is_a_square_as_long_as_they_can_be_counted():
    few, many = (
        bar_chart("c", "t", "c", ["a"], [Column("", [n], [str(n)], squares=True)]).panels[0].bars[0]
        for n in (SQUARES, SQUARES + 1)
    )
    assert few is not None
    assert many is not None
    assert (few.squares, many.squares) == (SQUARES, 0)


def test_energies_stand_on_one_logarithmic_axis():
    models = {model.name: model for model in known_models()}
    anchors = {name: model.anchor for name, model in models.items() if model.anchor}
    record = full_run()
    chart = energy_chart(record.energy, anchors, [(0.596, "published"), (35, "GCN")])
    assert [row.label.full for row in chart.rows] == list(models)
    by_name = {row.label.full: row for row in chart.rows}
    decade = chart.ticks[1].x - chart.ticks[0].x
    published, gcn = (x for x, _, _, _ in chart.lines)
    assert gcn - published == pytest.approx(decade * np.log10(35 / 0.596))
    paper = by_name["horowitz45-fp32"]
    entry = next(entry for entry in record.energy if entry.model == "horowitz45-fp32")
    assert entry.total_mJ is not None
    assert entry.total_every_step_mJ is not None
    assert published - paper.x == pytest.approx(decade * np.log10(0.596 / entry.total_mJ))
    assert paper.every_step is not None
    assert paper.every_step - paper.x == pytest.approx(decade * np.log10(entry.total_every_step_mJ / entry.total_mJ))
    assert (by_name["davies2018-loihi1"].series, by_name["loihi2-pilotnet"].series) == ("bound", "anchor")
