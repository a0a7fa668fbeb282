"""JSON that is taken as Python's own parser takes it, and JSON that is refused in one line."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.json_text import DEPTH, DIGITS, parsed, read
from tests.support.refusals import refusal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)  # fmt: skip


@given(VALUES, st.booleans())
def test_what_json_writes_is_read_as_json_reads_it(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parsed(text, "file") == parsed(text.encode(), "file") == json.loads(text)


@pytest.mark.parametrize("text", ["[" * DEPTH + "]" * DEPTH, '{"a":' * DEPTH + '"[[[[\\"[["' + "}" * DEPTH])
def test_the_deepest_that_is_taken(text):
    parsed(text, "file")
    assert parsed(f'["{"[" * 99}", "{"{" * 99}"]', "file") == ["[" * 99, "{" * 99]
    # quotes and backslashes before brackets that are text
    tricky = ['\\"' * 3 + "[" * 99, "\\", "[" * 99, '"']
    assert parsed(json.dumps(tricky), "file") == tricky


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested 65 deep, the limit is 64"),
        ("[" * 20_000, "nested 20,000 deep"),
        ('{"a":' * 100_000, "nested 100,000 deep"),
        ('["\\\\",' * 70 + "1" + "]" * 70, "nested 70 deep"),
        ('{"a": 1, "b": 2, "a": 1}', "key 'a' is given twice"),
        ('{"b": [{"\\u001b[2J": 1, "\\u001b[2J": 2}]}', r"key '\x1b[2J' is given twice"),
        ("[1, NaN]", "NaN is not a JSON number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("1e999", "'1e999' is too large"),
        ("9" * 400 + ".0", "is too large"),
        ("1" * (DIGITS + 1), "a whole number of 41 digits, the limit is 40"),
        ("[-" + "1" * 5000 + "]", "a whole number of 5,001 digits"),
        ('"\\ud800"', "not UTF-8 text"),
        ('{"a\\uDFFF": 1}', "not UTF-8 text"),
        ("\ud800", "not UTF-8 text"),
        (b'"\xff"', "not UTF-8 text"),
        ('"a', "Unterminated string"),
        ('"' + '\\"' * 9 + "[" * 99, "Unterminated string"),
        ("", "Expecting value"),
        ('{"a": 1}x\n\n', "Extra data"),
        ("\ufeff1", "BOM"),
        ("\x001", "Expecting value"),
    ],
)
def test_what_is_refused(text, said):
    message = refusal(lambda: parsed(text, "R/run.json", "fetch it again"))
    assert message.startswith("R/run.json: ")
    assert said in message
    assert message.endswith("; fetch it again")
    assert len(message) < 300


def test_a_pair_of_surrogates_is_a_character():
    assert parsed('"\\ud83d\\ude00 \\\\ud800"', "file") == "😀 \\ud800"


def test_values_that_python_writes_and_json_lacks_are_taken_on_request():
    assert parsed("[Infinity, -Infinity, 1e999]", "file", nonfinite=True) == [float("inf"), -float("inf"), float("inf")]
    assert parsed("NaN", "file", nonfinite=True) != 0


def test_hostile_text_takes_no_longer_than_its_size():
    """Quotes and backslashes that no string closes: each start of a string would scan the rest again."""
    for text in ('"' + '\\"' * 500_000, '"' * 500_001, "\\" * 500_001, "[" * 1_000_000):
        begun = time.perf_counter()
        refusal(lambda text=text: parsed(text, "file"))
        assert time.perf_counter() - begun < 1


def test_a_file_is_bounded(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"a": 1}')
    assert read(path) == {"a": 1}
    assert "has 8 bytes, the limit is 7" in refusal(lambda: read(path, limit=7))
    assert "no such file" in refusal(lambda: read(tmp_path / "none.json"))
