"""Second stage: a student → a graph in the Neuromorphic Intermediate Representation, quantised once → model.nir."""

from __future__ import annotations

import json
from pathlib import Path

import nir
import numpy as np

from mksgn.export.errors import ExportError
from mksgn.export.lowering.lower import lower
from mksgn.export.lowering.portable import to_portable
from mksgn.export.quantization.quantize import quantize as quantize_graph
from mksgn.train.checkpoint import TrainedModel, load, sha256

__all__ = ["export_to_nir"]

PROFILES = ("structured", "portable")


SHORTEST_DT, LONGEST_DT = 1e-9, 1.0  # seconds: beyond these a number was given in other units


def check_options(profile: str, dt: float) -> None:
    if profile not in PROFILES:
        raise ExportError(f"profile {profile!r} is not there; choose one of {', '.join(PROFILES)}")
    if not SHORTEST_DT <= dt <= LONGEST_DT:
        raise ExportError(f"dt {dt}: expected {SHORTEST_DT} to {LONGEST_DT} seconds; 1e-4 is what other readers assume")


def export_to_nir(
    model: TrainedModel | str | Path,
    *,
    dt: float = 1e-4,
    profile: str = "structured",
    quantize: int | None = None,
    calibration: np.ndarray | None = None,
) -> nir.NIRGraph:
    """A trained student, or the path of its model.pt, as a NIR graph, batch norm folded.

    `dt` is the time step in seconds. `quantize` (2 to 8 bits) needs `calibration`, samples of clips (L, 12, T, V) as the model's
    normaliser makes them; None leaves the weights in float32. Raises ExportError or one of its children.
    """
    check_options(profile, dt)
    trained = model if isinstance(model, TrainedModel) else load(Path(model))
    graph = lower(trained.student, trained.normaliser, dt=dt)
    graph.metadata["training"] = json.dumps({k: v for k, v in trained.training.items() if k != "source"})
    if trained.path is not None:
        graph.metadata["parent"] = sha256(trained.path)
    if quantize is not None:
        if calibration is None or not len(calibration):
            raise ExportError("quantising needs calibration clips: scales are chosen by the spikes that they cause")
        graph, _ = quantize_graph(graph, quantize, calibration, trained.student.config.steps, dt)
    return to_portable(graph) if profile == "portable" else graph
