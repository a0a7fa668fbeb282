"""mksgn-deploy: model.nir → a program, and its spikes in Lava or in the emulator."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import nir
import typer

from mksgn.common.choices import beginning, choice
from mksgn.common.console import Json, new_app, output, print_json, run_app
from mksgn.common.limits import Fit
from mksgn.common.progress import counting
from mksgn.common.quoting import printable
from mksgn.deploy import arrays, compile_graph, run
from mksgn.deploy import output as output_folder
from mksgn.deploy.backends import backend_or_default
from mksgn.deploy.clips import clip_inputs
from mksgn.deploy.compiler import FIXED_POINT, PASS_NAMES
from mksgn.deploy.conventions import conventions
from mksgn.deploy.decode import Decoding
from mksgn.deploy.describe import describe as describe_program
from mksgn.deploy.describe import document
from mksgn.deploy.errors import ChipLimitError, DeployError
from mksgn.deploy.execute import present
from mksgn.deploy.execution import Execution
from mksgn.deploy.options import (
    MOST_STEPS,
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
    check_place,
)
from mksgn.deploy.placement import check
from mksgn.deploy.placement.chips import Chip, chip_named, known_chips
from mksgn.deploy.placement.place import place as compact
from mksgn.deploy.placement.utilisation import draw, utilisation_table
from mksgn.deploy.program.program import Program
from mksgn.deploy.program.text import text
from mksgn.deploy.sana_fe import network
from mksgn.export import tables
from mksgn.export.graph import files
from mksgn.export.graph.arrays import Arrays
from mksgn.export.graph.metadata import json_of
from mksgn.export.quantization.samples import calibration_arrays
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.datasets.arrays import ArraySet, is_array_source, open_arrays
from mksgn.train.options import Split
from mksgn.train.parallel import check_device

app = new_app("Compile a NIR graph for Loihi-compatible simulation, and run it.")

Model = Annotated[Path, typer.Argument(help="a NIR file")]
Data = Annotated[str | None, typer.Option(help="SOURCE of clips to run, or npz:FILE or npy:X[,Y]: labelled arrays")]
Inputs = Annotated[
    Path | None, typer.Option(help="arrays to run: .npy (samples, steps, *shape), or .npz by input's name")
]
Limit = Annotated[int | None, typer.Option(help="largest number of clips or samples", min=1)]
Seed = Annotated[int, typer.Option(help="seed of synthetic clips", min=0, max=2**31)]
Calibration = Annotated[
    str | None, typer.Option(help="SOURCE or arrays that quantise an unquantised file, for --precision fixed")
]
Steps = Annotated[int | None, typer.Option(help="time steps of arrays without a time axis", min=1, max=MOST_STEPS)]
Device = Annotated[
    str,
    typer.Option(metavar="[cpu|cuda|cuda:N]", help="device of the emulator", autocompletion=beginning(("cpu", "cuda"))),
]
Check = Annotated[bool, typer.Option("--check", help="check the program against the chip's limits; exit code 4")]
Describe = Annotated[
    bool, typer.Option("--describe", help="show depth, delays, reset offset and window of each population")
]
PrintAfter = Annotated[
    str | None, choice(values=PASS_NAMES, help="print the program after a pass; float has no fixed-point")
]
To = Annotated[
    str | None,
    choice("--to", values=("sana-fe",), help="also write the placed network and its input spikes for it, below -o"),
]
Out = Annotated[
    Path | None, typer.Option("-o", "--output", help="folder for spikes, outputs, counters.json and manifest.json")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace the run in -o, which stays until this one is complete")
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
    as_json: Json = False,
) -> None:
    """Compile any NIR graph, and run the clips of SOURCE, or arrays, through it.

    One that is not quantised runs in fixed point with --calibration; scales, saturation and agreement are then printed.

    Example: mksgn-deploy runs/demo/model.nir --data synthetic --limit 8 -o runs/deploy
    """
    if as_json and not describe:
        raise DeployError("--json prints the description of --describe; give both")
    check_device(device)
    runs = data is not None or inputs is not None
    backend = backend_or_default(backend) if runs else "emulator"
    simulator = output_folder.check(out, to, runs=runs, overwrite=overwrite)
    graph = _graph_of(model, data, inputs)
    precision = _describable(graph, precision, describe and not (calibration or runs or check_limits or print_after))
    reading = Reading(dt, if_dt, reset, v_init, integration, spike_delay, tuple(analog or ()))
    samples = None if calibration is None else _calibration(graph, calibration, split)
    options = {"steps": steps, "after": _printer(print_after, precision), **reading.options}
    program = compile_graph(graph, precision=precision, calibration=samples, **options)
    given = None if inputs is None else arrays.load(inputs)
    lines = () if print_after else conventions(graph, reading, samples if given is None else given)
    _print_compiled(graph, program, calibration, lines)
    if describe:
        each = steps or _steps(program, given)
        print_json(document(model, program, each)) if as_json else describe_program(program, each)
    with output_folder.writing(out, runs=runs, overwrite=overwrite) as folder:
        if check_limits:
            _check(program, chip_named(chip, known_chips(chip_file or ())), check_place(place), folder)
        run_inputs = _Run(backend, device, folder if simulator else None, simulator)
        if data is not None:
            execution, facts = _run_source(graph, program, data, (split, limit, seed, steps), run_inputs)
        elif inputs is not None and given is not None:
            execution, facts = _run_arrays(program, inputs.name, given, limit, run_inputs)
        else:
            return None if describe or check_limits or print_after else _print_size(model, program)
        if folder is not None:
            output_folder.write_run(folder, model, graph, program, execution, facts)


@dataclass(frozen=True)
class _Run:
    """How inputs are run, into which folder they are written for SANA-FE, if anywhere, and where they will be then."""

    backend: str
    device: str
    folder: Path | None
    sana_fe: Path | None

    def __call__(self, program: Program, inputs: Arrays) -> Execution:
        if self.folder is not None:
            network.placed(program)  # refused before it runs
        samples = len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
        with counting(samples, "samples") as done:
            execution = run(program, inputs, backend=self.backend, device=self.device, progress=done)
        if self.folder is not None and self.sana_fe is not None:
            written = network.write_network(program, inputs, execution, self.folder / self.sana_fe.name)
            output.print(
                f"wrote {self.sana_fe / written[0].name}{f' … {written[-1].name}' if len(written) > 1 else ''} and network.json for SANA-FE"
            )
        return execution


def _graph_of(model: Path, data: str | None, inputs: Path | None) -> nir.NIRGraph:
    """Read the graph of a command whose options are not at odds."""
    if data is not None and inputs is not None:
        raise DeployError("--data and --inputs: give one of them")
    return files.read(model)


def _print_size(model: Path, program: Program) -> None:
    size = f"{len(program.populations)} populations, latency {program.latency} steps"
    output.print(f"{model}: {size}; give --data or --inputs to run it")


def _describable(graph: nir.NIRGraph, precision: str, only_described: bool) -> str:
    """The precision in which a graph can be described: float for one that is not quantised."""
    if not only_described or precision == "float" or json_of(graph, "quantization") is not None:
        return precision
    output.print("the file is not quantised: described in float; --calibration describes it in fixed point")
    return "float"


def _printer(print_after: str | None, precision: str) -> Callable[[str, Program], None]:
    """Return what prints the program after the pass of that name."""
    names = [name for name in PASS_NAMES if precision == "fixed" or name != FIXED_POINT]
    if print_after is not None and print_after not in names:
        raise DeployError(
            f"--print-after {print_after}: no such pass with --precision {precision}; choose one of {', '.join(names)}"
        )

    def show(name: str, program: Program) -> None:
        if name == print_after:
            output.print(text(program), end="", soft_wrap=True)

    return show


def _print_compiled(graph: nir.NIRGraph, program: Program, calibration: str | None, lines: Iterable[str]) -> None:
    """What the file leaves open, in `lines`, and the scales of a file that was quantised here, or why --calibration was
    not used."""
    for line in lines:
        output.print(line)
    quantised = json_of(graph, "quantization") is not None
    scales = program.quantization
    if not quantised and scales is not None:
        tables.scales(scales)
    elif calibration is not None:
        reason = "the file is quantised" if quantised else "float needs none"
        output.print(f"--calibration {calibration}: not used, {reason}")


def _calibration(graph: nir.NIRGraph, source: str, split: str | None) -> Arrays:
    if arrays.is_array_file(source) and not is_array_source(source):
        return arrays.load(Path(source))
    return calibration_arrays(graph, source, split)


def _steps(program: Program, inputs: Arrays | None) -> int | None:
    """Steps of a sample: those of the arrays, else the file's; None: neither says."""
    if inputs is None:
        return program.steps
    first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    return int(first.shape[1])


def _run_source(
    graph: nir.NIRGraph,
    program: Program,
    source: str,
    selection: tuple[str | None, int | None, int, int | None],
    run_inputs: _Run,
) -> tuple[Execution, dict[str, object]]:
    """Run the test part of a SOURCE of clips or arrays; `selection` is its split, limit, seed and steps."""
    split, limit, seed, steps = selection
    if is_array_source(source):
        labelled = open_arrays(source, limit=limit).by_input([p.name for p in program.inputs])
        return _run_samples(program, labelled, steps, run_inputs)
    clips = open_source(source, split=split, part="test", limit=limit, seed=seed)
    return _run_clips(graph, program, clips, run_inputs)


def _run_clips(
    graph: nir.NIRGraph, program: Program, clips: ClipSet, run_inputs: _Run
) -> tuple[Execution, dict[str, object]]:
    """Run clips, print the accuracy, and return what the manifest says of the data."""
    inputs = clip_inputs(graph, program, clips)
    execution = run_inputs(program, inputs.inputs)
    correct = int((inputs.predictions(execution) == inputs.labels).sum())
    what = f"top-1 {correct / len(clips):.1%} on {len(clips)} clips ({len(inputs.inputs)} bodies)"
    _print_run(program, execution, what, "clip", len(clips))
    return execution, {"source": clips.source, "split": clips.split, "clips": len(clips)}


def _run_arrays(
    program: Program, source: str, inputs: Arrays, limit: int | None, run_inputs: _Run
) -> tuple[Execution, dict[str, object]]:
    """As `_run_clips`, for arrays of a file of the name `source`."""
    limited = {name: x[:limit] for name, x in inputs.items()} if isinstance(inputs, Mapping) else inputs[:limit]
    execution = run_inputs(program, limited)
    _print_run(
        program, execution, f"{execution.samples} samples of {execution.steps} steps", "sample", execution.samples
    )
    return execution, {"source": source, "split": None, "clips": execution.samples}


def _run_samples(
    program: Program, samples: ArraySet, steps: int | None, run_inputs: _Run
) -> tuple[Execution, dict[str, object]]:
    """As `_run_clips`, for labelled arrays."""
    inputs = {name: present(program, name, x, steps) for name, x in samples.take(range(len(samples))).arrays.items()}
    execution = run_inputs(program, inputs)
    what = f"{execution.samples} samples of {execution.steps} steps"
    if samples.labels is not None:
        correct = int((Decoding().scores(program, execution).argmax(1) == samples.labels).sum())
        what = f"top-1 {correct / execution.samples:.1%} on {what}"
    _print_run(program, execution, what, "sample", execution.samples)
    return execution, {"source": samples.source, "split": None, "clips": execution.samples}


def _print_run(program: Program, execution: Execution, what: str, unit: str, count: int) -> None:
    spikes = sum(c.spikes for c in execution.counters.values())
    output.print(
        f"{execution.backend} {execution.precision}: {what}, {spikes / count:,.0f} spikes per {unit}, "
        f"{execution.seconds:.1f} s"
    )
    silent = [p.name for p in program.neurons if not execution.counters[p.name].spikes]
    if silent:
        output.print(f"never fired in this run: {', '.join(silent)}")
    from mksgn.bench.pricing import energy_lines  # the stage after this one; nothing else here knows it

    for line in energy_lines(program, execution, count, unit):
        output.print(line)


def _check(program: Program, chip: Chip, how: str, out: Path | None) -> None:
    placement = compact(program, chip)
    if how == "balanced":
        from mksgn.bench.timing import expected_balance  # the stage after this one has the latencies

        placement = expected_balance(placement)
    output.print(utilisation_table(placement))
    for note in check.notes(placement, chip):
        output.print(note)
    if out is not None:
        draw(placement, out / "cores.png")
    limits = check.limits(placement, chip)
    for name, value, limit in limits:
        output.print(f"{chip.name}: {name} {value:,} of {'an unpublished limit' if limit is None else f'{limit:,}'}")
    violations = check.check(placement, chip)
    if violations:
        raise ChipLimitError("\n".join(map(printable, violations)))
    output.print(Fit.of(limits).text(chip.name))
    output.print(f"{placement.cores:,} cores on {placement.chips:,} chips of {chip.name} (source: {chip.source})")


def main() -> None:
    run_app(app, "mksgn-deploy")


if __name__ == "__main__":
    main()
