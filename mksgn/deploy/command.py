"""The implementation of mksgn-deploy, which mksgn/deploy/cli.py imports when the command runs."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import nir

from mksgn.common.console import output, wrote
from mksgn.common.limits import Fit
from mksgn.common.progress import counting
from mksgn.common.words import counted
from mksgn.deploy import arrays, run
from mksgn.deploy.choices import FIXED_POINT, PASS_NAMES
from mksgn.deploy.clips import clip_inputs
from mksgn.deploy.decode import Decoding
from mksgn.deploy.errors import ChipLimitError, DeployError
from mksgn.deploy.execute import present
from mksgn.deploy.execution import Execution
from mksgn.deploy.placement import check
from mksgn.deploy.placement.chips import Chip
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


@dataclass(frozen=True)
class Run:
    """How inputs are run; the folder that SANA-FE's files are written into, if any, and where they finally lie."""

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
            last = f" … {written[-1].name}" if len(written) > 1 else ""
            wrote(self.sana_fe, f"/{written[0].name}{last} and network.json for SANA-FE")
        return execution


def graph_of(model: Path, data: str | None, inputs: Path | None) -> nir.NIRGraph:
    """Read the graph of a command, after checking that its options do not conflict."""
    if data is not None and inputs is not None:
        raise DeployError("--data and --inputs: give one of them")
    return files.read(model)


def print_size(model: Path, program: Program) -> None:
    size = f"{len(program.populations)} populations, latency {program.latency} steps"
    output.print(f"{model}: {size}; give --data or --inputs to run it")


def describable(graph: nir.NIRGraph, precision: str, only_described: bool) -> str:
    """Return the precision in which a graph can be described: float if it is not quantised."""
    if not only_described or precision == "float" or json_of(graph, "quantization") is not None:
        return precision
    output.print("the file is not quantised: described in float; --calibration describes it in fixed point")
    return "float"


def printer(print_after: str | None, precision: str) -> Callable[[str, Program], None]:
    """Return a function that prints the program after the pass `print_after`."""
    names = [name for name in PASS_NAMES if precision == "fixed" or name != FIXED_POINT]
    if print_after is not None and print_after not in names:
        raise DeployError(
            f"--print-after {print_after}: no such pass with --precision {precision}; choose one of {', '.join(names)}"
        )

    def show(name: str, program: Program) -> None:
        if name == print_after:
            output.print(text(program), end="", soft_wrap=True)

    return show


def print_compiled(graph: nir.NIRGraph, program: Program, calibration: str | None, lines: Iterable[str]) -> None:
    """Print `lines`, which say what the file leaves open, then the scales of a file quantised here, or why
    --calibration was not used."""
    for line in lines:
        output.print(line)
    quantised = json_of(graph, "quantization") is not None
    scales = program.quantization
    if not quantised and scales is not None:
        tables.scales(scales)
    elif calibration is not None:
        reason = "the file is quantised" if quantised else "float needs none"
        output.print(f"--calibration {calibration}: not used, {reason}")


def calibration_of(graph: nir.NIRGraph, source: str, split: str | None) -> Arrays:
    if arrays.is_array_file(source) and not is_array_source(source):
        return arrays.load(Path(source))
    return calibration_arrays(graph, source, split)


def steps_of(program: Program, inputs: Arrays | None) -> int | None:
    """Return the steps of a sample: the arrays', else the file's; None if neither says."""
    if inputs is None:
        return program.steps
    first = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
    return int(first.shape[1])


def run_source(
    graph: nir.NIRGraph,
    program: Program,
    source: str,
    selection: tuple[str | None, int | None, int, int | None],
    run_inputs: Run,
) -> tuple[Execution, dict[str, object]]:
    """Run the test part of a SOURCE of clips or arrays; `selection` is its split, limit, seed and steps."""
    split, limit, seed, steps = selection
    if is_array_source(source):
        labelled = open_arrays(source, limit=limit).by_input([p.name for p in program.inputs])
        return _run_samples(program, labelled, steps, run_inputs)
    clips = open_source(source, split=split, part="test", limit=limit, seed=seed)
    return _run_clips(graph, program, clips, run_inputs)


def _run_clips(
    graph: nir.NIRGraph, program: Program, clips: ClipSet, run_inputs: Run
) -> tuple[Execution, dict[str, object]]:
    """Run clips, print the accuracy, and return what the manifest says about the data."""
    inputs = clip_inputs(graph, program, clips)
    execution = run_inputs(program, inputs.inputs)
    correct = int((inputs.predictions(execution) == inputs.labels).sum())
    what = f"top-1 {correct / len(clips):.1%} on {len(clips)} clips ({len(inputs.inputs)} bodies)"
    _print_run(program, execution, what, "clip", len(clips))
    return execution, {"source": clips.source, "split": clips.split, "clips": len(clips)}


def run_arrays(
    program: Program, source: str, inputs: Arrays, limit: int | None, run_inputs: Run
) -> tuple[Execution, dict[str, object]]:
    """Do as `_run_clips` does, for arrays from the file `source`."""
    limited = {name: x[:limit] for name, x in inputs.items()} if isinstance(inputs, Mapping) else inputs[:limit]
    execution = run_inputs(program, limited)
    _print_run(
        program, execution, f"{execution.samples} samples of {execution.steps} steps", "sample", execution.samples
    )
    return execution, {"source": source, "split": None, "clips": execution.samples}


def _run_samples(
    program: Program, samples: ArraySet, steps: int | None, run_inputs: Run
) -> tuple[Execution, dict[str, object]]:
    """Do as `_run_clips` does, for labelled arrays."""
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
    from mksgn.bench.pricing import energy_lines  # of the next stage, on which nothing else here depends

    for line in energy_lines(program, execution, count, unit):
        output.print(line)


def check_limits(program: Program, chip: Chip, how: str, out: Path | None) -> None:
    placement = compact(program, chip)
    if how == "balanced":
        from mksgn.bench.timing import expected_balance  # the latencies are in the next stage

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
        raise ChipLimitError(violations[0], violations[1:])
    output.print(Fit.of(limits).text(chip.name))
    output.print(
        f"{counted(placement.cores, 'core')} on {counted(placement.chips, 'chip')} of {chip.name} (source: {chip.source})"
    )
