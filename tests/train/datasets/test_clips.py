"""Clips that stay on disk until they are asked for: their order and shares are known, and each is
read when it is wanted."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mksgn.train.config import TrainConfig
from mksgn.train.datasets import synthetic
from mksgn.train.datasets.clips import Clip, ClipSet, LazyClips, spread, spread_over
from mksgn.train.streams import StreamNormaliser
from mksgn.train.transforms import TrainingClips
from tests.support.tiers import examples

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(lambda labels: np.array(labels, dtype=np.int64))


class Shelf:
    """Clips that note each time that one is taken."""

    def __init__(self, clips):
        self.clips, self.reads = clips, []

    def read(self, index):
        self.reads.append(index)
        return self.clips[index]

    def lazy(self):
        return LazyClips([clip.label for clip in self.clips], self.read)


def blank(labels):
    return Shelf(
        [Clip(f"clip-{n}", int(label), np.zeros((1, 1, 25, 3), np.float32), "ntu-25") for n, label in enumerate(labels)]
    )


def as_set(clips):
    return ClipSet("shelf", "all", "train", "ntu-25", tuple("abcdef"), clips, ("a note",), True)


def names(clips):
    return [clip.name for clip in clips]


# lazy clips


def test_clips_are_read_when_they_are_asked_for_each_time():
    shelf = blank([2, 0, 1])
    clips = shelf.lazy()
    assert len(clips) == 3
    assert clips.labels.tolist() == [2, 0, 1]
    assert clips.labels.dtype == np.int64
    walk = iter(clips)
    assert shelf.reads == []
    assert next(walk) is shelf.clips[0]
    assert shelf.reads == [0]  # not the next one, too
    assert [clips[1], clips[-1], clips[np.int64(2)], clips[1]] == [shelf.clips[n] for n in (1, 2, 2, 1)]
    assert shelf.reads == [0, 1, 2, 2, 1]
    for outside in (3, -4):
        with pytest.raises(IndexError):
            clips[outside]
    assert shelf.reads == [0, 1, 2, 2, 1]


@given(LABELS, st.data())
@settings(max_examples=examples(60), deadline=None)
def test_slices_and_choices_of_choices_are_a_list_s_and_stay_unread(labels, data):
    shelf = blank(labels)
    lazy, plain = shelf.lazy(), list(shelf.clips)
    for _ in range(3):
        if data.draw(st.booleans()) or not plain:
            cut = data.draw(st.slices(len(plain)))
            lazy, plain = lazy[cut], plain[cut]
        else:
            chosen = data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=20))
            kind = data.draw(st.sampled_from([list, tuple, np.array]))
            lazy, plain = lazy.take(kind(chosen) if chosen else []), [plain[n] for n in chosen]
    assert isinstance(lazy, LazyClips)
    assert shelf.reads == []
    assert lazy.labels.tolist() == [clip.label for clip in plain]
    assert names(lazy) == names(plain) == [lazy[n].name for n in range(len(lazy))]
    assert len(shelf.reads) == 2 * len(plain)


def test_the_labels_of_a_set_are_known_before_its_clips():
    shelf = blank([3, 1, 1])
    lazy, plain = as_set(shelf.lazy()), as_set(shelf.clips)
    for clips in (lazy, plain):
        assert len(clips) == 3
        assert clips.labels.tolist() == [3, 1, 1]
        assert clips.labels.dtype == np.int64
    assert shelf.reads == []
    assert as_set([]).labels.dtype == np.int64


# selections


@given(LABELS, st.integers(1, 70))
@settings(max_examples=examples(100), deadline=None)
def test_a_selection_keeps_order_and_shares_and_reads_nothing(labels, limit):
    shelf = blank(labels)
    lazy, plain = spread(as_set(shelf.lazy()), limit), spread(as_set(shelf.clips), limit)
    assert shelf.reads == []
    assert lazy.labels.tolist() == plain.labels.tolist()
    assert names(lazy.clips) == names(plain.clips)
    for some in (lazy, plain):
        assert len(some) == len(set(names(some.clips))) == min(limit, len(labels))
        assert (some.source, some.split, some.part, some.classes, some.notes, some.validation) == (
            "shelf", "all", "train", tuple("abcdef"), ("a note",), True,
        )  # fmt: skip
    if limit < len(labels):
        order = [(clip.label, int(clip.name[5:])) for clip in plain.clips]
        assert order == sorted(order)  # by class, and within one as they came
        kept, whole = Counter(plain.labels.tolist()), Counter(labels.tolist())
        for label, count in whole.items():
            share = count * limit / len(labels)
            assert np.floor(share) - 1e-9 <= kept[label] <= np.ceil(share) + 1e-9
    else:
        assert names(plain.clips) == names(shelf.clips)


def test_a_selection_is_spread_over_its_class():
    """The middle ones of equal stretches: neither the first of the list nor neighbours."""
    labels = np.repeat([0, 1], 50)
    assert spread_over(labels, 4).tolist() == [12, 37, 62, 87]
    assert spread_over(labels, 1).tolist() == [50]
    mixed = np.tile([1, 0], 50)
    assert spread_over(mixed, 4).tolist() == [25, 75, 24, 74]
    assert spread_over(labels, 500).tolist() == list(range(100))


def test_no_limit_or_a_larger_one_leaves_the_set_alone():
    clips = as_set(blank([0, 1]).lazy())
    assert spread(clips, None) is clips
    assert spread(clips, 2) is clips
    assert spread(clips, 3) is clips


# training on them


@pytest.fixture(scope="module")
def figures():
    found = synthetic.read(12, "train").clips
    assert {len(clip.joints) for clip in found} == {1, 2}
    return found


def test_training_clips_of_a_lazy_set_are_those_of_a_list(figures):
    shelf = Shelf(figures)
    lazy, plain = TrainingClips(shelf.lazy()), TrainingClips(figures)
    assert shelf.reads == list(range(12))  # once each: they may lie on a disk
    assert torch.equal(lazy.joints, plain.joints)
    assert torch.equal(lazy.present, plain.present)
    assert torch.equal(lazy.labels, plain.labels)
    assert lazy.digests == plain.digests
    assert len(lazy.digests) == 12
    normaliser = StreamNormaliser.fit(figures, 8)
    batches = [
        data.batch(torch.arange(7), [normaliser], TrainConfig(), torch.Generator().manual_seed(1))
        for data in (lazy, plain)
    ]
    assert torch.equal(batches[0][0][0], batches[1][0][0])
    assert len(shelf.reads) == 12


def test_a_normaliser_is_fitted_on_lazy_clips_as_on_a_list(figures):
    shelf = Shelf(figures)
    assert StreamNormaliser.fit(shelf.lazy(), 8) == StreamNormaliser.fit(figures, 8)
    assert set(shelf.reads) == set(range(12))


def test_copies_are_found_among_lazy_clips(figures):
    shelf = Shelf(figures)
    assert TrainingClips(figures[:5]).copies(shelf.lazy()).tolist() == [True] * 5 + [False] * 7
