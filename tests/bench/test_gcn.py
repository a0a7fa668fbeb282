"""mksgn/bench/gcn: the teacher's MACs by torch's own counter, and what the comparison states and leaves out."""

import itertools
import json
from pathlib import Path
from typing import Any

import nir
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mksgn.bench.energy_models import known_models, price
from mksgn.bench.gcn import CAVEATS, ROWS, comparison, gcn_of, network_name
from mksgn.bench.record import Gcn, Record
from mksgn.export import export_to_nir
from mksgn.export.graph import files
from mksgn.train.checkpoint import TrainedModel
from mksgn.train.config import PRESETS
from mksgn.train.skeletons import graph as skeleton
from mksgn.train.streams import STREAMS, StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from tests.support.records import changed, small_run
from tests.support.tiers import one_in

CLASSES = ("sit", "walk", "throw")


def graph_of(preset: str, *, joints: str = "nw-ucla-20", size: str | None = None, **changes: Any) -> nir.NIRGraph:
    """A file's metadata, without its nodes: what gcn_of reads."""
    values = {**PRESETS[size or preset]["student"], "graph": joints, "classes": CLASSES, **changes}
    student = StudentConfig(**values).to_dict()
    metadata = {"student": json.dumps(student), "training": json.dumps({"preset": preset, "seed": 0})}
    return nir.NIRGraph({}, [], metadata=metadata, type_check=False)


def counted(preset: str, joints: str, streams: tuple[str, ...] = STREAMS) -> tuple[float, int]:
    """MACs of one body and parameters, by torch's own counter on the network that training would build."""
    values = {**PRESETS[preset]["teacher"], "graph": joints, "classes": CLASSES, "streams": streams}
    config = TeacherConfig(**values)
    with torch.device("meta"):
        teacher = Teacher(config)
        x = torch.empty(1, 3 * len(streams), config.frames, skeleton(joints).size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            teacher.to("meta").eval()(x)
    return counter.get_total_flops() / 2, sum(p.numel() for p in teacher.parameters())


@pytest.mark.parametrize(("preset", "joints"), one_in(6, list(itertools.product(PRESETS, ("ntu-25", "nw-ucla-20")))))
def test_macs_are_those_that_torch_counts(preset, joints):
    gcn = gcn_of(graph_of(preset, joints=joints), 1.5)
    assert gcn is not None
    macs, parameters = counted(preset, joints)
    assert (gcn.macs, gcn.parameters) == (1.5 * macs, parameters)
    assert (gcn.preset, gcn.streams, gcn.layers) == (preset, list(STREAMS), 10)


def test_the_paper_s_gcn_is_one_of_over_seven_billion_macs():
    """35 mJ at 4.6 pJ are 7.6 G MACs; our teacher of the paper's preset, on NTU's 25 joints, needs 7.4 G per body."""
    gcn = gcn_of(graph_of("paper", joints="ntu-25"), 1)
    assert gcn is not None
    assert gcn.macs * 4.6e-9 == pytest.approx(33.9, abs=0.05)
    assert gcn.macs * 0.23e-9 == pytest.approx(1.69, abs=0.005)


def test_the_gcn_sees_the_streams_that_the_student_sees():
    gcn = gcn_of(graph_of("demo", streams=("joint", "bone")), 1)
    assert gcn is not None
    assert gcn.streams == ["joint", "bone"]
    assert gcn.macs == counted("demo", "nw-ucla-20", ("joint", "bone"))[0]


def test_a_student_that_departs_is_named_and_one_of_another_size_has_no_gcn():
    named = gcn_of(graph_of("demo", attention="none"), 1)
    assert network_name(named) == "demo with attention=none"
    assert network_name(gcn_of(graph_of("demo", streams=("joint", "bone")), 1)) == "demo with streams=[joint,bone]"
    assert gcn_of(graph_of("paper", frames=16), 1) is None  # a quarter of the clip against a GCN on all of it
    assert gcn_of(graph_of("paper", size="demo"), 1) is None
    assert network_name(None) == "custom"


def test_a_file_that_tells_no_preset_has_no_gcn():
    assert gcn_of(graph_of("custom", size="demo"), 1) is None
    foreign = graph_of("demo")
    del foreign.metadata["student"]
    assert gcn_of(foreign, 1) is None
    untold = graph_of("demo")
    del untold.metadata["training"]
    assert gcn_of(untold, 1) is None


@pytest.mark.slow
def test_a_file_as_export_writes_it_tells_its_gcn(tmp_path: Path):
    student = Student(StudentConfig(graph="nw-ucla-20", classes=CLASSES, **PRESETS["demo"]["student"])).eval()
    units = StreamNormaliser("nw-ucla-20", student.config.frames, dict.fromkeys(STREAMS, 0.01))
    for profile in ("structured", "portable"):
        if profile == "portable":
            student = Student(StudentConfig(**{**student.config.to_dict(), "attention": "none"})).eval()
        made = export_to_nir(TrainedModel(student, units, {"preset": "demo", "split": "xview"}), profile=profile)
        files.write(made, tmp_path / f"{profile}.nir")
        gcn = gcn_of(files.read(tmp_path / f"{profile}.nir"), 1)
        assert gcn is not None
        assert gcn.macs == counted("demo", "nw-ucla-20")[0]


def record_of(**totals: float) -> Record:
    """Per clip: a GCN of 2 M MACs; a student of 10,000 MACs on the host and 3,000 synaptic operations."""
    run = small_run()
    run["totals"] |= totals
    return Record.model_validate(run)


def test_the_rows_are_the_paper_s_comparison_and_its_fair_other_side():
    rows = comparison(record_of())
    assert [(row.precision, row.model, row.student_model) for row in rows] == [
        ("FP32", "horowitz45-fp32", "horowitz45-fp32"),
        ("FP16", "horowitz45-fp16", "horowitz45-fp16"),
        ("INT8", "horowitz45-int8", "horowitz45-int8"),
        ("INT8", "horowitz45-int8", "horowitz45-fp32"),
        ("INT8", "horowitz45-int8", "horowitz45-int32add"),
    ]
    fp32, fp16, int8, mixed, adds = rows
    assert [row.gcn_mJ for row in rows] == pytest.approx([9.2e-3, 3e-3, 0.46e-3, 0.46e-3, 0.46e-3])
    assert fp32.student_mJ == pytest.approx(4.6e-9 * 10_000 + 0.9e-9 * 3_000)
    assert fp16.student_mJ == pytest.approx(1.5e-9 * 10_000 + 0.4e-9 * 3_000)
    assert int8.student_mJ == pytest.approx(0.23e-9 * 10_000 + 0.03e-9 * 3_000)
    for row in (fp32, fp16, int8, mixed):
        assert row.reduction == pytest.approx(1 - row.student_mJ / row.gcn_mJ)
        assert "with the first layer charged at every step" in row.caution
    assert mixed.reduction < int8.reduction < 1
    assert (adds.reduction, adds.student_mJ) == (None, pytest.approx(0.1e-9 * 3_000))
    assert adds.caution.startswith("no full price for host macs: at least 3.00")
    assert "at most 99.9 % less" in adds.caution


def test_the_paper_s_own_figures_turn_with_the_prices():
    """0.662 G operations, 7.6 G MACs: 98.3 % less in FP32, 98.9 % in INT8, 66 % than an INT8 GCN at the paper's prices."""
    run = changed("totals", {**small_run()["totals"], "syn_ops": 0.662e9, "host_macs": 0, "host_macs_every_step": 0})
    run["totals"]["Effective_MACs"] = 0
    run["gcn"]["macs"] = 35e9 / 4.6
    fp32, _, int8, mixed, adds = comparison(Record.model_validate(run))
    assert fp32.reduction == pytest.approx(0.983, abs=5e-4)
    assert int8.reduction == pytest.approx(0.989, abs=5e-4)
    assert mixed.reduction == pytest.approx(0.66, abs=5e-3)
    assert adds.reduction == pytest.approx(0.962, abs=5e-4)
    assert fp32.caution == ""


def test_a_student_that_costs_more_than_the_gcn_is_said_to():
    row = comparison(record_of(syn_ops=1e9))[0]
    assert row.reduction is not None
    assert row.reduction < -90


def test_the_student_s_figures_are_those_of_the_record():
    record = record_of()
    by_name = {model.name: price(model, record.totals, steps=4) for model in known_models()}
    for row in comparison(record):
        assert row.student_mJ == by_name[row.student_model].priced_mJ
        assert (row.reduction is None) == (by_name[row.student_model].total_mJ is None)


def test_without_a_gcn_nothing_is_compared():
    assert comparison(Record.model_validate(changed("gcn", None))) == []
    assert comparison(Record.model_validate(changed("gcn.macs", 0.0))) == []


def test_the_prices_of_the_rows_exist_and_the_caveats_name_what_is_not_there():
    models = {model.name: model.prices_pJ for model in known_models()}
    assert all(models[gcn].mac and models[student].synaptic_op for _, gcn, student, _ in ROWS)
    text = " ".join(CAVEATS)
    for word in (
        "accuracy is not in this record",
        "memory, routing, leakage",
        "updates of its neurons",
        "zero after ReLU",
    ):
        assert word in text
    assert Gcn.model_fields["macs"].is_required()
