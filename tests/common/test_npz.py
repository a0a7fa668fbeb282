"""Arrays of .npz and .npy files: what numpy writes is read, and anything else is refused in one line, before it is
allocated."""

import io
import resource
import time
import zipfile
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.common import archives, npz
from mksgn.deploy import arrays
from mksgn.train.datasets.arrays import open_arrays
from tests.support.damaged_archives import FOREIGN, HEADERS, bomb, damage_settings, flipped, npy, rezipped, zipped
from tests.support.refusals import read_or_refused, refusal

X = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "y": np.array([0, 1]), "f": np.ones((2, 3)).T}


def content(save=np.savez, **values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **values or X)
    return buffer.getvalue()


def refused(folder, data: bytes, name: str = "a.npz") -> str:
    (folder / name).write_bytes(data)
    reader = npz.read_npy if name.endswith("npy") else npz.read
    message = refusal(partial(reader, folder / name, "write it again"))
    assert message.endswith("write it again")
    return message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes_is_read(tmp_path, save):
    values = X | {"none": np.zeros((0, 3)), "one": np.array(1.5), "large": np.zeros(100_000, dtype=">i2")}
    (tmp_path / "a.npz").write_bytes(content(save, **values))
    read = npz.read(tmp_path / "a.npz", "")
    assert read.keys() == values.keys()
    for name, x in values.items():
        np.testing.assert_array_equal(read[name], x)
        assert (read[name].dtype, read[name].shape) == (x.dtype, x.shape)
        assert read[name].flags.writeable
    assert npz.read(tmp_path / "a.npz", "", wanted="y".__eq__).keys() == {"y"}


@pytest.mark.parametrize("x", [*X.values(), np.zeros((0, 3)), np.array(2)])
def test_a_single_array_is_read(tmp_path, x):
    np.save(tmp_path / "a.npy", x)
    np.testing.assert_array_equal(npz.read_npy(tmp_path / "a.npy", ""), x)


def test_a_bomb_is_refused_before_it_inflates(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "INFLATED_BYTES", 1 << 20)  # of this size a bomb takes seconds to make
    data = bomb(1 << 28)
    assert len(data) < 1 << 19
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert "inflate to 268,435,584, the limit is" in refused(tmp_path, data)
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
    several = [(f"x{i}.npy", npy({"descr": "|u1", "fortran_order": False, "shape": (1 << 19,)}) + bytes(1 << 19))
               for i in range(4)]  # fmt: skip
    assert "inflate to" in refused(tmp_path, zipped(several, zipfile.ZIP_DEFLATED))


def test_a_member_that_inflates_to_more_than_it_declares_is_refused(tmp_path):
    data = bytearray(content(np.savez_compressed, x=np.zeros(1000)))
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (128 + 80).to_bytes(4, "little")
    refused(tmp_path, bytes(data))


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_headers_that_declare_what_is_not_there_are_refused(tmp_path, header):
    refused(tmp_path, zipped([("x.npy", npy(header) + bytes(64))]))


@pytest.mark.parametrize("member", FOREIGN, ids=str)
def test_foreign_members_are_refused(tmp_path, member):
    refused(tmp_path, zipped([("x0.npy", npy({"descr": "|u1", "fortran_order": False, "shape": (1,)}) + b"0"), member]))


def test_archives_that_contradict_themselves_are_refused(tmp_path):
    array = npy({"descr": "|u1", "fortran_order": False, "shape": (1,)}) + b"0"
    good = zipped([("x.npy", array)])
    assert "two members are named" in refused(tmp_path, zipped([("x.npy", array)] * 2))
    assert "compression 12" in refused(tmp_path, zipped([("x.npy", array)], zipfile.ZIP_BZIP2))
    assert "its last bytes are not the end" in refused(tmp_path, good + b"comment")
    assert "its directory is not where" in refused(tmp_path, b"before" + good)
    assert "too short" in refused(tmp_path, b"PK")
    assert "is empty" in refusal(partial(npz.read, _empty(tmp_path), ""))
    entry = good.index(b"PK\x01\x02")
    assert "is encrypted" in refused(tmp_path, good[: entry + 8] + b"\x01" + good[entry + 9 :])
    two = bytearray(zipped([("x.npy", array), ("y.npy", array)]))
    second = two.index(b"PK\x01\x02", two.index(b"PK\x01\x02") + 1)
    two[second + 42 : second + 46] = (0).to_bytes(4, "little")
    assert "overlaps the member before it" in refused(tmp_path, bytes(two))


def _empty(folder):
    (folder / "empty.npz").write_bytes(b"")
    return folder / "empty.npz"


def test_more_members_than_any_file_has(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 2)
    assert "3 members in a directory of" in refused(tmp_path, content())


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", npy(HEADERS[0]), npy(HEADERS[1]), npy(HEADERS[3])])
def test_single_arrays_that_are_none_are_refused(tmp_path, data):
    (tmp_path / "a.npy").write_bytes(data)
    refusal(partial(npz.read_npy, tmp_path / "a.npy", "write it again"))


DATA = content()
COMPRESSED = content(np.savez_compressed)


@damage_settings(200)
@given(flipped(DATA) | rezipped(DATA) | flipped(COMPRESSED) | rezipped(COMPRESSED) | st.binary(max_size=60))
def test_any_damage_is_read_or_refused(tmp_path, data):
    (tmp_path / "a.npz").write_bytes(data)
    for reader in (
        partial(npz.read, tmp_path / "a.npz", ""),
        partial(arrays.load, tmp_path / "a.npz"),
        partial(open_arrays, f"npz:{tmp_path / 'a.npz'}"),
    ):
        read_or_refused(reader)
