"""The data of a run: N samples, labelled or not, that are converted to a program's inputs piece by piece.

One kind is skeleton clips: a sample may have several bodies, and the network's file says how joints
become inputs. The other is arrays: each sample is one row, presented as it is.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import nir
import numpy as np
import torch

from mksgn.common.errors import BadInputError
from mksgn.deploy.clips import clip_inputs
from mksgn.deploy.decode import Decoding
from mksgn.deploy.execute import present
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program
from mksgn.export.graph.metadata import input_normaliser
from mksgn.train.datasets import Clip, ClipSet, LazyClips, open_source
from mksgn.train.datasets.arrays import ArraySet, array_set, collected, is_array_source, open_arrays
from mksgn.train.streams import resize
from mksgn.train.student import body_mean
from mksgn.train.transforms import digest


@dataclass(frozen=True, eq=False)
class Presented:
    """Inputs of some samples: arrays (rows, steps, *shape) by name of the input, and the sample of each row."""

    arrays: dict[str, np.ndarray]
    sample_of_row: np.ndarray
    samples: int

    @property
    def rows(self) -> int:
        return len(self.sample_of_row)

    def first(self, samples: int) -> Presented:
        """Take the rows of the first samples."""
        rows = int((self.sample_of_row < samples).sum())
        return Presented({name: x[:rows] for name, x in self.arrays.items()}, self.sample_of_row[:rows], samples)

    def predictions(self, program: Program, execution: Execution, decoding: Decoding) -> np.ndarray:
        """Return the class of each sample, (samples,): scores are means over the sample's rows."""
        scores = torch.from_numpy(np.ascontiguousarray(decoding.scores(program, execution)))
        return body_mean(scores, torch.from_numpy(self.sample_of_row), self.samples).argmax(1).numpy()


class SampleSet(ABC):
    """The samples of a run, in order. `classes` is None where the network's output gives their number."""

    split: str | None = None
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None

    @property
    @abstractmethod
    def source(self) -> str: ...

    @property
    @abstractmethod
    def labels(self) -> np.ndarray | None: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def constant(self, program: Program) -> bool:
        """Whether every input of a sample is the same at each step."""

    @abstractmethod
    def take(self, which: range) -> SampleSet:
        """Read samples into memory, each once."""

    def read(self) -> SampleSet:
        """Read all samples into memory."""
        return self.take(range(len(self)))

    @abstractmethod
    def described(self) -> SampleSet:
        """Return the samples with what a record says about them, but the values of the first sample only."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of the samples, which must be in memory."""

    @abstractmethod
    def digest(self, index: int) -> str:
        """Return the hash of a sample's values."""

    @abstractmethod
    def presented(self, graph: nir.NIRGraph | None, program: Program) -> Presented:
        """Convert all samples to a program's inputs."""

    def bound(self, program: Program) -> SampleSet:
        """Check the data against a program's inputs. Raises BadInputError if they do not fit."""
        return self

    def steps(self, program: Program) -> int | None:
        """Return the time steps of a sample; None if neither the data nor the file says."""
        return program.steps

    def identity(self) -> dict[str, Any]:
        """Return what distinguishes these data from others, without reading every sample of a large set of clips."""
        labels = None
        if self.labels is not None:
            labels = hashlib.sha256(np.asarray(self.labels, dtype=np.int64).tobytes()).hexdigest()
        return {"clips": len(self), "labels": labels}

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says about these data besides names and labels."""
        return {}

    def drawn(self, graph: nir.NIRGraph | None) -> dict[str, np.ndarray]:
        """Return the arrays for spikes.npz from which the report draws the first sample."""
        return {}


@dataclass(frozen=True, eq=False)
class ClipSamples(SampleSet):
    """Clips of skeletons."""

    clips: ClipSet

    @property
    def source(self) -> str:
        return self.clips.source

    @property
    def split(self) -> str:  # type: ignore[override]
        return self.clips.split

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.clips.notes

    @property
    def classes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.clips.classes

    @property
    def labels(self) -> np.ndarray:
        return self.clips.labels

    def __len__(self) -> int:
        return len(self.clips)

    def constant(self, program: Program) -> bool:
        return True  # a clip's frames are an axis of its input, which is the same at each step

    def take(self, which: range) -> ClipSamples:
        return ClipSamples(replace(self.clips, clips=list(self.clips.clips[which.start : which.stop])))

    def described(self) -> ClipSamples:
        sample = self.clips.clips[0]
        return ClipSamples(replace(self.clips, clips=LazyClips(self.labels, partial(_same, sample))))

    def names(self) -> list[str]:
        return [clip.name for clip in self.clips.clips]

    def digest(self, index: int) -> str:
        return digest(self.clips.clips[index]).hex()

    def presented(self, graph: nir.NIRGraph | None, program: Program) -> Presented:
        if graph is None:
            raise BadInputError("a program does not say how clips become its inputs; give its graph, or arrays")
        inputs = clip_inputs(graph, program, self.clips)
        (name,) = (p.name for p in program.inputs)
        return Presented({name: inputs.inputs}, inputs.clip_of_body, len(self))

    def facts(self) -> dict[str, Any]:
        return {"graph": self.clips.graph}

    def drawn(self, graph: nir.NIRGraph | None) -> dict[str, np.ndarray]:
        """Return the joints of the first clip's first body, resampled to the network's frames: (T, V, 3)."""
        normaliser = None if graph is None else input_normaliser(graph)
        if normaliser is None:
            return {}
        return {"sample/joints": resize(self.clips.clips[0].joints, normaliser.frames)[0].astype(np.float32)}


@dataclass(frozen=True, eq=False)
class ArraySamples(SampleSet):
    """Arrays by name of the input; `bound` assigns the names.

    Args:
        data: The samples.
        given_steps: Time steps of samples without a time axis; None: what the file says.
        numbers: Indices of the samples in the whole set, for their names.
    """

    data: ArraySet
    given_steps: int | None = None
    numbers: range | None = None

    @property
    def source(self) -> str:
        return self.data.source

    @property
    def labels(self) -> np.ndarray | None:
        return self.data.labels

    def __len__(self) -> int:
        return len(self.data)

    def constant(self, program: Program) -> bool:
        return all(x.ndim == len(program[name].shape) + 1 for name, x in self.data.arrays.items())

    def bound(self, program: Program) -> ArraySamples:
        """Give the arrays the names of a program's inputs. Raises BadInputError where they do not fit."""
        data = self.data.by_input([population.name for population in program.inputs])
        axes = {name: x.ndim - len(program[name].shape) for name, x in data.arrays.items()}
        for name, x in data.arrays.items():
            if axes[name] not in (1, 2) or x.shape[axes[name] :] != program[name].shape:
                shape = ", ".join(map(str, program[name].shape))
                raise BadInputError(
                    f"{self.source}: the array for input {name} has shape {x.shape}; expected (samples, steps, {shape}) "
                    f"or (samples, {shape})"
                )
        samples = replace(self, data=data)
        if samples.steps(program) is None:
            raise BadInputError(
                f"{self.source}: samples have no time axis, and the file does not say how many steps to present them; "
                "give --steps (steps=…)"
            )
        return samples

    def steps(self, program: Program) -> int | None:
        lengths = {name: x.shape[1] for name, x in self.data.arrays.items() if x.ndim > len(program[name].shape) + 1}
        if self.given_steps is not None and lengths and set(lengths.values()) != {self.given_steps}:
            raise BadInputError(
                f"{self.source}: samples have {', '.join(map(str, sorted(set(lengths.values()))))} steps, not "
                f"{self.given_steps}; leave out --steps (steps=…)"
            )
        if len(set(lengths.values())) > 1:
            raise BadInputError(f"{self.source}: the inputs differ in their number of steps, {lengths}")
        return next(iter(lengths.values()), self.given_steps or program.steps)

    def take(self, which: range) -> ArraySamples:
        return replace(self, data=self.data.take(which), numbers=which)

    def described(self) -> ArraySamples:
        first = {name: np.array(x[self.data.index[:1]]) for name, x in self.data.arrays.items()}
        return replace(self, data=replace(self.data, arrays=first))

    def names(self) -> list[str]:
        return [f"sample {number}" for number in self.numbers or range(len(self))]

    def digest(self, index: int) -> str:
        return self.data.digest(index)

    def presented(self, graph: nir.NIRGraph | None, program: Program) -> Presented:
        steps, index = self.steps(program), self.data.index
        arrays = {
            name: present(program, name, x if len(x) == len(self) else x[index], steps)
            for name, x in self.data.arrays.items()
        }
        return Presented(arrays, np.arange(len(self)), len(self))

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "arrays": self.data.sha256}


def _same(clip: Clip, index: int) -> Clip:
    return clip


def as_samples(data: SampleSet | ClipSet | ArraySet) -> SampleSet:
    """Return the samples of data of any kind."""
    if isinstance(data, ClipSet):
        return ClipSamples(data)
    return ArraySamples(data) if isinstance(data, ArraySet) else data


def open_samples(
    source: str, *, split: str | None = None, limit: int | None = None, seed: int = 0, steps: int | None = None
) -> SampleSet:
    """Open the test part of a SOURCE, of clips or of arrays.

    Args:
        source: As on the command line.
        split: Split of a source of clips.
        limit: Number of samples.
        seed: Seed of synthetic clips.
        steps: Time steps of arrays without a time axis.

    Raises:
        BadInputError: The source cannot be opened.
    """
    data = open_data(source, split=split, limit=limit, seed=seed)
    if isinstance(data, ArraySet):
        return ArraySamples(data, steps)
    if steps is not None:
        raise BadInputError(
            "--steps is for arrays without a time axis; a student's file says how many steps a clip has"
        )
    return ClipSamples(data)


def open_data(
    source: str, *, split: str | None = None, part: str = "test", limit: int | None = None, seed: int = 0
) -> ClipSet | ArraySet:
    """Open a part of a SOURCE, of clips or of arrays. Raises BadInputError if it cannot be opened."""
    if not is_array_source(source):
        return open_source(source, split=split, part=part, limit=limit, seed=seed)
    if split is not None:
        raise BadInputError(f"{source}: arrays have no splits; leave out --split")
    return open_arrays(source, part=part, limit=limit)


def given_samples(inputs: Any, labels: Any = None, *, steps: int | None = None) -> SampleSet:
    """Return samples given as Python objects.

    Args:
        inputs: An array or a tensor, a dict of them by name of the input, an iterable of (x, y), of
            single samples or of batches, or clips.
        labels: Class of each sample; None without labels.
        steps: Time steps of samples without a time axis.

    Raises:
        BadInputError: The samples do not fit each other.
    """
    if isinstance(inputs, SampleSet | ClipSet):
        return as_samples(inputs)
    if isinstance(inputs, ArraySet):
        return ArraySamples(inputs, steps)
    if isinstance(inputs, Mapping):
        return ArraySamples(array_set(inputs, labels), steps)
    if isinstance(inputs, np.ndarray | torch.Tensor) or labels is not None:
        return ArraySamples(array_set({"x": inputs}, labels), steps)
    return ArraySamples(collected(inputs), steps)
