"""The implementation of mksgn-export, which mksgn/export/cli.py imports when the command runs."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch

from mksgn.common.console import output, wrote
from mksgn.common.hdf5 import is_hdf5
from mksgn.common.writing import write_text
from mksgn.export import tables, targets
from mksgn.export.choices import PROFILES
from mksgn.export.errors import ExportError
from mksgn.export.graph import files
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.metadata import json_of
from mksgn.export.lava_dl import file as lava_dl_file
from mksgn.export.onnx import file as onnx_file
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.export.quantization.samples import calibration_arrays
from mksgn.export.to_nir import check_options, export_to_nir
from mksgn.export.verification import simulators
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import Parity
from mksgn.export.verification.verify import teacher_change, torch_spikes, verify
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedModel, TrainedTeacher
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.layers import is_attention
from mksgn.train.student import body_mean
from mksgn.train.transforms import body_inputs

CALIBRATION_CLIPS = 24


@dataclass(frozen=True)
class Options:
    """The options of one export, named like the command's parameters."""

    model: Path
    to: str
    out: Path | None
    profile: str | None
    quantize: str | None
    weight_exponents: bool
    calibration: str | None
    split: str | None
    dt: float
    verify_clips: int
    against: str
    steps: int | None
    if_dt: float | None
    analog: list[str] | None
    reset: str
    v_init: str
    integration: str
    spike_delay: int
    overwrite: bool

    @property
    def path(self) -> Path:
        if self.out is None and self.to == "nir" and self.model.suffix == ".nir":
            return self.model.with_name(f"{self.model.stem}_quantized.nir")
        return self.out or self.model.with_suffix(f".{self.to}")

    def bits(self, trained: TrainedModel) -> int | None:
        """Return the width of the weights: by default the one that the model was trained for, or else 8."""
        default = 8 if trained.quantization is None else trained.quantization.bits
        return None if self.quantize == "none" else int(self.quantize or default)

    @property
    def simulators(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.strip() for name in self.against.split(",") if name.strip()))

    def require_student(self, kind: str) -> None:
        if self.profile or self.quantize or self.simulators:
            raise ExportError(f"{self.model}: --profile, --quantize and --against are for students, this is a {kind}")

    def require_clips(self, needed: bool) -> None:
        if needed and self.calibration is None:
            raise ExportError("--quantize and --verify need clips; name them, e.g. --calibration synthetic")

    def clips(self, trained: TrainedModel | TrainedTeacher, part: str, limit: int) -> ClipSet:
        assert self.calibration is not None  # checked before anything is written
        split = self.split or trained.training.get("split")
        return open_source(self.calibration, split=split, part=part, limit=limit)


def run(options: Options) -> None:
    """Check the options, and export MODEL according to its kind."""
    _check(options)
    if is_hdf5(options.model):
        _export_graph(options) if files.is_graph(options.model) else _export_lava_dl(options)
    elif isinstance(trained := checkpoint.load_either(options.model), TrainedTeacher):
        _export_teacher(options, trained)
    else:
        _export_student(options, trained)


def _check(options: Options) -> None:
    """Refuse options that no model could be exported with."""
    check_options(options.profile or PROFILES[0], options.dt)
    if options.simulators and not options.verify_clips:
        raise ExportError("--against compares executions on clips; give their number, e.g. --verify 10")
    simulators.check(options.simulators)
    if options.path.resolve() == options.model.resolve():
        raise ExportError(f"{options.path}: would overwrite the model itself; name another file with -o")
    targets.check(options.path, options.to, verifies=options.verify_clips > 0, overwrite=options.overwrite)


def _export_lava_dl(options: Options) -> None:
    options.require_student("lava-dl network")
    if options.to != "nir" or options.verify_clips:
        raise ExportError(
            f"{options.model}: a lava-dl network can only be written with --to nir, and cannot be verified on clips"
        )
    _write(files.write, lava_dl_file.read(options.model, dt=options.dt), options.path)


def _export_graph(options: Options) -> None:
    """Quantise a NIR file of any network, and write it."""
    if options.profile or options.verify_clips:
        raise ExportError(
            f"{options.model}: --profile and --verify are for students, this is a NIR file; compare its executions with "
            "mksgn-bench run"
        )
    graph, dt = files.read(options.model), options.dt
    if options.quantize != "none" and (options.quantize or options.to == "nir" or options.calibration):
        if options.calibration is None:
            raise ExportError(f"{options.model}: give samples that choose the scales, e.g. --calibration npz:FILE")
        if json_of(graph, "quantization") is not None:
            raise ExportError(f"{options.model}: is quantised already; give the file that it was made from")
        samples = calibration_arrays(graph, options.calibration, options.split)
        graph = quantize_any(
            graph,
            int(options.quantize or 8),
            samples,
            weight_exponents=options.weight_exponents,
            dt=dt,
            if_dt=options.if_dt,
            analog=options.analog or (),
            reset=options.reset,
            v_init=options.v_init,
            integration=options.integration,
            spike_delay=options.spike_delay,
            steps=options.steps,
        )
        graph.metadata["parent"] = checkpoint.sha256(options.model)
        tables.scales(json_of(graph, "quantization"))
    if options.to == "nir":
        _write(files.write, graph, options.path)
        return
    steps = options.steps or graph.metadata.get("steps")
    if steps is None:
        raise ExportError(f"{options.model}: the file does not say how many steps a sample has; give --steps")
    model = onnx_file.from_nir(flatten(graph), steps=int(steps), dt=float(graph.metadata.get("dt", dt)))
    _write(onnx_file.write, model, options.path)
    output.print("its inputs are constant over the steps: (samples, *shape)")


def _export_teacher(options: Options, teacher: TrainedTeacher) -> None:
    options.require_student("teacher")
    if options.to != "onnx":
        raise ExportError(
            f"{options.model}: a teacher is an ordinary network without spikes, which NIR cannot hold; "
            "write it with --to onnx"
        )
    options.require_clips(options.verify_clips > 0)
    _write(onnx_file.write, onnx_file.from_teacher(teacher), options.path)
    if options.verify_clips:
        inputs, _ = body_inputs(options.clips(teacher, "test", options.verify_clips).clips, teacher.normaliser)
        change, same = teacher_change(teacher, options.path, inputs)
        output.print(
            f"onnxruntime against torch, {len(inputs)} bodies: logits differ by at most {change:.1e} of the largest; "
            f"same prediction on {same}"
        )


def _export_student(options: Options, trained: TrainedModel) -> None:
    bits, dt = options.bits(trained), options.dt
    calibrated = bits is not None and trained.quantization is None
    options.require_clips(calibrated or options.verify_clips > 0)
    samples = None
    if calibrated:
        samples, _ = body_inputs(options.clips(trained, "train", CALIBRATION_CLIPS).clips, trained.normaliser)
    profile = options.profile or PROFILES[0]
    graph = export_to_nir(
        trained, dt=dt, profile=profile, quantize=bits, calibration=samples, weight_exponents=options.weight_exponents
    )
    if "product_units" in graph.metadata:
        units = graph.metadata["product_units"]
        output.print(f"attention in stock primitives: {units:,} product units, {len(graph.nodes)} nodes in all")
    if options.to == "onnx":
        _write(onnx_file.write, onnx_file.from_nir(graph, steps=trained.student.config.steps, dt=dt), options.path)
    else:
        _write(files.write, graph, options.path)
        graph = files.read(options.path)
    quantization = json_of(graph, "quantization")
    if quantization:
        tables.scales(quantization)
    if options.verify_clips:
        _verify(options, graph, trained)


def _write(write: Callable[[Any, Path], None], content: Any, path: Path) -> None:
    write(content, path)
    wrote(path, f"  {path.stat().st_size / 1e6:.2f} MB  sha256 {checkpoint.sha256(path)[:16]}…")


def _verify(options: Options, graph: nir.NIRGraph, trained: TrainedModel) -> None:
    """Compare executions with the reference, write parity.json, and print tables.

    Raises:
        ParityError: An execution differs by more than its rule allows.
    """
    clips = options.clips(trained, "test", options.verify_clips)
    inputs, clip_of_body = body_inputs(clips.clips, trained.normaliser)
    onnx = options.path if options.to == "onnx" else None
    against = tuple(dict.fromkeys((*options.simulators, "onnxruntime"))) if onnx else options.simulators
    parities = verify(graph, trained.student, inputs, against=against, onnx=onnx)
    _write_parity(options.path, parities, clip_of_body, clips)
    spikes, logits = torch_spikes(FoldedStudent(graph), inputs)
    tables.parities(parities, {name: float(s.mean()) for name, s in spikes.items()}, len(clips))

    def predictions(logits: np.ndarray) -> np.ndarray:
        return body_mean(torch.from_numpy(logits), torch.from_numpy(clip_of_body), len(clips.labels)).argmax(1).numpy()

    _, unquantised = torch_spikes(trained.student, inputs)
    tables.accuracies(
        clips.labels, {"torch, unquantised": predictions(unquantised), "torch, the file's weights": predictions(logits)}
    )
    z_rates = [s.mean() for name, s in spikes.items() if is_attention(name, "z")]
    if z_rates:
        _, without = torch_spikes(FoldedStudent(graph, silence_attention=True), inputs)
        change = np.abs(without - logits).max()
        output.print(
            f"attention: z fires at {min(z_rates):.1%} to {max(z_rates):.1%}; "
            f"forcing z to 0 moves the logits by up to {change:.2f}"
        )
    silent = [name for name, s in spikes.items() if not s.any()]
    if silent:
        output.print(f"never fired on these clips: {', '.join(silent)}")
    for parity in parities:
        parity.check(options.path)


def _write_parity(path: Path, parities: list[Parity], clip_of_body: np.ndarray, clips: ClipSet) -> None:
    comparisons = [parity.to_dict(clip_of_body) for parity in parities]
    summary = {
        "schema": "mksgn.parity/2",
        "file": path.name,
        "sha256": checkpoint.sha256(path),
        "data": {"source": clips.source, "split": clips.split, "clips": len(clips)},
        "against": ", ".join(parity.against for parity in parities),
        "decisions": sum(parity.decisions for parity in parities),
        "mismatches": sum(parity.mismatches for parity in parities),
        "first": next((c["first"] for c in comparisons if c["first"] is not None), None),
        "comparisons": comparisons,
    }
    write_text(path.with_name(targets.PARITY_FILE), json.dumps(summary, indent=2) + "\n")
