"""The numbered layers of a lava-dl file as plain values.

Reading executes no code and follows no links; every error names its layer.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mksgn.common.errors import BadInputError, first_line
from mksgn.common.hdf5 import opened
from mksgn.common.quoting import printable
from mksgn.export.errors import UnsupportedLayerError
from mksgn.export.loihi import FLOAT_EXACT

MAX_CONV = 127  # Lava's Conv keeps groups, kernel, stride, padding and dilation in int8
MAX_VALUES = 2**28  # in one array: a damaged or hostile header must not exhaust the memory
SCALE = "scale weight, bias and vThMant by the same factor"


@dataclass
class Layer:
    """One numbered group: its values by key, such as `neuron/iDecay`, and checks of them."""

    path: Path
    index: int
    kind: str
    values: dict[str, Any]  # str, or a NumPy array of numbers
    unused: list[str] = field(default_factory=list)  # what neither netx nor this reader uses, by its path

    def refuse(self, what: str, remedy: str) -> UnsupportedLayerError:
        """Make an error that says `what` is wrong with this layer."""
        return UnsupportedLayerError(f"{self.path}: layer {self.index} ({self.kind}): {what}; {remedy}")

    def ignore(self, key: str) -> None:
        """Note that netx silently drops `key`, and that the network is read without it."""
        self.unused.append(f"/layer/{self.index}/{key}")

    def integers(self, key: str, low: int = -FLOAT_EXACT, high: int = FLOAT_EXACT, remedy: str = SCALE) -> np.ndarray:
        """Read integers in [low, high] as int64; netx truncates fractions and wraps larger values.

        Raises:
            UnsupportedLayerError: The values are missing, not integers, or out of range.
        """
        values = self.values.get(key)
        if not isinstance(values, np.ndarray) or not values.size:
            raise self.refuse(f"{key} is {values!r}, expected numbers", "export the network again")
        whole = np.isfinite(values) & (values == np.floor(values))
        if not whole.all():
            raise self.refuse(
                f"{key} holds {values[~whole][0]}, which is not an integer", "quantise it, since netx truncates it"
            )
        if values.min() < low or values.max() > high:
            worst = values.min() if values.min() < low else values.max()
            raise self.refuse(f"{key} holds {worst}, outside {low} … {high}", remedy)
        return values.astype(np.int64)

    def sizes(self, key: str, low: int = 1, high: int = 2**31) -> tuple[int, ...]:
        """Read integers in [low, high] as a tuple."""
        return tuple(self.integers(key, low, high, "change the layer, or export it again").ravel().tolist())

    def pair(self, key: str, low: int) -> tuple[int, int]:
        """Read one or two values as (height, width)."""
        values = self.sizes(key, low, MAX_CONV)
        if len(values) > 2:
            raise self.refuse(f"{key} has {len(values)} values, expected 1 or 2", "convolve over two axes")
        return values[0], values[-1]

    def agree(self, **sizes: tuple[int, ...]) -> None:
        """Check that keys which netx ignores agree with the sizes that it uses."""
        for key, expected in sizes.items():
            actual = self.sizes(key) if key in self.values else expected
            if actual != expected and set(actual) != set(expected):
                raise self.refuse(f"{key} is {actual}, but its other values give {expected}", "export it again")


def load(path: Path) -> list[Layer]:
    """Read the layers of a file.

    Raises:
        BadInputError: The file is missing, damaged or not a lava-dl network.
    """
    try:
        with opened(path, "a lava-dl network", "slayer's blocks write one with export_hdf5") as file:
            return _layers(path, file)
    except BadInputError:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, …, depending on the damage
        raise BadInputError(
            f"{path}: not a readable HDF5 file ({printable(first_line(error))}); it may be truncated: copy it again"
        ) from error


def _layers(path: Path, file: h5py.File) -> list[Layer]:
    if "node" in file:
        raise BadInputError(f"{path}: is a NIR file already; give the model.pt or network.net that it was made from")
    top = _member(path, file, "layer") if "layer" in file else None
    if not isinstance(top, h5py.Group):
        raise BadInputError(
            f"{path}: has no group 'layer', so it is not a lava-dl network; use a file that export_hdf5 wrote"
        )
    others = sorted(set(file) - {"layer", "simulation"})  # simulation: Ts and tSample of slayerPytorch's training
    missing = [str(i) for i in range(max(len(top), 1)) if str(i) not in top]
    if missing:
        raise BadInputError(f"{path}: layer {missing[0]} of {len(top)} is missing; number them from 0 without gaps")
    layers = []
    for i in range(len(top)):
        group = _member(path, top, str(i))
        values = _values(path, group) if isinstance(group, h5py.Group) else {}
        kind = values.pop("type", None)
        if not isinstance(kind, str):
            raise BadInputError(f"{path}: layer {i} has no 'type'; export it again")
        layers.append(Layer(path, i, kind, values))
    layers[0].unused += [f"/{name}" for name in others]
    return layers


def _values(path: Path, group: h5py.Group, prefix: str = "") -> dict[str, Any]:
    """Read every dataset below a group: numbers as arrays, text as str, and nothing else."""
    values: dict[str, Any] = {}
    for name in group:
        key, item = prefix + name, _member(path, group, name)
        if isinstance(item, h5py.Group):
            values |= _values(path, item, f"{key}/")
        elif item.dtype.kind == "S" or h5py.check_string_dtype(item.dtype) is not None:
            text = item[()] if item.shape == () else item[0]
            values[key] = text.decode("ascii") if isinstance(text, bytes) else str(text)
        elif item.dtype.kind in "biuf" and item.shape is not None and item.size <= MAX_VALUES:
            values[key] = np.asarray(item[()])
        else:
            raise BadInputError(
                f"{path}: {item.name} holds {item.size} values of {item.dtype}; "
                f"only text and up to {MAX_VALUES} numbers are read"
            )
    return values


def _member(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    item = group[name]
    if isinstance(item, h5py.Group) and item.name.count("/") > 3:  # /layer/0/neuron
        raise BadInputError(f"{path}: {name!r} in {group.name} is nested too deeply; leave it out")
    return item
