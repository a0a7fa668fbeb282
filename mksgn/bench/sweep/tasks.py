"""What a worker of a sweep does. It needs mksgn and nothing else: networks and clips come with the task, results go back with it."""

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
from mksgn.bench.shards import Network, Settings, Shard, run_shard
from mksgn.bench.sweep.grid import Variant
from mksgn.bench.sweep.variants import graph_of
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.datasets import Clip, ClipSet, LazyClips
from mksgn.train.transforms import body_inputs

MODEL_FILE = "model.nir"
NETWORKS = 4  # kept compiled by a worker

Value = TypeVar("Value")


def given(value: Value) -> Value:
    """Data as a task: should the worker that holds them die, the scheduler can make them again."""
    return value


def build(variant: Variant, model: bytes, calibration: ClipSet) -> bytes:
    """model.nir of a variant; `model` is the checkpoint's file."""
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
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        path.write_bytes(nir)
        return Network.read(path, precision)


def execute(nir: bytes, clips: ClipSet, first: int, settings: Settings) -> Shard:
    """One shard: these clips, of which the first is number `first`."""
    _one_thread()
    return run_shard(network_of(nir, settings.precision), clips, first, settings)


@dataclass(frozen=True)
class Facts:
    """Of the clips of a sweep, all but their joints; `sample` is the first one."""

    clips: ClipSet
    sample: Clip
    seed: int

    @classmethod
    def of(cls, clips: ClipSet, seed: int) -> Facts:
        return cls(replace(clips, clips=LazyClips(clips.labels, _unread)), clips.clips[0], seed)

    def clip_set(self) -> ClipSet:
        return replace(self.clips, clips=LazyClips(self.clips.labels, lambda index: self.sample))


def finish(
    nir: bytes, facts: Facts, settings: Settings, progress: Progress, chip: str, models: list[EnergyModel]
) -> dict[str, bytes]:
    """The files of a point's folder, by name."""
    _one_thread()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / MODEL_FILE).write_bytes(nir)
        network = replace(network_of(nir, settings.precision), model=out / MODEL_FILE)
        run.finish(
            network,
            facts.clip_set(),
            out,
            settings,
            progress,
            seed=facts.seed,
            options=EvaluationOptions(chip, models),
            reports=False,
        )
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _unread(index: int) -> Clip:
    raise LookupError(f"clip {index} is not with these facts")


def _one_thread() -> None:
    """Workers share the cores already."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
