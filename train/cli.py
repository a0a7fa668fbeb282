"""mksgn-train: clips → model.pt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from mksgn.train import checkpoint, config, loop
from mksgn.train.console import new_app, output, run_app
from mksgn.train.datasets import open_source
from mksgn.train.errors import BadInputError

app = new_app("Train MK-SGN's student on skeleton clips.")


@app.command()
def train(
    configuration: Annotated[
        str, typer.Argument(metavar="[CONFIG]", help="demo, small, paper, or a YAML file")
    ] = "demo",
    data: Annotated[str, typer.Option(help="SOURCE: synthetic or nw-ucla:PATH")] = "synthetic",
    out: Annotated[Path, typer.Option(help="folder for model.pt, metrics.jsonl and config.json")] = Path("runs/train"),
    split: Annotated[str | None, typer.Option(help="name of the benchmark's split, e.g. xview or view1-2")] = None,
    epochs: Annotated[int | None, typer.Option(help="instead of the config's", min=1)] = None,
    limit: Annotated[int | None, typer.Option(help="train on so many clips at most", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of weights, batches and synthetic clips", min=0, max=2**31)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what OUT holds")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Train a student; the last epoch's weights are kept.

    Example: mksgn-train demo --data synthetic --out runs/demo

    On several cores: torchrun --nproc-per-node 2 -m mksgn.train demo --data synthetic --out runs/demo
    """
    import torch

    if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
        raise BadInputError(f"--device {device}: not available here; use cpu")
    settings = config.load(configuration, epochs=epochs)
    training = open_source(data, split=split, part="train", limit=limit, seed=seed)
    held_out = open_source(data, split=split, part="test", seed=seed)
    leads = os.environ.get("RANK", "0") == "0"  # of torchrun's processes one reports
    if leads:
        output.print(
            f"training {settings.preset} on {len(training)} clips of {training.source}, {len(training.classes)} classes"
        )

    def report(line: dict[str, Any]) -> None:
        held = f", held-out {line['held_out_top1']:.1%}" if "held_out_top1" in line else ""
        figures = f"loss {line['loss']:.3f}  train {line['train_top1']:.1%}{held}  {line['seconds']:.1f} s"
        output.print(f"epoch {line['epoch']:3d}/{settings.epochs}  {figures}")

    loop.train(settings, training, held_out, out, seed=seed, device=device, resume=resume, report=report)
    if leads:
        output.print(f"wrote {out / 'model.pt'}  sha256 {checkpoint.sha256(out / 'model.pt')[:16]}…")


def main() -> None:
    run_app(app, "mksgn-train")


if __name__ == "__main__":
    main()
