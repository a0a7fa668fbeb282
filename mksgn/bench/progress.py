"""The executed part of a run: sums over its shards, and the file from which an interrupted run resumes.

The file is replaced as a whole after a shard, for at most a tenth of the time (run.py). A process that
dies at any moment loses the shards since then and nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from mksgn.bench.shards import Compared, Packed, Shard, Spikes
from mksgn.common.errors import BadInputError
from mksgn.common.writing import replacing_file
from mksgn.deploy.execution import Counters
from mksgn.deploy.run_folder import TRAINS

SCHEMA = "mksgn.progress/3"
COUNTS = [f.name for f in fields(Counters) if f.name != "per_neuron"]
REMEDY = "start over with --overwrite, or in another folder (-o)"

Identity = dict[str, Any]  # plain JSON: what must be equal for a run to be resumed


class Progress:
    """Sums over the clips that are done.

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
        """Spikes of as many first bodies as a run's folder keeps: (bodies, steps, *shape) bool by population."""
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
        with replacing_file(path) as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Read a file that `save` wrote.

        Raises:
            BadInputError: The file is damaged or of another version.
        """
        try:
            with np.load(path) as arrays:
                facts = json.loads(arrays["facts"].tobytes())
                schema = facts["schema"]
                if schema == SCHEMA:
                    return cls._of(facts, arrays)
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise BadInputError(f"{path}: damaged ({error}); {REMEDY}") from error
        raise BadInputError(f"{path}: schema is {schema!r}, this version reads {SCHEMA!r}; {REMEDY}")

    @classmethod
    def _of(cls, facts: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Progress:
        progress = cls(facts["identity"], len(arrays["done"]), len(arrays["seconds"]))
        progress.done, progress.predictions = arrays["done"], arrays["predictions"]
        progress.seconds, progress.bodies = arrays["seconds"], facts["bodies"]
        progress.names, progress.digests = facts["names"], facts["digests"]
        per_neuron = _split(arrays["counts"].astype(np.int64), facts["shapes"])
        for name, counts in facts["counters"].items():
            progress.counters[name] = Counters(**counts, per_neuron=per_neuron[name])
        # JSON has lists for its tuples
        compared: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["compared"].items()}
        progress.compared = Compared(**compared)
        for clip, shapes in facts["trains"].items():
            lengths = {name: (-(-math.prod(shape) // 8),) for name, shape in shapes.items()}
            bits = _split(arrays[f"trains/{clip}"], lengths)
            progress.trains[int(clip)] = {n: Packed(bits[n], tuple(shape)) for n, shape in shapes.items()}
        return progress


def check_same(path: Path, begun: Identity, requested: Identity) -> None:
    """Compare the run in a folder with the one that is requested.

    Raises:
        BadInputError: They differ. The message names the first difference.
    """
    for name in [*requested, *(n for n in begun if n not in requested)]:
        if begun.get(name) != requested.get(name):
            raise BadInputError(
                f"{path}: begun with {name} {_short(begun.get(name))}, now {_short(requested.get(name))}; "
                "give the same to --resume, or start over with --overwrite or in another folder (-o)"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
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
    """Convert to the smallest unsigned type that holds the counts: the file is written again and again."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)
