"""The pyskl reader on small pickles written here: what it reads, what it refuses, and that no pickle has code run."""

import copyreg
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mksgn.train.datasets import ntu, pyskl_pkl
from mksgn.train.errors import BadInputError

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


def test_the_python_pickler_and_numpy_2_names_read_alike(tmp_path):
    content = document()
    buffer = io.BytesIO()
    pickle._Pickler(buffer, protocol=2).dump(content)
    whole = pickle.dumps(content, protocol=2)
    renamed = whole.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    assert renamed != whole
    expected = [clip.joints for clip in pyskl_pkl.read(write(tmp_path, whole), "xsub", "test").clips]
    for other in (buffer.getvalue(), renamed):
        found = [clip.joints for clip in pyskl_pkl.read(write(tmp_path, other), "xsub", "test").clips]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


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


def test_arrays_are_read_when_they_are_asked_for(tmp_path):
    path = write(tmp_path, document(frames=40))
    found = pyskl_pkl.read(path, "xsub", "test")
    with path.open("r+b") as file:
        file.truncate(1000)
    assert re.search(f"^{re.escape(str(path))}: S001.* bytes of keypoints, expected 6000", refused(list, found.clips))
    path.unlink()
    assert "cannot be read" in refused(list, found.clips)


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
        (lambda c: c["annotations"].append(dict(c["annotations"][3])), "two annotations are named S001C002P003R001A060"),
        (lambda c: c["annotations"][0].pop("keypoint"), "has None as keypoint, expected an array"),
        (lambda c: c["annotations"][0].update(keypoint=[1]), "has a list as keypoint"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 25, 3), int)), "has int64 numbers as keypoint"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 17, 2), "f2")), "17 joints of 2 .*HRNet.*Kinect"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 17, 3), "f2")), "17 joints of 3 .*HRNet"),
        (lambda c: c["annotations"][0].update(keypoint_score=np.zeros((1, 3, 25), "f2")), "HRNet"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((3, 25, 3), "f2")), r"shape \(3, 25, 3\), expected \(bod"),
        (lambda c: c["annotations"][0].update(keypoint=np.zeros((1, 3, 20, 3), "f2")), r"shape \(1, 3, 20, 3\), expected"),
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
        (lambda c: c["split"].update(xsub_val=["S001C001P003R001A001"] * 2), "1 names are twice in xsub_val"),
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
    assert "cannot be read (No such file" in read_refused(tmp_path / "nothing.pkl")
    assert "cannot be read (Is a directory" in read_refused(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", pickle.dumps({}, 0), pickle.dumps({}, 1), b"\x80\x06}."]
)
def test_what_is_no_pickle_of_these_protocols(tmp_path, content):
    assert "not a pickle of protocol 2 to 5" in read_refused(write(tmp_path, content))


@pytest.mark.parametrize(
    "value", [1, None, "x" * 1000, [], (), {}, np.arange(3), 1.5, {"split": {}, "annotations": []}]
)
def test_other_data_is_refused(tmp_path, value):
    assert "expected a dict with split and annotations" in read_refused(write(tmp_path, value))


# ---- what would run code, crash or grow


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class OwnClass:
    def __init__(self):
        self.value = 1


class WithNewArguments(int):
    def __reduce_ex__(self, protocol):
        return copyreg.__newobj_ex__, (int, (3,), {})


def hostile(marker):
    """Objects whose pickles would leave `marker` behind in an ordinary loader."""
    code = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    return {
        "os.system": Calls(os.system, shell),
        "subprocess": Calls(subprocess.call, ["touch", str(marker)]),
        "eval": Calls(eval, code),
        "exec": Calls(exec, code),
        "getattr": Calls(getattr, Calls(__import__, "builtins"), "eval"),
        "import": Calls(__import__, "os"),
        "open": Calls(open, str(marker), "w"),
        "bytes of a call": Calls(bytes, Calls(eval, code)),
        "numpy.load": Calls(np.load, str(marker), None, True),
        "numpy.fromfile": Calls(np.fromfile, str(marker)),
        "numpy.memmap": Calls(np.memmap, str(marker), "u1", "w+", 0, (1,)),
        "copyreg": Calls(copyreg._reconstructor, OwnClass, object, None),
        "an object": OwnClass(),
        "newobj_ex": WithNewArguments(3),
        "state": Calls(OwnClass, state=[OwnClass()]),
        "object array": np.array([Calls(os.system, shell)], dtype=object),
        "array of nothing": np.array([None, None], dtype=object),
        "structured": np.array([Calls(eval, code)], dtype=[("a", object)]),
        "fields": np.zeros(2, dtype=[("a", "i4")]),
        "strings": np.array(["a"]),
        "time": np.array(["2020"], dtype="M8[D]"),
        "metadata": np.zeros(2, dtype=np.dtype("f4", metadata={"a": 1})),
        "numpy function": Calls(np.zeros, 3),
        "dtype of a call": Calls(np.dtype, Calls(eval, code)),
        "subclass": Calls(np.core.multiarray._reconstruct, np.matrix, (0,), b"b"),
        "codec": Calls(__import__("_codecs").encode, "00", "hex"),
        "decode": Calls(__import__("_codecs").decode, b"00", "hex"),
        "a set": {1, 2},
        "a frozenset": frozenset({1}),
        "a complex": 1j,
    }


PLACES = {
    "alone": lambda value: value,
    "beside": lambda value: {**document(), "note": value},
    "nested": lambda value: {"split": {}, "annotations": [[({"keypoint": (value,)},)]]},
    "as keypoint": lambda value: {"split": {"xsub_val": ["a"]}, "annotations": [{"frame_dir": "a", "keypoint": value}]},
}


@pytest.mark.parametrize("kind", list(hostile("x")))
def test_nothing_in_a_pickle_is_run(tmp_path, kind):
    marker = tmp_path / "was_here"
    for protocol in PROTOCOLS:
        for place, put in PLACES.items():
            content = pickle.dumps(put(hostile(marker)[kind]), protocol=protocol)
            read_refused(write(tmp_path, content))
            assert not marker.exists(), (kind, protocol, place)


def test_the_hostile_pickles_are_hostile(tmp_path):
    """The marker does appear in an ordinary loader, so that its absence above proves something."""
    for kind in ("os.system", "eval", "exec", "subprocess", "open", "object array", "structured"):
        marker = tmp_path / kind.replace(" ", "_").replace(".", "_")
        loaded = pickle.loads(pickle.dumps(hostile(marker)[kind]))
        del loaded
        assert marker.exists(), kind


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00trueetR.", r"names os\.system"),
        (b"cposix\nsystem\n.", r"names posix\.system, which is not part of an array and may run code"),
        (b"\x8c\x02os\x8c\x06system\x93.", r"names os\.system"),
        (b"\x8c\x05numpy\x8c\x04core\x93.", r"names numpy\.core"),
        (b"\x8c\x05numpy\x8c\x0andarray.xx\x93.", "names numpy"),
        (b"c__builtin__\neval\n.", r"names __builtin__\.eval"),
        (b"c__builtin__\ngetattr\n.", r"names __builtin__\.getattr"),
        (b"cnumpy.core.multiarray\nfromfile\n.", r"names numpy\.core\.multiarray\.fromfile"),
        (b"cnumpy\n\x1b[31mdtype\r\n.", "names numpy"),
        (b"K\x01K\x02\x93.", r"names 1\.2"),
        (b"(ios\nsystem\n.", r"makes an object of a class \(os\.system\)"),
        (b"(cnumpy\nndarray\no.", "makes an object of a class"),
        (b"cnumpy\nndarray\n)\x81.", "makes an object of a class"),
        (b"cnumpy\nndarray\n)}\x92.", "makes an object of a class"),
        (b"Pfile\n.", "a persistent id"),
        (b"K\x01Q.", "a persistent id"),
        (b"\x82\x01.", "operation 0x82"),  # from the extension registry
        (b"\x97.", "operation 0x97"),  # a buffer outside the file
        (b"\x8f.", "operation 0x8f"),  # a set
        (b"I1\n.", "Python 2"),
        (b"U\x01a.", "Python 2"),
        (b"\xff.", "operation 0xff"),
        (b"c__builtin__\nbytes\nK\x08\x85R.", "calls bytes"),
        (b"cnumpy\nndarray\n)R.", "calls ndarray"),
        (b"cnumpy\nndarray\n(K\x01tR.", "calls ndarray"),
        (b"cnumpy\ndtype\n)R.", "without its operands"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", r"dtype O, expected"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00V8tR.", r"dtype V8, expected"),
        (b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.", "dtype ndarray, expected"),
        (b"cnumpy\ndtype\nb.", "without its operands"),
        (b"cnumpy\ndtype\n}b.", "without its operands"),  # attributes of what is named
        (b"cnumpy\ndtype\n(Nt\x85b.", r"sets the state of dtype"),
        (b"cnumpy\ndtype\n(N}tb.", r"sets the state of dtype"),
        (b"}(Nt\x85b.", r"sets the state of a dict"),
        (b"K\x01)R.", r"calls int 1"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85C\x01btR.", "calls _reconstruct"),
        (b"}K\x01s.", "without its operands"),
        (b"}]K\x01s.", "a dict with a list as key"),
        (b"})K\x01s.", "a dict with a tuple as key"),
        (b"}NK\x01s.", "a dict with None as key"),
        (b"}(K\x01u.", "without its operands"),
        (b"](}u.", "without its operands"),
        (b"}K\x01a.", "without its operands"),
        (b"}(K\x01e.", "without its operands"),
        (b"t.", "without its operands"),
        (b"\x87.", "without its operands"),
        (b"0.", "without its operands"),
        (b".", "without its operands"),
        (b"h\x07.", "without its operands"),
        (b"q\x07.", "without its operands"),
        (b"X\x01\x00\x00\x00\xff.", "without its operands"),
        (b"\x8a\xff" + b"\x00" * 255 + b".", "an integer of 255 bytes, the limit is 9"),
        (b"(((", "the file ends in the middle"),
    ],
)  # fmt: skip
def test_programs_are_refused_by_their_operation(tmp_path, program, message):
    assert re.search(message, read_refused(write(tmp_path, b"\x80\x02" + program)))


def array_program(shape=(1, 2), code="f4", state=None, data=b"\0" * 8, fortran=b"\x89", version=b"K\x01"):
    """An array as numpy pickles it, with any of its parts changed."""

    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    dtype = b"cnumpy\ndtype\n(" + b"X" + struct.pack("<I", len(code)) + code.encode() + b"\x89\x88tR"
    dtype += (
        state if state is not None else b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
    ) + b"b"
    values = data if isinstance(data, tuple) else (b"B" + struct.pack("<I", len(data)) + data,)
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    return made + b"(" + version + b"(" + b"".join(map(number, shape)) + b"t" + dtype + fortran + values[0] + b"tb"


def test_the_array_program_is_numpys(tmp_path):
    assert pickle.loads(b"\x80\x02" + array_program() + b".").shape == (1, 2)
    assert "holds an array" in read_refused(write(tmp_path, b"\x80\x02" + array_program() + b"."))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (1, 3)}, r"shape \(1, 3\) with 8 bytes, expected 12"),
        ({"shape": (1,)}, "with 8 bytes, expected 4"),
        ({"shape": (2**31, 2**31)}, "shape is not made of up to 8 lengths"),
        ({"shape": (1, -2)}, "shape is not made"),
        ({"shape": (-1, -2)}, "shape is not made"),
        ({"shape": (1,) * 40 + (2,)}, "shape is not made"),
        ({"code": "O8", "data": b"\x01" * 16}, "dtype O8"),
        ({"code": "f16"}, "dtype f16"),
        ({"code": "c8"}, "dtype c8"),
        ({"code": "U2"}, "dtype U2"),
        ({"code": "(2,)f4"}, "dtype '"),
        ({"code": "f4,f4"}, "dtype 'f4,f4'"),
        ({"state": b"(K\x03X\x01\x00\x00\x00|)}}K\x08K\x01K\x10t"}, "fields or metadata"),
        ({"state": b"(K\x03X\x01\x00\x00\x00?NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"}, "fields or metadata"),
        ({"state": b"(K\x03K\x01K\x01t"}, "fields or metadata"),
        ({"state": b"(t"}, "without its operands"),
        ({"data": (b"(K\x01K\x02l",)}, "Python 2|operation 0x6c"),
        ({"data": (b"]",)}, "not made of numbers"),
        ({"data": (b"N",)}, "not made of numbers"),
        ({"data": (b"X\x08\x00\x00\x00" + b"\0" * 8,)}, "not made of numbers"),
    ],
)
def test_arrays_that_would_read_beyond_their_bytes(tmp_path, changes, message):
    assert re.search(message, read_refused(write(tmp_path, b"\x80\x02" + array_program(**changes) + b".")))


def test_the_state_of_an_array_is_set_once(tmp_path):
    once = array_program()
    again = once + once[once.index(b"tR(") + 2 :]
    assert "sets the state of an array" in read_refused(write(tmp_path, b"\x80\x02" + again + b"."))


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "program",
    [
        b")" + b"\x85" * 300_000 + b"}\x940K\x01s.",  # a tuple 300,000 deep
        b"}" + b")" + b"\x85" * 90_000 + b"K\x01s.",  # as a key: hash() would overflow the C stack
        b")" + b"q\x00h\x00\x86" * 20_000 + b".",  # doubled each time
        b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",  # as a key: hash() would take for ever
        b"]" + b"r\xff\xff\xff\xff.",  # a memo index that the C loader makes room for
        b"]" + b"r\xff\xff\xff\x7f.",
        b"B\xff\xff\xff\xff.",
        b"\x8e" + b"\xff" * 8 + b".",
        b"\x96" + b"\xff" * 7 + b"\x7f.",
        b"\x8d" + b"\x00" * 5 + b"\x01\x00\x00.",
        b"\x95" + b"\xff" * 8 + b".",
        b"\x8b\xff\xff\xff\x7f.",
        b"](" + b"h" * 10,
        b"]q\x00h\x00a.",  # holds itself
        b"}" * 2_000_000 + b".",
        b"(" * 2_000_000 + b".",
        b"]\x94" * 1_000_000 + b".",
    ],
    ids=lambda program: f"{program[:6].hex()}_{len(program)}",
)
def test_bombs_end_soon_and_small(tmp_path, program):
    path = write(tmp_path, b"\x80\x04" + program)
    before, start = resident(), time.perf_counter()
    message = read_refused(path)
    assert len(message) < 600
    assert time.perf_counter() - start < 5
    assert resident() - before < 120e6


def test_operations_are_limited_by_the_files_size(tmp_path):
    path = write(tmp_path, b"\x80\x04" + b"}" * 200_000 + b".")
    assert re.search(r"more than 125000 operations, the limit for 200003 bytes", read_refused(path))


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


def read_or_refuse(path):
    """Reads all clips of a file that may be damaged; anything but BadInputError comes through."""
    try:
        for clip in pyskl_pkl.read(path, "xsub", "test").clips:
            assert clip.joints.shape[2:] == (25, 3)
    except BadInputError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PROTOCOLS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_damaged_bytes_never_do_worse_than_a_refusal(tmp_path, protocol, changes):
    content = bytearray(SMALL[protocol])
    for place, value in changes:
        content[place % len(content)] = value
    read_or_refuse(write(tmp_path, bytes(content)))


_PIECES = [
    *pyskl_pkl._OPERATIONS,
    b".",
    b"\0",
    b"\x01",
    b"\xff",
    b"numpy\n",
    b"dtype\n",
    b"cnumpy\ndtype\n",
    b"X\x02\0\0\0f4",
]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(_PIECES), max_size=40))
def test_random_programs_never_do_worse_than_a_refusal(tmp_path, pieces):
    read_or_refuse(write(tmp_path, b"\x80\x04" + b"".join(pieces) + b"."))


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(-9, 9), inner, max_size=4)
    ),
    max_leaves=15,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_are_those_of_an_ordinary_loader(tmp_path, value, protocol):
    found, _ = pyskl_pkl._load(write(tmp_path, value, protocol=protocol))
    assert found == value


def test_the_module_does_not_import_pickle():
    code = "import sys; import mksgn.train.datasets.pyskl_pkl as m; print(hasattr(m, 'pickle'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
