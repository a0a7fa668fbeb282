"""The executed part of a run: sums over its shards, and the file from which an interrupted run resumes.

The file is replaced as a whole after a shard; saving takes at most a tenth of the time (run.py). A process
that dies at any moment loses the shards since the last save and nothing else. The file is sealed: it stores
a hash of everything else in it, so that a changed counter is found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, ValidationError

from mksgn.bench.samples import SampleSet
from mksgn.bench.shards import Compared, Packed, Shard, Spikes
from mksgn.common import npz
from mksgn.common.errors import BadInputError, first_line
from mksgn.common.quoting import printable, quoted
from mksgn.common.schemas import Amount, StrictModel, check_schema
from mksgn.common.validation import one_line
from mksgn.common.writing import replacing_file
from mksgn.deploy.execution import Counters
from mksgn.deploy.run_folder import TRAINS

SCHEMA = "mksgn.progress/4"
COUNTS = [f.name for f in fields(Counters) if f.name != "per_neuron"]
SEAL = "sha256"
REMEDY = "start over with --overwrite, or in another folder (-o)"

Whole = Annotated[int, Field(ge=0, lt=1 << 63)]
Shape = tuple[Whole, ...]
Identity = dict[str, Any]  # plain JSON: what must be equal for a run to be resumed


class Progress:
    """Sums over the completed clips.

    Args:
        identity: What distinguishes this run from others.
        clips: Number of clips of the whole run.
        repeats: Executions of every clip.
    """

    def __init__(self, identity: Identity, clips: int, repeats: int = 1):
        self.identity = identity
        self.done = np.zeros(clips, dtype=bool)
        self.names = [""] * clips
        self.digests = [""] * clips
        self.predictions = np.full(clips, -1, dtype=np.int64)
        self.bodies = 0
        self.seconds = np.zeros(repeats)
        self.counters: dict[str, Counters] = {}
        self.compared = Compared()
        self.trains: dict[int, dict[str, Packed]] = {}

    def add(self, shard: Shard) -> None:
        """Add a shard. Raises ValueError if one of its clips is counted already."""
        clips = slice(shard.first, shard.first + len(shard.predictions))
        if self.done[clips].any():
            raise ValueError(f"clips {clips.start} to {clips.stop - 1}: some of them are counted already")
        self.done[clips] = True
        self.names[clips] = shard.names
        self.digests[clips] = shard.digests
        self.predictions[clips] = shard.predictions
        self.bodies += shard.bodies
        self.seconds += shard.seconds
        for name, counters in shard.counters.items():
            self.counters[name] = self.counters[name] + counters if name in self.counters else counters
        self.compared += shard.compared
        self.trains |= shard.trains

    @property
    def complete(self) -> bool:
        return bool(self.done.all())

    def first_trains(self) -> Spikes:
        """Return the first bodies' spikes that a run's folder keeps: (bodies, steps, *shape) bool by population."""
        clips = [self.trains[clip] for clip in sorted(self.trains)]
        names = clips[0] if clips else ()
        return {name: np.concatenate([clip[name].spikes for clip in clips])[:TRAINS] for name in names}

    def save(self, path: Path) -> None:
        # few long arrays: each array of a zip file costs as much time as a megabyte
        counts = {name: counters.per_neuron for name, counters in self.counters.items()}
        facts = {
            "schema": SCHEMA,
            "identity": self.identity,
            "bodies": self.bodies,
            "names": self.names,
            "digests": self.digests,
            "counters": {n: {field: getattr(c, field) for field in COUNTS} for n, c in self.counters.items()},
            "compared": asdict(self.compared),
            "shapes": {name: x.shape for name, x in counts.items()},
            "trains": {clip: {n: packed.shape for n, packed in trains.items()} for clip, trains in self.trains.items()},
        }
        arrays: dict[str, Any] = {
            "done": self.done,
            "predictions": self.predictions,
            "seconds": self.seconds,
            "counts": _narrow(_join(counts)),
            "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
        }
        for clip, trains in self.trains.items():
            arrays[f"trains/{clip}"] = _join({name: packed.bits for name, packed in trains.items()})
        arrays[SEAL] = _seal(arrays)
        with replacing_file(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read a file that `save` wrote.

        Raises:
            BadInputError: The file is damaged or of another version.
        """
        arrays = npz.read(path, REMEDY)
        try:
            facts = _json(arrays)
            check_schema(path, facts, SCHEMA, REMEDY)
            if not np.array_equal(arrays.pop(SEAL, None), _seal(arrays)):  # type: ignore[arg-type]
                raise ValueError("its content does not match the hash that it states: it has been changed since")
            return cls._of(_Facts.model_validate_json(arrays["facts"].tobytes()), arrays)
        except BadInputError:
            raise
        except ValidationError as error:
            raise BadInputError(f"{path}: damaged ({printable(one_line(error))[:200]}); {REMEDY}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInputError(f"{path}: damaged ({printable(first_line(error))}); {REMEDY}") from error

    @classmethod
    def _of(cls, facts: _Facts, arrays: Mapping[str, np.ndarray]) -> Progress:
        clips, repeats = len(facts.names), len(arrays["seconds"])
        _check_arrays(facts, arrays)
        progress = cls(facts.identity, clips, repeats)
        progress.done, progress.predictions = arrays["done"], arrays["predictions"]
        progress.seconds, progress.bodies = arrays["seconds"], facts.bodies
        progress.names, progress.digests = facts.names, facts.digests
        per_neuron = _split(arrays["counts"].astype(np.int64), facts.shapes)
        for name, counts in facts.counters.items():
            progress.counters[name] = Counters(**counts.model_dump(), per_neuron=per_neuron[name])
        progress.compared = Compared(**facts.compared.model_dump())
        for clip, shapes in facts.trains.items():
            bits = _split(arrays[f"trains/{clip}"], _packed(shapes))
            progress.trains[int(clip)] = {n: Packed(bits[n], shape) for n, shape in shapes.items()}
        return progress


class _Strict(StrictModel):
    """Accepts only JSON's own types."""

    model_config = ConfigDict(strict=True)


class _Counts(_Strict):
    spikes: Whole
    syn_ops: Whole
    effective_acs: Whole
    coincidences: Whole
    updates: Whole
    product_updates: Whole
    deliveries: list[Whole]
    arrivals: list[Whole]
    max_membrane: Amount
    max_current: Amount


class _Compared(_Strict):
    against: tuple[str, ...]
    decisions: Whole
    mismatches: Whole
    first: tuple[Whole, Whole, Whole, Whole] | None
    rounding: Whole


class _Facts(_Strict):
    """The part of the file that is not an array."""

    schema_: Annotated[str, Field(alias="schema")]
    identity: Identity
    bodies: Whole
    names: list[str]
    digests: list[str]
    counters: dict[str, _Counts]
    compared: _Compared
    shapes: dict[str, Shape]
    trains: dict[Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,17})$")], dict[str, Shape]]


def _json(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    facts = json.loads(arrays["facts"].tobytes())
    if not isinstance(facts, dict):
        raise TypeError(f"facts are of type {type(facts).__name__}")
    return facts


def _seal(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Hash all arrays with their names, types and shapes."""
    seal = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        seal.update(f"{len(name)} {name} {values.dtype.str} {values.shape}".encode())
        seal.update(np.ascontiguousarray(values).data)
    return np.frombuffer(seal.digest(), dtype=np.uint8)


def _check_arrays(facts: _Facts, arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError for arrays that do not fit the facts, or each other."""
    clips, repeats = len(facts.names), arrays["seconds"].size
    decisions = sum(math.prod(shape) for shape in facts.shapes.values())
    expected = {
        "done": ("b", clips),
        "predictions": ("i", clips),
        "seconds": ("f", repeats),
        "counts": ("u", decisions),
        "facts": ("u", arrays["facts"].size),
    }
    for clip, shapes in facts.trains.items():
        expected[f"trains/{clip}"] = ("u", sum(length for (length,) in _packed(shapes).values()))
    if arrays.keys() != expected.keys():
        raise ValueError(f"it has the arrays {quoted(sorted(arrays))}, expected {quoted(sorted(expected))}")
    for name, (kind, size) in expected.items():
        found = arrays[name]
        if found.dtype.kind != kind or found.shape != (size,):
            raise ValueError(f"{name} has {found.dtype} of shape {found.shape}, expected {size:,} of kind {kind}")
    if len(facts.digests) != clips or facts.shapes.keys() != facts.counters.keys():
        raise ValueError(f"{len(facts.digests)} digests of {clips} clips, or counts of other populations")
    if not (np.isfinite(arrays["seconds"]) & (arrays["seconds"] >= 0)).all():
        raise ValueError(f"seconds are {quoted(arrays['seconds'].tolist())}")
    for what, length in (("clips", clips), ("repeats", repeats)):
        if facts.identity.get(what, length) != length:
            raise ValueError(f"{what} of a run of {quoted(facts.identity[what])} are {length:,}")
    if any(int(clip) >= clips or not arrays["done"][int(clip)] for clip in facts.trains):
        raise ValueError("it has spikes of a clip that is not done")


def _packed(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of the bit-packed spikes, by population."""
    return {name: (-(-math.prod(shape) // 8),) for name, shape in shapes.items()}


def check_same(path: Path, begun: Identity, requested: Identity) -> None:
    """Compare the run in a folder with the one that is requested.

    Raises:
        BadInputError: They differ. The message names the first difference.
    """
    for name in [*requested, *(n for n in begun if n not in requested)]:
        if begun.get(name) != requested.get(name):
            raise BadInputError(
                f"{path}: begun with {name} {_short(begun.get(name))}, now {_short(requested.get(name))}; "
                f"give the same to --resume, or {REMEDY}"
            )


def check_digests(where: Path, samples: SampleSet, digests: Sequence[str]) -> None:
    """Compare the values of all executed samples with those of the run to be resumed, by their digests: other data, or
    the same data in another order, can have equal labels.

    Raises:
        BadInputError: A sample differs.
    """
    for index, known in enumerate(digests):
        if known and samples.digest(index) != known:
            raise BadInputError(
                f"{where}: clip {index} has changed since it was run; give the same data to --resume, or {REMEDY}"
            )


def _short(value: object) -> str:
    text = printable(json.dumps(value))
    return text if len(text) <= 60 else f"{text[:57]}…"


def _join(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.uint8), *(x.ravel() for x in arrays.values())])


def _split(joined: np.ndarray, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Undo `_join`."""
    parts, start = {}, 0
    for name, shape in shapes.items():
        end = start + math.prod(shape)
        parts[name] = joined[start:end].reshape(shape)
        start = end
    return parts


def _narrow(counts: np.ndarray) -> np.ndarray:
    """Convert to the smallest unsigned type that holds the counts, since the file is written again and again."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)
