"""Networks as other frameworks export them today, against the frameworks' own simulation; and the table of docs/interop.md.

tests/support/frameworks.py says with which options each file means what its framework does. `make test-interop` installs
the frameworks; elsewhere their cases skip.
"""

import os
from typing import Any

import numpy as np
import pytest
import torch

from mksgn.deploy import compile_graph, run
from scripts.interop_table import HEADINGS, NOT_MEASURED, measured, rows, torch_of, updated
from tests.support.frameworks import CASES, Case, Recorded, differing, own_spikes
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore")


def require(case: Case) -> None:
    if case.installed is None:
        assert "MKSGN_INTEROP" not in os.environ, f"{case.package} is not installed: make setup-interop"
        pytest.skip(f"{case.package} is not installed here: make test-interop")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_decisions_are_the_framework_s_and_the_table_says_so(case):
    require(case)
    cells = dict(zip(HEADINGS, measured(case), strict=True))
    assert (cells["float"] == "0") == case.exact
    assert cells["reference, float"] == "0"
    assert {cells["Lava, float"], cells["Lava, fixed"]} <= {"0", NOT_MEASURED}
    line = dict(zip(HEADINGS, rows(PAGE)[case.package, case.neuron], strict=True))
    if line["framework"] == cells["framework"]:  # the page may be of another release
        rounded = set() if torch_of(PAGE) == torch.__version__.partition("+")[0] else {"fixed", "reference, fixed"}
        compared = [name for name in HEADINGS if cells[name] != NOT_MEASURED and name not in rounded]
        assert {name: line[name] for name in compared} == {name: cells[name] for name in compared}


CONVENTIONS = {"reset", "v_init", "integration", "spike_delay"}
WITH_CONVENTIONS = [case for case in CASES if case.exact and CONVENTIONS & set(case.options)]


def in_float(recorded: Recorded, options: dict[str, Any]) -> list[np.ndarray]:
    execution = run(compile_graph(recorded.graph, precision="float", **options), recorded.x)
    return own_spikes(recorded, execution, options)


@pytest.mark.parametrize("case", WITH_CONVENTIONS, ids=lambda case: case.name)
def test_every_option_of_the_table_is_needed(case):
    require(case)
    recorded = case.recorded()
    assert all(0.004 < train.mean() < 0.9 for train in recorded.spikes)
    for name in CONVENTIONS & set(case.options):
        options = {key: value for key, value in case.options.items() if key != name}
        assert differing(in_float(recorded, options), recorded.spikes), name


def test_sinabs_differs_at_first_where_it_fires_several_times_in_a_step():
    """Without these steps nothing would differ: they are what NIR's spikes cannot say."""
    (case,) = (case for case in CASES if case.neuron == "LIF, several spikes in a step")
    require(case)
    recorded = case.recorded()
    ours, theirs = in_float(recorded, case.options)[0], recorded.spikes[0]  # of the first layer
    samples, steps, neurons = np.nonzero(ours != theirs)
    assert len(steps)
    for sample, neuron in set(zip(samples, neurons, strict=True)):
        first = steps[(samples == sample) & (neurons == neuron)].min()
        assert theirs[sample, first, neuron] > 1 == ours[sample, first, neuron]


def test_a_page_keeps_what_was_not_measured():
    first, second = CASES[:2]
    old = {(c.package, c.neuron): (f"{c.package} 1.0", c.neuron, "none", *"1234567") for c in (first, second)}
    page = updated("before\n<!-- interop -->\n<!-- /interop -->\nafter\n", old)
    assert rows(page) == old
    again = {(first.package, first.neuron): (f"{first.package} 1.0", first.neuron, "none", *"98765", NOT_MEASURED, "0")}
    lines = rows(updated(page, again))
    assert lines[first.package, first.neuron][3:] == (*"98765", "6", "0")
    assert lines[second.package, second.neuron] == old[second.package, second.neuron]
    newer = {(first.package, first.neuron): (f"{first.package} 2.0", first.neuron, "none", *"98765", NOT_MEASURED, "0")}
    assert rows(updated(page, newer))[first.package, first.neuron][3:] == (*"98765", NOT_MEASURED, "0")
    assert page.startswith("before\n")
    assert page.endswith("after\n")


def test_the_page_has_a_line_of_every_case():
    assert list(rows(PAGE)) == [(case.package, case.neuron) for case in CASES]
