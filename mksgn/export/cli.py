"""mksgn-export: model.pt → model.nir or model.onnx, quantised once, verified spike by spike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import h5py
import nir
import numpy as np
import torch
import typer

from mksgn.common.console import new_app, output, run_app
from mksgn.export import tables
from mksgn.export.errors import ExportError
from mksgn.export.graph import files
from mksgn.export.graph.metadata import json_of
from mksgn.export.lava_dl import file as lava_dl_file
from mksgn.export.onnx import file as onnx_file
from mksgn.export.to_nir import check_options, export_to_nir
from mksgn.export.verification import simulators
from mksgn.export.verification.folded_student import FoldedStudent
from mksgn.export.verification.parity import Parity
from mksgn.export.verification.simulators import REMEDY
from mksgn.export.verification.verify import teacher_change, torch_spikes, verify
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedModel, TrainedTeacher
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.student import body_mean
from mksgn.train.transforms import body_inputs

app = new_app("Write a trained student as a file that outlives its framework.")

CALIBRATION_CLIPS = 24
NEEDS_CLIPS = "--quantize and --verify need clips; name them, e.g. --calibration synthetic"


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="model.pt or teacher.pt of mksgn-train, or a network.net of lava-dl")],
    to: Annotated[str, typer.Option(help="format: nir or onnx")] = "nir",
    out: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: beside the model")] = None,
    profile: Annotated[
        str | None, typer.Option(help="structured (default), or portable: stock primitives of NIR only")
    ] = None,
    quantize: Annotated[str | None, typer.Option(help="bits per weight: none, or 2 to 8 (default 8)")] = None,
    calibration: Annotated[str | None, typer.Option(help="SOURCE of calibration clips; default: none")] = None,
    split: Annotated[str | None, typer.Option(help="split of calibration and verification clips")] = None,
    dt: Annotated[float, typer.Option(help="time step in seconds")] = 1e-4,
    verify_clips: Annotated[int, typer.Option("--verify", help="compare executions of the file on N clips", min=0)] = 0,
    against: Annotated[str, typer.Option(help=f"with --verify, these too, where installed: {','.join(REMEDY)}")] = "",
) -> None:
    """Fold, quantise, write and verify.

    Calibration clips come from the training part of SOURCE. --verify takes clips of its test part, compares torch (and, of an ONNX
    file, onnxruntime) with the reference execution of the NIR graph, and leaves parity.json; a teacher's logits are compared with
    torch's. Exit code 3 if they differ.

    Example: mksgn-export runs/demo/model.pt --to nir --quantize 8 --calibration synthetic --verify 10
    """
    if to not in ("nir", "onnx"):
        raise ExportError(f"--to {to}: this format is not there; use nir or onnx")
    if quantize not in (None, "none", *"2345678"):
        raise ExportError(f"--quantize {quantize}: expected none or a number of bits from 2 to 8")
    check_options(profile or "structured", dt)
    named = tuple(dict.fromkeys(name.strip() for name in against.split(",") if name.strip()))
    if named and not verify_clips:
        raise ExportError("--against compares on clips; say on how many, e.g. --verify 10")
    simulators.check(named)
    if not model.is_file():
        raise ExportError(f"{model}: no such file; make one with mksgn-train --out DIR")
    path = out or model.with_suffix(f".{to}")
    if path.resolve() == model.resolve():
        raise ExportError(f"{path}: would be written over the model itself; name another file with -o")
    trained = None if h5py.is_hdf5(model) else checkpoint.load_either(model)
    if not isinstance(trained, TrainedModel) and (profile or quantize or named):
        kind = "lava-dl network" if trained is None else "teacher"
        raise ExportError(f"{model}: --profile, --quantize and --against are for students, this is a {kind}")
    if trained is None:
        if to != "nir" or verify_clips:
            raise ExportError(f"{model}: a lava-dl network can be written with --to nir, and not be verified on clips")
        _write_nir(lava_dl_file.read(model, dt=dt), path)
    elif isinstance(trained, TrainedTeacher):
        if to != "onnx":
            raise ExportError(
                f"{model}: a teacher is an ordinary network without spikes, which NIR does not hold; write it with --to onnx"
            )
        if verify_clips and calibration is None:
            raise ExportError(NEEDS_CLIPS)
        _export_teacher(trained, path, calibration, split, verify_clips)
    else:
        bits = None if quantize == "none" else int(quantize or 8)
        if calibration is None and (bits is not None or verify_clips):
            raise ExportError(NEEDS_CLIPS)
        _export_student(trained, path, to, profile or "structured", bits, calibration, split, dt, verify_clips, named)


def _export_student(
    trained: TrainedModel,
    path: Path,
    to: str,
    profile: str,
    bits: int | None,
    calibration: str | None,
    split: str | None,
    dt: float,
    verify_clips: int,
    against: tuple[str, ...],
) -> None:
    samples = None
    if bits is not None:
        samples, _ = body_inputs(
            _clips(calibration, split, trained, "train", CALIBRATION_CLIPS).clips, trained.normaliser
        )
    graph = export_to_nir(trained, dt=dt, profile=profile, quantize=bits, calibration=samples)
    if to == "onnx":
        _write_onnx(onnx_file.from_nir(graph, steps=trained.student.config.steps, dt=dt), path)
        against = tuple(dict.fromkeys((*against, "onnxruntime")))
    else:
        _write_nir(graph, path)
        graph = files.read(path)
    quantization = json_of(graph, "quantization")
    if quantization:
        tables.scales(quantization)
    if verify_clips:
        clips = _clips(calibration, split, trained, "test", verify_clips)
        _verify(path, graph, trained, clips, against, onnx=path if to == "onnx" else None)


def _export_teacher(
    teacher: TrainedTeacher, path: Path, source: str | None, split: str | None, verify_clips: int
) -> None:
    _write_onnx(onnx_file.from_teacher(teacher), path)
    if verify_clips:
        clips = _clips(source, split, teacher, "test", verify_clips)
        inputs, _ = body_inputs(clips.clips, teacher.normaliser)
        change, same = teacher_change(teacher, path, inputs)
        output.print(
            f"onnxruntime against torch, {len(inputs)} bodies: logits differ by at most {change:.1e} of the largest; "
            f"same prediction on {same}"
        )


def _clips(
    source: str | None, split: str | None, trained: TrainedModel | TrainedTeacher, part: str, limit: int
) -> ClipSet:
    assert source is not None  # checked before anything is written
    return open_source(source, split=split or trained.training.get("split"), part=part, limit=limit)


def _write_nir(graph: nir.NIRGraph, path: Path) -> None:
    files.write(graph, path)
    _say_written(path)


def _write_onnx(model, path: Path) -> None:
    onnx_file.write(model, path)
    _say_written(path)


def _say_written(path: Path) -> None:
    output.print(f"wrote {path}  {path.stat().st_size / 1e6:.2f} MB  sha256 {checkpoint.sha256(path)[:16]}…")


def _verify(
    path: Path,
    graph: nir.NIRGraph,
    trained: TrainedModel,
    clips: ClipSet,
    against: tuple[str, ...] = (),
    onnx: Path | None = None,
) -> None:
    """Torch and each simulator, compared with the file's reference execution; parity.json beside the file; ParityError if any differs."""
    inputs, clip_of_body = body_inputs(clips.clips, trained.normaliser)
    parities = verify(graph, trained.student, inputs, against=against, onnx=onnx)
    _write_parity(path, parities, clip_of_body, clips)
    spikes, logits = torch_spikes(FoldedStudent(graph), inputs)
    tables.parities(parities, {name: float(s.mean()) for name, s in spikes.items()}, len(clips))

    def predictions(logits: np.ndarray) -> np.ndarray:
        return body_mean(torch.from_numpy(logits), torch.from_numpy(clip_of_body), len(clips.labels)).argmax(1).numpy()

    _, unquantised = torch_spikes(trained.student, inputs)
    tables.accuracies(
        clips.labels,
        {"torch, unquantised": predictions(unquantised), "torch, the file's weights": predictions(logits)},
    )
    z_rates = [s.mean() for name, s in spikes.items() if name.endswith("_attention.z")]
    if z_rates:
        _, without = torch_spikes(FoldedStudent(graph, silence_attention=True), inputs)
        change = np.abs(without - logits).max()
        output.print(
            f"attention: z fires at {min(z_rates):.1%} to {max(z_rates):.1%}; forcing z to 0 moves the logits by up to {change:.2f}"
        )
    silent = [name for name, s in spikes.items() if not s.any()]
    if silent:
        output.print(f"never fired on these clips: {', '.join(silent)}")
    for parity in parities:
        parity.check(path)


def _write_parity(path: Path, parities: list[Parity], clip_of_body: np.ndarray, clips: ClipSet) -> None:
    compared = [parity.to_dict(clip_of_body) for parity in parities]
    summary = {
        "schema": "mksgn.parity/1",
        "file": path.name,
        "sha256": checkpoint.sha256(path),
        "data": {"source": clips.source, "split": clips.split, "clips": len(clips)},
        "against": ", ".join(parity.against for parity in parities),
        "decisions": sum(parity.decisions for parity in parities),
        "mismatches": sum(parity.mismatches for parity in parities),
        "first": next((c["first"] for c in compared if c["first"] is not None), None),
        "comparisons": compared,
    }
    (path.parent / "parity.json").write_text(json.dumps(summary, indent=2) + "\n")


def main() -> None:
    run_app(app, "mksgn-export")


if __name__ == "__main__":
    main()
