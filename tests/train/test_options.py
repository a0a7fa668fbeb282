"""What --help says of the sources of clips is what their readers know."""

from mksgn.train.datasets import SOURCES
from mksgn.train.options import SPLITS


def test_the_splits_are_those_of_the_readers():
    assert {name: source.splits for name, source in SOURCES.items()} == SPLITS
