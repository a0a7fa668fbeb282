"""The ordinary network that a student's energy is held against, and the comparison on which "98 %" rests, with its fair other side.

The paper holds its spiking network against a multimodal GCN of more than 35 mJ per sample [paper]: at the 4.6 pJ of an FP32 MAC,
7.6 G MACs. Its own 0.596 mJ [review] are FP32 accumulations at 0.9 pJ. Both prices are those of 45 nm arithmetic in floating
point; neither network would be deployed so. In INT8 the same GCN costs 1.75 mJ. So the rows below hold our teacher, a four-stream
GCN of ten layers, against the student at equal precision, and an INT8 GCN against the student as the paper prices it.

MACs are those of the dense computation, the student's synaptic operations those that its spikes really caused: that difference is
the saving. What a comparison of energies cannot show: the accuracy of either network, and all that is not arithmetic (CAVEATS).
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import nir
import torch

from mksgn.bench.energy_models import PJ_IN_MJ, EnergyModel, known_models, model_named, price
from mksgn.bench.numbers import percent, significant
from mksgn.bench.record import Gcn, Record
from mksgn.export.graph.metadata import json_of, student_config
from mksgn.train.config import PRESETS
from mksgn.train.describe import teacher_layers
from mksgn.train.student import StudentConfig
from mksgn.train.teacher import LAYERS, Teacher, TeacherConfig

Precision = Literal["FP32", "FP16", "INT8"]

# the GCN's precision and prices, the student's prices, and what the row is for
ROWS: tuple[tuple[Precision, str, str, str], ...] = (
    ("FP32", "horowitz45-fp32", "horowitz45-fp32", "the paper's comparison: both in FP32"),
    ("FP16", "horowitz45-fp16", "horowitz45-fp16", "both in FP16"),
    ("INT8", "horowitz45-int8", "horowitz45-int8", "the fair side: both in INT8"),
    ("INT8", "horowitz45-int8", "horowitz45-fp32", "an INT8 GCN against the student as the paper prices it"),
    ("INT8", "horowitz45-int8", "horowitz45-int32add", "an INT8 GCN against the student's sums in INT32"),
)
CAVEATS = (
    "The GCN is our teacher of the same preset, untrained and not run: its accuracy is not in this record, in no precision. "
    "A reduction of the energy says nothing of what it costs in accuracy.",
    "The GCN's multiply-accumulates are those of the dense computation. Many of its activations are zero after ReLU too; hardware that "
    "skips zeros would spend less, and nobody counted it here.",
    "Arithmetic only, on both sides: memory, routing, leakage and, of the student, the updates of its neurons are left out. "
    "They are not small.",
    "The student ran in the precision that its file has; pricing its events in FP32, FP16 or INT8 does not run it again.",
)


@dataclass(frozen=True)
class GcnRow:
    """One comparison, mJ per clip over the same bodies. `reduction`: 1 - student / GCN; None where the student has no total."""

    precision: Precision  # of the GCN
    model: str  # energy model that prices the GCN's MACs
    student_model: str  # energy model that prices the student's events
    reading: str
    gcn_mJ: float
    student_mJ: float  # a lower bound where the student's model has no price for something that occurred
    reduction: float | None
    caution: str = ""


def gcn_of(graph: nir.NIRGraph, bodies_per_clip: float) -> Gcn | None:
    """The teacher of the preset that a file's student has, on the student's skeleton, classes and streams.

    bodies_per_clip: bodies per clip, mean; the GCN takes each body by itself, as the student does. The teacher is built without
    values (torch's meta device): only its shape counts. None where the file has no student, names no preset, or has a student
    that departs in a size that the preset fixes (frames, widths, …): a GCN of another size would prove nothing. Other
    departures are named in `preset`, such as "paper with attention=none".
    """
    student = student_config(graph)
    preset = (json_of(graph, "training") or {}).get("preset")
    if student is None or preset not in PRESETS:
        return None
    named = {"graph": student.graph, "classes": student.classes}
    usual = StudentConfig(**{**PRESETS[preset]["student"], **named}).to_dict()
    departs = {key: value for key, value in student.to_dict().items() if value != usual[key]}
    if departs.keys() & PRESETS[preset]["student"].keys():
        return None
    config = TeacherConfig(**{**PRESETS[preset]["teacher"], **named, "streams": student.streams})
    with torch.device("meta"):
        rows = teacher_layers(Teacher(config))
    variant = json_of(graph, "variant") or {}  # of a sweep
    if variant.get("threshold", 1.0) != 1.0:
        departs["threshold"] = f"{variant['threshold']:g} times"
    changes = ", ".join(f"{key}={_text(value)}" for key, value in departs.items())
    return Gcn(
        preset=f"{preset} with {changes}" if changes else preset,
        streams=list(config.streams),
        layers=LAYERS,
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows) * bodies_per_clip,
    )


def network_name(gcn: Gcn | None) -> str:
    """The preset of a run's network with what departs from it, or "custom": what claims.evaluate asks for."""
    return "custom" if gcn is None else gcn.preset


def comparison(record: Record, models: Sequence[EnergyModel] | None = None) -> list[GcnRow]:
    """The rows of ROWS for a run; none where the record has no GCN. `models`: where to find the prices; None: the known ones."""
    if record.gcn is None or not record.gcn.macs:
        return []
    models = known_models() if models is None else models
    rows = []
    for precision, gcn_model, student_model, reading in ROWS:
        mac = model_named(gcn_model, models).prices_pJ.mac
        assert mac is not None, f"{gcn_model} has no price of a MAC"  # a test holds ROWS to it
        gcn_mJ = record.gcn.macs * mac * PJ_IN_MJ
        entry = price(model_named(student_model, models), record.totals, steps=record.execution.steps)
        reduction = None if entry.total_mJ is None else 1 - entry.total_mJ / gcn_mJ
        if entry.total_mJ is None or entry.total_every_step_mJ is None:
            without = ", ".join(event.replace("_", " ") for event in entry.unpriced)
            most = percent(1 - entry.priced_mJ / gcn_mJ)
            caution = f"no price for {without}: at least {significant(entry.priced_mJ)} mJ, at most {most} less"
        else:
            every = percent(1 - entry.total_every_step_mJ / gcn_mJ)
            once = percent(1 - entry.total_mJ / gcn_mJ)
            caution = "" if every == once else f"{every} with the first layer charged at every step"
        rows.append(GcnRow(precision, gcn_model, student_model, reading, gcn_mJ, entry.priced_mJ, reduction, caution))
    return rows


def _text(value: object) -> str:
    """A config's value as `--set` takes it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
