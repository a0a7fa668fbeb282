"""The reader of plain pickles: it gives what an ordinary loader gives, runs no code, and refuses
damage with BadInputError."""

import copyreg
import os
import pickle
import pickletools
import re
import struct
import subprocess

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mksgn.common.errors import BadInputError
from mksgn.train.datasets import plain_pickle
from mksgn.train.datasets.plain_pickle import describe, load, show
from tests.support.tiers import examples

PROTOCOLS = (0, 1, 2, 3, 4, 5)
NUMBERS = ("b1", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
REMEDY = "make the file again"


def write(folder, content):
    path = folder / "file.pkl"
    path.write_bytes(content)
    return path


def loaded(folder, content, protocol=None):
    """Read a file of these bytes or, with a protocol, of this value's pickle."""
    return load(write(folder, content if protocol is None else pickle.dumps(content, protocol)), REMEDY)[0]


def refusal(folder, content, protocol=None):
    """Return the one line that the file is refused with."""
    with pytest.raises(BadInputError) as caught:
        loaded(folder, content, protocol)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'file.pkl'}: ")
    assert message.endswith(f": {REMEDY}")
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))
    return message


# ---- what is read


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.integers(-9, 9), inner, max_size=4)
    ),
    max_leaves=15,
)


properties = settings(
    max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@properties
@given(_PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_are_those_of_an_ordinary_loader(tmp_path, value, protocol):
    assert loaded(tmp_path, value, protocol) == value
    assert repr(loaded(tmp_path, value, protocol)) == repr(value)  # which tells True from 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", NUMBERS)
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_arrays_of_all_numbers_are_those_of_an_ordinary_loader(tmp_path, protocol, code, count):
    raw = np.random.default_rng(0).integers(0, 2 if code == "b1" else 256, count * np.dtype(code).itemsize, np.uint8)
    for order in "<>":
        array = raw.view(order + code)
        values = loaded(tmp_path, {"values": array}, protocol)["values"].values
        assert (values.dtype, values.shape, values.dtype.byteorder) == (array.dtype, (count,), array.dtype.byteorder)
        assert values.tobytes() == array.tobytes()  # NaN too


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_any_layout(tmp_path, protocol):
    values = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    layouts = {
        "plain": values,
        "fortran": np.asfortranarray(values),
        "backwards": values[::-1],
        "transposed": values.transpose(0, 1, 3, 2),  # neither C nor Fortran order
        "fortran and small": np.asfortranarray(values[0, :2, 0]),
        "no dimension": np.array(3.5),
        "empty": np.zeros((0, 3)),
        "sliced": values[:, ::2],
    }
    actual = loaded(tmp_path, layouts, protocol)
    for name, expected in layouts.items():
        np.testing.assert_array_equal(actual[name].values, expected, err_msg=name)
        assert actual[name].values.shape == expected.shape


def laid_out(*state) -> bytes:
    """A pickle of protocol 5 that calls numpy 2.4's _frombuffer, with any version of numpy."""

    class Call:
        def __reduce__(self):
            return np.core.numeric._frombuffer, state

    return pickle.dumps(Call(), protocol=5)


def test_an_array_that_numpy_2_4_pickles_as_it_lies_in_memory(tmp_path):
    values = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    array = loaded(tmp_path, laid_out(values.tobytes(), values.dtype, (2, 3, 4), "K", (2, 0, 1))).values
    assert array.shape == (4, 2, 3)
    np.testing.assert_array_equal(array, values.transpose(2, 0, 1))


@pytest.mark.parametrize("axes", [(0, 0, 1), (0, 1), (0, 1, 3), (0.0, 1, 2), "012", None])
def test_axes_that_are_no_permutation_are_refused(tmp_path, axes):
    values = np.arange(24, dtype="<f4")
    refusal(tmp_path, laid_out(values.tobytes(), values.dtype, (2, 3, 4), "K", axes))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_of_numpy_are_numbers(tmp_path, protocol):
    values = [np.int64(-7), np.uint8(200), np.float16(0.5), np.float64(1 / 3), np.bool_(True), np.int32(2**30)]
    numbers = loaded(tmp_path, values, protocol)
    assert [type(value) for value in numbers] == [int, int, float, float, bool, int]
    assert numbers == [value.item() for value in values]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bytes_of_any_length(tmp_path, protocol):
    values = [b"", b"\0\xff", "ä", b"x" * 1000, "ä" * 1000]
    assert loaded(tmp_path, values, protocol) == values


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"}K\x01" + b"\x85" * 100_000 + b"K\x01s", "a tuple as a key"),  # whose hash would end the process
        (b"}(K\x01" + b"\x85" * 100_000 + b"K\x01u", "a tuple as a key"),
        (b"(K\x01" + b"\x85" * 100_000 + b"K\x01d", "a tuple as a key"),
        (b"}K\x01" + b"q\x00h\x00\x86" * 60 + b"K\x01s", "a tuple as a key"),  # whose hash would take for ever
        (b"(K\x01" + b"q\x00h\x00\x86" * 60 + b"\x91", "a set"),
        (b"\x8f(K\x01\x85\x90", "a set"),
    ],
)
def test_what_would_be_hashed_is_plain(tmp_path, body, message):
    assert message in refusal(tmp_path, b"\x80\x04" + body + b".")


def test_more_containers_than_any_file_has(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_CONTAINERS", 20)
    assert "more than 20 lists, dictionaries and tuples" in refusal(tmp_path, [[]] + [[] for _ in range(20)], 2)


def test_a_number_of_any_length_is_shown():
    assert show(1 << 100_000) == "a number of 100,001 bits"


def test_numpy_1_and_numpy_2_names_read_alike(tmp_path):
    values = {"large": np.arange(300.0), "small": np.arange(3, dtype=">i2"), "one": np.float32(1.5)}
    content = pickle.dumps(values, protocol=2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    renamed = content.replace(new, old) if new in content else content.replace(old, new)
    assert renamed != content
    for version in (content, renamed):
        actual = loaded(tmp_path, version)
        assert actual["one"] == 1.5
        for name in ("large", "small"):
            np.testing.assert_array_equal(actual[name].values, values[name])


def test_a_repeated_value_is_one_object(tmp_path):
    array, inner = np.zeros(1000, np.float16), [1]
    values = [array, array, inner, inner]
    values.append(values)
    path = write(tmp_path, pickle.dumps(values, protocol=4))
    actual, size = load(path, REMEDY)
    assert actual[0] is actual[1]
    assert actual[2] is actual[3]
    assert actual[4] is actual
    assert size == path.stat().st_size


def test_messages_show_values_in_a_line():
    assert [show(each) for each in ("a_b-1.c", "a b", "é\n", 3, 2.5, True, None, [1], b"x")] == [
        "a_b-1.c", "'a b'", r"'\xe9\n'", "3", "2.5", "True", "None", "a list", "bytes b'x'",
    ]  # fmt: skip
    assert [describe(each) for each in ("a", 3, None, {}, (1,))] == ["a string", "int 3", "None", "a dict", "a tuple"]
    assert len(show("é" * 1000)) <= 60
    deep = ()
    for _ in range(100_000):
        deep = (deep, deep)
    assert show(deep) == describe(deep) == "a tuple"


@pytest.mark.parametrize("content", [b"", b"\x80", b"PK\x03\x04", b"\x80\x06}.", b"\x80\x04}", b"text\n"])
def test_what_is_no_pickle(tmp_path, content):
    assert "not a pickle of plain containers" in refusal(tmp_path, content)


def test_a_file_over_the_limit_of_its_size(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_pickle, "MAX_BYTES", 10)
    with pytest.raises(BadInputError, match=r"has 1,000 bytes, the limit is 10; name another file"):
        loaded(tmp_path, b"x" * 1000)


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / "nothing.pkl", "no such file"), (tmp_path, "is a directory")):
        with pytest.raises(BadInputError, match=rf"^{re.escape(str(path))}: {reason}; {REMEDY}$"):
            load(path, REMEDY)


# ---- what would run code or crash


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
        "a complex": 1j,
    }


PLACES = {
    "alone": lambda value: value,
    "nested": lambda value: {"split": {}, "annotations": [[({"keypoint": (value,)},)]]},
    "after others": lambda value: [np.arange(400), "text", value, {"more": np.arange(3)}],
}


EMPTY_SETS = {0: b"c__builtin__\nset\n(tR.", 2: b"\x80\x02c__builtin__\nset\n]\x85R."}


@pytest.mark.parametrize("content", EMPTY_SETS.values())
def test_a_set_of_an_old_protocol_is_refused(tmp_path, content):
    assert pickle.loads(content) == set()
    assert "names __builtin__.set" in refusal(tmp_path, content)


@pytest.mark.parametrize("kind", list(hostile("x")))
def test_nothing_in_a_pickle_is_run(tmp_path, kind):
    marker = tmp_path / "was_here"
    for protocol in PROTOCOLS:
        for place, put in PLACES.items():
            refusal(tmp_path, put(hostile(marker)[kind]), protocol)
            assert not marker.exists(), (kind, protocol, place)


def test_the_hostile_pickles_are_hostile(tmp_path):
    """The marker does appear in an ordinary loader, so that its absence above proves something."""
    for kind in ("os.system", "eval", "exec", "subprocess", "open", "object array", "structured"):
        marker = tmp_path / kind.replace(" ", "_").replace(".", "_")
        content = pickle.loads(pickle.dumps(hostile(marker)[kind]))
        del content
        assert marker.exists(), kind


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b"cos\nsystem\n(X\x04\x00\x00\x00trueetR.", r"names os\.system"),
        (b"cposix\nsystem\n.", r"names posix\.system, which may run code: do not load the file elsewhere either"),
        (b"\x8c\x02os\x8c\x06system\x93.", r"names os\.system"),
        (b"\x8c\x05numpy\x8c\x04core\x93.", r"names numpy\.core"),
        (b"\x8c\x05numpy\x8c\x0dndarray.dumps\x93.", r"names numpy\.ndarray\.dumps"),
        (b"c__builtin__\neval\n.", r"names __builtin__\.eval"),
        (b"c__builtin__\ngetattr\n(cnumpy\nndarray\nX\x05\0\0\0dumpstR.", r"names __builtin__\.getattr"),
        (b"cbuiltins\nbytes\n.", r"names builtins\.bytes"),
        (b"cnumpy.core.multiarray\nfromfile\n.", r"names numpy\.core\.multiarray\.fromfile"),
        (b"cnumpy\nload\n.", r"names numpy\.load"),
        (b"cnumpy\n\x1b[31mdtype\r\n.", "names numpy"),
        (b"(ios\nsystem\n.", r"names os\.system"),
        (b"(X\x04\0\0\0trueios\nsystem\n.", r"names os\.system"),
        (b"(X\x04\0\0\0trueinumpy\nndarray\n.", "calls ndarray"),  # INST
        (b"(cnumpy\nndarray\no.", "calls ndarray"),  # OBJ
        (b"(cnumpy\nndarray\nK\x08o.", "calls ndarray"),
        (b"cnumpy\nndarray\n)\x81.", ""),  # NEWOBJ
        (b"cnumpy\ndtype\nX\x02\0\0\0f4\x85\x81.", ""),
        (b"cnumpy\nndarray\n)}\x92.", ""),  # NEWOBJ_EX
        (b"X\x01\0\0\0ax\x81.", ""),
        (b"Pfile\n.", "persistent"),
        (b"K\x01Q.", "persistent"),
        (b"\x82\x01.", "names extension 1"),
        (b"\x83\x01\x00.", "names extension 1"),
        (b"\x84\x01\x00\x00\x00.", "names extension 1"),
        (b"\x97.", ""),  # a buffer outside the file
        (b"\xff.", ""),
        (b"c__builtin__\nbytes\nK\x08\x85R.", "calls bytes"),
        (b"c_codecs\nencode\n(X\x02\0\0\0ffX\x03\0\0\0hextR.", "calls encode"),
        (b"cnumpy\nndarray\n)R.", "calls ndarray"),
        (b"cnumpy\nndarray\n(K\x01tR.", "calls ndarray"),
        (b"cnumpy\ndtype\n)R.", "calls dtype"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", "calls dtype"),
        (b"cnumpy\ndtype\n(X\x02\x00\x00\x00V8tR.", "calls dtype"),
        (b"cnumpy\ndtype\n(cnumpy\nndarray\ntR.", "calls dtype"),
        (RECONSTRUCT + b"(cnumpy\ndtype\nK\x00\x85C\x01btR.", "calls _reconstruct"),
        (b"cnumpy\ndtype\n}X\x04\0\0\0nameX\x04\0\0\0evalsb.", "sets the state of dtype"),  # BUILD
        (b"cnumpy\ndtype\nN}X\x04\0\0\0nameX\x04\0\0\0evals\x86b.", "sets the state of dtype"),
        (b"cnumpy\nndarray\n(K\x01Ntb.", "sets the state of ndarray"),
        (b"K\x01)R.", "not callable"),
        (b"}K\x01s.", ""),
        (b"(((", ""),
        (b"B\xff\xff\xff\x7fabc.", ""),
        (b"\x8e" + b"\xff" * 8 + b".", ""),
        (b"]" + b"r\xff\xff\xff\x7f", ""),  # a memo index for which the C unpickler allocates 34 GB
    ],
)  # fmt: skip
def test_hostile_programs_are_refused(tmp_path, program, message):
    assert re.search(message, refusal(tmp_path, b"\x80\x02" + program))


def array_program(shape=(1, 2), code="f4", state=None, data=b"\0" * 8, fortran=b"\x89", version=b"K\x01"):
    """Pickle an array as numpy does, with any of its parts changed."""

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
    content = b"\x80\x02" + array_program() + b"."
    expected = pickle.loads(content)
    actual = loaded(tmp_path, content).values
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype) == ((1, 2), np.float32)
    np.testing.assert_array_equal(actual, expected)


def test_an_array_without_its_state_has_no_values(tmp_path):
    program = array_program()
    array = loaded(tmp_path, b"\x80\x02" + program[: program.index(b"tR(") + 2] + b".")
    assert array.values.shape == (0,)


FORGED_FLAGS = b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (1, 3)}, "cannot reshape"),
        ({"shape": (1,)}, "cannot reshape"),
        ({"shape": (2**31, 2**31)}, ""),
        ({"shape": (-1, -2)}, ""),
        ({"shape": (1,) * 80 + (2,)}, ""),
        ({"code": "O8", "data": b"\x01" * 16}, "calls dtype"),
        ({"code": "O8", "data": b"\x01" * 16, "state": FORGED_FLAGS}, "calls dtype"),  # bytes for pointers
        ({"code": "f16"}, "calls dtype"),
        ({"code": "c8"}, "calls dtype"),
        ({"code": "U2"}, "calls dtype"),
        ({"code": "(2,)f4"}, "calls dtype"),
        ({"code": "f4,f4"}, "calls dtype"),
        ({"state": b"(K\x03X\x01\x00\x00\x00|)}}K\x08K\x01K\x10t"}, "fields or metadata"),
        ({"state": b"(K\x03X\x01\x00\x00\x00?NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"}, "fields or metadata"),
        ({"state": b"(K\x03K\x01K\x01t"}, "fields or metadata"),
        ({"state": b"(t"}, "fields or metadata"),
        ({"data": (b"(K\x01K\x02l",)}, "anything but numbers"),
        ({"data": (b"]",)}, "anything but numbers"),
        ({"data": (b"N",)}, "anything but numbers"),
        ({"data": (b"X\x08\x00\x00\x00" + b"\0" * 8,)}, "anything but numbers"),
    ],
)
def test_arrays_of_objects_or_with_too_few_bytes_are_refused(tmp_path, changes, message):
    assert re.search(message, refusal(tmp_path, b"\x80\x02" + array_program(**changes) + b"."))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_is_refused(tmp_path, protocol):
    value = {"names": ["a", "b"] * 3, "large": np.arange(80.0), "small": np.arange(3, dtype="f2"), "n": (1.5, 2**40)}
    whole = pickle.dumps(value, protocol)
    for length in {*range(0, len(whole), 9), *range(len(whole) - 40, len(whole))}:
        refusal(tmp_path, whole[:length])


def read_or_refuse(folder, content):
    """Read a file that may be damaged; the test fails on any error but BadInputError."""
    try:
        loaded(folder, content)
    except BadInputError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


MIXED = {"a": [np.arange(9.0), np.arange(300, dtype=">i2")], "b": (True, -3, "text", np.int8(3)), 7: {"c": b"bytes"}}


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PROTOCOLS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_damaged_files_are_read_or_refused(tmp_path, protocol, changes):
    content = bytearray(pickle.dumps(MIXED, protocol))
    for place, value in changes:
        content[place % len(content)] = value
    read_or_refuse(tmp_path, bytes(content))


PIECES = [
    *(opcode.code.encode("latin-1") for opcode in pickletools.opcodes),
    b"\0", b"\x01", b"\xff", b"numpy\n", b"dtype\n", b"cnumpy\ndtype\n", b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R",
    b"X\x02\0\0\0f4",
]  # fmt: skip


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_random_programs_are_read_or_refused(tmp_path, pieces):
    read_or_refuse(tmp_path, b"\x80\x04" + b"".join(pieces) + b".")
