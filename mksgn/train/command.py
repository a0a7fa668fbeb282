"""What mksgn-train does; mksgn/train/cli.py imports it only when the command runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mksgn.common.console import output
from mksgn.common.errors import BadInputError
from mksgn.train import checkpoint, config
from mksgn.train.datasets import ClipSet


def settings_of(
    configuration: str | None, bits: int | None, out: Path, epochs: int | None, changes: Sequence[str], *, teacher: bool
) -> tuple[config.TrainConfig, checkpoint.TrainedModel | None]:
    """Return the settings, and the model that a quantisation-aware training starts from; it must not be in OUT."""
    name = configuration or "demo"
    if bits is None:
        if name.endswith(".pt"):
            raise BadInputError(
                f"{name}: is already trained; continue training with --quantization-aware BITS, or inspect it with "
                "--describe"
            )
        return config.load(name, epochs=epochs, changes=changes), None
    if teacher:
        raise BadInputError(
            "--teacher trains a teacher, which has no spikes and is not quantised; leave one option out"
        )
    model = Path(name)
    if model.suffix != ".pt":
        raise BadInputError(
            f"--quantization-aware starts from a trained model, and CONFIG is {name}; train it first, and give its model.pt"
        )
    start = checkpoint.load(model)
    if model.resolve().parent == out.resolve():
        raise BadInputError(f"--out {out}: holds the model that the training starts from; name another folder")
    preset = start.training.get("preset")
    return config.load_for_fine_tuning(model, preset, bits, epochs=epochs, changes=changes), start


def print_epoch(settings: config.TrainConfig, held_out: ClipSet, line: dict[str, Any]) -> None:
    """Print an epoch's line of metrics.jsonl, and how many held-out clips are copies of training
    clips."""
    accuracy = f", held-out {line['held_out_top1']:.1%}" if "held_out_top1" in line else ""
    losses = "  ".join(f"{name} {value:.3f}" for name, value in line["losses"].items())
    losses = f" ({losses})" if len(line["losses"]) > 1 else ""
    output.print(
        f"epoch {line['epoch']:3d}/{settings.epochs}  loss {line['loss']:.3f}{losses}  train "
        f"{line['train_top1']:.1%}{accuracy}"
        f"  {line['seconds']:.1f} s"
    )
    if "held_out_copies" in line:
        output.print(
            f"{line['held_out_copies']} of {len(held_out)} held-out clips are bitwise copies of training clips; "
            f"without them {line['held_out_top1_without_copies']:.1%}"
        )
