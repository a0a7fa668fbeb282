"""The command mksgn-export: quantise model.pt once, write model.nir or model.onnx, verify it."""

from pathlib import Path
from typing import Annotated

import typer

from mksgn.common.console import importing, new_app, run_app
from mksgn.export.choices import EULER, INTEGRATIONS, RESETS, SIMULATORS, V_INITS, ZERO

NAME = "mksgn-export"
app = new_app("Write a trained student to a file that needs neither PyTorch nor mksgn to be read.")

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace a file of another format too; one of the same always is")
]


@app.command()
def export(
    model: Annotated[
        Path, typer.Argument(help="model.pt or teacher.pt of mksgn-train, a network.net of lava-dl, or any NIR file")
    ],
    to: Annotated[str, typer.Option(help="format: nir or onnx")] = "nir",
    out: Annotated[Path | None, typer.Option("-o", "--output", help="file to write; default: next to MODEL")] = None,
    profile: Annotated[
        str | None, typer.Option(help="structured (default), or portable: stock NIR primitives only")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="bits per weight: 2 to 8 (default: what it was trained for, or 8), or none")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="SOURCE for --quantize and --verify: of clips, or npz:FILE or npy:X; no default")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="split of these clips; default: the one that the model was trained on")
    ] = None,
    dt: Annotated[float, typer.Option(help="time step in seconds")] = 1e-4,
    verify_clips: Annotated[
        int, typer.Option("--verify", help="compare executions of the written file on N clips", min=0)
    ] = 0,
    against: Annotated[
        str, typer.Option(help=f"more executions for --verify, if installed: {','.join(SIMULATORS)}")
    ] = "",
    steps: Annotated[int | None, typer.Option(help="time steps of a sample, for a NIR file that names none")] = None,
    if_dt: Annotated[
        float | None, typer.Option(help="time step of a NIR file's IF and I; 1 reads v += r x; default: --dt")
    ] = None,
    analog: Annotated[list[str] | None, typer.Option(help="a NIR file's non-spiking input; may be repeated")] = None,
    reset: Annotated[str, typer.Option(help=f"reset of a NIR file's neurons: {', '.join(RESETS)}")] = ZERO,
    v_init: Annotated[str, typer.Option(help=f"initial state of a NIR file's neurons: {', '.join(V_INITS)}")] = ZERO,
    integration: Annotated[str, typer.Option(help=f"step of a NIR file's neurons: {', '.join(INTEGRATIONS)}")] = EULER,
    spike_delay: Annotated[int, typer.Option(help="steps until a spike leaves a NIR file's neuron: 0 or 1")] = 0,
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
    with importing(NAME):
        from mksgn.export import command
    command.run(command.Options(**options))


def main() -> None:
    run_app(app, NAME)


if __name__ == "__main__":
    main()
