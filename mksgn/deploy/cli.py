"""mksgn-deploy: model.nir → a program, and its spikes in Lava or in the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import nir
import numpy as np
import typer

from mksgn.common.console import new_app, output, run_app
from mksgn.deploy import arrays, compile_graph, run, run_folder
from mksgn.deploy.clips import ClipInputs, clip_inputs
from mksgn.deploy.describe import describe as describe_program
from mksgn.deploy.errors import ChipLimitError, DeployError
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement import check
from mksgn.deploy.placement.chips import chip_named
from mksgn.deploy.placement.place import place
from mksgn.deploy.placement.utilisation import draw, utilisation_table
from mksgn.deploy.program.program import Program
from mksgn.export import tables
from mksgn.export.graph import files
from mksgn.export.graph.metadata import input_normaliser, json_of
from mksgn.train.datasets import open_source
from mksgn.train.transforms import body_inputs

app = new_app("Compile a NIR graph for Loihi-compatible simulation, and run it.")

CALIBRATION_CLIPS = 24


@app.command()
def deploy(
    model: Annotated[Path, typer.Argument(help="a NIR file")],
    data: Annotated[str | None, typer.Option(help="SOURCE of clips to run")] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="arrays to run: .npy (samples, steps, *shape), or .npz by input's name")
    ] = None,
    split: Annotated[str | None, typer.Option(help="split of SOURCE; its test part is run")] = None,
    limit: Annotated[int | None, typer.Option(help="so many clips at most", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of synthetic clips", min=0, max=2**31)] = 0,
    backend: Annotated[str, typer.Option(help="lava or emulator")] = "lava",
    precision: Annotated[str, typer.Option(help="fixed or float")] = "fixed",
    calibration: Annotated[
        str | None, typer.Option(help="SOURCE, .npy or .npz that quantises a file which is not, for --precision fixed")
    ] = None,
    dt: Annotated[float, typer.Option(help="time step in seconds, of files that name none")] = 1e-4,
    if_dt: Annotated[
        float | None, typer.Option(help="step of IF and I; 1 reads v += r x, as most files mean it; default: --dt")
    ] = None,
    analog: Annotated[list[str] | None, typer.Option(help="an input that is no spikes; may be repeated")] = None,
    device: Annotated[str, typer.Option(help="the emulator's: cpu or cuda")] = "cpu",
    chip: Annotated[str, typer.Option(help="loihi2 or loihi1")] = "loihi2",
    check_limits: Annotated[
        bool, typer.Option("--check", help="hold the program against the chip's limits; exit code 4")
    ] = False,
    describe: Annotated[
        bool, typer.Option("--describe", help="depth, delays, reset offset and window of each population")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", help="folder for spikes.npz, outputs.npz, cores.png, manifest.json")
    ] = None,
) -> None:
    """Compile any NIR graph, and run the clips of SOURCE, or arrays, through it.

    A file that is not quantised runs in fixed point with --calibration: export's quantiser gives each population its scale, and what
    binds it, what saturates and how well its spikes agree with float are printed.

    Example: mksgn-deploy runs/demo/model.nir --data synthetic --limit 8 --backend lava -o runs/deploy
    """
    if data is not None and inputs is not None:
        raise DeployError("--data and --inputs: give one of them")
    graph = files.read(model)
    foreign = json_of(graph, "quantization") is None
    program = compile_graph(
        graph,
        precision=precision,
        dt=dt,
        if_dt=if_dt,
        analog=tuple(analog or ()),
        calibration=None if calibration is None else _calibration(graph, calibration, split),
    )
    scales = program.quantization
    if foreign and scales is not None:
        tables.scales(scales)
    elif calibration is not None:
        output.print(
            f"--calibration {calibration}: not used, {'the file is quantised' if not foreign else 'float needs none'}"
        )
    if describe:
        describe_program(program, _steps(program, inputs))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if check_limits:
        _check(program, chip, out)
    if data is None and inputs is None:
        if not (describe or check_limits):
            output.print(
                f"{model}: {len(program.populations)} populations, latency {program.latency} steps; give --data or --inputs to run it"
            )
        return
    if data is not None:
        clips = open_source(data, split=split, part="test", limit=limit, seed=seed)
        given = clip_inputs(graph, program, clips)
        execution = run(program, given.inputs, backend=backend, device=device)
        facts = {"source": clips.source, "split": clips.split, "clips": len(clips)}
        _print_accuracy(execution, given, len(clips))
    else:
        assert inputs is not None
        execution = run(program, _limited(arrays.load(inputs), limit), backend=backend, device=device)
        facts = {"source": inputs.name, "split": None, "clips": execution.samples}
        _print_spikes(execution)
    silent = [p.name for p in program.neurons if not execution.counters[p.name].spikes]
    if silent:
        output.print(f"never fired on these clips: {', '.join(silent)}")
    if out is not None:
        _write(out, model, graph, program, execution, facts)


def _calibration(graph: nir.NIRGraph, source: str, split: str | None) -> np.ndarray | dict[str, np.ndarray]:
    if arrays.is_array_file(source):
        return arrays.load(Path(source))
    normaliser = input_normaliser(graph)
    if normaliser is None:
        raise DeployError(
            f"--calibration {source}: the file carries no normalisation of skeleton clips; give arrays in a .npy or .npz file"
        )
    clips = open_source(source, split=split, part="train", limit=CALIBRATION_CLIPS)
    return body_inputs(clips.clips, normaliser)[0]


def _steps(program: Program, inputs: Path | None) -> int:
    """Of a clip: those of the arrays, else the file's."""
    if inputs is None and program.steps is not None:
        return program.steps
    given = arrays.load(inputs) if inputs is not None else None
    first = next(iter(given.values())) if isinstance(given, dict) else given
    if first is None or first.ndim < 2:
        raise DeployError(
            "--describe: the file does not say how many steps a sample has; give --inputs (samples, steps, …)"
        )
    return int(first.shape[1])


def _limited(given: np.ndarray | dict[str, np.ndarray], limit: int | None) -> np.ndarray | dict[str, np.ndarray]:
    if isinstance(given, dict):
        return {name: x[:limit] for name, x in given.items()}
    return given[:limit]


def _print_accuracy(execution: Execution, given: ClipInputs, clips: int) -> None:
    correct = int((given.predictions(execution) == given.labels).sum())
    spikes = sum(c.spikes for c in execution.counters.values())
    output.print(
        f"{execution.backend} {execution.precision}: top-1 {correct / clips:.1%} on {clips} clips ({len(given.inputs)} bodies), "
        f"{spikes / clips:,.0f} spikes per clip, {execution.seconds:.1f} s"
    )


def _print_spikes(execution: Execution) -> None:
    spikes = sum(c.spikes for c in execution.counters.values())
    output.print(
        f"{execution.backend} {execution.precision}: {execution.samples} samples of {execution.steps} steps, "
        f"{spikes / execution.samples:,.0f} spikes per sample, {execution.seconds:.1f} s"
    )


def _write(
    out: Path, model: Path, graph: nir.NIRGraph, program: Program, execution: Execution, data: dict[str, object]
) -> None:
    run_folder.write_spikes(execution, out / run_folder.SPIKES_FILE)
    run_folder.write_outputs(execution, out / "outputs.npz")
    facts = {
        "data": data,
        "execution": {"backend": execution.backend, "precision": execution.precision, "steps": execution.steps},
    }
    parent = graph.metadata.get("parent")
    written = [name for name in (run_folder.SPIKES_FILE, "outputs.npz", "cores.png") if (out / name).is_file()]
    parents = [parent] if parent else []
    run_folder.write_manifest(out, written, model=model, parents=parents, program=program, facts=facts)
    output.print(f"wrote {out / 'spikes.npz'}, outputs.npz and manifest.json")


def _check(program: Program, chip_name: str, out: Path | None) -> None:
    chip = chip_named(chip_name)
    placement = place(program, chip)
    output.print(utilisation_table(placement))
    for note in check.notes(placement, chip):
        output.print(note)
    if out is not None:
        draw(placement, out / "cores.png")
    for name, value, limit in placement.limits:
        output.print(f"{chip.name}: {name} {value:,} of {'an unpublished limit' if limit is None else f'{limit:,}'}")
    violations = check.check(placement, chip)
    if violations:
        raise ChipLimitError("\n".join(violations))
    output.print(f"{placement.cores:,} cores on {placement.chips:,} chips of {chip.name} (source: {chip.source})")


def main() -> None:
    run_app(app, "mksgn-deploy")


if __name__ == "__main__":
    main()
