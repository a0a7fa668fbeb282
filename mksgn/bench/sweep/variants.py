"""Variants of a trained student: another number of time steps, scaled thresholds, and other weight bits."""

import json
from dataclasses import replace
from pathlib import Path

import nir
import numpy as np

from mksgn.bench.sweep.grid import Variant
from mksgn.export import export_to_nir
from mksgn.export.graph.nodes import SpikingSelfAttention
from mksgn.export.quantization.quantize import quantize
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedModel
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
    return quantize(graph, variant.bits, calibration, trained.student.config.steps, DT)[0]


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
