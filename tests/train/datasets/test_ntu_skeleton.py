"""The reader of raw NTU files on files written here: its format, its choice of bodies against a
slow copy, its notes."""

import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import ntu, ntu_skeleton
from mksgn.train.datasets.clips import spread
from tests.support.skeleton_files import write_skeleton
from tests.support.tiers import examples

NAME = "S003C002P017R001A055"
A, B, C = 72057594037931101, 72057594037931102, 72057594037931103  # one number to a double
properties = settings(
    max_examples=examples(50),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def body(seed, frames=20, *, wide=(), amount=0.05, place=(0.0, 0.0, 3.0)):
    """(frames, 25, 3) float32: 1.7 m tall, 0.5 m wide, trembling by `amount`; lying where it is
    `wide`."""
    rng = np.random.default_rng(seed)
    rest = rng.uniform(size=(25, 3)) * (0.5, 1.7, 0.3)
    rest[:2] = ((0, 0, 0), (0.5, 1.7, 0.3))  # so that width and height are what is said
    joints = np.repeat(rest[None], frames, axis=0)
    joints[list(wide)] = joints[list(wide)][..., [1, 0, 2]]
    joints += amount * rng.normal(size=(frames, 1, 3)) + np.array(place)
    return joints.astype(np.float32)


def frames_of(count, *tracks):
    """Frames of a file from tracks (id, frames in which it is, (n, 25, 3) joints)."""
    frames = [[] for _ in range(count)]
    for identity, where, joints in tracks:
        for frame, pose in zip(where, joints, strict=True):
            frames[frame].append((identity, pose))
    return frames


def read_back(tmp_path, frames, newline="\n"):
    return ntu_skeleton.read_clip(write_skeleton(tmp_path / f"{NAME}.skeleton", frames, newline))


def refused(call):
    """The one line that reading is refused with."""
    with pytest.raises(BadInputError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def slow(frames):
    """The rules of the reader's docstring, one number after the other; None where nobody is
    left."""
    frames = [frame for frame in frames if frame]
    bodies = {}
    for f, frame in enumerate(frames):
        for identity, pose in frame:
            bodies.setdefault(identity, {"first": f, "poses": []})["poses"].append(pose)

    def motion(poses):
        points = np.concatenate(poses)
        return float(points.var(axis=0).sum())

    for each in bodies.values():
        each["motion"] = motion(each["poses"])
    if len(bodies) > 1:
        for identity in list(bodies):
            if len(bodies[identity]["poses"]) <= 11:
                del bodies[identity]
        for identity in list(bodies):
            if len(bodies) == 1:
                break
            poses, good = bodies[identity]["poses"], []
            for pose in poses:
                if max(pose[:, 0]) - min(pose[:, 0]) <= 0.8 * (max(pose[:, 1]) - min(pose[:, 1])):
                    good.append(pose)
            if (len(poses) - len(good)) / len(poses) >= 0.69754:
                del bodies[identity]
            elif len(good) < len(poses):
                bodies[identity]["motion"] = min(bodies[identity]["motion"], motion(good))
    if not bodies:
        return None
    order = sorted(bodies.values(), key=lambda each: each["motion"], reverse=True)
    stage = [[None, None] for _ in frames]
    occupied = []
    for each in order:
        first, last = each["first"], each["first"] + len(each["poses"]) - 1
        for actor in (0, 1):
            if actor == len(occupied):
                occupied.append([0, 0] if actor else [first, first])
            low, high = occupied[actor]
            if min(high, last) - max(low, first) <= 0:
                for offset, pose in enumerate(each["poses"]):
                    stage[first + offset][actor] = pose
                occupied[actor] = [min(low, first), max(high, last)]
                break
    stage = [pair for pair in stage if any(pose is not None for pose in pair)]
    origin = next(pair[0][1] for pair in stage if pair[0] is not None)
    result = np.zeros((2, len(stage), 25, 3), dtype=np.float32)
    for t, pair in enumerate(stage):
        for actor, pose in enumerate(pair):
            if pose is not None:
                result[actor, t] = pose - origin
    return result if any(pair[1] is not None for pair in stage) else result[:1]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_one_body_is_read_as_written_about_its_first_middle_of_the_spine(tmp_path, newline):
    joints = body(1, 5)
    clip = read_back(tmp_path, frames_of(5, (A, range(5), joints)), newline)
    assert (clip.name, clip.label, clip.subject, clip.view, clip.graph) == (NAME, 54, 17, 2, "ntu-25")
    assert clip.joints.dtype == np.float32
    np.testing.assert_array_equal(clip.joints, (joints - joints[0, 1])[None])


def test_coordinates_round_trip_exactly(tmp_path):
    """Origin 0, so that nothing is subtracted: every float32 comes back as it was."""

    @properties
    @given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=72, max_size=72))
    def check(values):
        joints = np.zeros((1, 25, 3), dtype=np.float32)
        joints[0, [0, *range(2, 25)]] = np.array(values, dtype=np.float32).reshape(24, 3)
        joints[0, 0, 0] = 1.0
        np.testing.assert_array_equal(read_back(tmp_path, frames_of(1, (A, [0], joints))).joints, joints[None])

    check()


def test_frames_without_bodies_are_dropped(tmp_path):
    joints = body(2, 4)
    clip = read_back(tmp_path, frames_of(9, (A, [1, 2, 6, 7], joints)))
    np.testing.assert_array_equal(clip.joints, (joints - joints[0, 1])[None])


def test_two_bodies_are_sorted_by_motion_and_0_where_absent(tmp_path):
    calm, lively = body(3, 15, amount=0.02), body(4, 20, amount=0.2, place=(1, 0, 3))
    clip = read_back(tmp_path, frames_of(25, (A, range(15), calm), (B, range(5, 25), lively)))
    origin = lively[0, 1]
    assert clip.joints.shape == (2, 25, 25, 3)
    np.testing.assert_array_equal(clip.joints[0, 5:], lively - origin)
    np.testing.assert_array_equal(clip.joints[1, :15], calm - origin)
    assert not clip.joints[0, :5].any()
    assert not clip.joints[1, 15:].any()


def test_ids_that_are_one_number_to_a_double_are_two_bodies(tmp_path):
    assert float(A) == float(B)
    clip = read_back(tmp_path, frames_of(20, (A, range(20), body(5)), (B, range(20), body(6))))
    assert len(clip.joints) == 2


def test_a_body_that_is_seen_too_shortly_is_noise_unless_it_is_the_only_one(tmp_path):
    joints, brief = body(7), body(8, 11, amount=0.5)
    assert len(read_back(tmp_path, frames_of(20, (A, range(20), joints), (B, range(11), brief))).joints) == 1
    longer = body(8, 12, amount=0.5)
    assert len(read_back(tmp_path, frames_of(20, (A, range(20), joints), (B, range(12), longer))).joints) == 2
    assert read_back(tmp_path, frames_of(11, (B, range(11), brief))).joints.shape == (1, 11, 25, 3)


@pytest.mark.parametrize(("wide", "bodies"), [(13, 2), (14, 1)])
def test_a_body_that_is_mostly_wider_than_tall_is_noise(tmp_path, wide, bodies):
    """13 of 20 are a share of 0.65, 14 are 0.7; the limit is 0.69754."""
    table = body(9, wide=range(wide), amount=1.0)
    clip = read_back(tmp_path, frames_of(20, (A, range(20), body(10)), (B, range(20), table)))
    assert len(clip.joints) == bodies


def test_the_last_body_stays_even_if_it_is_wide(tmp_path):
    first, second = (body(seed, wide=range(20)) for seed in (11, 12))
    clip = read_back(tmp_path, frames_of(20, (A, range(20), first), (B, range(20), second)))
    np.testing.assert_array_equal(clip.joints, (second - second[0, 1])[None])


def test_motion_is_of_frames_that_are_not_wide(tmp_path):
    """A jump of 5 m in wide frames would make `upset` the main actor."""
    upset, calm = body(13, wide=range(10), amount=0.02), body(14, amount=0.1)
    upset[:10] += 5.0
    clip = read_back(tmp_path, frames_of(20, (A, range(20), upset), (B, range(20), calm)))
    np.testing.assert_array_equal(clip.joints[0], calm - calm[0, 1])
    np.testing.assert_array_equal(clip.joints[1], upset - calm[0, 1])


def test_leaving_wide_frames_out_never_raises_the_motion(tmp_path):
    """`partly` moves by 1 m in its good frames and rests in the middle of them in as many wide
    ones."""
    partly, steady = body(13, wide=range(10), amount=0.0), body(14, amount=0.0)
    partly[10:, :, 2] += np.where(np.arange(10) % 2, 1.0, -1.0)[:, None].astype(np.float32)
    steady[:, :, 2] += np.where(np.arange(20) % 2, 0.87, -0.87)[:, None].astype(np.float32)

    def motion(joints):
        return joints.reshape(-1, 3).var(axis=0).sum()

    assert motion(partly) < motion(steady) < motion(partly[10:])
    clip = read_back(tmp_path, frames_of(20, (A, range(20), partly), (B, range(20), steady)))
    np.testing.assert_array_equal(clip.joints[0], steady - steady[0, 1])


def test_a_person_who_gets_a_new_id_stays_one_actor(tmp_path):
    before, after = body(15, 15, amount=0.1), body(16, 15, amount=0.05)
    clip = read_back(tmp_path, frames_of(30, (A, range(15), before), (B, range(15, 30), after)))
    np.testing.assert_array_equal(clip.joints, (np.concatenate([before, after]) - before[0, 1])[None])


def test_in_a_shared_frame_the_smaller_motion_stays(tmp_path):
    before, after = body(15, 15, amount=0.1), body(16, 15, amount=0.05)
    clip = read_back(tmp_path, frames_of(29, (A, range(15), before), (B, range(14, 29), after)))
    np.testing.assert_array_equal(clip.joints, (np.concatenate([before[:14], after]) - before[0, 1])[None])


def test_a_third_body_that_overlaps_both_actors_is_dropped(tmp_path):
    first, second, third = (body(seed, amount=amount) for seed, amount in ((17, 0.3), (18, 0.2), (19, 0.1)))
    everyone = frames_of(20, (A, range(20), first), (B, range(20), second), (C, range(20), third))
    both = frames_of(20, (A, range(20), first), (B, range(20), second))
    np.testing.assert_array_equal(read_back(tmp_path, everyone).joints, read_back(tmp_path, both).joints)


def test_an_id_that_reappears_closes_its_gap(tmp_path):
    """As CTR-GCN does: the frames of one id follow each other from its first."""
    there, comes_and_goes = body(20, 40, amount=0.3), body(21, 20)
    where = [*range(10), *range(30, 40)]
    clip = read_back(tmp_path, frames_of(40, (A, range(40), there), (B, where, comes_and_goes)))
    np.testing.assert_array_equal(clip.joints[1, :20], comes_and_goes - there[0, 1])
    assert not clip.joints[1, 20:].any()


tracks = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 30), st.integers(1, 25)), min_size=1, max_size=3),  # stretches: start, length
        st.sampled_from([0.0, 0.3, 0.65, 0.7, 1.0]),  # share of wide frames
        st.sampled_from([0.01, 0.1, 0.5]),  # amount of motion
    ),
    min_size=0,
    max_size=5,
)


def drawn_frames(drawn, seed, *, wide=True):
    all_tracks = []
    for number, (stretches, share, amount) in enumerate(drawn):
        where = sorted({frame for start, length in stretches for frame in range(start, start + length)})
        lying = range(round(share * len(where))) if wide else ()
        all_tracks.append((A + number, where, body([seed, number], len(where), wide=lying, amount=amount)))
    return frames_of(55, *all_tracks)


def test_bodies_are_chosen_as_the_slow_copy_chooses(tmp_path):
    seen = set()

    @settings(properties, max_examples=examples(200))
    @given(tracks, st.integers(0, 2**16))
    def check(drawn, seed):
        frames = drawn_frames(drawn, seed)
        expected = slow(frames)
        seen.add(None if expected is None else len(expected))
        if expected is None:
            assert "remove the file" in refused(lambda: read_back(tmp_path, frames))
        else:
            np.testing.assert_array_equal(read_back(tmp_path, frames).joints, expected)

    check()
    assert seen == {None, 1, 2}


def test_neither_line_ends_nor_the_order_of_bodies_matter(tmp_path):
    @properties
    @given(tracks, st.integers(0, 2**16), st.randoms(use_true_random=False))
    def check(drawn, seed, random):
        frames = drawn_frames(drawn, seed, wide=False)  # of bodies that are all wide the last in order stays
        if slow(frames) is None:
            return
        expected = read_back(tmp_path, frames).joints
        np.testing.assert_array_equal(read_back(tmp_path, frames, "\r\n").joints, expected)
        shuffled = [random.sample(frame, len(frame)) for frame in frames]
        np.testing.assert_array_equal(read_back(tmp_path, shuffled).joints, expected)

    check()


def test_a_whole_that_is_moved_reads_the_same_to_rounding(tmp_path):
    @properties
    @given(tracks, st.integers(0, 2**16))
    def check(drawn, seed):
        frames = drawn_frames(drawn, seed, wide=False)
        if slow(frames) is None:
            return
        moved = [[(identity, pose + np.float32(0.5)) for identity, pose in frame] for frame in frames]
        here, there = read_back(tmp_path, frames).joints, read_back(tmp_path, moved).joints
        assert here.shape == there.shape
        np.testing.assert_allclose(there, here, atol=1e-5)

    check()


def small_clip(tmp_path, newline="\n"):
    joints = body(22, 3)
    frames = [[(A, joints[0])], [], [(A, joints[1]), (B, joints[2])]]
    return write_skeleton(tmp_path / f"{NAME}.skeleton", frames, newline)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_file_cut_after_any_line_or_number_is_refused(tmp_path, newline):
    path = small_clip(tmp_path, newline)
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in range(len(lines)):
        path.write_bytes(b"".join(lines[:kept]))
        assert re.search(r"ends (before the number of|within body)", refused(lambda: ntu_skeleton.read_clip(path)))
    numbers = b"".join(lines).split()
    for kept in range(len(numbers)):
        path.write_bytes(b" ".join(numbers[:kept]))
        assert "ends" in refused(lambda: ntu_skeleton.read_clip(path))


def test_the_place_of_a_cut_is_told(tmp_path):
    path = small_clip(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:40]))
    message = refused(lambda: ntu_skeleton.read_clip(path))
    assert message == f"{path}: ends within body 0 in frame 2 (both from 0): unpack the file again or remove it"


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, "0", "0 frames, expected at least 1"),
        (0, "-3", "'-3' is not the number of frames, expected a whole number"),
        (0, "9" * 5000, "is not the number of frames"),
        (0, "2", "numbers follow its last frame, expected 0"),
        (0, "4", r"ends before the number of bodies in frame 3 of 4 \(from 0\)"),
        (1, "one", r"'one' is not the number of bodies in frame 0 of 3 \(from 0\)"),
        (1, "2", "body 1 in frame 0"),
        (2, f"{A} 0 1 1 0 0 0 0.25 -0.5", "number of joints of body 0 in frame 0"),  # 9 numbers
        (3, "20", r"body 0 in frame 0 \(both from 0\) has 20 joints, expected 25"),
        (4, "nan 0 3 0 0 0 0 1 0 0 0 2", "coordinate 'nan' is not a finite number of metres"),
        (4, "0 -inf 3 0 0 0 0 1 0 0 0 2", "coordinate '-inf' is not a finite number"),
        (4, "0 0 1e39 0 0 0 0 1 0 0 0 2", "coordinate '1e39' is not a finite number"),
        (4, "0 0 -1.1e6 0 0 0 0 1 0 0 0 2", "coordinate '-1.1e6' .* metres, expected at most 1,000,000"),
        (4, "0 x 3 0 0 0 0 1 0 0 0 2", "coordinate 'x' is not a finite number"),
        (4, "0 \u00ff 3 0 0 0 0 1 0 0 0 2", "is not a finite number"),
        (4, "0 0 3 0 0 0 0 1 0 0 2", "is not the number of bodies in frame 1|ends|'[^']*' is not"),  # 11 numbers
        (29, "7", "body"),  # the empty frame claims bodies
        (58, f"{A} 0 1 1 0 0 0 0.25 -0.5 2", r"body 1 in frame 2 .* has the id of another body in the frame"),
    ],
)
def test_malformed_files_are_refused_with_the_fault(tmp_path, line, text, message):
    path = small_clip(tmp_path)
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines), encoding="latin-1")
    told = refused(lambda: ntu_skeleton.read_clip(path))
    assert re.search(message, told), told
    assert told.startswith(f"{path}: ")


@properties
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(tmp_path, content):
    path = tmp_path / f"{NAME}.skeleton"
    path.write_bytes(content)
    refused(lambda: ntu_skeleton.read_clip(path))


def test_clips_without_anybody_are_refused(tmp_path):
    assert "no body: remove" in refused(lambda: read_back(tmp_path, [[], []]))
    zeros = np.zeros((3, 25, 3))
    assert "every coordinate" in refused(lambda: read_back(tmp_path, frames_of(3, (A, range(3), zeros))))
    brief = frames_of(11, (A, range(11), body(1, 11)), (B, range(11), body(2, 11)))
    assert "each of 2 bodies is seen in at most 11 frames" in refused(lambda: read_back(tmp_path, brief))


def test_a_name_of_another_form_or_no_file_is_refused(tmp_path):
    path = write_skeleton(tmp_path / "clip.skeleton", frames_of(1, (A, [0], body(1, 1))))
    assert "SsssCcccPpppRrrrAaaa" in refused(lambda: ntu_skeleton.read_clip(path))
    assert "No such file" in refused(lambda: ntu_skeleton.read_clip(tmp_path / f"{NAME}.skeleton"))


@pytest.fixture
def clips(tmp_path):
    """Two training subjects and one test subject, three cameras, three actions of 60 classes; two
    more of 120."""
    for setup, subject, action in [
        *((1, subject, action) for subject in (1, 2, 3) for action in (2, 1, 50)),
        *((18, subject, action) for subject in (8, 41) for action in (61, 120)),
    ]:
        for camera in (1, 2, 3):
            write(tmp_path, f"S{setup:03d}C{camera:03d}P{subject:03d}R001A{action:03d}")
    return tmp_path


def write(folder, name, frames=3):
    return write_skeleton(folder / f"{name}.skeleton", frames_of(frames, (A, range(frames), body(1, frames))))


def names(clip_set):
    return [clip.name for clip in clip_set.clips]


@pytest.mark.parametrize(
    ("split", "part", "count", "classes"),
    [
        ("xsub", "train", 18, 60),
        ("xsub", "test", 9, 60),
        ("xview", "train", 18, 60),
        ("xview", "test", 9, 60),
        ("xsub120", "train", 24, 120),
        ("xsub120", "test", 15, 120),
        ("xset", "train", 12, 120),
        ("xset", "test", 27, 120),
        ("xsub-val", "train", 18, 60),
    ],
)
def test_a_part_is_its_files_sorted_by_name(clips, split, part, count, classes):
    found = ntu_skeleton.read(clips, split, part)
    assert (found.source, found.split, found.part, found.graph) == ("ntu", split, part, "ntu-25")
    assert found.classes == ntu.CLASSES[:classes]
    assert names(found) == sorted(names(found))
    assert len(found) == count
    assert all(ntu.SPLITS[split].part(ntu.ClipName.parse(name)) == part for name in names(found))
    assert found.notes == (ntu.count_note(split, part, count),)


@pytest.mark.parametrize("limit", [1, 5, 17, 18, 100])
def test_a_limit_takes_what_spread_would_and_reads_no_more(clips, monkeypatch, limit):
    whole = ntu_skeleton.read(clips, "xsub", "train")
    read = []
    one = ntu_skeleton.read_clip
    monkeypatch.setattr(ntu_skeleton, "read_clip", lambda path: read.append(path) or one(path))
    some = ntu_skeleton.read(clips, "xsub", "train", limit)
    assert names(some) == names(spread(whole, limit))
    assert len(read) == min(limit, 18)
    assert some.notes == whole.notes


@pytest.mark.parametrize("inner", ["nturgb+d_skeletons", "nturgb+d_skeletons60", "nturgbd_skeletons_s001_to_s017"])
def test_files_may_lie_one_folder_deeper(clips, inner):
    whole = names(ntu_skeleton.read(clips, "xsub120", "test"))
    (clips / inner).mkdir()
    for file in list(clips.glob("*P041*")):
        file.rename(clips / inner / file.name)
    for file in list(clips.glob("*P003*")):
        (clips / inner / file.name).write_bytes(b"the folder's own file comes first")
    assert names(ntu_skeleton.read(clips, "xsub120", "test")) == whole


def test_bad_files_are_skipped_counted_and_named(clips):
    for camera in (1, 2, 3):
        (clips / f"S001C{camera:03d}P001R001A001.skeleton").write_bytes(b"3\r\n1\r\n")
    (clips / "S001C001P001R001A002.skeleton").write_bytes(b"")
    write_skeleton(clips / "S001C001P002R001A050.skeleton", [[], []])
    (clips / "notes.skeleton").write_bytes(b"")
    found = ntu_skeleton.read(clips, "xsub", "train")
    assert len(found) == 13
    assert found.notes == (
        "split xsub, train: 18 clips, published 40,091",
        "1 file skipped for a name that is not a clip's: notes",
        "4 files skipped as truncated or malformed: S001C001P001R001A001, S001C001P001R001A002, "
        "S001C002P001R001A001 and 1 more",
        "1 file skipped because no body is left: S001C001P002R001A050",
    )


def test_clips_with_missing_skeletons_are_left_out(clips):
    write(clips, "S001C002P005R002A008")
    found = ntu_skeleton.read(clips, "xsub", "train")
    assert "S001C002P005R002A008" not in names(found)
    assert found.notes[1] == ntu.missing_note(1)


def test_a_part_of_bad_files_only_is_refused_with_the_first_fault(tmp_path):
    for camera in (2, 3):
        (tmp_path / f"S001C{camera:03d}P001R001A001.skeleton").write_bytes(b"3")
    message = refused(lambda: ntu_skeleton.read(tmp_path, "xview", "train"))
    assert re.search(
        r"none of 2 files can be used; the first is .*S001C002P001R001A001\.skeleton: ends before", message
    )


def test_missing_folders_and_parts_are_told_how_to_get_the_data(clips):
    how = r"ROSE lab's site, unpack nturgbd_skeletons_s001_to_s017\.zip .*s018_to_s032\.zip"
    assert re.search("nowhere is not a folder: .*" + how, refused(lambda: ntu_skeleton.read("nowhere", "xsub", "test")))
    (clips / "empty").mkdir()
    message = refused(lambda: ntu_skeleton.read(clips / "empty", "xsub", "test"))
    assert re.search("empty holds no clip: .*" + how, message)
    message = refused(lambda: ntu_skeleton.read(clips, "xsub-val", "test"))
    assert re.search(
        r"none of 39 files can be used for the test part of split xsub-val \(subject 13, 18, 28, 35\).*" + how, message
    )
    assert "http" not in message


def test_a_home_that_is_not_there_is_a_missing_folder():
    assert "is not a folder" in refused(lambda: ntu_skeleton.read("~nobody-of-this-name/ntu", "xsub", "test"))


def test_unknown_splits_and_parts_are_refused(clips):
    assert "ntu has no split 'xsetup'" in refused(lambda: ntu_skeleton.read(clips, "xsetup", "test"))
    assert "train or test" in refused(lambda: ntu_skeleton.read(clips, "xsub", "val"))
