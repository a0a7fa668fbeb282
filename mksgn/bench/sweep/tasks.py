"""Tasks of a sweep's workers: networks and clips travel with a task, so workers share no files."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch

from mksgn.bench import run
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.evaluation import EvaluationOptions
from mksgn.bench.progress import Progress
from mksgn.bench.samples import ClipSamples, SampleSet
from mksgn.bench.shards import Network, Settings, Shard, run_shard
from mksgn.bench.sweep.grid import Variant
from mksgn.bench.sweep.variants import graph_of
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import Clip, ClipSet, LazyClips
from mksgn.train.transforms import body_inputs

MODEL_FILE = "model.nir"
NETWORKS = 4  # compiled networks that a worker caches

Value = TypeVar("Value")


def data(value: Value) -> Value:
    """Return data as the result of a task, so that the scheduler can restore it if the worker that holds it dies."""
    return value


def build(variant: Variant, model: bytes, calibration: ClipSet) -> bytes:
    """Return the bytes of a variant's model.nir.

    Args:
        variant: The network to build.
        model: Bytes of the checkpoint's file.
        calibration: Clips that choose the scales of quantisation.
    """
    _one_thread()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(model)
        samples, _ = body_inputs(calibration.clips, checkpoint.load(path).normaliser)
        graph = graph_of(variant.model_copy(update={"path": str(path)}), samples)
        files.write(graph, Path(folder) / MODEL_FILE)
        return (Path(folder) / MODEL_FILE).read_bytes()


@lru_cache(maxsize=NETWORKS)
def network_of(nir: bytes, precision: str) -> Network:
    """Compile a network, or return it from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        path.write_bytes(nir)
        return Network.read(path, precision)


def execute(nir: bytes, clips: SampleSet, first: int, settings: Settings) -> Shard:
    """Run one shard; `first` is the number of its first clip."""
    _one_thread()
    return run_shard(network_of(nir, settings.precision), clips, first, settings)


@dataclass(frozen=True)
class Facts:
    """Labels and names of the clips of a sweep without their joints; `sample` is the first clip."""

    clips: ClipSet
    sample: Clip
    seed: int

    @classmethod
    def of(cls, samples: SampleSet, seed: int) -> Facts:
        """Take the facts of a set of clips."""
        assert isinstance(samples, ClipSamples)
        clips = samples.clips
        return cls(replace(clips, clips=LazyClips(clips.labels, _unread)), clips.clips[0], seed)

    def samples(self) -> SampleSet:
        """Return the set, in which every clip has the joints of the sample."""
        return ClipSamples(replace(self.clips, clips=LazyClips(self.clips.labels, lambda index: self.sample)))


def finish(
    nir: bytes, facts: Facts, settings: Settings, progress: Progress, chip: str, models: list[EnergyModel]
) -> dict[str, bytes]:
    """Return the files of a point's folder by name."""
    _one_thread()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / MODEL_FILE).write_bytes(nir)
        network = replace(network_of(nir, settings.precision), model=out / MODEL_FILE)
        run.finish(
            network,
            facts.samples(),
            out,
            settings,
            progress,
            seed=facts.seed,
            options=EvaluationOptions(chip, models),
            reports=False,
        )
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _unread(index: int) -> Clip:
    raise LookupError(f"clip {index} was not sent with these facts")


def _one_thread() -> None:
    """Use one thread of torch: the workers already share the cores."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
