"""mksgn-train: skeleton clips → model.pt, or teacher.pt."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mksgn.common.choices import beginning
from mksgn.common.console import DescribeJson, importing, new_app, output, run_app, set_quiet, wrote
from mksgn.common.counts import MOST_EPOCHS, MOST_SAMPLES, MOST_SEED, count
from mksgn.common.errors import BadInputError
from mksgn.common.progress import track
from mksgn.train.choices import BITS, PRESET_NAMES, SOURCE_FORMS
from mksgn.train.options import Split, device_option

NAME = "mksgn-train"
app = new_app("Train MK-SGN's student, or its teacher, on skeleton clips.")

Configuration = Annotated[
    str | None,
    typer.Argument(
        metavar="[CONFIG]",
        autocompletion=beginning(PRESET_NAMES),
        help=f"{PRESET_NAMES[0]} (the default), {', '.join(PRESET_NAMES[1:])}, or a YAML file; a model.pt with "
        "--quantization-aware or --describe.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change an entry, e.g. student.attention=none; repeatable."),
]
Distill = Annotated[Path | None, typer.Option(metavar="TEACHER.PT", help="Distil this teacher into the student.")]
Bits = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        help=f"Fine-tune the model.pt given as CONFIG for weights of BITS bits, {BITS[0]} to {BITS[-1]}.",
        min=BITS[0],
        max=BITS[-1],
    ),
]
Device = Annotated[str, device_option("Device to train on.")]
DESCRIBE = "Do not train; print parameters, MACs and firing rates of CONFIG, or of a model.pt."


@app.command()
def train(
    configuration: Configuration = None,
    data: Annotated[
        str, typer.Option(metavar="SOURCE", help=f"Clips: {', '.join(SOURCE_FORMS.values())}.")
    ] = "synthetic",
    out: Annotated[
        Path, typer.Option(metavar="OUT", help="Folder for model.pt, metrics.jsonl and config.json.")
    ] = Path("runs/train"),
    split: Split = None,
    epochs: Annotated[int | None, count(most=MOST_EPOCHS, help="Number of epochs; default: the config's.")] = None,
    limit: Annotated[int | None, count(most=MOST_SAMPLES, help="Train on at most this many clips.")] = None,
    seed: Annotated[int, count(least=0, most=MOST_SEED, help="Seed of weights, batches and synthetic clips.")] = 0,
    changes: Changes = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="Train the GCN teacher: OUT/teacher.pt.")] = False,
    distill: Distill = None,
    quantization_aware: Bits = None,
    describe: Annotated[bool, typer.Option("--describe", help=DESCRIBE)] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in OUT.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the training in OUT, which stays until this one is complete.")
    ] = False,
    device: Device = "cpu",
    as_json: DescribeJson = False,
) -> None:
    """Train a student and store the weights of the last epoch.

    Example: mksgn-train demo --data synthetic --out runs/demo

    With a teacher: mksgn-train demo --teacher --out runs/teacher, then
    mksgn-train demo --distill runs/teacher/teacher.pt --out runs/demo

    For few bits: mksgn-train runs/demo/model.pt --quantization-aware 4 --data synthetic --out runs/demo-4bit, then
    mksgn-export runs/demo-4bit/model.pt

    On several cores or GPUs: torchrun --nproc-per-node 2 -m mksgn.train demo --data synthetic --out runs/demo
    """
    if as_json and not describe:
        raise BadInputError("--json prints the description of --describe; give both")
    with importing(NAME):
        from mksgn.train import checkpoint, config, description, loop
        from mksgn.train.command import print_epoch, settings_of
        from mksgn.train.datasets import open_source
        from mksgn.train.parallel import check_device, leads
        from mksgn.train.resume import MODEL_FILE, TEACHER_FILE, training_files
    if describe:
        names = config.PRESETS if configuration is None else [configuration]
        clips = description.Clips(data, split, limit, seed)
        described = (description.described(name, changes or (), clips, teacher=teacher) for name in names)
        description.show(described, as_json=as_json)
        return
    if teacher and distill is not None:
        raise BadInputError("--teacher trains a teacher, --distill a student: give one of them")
    settings, start = settings_of(configuration, quantization_aware, out, epochs, changes or (), teacher=teacher)
    product = TEACHER_FILE if teacher else MODEL_FILE
    set_quiet(output.quiet or not leads())
    if leads():
        training_files(product).check(out, resume=resume, overwrite=overwrite)
    check_device(device, settings.precision)
    options: dict[str, Any] = (
        {} if teacher else {"teacher": distill and checkpoint.load_teacher(distill), "start": start}
    )
    training = open_source(data, split=split, part="train", limit=limit, seed=seed)
    held_out = open_source(data, split=split, part="test", seed=seed)
    options |= {"seed": seed, "device": device, "resume": resume, "overwrite": overwrite}
    options["report"] = partial(print_epoch, settings, held_out)
    if leads():
        options["progress"] = track
        what = f"{'the teacher of ' if teacher else ''}{settings.preset} on {len(training)} clips"
        what = f"{configuration}, quantised to {quantization_aware} bits, on {len(training)} clips" if start else what
        output.print(f"training {what} of {training.source}, {len(training.classes)} classes", soft_wrap=True)
        for note in dict.fromkeys((*training.notes, *held_out.notes)):
            output.print(f"note: {note}")
    (loop.train_teacher if teacher else loop.train)(settings, training, held_out, out, **options)
    if leads():
        file = out / product
        wrote(file, f"  sha256 {checkpoint.sha256(file)[:16]}…")


def main() -> None:
    run_app(app, NAME)


if __name__ == "__main__":
    main()
