"""A comparison on the terminal, as Markdown and as JSON."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mksgn.bench.compare.gate import Bounds, evaluate_bounds
from mksgn.bench.compare.runs import Comparison, compare
from mksgn.bench.compare.tables import document, markdown, sentences, tables
from tests.support.comparable_records import WORSE, record


def rendered(comparison: Comparison, bounds: Bounds) -> tuple[str, str, dict[str, Any]]:
    verdicts = evaluate_bounds(comparison, bounds)
    text = StringIO()
    console = Console(file=text, width=140, highlight=False, markup=False)
    for table in tables(comparison, verdicts):
        console.print(table)
    return text.getvalue(), markdown(comparison, verdicts), document(comparison, verdicts)


def test_terminal_markdown_and_json_hold_the_same_figures():
    comparison = compare(record(), record(**WORSE, totals__spikes=330.0, layers__1__spikes=520), names=("ref", "new|x"))
    text, page, values = rendered(comparison, Bounds(max_rise_spikes=0.05))
    for part in ("spikes", "+10.00%", "MISSED", "sit down"):
        assert part in text
        assert part in page
    assert "new\\|x compared with ref" in page
    spikes = next(metric for metric in values["metrics"] if metric["name"] == "spikes")
    assert (spikes["a"], spikes["b"], spikes["rise"]) == (300, 330, pytest.approx(0.1))
    assert values["bounds"][0]["kept"] is False
    assert values["schema"] == "mksgn.compare/1"
    assert "3 of 4 layers are equal in every count." in sentences(comparison)
    widths = [line.count("|") - line.count("\\|") for line in page.splitlines() if line.startswith("|")]
    assert min(widths) >= 4
    assert "layers that differ" in text


def test_a_lower_bound_is_marked():
    text, page, _ = rendered(compare(record(), record()), Bounds())
    for output in (text, page):
        line = next(line for line in output.splitlines() if "davies2018" in line)
        assert line.count("≥") == 2
