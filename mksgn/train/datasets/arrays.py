"""Labelled samples as plain arrays, for any network: `npz:FILE`, `npy:X[,Y]`, or arrays in Python.

An .npz has `x`, (samples, steps, *shape) or (samples, *shape), or an array for each input of the
network by its name, and `y`, the class of each sample: (samples,) numbers, or one-hot rows. With
`x_train`, `y_train`, `x_test` and `y_test` it has two parts. Without `y` a run has no accuracy.

Arrays are mapped, not loaded: a file may be larger than the memory. Compressed members cannot be
mapped. They are loaded up to LOADED bytes, and refused beyond.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mksgn.common import npz
from mksgn.common.archives import ENCRYPTED
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.reading import open_file
from mksgn.train.datasets.clips import spread_over

KINDS, FORMS = ("npz", "npy"), ("npz:FILE", "npy:X[,Y]")
LABELS = "y"
LOADED = 1 << 30  # bytes of a compressed array
_HASHED = 1 << 26  # bytes read at once


@dataclass(frozen=True, eq=False)
class ArraySet:
    """Samples of one part. `index` holds the rows of the arrays that belong to it, in order.

    `arrays` has an array for each input of the network, by name; if there is only one input, the name
    may be any. `labels` are (samples,) int64, of the chosen rows.
    """

    source: str
    arrays: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def take(self, which: range | np.ndarray) -> ArraySet:
        """Read samples into memory; `which` holds their positions in this set."""
        rows = self.index[np.asarray(which, dtype=np.int64)]
        arrays = {name: np.array(x[rows]) for name, x in self.arrays.items()}
        labels = None if self.labels is None else self.labels[np.asarray(which, dtype=np.int64)]
        return replace(self, arrays=arrays, labels=labels, index=np.arange(len(rows)))

    def limited(self, limit: int | None) -> ArraySet:
        """Take `limit` samples, without reading them: spread over the classes or, without labels, the first ones."""
        if limit is None or limit >= len(self):
            return self
        chosen = np.arange(limit) if self.labels is None else np.sort(spread_over(self.labels, limit))
        return replace(self, labels=None if self.labels is None else self.labels[chosen], index=self.index[chosen])

    def by_input(self, inputs: Sequence[str]) -> ArraySet:
        """Keep the arrays of a network's inputs, under the inputs' names. Raises BadInputError if one is missing."""
        if len(inputs) == 1:
            (name,) = inputs
            for candidate in (name, "x", *(self.arrays if len(self.arrays) == 1 else ())):
                if candidate in self.arrays:
                    return replace(self, arrays={name: self.arrays[candidate]})
        missing = [name for name in inputs if name not in self.arrays]
        if missing:
            held = ", ".join(self.arrays) or "none"
            also = ", or x" if len(inputs) == 1 else ""
            raise BadInputError(f"{self.source}: no array {missing[0]}{also} for the network's input; it has {held}")
        return replace(self, arrays={name: self.arrays[name] for name in inputs})

    @cached_property
    def sha256(self) -> str:
        """Hash of the samples' values, types and shapes, by name of the input, in the order of the samples."""
        total = hashlib.sha256()
        for name, x in sorted(self.arrays.items()):
            total.update(f"{name} {x.dtype.str} {(len(self), *x.shape[1:])}".encode())
            rows = max(1, _HASHED // max(1, x[:1].nbytes))
            for first in range(0, len(self), rows):
                total.update(np.ascontiguousarray(x[self.index[first : first + rows]]).data)
        return total.hexdigest()

    def digest(self, sample: int) -> str:
        """Return a hash of one sample's values."""
        row = self.index[sample]
        one = hashlib.blake2b(digest_size=16)
        for name, x in sorted(self.arrays.items()):
            one.update(f"{name} {x.dtype.str} {x.shape[1:]}".encode())
            one.update(np.ascontiguousarray(x[row]).data)
        return one.hexdigest()


def is_array_source(source: str) -> bool:
    return source.partition(":")[0] in KINDS


def open_arrays(source: str, *, part: str = "test", limit: int | None = None) -> ArraySet:
    """Open `npz:FILE` or `npy:X[,Y]` without reading the samples.

    Args:
        source: As on the command line.
        part: "test" takes `x_test` and `y_test` where a file has them, "train" `x_train` and `y_train`;
            in a file without parts both take `x` and `y`.
        limit: Number of samples: spread over the classes or, without labels, the first ones.

    Raises:
        BadInputError: A file that cannot be read, or arrays that do not fit each other.
    """
    kind, _, path = source.partition(":")
    if not path:
        raise BadInputError(f"source {source!r} must have the form {FORMS[kind == 'npy']}")
    if kind == "npz":
        file = Path(os.path.expanduser(path))
        arrays = _npz(file, part)
        labels, name = arrays.pop(LABELS, None), f"npz:{file.name}"
    else:
        files = [Path(os.path.expanduser(name)) for name in path.split(",")]
        if len(files) > 2:
            raise BadInputError(f"source {source!r} must have the form {FORMS[1]}: one array of samples, one of labels")
        arrays, labels = {"x": _npy(files[0])}, _npy(files[1]) if len(files) == 2 else None
        name = f"npy:{','.join(file.name for file in files)}"
    return array_set(arrays, labels, source=name).limited(limit)


def array_set(arrays: Mapping[str, Any], labels: Any = None, *, source: str = "arrays") -> ArraySet:
    """Check arrays, by name of the input, and their labels.

    Args:
        arrays: (samples, …) by name: NumPy arrays, tensors or lists.
        labels: (samples,) class numbers, or (samples, classes) one-hot rows; None for no labels.
        source: What messages call them.

    Raises:
        BadInputError: Arrays that do not hold numbers, or differ in their number of samples.
    """
    known = {name: x if isinstance(x, np.ndarray) else np.asarray(x) for name, x in arrays.items()}
    if not known:
        raise BadInputError(f"{source}: no arrays; give x, (samples, steps, *shape) or (samples, *shape)")
    for name, x in known.items():
        if x.dtype.kind not in "biuf" or x.ndim < 2 or not len(x):
            raise BadInputError(
                f"{source}: {name} holds {x.dtype} of shape {x.shape}; expected numbers, (samples, steps, *shape) or "
                "(samples, *shape)"
            )
    classes = None if labels is None else _classes(source, np.asarray(labels))
    counts = {name: len(x) for name, x in known.items()} | ({} if classes is None else {LABELS: len(classes)})
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise BadInputError(f"{source}: the number of samples differs: {text}; the first axis is the samples'")
    return ArraySet(source, known, classes, np.arange(next(iter(counts.values()))))


def collected(pairs: Iterable[Any], *, source: str = "samples") -> ArraySet:
    """Collect an iterable of (x, y), of single samples or of batches, as a torch DataLoader gives them.

    All samples are held in memory. A pair is a batch if its y has an axis: then the first axis of x and y.

    Raises:
        BadInputError: An element that is not a pair, or an empty iterable.
    """
    parts: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise BadInputError(f"{source}: expected pairs (x, y), got {type(pair).__name__}; give an array of samples")
        x, y = (np.asarray(part) for part in pair)
        if y.ndim and len(x) != len(y):
            raise BadInputError(
                f"{source}: a batch has x of shape {x.shape} and {len(y)} labels; the first axis is the samples': "
                "move the time axis behind it, x.swapaxes(0, 1)"
            )
        parts.append(x if y.ndim else x[None])
        labels.append(y if y.ndim else y[None])
    if not parts:
        raise BadInputError(f"{source}: no samples")
    shapes = {x.shape[1:] for x in parts}
    if len(shapes) > 1:
        raise BadInputError(
            f"{source}: samples of shapes {sorted(shapes)[:3]}; give all of them the same number of steps"
        )
    return array_set({"x": np.concatenate(parts)}, np.concatenate(labels), source=source)


def _part(path: Path, names: Iterable[str], part: str) -> dict[str, str]:
    """Select the members of one part of a file, or all if it has no parts: name of the array → name of the member."""
    names, suffix = list(names), f"_{part}"
    chosen = {name.removesuffix(suffix): name for name in names if name.endswith(suffix)}
    chosen = chosen or {name: name for name in names if not name.endswith(("_train", "_test"))}
    if not set(chosen) - {LABELS}:
        raise BadInputError(f"{path}: no array x{suffix} or x, found {npz.found(names)}")
    return chosen


def _classes(source: str, labels: np.ndarray) -> np.ndarray:
    """Return class numbers, (samples,) int64."""
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and labels.shape[1] > 1:
        if not ((labels == 1).sum(1) == 1).all() or not ((labels != 0).sum(1) == 1).all():
            raise BadInputError(f"{source}: {LABELS} of shape {labels.shape} is not one-hot; give class numbers")
        return labels.argmax(1)
    flat = labels.reshape(len(labels), -1)[:, 0] if labels.ndim == 2 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "biuf" or (flat != np.floor(flat)).any() or (flat < 0).any():
        raise BadInputError(
            f"{source}: {LABELS} holds {labels.dtype} of shape {labels.shape}; expected class numbers from 0 on, "
            "(samples,), or one-hot rows"
        )
    return flat.astype(np.int64)


def _npz(path: Path, part: str) -> dict[str, np.ndarray]:
    try:
        with open_file(path, None, "write it with numpy.savez") as file:
            members = npz.members(file)
            chosen = _part(path, members, part)
            return {name: _member(path, file, member, members[member]) for name, member in chosen.items()}
    except npz.BROKEN as error:
        raise BadInputError(f"{path}: not an .npz ({first_line(error)}); write it with numpy.savez") from error


def _member(path: Path, file: Any, name: str, member: Any) -> np.ndarray:
    if member.compress_type and not member.flag_bits & ENCRYPTED and member.file_size <= LOADED:
        return npz.read(path, "write it with numpy.savez", wanted=lambda each: each == name)[name]
    return npz.locate_member(path, file, name, member).mapped(path)


def _npy(path: Path) -> np.ndarray:
    with open_file(path, None, "write it with numpy.save") as file:
        return npz.locate(path, file, path.name, 0, os.fstat(file.fileno()).st_size).mapped(path)
