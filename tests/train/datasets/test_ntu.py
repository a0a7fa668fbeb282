"""NTU RGB+D's names, classes, splits and published counts, on the whole list of its clips'
names."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import ntu
from mksgn.train.datasets.clips import check_selection
from mksgn.train.datasets.ntu import ClipName

# Who was recorded in which setup, read off public lists of clip names. Each pair has 60 actions, 3
# cameras, 2 replications.
SUBJECTS_60 = {
    1: (1, 2, 3, 4, 5, 6, 7, 8),
    2: (3, 7, 8, 9, 10, 11, 12, 13, 14),
    3: (1, 2, 7, 8, 15, 16, 17, 18, 19),
    4: (3, 7, 8, 20),
    5: (4, 10, 13, 15, 16, 17, 18, 21),
    6: (1, 7, 8, 15, 16, 17, 19, 22, 23, 24),
    7: (1, 7, 8, 15, 16, 17, 18, 19, 25, 26, 27, 28),
    8: (1, 7, 8, 15, 19, 25, 29, 30, 31, 32, 33, 34, 35, 36),
    9: (7, 8, 15, 16, 17, 19, 25),
    10: (7, 8, 13, 15, 16, 17, 18, 19, 21, 25),
    11: (1, 2, 7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 38),
    12: (7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37),
    13: (7, 8, 15, 16, 17, 18, 19, 25, 27, 28, 37),
    14: (7, 8, 15, 17, 19, 25, 27, 37, 39),
    15: (7, 8, 15, 16, 17, 19, 25, 37),
    16: (7, 8, 19, 21, 25, 39, 40),
    17: (3, 7, 8, 9, 15, 16, 17, 20),
}
PAIR_60 = 60 * 3 * 2
NAMES_60 = [
    ClipName(setup, camera, subject, replication, action)
    for setup, subjects in SUBJECTS_60.items()
    for camera, subject, replication, action in product((1, 2, 3), subjects, (1, 2), range(1, 61))
]
PARTS = ("train", "test")
clip_names = st.builds(
    ClipName, st.integers(1, 32), st.integers(1, 3), st.integers(1, 106), st.integers(1, 2), st.integers(1, 120)
)


def refused(call):
    with pytest.raises(BadInputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@given(clip_names)
def test_a_name_is_read_as_it_is_written(name):
    assert ClipName.parse(str(name)) == name
    assert name.label == name.action - 1


@given(st.lists(clip_names))
def test_names_sort_as_their_files_do(names):
    assert [str(name) for name in sorted(names)] == sorted(map(str, names))


def test_a_name_in_its_parts():
    name = ClipName.parse("S018C002P008R001A061")
    assert (name.setup, name.camera, name.subject, name.replication, name.action) == (18, 2, 8, 1, 61)


@pytest.mark.parametrize(
    "name", ["", "S1C1P1R1A1", "S001C001P001R001A001_rgb", "xS001C001P001R001A001", "S001C001P001R001A0٠1"]
)
def test_other_names_are_refused(name):
    assert "SsssCcccPpppRrrrAaaa" in refused(lambda: ClipName.parse(name))


@pytest.mark.parametrize("action", [0, 121])
def test_unknown_actions_are_refused(action):
    message = refused(lambda: ClipName.parse(f"S001C001P001R001A{action:03d}"))
    assert f"unknown action {action}, expected 1 to 120" in message


def test_classes_are_120_different_names_of_which_60_come_first():
    assert len(set(ntu.CLASSES)) == len(ntu.CLASSES) == 120
    # Landmarks of the official list; a name lost or doubled before one of them would shift it.
    landmarks = {1: "drink water", 10: "clap", 24: "kick something", 43: "fall", 50: "punch or slap other person"}
    landmarks |= {55: "hug other person", 60: "walk apart from each other", 61: "put on headphone", 80: "squat down"}
    landmarks |= {88: "take off bag", 99: "run on the spot", 106: "hit other person with something", 112: "high-five"}
    landmarks |= {120: "finger-guessing game"}
    assert {number: ntu.CLASSES[number - 1] for number in landmarks} == landmarks
    for split, known in ntu.SPLITS.items():
        assert ntu.classes(split) == ntu.CLASSES[: known.classes]


def test_the_list_of_names_is_that_of_ntu_60():
    assert len(NAMES_60) == len(set(NAMES_60)) == 56_880
    assert {name.subject for name in NAMES_60} == set(range(1, 41))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("split", ["xsub", "xview"])
def test_splits_of_ntu_60_have_the_published_counts(split, part):
    chosen, left_out = ntu.select(NAMES_60, split, part)
    published = ntu.PUBLISHED[split][part]
    assert len(chosen) == published.usable
    assert len(chosen) + left_out == published.recorded


@pytest.mark.parametrize("split", ["xsub", "xview", "xsub-val"])
def test_a_split_of_60_classes_takes_nothing_of_the_other_setups(split):
    for other in (ClipName(18, 1, 13, 1, 61), ClipName(18, 1, 13, 1, 1), ClipName(1, 1, 13, 1, 61)):
        assert ntu.SPLITS[split].part(other) is None


def test_missing_clips_are_the_authors_535_of_which_302_are_of_60_classes():
    missing = ntu.missing()
    first = [name for name in missing if name.setup <= 17]
    assert (len(missing), len(first)) == (535, 302)
    assert set(first) <= set(NAMES_60)
    assert {(name.setup <= 17, name.action <= 60) for name in missing} == {(True, True), (False, False)}
    listed = [line for line in ntu.MISSING.read_text().splitlines() if not line.startswith("#")]
    assert listed == sorted(map(str, missing))


@pytest.mark.parametrize("split", ["xsub120", "xset"])
def test_counts_of_ntu_120_agree_with_the_missing_clips(split):
    """Its list of names is not at hand; but usable and missing clips must add up to whole
    recordings, and to all of them."""
    recorded = 0
    for part in PARTS:
        published = ntu.PUBLISHED[split][part]
        missing = sum(ntu.SPLITS[split].part(name) == part for name in ntu.missing())
        assert published.recorded - published.usable == missing
        assert published.recorded % PAIR_60 == 0
        recorded += published.recorded
    assert recorded == 114_480


@pytest.mark.parametrize("split", ["xsub120", "xset"])
def test_splits_of_ntu_120_leave_the_second_half_whole_recordings(split):
    for part in PARTS:
        first = sum(ntu.SPLITS[split].part(name) == part for name in NAMES_60)
        assert first % PAIR_60 == 0
        assert 0 < first < ntu.PUBLISHED[split][part].recorded


def test_subjects_of_the_two_benchmarks_agree():
    small, large = ntu.SPLITS["xsub"], ntu.SPLITS["xsub120"]
    assert (len(small.train), len(small.test), len(large.train), len(large.test)) == (20, 20, 53, 53)
    assert sorted(large.train + large.test) == list(range(1, 107))
    assert [subject for subject in large.train if subject <= 40] == list(small.train)


def test_setups_are_divided_into_even_and_odd():
    assert ntu.SPLITS["xset"].train == tuple(range(2, 33, 2))
    assert ntu.SPLITS["xset"].test == tuple(range(1, 33, 2))


@pytest.mark.parametrize(("split", "whole"), [("xsub-val", "xsub"), ("xsub120-val", "xsub120")])
def test_validation_divides_the_training_subjects_only(split, whole):
    held_out, rest = ntu.SPLITS[split].test, ntu.SPLITS[split].train
    assert sorted(held_out + rest) == sorted(ntu.SPLITS[whole].train)
    assert ntu.SPLITS[split].classes == ntu.SPLITS[whole].classes
    assert ntu.SPLITS[split].validation  # and may be looked at during a training
    assert not ntu.SPLITS[whole].validation


def test_validation_holds_an_eighth_of_the_clips_and_all_classes():
    train, test = (ntu.select(NAMES_60, "xsub-val", part)[0] for part in PARTS)
    assert len(train) + len(test) == ntu.PUBLISHED["xsub"]["train"].usable
    assert 0.10 < len(test) / (len(train) + len(test)) < 0.15
    assert {name.label for name in test} == {name.label for name in train} == set(range(60))


@given(st.lists(clip_names, unique=True), st.sampled_from(sorted(ntu.SPLITS)))
def test_no_clip_is_in_both_parts_and_none_is_missing(names, split):
    train, test = (ntu.select(names, split, part)[0] for part in PARTS)
    assert not set(train) & set(test)
    assert not set(train + test) & ntu.missing()
    assert train == sorted(train)
    if ntu.SPLITS[split].classes == 120 and "val" not in split:
        assert set(train + test) == set(names) - ntu.missing()


def test_notes_compare_with_the_published_count():
    assert ntu.count_note("xsub", "train", 1200) == "split xsub, train: 1,200 clips, published 40,091"
    assert "our own" in ntu.count_note("xsub-val", "test", 12)
    assert "302" in ntu.missing_note(302)


def test_unknown_splits_and_parts_are_refused():
    assert "use one of xsub, xview, xsub-val, xsub120, xset" in refused(
        lambda: check_selection("ntu", ntu.SPLITS, "xsetup", "test")
    )
    assert "train or test" in refused(lambda: check_selection("ntu", ntu.SPLITS, "xsub", "val"))
