"""Tasks of a sweep's workers: networks and clips travel with a task, so workers share no files."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch

from mksgn.bench import run
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.evaluation import EvaluationOptions
from mksgn.bench.progress import Progress
from mksgn.bench.samples import ArraySamples, ClipSamples, SampleSet
from mksgn.bench.shards import Network, Settings, Shard, run_shard
from mksgn.bench.sweep.grid import Variant
from mksgn.bench.sweep.variants import graph_of, graph_of_file
from mksgn.deploy.options import Reading
from mksgn.deploy.placement.chips import Chip
from mksgn.export.graph import files
from mksgn.train import checkpoint
from mksgn.train.transforms import body_inputs

MODEL_FILE = "model.nir"
NETWORKS = 4  # compiled networks that a worker caches

Value = TypeVar("Value")


def data(value: Value) -> Value:
    """Return data as the result of a task, so that the scheduler can restore it if the worker that holds it dies."""
    return value


def build(variant: Variant, model: bytes, calibration: SampleSet, settings: Settings) -> bytes:
    """Return the bytes of a variant's model.nir.

    Args:
        variant: The network to build.
        model: Bytes of the checkpoint's file, or of a NIR file.
        calibration: Samples that choose the scales of quantisation.
        settings: What a NIR file leaves open.
    """
    _one_thread()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(variant.path).name
        path.write_bytes(model)
        local = variant.model_copy(update={"path": str(path)})
        if isinstance(calibration, ClipSamples):
            samples, _ = body_inputs(calibration.clips.clips, checkpoint.load(path).normaliser)
            graph = graph_of(local, samples)
        else:
            assert isinstance(calibration, ArraySamples)
            graph = graph_of_file(local, calibration.data, settings.compiling)
        files.write(graph, Path(folder) / "variant" / MODEL_FILE)
        return (Path(folder) / "variant" / MODEL_FILE).read_bytes()


@lru_cache(maxsize=NETWORKS)
def network_of(nir: bytes, precision: str, compiling: Reading) -> Network:
    """Compile a network, or return it from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL_FILE
        path.write_bytes(nir)
        return Network.read(path, precision, compiling)


def execute(nir: bytes, samples: SampleSet, first: int, settings: Settings) -> Shard:
    """Run one shard; `first` is the number of its first sample."""
    _one_thread()
    network = network_of(nir, settings.precision, settings.compiling)
    bound = samples.bound(network.program)
    return run_shard(network.presenting(bound), bound, first, settings)


def finish(
    nir: bytes,
    facts: SampleSet,
    seed: int | None,
    settings: Settings,
    progress: Progress,
    chip: Chip,
    models: list[EnergyModel],
) -> dict[str, bytes]:
    """Return the files of a point's folder by name; `facts` are its samples without their values."""
    _one_thread()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / MODEL_FILE).write_bytes(nir)
        network = replace(network_of(nir, settings.precision, settings.compiling), model=out / MODEL_FILE)
        bound = facts.bound(network.program)
        run.finish(
            network.presenting(bound),
            bound,
            out,
            settings,
            progress,
            seed=seed,
            options=EvaluationOptions(chip.name, models, chips=[chip]),
        )
        return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _one_thread() -> None:
    """Use one thread of torch: the workers already share the cores."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
