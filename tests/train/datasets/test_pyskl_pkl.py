"""The pyskl reader on small pickles written here: what it reads, and what it refuses."""

import pickle
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import ntu, pyskl_pkl
from tests.support.tiers import examples

PROTOCOLS = (2, 3, 4, 5)  # 2 is what mmcv.dump, and so pyskl's script, writes
TRAIN, TEST = (1, 2), (3, 6)  # subjects, of NTU RGB+D 60


def clip_name(subject=1, action=1, camera=1, setup=1, replication=1):
    return f"S{setup:03d}C{camera:03d}P{subject:03d}R{replication:03d}A{action:03d}"


def annotation(name, *, frames=3, bodies=1, dtype=np.float16, **changes):
    joints = np.random.default_rng(list(name.encode())).normal(size=(bodies, frames, 25, 3)).astype(dtype)
    return {"frame_dir": name, "label": int(name[-3:]) - 1, "keypoint": joints, "total_frames": frames, **changes}


def document(*, actions=(1, 2, 60), frames=3):
    """Two training and two test subjects by each of two cameras, as pyskl lays them out."""
    names = [clip_name(subject, action, camera) for camera in (1, 2) for subject in TRAIN + TEST for action in actions]
    return {
        "split": {
            "xsub_train": [name for name in names if int(name[9:12]) in TRAIN],
            "xsub_val": [name for name in names if int(name[9:12]) in TEST],
            "xview_train": [name for name in names if "C002" in name],
            "xview_val": [name for name in names if "C001" in name],
        },
        "annotations": [annotation(name, frames=frames) for name in reversed(names)],
    }


def write(folder, content, *, protocol=2, name="ntu60_3danno.pkl"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return path


def refused(call, *arguments, **options):
    """The one line that reading is refused with."""
    with pytest.raises(BadInputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def read_refused(path, split="xsub", part="test"):
    message = refused(pyskl_pkl.read, path, split, part)
    assert message.startswith(str(path))
    return message


def centred(joints):
    """As the reader gives joints whose bodies are all there in every frame."""
    joints = np.asarray(joints, dtype=np.float32)
    return joints - joints[0, 0, 1]


# ---- what is read


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["<f2", ">f2", "f4", "f8"])
@pytest.mark.parametrize("frames", [1, 3, 40])  # the shortest lies among the short strings
def test_joints_come_back_as_written(tmp_path, protocol, dtype, frames):
    content = document(frames=frames)
    for entry in content["annotations"]:
        entry["keypoint"] = entry["keypoint"].astype(dtype)
    path = write(tmp_path, content, protocol=protocol)
    found = pyskl_pkl.read(path, "xsub", "train")
    by_name = {entry["frame_dir"]: entry for entry in content["annotations"]}
    assert [clip.name for clip in found.clips] == sorted(content["split"]["xsub_train"])
    for clip in found.clips:
        assert clip.joints.dtype == np.float32
        assert clip.graph == "ntu-25"
        assert (clip.label, clip.subject, clip.view) == (
            int(clip.name[-3:]) - 1,
            int(clip.name[9:12]),
            int(clip.name[5:8]),
        )
        np.testing.assert_array_equal(clip.joints, centred(by_name[clip.name]["keypoint"]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_joints_that_are_not_finite_are_refused_with_their_place(tmp_path, value):
    content = document()
    content["annotations"][0]["keypoint"][0, 2, 7, 1] = value
    clips = pyskl_pkl.read(write(tmp_path, content), "xsub", "test").clips
    message = refused(lambda: [clip.joints for clip in clips])
    assert message.startswith(str(tmp_path))
    assert message.endswith("body 0, frame 2, joint 7 is not finite; repair or leave out the clip")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_any_layout_and_numpy_scalars(tmp_path, protocol):
    content = document()
    entries = content["annotations"]
    values = np.random.default_rng(0).normal(size=(2, 7, 25, 3)).astype(np.float32)
    for entry, layout in zip(
        entries, [np.asfortranarray(values), values[::-1], values.transpose(0, 1, 3, 2).copy()], strict=False
    ):
        entry.update(keypoint=layout, total_frames=np.int64(7), label=np.int64(entry["label"]))
    entries[2]["keypoint"] = entries[2]["keypoint"].transpose(0, 1, 3, 2)  # neither C nor Fortran order
    content["note"] = {
        "float": 0.5,
        "tuple": (1, -2, 3, 4, 5),
        "large": 2**40,
        "array": np.arange(300),
        7: [True, None],
    }
    path = write(tmp_path, content, protocol=protocol)
    by_name = {clip.name: clip for part in ("train", "test") for clip in pyskl_pkl.read(path, "xsub", part).clips}
    for entry in entries[:3]:
        np.testing.assert_array_equal(by_name[entry["frame_dir"]].joints, centred(entry["keypoint"]))


def test_a_part_is_what_the_file_lists(tmp_path):
    content = document()
    path = write(tmp_path, content)
    for split in ("xsub", "xview"):
        for part, word in (("train", "train"), ("test", "val")):
            found = pyskl_pkl.read(path, split, part)
            assert {clip.name for clip in found.clips} == set(content["split"][f"{split}_{word}"])
            assert (found.source, found.split, found.part, found.graph) == ("pyskl", split, part, "ntu-25")
            assert found.classes == ntu.CLASSES[:60]
            np.testing.assert_array_equal(found.labels, [clip.label for clip in found.clips])
    assert pyskl_pkl.read(path, None, "test").split == "xsub"


def test_the_file_says_of_how_many_classes_it_is(tmp_path):
    small, large = document(), document(actions=(1, 61, 120))
    for content, name in ((large, "mine.pkl"), (small, "NTU120_3danno.pkl")):
        path = write(tmp_path, content, name=name)
        for split in ("xsub", "xsub120"):
            found = pyskl_pkl.read(path, split, "test")
            assert (found.split, found.classes) == ("xsub120", ntu.CLASSES)
    small["split"].update(xset_train=[], xset_val=small["split"]["xsub_val"])
    assert pyskl_pkl.read(write(tmp_path, small), "xset", "test").classes == ntu.CLASSES
    assert re.search("NTU RGB.D 120, expected 60 .* use --split xsub120 or xset", read_refused(path, "xview"))
    path = write(tmp_path, document())
    assert re.search("NTU RGB.D 60, expected 120 .* use --split xsub or xview", read_refused(path, "xset"))
    assert "expected 120" in read_refused(path, "xsub120")


def test_only_total_frames_count_and_what_is_absent_is_left_out(tmp_path):
    content = document()
    joints = np.random.default_rng(1).normal(size=(3, 9, 25, 3)).astype(np.float16)
    joints[0] = 0  # no body
    joints[1, 0] = 0  # the first body that is there comes one frame late
    joints[:, 4] = 0  # nobody
    joints[2, 5] = 0
    content["annotations"][0].update(keypoint=joints, total_frames=7)
    name = content["annotations"][0]["frame_dir"]
    path = write(tmp_path, content)
    (clip,) = (clip for clip in pyskl_pkl.read(path, "xsub", "test").clips if clip.name == name)
    kept = joints[1:, [0, 1, 2, 3, 5, 6]].astype(np.float32)
    expected = kept - kept[0, 1, 1]
    expected[0, 0] = 0
    expected[1, 4] = 0
    np.testing.assert_array_equal(clip.joints, expected)


def test_a_limit_spreads_over_the_classes(tmp_path):
    path = write(tmp_path, document())
    some = pyskl_pkl.read(path, "xsub", "test", limit=6)
    assert [list(some.labels).count(label) for label in (0, 1, 59)] == [2, 2, 2]
    assert len({clip.name for clip in some.clips}) == 6


def test_notes_warn_of_pickles_and_count_what_is_left_out(tmp_path):
    content = document()
    whole = pyskl_pkl.read(write(tmp_path, content), "xsub", "test")
    assert len(whole.notes) == 2
    assert re.search("^warning: a pickle can run code", whole.notes[0])
    assert whole.notes[1] == ntu.count_note("xsub", "test", 12)
    content["split"]["xsub_val"] = [*content["split"]["xsub_val"][1:], "S001C001P003R002A001", "S001C001P001R002A001\n"]
    content["annotations"] += [None, None, annotation(clip_name(subject=1, replication=5))]
    content["split"]["xsub_val"].append(clip_name(subject=1, replication=5))
    notes = pyskl_pkl.read(write(tmp_path, content), "xsub", "test").notes
    assert not any("\n" in note for note in notes)
    joined = " | ".join(notes)
    assert re.search(
        r"2 of the 14 clips of this part left out, as they have no annotation: 'S001C001P001R002A001\\n', \.\.\.",
        joined,
    )
    assert re.search("1 of 25 annotations left out, as they are in no part of split xsub: S001C001P003R001A001", joined)
    assert re.search(
        "1 clips kept that the benchmark does not have in the test part of split xsub: S001C001P001R005A001", joined
    )
    assert "2 empty annotations" in joined


# ---- what is refused


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("split"), "holds a dict, expected a dict with split and annotations"),
        (lambda c: c.update(split=[]), "expected a dict with split and annotations"),
        (lambda c: c.update(annotations={}), "expected a dict with split and annotations"),
        (lambda c: c["annotations"].append(3), r"annotation 24 \(from 0\) has no frame_dir"),
        (lambda c: c["annotations"][2].pop("frame_dir"), r"annotation 2 \(from 0\) has no frame_dir"),
        (lambda c: c["annotations"][2].update(label="1"), "has a string as label"),
        (lambda c: c["annotations"][2].update(label=True), "has bool True as label"),
        (lambda c: c["annotations"][0].update(label=3), r"S001C002P006R001A060 has label 3, expected 59 \(walk apart"),
        (lambda c: c["annotations"][0].update(label=-1), "has label -1, expected 59"),
        (lambda c: c["annotations"].append(c["annotations"][3]), "two annotations are named S001C002P003R001A060"),
        (lambda c: c["annotations"].append(dict(c["annotations"][3])),
         "two annotations are named S001C002P003R001A060"),
        (lambda c: c["annotations"][0].pop("keypoint"), "has None as keypoint, expected an array"),
        (lambda c: c["annotations"][0].update(keypoint=[1]), "has a list as keypoint"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 25, 3), int)), "has int64 numbers as keypoint"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 17, 2), "f2")),
         "17 joints of 2 .*HRNet.*Kinect"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 17, 3), "f2")), "17 joints of 3 .*HRNet"),
        (lambda c: c["annotations"][0].update(keypoint_score=np.zeros((1, 3, 25), "f2")), "HRNet"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((3, 25, 3), "f2")),
         r"shape \(3, 25, 3\), expected \(bod"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 20, 3), "f2")),
         r"shape \(1, 3, 20, 3\), expected"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((0, 3, 25, 3), "f2")), r"shape \(0, 3, 25, 3\)"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 0, 25, 3), "f2")), r"shape \(1, 0, 25, 3\)"),
        (lambda c: c["annotations"][0].update(total_frames=4), "total_frames 4, expected 1 to 3"),
        (lambda c: c["annotations"][0].update(total_frames=0), "total_frames 0, expected 1 to 3"),
        (lambda c: c["annotations"][0].update(total_frames=2.0), r"total_frames 2\.0"),
        (lambda c: c["annotations"][0].pop("total_frames"), "total_frames None"),
        (lambda c: c["split"].pop("xsub_val"), "no list of names xsub_val.*found 'xsub_train, xview_train, xview_val'"),
        (lambda c: c["split"].update(xsub_val=[1]), "no list of names xsub_val"),
        (lambda c: c["split"].update(xsub_train=None), "no list of names xsub_train"),
        (lambda c: c["split"].update(xsub_val=[]), "none of the 0 clips of the test part"),
        (lambda c: c["split"].update(xsub_val=["S001C001P003R001A001"] * 2), "1 names appear twice in xsub_val"),
        (lambda c: c["split"].update(xsub_val=c["split"]["xsub_train"][:1]), "1 clips are in both parts of split xsub"),
    ],
)  # fmt: skip
def test_another_layout_is_refused_with_the_place(tmp_path, edit, message):
    content = document()
    edit(content)
    assert re.search(message, read_refused(write(tmp_path, content)))


def test_names_that_are_not_ntus_are_refused(tmp_path):
    content = document()
    content["split"]["xsub_val"] = ["v_Archery\n_g01"]
    content["annotations"] = [annotation(clip_name()), {**annotation(clip_name()), "frame_dir": "v_Archery\n_g01"}]
    assert re.search(r"'v_Archery\\n_g01' is not SsssCccc.*NTU RGB.D only", read_refused(write(tmp_path, content)))


def test_a_clip_without_a_body_is_named_when_it_is_read(tmp_path):
    content = document()
    content["annotations"][0]["keypoint"][:] = 0
    path = write(tmp_path, content)
    found = pyskl_pkl.read(path, "xsub", "test")
    assert re.search("S001C002P006R001A060 is zero in all its frames", refused(list, found.clips))


def test_splits_parts_and_files_that_do_not_exist(tmp_path):
    path = write(tmp_path, document())
    assert "use one of xsub, xview, xsub120, xset" in refused(pyskl_pkl.read, path, "xsub_val", "test")
    assert "use train or test" in refused(pyskl_pkl.read, path, "xsub", "val")
    assert "no such file; give pyskl's" in read_refused(tmp_path / "nothing.pkl")
    assert "is a directory; give pyskl's" in read_refused(tmp_path)


@pytest.mark.parametrize(
    "value", [1, None, "x" * 1000, [], (), {}, np.arange(3), 1.5, {"split": {}, "annotations": []}]
)
def test_other_data_is_refused(tmp_path, value):
    assert "expected a dict with split and annotations" in read_refused(write(tmp_path, value))


# ---- what would run code or crash: how the file is read is mksgn/train/datasets/plain_pickle's, tested with it


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_a_pickle_is_run(tmp_path, protocol):
    marker = tmp_path / "was_here"
    for edit in (
        lambda c, value: c.update(note=value),
        lambda c, value: c["annotations"].append(value),
        lambda c, value: c["annotations"][0].update(keypoint=value),
        lambda c, value: c["annotations"][0].update(label=value),
        lambda c, value: c["split"].update(xsub_val=value),
    ):
        content = document()
        edit(content, Calls(open, str(marker), "w"))
        path = write(tmp_path, content, protocol=protocol)
        assert re.search(r"names \w+\.open, which may run code", read_refused(path))
        assert not marker.exists()
    pickle.loads(path.read_bytes())  # what an ordinary loader does with the last of them
    assert marker.exists()


@pytest.mark.parametrize(
    "program",
    [
        b")" + b"q\x00h\x00\x86" * 20_000 + b".",  # a pair of pairs of ...
        b"}(X\x05\0\0\0split}X\x0b\0\0\0annotations](}X\x09\0\0\0frame_dir)" + b"q\x00h\x00\x86" * 9_000 + b"seu.",
        b"]q\x00h\x00a.",  # holds itself
        b"cnumpy\nndarray\n.",
    ],
    ids=["pairs", "pairs as a name", "itself", "a name of numpy's"],
)
def test_what_the_layout_does_not_have_is_told_in_a_line(tmp_path, program):
    """Some values would take for ever to print."""
    message = read_refused(write(tmp_path, b"\x80\x04" + program))
    assert len(message) < 400 + len(str(tmp_path))


def test_keypoints_that_clips_share_do_not_multiply(tmp_path):
    content = document()
    shared = np.zeros((1, 400, 25, 3), np.float16)
    for entry in content["annotations"]:
        entry.update(keypoint=shared, total_frames=400)
    assert re.search("bytes of keypoints in a file of", read_refused(write(tmp_path, content, protocol=4)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_is_refused(tmp_path, protocol):
    whole = pickle.dumps(document(actions=(1,)), protocol=protocol)
    path = tmp_path / "ntu60_3danno.pkl"
    for length in sorted({*range(0, len(whole), 97), *range(len(whole) - 40, len(whole))}):
        path.write_bytes(whole[:length])
        read_refused(path)


SMALL = {protocol: pickle.dumps(document(actions=(1,)), protocol=protocol) for protocol in PROTOCOLS}


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PROTOCOLS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_damaged_files_are_read_or_refused(tmp_path, protocol, changes):
    """Of the file, or of a clip when it is asked for; anything but BadInputError comes through."""
    content = bytearray(SMALL[protocol])
    for place, value in changes:
        content[place % len(content)] = value
    try:
        for clip in pyskl_pkl.read(write(tmp_path, bytes(content)), "xsub", "test").clips:
            assert clip.joints.shape[2:] == (25, 3)
    except BadInputError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message
