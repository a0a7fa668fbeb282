"""The CTR-GCN reader on small .npz files written here: what it reads, what it refuses, and that it
holds no array."""

import os
import re
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import ctrgcn_npz, ntu
from tests.support.tiers import examples

LENGTHS = (1, 4, 8)  # frames of the clips written here, in turn
ROWS = 8  # frames of a row; CTR-GCN's have 300


def part_arrays(clips, *, classes=60, seed=0, rows=ROWS, bodies=1, dtype=np.float32):
    """x, y, labels: clip i has LENGTHS[i % 3] frames."""
    rng = np.random.default_rng(seed)
    x = np.zeros((clips, rows, 2, 25, 3), dtype)
    for index in range(clips):
        frames = LENGTHS[index % len(LENGTHS)]
        x[index, :frames, :bodies] = rng.normal(size=(frames, bodies, 25, 3))
        x[index, 0, 0, 1] = 0  # the origin
    labels = (np.arange(clips) * 7 + seed) % classes
    return x.reshape(clips, rows, 150), np.eye(classes)[labels], labels


def arrays(**options):
    x_train, y_train, _ = part_arrays(6, seed=1, **options)
    x_test, y_test, _ = part_arrays(5, seed=2, **options)
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def write(folder, name="NTU60_CS.npz", *, save=np.savez, **changes):
    """A file as CTR-GCN's script names and fills it, with some arrays changed or (None) left
    out."""
    content = {**arrays(classes=120 if "120" in name else 60), **changes}
    path = folder / name
    save(path, **{key: value for key, value in content.items() if value is not None})
    return path


def refused(call, *arguments, **options):
    """The one line that reading is refused with."""
    with pytest.raises(BadInputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def read_refused(path, split=None, part="test"):
    message = refused(ctrgcn_npz.read, path, split, part)
    assert message.startswith(str(path))
    return message


# ---- what is read


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4"])
@pytest.mark.parametrize("bodies", [1, 2])
def test_clips_come_back_as_written(tmp_path, dtype, bodies):
    path = write(
        tmp_path, **{name: x.astype(dtype) if name[0] == "x" else x for name, x in arrays(bodies=bodies).items()}
    )
    for part, seed, count in (("train", 1, 6), ("test", 2, 5)):
        x, _, labels = part_arrays(count, seed=seed, bodies=bodies)
        found = ctrgcn_npz.read(path, None, part)
        assert (found.source, found.split, found.part, found.graph) == ("ctrgcn", "xsub", part, "ntu-25")
        assert found.classes == ntu.CLASSES[:60]
        assert found.notes == (ntu.count_note("xsub", part, count),)
        np.testing.assert_array_equal(found.labels, labels)
        for index, clip in enumerate(found.clips):
            frames = LENGTHS[index % len(LENGTHS)]
            assert (clip.name, clip.label, clip.graph) == (f"x_{part}[{index}]", labels[index], "ntu-25")
            assert (clip.subject, clip.view) == (0, 0)
            assert clip.joints.dtype == np.float32
            assert clip.joints.flags.c_contiguous
            expected = x[index, :frames].reshape(frames, 2, 25, 3).transpose(1, 0, 2, 3)[:bodies]
            np.testing.assert_array_equal(clip.joints, expected)


def test_frames_are_counted_as_the_feeder_counts_them(tmp_path):
    """As many frames as are not all zero, from the row's first on, though a zero one lies
    between."""
    content = arrays()
    row = content["x_test"][2]  # of 8 frames
    row[3] = 0
    row[6:] = 0
    found = ctrgcn_npz.read(write(tmp_path, **content), None, "test").clips[2]
    np.testing.assert_array_equal(found.joints[0], row[:5, :75].reshape(5, 25, 3))


def test_bodies_that_are_none_are_left_out(tmp_path):
    content = arrays(bodies=2)
    x = content["x_test"]
    x[0, :, :75] = 0  # the second body only
    x[1, :, 75:] = x[1, :, :75]  # as NTU120's preparation writes a clip of one body
    x[2, :, 75:] = x[2, :, :75]
    x[2, 3, 80] += 1e-3  # not quite a copy
    x[4, 0, :75] = 0  # the first body comes late
    found = ctrgcn_npz.read(write(tmp_path, **content), None, "test").clips
    assert [clip.joints.shape[:2] for clip in found] == [(1, 1), (1, 4), (2, 8), (2, 1), (2, 4)]
    np.testing.assert_array_equal(found[0].joints[0], x[0, :1, 75:].reshape(1, 25, 3))
    np.testing.assert_array_equal(found[1].joints[0], x[1, :4, :75].reshape(4, 25, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_joints_that_are_not_finite_are_refused_with_their_place(value, tmp_path):
    content = arrays()
    content["x_test"][1, 2, 3] = value
    path = write(tmp_path, **content)
    with pytest.raises(BadInputError, match=r"body 0, frame 2, joint 1 is not finite; repair or leave out") as caught:
        ctrgcn_npz.read(path, None, "test").clips[1]
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("NTU60_CS.npz", "xsub"),
        ("NTU60_CV.npz", "xview"),
        ("NTU120_CSub.npz", "xsub120"),
        ("NTU120_CSet.npz", "xset"),
        ("ntu120-csub_plain.npz", "xsub120"),
        ("my.ntu60.xview.npz", "xview"),
    ],
)
def test_the_files_name_tells_its_split(tmp_path, name, split):
    path = write(tmp_path, name)
    assert ctrgcn_npz.read(path, None, "test").split == split
    found = ctrgcn_npz.read(str(path), split, "train")
    assert found.split == split
    assert found.classes == ntu.classes(split)
    for other in set(ctrgcn_npz.SPLITS) - {split}:
        if (other, split) == ("xsub", "xsub120"):
            assert ctrgcn_npz.read(path, other, "test").split == "xsub120"
        else:
            assert re.search(f"holds split {split} by its name, not {other}: leave out", read_refused(path, other))


def test_a_name_that_tells_nothing_needs_a_split(tmp_path):
    path = write(tmp_path, "data.npz")
    assert re.search("does not show its split: give --split xsub, xview, xsub120, xset", read_refused(path))
    assert ctrgcn_npz.read(path, "xview", "test").split == "xview"
    assert re.search("labels of 60 classes, expected 120 for split xset", read_refused(path, "xset"))
    both = write(tmp_path, "CS_and_CV.npz")
    assert "does not show its split" in read_refused(both)
    wrong = write(tmp_path, "NTU60_CV.npz", **arrays(classes=120))
    assert "labels of 120 classes, expected 60 for split xview" in read_refused(wrong)


def test_a_limit_spreads_over_the_classes_without_reading(tmp_path):
    path = write(tmp_path, x_test=part_arrays(40)[0], y_test=np.eye(60)[np.repeat([5, 2], 20)])
    some = ctrgcn_npz.read(path, None, "test", limit=4)
    assert [clip.name for clip in some.clips] == ["x_test[25]", "x_test[35]", "x_test[5]", "x_test[15]"]
    np.testing.assert_array_equal(some.labels, [2, 2, 5, 5])


@pytest.mark.parametrize("kind", ["f4", "u1", "?", "i8"])
def test_labels_may_be_any_numbers(tmp_path, kind):
    content = arrays()
    path = write(tmp_path, y_test=content["y_test"].astype(kind))
    np.testing.assert_array_equal(ctrgcn_npz.read(path, None, "test").labels, part_arrays(5, seed=2)[2])


def test_npy_headers_of_version_2_are_read(tmp_path):
    path = tmp_path / "NTU60_CS.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in arrays().items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, value, version=(2, 0), allow_pickle=False)
    expected = ctrgcn_npz.read(write(tmp_path, "other_CS.npz"), None, "test").clips
    found = ctrgcn_npz.read(path, None, "test").clips
    assert all(np.array_equal(a.joints, b.joints) for a, b in zip(found, expected, strict=True))


def test_arrays_are_read_when_they_are_asked_for(tmp_path):
    path = write(tmp_path)
    found = ctrgcn_npz.read(path, None, "train")
    with path.open("r+b") as file:
        file.truncate(2000)
    assert "shorter than when it was opened" in refused(list, found.clips)
    path.unlink()
    assert "cannot be read (No such file" in refused(list, found.clips)


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None},
         "no array x_test, expected x_train, y_train, x_test, y_test, found 'x_train, y_test, y_train'"),
        ({"y_test": None}, "no array y_test"),
        ({"x_test": np.zeros((5, 8, 150), "i4")}, "x_test is int32, expected float32 or float64"),
        ({"x_test": np.zeros((5, 8, 150), "f2")}, "x_test is float16"),
        ({"x_test": np.zeros((5, 8, 150), "c8")}, "x_test is complex64"),
        ({"x_test": np.zeros((5, 8, 75), "f4")}, r"x_test has shape \(5, 8, 75\), expected \(clips, frames, 150\)"),
        ({"x_test": np.zeros((5, 3, 8, 25, 2), "f4")}, r"shape \(5, 3, 8, 25, 2\)"),
        ({"x_test": np.zeros((5, 0, 150), "f4")}, r"shape \(5, 0, 150\)"),
        ({"x_test": np.zeros((0, 8, 150), "f4"), "y_test": np.zeros((0, 60))}, r"shape \(0, 8, 150\)"),
        ({"x_test": np.float32(1)}, r"shape \(\)"),
        ({"x_test": np.asfortranarray(np.ones((5, 8, 150), "f4"))}, "x_test is in Fortran order.*ascontiguousarray"),
        ({"x_test": np.array([[None]])}, "x_test holds pickled Python objects, which may run code"),
        ({"x_test": np.zeros(5, [("a", "O")])}, "x_test holds pickled Python objects"),
        ({"x_test": np.zeros(5, [("a", "f4")])}, r"expected float32 or float64"),
        ({"y_test": np.array([["a"] * 60] * 5)}, "y_test is <U1 of shape"),
        ({"y_test": np.array([1, 2, 3, 4, 5])},
         r"y_test is int64 of shape \(5,\), expected numbers \(clips, 60 or 120\)"),
        ({"y_test": np.eye(61)[:5]}, r"\(5, 61\), expected"),
        ({"y_test": np.eye(60)[:4]}, "4 labels in y_test, expected 5, as many as clips in x_test"),
        ({"y_test": np.zeros((5, 60))}, r"row 0 \(from 0\) of y_test is not one-hot"),
        ({"y_test": np.eye(60)[:5] * [[1], [1], [2], [1], [1]]}, r"row 2 \(from 0\) of y_test is not one-hot"),
        ({"y_test": np.eye(60)[:5] + np.eye(60)[[0, 1, 2, 3, 9]]}, r"row 0 "),
        ({"y_test": np.full((5, 60), np.nan)}, r"row 0 "),
        ({"y_test": np.eye(60)[:5] + np.eye(60)[[9, 9, 9, 9, 9]]}, r"row 0 "),
    ],
)  # fmt: skip
def test_arrays_of_another_form_are_refused(tmp_path, changes, message):
    assert re.search(message, read_refused(write(tmp_path, **changes)))


def test_a_row_of_labels_beyond_the_first_block_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(ctrgcn_npz, "_LABEL_ROWS", 2)
    content = arrays()
    path = write(tmp_path, **content)
    np.testing.assert_array_equal(ctrgcn_npz.read(path, None, "test").labels, part_arrays(5, seed=2)[2])
    content["y_test"][3, 0] += 0.5
    assert "row 3 (from 0) of y_test" in read_refused(write(tmp_path, **content))


def test_a_row_of_zeros_is_named_when_it_is_read(tmp_path):
    content = arrays()
    content["x_test"][3] = 0
    path = write(tmp_path, **content)
    found = ctrgcn_npz.read(path, None, "test")
    assert found.clips[2].joints.any()
    assert re.search(r"CS\.npz: x_test\[3\] is zero in all 8 frames", refused(lambda: found.clips[3]))


def test_a_compressed_file_is_refused_with_what_helps(tmp_path):
    path = write(tmp_path, save=np.savez_compressed)
    message = read_refused(path)
    assert "x_test is compressed" in message
    command = re.search(r'python -c "(.*)"$', message).group(1)
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True)
    assert ctrgcn_npz.read(tmp_path / "NTU60_CS_plain.npz", None, "test").split == "xsub"


def test_splits_parts_and_files_that_do_not_exist(tmp_path):
    path = write(tmp_path)
    assert "use one of xsub, xview, xsub120, xset" in refused(ctrgcn_npz.read, path, "CS", "test")
    assert "use train or test" in refused(ctrgcn_npz.read, path, None, "val")
    assert "no such file; ctrgcn:PATH must be an .npz" in read_refused(tmp_path / "NTU60_CV.npz")
    assert "is a directory; ctrgcn:PATH" in read_refused(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"\x80\x04}.", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_npz(tmp_path, content):
    path = tmp_path / "NTU60_CS.npz"
    path.write_bytes(content)
    assert re.search("not an .npz|no array x_test", read_refused(path))


def npy(shape=(5, 8, 150), descr="'<f4'", order="False", *, header=None, data=b"", version=b"\x01\x00"):
    """A .npy of which the header may say anything."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n" if header is None else header
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + length + text.encode("latin-1") + data


def hand_made(folder, member, *, name="NTU60_CS.npz"):
    path = folder / name
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test.npy", member)
        archive.writestr("y_test.npy", npy((5, 60), "'<f8'", data=np.eye(60)[:5].tobytes()))
    return path


def test_the_hand_made_file_is_sound(tmp_path):
    x = part_arrays(5)[0]
    assert len(ctrgcn_npz.read(hand_made(tmp_path, npy(data=x.tobytes())), None, "test").clips) == 5


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"", "x_test is not an array"),
        (b"\x93NUMPY\x01", "x_test is not an array"),
        (npy(version=b"\x03\x00"), r"version 3\.0"),
        (npy(version=b"\x09\x09"), "x_test is not an array"),
        (npy(header=""), "x_test is not an array"),
        (npy(header="{"), "x_test is not an array"),
        (npy(header="(" * 900), "x_test is not an array"),
        (npy(header="-" * 900 + "1"), "x_test is not an array"),
        (npy(header="[" * 60000), "x_test is not an array"),
        (npy(header="{[]: 1}"), "x_test is not an array"),
        (npy(header="__import__('os').system('true')"), "x_test is not an array"),
        (npy(header="{'descr': '<f4'}"), "x_test is not an array"),
        (npy(header="{'descr': '<f4',\n 'b': 1"), "x_test is not an array"),
        (npy(header="\x00"), "x_test is not an array"),
        (npy(descr="'<f99'"), "x_test is not an array"),
        (npy(descr="[('a', '<f4'), ('a', '<f4')]"), "x_test is not an array"),
        (npy(order="2"), "x_test is not an array"),
        (npy(shape="(5, 8, 'a')"), "x_test is not an array"),
        (npy(shape=(-5, 8, 150)), r"x_test is not an array \(shape"),
        (npy(data=b"\0" * 23_996), r"x_test has 240\d\d bytes, expected 240\d\d: fetch"),
        (npy(shape=(10**12, 8, 150)), r"x_test has \d+ bytes, expected 48\d+"),
        (npy(shape=(2**62, 2**62, 150)), r"x_test is not an array \(float32 of shape"),
        (npy(descr="'|O'", data=b"\0" * 48_000), "Python objects"),
        (npy(descr="'|V4'", data=b"\0" * 24_000), "expected float32 or float64"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path, member, message):
    found = read_refused(hand_made(tmp_path, member))
    assert re.search(message, found)
    assert len(found) < 600


def test_an_encrypted_member_is_refused(tmp_path):
    path = write(tmp_path)
    content = path.read_bytes()
    entry = content.index(b"x_test.npy", content.index(b"PK\x01\x02")) - 46
    path.write_bytes(content[: entry + 8] + b"\x01" + content[entry + 9 :])
    assert "x_test is encrypted" in read_refused(path)


def test_a_place_without_a_member_is_refused(tmp_path):
    path = write(tmp_path)
    content = path.read_bytes()
    entry = content.index(b"x_test.npy", content.index(b"PK\x01\x02")) - 46
    path.write_bytes(
        content[: entry + 42] + struct.pack("<I", content.index(b"x_test.npy") - 29) + content[entry + 46 :]
    )
    assert re.search("not an .npz .*no x_test where the directory says it is", read_refused(path))


def read_or_refuse(path):
    """Reads all clips of a file that may be damaged; anything but BadInputError comes through."""
    try:
        for clip in ctrgcn_npz.read(path, None, "test").clips:
            assert clip.joints.shape[2:] == (25, 3)
    except BadInputError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = write(tmp_path)
    whole = path.read_bytes()
    for length in sorted({*range(0, len(whole), 991), *range(len(whole) - 30, len(whole))}):
        path.write_bytes(whole[:length])
        read_refused(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("whole")).read_bytes()


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_never_do_worse_than_a_refusal(tmp_path, whole, near_the_end, changes):
    content = bytearray(whole)
    # Half of the time in the archive's directory or a member's header, which are small.
    start = content.index(b"PK\x01\x02") if near_the_end else 0
    for place, value in changes:
        content[start + place % (len(content) - start if near_the_end else 200)] = value
    path = tmp_path / "NTU60_CS.npz"
    path.write_bytes(content)
    read_or_refuse(path)


# ---- files larger than memory should be


def sparse_npz(path, clips, *, rows=300, far=0):
    """x_test of `clips` rows, zero but for the first frame of each 100th and of the last, in a
    sparse file.

    `far` is put before it, a hole of so many bytes (member "pad"). Written with 64-bit fields, as
    np.savez does. The checksums are not right, as that would take reading all of it.
    """
    values = {"pad": None, "x_test": (clips, rows, 150), "y_test": (clips, 60)}
    directory = b""
    with path.open("wb") as file:
        for name, shape in values.items():
            start = file.tell()
            if shape is None:
                head, size = b"", far
            else:
                head = npy(shape, "'<f4'")
                size = len(head) + int(np.prod(shape)) * 4
            member = f"{name}.npy".encode()
            sizes = struct.pack("<QQ", size, size)
            local = struct.pack(
                "<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, zlib.crc32(b""), *(2**32 - 1,) * 2, len(member), 20
            )
            file.write(local + member + struct.pack("<HH", 1, 16) + sizes + head)
            extra = struct.pack("<HH", 1, 24) + sizes + struct.pack("<Q", start)
            directory += struct.pack(
                "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, *(2**32 - 1,) * 2, len(member), len(extra), 0,
                0, 0, 0, 2**32 - 1
            )  # fmt: skip
            directory += member + extra
            first = file.tell()
            if name == "x_test":
                for index in (*range(0, clips, 100), clips - 1):
                    file.seek(first + index * rows * 600)
                    file.write(np.full(75, index + 1, "<f4").tobytes())
            if name == "y_test":
                file.write(np.tile(np.eye(60, dtype="<f4"), (clips // 60 + 1, 1))[:clips].tobytes())
            file.seek(start + len(local) + len(member) + 20 + size)
        place = file.tell()
        end = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, len(directory), place)
        end += struct.pack("<4sIQI", b"PK\x06\x07", 0, place + len(directory), 1)
        end += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
        file.write(directory + end)
    return path


def sparse_or_skip(path):
    if os.stat(path).st_blocks * 512 > 100e6:
        path.unlink()
        pytest.skip("the file system here keeps no sparse files")


@pytest.mark.parametrize("far", [0, 5 * 2**30])
def test_members_larger_than_4_gib_and_beyond_it(tmp_path, far):
    clips = 100 if far else 26_000  # 4.7 GB
    start = time.perf_counter()
    path = sparse_npz(tmp_path / "NTU60_CS.npz", clips, far=far)
    sparse_or_skip(path)
    assert path.stat().st_size > 2**32
    assert {each.filename for each in zipfile.ZipFile(path).infolist()} == {"pad.npy", "x_test.npy", "y_test.npy"}
    found = ctrgcn_npz.read(path, None, "test")
    for index in (0, clips - 1):
        np.testing.assert_array_equal(found.clips[index].joints, np.full((1, 1, 25, 3), index + 1))
    np.testing.assert_array_equal(found.labels, np.arange(clips) % 60)
    assert time.perf_counter() - start < 10
    path.unlink()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    """All clips of a file of 720 MB, in a process that ends as large as it began."""
    path = sparse_npz(tmp_path / "NTU60_CS.npz", 4000)
    sparse_or_skip(path)
    code = f"""
import os
from mksgn.train.datasets import ctrgcn_npz
from mksgn.common.errors import BadInputError
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
found = ctrgcn_npz.read({str(path)!r}, None, "test")
seen, before = 0, resident()
for index in range(len(found)):
    try:
        seen += found.clips[index].joints.shape[1]
    except BadInputError:
        pass
    assert resident() - before < 8e6, (index, resident() - before)
(peak,) = (int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seen, before, resident() - before, peak)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seen, before, grown, peak = map(int, ran.stdout.split())
    print(f"frames {seen}, resident {before / 1e6:.0f} MB, grown {grown / 1e6:.1f} MB, peak {peak / 1e6:.0f} MB")
    assert seen == 41
    assert peak - before < 20e6


def test_reading_many_clips_leaves_no_file_open(tmp_path):
    path = write(tmp_path)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(os.listdir("/proc/self/fd"))
    found = [ctrgcn_npz.read(path, None, "test") for _ in range(min(soft, 50))]
    clips = [clip for each in found for clip in each.clips]
    assert len(clips) == 5 * len(found)
    assert len(os.listdir("/proc/self/fd")) == before
