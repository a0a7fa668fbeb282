"""mksgn/common/limits: three states, of which only limits that are all published give the first."""

from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.limits import SHOWN, Fit

ROWS = st.lists(
    st.tuples(st.text(min_size=1, max_size=3), st.integers(0, 9), st.none() | st.integers(0, 9)), max_size=6
)


@given(ROWS)
def test_a_network_fits_only_if_every_limit_is_known_and_kept(rows):
    fit = Fit.of(rows)
    kept = all(limit is not None and value <= limit for _, value, limit in rows)
    assert (fit.state == "fits") == kept
    assert (fit.state == "exceeds") == any(limit is not None and value > limit for _, value, limit in rows)
    assert ("NOT CHECKED" in fit.text("c")) == any(limit is None for _, _, limit in rows)


def test_the_three_states_in_words():
    known, unknown, over = ("neurons", 3, 4), ("axons", 80_000, None), ("bits", 9_000, 8)
    assert Fit.of([known]).text("c") == "fits c"
    assert Fit.of([known, unknown]).text("c") == "fits what is published of c; NOT CHECKED, no limit published: axons"
    assert Fit.of([over, unknown]).text("c") == ("exceeds c: bits (9,000 of 8); NOT CHECKED, no limit published: axons")


def test_the_violations_of_a_whole_program_are_named_and_counted():
    assert Fit.of([("neurons", 3, 4)], ["a: no"]).text("c") == "exceeds c: a: no"
    many = [f"v{i}" for i in range(SHOWN + 2)]
    assert Fit.of([], many).text("c") == "exceeds c: v0; v1; v2; and 2 more"
