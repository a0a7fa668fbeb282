"""The NW-UCLA reader on clips written here, and on the real ones where they are at hand; SOURCE's
grammar."""

import json
import re

import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import nw_ucla, open_source
from tests.support.paths import NW_UCLA
from tests.support.refusals import refusal

REAL = NW_UCLA
real_clips = pytest.mark.skipif(not REAL.is_dir(), reason="the NW-UCLA clips are not on this machine")


def write(folder, action=1, subject=1, episode=0, view=1, frames=3, *, edit=None, name=None):
    """One clip in the format of the field; `edit` changes the record before it is written."""
    name = name or f"a{action:02d}_s{subject:02d}_e{episode:02d}_v{view:02d}"
    joints = np.random.default_rng([action, subject, episode, view]).normal(size=(frames, 20, 3)).round(4)
    label = nw_ucla.ACTIONS.index(action) + 1 if action in nw_ucla.ACTIONS else action
    record = {"file_name": name, "label": label, "skeletons": joints.tolist()}
    if edit is not None:
        edit(record)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record))
    return path


@pytest.fixture
def clips(tmp_path):
    """Two views of each action by three subjects."""
    for action in nw_ucla.ACTIONS:
        for subject in (1, 2, 3):
            for view in (1, 2):
                write(tmp_path / "all_sqe", action, subject, view=view)
    return tmp_path


def refused(path_or_call):
    """The one line that reading is refused with."""
    return refusal(path_or_call if callable(path_or_call) else lambda: nw_ucla.read_clip(path_or_call))


def test_a_clip_holds_what_its_file_says(tmp_path):
    path = write(tmp_path, action=8, subject=9, view=2, frames=5)
    clip = nw_ucla.read_clip(path)
    assert (clip.name, clip.label, clip.subject, clip.view) == ("a08_s09_e00_v02", 6, 9, 2)
    assert clip.graph == "nw-ucla-20"
    assert clip.joints.dtype == np.float32
    written = np.array(json.loads(path.read_text())["skeletons"], dtype=np.float32)
    np.testing.assert_array_equal(clip.joints, written[None])


def test_integer_coordinates_and_one_frame_are_fine(tmp_path):
    path = write(tmp_path, frames=1, edit=lambda r: r.update(skeletons=[[[0, 1, 2]] * 20]))
    assert nw_ucla.read_clip(path).joints.shape == (1, 1, 20, 3)


def test_actions_become_classes_in_order(tmp_path):
    """Whether `label` counts the classes, as in the distributed files, or gives the action's own
    number."""
    for action, (label, name) in zip(nw_ucla.ACTIONS, enumerate(nw_ucla.CLASSES), strict=True):
        assert nw_ucla.read_clip(write(tmp_path, action)).label == label, name
        by_action = write(tmp_path, action, edit=lambda r, a=action: r.update(label=a))
        assert nw_ucla.read_clip(by_action).label == label, name


@pytest.mark.parametrize("inside", ["", "all_sqe"])
def test_a_part_is_its_views_sorted_by_name(clips, inside):
    train = nw_ucla.read(clips / inside, "view1-2", "train")
    test = nw_ucla.read(clips / inside, "view1-2", "test")
    both = nw_ucla.read(clips / inside, "xview", "train")
    assert (len(train), len(test), len(both)) == (30, 30, 60)
    assert {clip.view for clip in train.clips} == {1}
    assert {clip.view for clip in test.clips} == {2}
    names = [clip.name for clip in both.clips]
    assert names == sorted(names)
    assert (both.source, both.split, both.part, both.graph) == ("nw-ucla", "xview", "train", "nw-ucla-20")
    assert both.classes == nw_ucla.CLASSES
    np.testing.assert_array_equal(np.bincount(both.labels), [6] * 10)


def test_a_missing_folder_is_told_how_it_must_look(tmp_path):
    message = refused(lambda: nw_ucla.read(tmp_path / "nowhere", "xview", "test"))
    assert re.search(r"nowhere is not a folder.*all_sqe/a01_s01_e00_v01\.json", message)
    assert "holds no clip" in refused(lambda: nw_ucla.read(tmp_path, "xview", "test"))


def test_a_missing_view_is_named_with_the_split_that_works(clips):
    message = refused(lambda: nw_ucla.read(clips, "xview", "test"))
    assert re.search(r"no clip of view 3.*test part of split xview.*\*_v03\.json.*--split view1-2", message)


def test_unknown_splits_and_parts_are_refused(clips):
    assert "xview, view1-2" in refused(lambda: nw_ucla.read(clips, "xsub", "test"))
    assert "train or test" in refused(lambda: nw_ucla.read(clips, "xview", "val"))


def test_a_foreign_file_in_the_folder_is_not_skipped_in_silence(clips):
    (clips / "all_sqe" / "summary.json").write_text("{}")
    assert "aAA_sSS_eEE_vVV" in refused(lambda: nw_ucla.read(clips, "view1-2", "test"))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r["skeletons"].clear(), "0 frames, expected at least 1"),
        (lambda r: r.update(skeletons=[[[0.0] * 3] * 25] * 2), r"frame 0 \(from 0\) has 25 joints, expected 20"),
        (lambda r: r["skeletons"][2].pop(), r"frame 2 \(from 0\) has 19 joints, expected 20"),
        (lambda r: r["skeletons"].append("end"), r"frame 3 \(from 0\) has 0 joints"),
        (lambda r: r["skeletons"][1][4].pop(), r"frame 1, joint 4 \(left shoulder; both from 0\) has 2 coordinates"),
        (lambda r: r["skeletons"][1].__setitem__(4, 0.5), r"frame 1, joint 4 .* has 0 coordinates, expected 3"),
        (lambda r: r["skeletons"][2][7].__setitem__(0, float("nan")), r"frame 2, joint 7 \(left hand; .*: nan is not"),
        (lambda r: r["skeletons"][0][19].__setitem__(2, -float("inf")), r"frame 0, joint 19 \(right foot; .*: -inf"),
        (lambda r: r["skeletons"][0][0].__setitem__(1, 1e300), r"frame 0, joint 0 .*: 1e\+300 is not a finite"),
        (lambda r: r["skeletons"][0][0].__setitem__(1, 10**400), "a whole number of 401 digits"),
        (lambda r: r["skeletons"][0][0].__setitem__(1, 10**39), r"frame 0, joint 0 .* is not a finite"),
        (lambda r: r["skeletons"][0][3].__setitem__(1, None), r"frame 0, joint 3 \(head; .*: None is not a number"),
        (lambda r: r["skeletons"][0][3].__setitem__(1, "1.0"), r"frame 0, joint 3 .*: '1.0' is not a number"),
        (lambda r: r.update(skeletons=None), "skeletons is NoneType, expected a list of frames"),
        (lambda r: r.update(label=7), r"unknown label 7, expected 1 for action 1 \(pick up with one hand\)"),
        (lambda r: r.update(label="1"), "unknown label '1'"),
        (lambda r: r.update(label=True), "unknown label True"),
        (lambda r: r.pop("label"), "no key 'label'"),
        (lambda r: r.pop("skeletons"), "no key 'skeletons'"),
        (lambda r: r.update(file_name="a02_s01_e00_v01"), "file_name says 'a02_s01_e00_v01'"),
    ],
)
def test_a_faulty_clip_is_refused_with_the_place_of_the_fault(tmp_path, edit, message):
    path = write(tmp_path, edit=edit)
    assert re.search(rf"^{re.escape(str(path))}: .*{message}", refused(path))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"])
def test_what_is_not_json_is_refused(tmp_path, content):
    path = tmp_path / "a01_s01_e00_v01.json"
    path.write_bytes(content)
    assert re.search("not (JSON|UTF-8).*; fetch the file again", refused(path))


def test_json_that_is_not_an_object_is_refused(tmp_path):
    path = tmp_path / "a01_s01_e00_v01.json"
    path.write_text("[1, 2]")
    assert "no key 'file_name'" in refused(path)


def test_unknown_actions_names_and_files_are_refused(tmp_path):
    assert re.search("unknown action 7, expected one of 1, 2, .*12", refused(write(tmp_path, action=7)))
    assert "aAA_sSS_eEE_vVV" in refused(write(tmp_path, name="walk"))
    assert "no such file" in refused(tmp_path / "a01_s01_e00_v09.json")


def test_open_source_spreads_a_limit_over_the_classes(clips):
    whole = open_source(f"nw-ucla:{clips}", split="view1-2")
    assert len(whole) == 30
    assert len(open_source(f"nw-ucla:{clips}", split="view1-2", limit=99)) == 30
    for limit in (1, 7, 10, 15, 29):
        some = open_source(f"nw-ucla:{clips}", split="view1-2", limit=limit)
        again = open_source(f"nw-ucla:{clips}", split="view1-2", limit=limit, seed=5)
        names = [clip.name for clip in some.clips]
        assert names == [clip.name for clip in again.clips]
        assert len(set(names)) == limit
        assert np.ptp(np.bincount(some.labels, minlength=10)) <= 1


def test_subject_val_holds_out_people(clips):
    for subject in (8, 10):
        for view in (1, 2):
            write(clips / "all_sqe", subject=subject, view=view)
    parts = {part: nw_ucla.read(clips, "subject-val", part) for part in ("train", "test")}
    assert {part: {clip.subject for clip in found.clips} for part, found in parts.items()} == {
        "train": {1, 2, 3},
        "test": {8, 10},
    }
    assert [len(found) for found in parts.values()] == [60, 4]
    assert all(found.validation for found in parts.values())


def test_a_view_without_the_subjects_of_a_part_is_named(clips):
    message = refused(lambda: nw_ucla.read(clips, "subject-val", "test"))
    assert "no clip of view 1 by subjects 8 to 10, which the test part of split subject-val needs" in message


def test_open_source_takes_the_benchmarks_split_by_default(clips):
    assert len(open_source(f"nw-ucla:{clips}", part="train")) == 60
    with pytest.raises(BadInputError, match="view 3"):
        open_source(f"nw-ucla:{clips}")


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("kinetics:data", {}, r"'kinetics:data': use one of synthetic, nw-ucla:PATH"),
        ("", {}, "use one of synthetic, nw-ucla:PATH"),
        ("nw-ucla", {}, "must have the form nw-ucla:PATH"),
        ("nw-ucla:", {}, "must have the form nw-ucla:PATH"),
        ("synthetic:10", {}, "must have the form synthetic"),
        ("synthetic:", {}, "must have the form synthetic"),
        ("nw-ucla:here", {"split": "xsub"}, "no split 'xsub': use one of xview, view1-2, subject-val"),
        ("synthetic", {"split": "xview"}, "no split 'xview': use one of synthetic"),
        ("synthetic", {"part": "val"}, "no part 'val': use train or test"),
        ("synthetic", {"limit": 0}, "limit 0 .* at least 1"),
        ("nw-ucla:here", {"limit": -1}, "limit -1 .* at least 1"),
    ],
)
def test_open_source_refuses_what_does_not_exist(source, options, message):
    with pytest.raises(BadInputError, match=message):
        open_source(source, **options)


@pytest.mark.slow
@real_clips
def test_the_real_clips():
    train = nw_ucla.read(REAL, "view1-2", "train")
    test = nw_ucla.read(REAL / "all_sqe", "view1-2", "test")
    assert (len(train), len(test)) == (516, 504)
    lengths = {clip.name: clip.joints.shape[1] for clip in train.clips + test.clips}
    assert (min(lengths.values()), max(lengths.values())) == (1, 201)
    assert lengths["a02_s09_e04_v02"] == 1
    np.testing.assert_array_equal(np.unique(train.labels), np.arange(10))


@pytest.mark.slow
@real_clips
def test_the_real_clips_by_subject():
    by_subject = [nw_ucla.read(REAL, "subject-val", part) for part in ("train", "test")]
    assert [len(found) for found in by_subject] == [723, 297]
