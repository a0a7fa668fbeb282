"""Tables fit any width: nothing is cut, and no number is broken."""

import re

import pytest
from rich.console import Console

from mksgn.common.tables import table
from tests.support.printed_tables import first_cells, tables_of

HEADINGS = ("population", "unit", "bound by", "firing rate", "agreement with float", "largest sum", "worst")
ROWS = [
    (f"block{i}_attention.{product}", "2^-3", bound, "12.33%", "100.0000%", "1,234,567", "123,456,789")
    for i in range(3)
    for product, bound in (("m", "membrane"), ("z", "the sum of synaptic currents over all steps"))
]


def printed(width, rows=ROWS, headings=HEADINGS):
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as captured:
        console.print(table("8-bit weights", headings, rows, left=("bound by",)))
    return captured.get()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_no_line_is_longer_and_nothing_is_lost(width):
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    for part in tables_of(text):
        assert "".join(first_cells(part)) == "".join(row[0] for row in ROWS)
    for value in ("1,234,567", "123,456,789", "100.0000%", "12.33%", "2^-3"):
        assert text.count(value) == len(ROWS)
    words = " ".join(re.sub(r"[│┃]", " ", text).split())
    assert all(words.count(word) >= 3 for word in ("synaptic", "currents", "steps"))


def test_a_wide_terminal_has_one_part_of_one_line_a_row():
    text = printed(160)
    assert text.count("┏") == 1
    assert text.splitlines()[0].strip() == "8-bit weights"
    assert len(text.splitlines()) == 5 + len(ROWS)


@pytest.mark.parametrize("width", [30, 60])
def test_long_names_that_differ_at_their_end_still_do(width):
    names = [f"/a/very/long/path/of/a/network/whose/end/differs/model-{i}" for i in range(3)]
    text = printed(width, [(name, "1") for name in names], ("network", "cores"))
    assert max(map(len, text.splitlines())) <= width
    firsts = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│")]
    assert "".join(firsts) == "".join(names)


def test_a_table_without_rows():
    assert "population" in printed(80, [])
