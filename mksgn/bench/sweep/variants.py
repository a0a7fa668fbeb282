"""A trained student with another number of time steps, other thresholds and another number of bits, as a quantised NIR file."""

from __future__ import annotations

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

DT = 1e-4  # seconds, as mksgn-export's


def graph_of(variant: Variant, calibration: np.ndarray) -> nir.NIRGraph:
    """`calibration`: bodies of clips (L, 3 · streams, T, V) as the model's normaliser makes them. The weights are the trained ones."""
    trained = with_steps(checkpoint.load(Path(variant.path)), variant.steps)
    graph = export_to_nir(trained, dt=DT)
    scale_thresholds(graph, variant.threshold)
    graph.metadata["variant"] = json.dumps(variant.model_dump(include={"steps", "threshold", "bits"}))
    return quantize(graph, variant.bits, calibration, trained.student.config.steps, DT)[0]


def with_steps(trained: TrainedModel, steps: int | None) -> TrainedModel:
    """The same weights run for another number of time steps."""
    if steps is None or steps == trained.student.config.steps:
        return trained
    student = Student(replace(trained.student.config, steps=steps))
    student.load_state_dict(trained.student.state_dict())
    return replace(trained, student=student.eval())


def scale_thresholds(graph: nir.NIRGraph, factor: float) -> None:
    """Every population's, those of attention included."""
    if factor == 1.0:
        return
    for node in graph.nodes.values():
        if isinstance(node, SpikingSelfAttention):
            node.threshold_m, node.threshold_z = (_times(x, factor) for x in (node.threshold_m, node.threshold_z))
        elif hasattr(node, "v_threshold"):
            node.v_threshold = _times(node.v_threshold, factor)


def _times(threshold: np.ndarray, factor: float) -> np.ndarray:
    return (np.asarray(threshold, dtype=np.float64) * factor).astype(np.float32)
