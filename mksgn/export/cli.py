"""The command mksgn-export: quantise model.pt once, write model.nir or model.onnx, verify it."""

from pathlib import Path
from typing import Annotated

import typer

from mksgn.common.choices import choice, open_choice
from mksgn.common.console import importing, new_app, run_app
from mksgn.common.counts import MOST_SAMPLES, MOST_STEPS, count
from mksgn.common.replacement import require_file
from mksgn.export.choices import EULER, FORMATS, INTEGRATIONS, PROFILES, RESETS, SIMULATORS, SPIKE_DELAYS, V_INITS, ZERO
from mksgn.train.choices import BITS, NO_MODEL
from mksgn.train.options import Split

NAME = "mksgn-export"
app = new_app("Write a trained student to a file that needs neither PyTorch nor mksgn to be read.")

Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", help="Replace a file of another format too; a file of the same format is always replaced."
    ),
]


@app.command()
def export(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="model.pt or teacher.pt of mksgn-train, a network.net of lava-dl, or any NIR file."
        ),
    ],
    to: Annotated[str, choice(values=FORMATS, help="Format of the file.")] = "nir",
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; default: next to MODEL.")
    ] = None,
    profile: Annotated[
        str | None, choice(values=PROFILES, help="structured is the default; portable: stock NIR primitives only.")
    ] = None,
    quantize: Annotated[
        str | None, choice(values=(*BITS, "none"), help="Bits per weight; default: as in training, or 8.")
    ] = None,
    weight_exponents: Annotated[
        bool,
        typer.Option(
            help="Below 8 bits: one exponent per projection for its weights; without, one scale per population."
        ),
    ] = True,
    calibration: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Clips for --quantize and --verify, or npz:FILE or npy:X; no default."),
    ] = None,
    split: Split = None,
    dt: Annotated[float, typer.Option(metavar="SECONDS", help="Time step.")] = 1e-4,
    verify_clips: Annotated[
        int,
        count(
            "--verify", least=0, most=MOST_SAMPLES, help="Compare executions of the written file on this many clips."
        ),
    ] = 0,
    against: Annotated[
        str,
        open_choice(
            metavar="NAME,…",
            values=tuple(SIMULATORS),
            help=f"More executions for --verify, if installed: {', '.join(SIMULATORS)}.",
        ),
    ] = "",
    steps: Annotated[
        int | None, count(most=MOST_STEPS, help="Time steps of a sample, for a NIR file that does not state them.")
    ] = None,
    if_dt: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Time step of a NIR file's IF and I; 1 reads v += r x; default: --dt."),
    ] = None,
    analog: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A NIR file's non-spiking input; may be repeated.")
    ] = None,
    reset: Annotated[str, choice(values=RESETS, help="Reset of a NIR file's neurons.")] = ZERO,
    v_init: Annotated[str, choice(values=V_INITS, help="Initial state of a NIR file's neurons.")] = ZERO,
    integration: Annotated[str, choice(values=INTEGRATIONS, help="Integration of a NIR file's neurons.")] = EULER,
    spike_delay: Annotated[
        int, choice(values=SPIKE_DELAYS, help="Steps until a spike leaves a NIR file's neuron.")
    ] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Fold batch norms, quantise, write, and verify.

    Calibration uses clips of the training part of SOURCE. --verify uses clips of its test part. It
    compares the spikes of torch (and of onnxruntime, for an ONNX file) with the reference execution
    of the NIR graph and writes parity.json. For a teacher it compares logits with torch's. The exit
    code is 3 if they differ.

    A model of mksgn-train --quantization-aware brings its scales: the file is the network that was
    trained, and no clips are needed.

    A NIR file of any network is quantised on arrays, and written again or as ONNX.

    Example: mksgn-export runs/demo/model.pt --quantize 8 --calibration synthetic --verify 10

    Example: mksgn-export any.nir --to nir --quantize 8 --calibration npz:samples.npz
    """
    options = dict(locals())
    require_file(model, NO_MODEL)
    with importing(NAME):
        from mksgn.export import command
    command.run(command.Options(**options))


def main() -> None:
    run_app(app, NAME)


if __name__ == "__main__":
    main()
