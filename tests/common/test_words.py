"""Plurals, and long lists cut short."""

from mksgn.common.words import counted, first_three


def test_a_number_with_its_noun():
    assert [counted(n, "core") for n in (0, 1, 1200)] == ["0 cores", "1 core", "1,200 cores"]
    assert [counted(2, noun) for noun in ("body", "mismatch")] == ["2 bodies", "2 mismatches"]


def test_at_most_three_names():
    assert first_three([]) == ""
    assert first_three(["a", "b", "c"]) == "a, b, c"
    assert first_three(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
