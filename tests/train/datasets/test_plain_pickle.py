"""The reader of plain pickles: what it gives is what an ordinary loader gives, and no pickle has code run, crashes it or grows."""

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

from mksgn.common.errors import BadInputError
from mksgn.train.datasets.plain_pickle import _EFFECTS, _NUMBERS, _VALUES, SHORT, Array, describe, load, show

PROTOCOLS = (2, 3, 4, 5)
REMEDY = "make the file again"
REMEDIES = (REMEDY, "do not load the file elsewhere either", "load the file and save it with Python 3")


def write(folder, content):
    path = folder / "file.pkl"
    path.write_bytes(content)
    return path


def loaded(folder, content, protocol=None):
    """What a file holds that has these bytes or, with a protocol, that is this value's pickle."""
    return load(write(folder, content if protocol is None else pickle.dumps(content, protocol)), REMEDY)[0]


def refusal(folder, content, protocol=None):
    """The one line that a file is refused with."""
    with pytest.raises(BadInputError) as caught:
        loaded(folder, content, protocol)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'file.pkl'}: ")
    assert message.endswith(REMEDIES)
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))
    return message


def arrays_in(value):
    """The arrays among plain containers, those that hold themselves but once."""
    found, left, seen = [], [value], set()
    while left:
        each = left.pop()
        if isinstance(each, Array):
            found.append(each)
        elif isinstance(each, list | tuple | dict) and id(each) not in seen:
            seen.add(id(each))
            left += each.values() if isinstance(each, dict) else each
    return found


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


properties = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@properties
@given(_PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_values_are_those_of_an_ordinary_loader(tmp_path, value, protocol):
    assert loaded(tmp_path, value, protocol) == value
    assert repr(loaded(tmp_path, value, protocol)) == repr(value)  # which tells True from 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", sorted(_NUMBERS))
@pytest.mark.parametrize("count", [1, SHORT, 1000])  # the shortest is read at once
def test_arrays_of_all_numbers_are_those_of_an_ordinary_loader(tmp_path, protocol, code, count):
    raw = np.random.default_rng(0).integers(0, 2 if code == "b1" else 256, count * np.dtype(code).itemsize, np.uint8)
    for order in "<>":
        array = raw.view(order + code)
        found = loaded(tmp_path, {"values": array}, protocol)["values"]
        assert (found.dtype, found.shape, found.dtype.byteorder) == (array.dtype, (count,), array.dtype.byteorder)
        values = found.read("it", "values")
        assert not values.flags.writeable
        assert values.tobytes() == array.tobytes()  # NaN too


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_of_any_layout(tmp_path, protocol):
    values = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    layouts = {
        "plain": values,
        "fortran": np.asfortranarray(values),
        "backwards": values[::-1],
        "turned": values.transpose(0, 1, 3, 2),  # neither C nor Fortran order
        "fortran and small": np.asfortranarray(values[0, :2, 0]),
        "no dimension": np.array(3.5),
        "empty": np.zeros((0, 3)),
        "sliced": values[:, ::2],
    }
    found = loaded(tmp_path, layouts, protocol)
    for name, expected in layouts.items():
        np.testing.assert_array_equal(found[name].read("it", name), expected, err_msg=name)
        assert found[name].shape == expected.shape


def laid_out(*state) -> bytes:
    """A pickle of protocol 5 that calls numpy 2.4's _frombuffer, with any version of numpy."""

    class Call:
        def __reduce__(self):
            return np.core.numeric._frombuffer, state

    return pickle.dumps(Call(), protocol=5)


def test_an_array_that_numpy_2_4_pickles_as_it_lies_in_memory(tmp_path):
    values = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    found = loaded(tmp_path, laid_out(values.tobytes(), values.dtype, (2, 3, 4), "K", (2, 0, 1)))
    assert found.shape == (4, 2, 3)
    np.testing.assert_array_equal(found.read("it", "values"), values.transpose(2, 0, 1))


@pytest.mark.parametrize("axes", [(0, 0, 1), (0, 1), (0, 1, 3), (0.0, 1, 2), "012"])
def test_an_order_of_axes_that_is_none_is_refused(tmp_path, axes):
    values = np.arange(24, dtype="<f4")
    with pytest.raises(BadInputError, match=r"order of axes|makes no array"):
        loaded(tmp_path, laid_out(values.tobytes(), values.dtype, (2, 3, 4), "K", axes))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_scalars_of_numpy_are_numbers(tmp_path, protocol):
    values = [np.int64(-7), np.uint8(200), np.float16(0.5), np.float64(1 / 3), np.bool_(True), np.int32(2**30)]
    found = loaded(tmp_path, values, protocol)
    assert [type(value) for value in found] == [int, int, float, float, bool, int]
    assert found == [value.item() for value in values]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_short_bytes_come_as_they_are_and_long_strings_stay_in_the_file(tmp_path, protocol):
    long = "ä" * SHORT
    found = loaded(tmp_path, [b"", b"\0\xff", "ä", b"x" * SHORT, long, b"x" * (SHORT + 1)], protocol)
    assert found[:4] == [b"", b"\0\xff", "ä", b"x" * SHORT]
    assert [describe(each) for each in found[4:]] == ["a long string"] * 2


def test_the_python_pickler_and_numpy_2_names_read_alike(tmp_path):
    values = {"large": np.arange(300.0), "small": np.arange(3, dtype=">i2"), "one": np.float32(1.5)}
    buffer = io.BytesIO()
    pickle._Pickler(buffer, protocol=2).dump(values)
    whole = pickle.dumps(values, protocol=2)
    old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
    renamed = whole.replace(new, old) if new in whole else whole.replace(old, new)
    assert renamed != whole
    for content in (whole, buffer.getvalue(), renamed):
        found = loaded(tmp_path, content)
        assert found["one"] == 1.5
        for name in ("large", "small"):
            np.testing.assert_array_equal(found[name].read("it", name), values[name])


def test_what_is_there_twice_is_one_object(tmp_path):
    """An array in many places has the bytes of one in the file, which its readers must count."""
    array, inner = np.zeros(1000, np.float16), [1]
    holding = [array, array, inner, inner]
    holding.append(holding)
    path = write(tmp_path, pickle.dumps(holding, protocol=4))
    found, size = load(path, REMEDY)
    assert found[0] is found[1]
    assert found[2] is found[3]
    assert found[4] is found
    assert found[0].stored == 2000
    assert size == path.stat().st_size


def test_arrays_are_read_when_they_are_asked_for(tmp_path):
    path = write(tmp_path, pickle.dumps([np.arange(1000.0), np.arange(3.0)], protocol=4))
    (large, small), _ = load(path, REMEDY)
    os.truncate(path, 1000)
    with pytest.raises(
        BadInputError, match=f"^{re.escape(str(path))}: clip 3 has .* bytes of joints, expected 8000: {REMEDY}"
    ):
        large.read("clip 3", "joints")
    path.unlink()
    with pytest.raises(BadInputError, match="cannot be read"):
        large.read("clip 3", "joints")
    np.testing.assert_array_equal(small.read("clip 4", "joints"), [0, 1, 2])


@pytest.mark.parametrize(
    ("pair", "message"), [(b"\xc4\x80", "are damaged"), (b"\xc3\xc3", "are damaged"), (b"ab", "401 bytes")]
)
def test_latin_1_that_is_none_is_refused_when_it_is_read(tmp_path, pair, message):
    """Protocol 2 has bytes as text, whose length says little of theirs."""
    content = pickle.dumps(np.full(400, 255, np.uint8), protocol=2)
    assert content.count(b"\xc3\xbf" * 400) == 1
    array = loaded(tmp_path, content.replace(b"\xc3\xbf", pair, 1))
    with pytest.raises(BadInputError, match=f"clip 3.*{message}.*{REMEDY}"):
        array.read("clip 3", "joints")


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


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"PK\x03\x04", pickle.dumps({}, 0), pickle.dumps({}, 1), b"\x80\x06}."]
)
def test_what_is_no_pickle_of_these_protocols(tmp_path, content):
    assert "not a pickle of protocol 2 to 5" in refusal(tmp_path, content)


def test_files_that_cannot_be_read(tmp_path):
    for path, reason in ((tmp_path / "nothing.pkl", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(BadInputError, match=rf"^{re.escape(str(path))}: cannot be read \({reason}.*: {REMEDY}$"):
            load(path, REMEDY)


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
    "nested": lambda value: {"split": {}, "annotations": [[({"keypoint": (value,)},)]]},
    "behind": lambda value: [np.arange(400), "text", value, {"more": np.arange(3)}],
}


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
        (b"B\xff\xff\xff\x7fabc.", "the file ends in the middle"),
        (b"\x8e" + b"\xff" * 8 + b".", "the file ends in the middle"),
    ],
)  # fmt: skip
def test_programs_are_refused_by_their_operation(tmp_path, program, message):
    assert re.search(message, refusal(tmp_path, b"\x80\x02" + program))


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
    content = b"\x80\x02" + array_program() + b"."
    expected = pickle.loads(content)
    found = loaded(tmp_path, content)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype) == ((1, 2), np.float32)
    np.testing.assert_array_equal(found.read("it", "values"), expected)


def test_an_array_without_its_state_has_no_values(tmp_path):
    program = array_program()
    found = loaded(tmp_path, b"\x80\x02" + program[: program.index(b"tR(") + 2] + b".")
    with pytest.raises(BadInputError, match=f"it has 0 bytes of values, expected 1: {REMEDY}"):
        found.read("it", "values")


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
    assert re.search(message, refusal(tmp_path, b"\x80\x02" + array_program(**changes) + b"."))


def test_the_state_of_an_array_is_set_once(tmp_path):
    once = array_program()
    again = once + once[once.index(b"tR(") + 2 :]
    assert "sets the state of an array" in refusal(tmp_path, b"\x80\x02" + again + b".")


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "program",
    [
        b")" + b"\x85" * 300_000 + b"}\x940K\x01s.",  # a tuple 300,000 deep
        b"}" + b")" + b"\x85" * 90_000 + b"K\x01s.",  # as a key: hash() would go as deep
        b")" + b"q\x00h\x00\x86" * 20_000 + b".",  # doubled each time
        b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"K\x01s.",  # as a key: hash() would take for ever
        b")" + b"q\x00h\x00\x86" * 60 + b"X\x01\x00\x00\x00a\x93.",  # as a module, to be looked up
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
    try:
        value, _ = load(path, REMEDY)
    except BadInputError as error:
        value = str(error)
        assert len(value) < 400 + len(str(path))
    assert time.perf_counter() - start < 5
    assert resident() - before < 120e6
    assert len(describe(value)) < 60


def test_operations_are_limited_by_the_files_size(tmp_path):
    message = refusal(tmp_path, b"\x80\x04" + b"}" * 200_000 + b".")
    assert "more than 125000 operations, the limit for 200003 bytes" in message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_file_cut_anywhere_is_refused(tmp_path, protocol):
    value = {"names": ["a", "b"] * 3, "large": np.arange(80.0), "small": np.arange(3, dtype="f2"), "n": (1.5, 2**40)}
    whole = pickle.dumps(value, protocol)
    for length in {*range(0, len(whole), 5), *range(len(whole) - 40, len(whole))}:
        refusal(tmp_path, whole[:length])


def read_or_refuse(folder, content):
    """Reads all arrays of a file that may be damaged; anything but BadInputError comes through."""
    try:
        for array in arrays_in(loaded(folder, content)):
            assert array.read("it", "values").shape == array.shape
    except BadInputError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


MIXED = {"a": [np.arange(9.0), np.arange(300, dtype=">i2")], "b": (True, -3, "text", np.int8(3)), 7: {"c": b"bytes"}}


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(PROTOCOLS), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_damaged_bytes_never_do_worse_than_a_refusal(tmp_path, protocol, changes):
    content = bytearray(pickle.dumps(MIXED, protocol))
    for place, value in changes:
        content[place % len(content)] = value
    read_or_refuse(tmp_path, bytes(content))


_DTYPE = b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R"
_PIECES = [
    *_VALUES,
    *_EFFECTS,
    b".",
    b"\0",
    b"\x01",
    b"\xff",
    b"numpy\n",
    b"dtype\n",
    b"cnumpy\ndtype\n",
    _DTYPE,
    b"X\x02\0\0\0f4",
]


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(_PIECES), max_size=40))
def test_random_programs_never_do_worse_than_a_refusal(tmp_path, pieces):
    read_or_refuse(tmp_path, b"\x80\x04" + b"".join(pieces) + b".")


def test_the_module_does_not_import_pickle():
    code = "import sys, mksgn.train.datasets.plain_pickle as m; sys.exit(hasattr(m, 'pickle') or 'pyskl' in open(m.__file__).read())"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
