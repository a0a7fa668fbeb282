"""The reader of UTD-MHAD on files written here by scipy, as MATLAB 5 with and without compression."""

import io
import json
import os
import re
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.common.extras import MissingExtraError
from mksgn.train import checkpoint, cli
from mksgn.train.datasets import nw_ucla, open_source, utd_mhad
from mksgn.train.skeletons import graph
from mksgn.train.streams import StreamNormaliser
from tests.support.refusals import refusal

scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed: pip install 'mksgn[utd-mhad]'")

# The figure stands before the sensor, arms hanging: x to its right, y up. Rows as in the authors'
# Skeleton_joint_order.txt.
FIGURE = {
    "head": (0.0, 0.65), "shoulder_center": (0.0, 0.5), "spine": (0.0, 0.2), "hip_center": (0.0, 0.1),
    "left_shoulder": (-0.2, 0.4), "left_elbow": (-0.25, 0.2), "left_wrist": (-0.26, 0.05), "left_hand": (-0.26, -0.05),
    "right_shoulder": (0.2, 0.4), "right_elbow": (0.25, 0.2), "right_wrist": (0.26, 0.05), "right_hand": (0.26, -0.05),
    "left_hip": (-0.1, 0.0), "left_knee": (-0.1, -0.5), "left_ankle": (-0.1, -0.9), "left_foot": (-0.12, -0.95),
    "right_hip": (0.1, 0.0), "right_knee": (0.1, -0.5), "right_ankle": (0.1, -0.9), "right_foot": (0.12, -0.95),
}  # fmt: skip
TRUNK = {"hip_center": "centre of hips", "shoulder_center": "centre of shoulders"}  # published names to the graph's


def joints(seed=0, frames=4):
    """The figure, moving, as a file holds it: (20, 3, frames) float64."""
    rest = np.array([(x, y, 2.5) for x, y in FIGURE.values()])
    return rest[:, :, None] + np.random.default_rng(seed).normal(0, 0.02, size=(20, 3, frames))


def content(values, *, variable="d_skel", compressed=False):
    buffer = io.BytesIO()
    scipy_io.savemat(buffer, {variable: values}, do_compression=compressed)
    return buffer.getvalue()


def write(folder, name="a1_s1_t1", values=None, **options):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}_skeleton.mat"
    path.write_bytes(content(joints() if values is None else values, **options))
    return path


@pytest.fixture
def clips(tmp_path):
    """Two actions by each subject."""
    for subject in range(1, 9):
        for action in (3, 27):
            write(tmp_path / "Skeleton", f"a{action}_s{subject}_t1", joints(10 * subject + action))
    return tmp_path


def refused(path_or_call):
    """The one line that reading is refused with."""
    return refusal(path_or_call if callable(path_or_call) else lambda: utd_mhad.read_clip(path_or_call))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_clip_holds_what_its_file_says(tmp_path, compressed):
    values = joints(frames=6)
    clip = utd_mhad.read_clip(write(tmp_path, "a27_s8_t3", values, compressed=compressed))
    assert (clip.name, clip.label, clip.subject, clip.view) == ("a27_s8_t3_skeleton", 26, 8, 0)
    assert (clip.graph, clip.joints.dtype, clip.joints.shape) == ("nw-ucla-20", np.float32, (1, 6, 20, 3))
    # written out: the trunk turned round, the limbs as they are
    order = [3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
    np.testing.assert_array_equal(clip.joints[0], values.transpose(2, 0, 1)[:, order].astype(np.float32))


def test_every_joint_of_a_known_figure_arrives_under_its_name(tmp_path):
    values = np.array([(x, y, 2.5) for x, y in FIGURE.values()])[:, :, None]
    read = utd_mhad.read_clip(write(tmp_path, values=values)).joints[0, 0]
    names = graph(utd_mhad.GRAPH).joints
    for published, (x, y) in FIGURE.items():
        name = TRUNK.get(published, published.replace("_", " "))
        np.testing.assert_array_equal(read[names.index(name)], np.float32((x, y, 2.5)), err_msg=name)
    # so the graph's bones are those of a body: none is longer than a thigh, and each limb hangs on its own side
    for child, parent in graph(utd_mhad.GRAPH).bones:
        assert np.linalg.norm(read[child] - read[parent]) <= 0.5 + 1e-6
        assert read[child, 0] * read[parent, 0] >= 0


@pytest.mark.parametrize("values", [joints(frames=1), joints(frames=1)[:, :, 0]], ids=["three axes", "two axes"])
def test_one_frame_is_read_though_matlab_drops_its_axis(tmp_path, values):
    assert utd_mhad.read_clip(write(tmp_path, values=values)).joints.shape == (1, 1, 20, 3)


def test_integer_and_single_coordinates_are_fine(tmp_path):
    for dtype in (np.int16, np.uint8, np.int64, np.float32):
        path = write(tmp_path, values=np.full((20, 3, 2), 3, dtype=dtype))
        assert (utd_mhad.read_clip(path).joints == 3).all()


@pytest.mark.parametrize("inside", ["", "Skeleton"])
@pytest.mark.parametrize(
    ("split", "part", "subjects", "validation"),
    [
        ("xsub", "train", {1, 3, 5, 7}, False),
        ("xsub", "test", {2, 4, 6, 8}, False),
        ("xsub-val", "train", {1, 3, 5}, True),
        ("xsub-val", "test", {7}, True),
    ],
)
def test_a_part_is_its_subjects_sorted_by_name(clips, inside, split, part, subjects, validation):
    found = utd_mhad.read(clips / inside, split, part)
    assert {clip.subject for clip in found.clips} == subjects
    names = [clip.name for clip in found.clips]
    assert names == sorted(names)
    assert len(names) == 2 * len(subjects)
    assert (found.source, found.split, found.part, found.graph) == ("utd-mhad", split, part, "nw-ucla-20")
    assert found.validation == validation
    assert set(found.labels) == {2, 26}
    assert (found.classes[2], found.classes[26]) == ("right hand wave", "squat (two arms stretch out)")
    assert len(set(found.classes)) == 27


def test_the_published_counts_are_861():
    counts = {split: [utd_mhad.published(split, part) for part in ("train", "test")] for split in utd_mhad.SPLITS}
    assert counts == {"xsub": [431, 430], "xsub-val": [323, 108]}


def test_a_set_that_is_not_whole_says_so_and_a_whole_one_does_not(clips, monkeypatch):
    assert utd_mhad.read(clips, "xsub", "test").notes == ("split xsub, test: 8 clips, published 430",)
    monkeypatch.setattr(utd_mhad, "published", lambda split, part: 8)
    assert utd_mhad.read(clips, "xsub", "test").notes == ()


def test_open_source_takes_the_benchmarks_split_by_default_and_spreads_a_limit(clips):
    whole = open_source(f"utd-mhad:{clips}")
    assert (whole.split, whole.part, len(whole)) == ("xsub", "test", 8)
    some = open_source(f"utd-mhad:{clips}", split="xsub", limit=4)
    np.testing.assert_array_equal(np.bincount(some.labels, minlength=27)[[2, 26]], [2, 2])


def test_one_skeleton_gives_the_same_streams_as_through_nw_uclas_reader(tmp_path):
    values = joints(seed=3, frames=9)
    names = [TRUNK.get(name, name.replace("_", " ")) for name in FIGURE]
    in_order = values.transpose(2, 0, 1)[:, [names.index(name) for name in graph("nw-ucla-20").joints]]
    record = {"file_name": "a01_s01_e00_v01", "label": 1, "skeletons": in_order.tolist()}
    json_path = tmp_path / "a01_s01_e00_v01.json"
    json_path.write_text(json.dumps(record))
    recorded, clip = nw_ucla.read_clip(json_path), utd_mhad.read_clip(write(tmp_path, values=values))
    normaliser = StreamNormaliser.fit([recorded], 8)
    streams = normaliser.clip(recorded)
    assert streams.shape[1:] == (12, 8, 20)
    assert len(np.unique(streams)) > 50
    np.testing.assert_array_equal(normaliser.clip(clip), streams)
    assert StreamNormaliser.fit([clip], 8) == normaliser


def test_a_missing_folder_is_told_how_it_must_look(tmp_path):
    message = refused(lambda: utd_mhad.read(tmp_path / "nowhere", "xsub", "test"))
    assert re.search(r"nowhere is not a folder.*Skeleton/a1_s1_t1_skeleton\.mat.*Skeleton\.zip", message)
    assert "holds no clip" in refused(lambda: utd_mhad.read(tmp_path, "xsub", "test"))


@pytest.mark.parametrize(
    ("subject", "split", "part", "remedy"),
    [
        (6, "xsub", "test", r"a\*_s6_t\*_skeleton\.mat, or use --split xsub-val$"),
        (7, "xsub", "train", r"a\*_s7_t\*_skeleton\.mat$"),  # both splits need it
        (7, "xsub-val", "test", r"a\*_s7_t\*_skeleton\.mat$"),
    ],
)
def test_a_missing_subject_is_named_with_the_split_that_works(clips, subject, split, part, remedy):
    for file in (clips / "Skeleton").glob(f"*_s{subject}_*"):
        file.unlink()
    message = refused(lambda: utd_mhad.read(clips, split, part))
    assert re.search(
        rf"no clip of subject {subject}, which the {part} part of split {split} needs: .*{remedy}", message
    )
    for named in re.findall(r"--split (\S+)", message):
        assert all(len(utd_mhad.read(clips, named, part)) for part in ("train", "test"))


def test_unknown_splits_and_parts_are_refused(clips):
    assert "use one of xsub, xsub-val" in refused(lambda: utd_mhad.read(clips, "xview", "test"))
    assert "train or test" in refused(lambda: utd_mhad.read(clips, "xsub", "val"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a28_s1_t1", "unknown action 28, expected 1 to 27: rename or remove"),
        ("a1_s9_t1", "unknown subject 9, expected 1 to 8: rename or remove"),
        ("a1_s1_t5", "unknown trial 5, expected 1 to 4: rename or remove"),
        ("a0_s1_t1", "must have the form aA_sS_tT_skeleton.mat"),
        ("a01_s1_t1", "must have the form aA_sS_tT_skeleton.mat"),
        ("a1_s10_t1", "must have the form aA_sS_tT_skeleton.mat"),
        ("walk", "must have the form aA_sS_tT_skeleton.mat"),
    ],
)
def test_names_that_are_no_clips_are_refused_alone_and_in_a_folder(clips, name, message):
    path = write(clips / "Skeleton", name)
    assert message in refused(path)
    assert message in refused(lambda: utd_mhad.read(clips, "xsub-val", "test"))


def cells():
    values = np.empty((20, 3), dtype=object)
    values.fill(1.0)
    return values


def with_value(place, value):
    values = joints()
    values[place] = value
    return values


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (joints()[:, :, :0], "the clip has 0 frames, expected at least 1: remove the file"),
        (np.ones((25, 3, 4)), r"d_skel has shape \(25, 3, 4\), expected \(20, 3, frames\): .*fetch the file again"),
        (np.ones((20, 4, 4)), r"d_skel has shape \(20, 4, 4\), expected \(20, 3, frames\)"),
        (np.ones((4, 20, 3)), r"d_skel has shape \(4, 20, 3\), expected"),
        (np.ones((20, 60)), r"d_skel has shape \(20, 60, 1\), expected"),
        (np.ones((20, 3, 2, 2)), r"d_skel has shape \(20, 3, 2, 2\), expected"),
        (5.0, r"d_skel has shape \(1, 1, 1\), expected"),
        (joints() * 1j, "d_skel is not an array of real numbers: fetch the file again"),
        ("twenty joints", "d_skel is not an array of real numbers"),
        ({"x": 1.0}, "d_skel is not an array of real numbers"),
        (cells(), "d_skel is not an array of real numbers"),
        (with_value((7, 1, 2), np.nan), "body 0, frame 2, joint 7 is not finite"),
        (with_value((0, 0, 3), -np.inf), "body 0, frame 3, joint 0 is not finite"),
        (with_value((0, 0, 0), 1e300), "body 0, frame 0, joint 0 is not finite"),
    ],
)
def test_a_faulty_clip_is_refused_with_the_fault(tmp_path, values, message, compressed):
    path = write(tmp_path, values=values, compressed=compressed)
    assert re.search(rf"^{re.escape(str(path))}: .*{message}", refused(path))


def test_another_variable_is_not_taken_for_the_skeleton(tmp_path):
    assert "no variable d_skel" in refused(write(tmp_path, values=joints(), variable="d_iner"))
    path = write(tmp_path)
    scipy_io.savemat(path, {"d_skel_raw": np.ones(3), "d_iner": np.ones((4, 6)), "d_skel": joints(1)})
    assert utd_mhad.read_clip(path).joints.shape == (1, 4, 20, 3)  # among others it is found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a MATLAB 5 file, or damaged"),
        (b"MATLAB", "not a MATLAB 5 file, or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n" * 5, "not a MATLAB 5 file, or damaged"),
        (bytes(1000), "not a MATLAB 5 file, or damaged"),
        (content(joints())[:128], "no variable d_skel: .* cut short"),
        (content(joints())[:-1], "not a MATLAB 5 file, or damaged"),
        (content(joints(), compressed=True)[:-9], "not a MATLAB 5 file, or damaged"),
        (
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n",
            "a MATLAB 7.3 file, expected MATLAB 5: save it in MATLAB with -v7",
        ),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "a MATLAB 7.3 file, expected MATLAB 5"),
    ],
    ids=["empty", "short", "git lfs", "zeros", "header", "cut", "cut, compressed", "7.3", "HDF5"],
)  # fmt: skip
def test_what_is_not_a_matlab_5_file_is_refused(tmp_path, data, message):
    path = write(tmp_path)
    path.write_bytes(data)
    assert re.search(rf"^{re.escape(str(path))}: {message}.*fetch the file again$", refused(path))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "no such file; fetch the file again" in refused(tmp_path / "a1_s1_t1_skeleton.mat")


def test_a_pipe_and_a_file_of_another_size_are_refused(tmp_path):
    os.mkfifo(tmp_path / "a1_s1_t1_skeleton.mat")
    assert "is a named pipe" in refused(tmp_path / "a1_s1_t1_skeleton.mat")
    (tmp_path / "a1_s1_t2_skeleton.mat").write_bytes(bytes(utd_mhad.CLIP_BYTES + 1))
    assert "has 16,777,217 bytes, the limit is 16,777,216" in refused(tmp_path / "a1_s1_t2_skeleton.mat")


def test_what_inflates_beyond_a_clip_is_refused_before_it_is_read(tmp_path):
    path = write(tmp_path, values=np.zeros((20, 3, 1 << 19)), compressed=True)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    assert "inflates to more than 16,777,216 bytes" in refused(path)
    assert tracemalloc.get_traced_memory()[1] < 40 << 20  # its values have 252 MB
    tracemalloc.stop()


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "a1_s1_t1_skeleton.mat"


@given(st.data())
def test_a_damaged_file_is_read_or_refused_in_one_line(damaged, data):
    """Never a crash of the process: loadmat by itself has one where the type of the data is damaged."""
    sound = content(joints(frames=2), compressed=data.draw(st.booleans()))
    broken = bytearray(sound[: data.draw(st.sampled_from([len(sound)] * 3 + list(range(len(sound)))))])
    for place, byte in data.draw(st.lists(st.tuples(st.integers(120, 210), st.integers(0, 255)), max_size=4)):
        if place < len(broken):
            broken[place] = byte
    damaged.write_bytes(broken)
    try:
        clip = utd_mhad.read_clip(damaged)
    except BadInputError:
        assert refused(damaged).startswith(f"{damaged}: ")
    else:
        assert clip.joints.shape[2:] == (20, 3)


def in_the_other_byte_order(sound):
    """The same file as a big-endian machine writes it; d_skel alone, doubles, not compressed."""
    name = sound.index(b"d_skel")
    swapped = bytearray(sound)
    swapped[124:128] = b"\x01\x00MI"
    for part, size in ((slice(128, name), 4), (slice(name + 8, name + 16), 4), (slice(name + 16, None), 8)):
        swapped[part] = np.frombuffer(sound[part], dtype=f"u{size}").byteswap().tobytes()
    return bytes(swapped)


def test_a_big_endian_file_is_read_alike(tmp_path):
    path = write(tmp_path)
    expected = utd_mhad.read_clip(path).joints
    path.write_bytes(in_the_other_byte_order(path.read_bytes()))
    np.testing.assert_array_equal(utd_mhad.read_clip(path).joints, expected)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("code", [0, 8, 10, 11, 14, 15, 19, 20, 255, 256 + 9, 60_000])
def test_a_damaged_type_of_the_data_does_not_end_the_process(tmp_path, order, code):
    sound = content(joints()) if order == "little" else in_the_other_byte_order(content(joints()))
    place = sound.index(b"d_skel") + 8
    path = tmp_path / "a1_s1_t1_skeleton.mat"
    path.write_bytes(sound[:place] + code.to_bytes(4, order) + sound[place + 4 :])
    assert "d_skel is not an array of real numbers" in refused(path)


def test_without_scipy_the_extra_is_named(tmp_path, monkeypatch):
    path = write(tmp_path)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match=r"utd-mhad:PATH needs scipy\.io.*pip install 'mksgn\[utd-mhad\]'"):
        utd_mhad.read_clip(path)


@pytest.mark.slow
def test_the_demo_preset_trains_on_it_unchanged(clips, monkeypatch, capsys):
    out = clips / "run"
    arguments = ["demo", "--data", f"utd-mhad:{clips}", "--split", "xsub-val", "--epochs", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["mksgn-train", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said, err = capsys.readouterr()
    assert (caught.value.code, err) == (0, "")
    assert "split xsub-val, train: 6 clips, published 323" in said
    assert "training demo on 6 clips of utd-mhad, 27 classes" in said
    model = checkpoint.load(out / "model.pt")
    assert model.student.config.graph == "nw-ucla-20"
    assert model.student.config.classes == utd_mhad.CLASSES
