"""A few clips of a run, executed, counted and compared. A run is the sum of its shards, wherever and in whatever order they were run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import nir
import numpy as np

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, spike_bits
from mksgn.deploy import run as run_program
from mksgn.deploy.clips import ClipInputs, clip_inputs
from mksgn.deploy.emulator import batch_size
from mksgn.deploy.execution import Counters, Execution
from mksgn.deploy.program.program import Program
from mksgn.deploy.run_folder import TRAINS
from mksgn.export.errors import ParityError
from mksgn.export.graph import files
from mksgn.export.verification import verify
from mksgn.export.verification.parity import compare
from mksgn.train.checkpoint import sha256
from mksgn.train.datasets import ClipSet
from mksgn.train.transforms import digest

LAVA_SHARD = 64  # clips: starting a network in Lava takes seconds

Backend = Literal["emulator", "lava"]
Spikes = dict[str, np.ndarray]  # by population: (bodies, steps, *shape) bool


@dataclass(frozen=True)
class Settings:
    """How clips are executed: all that can change a count or a comparison.

    `compare`: spike by spike on the first so many clips, None: on all. `repeats`: executions of every clip, for the spread of times.
    """

    backend: Backend = "emulator"
    precision: Literal["fixed", "float"] = "fixed"
    compare: int | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        for what, value, known in (
            ("backend", self.backend, ("lava", "emulator")),
            ("precision", self.precision, ("fixed", "float")),
        ):
            if value not in known:
                raise BadInputError(f"{what} {value!r}: choose {' or '.join(known)}")
        if self.repeats < 1:
            raise BadInputError(f"repeat ({self.repeats}) must be at least 1")


@dataclass(frozen=True, eq=False)
class Network:
    """A NIR file, compiled: what all shards of a run share."""

    model: Path
    sha256: str
    graph: nir.NIRGraph
    program: Program

    @classmethod
    def read(cls, model: Path, precision: str) -> Network:
        """Raises BadInputError for a file that cannot be read or compiled."""
        graph = files.read(model)
        return cls(model, sha256(model), graph, compile_graph(graph, precision=precision))

    @cached_property
    def student(self) -> verify.FoldedStudent | None:
        """The file's weights in torch; None for a network that is not ours."""
        return verify.FoldedStudent(self.graph) if self.graph.metadata.get("student") is not None else None

    @property
    def steps(self) -> int:
        if self.program.steps is None:
            raise BadInputError(
                f"{self.model}: the file does not say how many steps a clip has; run it with mksgn-deploy --inputs"
            )
        return self.program.steps

    def shard_size(self, backend: str) -> int:
        """Clips that are committed together: those that the emulator computes at once, or a start of Lava's."""
        return LAVA_SHARD if backend == "lava" else batch_size(self.program, self.steps)


@dataclass(frozen=True)
class Compared:
    """Decisions compared with other executions.

    `first` (execution, layer, clip, step) is of the first layer that differs: what lies behind it may only follow from it.
    """

    against: tuple[str, ...] = ()
    decisions: int = 0
    mismatches: int = 0
    first: tuple[int, int, int, int] | None = None

    def __add__(self, other: Compared) -> Compared:
        return Compared(
            self.against or other.against,
            self.decisions + other.decisions,
            self.mismatches + other.mismatches,
            min((x for x in (self.first, other.first) if x is not None), default=None),
        )


@dataclass(frozen=True, eq=False)
class Packed:
    """Spikes of a clip, a bit each: they are kept and sent about."""

    bits: np.ndarray
    shape: tuple[int, ...]  # (bodies, steps, *population's)

    @classmethod
    def of(cls, spikes: np.ndarray) -> Packed:
        return cls(spike_bits.pack(spikes.ravel()), spikes.shape)

    @property
    def spikes(self) -> np.ndarray:
        """Bool."""
        return spike_bits.unpack(self.bits, math.prod(self.shape)).reshape(self.shape)


@dataclass
class Shard:
    """What clips `first`, `first + 1`, … gave. `seconds` of each repetition; `trains` of each clip whose spikes are kept."""

    first: int
    names: list[str]
    digests: list[str]  # of each clip's joints
    predictions: np.ndarray
    bodies: int
    counters: dict[str, Counters]
    seconds: tuple[float, ...]
    compared: Compared
    trains: dict[int, dict[str, Packed]] = field(default_factory=dict)


def shards(missing: np.ndarray, size: int) -> list[range]:
    """The clips that are still to be run (clips,) bool, in stretches of at most `size`, each inside a multiple of it.

    So a run that goes on has the shards that it would have had: in float32, sums may round by the size of a batch.
    """
    found = []
    for first in range(0, len(missing), size):
        stretch = np.flatnonzero(missing[first : first + size]) + first
        found += [
            range(int(part[0]), int(part[-1]) + 1)
            for part in np.split(stretch, np.flatnonzero(np.diff(stretch) > 1) + 1)
            if len(part)
        ]
    return found


def some(clips: ClipSet, which: range) -> ClipSet:
    """These clips of a set, each read once."""
    return replace(clips, clips=list(clips.clips[which.start : which.stop]))


def run_shard(network: Network, clips: ClipSet, first: int, settings: Settings) -> Shard:
    """Run these clips, of which the first is number `first` of the run. Raises ParityError if a repetition differs."""
    given = clip_inputs(network.graph, network.program, clips)
    compared_clips = len(clips) if settings.compare is None else max(0, min(len(clips), settings.compare - first))
    kept = max(0, min(len(clips), TRAINS - first))
    execution, seconds = _execute(network.program, given, settings, record=bool(compared_clips or kept))
    return Shard(
        first=first,
        names=[clip.name for clip in clips.clips],
        digests=[digest(clip).hex() for clip in clips.clips],
        predictions=given.predictions(execution),
        bodies=len(given.inputs),
        counters=execution.counters,
        seconds=seconds,
        compared=_compared(network, given, execution, compared_clips, first),
        trains={
            first + clip: {name: Packed.of(x[given.clip_of_body == clip]) for name, x in execution.spikes.items()}
            for clip in range(kept)
        },
    )


def _execute(
    program: Program, given: ClipInputs, settings: Settings, *, record: bool
) -> tuple[Execution, tuple[float, ...]]:
    execution = run_program(program, given.inputs, backend=settings.backend, record=record)
    seconds = [execution.seconds]
    for repeat in range(1, settings.repeats):
        again = run_program(program, given.inputs, backend=settings.backend, record=record)
        seconds.append(again.seconds)
        for name, counters in execution.counters.items():
            if not np.array_equal(counters.per_neuron, again.counters[name].per_neuron):
                raise ParityError(
                    f"{name}: repetition {repeat + 1} gives other spikes than the first on {settings.backend}"
                )
    return execution, tuple(seconds)


def _compared(network: Network, given: ClipInputs, execution: Execution, clips: int, first: int) -> Compared:
    """Spike by spike: the run against the emulator (for Lava), and against torch with the file's weights."""
    bodies = int((given.clip_of_body < clips).sum())
    if bodies == 0:
        return Compared()
    inputs = given.inputs[:bodies]
    found = {name: spikes[:bodies] for name, spikes in execution.spikes.items()}
    others: dict[str, Spikes] = {}
    if execution.backend == "lava":
        others["emulator"] = run_program(network.program, inputs, backend="emulator").spikes
    if network.student is not None:
        others["torch"] = verify.torch_spikes(network.student, np.ascontiguousarray(inputs[:, 0]))[0]
    order = {population.name: number for number, population in enumerate(network.program.populations)}
    total = Compared(tuple(others))
    for number, (name, wanted) in enumerate(others.items()):
        parity = compare(name, wanted, found)
        place = None
        if parity.first is not None:
            at = parity.first
            place = (number, order.get(at.layer, len(order)), first + int(given.clip_of_body[at.sample]), at.step)
        total += Compared((), parity.decisions, parity.mismatches, place)
    return total
