"""The export of a trained student to the Neuromorphic Intermediate Representation (NIR)."""

import json
from pathlib import Path

import nir
import numpy as np

from mksgn.export.choices import PROFILES
from mksgn.export.errors import ExportError
from mksgn.export.lowering.lower import lower
from mksgn.export.lowering.portable import to_portable
from mksgn.export.quantization.quantize import quantize as quantize_graph
from mksgn.train.checkpoint import TrainedModel, load, sha256

SHORTEST_DT, LONGEST_DT = 1e-9, 1.0  # seconds: a number outside this range was given in other units


def check_options(profile: str, dt: float) -> None:
    """Raise ExportError for an unknown profile or an implausible time step (seconds)."""
    if profile not in PROFILES:
        raise ExportError(f"profile {profile!r} is unknown; choose one of {', '.join(PROFILES)}")
    if not SHORTEST_DT <= dt <= LONGEST_DT:
        raise ExportError(f"dt {dt}: expected {SHORTEST_DT} to {LONGEST_DT} seconds; 1e-4 is what other readers assume")


def export_to_nir(
    model: TrainedModel | str | Path,
    *,
    dt: float = 1e-4,
    profile: str = "structured",
    quantize: int | None = None,
    calibration: np.ndarray | None = None,
    weight_exponents: bool = True,
) -> nir.NIRGraph:
    """Convert a trained student to a NIR graph, with its batch norms folded.

    Args:
        model: The student, or the path of its model.pt.
        dt: Time step in seconds.
        profile: "structured", with GraphConv and SpikingSelfAttention, or "portable", with stock
            primitives only.
        quantize: Bits per weight, 2 to 8; None leaves the weights in float32.
        calibration: Inputs (L, 3 · streams, T, V) as the model's normaliser makes them; needed to
            quantise, unless the model was trained for that many bits and brings its scales.
        weight_exponents: Whether each projection's weights get an exponent of their own, below 8 bits.

    Raises:
        ExportError: The student cannot be exported; the subclass names the reason.
    """
    check_options(profile, dt)
    trained = model if isinstance(model, TrainedModel) else load(Path(model))
    graph = lower(trained.student, trained.normaliser, dt=dt)
    graph.metadata["training"] = json.dumps({k: v for k, v in trained.training.items() if k != "source"})
    if trained.path is not None:
        graph.metadata["parent"] = sha256(trained.path)
    if quantize is not None:
        graph = quantized(graph, trained, quantize, calibration, dt, weight_exponents=weight_exponents)
    return to_portable(graph) if profile == "portable" else graph


def quantized(
    graph: nir.NIRGraph,
    trained: TrainedModel,
    bits: int,
    calibration: np.ndarray | None,
    dt: float,
    *,
    weight_exponents: bool = True,
) -> nir.NIRGraph:
    """Quantise a student's graph with the scales that it was trained with, or else by calibration.

    Raises:
        ExportError: It was trained for another number of bits, there are no calibration clips, or the
            quantiser refuses the graph.
    """
    steps, own = trained.student.config.steps, trained.quantization
    if own is not None:
        if bits != own.bits:
            raise ExportError(
                f"{trained.path or 'the model'}: was trained for {own.bits} bits, not {bits}; quantise it to "
                f"{own.bits}; for other widths, quantise the model that this training started from"
            )
        return quantize_graph(graph, bits, None, steps, dt, trained=own)[0]
    if calibration is None or not len(calibration):
        raise ExportError("quantize needs calibration clips, whose spikes decide the scales; give calibration=…")
    return quantize_graph(graph, bits, calibration, steps, dt, weight_exponents=weight_exponents)[0]
