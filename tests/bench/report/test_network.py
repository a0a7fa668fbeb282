"""The network's drawing: a bar over each population's time steps, and a line for each projection."""

import re
from xml.etree import ElementTree

import pytest

from mksgn.bench.record import Record
from mksgn.bench.report.charts import LEFT
from mksgn.bench.report.network import network_chart
from tests.support.records import small_run
from tests.support.report_pages import full_run, html_of, text_of


def _scheduled() -> Record:
    """Return the small run with a branch of two steps and one of one step, whose spikes wait."""
    depths = {"encoder": 0, "blocks.0.conv": 1, "blocks.0.attention.m": 2, "readout": 3}
    populations = [
        {"name": name, "kind": "spiking", "place": "chip" if depth else "host", "depth": depth}
        for name, depth in depths.items()
    ]
    edges = [
        ("encoder", "blocks.0.conv", "conv", 0),
        ("encoder", "blocks.0.conv", "graph_conv", 0),
        ("blocks.0.conv", "blocks.0.attention.m", "product", 0),
        ("blocks.0.attention.m", "readout", "dense", 0),
        ("blocks.0.conv", "readout", "dense", 1),
    ]
    projections = [dict(zip(("source", "target", "kind", "delay"), edge, strict=True)) for edge in edges]
    return full_run({**small_run(), "schedule": {"populations": populations, "projections": projections}})


def test_bars_span_a_sample_s_steps_and_lines_end_at_their_targets():
    record = _scheduled()
    chart = network_chart(record)
    assert chart is not None
    step = (chart.bars[1].left - LEFT) / 1
    for bar, depth in zip(chart.bars, (0, 1, 2, 3), strict=True):
        assert bar.left == pytest.approx(LEFT + step * depth)
        assert bar.right - bar.left == pytest.approx(step * record.execution.steps)
    assert chart.bars[1].text == "conv, graph conv"
    assert len(chart.lines) == 4  # two parallel projections are one line
    by_name = {bar.label.full: bar for bar in chart.bars}
    for line in chart.lines:
        source, target = (by_name[name] for name in re.split(" → |: ", line.tooltip)[:2])
        assert source.left < line.points[0][0] < source.left + step
        assert line.points[0][1] == source.label.y
        assert line.points[-1][0] == target.left
        assert line.points[-1][1] == pytest.approx(target.label.y, abs=3)
    (held,) = (line.tooltip for line in chart.lines if line.held)
    assert held == "blocks.0.conv → readout: dense, held back by 1 step"


def test_the_drawing_is_on_the_page_with_its_table():
    record = _scheduled()
    (drawing,) = re.findall(r'<svg class="chart".*?</svg>', html_of(record).split('id="fig-network"')[1], re.DOTALL)[:1]
    parsed = ElementTree.fromstring(drawing)
    assert len(parsed.findall(".//polyline")) == 4
    assert len(parsed.findall(".//rect")) == 4
    text = text_of(record)
    assert "blocks.0.conv readout dense 1" in text
    assert "Latency: 3 steps" in text


def test_a_record_without_a_schedule_says_so():
    assert network_chart(full_run()) is None
    assert "This record states no schedule" in text_of(full_run())
