"""YAML that is taken as PyYAML takes it, and YAML that is refused in one line, soon."""

import itertools
import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import mksgn
from mksgn.common.json_text import DEPTH
from mksgn.common.yaml_text import NODES, parsed, read
from tests.support.refusals import refusal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
NAMES = "abcdefghijklmnopqrstu"


@given(VALUES)
def test_what_yaml_writes_is_read_back(value):
    assert parsed(yaml.safe_dump(value), "file") == value


@given(st.dictionaries(st.text("ab:#&*{}[]\"\\\n ,?-'!%@"), st.integers() | st.text("ab:#&*{}[]\"\\\n ,?-'!%@")))
def test_what_json_writes_is_read(value):
    assert parsed(json.dumps(value), "file") == value


@pytest.mark.parametrize("path", sorted(Path(mksgn.__file__).parent.glob("**/*.yaml")), ids=lambda path: path.name)
def test_the_files_of_the_package(path):
    assert read(path) == yaml.safe_load(path.read_text())


def test_aliases_and_merges_are_taken():
    text = "base: &b {x: 1, z: [1]}\nmid: &m {<<: *b, x: 2}\ntop: {<<: *m, y: 1}\nlast: [*b, *b]"
    assert parsed(text, "file") == yaml.safe_load(text)


def test_a_date_is_the_text_that_it_is():
    assert parsed("a: 2026-12-03\nb: 2026-13-45", "file") == {"a": "2026-12-03", "b": "2026-13-45"}


def test_no_document_is_none():
    assert parsed("", "file") is None
    assert parsed("# nothing\n---\n", "file") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 20_000, "nested more than 64 deep"),
        ("{" * (DEPTH + 1) + "}" * (DEPTH + 1), "nested more than 64 deep"),
        ("- " * 1_000_000 + "x", "nested more than 64 deep"),
        ("\n".join(" " * i + "a:" for i in range(3000)), "nested more than 64 deep"),
        ("a: 1\nb: {c: 1, c: 2}", "line 2, column 11: key 'c' is given twice"),
        ("a: 1\n'a': 2", "line 2, column 1: key 'a' is given twice"),
        ("a: &a [*a]", "'a' contains itself"),
        ("a: *b", "line 1, column 4: found undefined alias"),
        ("a: !!python/object/apply:os.getcwd []", "line 1, column 4: could not determine a constructor"),
        ("a: !!timestamp x", "could not determine a constructor"),
        ("a: !!binary abc", "could not determine a constructor"),
        ("a: !ours x", "could not determine a constructor"),
        ("a: !!bool x", "not YAML"),
        ("a: !!int x", "invalid literal"),
        ("a: !!float ''", "not YAML"),
        ("a: " + "1" * 5000, "a whole number of 5,000 digits, the limit is 40"),
        ("a: 0x" + "f" * 5000, "a whole number of 5,002 digits"),
        ("a: 1" + ":59" * 3000 + ".5", "int too large"),
        ("a:\n\t- 1", "line 2, column 1: found character that cannot start any token"),
        ("a: 1\n---\nb: 2", "found another document"),
        ("[1, 2", "did not find expected"),
        ("? [a]\n: 1", "unhashable key"),
        ("<<: 3", "expected a mapping"),
        ("a: \x00", "unacceptable character"),
        ('a: "\\ud800"', "not YAML"),
        ("a: \udcff", "surrogates not allowed"),
        ("".join(f"%TAG !a{i}! tag:x{i}\n" for i in range(300_000)) + "--- x", "more than 10 lines that start with %"),
    ],
)
def test_what_is_refused(text, said):
    begun = time.perf_counter()
    message = refusal(lambda: parsed(text, "chips.yaml"))
    assert time.perf_counter() - begun < 2
    assert message.startswith("chips.yaml: not YAML (")
    assert said in message
    assert len(message) < 400


def test_what_aliases_repeat_is_counted():
    """Nine references to nine references and so on: 9^21 values in 700 bytes."""
    rows = ["a: &a [" + "x, " * 9 + "]"]
    rows += [f"{name}: &{name} [{f'*{before}, ' * 9}]" for before, name in itertools.pairwise(NAMES)]
    assert f"more than {NODES:,} values" in refusal(lambda: parsed("\n".join(rows), "file"))


@pytest.mark.slow  # as long as the limit is high
def test_long_files_are_refused():
    assert f"more than {NODES:,} values" in refusal(lambda: parsed("- 1\n" * (NODES + 1), "file"))


def test_files_are_opened_as_files_are(tmp_path):
    assert "is a directory" in refusal(lambda: read(tmp_path))
    path = tmp_path / "chips.yaml"
    path.write_bytes(b"a: \xff")
    assert "is not UTF-8 (byte 3)" in refusal(lambda: read(path))
    path.write_text("a: 1")
    assert "has 4 bytes, the limit is 3" in refusal(lambda: read(path, limit=3))
