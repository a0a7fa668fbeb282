"""Quotes of what a file gave are bounded, take no time, and do nothing to a terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.quoting import printable, quoted


def doubled(times):
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def itself():
    value: list = []
    value.append(value)
    return value


class Failing:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "make",
    [
        lambda: doubled(60),
        itself,
        lambda: 10**5000,
        lambda: -(10**9000),
        lambda: "x" * 10**6,
        Failing,
        lambda: [Failing()],
    ],
)
def test_any_value_has_a_short_quote(make):
    assert 0 < len(quoted(make())) <= 120
    assert quoted(make()).isprintable()


def test_what_needs_no_change_stays():
    assert quoted({"a": [1, 2.5, None]}) == "{'a': [1, 2.5, None]}"
    assert printable("Straße 日本, a b") == "Straße 日本, a b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[31m", r"\x1b[31m"), ("a\nb", r"a\nb"), ("\u202e", r"\u202e"), ("\udc80", r"\udc80"), ("\x9b", r"\x9b")],
)
def test_what_a_terminal_would_act_on_is_escaped(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_written_as_utf_8_on_one_line(text):
    shown = printable(text)
    assert len(shown.encode("utf-8").splitlines()) <= 1
    assert "\x1b" not in shown
