"""mksgn-export: model.pt → model.nir, quantised once, verified spike by spike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from mksgn.export import export_to_nir, files, verify
from mksgn.export.errors import ExportError, ParityError
from mksgn.export.lower import json_of
from mksgn.train import checkpoint
from mksgn.train.console import new_app, output, run_app
from mksgn.train.datasets import open_source
from mksgn.train.student import body_mean
from mksgn.train.transforms import lanes

app = new_app("Write a trained student as a file that outlives its framework.")

CALIBRATION_CLIPS = 24


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="model.pt of mksgn-train")],
    to: Annotated[str, typer.Option(help="format: nir")] = "nir",
    out: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: beside the model")] = None,
    profile: Annotated[str, typer.Option(help="structured")] = "structured",
    quantize: Annotated[str, typer.Option(help="bits per weight: none, or 2 to 8")] = "8",
    calibration: Annotated[str | None, typer.Option(help="SOURCE of calibration clips; default: none")] = None,
    split: Annotated[str | None, typer.Option(help="split of calibration and verification clips")] = None,
    dt: Annotated[float, typer.Option(help="time step in seconds")] = 1e-4,
    verify_clips: Annotated[
        int, typer.Option("--verify", help="compare torch and the file's reference execution on N clips", min=0)
    ] = 0,
) -> None:
    """Fold, quantise, write and verify.

    Calibration clips come from the training part of SOURCE; --verify takes clips of its test part.

    Example: mksgn-export runs/demo/model.pt --to nir --quantize 8 --calibration synthetic --verify 10
    """
    if to != "nir":
        raise ExportError(f"--to {to}: this format is not there; use nir")
    if quantize != "none" and not (quantize.isdigit() and 2 <= int(quantize) <= 8):
        raise ExportError(f"--quantize {quantize}: expected none or a number of bits from 2 to 8")
    if not dt > 0:
        raise ExportError(f"--dt {dt}: the time step must be positive, in seconds; 1e-4 is what other readers assume")
    if calibration is None and (quantize != "none" or verify_clips):
        raise ExportError("--quantize and --verify need clips; name them, e.g. --calibration synthetic")
    trained = checkpoint.load(model)
    split = split if split is not None else trained.training.get("split")
    bits = None if quantize == "none" else int(quantize)
    samples = None
    if bits is not None:
        assert calibration is not None
        clips = open_source(calibration, split=split, part="train", limit=CALIBRATION_CLIPS).clips
        samples, _ = lanes(clips, trained.normaliser)
    graph = export_to_nir(trained, dt=dt, profile=profile, quantize=bits, calibration=samples)
    graph.metadata["parent"] = checkpoint.sha256(model)
    graph.metadata["classes"] = json.dumps(list(trained.student.config.classes))
    graph.metadata["training"] = json.dumps({k: v for k, v in trained.training.items() if k != "source"})
    graph.metadata["versions"] = json.dumps(checkpoint.tool_versions("mksgn", "nir", "torch", "numpy", "h5py"))
    path = out or model.with_suffix(".nir")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(graph, path)
    output.print(f"wrote {path}  {path.stat().st_size / 1e6:.2f} MB  sha256 {checkpoint.sha256(path)[:16]}…")
    quantization = json_of(graph, "quantization")
    if quantization:
        _print_scales(quantization)
    if verify_clips:
        assert calibration is not None
        held_out = open_source(calibration, split=split, part="test", limit=verify_clips)
        _verify(path, trained, held_out.labels, *lanes(held_out.clips, trained.normaliser), quantised=bits is not None)


def _print_scales(quantization: dict) -> None:
    table = Table(title=f"{quantization['bits']}-bit weights", title_justify="left")
    for heading in ("population", "unit", "bound by", "saturated", "agreement with float"):
        table.add_column(heading, justify="left" if heading in ("population", "bound by") else "right")
    for name, scale in quantization["populations"].items():
        agreed = "–" if scale["agreement"] is None else f"{scale['agreement']:.4%}"
        table.add_row(name, f"2^{scale['exponent']}", scale["binding"], str(scale["saturated"]), agreed)
    output.print(table)


def _verify(
    path: Path,
    trained: checkpoint.TrainedModel,
    labels: np.ndarray,
    inputs: np.ndarray,
    clip_of_lane: np.ndarray,
    *,
    quantised: bool,
) -> None:
    """Torch with the file's weights ↔ the file's reference execution; parity.json beside the file; exit code 3 if they differ."""
    import torch

    graph = files.read(path)
    steps, dt = trained.student.config.steps, float(graph.metadata["dt"])
    wanted, folded_logits = verify.torch_spikes(verify.FoldedStudent(graph), inputs)
    found, _ = verify.reference_spikes(graph, inputs, steps, dt)
    parity = verify.compare("torch with the file's weights ↔ NIR reference execution", wanted, found)
    (path.parent / "parity.json").write_text(json.dumps(parity.to_dict(), indent=2) + "\n")
    table = Table(title=f"{parity.against}, {len(labels)} clips", title_justify="left")
    for heading in ("population", "decisions", "mismatches", "firing rate"):
        table.add_column(heading, justify="left" if heading == "population" else "right")
    for layer in parity.layers:
        table.add_row(layer.layer, f"{layer.decisions:,}", f"{layer.mismatches:,}", f"{wanted[layer.layer].mean():.2%}")
    output.print(table)
    output.print(f"{parity.mismatches} mismatches in {parity.decisions:,} decisions")
    _, float_logits = verify.torch_spikes(trained.student, inputs)
    for name, logits in (("torch, unquantised", float_logits), ("torch, the file's weights", folded_logits)):
        clip_logits = body_mean(torch.from_numpy(logits), torch.from_numpy(clip_of_lane), len(labels))
        output.print(f"top-1 {(clip_logits.argmax(1).numpy() == labels).mean():.1%}  {name}, {len(labels)} clips")
    z_rates = [s.mean() for name, s in wanted.items() if name.endswith("_attention.z")]
    if z_rates:
        _, without = verify.torch_spikes(verify.FoldedStudent(graph, silence_attention=True), inputs)
        change = np.abs(without - folded_logits).max()
        output.print(
            f"attention: z fires at {min(z_rates):.1%} to {max(z_rates):.1%}; forcing z to 0 moves the logits by up to {change:.2f}"
        )
    silent = [name for name, s in wanted.items() if not s.any()]
    if silent:
        output.print(f"never fired on these clips: {', '.join(silent)}")
    tolerance = 0 if quantised else parity.decisions // 1_000_000
    if parity.mismatches > tolerance:
        worst = next(layer for layer in parity.layers if layer.mismatches)
        raise ParityError(
            f"{path}: {parity.mismatches} of {parity.decisions} decisions differ, first in {worst.layer} at (lane, step, neuron) "
            f"{worst.first}; allowed: {tolerance}"
        )


def main() -> None:
    run_app(app, "mksgn-export")


if __name__ == "__main__":
    main()
