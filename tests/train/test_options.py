"""What --help says of the sources of clips is what their readers know."""

from mksgn.train.choices import SPLITS
from mksgn.train.datasets import SOURCES, ctrgcn_npz, ntu, nw_ucla, pyskl_pkl, synthetic, utd_mhad


def test_the_splits_are_those_of_the_readers():
    readers = {reader.SOURCE: tuple(reader.SPLITS) for reader in (nw_ucla, ctrgcn_npz, pyskl_pkl, utd_mhad)}
    assert {"synthetic": (synthetic.SPLIT,), "ntu": tuple(ntu.SPLITS), **readers} == SPLITS
    assert tuple(SOURCES) == tuple(SPLITS)


def test_the_default_is_a_benchmarks_own_split():
    assert SPLITS["nw-ucla"][0] not in nw_ucla.VALIDATION
    assert SPLITS["utd-mhad"][0] not in utd_mhad.VALIDATION
    assert not any(ntu.SPLITS[SPLITS[scheme][0]].validation for scheme in ("ntu", "pyskl"))
