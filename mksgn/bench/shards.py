"""A few clips of a run, executed, counted and compared. A run is the sum of its shards in any order."""

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

LAVA_SHARD = 64  # clips; starting a network in Lava takes seconds

Backend = Literal["emulator", "lava"]
Spikes = dict[str, np.ndarray]  # by population: (bodies, steps, *shape) bool


@dataclass(frozen=True)
class Settings:
    """How clips are executed: everything that can change a count or a comparison.

    Args:
        backend: The emulator, or Lava.
        precision: Loihi's fixed point, or float32.
        compare: Number of first clips that are compared spike by spike; None: all.
        repeats: Executions of every clip, for the spread of the times.
    """

    backend: Backend = "emulator"
    precision: Literal["fixed", "float"] = "fixed"
    compare: int | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        for name, known in (("backend", ("lava", "emulator")), ("precision", ("fixed", "float"))):
            value = getattr(self, name)
            if value not in known:
                raise BadInputError(f"{name} {value!r}: choose {' or '.join(known)}")
        if self.repeats < 1:
            raise BadInputError(f"repeat ({self.repeats}) must be at least 1")


@dataclass(frozen=True, eq=False)
class Network:
    """A compiled NIR file, shared by all shards of a run."""

    model: Path
    sha256: str
    graph: nir.NIRGraph
    program: Program

    @classmethod
    def read(cls, model: Path, precision: str) -> Network:
        """Read and compile a file. Raises BadInputError if that is not possible."""
        graph = files.read(model)
        return cls(model, sha256(model), graph, compile_graph(graph, precision=precision))

    @cached_property
    def student(self) -> verify.FoldedStudent | None:
        """The file's weights in torch; None for a network that is not a student of mksgn."""
        return verify.FoldedStudent(self.graph) if self.graph.metadata.get("student") is not None else None

    @property
    def steps(self) -> int:
        """Time steps of a clip."""
        if self.program.steps is None:
            raise BadInputError(
                f"{self.model}: the file does not say how many steps a clip has; run it with mksgn-deploy --inputs"
            )
        return self.program.steps

    def shard_size(self, backend: str) -> int:
        """Clips of a shard by default: as many as the emulator computes at once, or as one start of Lava serves."""
        return LAVA_SHARD if backend == "lava" else batch_size(self.program, self.steps)


@dataclass(frozen=True)
class Compared:
    """Decisions (one neuron at one step) compared with other executions.

    `first` is (execution, layer, clip, step) of the first difference by layer: later layers may
    only inherit it.
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
    """Spikes of a clip, one bit each, for keeping and sending."""

    bits: np.ndarray
    shape: tuple[int, ...]  # (bodies, steps, *shape of the population)

    @classmethod
    def of(cls, spikes: np.ndarray) -> Packed:
        return cls(spike_bits.pack(spikes.ravel()), spikes.shape)

    @property
    def spikes(self) -> np.ndarray:
        """Bool."""
        return spike_bits.unpack(self.bits, math.prod(self.shape)).reshape(self.shape)


@dataclass
class Shard:
    """Result of the clips `first`, `first + 1`, …

    `digests` are of each clip's joints, `seconds` of each repetition; `trains` are the spikes of
    each clip that are kept.
    """

    first: int
    names: list[str]
    digests: list[str]
    predictions: np.ndarray
    bodies: int
    counters: dict[str, Counters]
    seconds: tuple[float, ...]
    compared: Compared
    trains: dict[int, dict[str, Packed]] = field(default_factory=dict)


def shards(missing: np.ndarray, size: int) -> list[range]:
    """Divide the clips that are still to be run into shards.

    Shards are aligned to multiples of `size`, so a resumed run has the shards of an uninterrupted
    one: in float32, sums may be rounded differently in batches of another size.

    Args:
        missing: Whether a clip is still to be run, (clips,) bool.
        size: Most clips of a shard.

    Returns:
        Ranges of consecutive clips, in order.
    """
    ranges = []
    for first in range(0, len(missing), size):
        clips = np.flatnonzero(missing[first : first + size]) + first
        ranges += [
            range(int(run[0]), int(run[-1]) + 1)
            for run in np.split(clips, np.flatnonzero(np.diff(clips) > 1) + 1)
            if len(run)
        ]
    return ranges


def some(clips: ClipSet, which: range) -> ClipSet:
    """Take clips out of a set, reading each once."""
    return replace(clips, clips=list(clips.clips[which.start : which.stop]))


def run_shard(network: Network, clips: ClipSet, first: int, settings: Settings) -> Shard:
    """Run the clips of a shard.

    Args:
        network: The compiled network.
        clips: The clips of the shard.
        first: Index of the first of them in the run.
        settings: How they are executed.

    Raises:
        ParityError: A repetition gives other spikes.
    """
    samples = clip_inputs(network.graph, network.program, clips)
    compared_clips = len(clips) if settings.compare is None else max(0, min(len(clips), settings.compare - first))
    kept = max(0, min(len(clips), TRAINS - first))
    execution, seconds = _execute(network.program, samples, settings, record=bool(compared_clips or kept))
    return Shard(
        first=first,
        names=[clip.name for clip in clips.clips],
        digests=[digest(clip).hex() for clip in clips.clips],
        predictions=samples.predictions(execution),
        bodies=len(samples.inputs),
        counters=execution.counters,
        seconds=seconds,
        compared=_compare(network, samples, execution, compared_clips, first),
        trains={
            first + clip: {name: Packed.of(x[samples.clip_of_body == clip]) for name, x in execution.spikes.items()}
            for clip in range(kept)
        },
    )


def _execute(
    program: Program, samples: ClipInputs, settings: Settings, *, record: bool
) -> tuple[Execution, tuple[float, ...]]:
    execution = run_program(program, samples.inputs, backend=settings.backend, record=record)
    seconds = [execution.seconds]
    for repeat in range(1, settings.repeats):
        repetition = run_program(program, samples.inputs, backend=settings.backend, record=record)
        seconds.append(repetition.seconds)
        for name, counters in execution.counters.items():
            if not np.array_equal(counters.per_neuron, repetition.counters[name].per_neuron):
                raise ParityError(
                    f"{name}: repetition {repeat + 1} on {settings.backend} gives different spikes from the first"
                )
    return execution, tuple(seconds)


def _compare(network: Network, samples: ClipInputs, execution: Execution, clips: int, first: int) -> Compared:
    """Compare the spikes of the first `clips` clips with torch, and those of Lava with the emulator too."""
    bodies = int((samples.clip_of_body < clips).sum())
    if bodies == 0:
        return Compared()
    inputs = samples.inputs[:bodies]
    spikes = {name: train[:bodies] for name, train in execution.spikes.items()}
    references: dict[str, Spikes] = {}
    if execution.backend == "lava":
        references["emulator"] = run_program(network.program, inputs, backend="emulator").spikes
    if network.student is not None:
        references["torch"] = verify.torch_spikes(network.student, np.ascontiguousarray(inputs[:, 0]))[0]
    layers = {population.name: number for number, population in enumerate(network.program.populations)}
    total = Compared(tuple(references))
    for number, (name, expected) in enumerate(references.items()):
        parity = compare(name, expected, spikes)
        difference = None
        if (at := parity.first) is not None:
            clip = first + int(samples.clip_of_body[at.sample])
            difference = (number, layers.get(at.layer, len(layers)), clip, at.step)
        total += Compared((), parity.decisions, parity.mismatches, difference)
    return total
