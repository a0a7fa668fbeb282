"""What a run has done so far: shards added up, and a file that a killed run goes on from.

The file is replaced as a whole after every shard, so a process that dies at any moment loses the shard in hand and nothing else.
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
from mksgn.common.atomic import replacing
from mksgn.common.errors import BadInputError
from mksgn.deploy.execution import Counters
from mksgn.deploy.run_folder import TRAINS

SCHEMA = "mksgn.progress/1"
COUNTS = [f.name for f in fields(Counters) if f.name != "per_neuron"]

Identity = dict[str, Any]  # plain JSON: what must be the same for a run to go on


class Progress:
    """Clips done, of `clips`, and the sums over them. `identity` says what run this is."""

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
        """Raises ValueError for a clip that was counted already: nothing may count twice."""
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
        """Spikes of the first bodies, as many as a record keeps: (bodies, steps, *shape) bool by population."""
        clips = [self.trains[clip] for clip in sorted(self.trains)]
        return (
            {name: np.concatenate([clip[name].spikes for clip in clips])[:TRAINS] for name in clips[0]} if clips else {}
        )

    def save(self, path: Path) -> None:
        arrays: dict[str, np.ndarray] = {
            "done": self.done,
            "predictions": self.predictions,
            "seconds": self.seconds,
        }
        # few and long arrays: each one in a zip file costs as much as a megabyte
        counts = {name: counters.per_neuron for name, counters in self.counters.items()}
        arrays["counts"] = _narrow(_joined(counts))
        for clip, trains in self.trains.items():
            arrays[f"trains/{clip}"] = _joined({name: packed.bits for name, packed in trains.items()})
        facts = {
            "schema": SCHEMA,
            "identity": self.identity,
            "bodies": self.bodies,
            "names": self.names,
            "digests": self.digests,
            "counters": {n: {field: getattr(c, field) for field in COUNTS} for n, c in self.counters.items()},
            "compared": asdict(self.compared),
            "shapes": _shapes(counts),
            "trains": {clip: {n: packed.shape for n, packed in trains.items()} for clip, trains in self.trains.items()},
        }
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> Progress:
        """Raises BadInputError for a file that is damaged or of another version."""
        try:
            with np.load(path) as arrays:
                facts = json.loads(arrays["facts"].tobytes())
                if facts["schema"] != SCHEMA:
                    raise BadInputError(
                        f"{path}: schema is {facts['schema']!r}, this version reads {SCHEMA!r}; start anew in another folder (-o)"
                    )
                progress = cls(facts["identity"], len(arrays["done"]), len(arrays["seconds"]))
                progress.done, progress.predictions = arrays["done"], arrays["predictions"]
                progress.seconds, progress.bodies = arrays["seconds"], facts["bodies"]
                progress.names, progress.digests = facts["names"], facts["digests"]
                per_neuron = _parted(arrays["counts"].astype(np.int64), facts["shapes"])
                for name, counts in facts["counters"].items():
                    progress.counters[name] = Counters(**counts, per_neuron=per_neuron[name])
                compared = facts["compared"]
                first = compared["first"]
                progress.compared = Compared(
                    tuple(compared["against"]),
                    compared["decisions"],
                    compared["mismatches"],
                    None if first is None else tuple(first),
                )
                for clip, shapes in facts["trains"].items():
                    lengths = {name: (-(-math.prod(shape) // 8),) for name, shape in shapes.items()}
                    bits = _parted(arrays[f"trains/{clip}"], lengths)
                    progress.trains[int(clip)] = {n: Packed(bits[n], tuple(shape)) for n, shape in shapes.items()}
                return progress
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            if isinstance(error, BadInputError):
                raise
            raise BadInputError(
                f"{path}: damaged ({error}); start anew, in another folder (-o) or without --resume"
            ) from error


def check_same(path: Path, found: Identity, wanted: Identity) -> None:
    """Raises BadInputError that names what differs between a run that was begun and the one that is asked for."""
    for name in [*wanted, *(n for n in found if n not in wanted)]:
        if found.get(name) != wanted.get(name):
            raise BadInputError(
                f"{path}: begun with {name} {_short(found.get(name))}, now {_short(wanted.get(name))}; "
                "give the same to --resume, or start anew in another folder (-o)"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _joined(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype=np.uint8), *(x.ravel() for x in arrays.values())])


def _shapes(arrays: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: x.shape for name, x in arrays.items()}


def _parted(joined: np.ndarray, shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """`_joined` undone."""
    parts, at = {}, 0
    for name, shape in shapes.items():
        parts[name] = joined[at : at + math.prod(shape)].reshape(shape)
        at += math.prod(shape)
    return parts


def _narrow(counts: np.ndarray) -> np.ndarray:
    """In the smallest unsigned type that holds them: the file is written after every shard."""
    return counts.astype(np.min_scalar_type(int(counts.max(initial=0))), copy=False)
