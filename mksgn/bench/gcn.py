"""The GCN to which a student's energy is compared: the paper's own comparison, and fairer ones.

The paper compares its spiking network with a multimodal GCN of more than 35 mJ per sample [paper]:
7.6 G MACs at the 4.6 pJ of an FP32 MAC. Its own 0.596 mJ [review] is FP32 accumulations at 0.9 pJ.
Both are prices of floating-point arithmetic in 45 nm, but neither network would be deployed in
floating point. In INT8 the same GCN costs 1.75 mJ. So the rows below compare the teacher, a
four-stream GCN of ten layers, with the student at equal precision, and an INT8 GCN with the student
as the paper prices it.

The GCN's MACs are those of the dense computation; the student's synaptic operations are those that
its spikes caused. The difference is the saving. A comparison of energies does not show the accuracy of
the networks, nor the cost of anything but arithmetic (CAVEATS).
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
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

# the GCN's precision and energy model, the student's energy model, and the reading of the row
ROWS: tuple[tuple[Precision, str, str, str], ...] = (
    ("FP32", "horowitz45-fp32", "horowitz45-fp32", "the paper's comparison: both in FP32"),
    ("FP16", "horowitz45-fp16", "horowitz45-fp16", "both in FP16"),
    ("INT8", "horowitz45-int8", "horowitz45-int8", "the fair side: both in INT8"),
    ("INT8", "horowitz45-int8", "horowitz45-fp32", "an INT8 GCN against the student as the paper prices it"),
    ("INT8", "horowitz45-int8", "horowitz45-int32add", "an INT8 GCN against the student's sums in INT32"),
)
CAVEATS = (
    "The GCN is our teacher of the same preset, untrained and not run: its accuracy is not in this record, at any "
    "precision. A reduction of the energy says nothing about its cost in accuracy.",
    "The GCN's multiply-accumulates are those of the dense computation. Many of its activations are zero after ReLU "
    "too; hardware that skips zeros would spend less, which is not counted here.",
    "Arithmetic only, on both sides: memory, routing, leakage and, for the student, the updates of its neurons are "
    "left out. They are not small.",
    "The student ran at the precision of its file; pricing its events in FP32, FP16 or INT8 does not run it again.",
)


@dataclass(frozen=True)
class GcnRow:
    """One comparison, in mJ per clip over the same bodies.

    `precision` and `model` price the GCN's MACs, `student_model` the student's events. `student_mJ`
    is a lower bound if an event that occurred has no price; there is then no `reduction`, which is
    1 - student / GCN.
    """

    precision: Precision
    model: str
    student_model: str
    reading: str
    gcn_mJ: float
    student_mJ: float
    reduction: float | None
    caution: str = ""


def gcn_of(graph: nir.NIRGraph, bodies_per_clip: float) -> Gcn | None:
    """Count the MACs of the teacher with the preset, skeleton, classes and streams of a file's student.

    The teacher is built on torch's meta device, since only its shapes matter.

    Args:
        graph: The NIR file.
        bodies_per_clip: Mean number of bodies per clip. The GCN takes each body by itself, as the
            student does.

    Returns:
        The GCN; None if the file has no student, names no preset, or if the student differs from
        the preset in a size that it fixes (frames, widths, …): a GCN of another size would not be
        comparable. `preset` names other differences, as in "paper with attention=none".
    """
    student = student_config(graph)
    preset = (json_of(graph, "training") or {}).get("preset")
    if student is None or preset not in PRESETS:
        return None
    named = {"graph": student.graph, "classes": student.classes}
    preset_student = StudentConfig(**{**PRESETS[preset]["student"], **named}).to_dict()
    departures = {key: value for key, value in student.to_dict().items() if value != preset_student[key]}
    if departures.keys() & PRESETS[preset]["student"].keys():
        return None
    config = TeacherConfig(**{**PRESETS[preset]["teacher"], **named, "streams": student.streams})
    with torch.device("meta"):
        rows = teacher_layers(Teacher(config))
    variant = json_of(graph, "variant") or {}  # written by a sweep
    if variant.get("threshold", 1.0) != 1.0:
        departures["threshold"] = f"{variant['threshold']:g} times"
    changes = ", ".join(f"{key}={_text(value)}" for key, value in departures.items())
    return Gcn(
        preset=f"{preset} with {changes}" if changes else preset,
        streams=list(config.streams),
        layers=LAYERS,
        parameters=sum(row.parameters for row in rows),
        macs=sum(row.macs for row in rows) * bodies_per_clip,
    )


def network_name(gcn: Gcn | None) -> str:
    """Name a run's network for its verdicts: the preset with any departures from it, or "custom"."""
    return "custom" if gcn is None else gcn.preset


def comparison(record: Record, models: Sequence[EnergyModel] | None = None) -> list[GcnRow]:
    """Compare a run with its GCN.

    Args:
        record: The run.
        models: Energy models with the prices; None: the known ones.

    Returns:
        A row for each of ROWS; none if the record has no GCN.
    """
    if record.gcn is None or not record.gcn.macs:
        return []
    models = known_models() if models is None else models
    rows = []
    for precision, gcn_model, student_model, reading in ROWS:
        mac = model_named(gcn_model, models).prices_pJ.mac
        assert mac is not None, f"{gcn_model} has no price of a MAC"  # ROWS is tested
        gcn_mJ = record.gcn.macs * mac * PJ_IN_MJ
        entry = price(model_named(student_model, models), record.totals, steps=record.execution.steps)
        reduction = None if entry.total_mJ is None else 1 - entry.total_mJ / gcn_mJ
        if entry.total_mJ is None or entry.total_every_step_mJ is None:
            unpriced = ", ".join(event.replace("_", " ") for event in entry.incomplete)
            at_most = percent(1 - entry.priced_mJ / gcn_mJ)
            caution = (
                f"no full price for {unpriced}: at least {significant(entry.priced_mJ)} mJ, at most {at_most} less"
            )
        else:
            every_step = percent(1 - entry.total_every_step_mJ / gcn_mJ)
            once = percent(1 - entry.total_mJ / gcn_mJ)
            caution = "" if every_step == once else f"{every_step} with the first layer charged at every step"
        rows.append(GcnRow(precision, gcn_model, student_model, reading, gcn_mJ, entry.priced_mJ, reduction, caution))
    return rows


def _text(value: object) -> str:
    """Format a value of the configuration as `--set` takes it."""
    return f"[{','.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)
