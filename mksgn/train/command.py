"""The work of mksgn-train, which mksgn/train/cli.py imports when the command runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from mksgn.common.console import output
from mksgn.common.errors import BadInputError
from mksgn.train import checkpoint, config
from mksgn.train import describe as describing
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.teacher import Teacher, TeacherConfig
from mksgn.train.transforms import body_inputs

DESCRIBED_CLIPS = 16


def settings_of(
    configuration: str | None, bits: int | None, out: Path, epochs: int | None, changes: Sequence[str], *, teacher: bool
) -> tuple[config.TrainConfig, checkpoint.TrainedModel | None]:
    """Return the settings, and the model that a quantisation-aware training starts from, which OUT must not hold."""
    name = configuration or "demo"
    if bits is None:
        if name.endswith(".pt"):
            raise BadInputError(
                f"{name}: is trained; train it on with --quantization-aware BITS, or look at it with --describe"
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


def print_description(
    name: str, changes: Sequence[str], data: str, split: str | None, limit: int | None, seed: int, *, teacher: bool
) -> None:
    """Print the table of mksgn/train/describe for a config, as it is at the first batch, or for a
    trained model.pt."""
    trained = name.endswith(".pt")
    if trained and changes:
        raise BadInputError(f"--set {changes[0]}: {name} is trained, its config can't be changed")
    clips = open_source(
        data, split=split, part="test" if trained else "train", limit=limit or DESCRIBED_CLIPS, seed=seed
    )
    skeleton = clips.graph
    if trained and teacher:
        network = checkpoint.load_teacher(Path(name)).teacher
        rows, skeleton = describing.teacher_layers(network), network.config.graph
    elif trained:
        model = checkpoint.load(Path(name))
        rows = describing.student_layers(model.student, torch.from_numpy(body_inputs(clips.clips, model.normaliser)[0]))
    else:
        settings = config.load(name, changes=changes)
        torch.manual_seed(seed)
        shared = {"graph": clips.graph, "classes": clips.classes}
        if teacher:
            rows = describing.teacher_layers(Teacher(TeacherConfig(**{**settings.teacher, **shared})))
        else:
            student = Student(StudentConfig(**{**settings.student, **shared}))
            normaliser = StreamNormaliser.fit(clips.clips, student.config.frames, student.config.streams)
            x = torch.from_numpy(body_inputs(clips.clips, normaliser)[0])
            describing.calibrate_batch_norms(student, x)
            rows = describing.student_layers(student, x)
    what = f"the teacher of {name}" if teacher else name
    state = "trained" if trained else f"untrained, seed {seed}"
    table = Table(title=f"{what}, {state}; {len(clips)} clips of {clips.source}, {skeleton}", title_justify="left")
    for heading in ("layer", "shape", "parameters", "MACs", "times per clip", "firing rate", "can't fire"):
        table.add_column(heading, justify="left" if heading == "layer" else "right")
    for row in rows:
        rate, never = ("–" if value is None else f"{value:.2%}" for value in (row.rate, row.unreachable))
        shape = " × ".join(map(str, row.shape))
        table.add_row(row.name, shape, f"{row.parameters:,}", f"{row.macs:,}", str(row.passes), rate, never)
    output.print(table)
    macs = sum(row.macs * row.passes for row in rows)
    output.print(f"{sum(row.parameters for row in rows):,} parameters; {macs:,} MACs per body of a clip")
    for line in describing.unable(rows):
        output.print(line)
