"""Files of torch.save: what mksgn-train writes is read, and anything else is refused in one line before torch sees
it."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.train import torch_file
from tests.support.damaged_archives import damage_settings, edited_pickle, flipped, rezipped, zipped
from tests.support.refusals import read_or_refused, refusal

properties = damage_settings(150)
VALUES = {
    "schema": "mksgn.model/1",
    "config": {"widths": [4, 8], "tau": 2.0, "graph": None, "learned": True, "large": 2**40},
    "state": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict(),
    "shared": [torch.ones(2, 3).T, torch.arange(4), torch.tensor(True), torch.zeros(0, 3), torch.tensor(1.5).half()],
}


def saved(values: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(values, buffer, **options)
    return buffer.getvalue()


CONTENT = saved(VALUES)


def parts(content: bytes = CONTENT) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def of_pickle(content: bytes) -> bytes:
    return zipped(list((parts() | {"archive/data.pkl": content}).items()))


def refused(folder, content: bytes) -> str:
    path = folder / "model.pt"
    path.write_bytes(content)
    message = refusal(partial(torch_file.read, path, "train it again"))
    assert message.startswith(f"{path}: ")
    assert message.endswith("; train it again")
    assert len(message) - len(str(path)) < 400
    return message


def test_what_was_saved_comes_back(tmp_path):
    (tmp_path / "model.pt").write_bytes(CONTENT)
    read = torch_file.read(tmp_path / "model.pt", "")
    assert read["config"] == VALUES["config"]
    assert type(read["state"]) is OrderedDict
    assert read["state"]._metadata == VALUES["state"]._metadata
    for one, other in zip(
        [*read["state"].values(), *read["shared"]], [*VALUES["state"].values(), *VALUES["shared"]], strict=True
    ):
        assert (one.dtype, one.stride()) == (other.dtype, other.stride())
        assert torch.equal(one, other)


def test_an_optimiser_and_a_schedule_come_back(tmp_path):
    module = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    values = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    (tmp_path / "state.pt").write_bytes(saved(values))
    read = torch_file.read(tmp_path / "state.pt", "")
    assert read["schedule"] == values["schedule"]
    assert torch.equal(read["optimizer"]["state"][0]["exp_avg"], values["optimizer"]["state"][0]["exp_avg"])


def protocol_2(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


DOUBLED = b"q\x00h\x00\x86" * 40  # a pair of the last value with itself, again and again
HOSTILE = {
    "tuples nested as a key": (protocol_2(b"}K\x01" + b"\x85" * 100_000 + b"K\x01s"), "nested more than"),
    "a tuple as a key": (protocol_2(b"}K\x01\x85K\x01s"), "tuple as a key"),
    "a tensor's name as a key": (protocol_2(b"}ctorch\nFloatStorage\nK\x01s"), "as a key"),
    "tuples doubled as a key": (protocol_2(b"}K\x01" + DOUBLED + b"K\x01s"), "nested more than|counting repeated ones each time"),
    "tuples doubled": (
        protocol_2(b"}X\x06\x00\x00\x00schemaK\x01" + DOUBLED + b"s"), "nested more than|counting repeated ones each time"
    ),
    "wide lists by reference": (
        protocol_2(b"](" + b"K\x01" * 1000 + b"eq\x00](" + b"h\x00" * 1000 + b"e"), "counting repeated ones each time"
    ),
    "lists nested": (protocol_2(b"]" * 50_000 + b"a" * 49_999), "nested more than"),
    "a list in itself": (protocol_2(b"]q\x00h\x00a"), "after it was put into another"),
    "a list in itself, by a tuple": (protocol_2(b"]q\x00h\x00\x85a"), "after it was put into another"),
    "a list changed later": (protocol_2(b"]q\x00]h\x00a0h\x00K\x01a"), "POP in its pickle"),
    "a large number": (protocol_2(b"\x8a\xff" + b"\x01" * 255), "a whole number of"),
    "half a character": (protocol_2(b"X\x03\x00\x00\x00\xed\xa0\x80"), "damaged"),
    "code": (protocol_2(b"cos\nsystem\nX\x04\x00\x00\x00true\x85R"), "it names 'os.system'"),
    "a new object": (protocol_2(b"ctorch\nFloatStorage\n)\x81"), "NEWOBJ"),
    "a set": (protocol_2(b"\x8f"), "EMPTY_SET"),
    "a call of a storage": (protocol_2(b"ctorch\nFloatStorage\nK\x01\x85R"), "calls something that does not make a dense tensor"),
    "a persistent id of its own": (protocol_2(b"X\x01\x00\x00\x00xQ"), "names a storage in a different way"),
    "other attributes": (
        protocol_2(b"ccollections\nOrderedDict\n)R}X\x04\x00\x00\x00keysK\x01sb"), "sets attributes, other than"
    ),
    "attributes of a list": (protocol_2(b"]}b"), "sets attributes"),
    "no end": (b"\x80\x02K\x01", "damaged"),
    "more after the end": (protocol_2(b"K\x01") + b"K\x01.", "does not end where it should"),
    "protocol 4": (pickle.dumps({}, 4), "protocol 4"),
    "a memo that is not there": (protocol_2(b"h\x07"), "damaged"),
    "below the mark": (protocol_2(b"K\x01K\x02(\x86"), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused(tmp_path, kind):
    content, message = HOSTILE[kind]
    found = refused(tmp_path, of_pickle(content))
    assert any(part in found for part in message.split("|")), found


def test_more_operations_than_any_model_has(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "OPERATIONS", 50)
    assert "more than 50 operations in its pickle" in refused(tmp_path, CONTENT)


def tensor(shape=(2,), strides=(1,), offset=0, stored=2, kind="Float", size=None) -> bytes:
    """A file with one tensor of that extent, whose storage has `stored` values, or `size` bytes."""

    def number(n: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", n)

    def text(s: str) -> bytes:
        return b"X" + struct.pack("<I", len(s)) + s.encode()

    def numbers(ns: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, ns)) + b"t"

    place = b"(" + text("storage") + f"ctorch\n{kind}Storage\n".encode() + text("0") + text("cpu") + number(stored)
    given = b"(" + place + b"tQ" + number(offset) + numbers(shape) + numbers(strides) + b"\x89"
    call = b"ctorch._utils\n_rebuild_tensor_v2\n" + given + b"ccollections\nOrderedDict\n)RtR"
    members = {name: inside for name, inside in parts().items() if "/data/" not in name}
    members |= {"archive/data.pkl": protocol_2(call), "archive/data/0": bytes(8 if size is None else size)}
    return zipped(list(members.items()))


def test_a_tensor_within_its_storage_is_read(tmp_path):
    for content, shape in [
        (tensor(), (2,)),
        (tensor((2, 1), (1, 2)), (2, 1)),
        (tensor((0, 10**9), (1, 1)), (0, 10**9)),
    ]:
        (tmp_path / "model.pt").write_bytes(content)
        assert torch_file.read(tmp_path / "model.pt", "").shape == shape


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor((10**12,), (0,)), "a tensor of 1,000,000,000,000 values"),
        (tensor((3,)), "a tensor of 3 values"),
        (tensor((2,), (2,)), "up to value 2 in a storage of 2"),
        (tensor(offset=1), "up to value 2 in a storage of 2"),
        (tensor(offset=-1), "a tensor without a valid extent"),
        (tensor((-2,)), "a tensor without a valid extent"),
        (tensor((2, 1)), "a tensor without a valid extent"),
        (tensor(stored=10**12), "has 8 bytes for 1,000,000,000,000 values"),
        (tensor(stored=1), "has 8 bytes for 1 values"),
        (tensor(size=4), "has 4 bytes for 2 values"),
        (tensor(kind="ComplexFloat"), "it names 'torch.ComplexFloatStorage'"),
        (tensor(kind="QInt8"), "it names 'torch.QInt8Storage'"),
    ],
)
def test_a_tensor_that_lies_about_its_extent_is_refused(tmp_path, content, message):
    assert message in refused(tmp_path, content)


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, 2).to_sparse(),
        torch.ones(2, 2).to_sparse_csr(),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2, device="meta"),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.nn.Parameter(torch.ones(2)),
        torch.float32,
        torch.Size([2]),
        {1, 2},
        3 + 4j,
        b"bytes",
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, torch.Tensor) else str(value.layout),
)
@pytest.mark.filterwarnings("ignore")  # torch.quantize_per_tensor is deprecated
def test_other_tensors_and_objects_are_refused(tmp_path, value):
    refused(tmp_path, saved({"state": value}))


def test_a_file_of_the_form_before_1_6_is_refused(tmp_path):
    found = refused(tmp_path, saved(VALUES, _use_new_zipfile_serialization=False))
    assert "not a zip archive, which torch has written since version 1.6" in found


def test_other_archives_are_refused(tmp_path):
    members = list(parts().items())
    assert "is compressed" in refused(tmp_path, zipped(members, zipfile.ZIP_DEFLATED))
    assert "which torch.save doesn't write" in refused(tmp_path, zipped([*members, ("archive/code/x.py", b"")]))
    assert "which torch.save doesn't write" in refused(tmp_path, zipped([*members, ("other/version", b"3")]))
    assert "two members are named 'archive/version'" in refused(tmp_path, zipped([*members, ("archive/version", b"4")]))
    assert "no data.pkl" in refused(tmp_path, zipped([("archive/version", b"3")]))
    assert "no data.pkl" in refused(tmp_path, zipped([("archive/byteorder", b"big")]))
    assert "has 1,000 bytes, the limit is 100" in refused(tmp_path, zipped([("archive/version", bytes(1000))]))
    assert "are not the end of a zip archive" in refused(tmp_path, CONTENT + b"more")


def test_a_changed_weight_is_noticed(tmp_path):
    weight = VALUES["state"]["0.weight"].numpy().tobytes()
    assert CONTENT.count(weight) == 1
    at = CONTENT.index(weight)
    assert "Bad CRC-32" in refused(tmp_path, CONTENT[:at] + bytes([CONTENT[at] ^ 1]) + CONTENT[at + 1 :])


def read_or_refuse(folder, content: bytes) -> None:
    (folder / "model.pt").write_bytes(content)
    read_or_refused(lambda: torch_file.read(folder / "model.pt", "train it again"))


@properties
@given(flipped(CONTENT) | rezipped(CONTENT))
def test_any_damage_is_read_or_refused(tmp_path, content):
    read_or_refuse(tmp_path, content)


@properties
@given(edited_pickle(parts()["archive/data.pkl"]) | flipped(parts()["archive/data.pkl"]) | st.binary(max_size=40))
def test_any_pickle_is_read_or_refused(tmp_path, content):
    read_or_refuse(tmp_path, of_pickle(content))
