"""Variants of a trained student, or of any network: another number of time steps, scaled thresholds, and other weight bits."""

import json
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np

from mksgn.bench.sweep.grid import Variant
from mksgn.common.errors import BadInputError
from mksgn.deploy.options import Reading
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.metadata import json_of
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.export.to_nir import quantized
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedModel
from mksgn.train.datasets.arrays import ArraySet
from mksgn.train.student import Student

DT = 1e-4  # seconds, the default of mksgn-export


def graph_of(variant: Variant, calibration: np.ndarray) -> nir.NIRGraph:
    """Return the quantised NIR graph of a variant; its weights are the trained ones.

    Args:
        variant: The model and what to change.
        calibration: Normalised inputs (bodies, 3 · streams, T, V) that choose the scales of quantisation.
    """
    trained = with_steps(checkpoint.load(Path(variant.path)), variant.steps)
    graph = export_to_nir(trained, dt=DT)
    scale_thresholds(graph, variant.threshold)
    graph.metadata["variant"] = json.dumps(variant.model_dump(include={"steps", "threshold", "bits"}))
    return quantized(graph, trained, variant.bits, calibration, DT)


def graph_of_file(variant: Variant, calibration: ArraySet, compiling: Reading) -> nir.NIRGraph:
    """Return what `graph_of` does, for the NIR file of any network.

    Args:
        variant: The file and what to change.
        calibration: Samples that choose the scales of quantisation, in memory.
        compiling: Settings that the file leaves open.
    """
    path = Path(variant.path)
    graph = flatten(files.read(path))
    if json_of(graph, "quantization") is not None:
        raise BadInputError(f"{variant.model}: {path.name} is quantised already; name the file that it was made from")
    scale_thresholds(graph, variant.threshold)
    quantised = quantize_any(
        graph, variant.bits, calibration.by_input(list(graph.inputs)).arrays, **compiling.options, steps=variant.steps
    )
    quantised.metadata["parent"] = checkpoint.sha256(path)
    quantised.metadata["variant"] = json.dumps(variant.model_dump(include={"steps", "threshold", "bits"}))
    return quantised


def with_steps(trained: TrainedModel, steps: int | None) -> TrainedModel:
    """Return the model with the same weights and another number of time steps; None keeps its own."""
    if steps is None or steps == trained.student.config.steps:
        return trained
    student = Student(replace(trained.student.config, steps=steps))
    student.load_state_dict(trained.student.state_dict())
    return replace(trained, student=student.eval())


def scale_thresholds(graph: nir.NIRGraph, factor: float) -> None:
    """Multiply the thresholds of all populations, those in attention included, in place."""
    if factor == 1.0:
        return
    for node in graph.nodes.values():
        if isinstance(node, SpikingSelfAttention):
            node.threshold_m, node.threshold_z = (_times(x, factor) for x in (node.threshold_m, node.threshold_z))
        elif hasattr(node, "v_threshold"):
            node.v_threshold = _times(node.v_threshold, factor)


def _times(threshold: np.ndarray, factor: float) -> np.ndarray:
    return (np.asarray(threshold, dtype=np.float64) * factor).astype(np.float32)
