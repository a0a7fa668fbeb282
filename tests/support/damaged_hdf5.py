"""HDF5 files damaged on purpose: edits that know the structure, and flipped bytes, for property tests and long runs.

A Damage is drawn from a file's bytes alone, so that one strategy serves every reader:

    @given(damages())
    def test_reader(damage):
        damage.apply(path)
        ...
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from hypothesis import strategies as st

TEXTS = (
    "", "\x1b[31m", "a\nb", "NaN", "[" * 5000, "{}", "[]", '{"a": 1, "a": 2}', "null", "1e999", "-1", "9" * 5000, "ä" * 300,
    "LIF", "Input", "Output", "NIRGraph", "Conv2d",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2**31, -(2**63), 2**63 - 1, 10**7, 1e308, -0.0, float("nan"), float("inf"), float("-inf"))
DTYPES = ("u1", "i1", "i8", ">i4", "f2", "f4", "f8", ">f8", "c8", "c16", "S3", "?", [("r", "f4"), ("i", "f4")])
SHAPES = ((), (0,), (1,), (3,), (1, 1), (2, 0, 2), (2, 3, 2), (1,) * 20)


@dataclass(frozen=True)
class Edit:
    """One change of a file.

    Attributes:
        kind: One of KINDS.
        at: Which object, of all in the order of visititems: a number from 0, modulo their count.
        choice: Which of the values that the kind tries, modulo their count.
    """

    kind: str
    at: int
    choice: int


@dataclass(frozen=True)
class Damage:
    """Edits, and then flips of bytes: (position modulo the file's size, bits)."""

    edits: tuple[Edit, ...] = ()
    flips: tuple[tuple[int, int], ...] = ()

    def apply(self, path: Path) -> None:
        """Damage a valid file in place. Edits that do not fit what the file holds by then are left out."""
        for edit in self.edits:
            with h5py.File(path, "r+") as file:
                try:
                    KINDS[edit.kind](file, _nth(file, edit.at), edit.choice)
                except (
                    ArithmeticError,
                    AttributeError,
                    IndexError,
                    KeyError,
                    OSError,
                    RuntimeError,
                    TypeError,
                    ValueError,
                ):
                    continue
        if self.flips:
            content = bytearray(path.read_bytes())
            for position, bits in self.flips:
                content[position % len(content)] ^= bits
            path.write_bytes(content)


def damages(edits: int = 3, flips: int = 0) -> st.SearchStrategy[Damage]:
    """Return the strategy of at least one edit or flip, and at most so many of each."""
    edit = st.builds(Edit, st.sampled_from(sorted(KINDS)), st.integers(0, 500), st.integers(0, 500))
    flip = st.tuples(st.integers(0, 2**20), st.integers(1, 255))
    drawn = st.builds(
        Damage,
        st.lists(edit, min_size=not flips, max_size=edits).map(tuple),
        st.lists(flip, min_size=not edits, max_size=flips).map(tuple),
    )
    return drawn.filter(lambda damage: damage.edits or damage.flips)


def values_flipped(path: Path) -> list[tuple[str, Callable[[Path], None]]]:
    """Return a change of each value or text of a file: its place, and what makes the change in a copy."""
    places: list[tuple[str, int | None]] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            numbers = item.dtype.kind in "iufb"
            places.extend((name, i) for i in (range(item.size) if numbers else [None]))

    with h5py.File(path) as file:
        file.visititems(note)

    def change(name: str, i: int | None) -> Callable[[Path], None]:
        def make(copy: Path) -> None:
            with h5py.File(copy, "r+") as file:
                item = file[name]
                if i is None:
                    text = item.asstr()[()]
                    item[()] = _other_text(text) if item.shape == () else _with_other_end(text)
                else:
                    value = np.array(item[()])
                    flat = value.reshape(-1)
                    flat[i : i + 1].view("u1")[0] ^= 1  # the least bit
                    item[()] = value

        return make

    return [(name, change(name, i)) for name, i in places]


def _other_text(text: str) -> str:
    return text[:-1] + chr(ord(text[-1]) ^ 1) if text else "x"


def _with_other_end(texts: np.ndarray) -> np.ndarray:
    own = texts.copy()
    own.flat[0] = _other_text(str(own.flat[0]))
    return own


def _nth(file: h5py.File, at: int) -> h5py.Group | h5py.Dataset:
    items: list[h5py.Group | h5py.Dataset] = [file]
    file.visititems(lambda _, item: items.append(item))
    return items[at % len(items)]


def _replaced(item: h5py.Dataset, value: object, **how: object) -> None:
    parent, name = item.parent, item.name.rpartition("/")[2]
    del parent[name]
    parent.create_dataset(name, data=value, **how)


def _retype(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    value = item[()]
    dtype = np.dtype(DTYPES[choice % len(DTYPES)])
    own = np.zeros(np.shape(value), dtype)
    if np.asarray(value).dtype.kind in "biuf" and dtype.kind != "V":
        with np.errstate(all="ignore"):
            own[...] = value
    _replaced(item, own)


def _reshape(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    _replaced(item, np.resize(np.asarray(item[()]), SHAPES[choice % len(SHAPES)]), dtype=item.dtype)


def _number(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    value = np.array(item[()])
    place = value.reshape(-1)[choice % value.size :][:1]
    number = NUMBERS[choice % len(NUMBERS)]
    with np.errstate(all="ignore"):
        place[...] = np.asarray(number).astype(value.dtype)
    item[()] = value


def _scalar(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    _replaced(item, NUMBERS[choice % len(NUMBERS)])


def _text(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    _replaced(item, TEXTS[choice % len(TEXTS)])


def _letter(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    text = item.asstr()[()]
    if item.shape == ():
        item[()] = text[: choice % (len(text) + 1)] + "\x07" + text[choice % (len(text) + 1) :]
    else:
        own = text.copy()
        own.flat[choice % own.size] = TEXTS[choice % len(TEXTS)]
        item[()] = own


def _delete(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    del item.parent[item.name.rpartition("/")[2]]


def _group_of(item: h5py.Group | h5py.Dataset) -> h5py.Group:
    return item if isinstance(item, h5py.Group) else item.parent


def _add(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    names = ("extra", "metadata", "steps", "dt", "quantization", "type_check", "a\x1bb", "n" * 2000, "nodes", "bias")
    value = (*NUMBERS, *TEXTS)[choice % (len(NUMBERS) + len(TEXTS))]
    _group_of(item)[names[choice % len(names)]] = value


def _nest(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    group = _group_of(item)
    for _ in range((1, 3, 40, 100)[choice % 4]):
        group = group.require_group("g")


def _wrap(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    """Put a group in an object's place, with the object in it."""
    parent, name = item.parent, item.name.rpartition("/")[2]
    file.move(item.name, "/moved")
    parent.create_group(name)
    file.move("/moved", f"{parent.name}/{name}/{name}")


def _copy(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    file.copy(item, _group_of(_nth(file, choice)), "copy")


def _link(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    links = (h5py.SoftLink("/"), h5py.SoftLink(item.name), h5py.ExternalLink("/etc/passwd", "/"), _nth(file, choice))
    _group_of(item)["link"] = links[choice % len(links)]


def _elsewhere(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    """Values outside the data set: in another file, in none, of nothing."""
    parent, name, shape = item.parent, item.name.rpartition("/")[2], item.shape
    del parent[name]
    how = choice % 4
    if how == 0:
        parent.create_dataset(name, shape or (1,), "u1", external=[("/etc/passwd", 0, 10)])
    elif how == 1:
        parent.create_dataset(name, (30_000, 25_000), "f4")
    elif how == 2:
        parent[name] = h5py.Empty("f4")
    else:
        parent.create_dataset(name, (2**20, 2**30), "i8", chunks=(2**10, 2**10))


def _attribute(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    names = [*item.attrs, "__type__", "dt"]
    values = (*NUMBERS, *TEXTS, np.zeros(3), "NIRGraphData", "EventData", "NIRNodeData")
    item.attrs[names[choice % len(names)]] = values[choice % len(values)]


def _no_attribute(file: h5py.File, item: h5py.Dataset, choice: int) -> None:
    del item.attrs[list(item.attrs)[choice % len(item.attrs)]]


KINDS: dict[str, Callable[[h5py.File, h5py.Dataset, int], None]] = {
    "retype": _retype, "reshape": _reshape, "number": _number, "scalar": _scalar, "text": _text, "letter": _letter,
    "delete": _delete, "add": _add, "nest": _nest, "wrap": _wrap, "copy": _copy, "link": _link, "elsewhere": _elsewhere,
    "attribute": _attribute, "no attribute": _no_attribute,
}  # fmt: skip
