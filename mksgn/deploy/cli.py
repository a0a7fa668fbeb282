"""mksgn-deploy: model.nir → a program, and its spikes in Lava or in the emulator."""

from pathlib import Path
from typing import Annotated

import typer

from mksgn.common.choices import choice
from mksgn.common.console import DescribeJson, importing, new_app, print_json, run_app
from mksgn.common.counts import MOST_SAMPLES, MOST_SEED, MOST_STEPS, count
from mksgn.common.replacement import require_file
from mksgn.deploy import run_files
from mksgn.deploy.backends import backend_or_default
from mksgn.deploy.choices import PASS_NAMES
from mksgn.deploy.errors import DeployError
from mksgn.deploy.options import (
    Analog,
    Backend,
    ChipFiles,
    ChipName,
    IfTimeStep,
    Integration,
    Place,
    Precision,
    Reading,
    Reset,
    SpikeDelay,
    TimeStep,
    VInit,
)
from mksgn.export.choices import NO_GRAPH
from mksgn.train.options import Split, device_option

NAME = "mksgn-deploy"
app = new_app("Compile a NIR graph for Loihi-compatible simulation, and run it.")

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A NIR file.")]
Data = Annotated[
    str | None, typer.Option(metavar="SOURCE", help="Clips to run, or npz:FILE or npy:X[,Y]: labelled arrays.")
]
Inputs = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Arrays to run: .npy (samples, steps, *shape), or .npz with an array for each input's name.",
    ),
]
Limit = Annotated[int | None, count(most=MOST_SAMPLES, help="Largest number of clips or samples.")]
Seed = Annotated[int, count(least=0, most=MOST_SEED, help="Seed of synthetic clips.")]
Calibration = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="Clips or arrays that calibrate the quantisation of an unquantised file."),
]
Steps = Annotated[int | None, count(most=MOST_STEPS, help="Time steps of arrays without a time axis.")]
Device = Annotated[str, device_option("Device of the emulator.")]
Check = Annotated[
    bool, typer.Option("--check", help="Check the program against the chip's limits; exit code 4 if it exceeds them.")
]
Describe = Annotated[
    bool, typer.Option("--describe", help="Show depth, delays, reset offset and window of each population.")
]
PrintAfter = Annotated[
    str | None, choice(values=PASS_NAMES, help="Print the program after a pass; with float there is no fixed-point.")
]
To = Annotated[
    str | None,
    choice(
        "--to",
        values=("sana-fe",),
        help="Also write the placed network and its input spikes for this simulator, below -o.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FOLDER", help="Folder for spikes, outputs, counters.json and manifest.json."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run in -o, which stays until this one is complete.")
]


@app.command()
def deploy(
    model: Model,
    data: Data = None,
    inputs: Inputs = None,
    split: Split = None,
    limit: Limit = None,
    seed: Seed = 0,
    backend: Backend = None,
    precision: Precision = "fixed",
    calibration: Calibration = None,
    steps: Steps = None,
    dt: TimeStep = 1e-4,
    if_dt: IfTimeStep = None,
    reset: Reset = "zero",
    v_init: VInit = "zero",
    integration: Integration = "euler",
    spike_delay: SpikeDelay = 0,
    analog: Analog = None,
    device: Device = "cpu",
    chip: ChipName = "loihi2",
    chip_file: ChipFiles = None,
    place: Place = "compact",
    check_limits: Check = False,
    describe: Describe = False,
    print_after: PrintAfter = None,
    to: To = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: DescribeJson = False,
) -> None:
    """Compile any NIR graph, and run the clips of SOURCE, or arrays, through it.

    An unquantised graph runs in fixed point with --calibration, which also prints scales, saturation and agreement.

    Example: mksgn-deploy runs/demo/model.nir --data synthetic --limit 8 -o runs/deploy
    """
    if as_json and not describe:
        raise DeployError("--json prints the description of --describe; give both")
    runs = data is not None or inputs is not None
    simulator = run_files.check(out, to, runs=runs, overwrite=overwrite)
    require_file(model, NO_GRAPH)
    with importing(NAME):
        from mksgn.deploy import arrays, compile_graph
        from mksgn.deploy import command as work
        from mksgn.deploy import output as output_folder
        from mksgn.deploy.conventions import conventions
        from mksgn.deploy.describe import describe as describe_program
        from mksgn.deploy.describe import document
        from mksgn.deploy.placement.chips import chip_named, known_chips
        from mksgn.train.parallel import check_device
    check_device(device)
    backend = backend_or_default(backend) if runs else "emulator"
    graph = work.graph_of(model, data, inputs)
    precision = work.describable(
        graph, precision, describe and not (calibration or runs or check_limits or print_after)
    )
    reading = Reading(dt, if_dt, reset, v_init, integration, spike_delay, tuple(analog or ()))
    samples = None if calibration is None else work.calibration_of(graph, calibration, split)
    options = {"steps": steps, "after": work.printer(print_after, precision), **reading.options}
    program = compile_graph(graph, precision=precision, calibration=samples, **options)
    given = None if inputs is None else arrays.load(inputs)
    lines = () if print_after else conventions(graph, reading, samples if given is None else given)
    work.print_compiled(graph, program, calibration, lines)
    if describe:
        each = steps or work.steps_of(program, given)
        print_json(document(model, program, each)) if as_json else describe_program(program, each)
    with output_folder.writing(out, runs=runs, overwrite=overwrite) as folder:
        if check_limits:
            work.check_limits(program, chip_named(chip, known_chips(chip_file or ())), place, folder)
        run_inputs = work.Run(backend, device, folder if simulator else None, simulator)
        if data is not None:
            execution, facts = work.run_source(graph, program, data, (split, limit, seed, steps), run_inputs)
        elif inputs is not None and given is not None:
            execution, facts = work.run_arrays(program, inputs.name, given, limit, run_inputs)
        else:
            return None if describe or check_limits or print_after else work.print_size(model, program)
        if folder is not None:
            output_folder.write_run(folder, model, graph, program, execution, facts)


def main() -> None:
    run_app(app, NAME)


if __name__ == "__main__":
    main()
