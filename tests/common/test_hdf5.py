"""mksgn/common/hdf5: nothing outside the file is read, nothing is allocated that it does not hold, and nothing hangs."""

import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mksgn.common import hdf5
from mksgn.common.errors import BadInputError
from tests.support.paths import ROOT
from tests.support.refusals import refusal


def read(path: Path) -> dict[str, object]:
    with hdf5.opened(path, "a test's file", "write one") as file:
        found: dict[str, object] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return found


def nested(file: h5py.File) -> None:
    group = file
    for _ in range(hdf5.DEPTH + 1):
        group = group.create_group("g")


def doubling(file: h5py.File) -> None:
    """2^40 groups for who follows every name."""
    group: h5py.Group = file
    for _ in range(40):
        inner = group.create_group("a")
        group["b"] = inner
        group = inner


def cycle(file: h5py.File) -> None:
    group = file.create_group("a")
    group.create_group("b")["c"] = group


def inflating(file: h5py.File) -> None:
    chunk = file.create_dataset("x", (1024,), "i1", chunks=(1024,), compression="gzip")
    chunk.id.write_direct_chunk((0,), zlib.compress(bytes(100_000_000), 1))


def twice_compressed(file: h5py.File) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((1024,))
    plan.set_deflate(1)
    plan.set_deflate(1)
    space = h5py.h5s.create_simple((1024,))
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_INT8, space, plan).write(space, space, np.zeros(1024, "i1"))


def named_type(file: h5py.File) -> None:
    file["type"] = np.dtype("f4")


def many_chunks(file: h5py.File) -> None:
    file.create_dataset("x", (1 << 20,), "i1", chunks=(1,), fillvalue=1)[0] = 1


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((2,), "i8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2,))
    file.create_virtual_dataset("x", layout)


HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "external storage": (
        lambda f: f.create_dataset("x", (10,), "u1", external=[("/etc/passwd", 0, 10)]),
        "'/x' has its values in another file; copy them into this file",
    ),
    "virtual": (virtual, "'/x' has its values in another file"),
    "external link": (lambda f: f.update({"x": h5py.ExternalLink("/etc/passwd", "/")}), "'/x' is a link, perhaps"),
    "soft link": (lambda f: f.update({"x": h5py.SoftLink("/")}), "'/x' is a link, perhaps into another file; replace it with a copy"),
    "cycle": (cycle, "'/a/b/c' is a second name of an object in this file"),
    "names without end": (doubling, "is a second name of an object in this file"),
    "nested": (nested, f"is nested more than {hdf5.DEPTH} groups deep, the limit"),
    "a long name": (lambda f: f.update({"n" * 2000: 1}), "'/' holds a name of 2,000 bytes, the limit is 1,024"),
    "declared": (lambda f: f.create_dataset("x", (30_000, 25_000), "f4"), "'/x' declares 750,000,000 elements, which brings the file to"),
    "not stored": (lambda f: f.create_dataset("x", (1000,), "f4"), "'/x' declares 1,000 elements and stores none"),
    "chunks not stored": (
        lambda f: f.create_dataset("x", (2000,), "f4", chunks=(1000,)).__setitem__(0, 1),
        "'/x' declares 2 chunks and stores fewer",
    ),
    "chunks without number": (many_chunks, "'/x' brings the file to more than 131,072 chunks"),
    "inflating": (inflating, "'/x' has a chunk that decompresses to more than the 1,024 bytes it declares"),
    "compressed twice": (twice_compressed, "'/x' has a compression that is not supported; compress it with gzip"),
    "complex": (lambda f: f.update({"x": np.ones(2, "c8")}), "'/x' holds .*complex numbers, expected integers"),
    "records": (lambda f: f.update({"x": np.ones(2, [("a", "f4")])}), "'/x' holds records or complex numbers, expected"),
    "references": (lambda f: f.update({"x": f.ref}), "'/x' holds references, expected integers, floating point"),
    "sequences": (
        lambda f: f.create_dataset("x", (2,), h5py.vlen_dtype(np.int64)).__setitem__(0, [1]),
        "'/x' holds sequences of variable length, expected integers",
    ),
    "opaque": (lambda f: f.update({"x": np.zeros(2, "V5")}), "'/x' holds opaque bytes, expected integers"),
    "null": (lambda f: f.update({"x": h5py.Empty("f4")}), "'/x' holds no value"),
    "a type": (named_type, "'/type' is neither a group nor a data set"),
    "text in chunks": (
        lambda f: f.create_dataset("x", data=["a", "b"], dtype=h5py.string_dtype(), compression="gzip"),
        "'/x' holds text in chunks; write it without compression",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_no_file_needs_is_refused_before_a_value_is_read(make, message, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    with pytest.raises(BadInputError, match=message) as caught:
        read(tmp_path / "a.h5")
    assert str(caught.value).startswith(f"{tmp_path / 'a.h5'}: ")
    assert "\n" not in str(caught.value)


def test_ordinary_content_is_read(tmp_path):
    values = {
        "g/text": "ä" * 9000, "g/texts": np.array([b"a", b""], dtype=object), "fixed": np.array([b"abc"]), "u": np.uint8(3),
        "half": np.float16([0.5]), "big": np.arange(3, dtype=">i4"), "truth": np.array([True, False]), "none": np.zeros((0, 2)),
    }  # fmt: skip
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in values.items():
            text = isinstance(value, np.ndarray) and value.dtype.kind == "O"
            file.create_dataset(name, data=value, **({"dtype": h5py.string_dtype()} if text else {}))
        for how in (
            {"compression": "gzip"},
            {"compression": "lzf"},
            {"compression": 4, "shuffle": True, "fletcher32": True},
        ):
            file.create_dataset(f"by {how}", data=np.arange(300_000), **how)
    found = read(tmp_path / "a.h5")
    for name, value in values.items():
        actual = found[name].decode() if isinstance(found[name], bytes) else found[name]
        assert np.array_equal(actual, value), name
    assert all(np.array_equal(x, np.arange(300_000)) for name, x in found.items() if name.startswith("by "))


def test_large_chunks_are_inflated_once_more_and_pass(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, 1 << 19, dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=noise, chunks=noise.shape, compression="gzip", fletcher32=True)
    assert np.array_equal(read(tmp_path / "a.h5")["x"], noise)


def with_heap(path: Path, change: Callable[[bytearray, int], None]) -> Path:
    """Write a file of text, and change its heap, which begins at the second argument."""
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = "LIF", "x" * 100
    content = bytearray(path.read_bytes())
    change(content, content.index(b"GCOL"))
    path.write_bytes(content)
    return path


def put(at: int, form: str, value: int) -> Callable[[bytearray, int], None]:
    return lambda content, heap: struct.pack_into(form, content, heap + at, value)


HEAPS = {
    "no step forward": put(16 + 16 + 8 + 16 + 104 + 8, "<Q", 0),  # of the free space: HDF5 2.0.0 hangs
    "a text longer than the heap": put(24, "<Q", 1 << 40),
    "a text longer than its reference": put(24, "<Q", 5),  # HDF5 copies it into a buffer of the reference's length
    "another index": put(16, "<H", 7),
    "the index of another": put(16, "<H", 2),
    "a heap longer than the file": put(8, "<Q", 1 << 40),
    "an empty heap": put(8, "<Q", 0),
    "another version": put(4, "<B", 2),
}


@pytest.mark.parametrize("change", HEAPS.values(), ids=HEAPS)
def test_damaged_text_is_refused_before_hdf5_reads_it(change, tmp_path):
    path = with_heap(tmp_path / "a.h5", change)
    assert "is damaged; copy or export the file again" in refusal(lambda: read(path))
    with pytest.raises(BadInputError), hdf5.opened(path, "a recording", "record one", attributes=True):
        pass


def test_attributes_are_few_and_short(tmp_path):
    def opened(**attributes: object) -> Callable[[], object]:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.attrs.update(attributes)

        def call() -> None:
            with hdf5.opened(tmp_path / "a.h5", "a recording", "record one", attributes=True):
                pass

        return call

    opened(__type__="NIRGraphData", dt=1e-4, n=3)()
    assert "has attributes of more than 4,096 bytes" in refusal(opened(x="n" * 5000))
    assert "'/' has an attribute of 8,000 bytes, the limit is 4,096" in refusal(opened(x=np.zeros(1000)))
    assert "'/' has 65 attributes, the limit is 64" in refusal(opened(**{f"a{i}": i for i in range(65)}))
    assert "complex numbers, expected integers" in refusal(opened(x=1j))


def test_only_regular_files_of_hdf5(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("text")
    assert not any(map(hdf5.is_hdf5, (tmp_path, tmp_path / "pipe", tmp_path / "text", tmp_path / "none")))
    assert "is a named pipe; write one" in refusal(lambda: read(tmp_path / "pipe"))
    assert "is not an HDF5 file, as a test's file must be" in refusal(lambda: read(tmp_path / "text"))
    assert "no such file; write one" in refusal(lambda: read(tmp_path / "none"))


MEASURED = """
import resource, sys, time
from pathlib import Path
from mksgn.common import hdf5
from mksgn.common.errors import BadInputError
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    with hdf5.opened(Path(sys.argv[1]), "a", "b") as file:
        raise SystemExit("was opened")
except BadInputError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - began)
"""


def zeros(mebibytes: int) -> bytes:
    """What zlib makes of so many zeros, but that each mebibyte, with the same bytes as any other, is compressed once."""
    packer, mebibyte = zlib.compressobj(9), bytes(1 << 20)
    first, other = (packer.compress(mebibyte) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    checksum = (mebibytes << 20) % 65521 << 16 | 1  # Adler-32 of zeros
    return first + (mebibytes - 1) * other + b"\x03\x00" + checksum.to_bytes(4, "big")


def test_the_zeros_of_a_bomb_are_what_a_reader_would_get():
    assert zlib.decompress(zeros(70)) == bytes(70 << 20)


def bomb(path: Path, kind: str) -> None:
    """Write 3 MB that become 3 GB."""
    with h5py.File(path, "w") as file:
        if kind == "one chunk":
            chunk = file.create_dataset("x", (1024,), "i1", chunks=(1024,), compression="gzip")
            chunk.id.write_direct_chunk((0,), zeros(3000))
        elif kind == "chunks":
            values = file.create_dataset("x", (3000, 1 << 20), "i1", chunks=(1, 1 << 20), compression="gzip")
            content = zlib.compress(bytes(1 << 20), 9)
            for i in range(3000):
                values.id.write_direct_chunk((i, 0), content)
        else:
            for i in range(10_000):
                file.create_group(f"g{i}").create_dataset("x", (300_000,), "i1", compression="gzip", chunks=(300_000,))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one chunk", "chunks", "names"])
def test_a_bomb_of_3_mb_costs_little(kind, tmp_path):
    bomb(tmp_path / "bomb.h5", kind)
    assert (tmp_path / "bomb.h5").stat().st_size < 16e6
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "bomb.h5")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    kibibytes, seconds = map(float, done.stdout.split())
    assert kibibytes < 200e3
    assert seconds < 2
