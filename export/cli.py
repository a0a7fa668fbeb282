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

from mksgn.export import export_to_nir, files, lava_dl_file, onnx_file, show
from mksgn.export.errors import ExportError
from mksgn.export.metadata import json_of
from mksgn.export.parity import Parity
from mksgn.export.simulators import REMEDY
from mksgn.export.torch_model import FoldedStudent
from mksgn.export.verify import torch_spikes, verify
from mksgn.train import checkpoint
from mksgn.train.checkpoint import TrainedModel, TrainedTeacher
from mksgn.train.console import new_app, output, run_app
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.student import body_mean
from mksgn.train.transforms import lanes

app = new_app("Write a trained student as a file that outlives its framework.")

CALIBRATION_CLIPS = 24
LARGEST_LOGIT_CHANGE = 1e-4  # of the teacher's largest logit, between torch and onnxruntime


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="model.pt or teacher.pt of mksgn-train, or a network.net of lava-dl")],
    to: Annotated[str, typer.Option(help="format: nir or onnx")] = "nir",
    out: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: beside the model")] = None,
    profile: Annotated[str, typer.Option(help="structured, or portable: stock primitives of NIR only")] = "structured",
    quantize: Annotated[str, typer.Option(help="bits per weight: none, or 2 to 8")] = "8",
    calibration: Annotated[str | None, typer.Option(help="SOURCE of calibration clips; default: none")] = None,
    split: Annotated[str | None, typer.Option(help="split of calibration and verification clips")] = None,
    dt: Annotated[float, typer.Option(help="time step in seconds")] = 1e-4,
    verify_clips: Annotated[
        int, typer.Option("--verify", help="compare torch with the file's reference execution on N clips", min=0)
    ] = 0,
    against: Annotated[str, typer.Option(help=f"with --verify, compare these simulators too: {','.join(REMEDY)}")] = "",
) -> None:
    """Fold, quantise, write and verify.

    Calibration clips come from the training part of SOURCE; --verify takes clips of its test part, and leaves parity.json.

    Example: mksgn-export runs/demo/model.pt --to nir --quantize 8 --calibration synthetic --verify 10
    """
    if to not in ("nir", "onnx"):
        raise ExportError(f"--to {to}: this format is not there; use nir or onnx")
    if quantize != "none" and not (quantize.isdigit() and 2 <= int(quantize) <= 8):
        raise ExportError(f"--quantize {quantize}: expected none or a number of bits from 2 to 8")
    if not dt > 0:
        raise ExportError(f"--dt {dt}: the time step must be positive, in seconds; 1e-4 is what other readers assume")
    simulators = tuple(dict.fromkeys(name for name in against.split(",") if name))
    if simulators and not verify_clips:
        raise ExportError("--against compares on clips; say on how many, e.g. --verify 10")
    path = out or model.with_suffix(f".{to}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if model.is_file() and h5py.is_hdf5(model):
        if to != "nir" or verify_clips:
            raise ExportError(f"{model}: a lava-dl network can be written with --to nir, and not be verified on clips")
        _write_nir(lava_dl_file.read(model, dt=dt), path)
        return
    if checkpoint.is_teacher(model):
        teacher = checkpoint.load_teacher(model)
        clips = _clips(calibration, split, teacher, "test", verify_clips) if verify_clips else None
        _export_teacher(teacher, checkpoint.sha256(model), to, path, clips)
        return
    trained = checkpoint.load(model)
    bits = None if quantize == "none" else int(quantize)
    samples = None
    if bits is not None:
        samples, _ = lanes(_clips(calibration, split, trained, "train", CALIBRATION_CLIPS).clips, trained.normaliser)
    graph = export_to_nir(model, dt=dt, profile=profile, quantize=bits, calibration=samples)
    if to == "onnx":
        _write_onnx(onnx_file.from_nir(graph, steps=trained.student.config.steps, dt=dt), path)
        simulators = tuple(dict.fromkeys((*simulators, "onnxruntime"))) if bits is not None else simulators
    else:
        _write_nir(graph, path)
        graph = files.read(path)
    quantization = json_of(graph, "quantization")
    if quantization:
        show.scales(quantization)
    if verify_clips:
        _verify(path, graph, trained, _clips(calibration, split, trained, "test", verify_clips), simulators)


def _clips(
    source: str | None, split: str | None, trained: TrainedModel | TrainedTeacher, part: str, limit: int
) -> ClipSet:
    if source is None:
        raise ExportError("--quantize and --verify need clips; name them, e.g. --calibration synthetic")
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
    path: Path, graph: nir.NIRGraph, trained: TrainedModel, clips: ClipSet, simulators: tuple[str, ...]
) -> None:
    """Torch and each simulator, compared with the file's reference execution; parity.json beside the file; ParityError if any differs."""
    inputs, clip_of_lane = lanes(clips.clips, trained.normaliser)
    parities = verify(graph, trained.student, inputs, against=simulators)
    _write_parity(path, parities, clip_of_lane, clips)
    spikes, logits = torch_spikes(FoldedStudent(graph), inputs)
    show.parities(parities, {name: float(s.mean()) for name, s in spikes.items()}, len(clips))

    def predictions(logits: np.ndarray) -> np.ndarray:
        return body_mean(torch.from_numpy(logits), torch.from_numpy(clip_of_lane), len(clips.labels)).argmax(1).numpy()

    _, unquantised = torch_spikes(trained.student, inputs)
    show.accuracies(
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


def _write_parity(path: Path, parities: list[Parity], clip_of_lane: np.ndarray, clips: ClipSet) -> None:
    compared = [parity.to_dict(clip_of_lane) for parity in parities]
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


def _export_teacher(teacher: TrainedTeacher, parent: str, to: str, path: Path, clips: ClipSet | None) -> None:
    if to != "onnx":
        raise ExportError(
            "a teacher is an ordinary network without spikes, which NIR does not hold; write it with --to onnx"
        )
    _write_onnx(onnx_file.from_teacher(teacher, parent=parent), path)
    if clips is None:
        return
    inputs, _ = lanes(clips.clips, teacher.normaliser)
    with torch.no_grad():
        wanted = teacher.teacher(torch.from_numpy(inputs)).numpy()
    found = onnx_file.execute(path, inputs)[1]["logits"]
    change = np.abs(wanted - found).max() / np.abs(wanted).max()
    output.print(
        f"onnxruntime against torch, {len(inputs)} bodies: largest change of a logit {change:.1e} of the largest; same prediction on "
        f"{int((wanted.argmax(1) == found.argmax(1)).sum())}"
    )
    if change > LARGEST_LOGIT_CHANGE:
        raise ExportError(f"{path}: logits differ by {change:.1e}, more than {LARGEST_LOGIT_CHANGE}, from torch's")


def main() -> None:
    run_app(app, "mksgn-export")


if __name__ == "__main__":
    main()
