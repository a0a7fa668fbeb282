"""mksgn-bench: count the events of a run, price them with energy models, and compare them with published figures."""

from pathlib import Path
from typing import Annotated

import typer

from mksgn.bench import run_files
from mksgn.bench.choices import PAPER_MODEL
from mksgn.bench.options import (
    AllowDifferentData,
    AllowDifferentPrices,
    Calibration,
    ClaimFiles,
    Decode,
    Identical,
    Markdown,
    ModelFiles,
    ModelName,
    Overwrite,
    OverwriteFile,
    RequiredClaims,
    Resume,
    RunFolder,
    TimingFiles,
    limit_of,
)
from mksgn.common.console import Json, importing, new_app, output, print_json, run_app, wrote
from mksgn.common.counts import MOST_PROCESSES, MOST_REPEATS, MOST_SAMPLES, MOST_SEED, MOST_STEPS, count
from mksgn.common.extras import require
from mksgn.common.replacement import require_file
from mksgn.deploy.backends import backend_or_default
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
from mksgn.train.options import Split

NAME = "mksgn-bench"
app = new_app("Count a network's spikes and synaptic operations, price them, and compare them with published energies.")


@app.command()
def run(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="NIR file.")],
    data: Annotated[str, typer.Option(metavar="SOURCE", help="Clips, or npz:FILE or npy:X[,Y]; the test part is run.")],
    split: Split = None,
    limit: Annotated[int | None, count(most=MOST_SAMPLES, help="Largest number of samples to run.")] = None,
    steps: Annotated[int | None, count(most=MOST_STEPS, help="Time steps of arrays without a time axis.")] = None,
    seed: Annotated[int, count(least=0, most=MOST_SEED, help="Seed of synthetic clips.")] = 0,
    backend: Backend = None,
    precision: Precision = "fixed",
    calibration: Calibration = None,
    dt: TimeStep = 1e-4,
    if_dt: IfTimeStep = None,
    reset: Reset = "zero",
    v_init: VInit = "zero",
    integration: Integration = "euler",
    spike_delay: SpikeDelay = 0,
    analog: Analog = None,
    decode: Decode = "sum",
    chip: ChipName = "loihi2",
    chip_file: ChipFiles = None,
    compare: Annotated[
        int | None, count(least=0, most=MOST_SAMPLES, help="Samples whose spikes are compared; default: all.")
    ] = None,
    repeat: Annotated[
        int, count(most=MOST_REPEATS, help="Number of runs of each sample, for the spread of times.")
    ] = 1,
    shard: Annotated[int | None, count(most=MOST_SAMPLES, help="Samples per save: a batch, or 64 in Lava.")] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    energy_model: ModelFiles = None,
    timing_model: TimingFiles = None,
    place: Place = "compact",
    claims: ClaimFiles = None,
    require_claim: RequiredClaims = None,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder of the run.")] = Path(
        "runs/bench"
    ),
    as_json: Json = False,
) -> None:
    """Run labelled samples through any NIR graph, count events and price them.

    Writes the record, spikes, reports, a log and a manifest. A run that was killed continues with --resume and ends
    with the same record; it loses at most the shard in progress, or a few that take only milliseconds.

    Example: mksgn-bench run runs/demo/model.nir --data synthetic --limit 100 -o runs/demo

    Example: mksgn-bench run net.nir --data npz:samples.npz --calibration npz:samples.npz --steps 12 --analog input
    """
    run_files.RUN.check(out, resume=resume, overwrite=overwrite)
    require_file(model, NO_GRAPH)
    with importing(NAME):
        from mksgn.bench import folder, summary
        from mksgn.bench.accuracy import torch_accuracy
        from mksgn.bench.claims import published_claims
        from mksgn.bench.energy_models import known_models
        from mksgn.bench.evaluation import EvaluationOptions
        from mksgn.bench.run import bench
        from mksgn.bench.samples import open_samples
        from mksgn.bench.shards import Settings
        from mksgn.bench.timing_models import known_timing_models
        from mksgn.bench.verdicts import require_claims
        from mksgn.deploy.decode import Decoding
        from mksgn.deploy.placement.chips import known_chips
        from mksgn.export.quantization.samples import calibration_arrays
        from mksgn.train.datasets.arrays import is_array_source
    models, times = known_models(energy_model or ()), known_timing_models(timing_model or ())
    chips, balance = known_chips(chip_file or ()), place == "balanced"
    options = EvaluationOptions(chip, models, published_claims(claims or ()), chips, times, balance)
    compiling = Reading(dt, if_dt, reset, v_init, integration, spike_delay, tuple(analog or ()))
    settings = Settings(backend_or_default(backend), precision, compare, repeat, Decoding.of(decode), compiling)  # type: ignore[arg-type]
    samples = open_samples(data, split=split, limit=limit, seed=seed, steps=steps)
    for note in samples.notes:
        output.print(note)
    given = None if calibration is None else calibration_arrays(model, calibration, split)
    record = bench(
        model, samples, out, settings, seed=None if is_array_source(data) else seed, options=options, resume=resume,
        overwrite=overwrite, shard=shard, steps=steps, calibration=given,
    )  # fmt: skip
    if as_json:
        print_json(record.model_dump(mode="json", by_alias=True))
    else:
        summary.show(record, torch_accuracy(model, samples))
    folder.show_place(out)
    require_claims(out, record, require_claim, options.claims)


@app.command()
def report(
    run_folder: RunFolder,
    energy_model: ModelFiles = None,
    claims: ClaimFiles = None,
    require_claim: RequiredClaims = None,
) -> None:
    """Rewrite the reports of a run.

    Additional energy models and published figures change report.html and report.md, but not run.json.

    Example: mksgn-bench report runs/demo
    """
    with importing(NAME):
        from mksgn.bench.claims import published_claims
        from mksgn.bench.energy_models import known_models
        from mksgn.bench.folder import write_reports
        from mksgn.bench.record_io import load
        from mksgn.bench.verdicts import evaluate_claims, require_claims
    models = known_models(energy_model) if energy_model else None
    published = published_claims(claims) if claims else None
    for path in write_reports(run_folder, models, published):
        wrote(path, word="report: ")
    require_claims(run_folder, evaluate_claims(load(run_folder), models, published), require_claim, published)


@app.command()
def check(
    run_folder: RunFolder,
    near: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Another file or folder in which to look for the model and its parents; may be repeated.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail if the model or a parent is not found.")] = False,
    energy_model: ModelFiles = None,
    chip_file: ChipFiles = None,
    as_json: Json = False,
) -> None:
    """Check a run's folder for faults.

    Verifies hashes, figures that follow from others, and the chain of parents; exit code 2 on any fault.

    Example: mksgn-bench check runs/ref --near runs/demo
    """
    with importing(NAME):
        from mksgn.bench.check.check import check as check_folder
        from mksgn.bench.energy_models import known_models
        from mksgn.deploy.placement.chips import known_chips
    chips = known_chips(chip_file or ())
    models = known_models(energy_model) if energy_model else None
    result = check_folder(run_folder, near=near or (), strict=strict, models=models, chips=chips)
    result.show(as_json=as_json)
    result.raise_faults()
    output.print(f"{run_folder}: no fault found")


@app.command()
def compare(
    reference: Annotated[
        Path,
        typer.Argument(metavar="REFERENCE", help="Folder of the reference run, a run.json, or a NIRData recording."),
    ],
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of the run to compare, a run.json, or a NIRData recording.")
    ],
    max_drop_accuracy: Annotated[float | None, limit_of("Allowed drop of top-1: 0.01 allows 0.98 after 0.99.")] = None,
    max_rise_energy: Annotated[float | None, limit_of("Allowed relative rise: 0.05 allows 105 after 100.")] = None,
    under: ModelName = PAPER_MODEL,
    max_rise_spikes: Annotated[float | None, limit_of("Allowed relative rise.")] = None,
    max_rise_syn_ops: Annotated[float | None, limit_of("Allowed relative rise.")] = None,
    max_rise_latency: Annotated[float | None, limit_of("Allowed relative rise, first input to last output.")] = None,
    max_rise_cores: Annotated[float | None, limit_of("Allowed relative rise.")] = None,
    identical: Identical = False,
    allow_different_data: AllowDifferentData = False,
    allow_different_prices: AllowDifferentPrices = False,
    markdown: Markdown = None,
    overwrite: OverwriteFile = False,
    as_json: Json = False,
) -> None:
    """Compare two runs, with optional bounds.

    Shows the differences by figure, class and layer; exit code 5 if a bound is missed. Where one of the two is a
    recording that nir.write_data wrote, compares the spikes, decision by decision.

    Example: mksgn-bench compare runs/ref runs/new --max-drop-accuracy 0.005 --max-rise-energy 0.05
    """
    with importing(NAME):
        from mksgn.bench.compare import recordings, tables
        from mksgn.bench.compare.command import compare_recordings, compare_runs
        from mksgn.bench.compare.gate import Bounds
        from mksgn.bench.targets import check_markdown
    rises = (max_rise_energy, max_rise_spikes, max_rise_syn_ops, max_rise_latency, max_rise_cores)
    bounds = Bounds(max_drop_accuracy, *rises, identical=identical, energy_model=under)
    if recordings.is_recording(reference) or recordings.is_recording(run_folder):
        check_markdown(markdown, recordings.is_markdown, overwrite=overwrite)
        compare_recordings(reference, run_folder, bounds, markdown, as_json=as_json)
        return
    check_markdown(markdown, tables.is_markdown, overwrite=overwrite)
    allowed = allow_different_data, allow_different_prices
    compare_runs(reference, run_folder, bounds, allowed, markdown, as_json=as_json)


@app.command("nir-data")
def write_nir_data(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of mksgn-deploy -o or mksgn-bench run.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write.")],
    overwrite: OverwriteFile = False,
) -> None:
    """Write a run's spike trains in nir's own data format, for nir.read_data.

    Example: mksgn-bench nir-data runs/foreign -o runs/foreign.h5
    """
    with importing(NAME):
        from mksgn.common.writing import check_replaceable
        from mksgn.deploy import nir_data
    check_replaceable(out, False, "known to be a recording", overwrite=overwrite)
    recording = nir_data.of_folder(run_folder)
    nir_data.write(recording, out, nir_data.dt_of_folder(run_folder))
    samples = len(next(iter(recording.spikes.values()))) if recording.spikes else 0
    wrote(out, f": {len(recording.spikes)} populations, {samples} samples")


@app.command("beside", hidden=True)  # its former name
@app.command("compare-chip")
def compare_chip(
    run_folder: RunFolder,
    counts: Annotated[
        Path | None, typer.Argument(metavar="COUNTS", help="YAML or JSON file of counters from a chip.")
    ] = None,
    template: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a file to fill in, and stop.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Show equal counters too.")] = False,
    model_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the measured energy as a file of energy models.")
    ] = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Compare a chip's counters with a run.

    Compares the counters of each population, and the measured energy with every energy model.

    Example: mksgn-bench compare-chip runs/ref --template counts.yaml

    Example: mksgn-bench compare-chip runs/ref counts.yaml
    """
    with importing(NAME):
        from mksgn.bench.chip_counts import comparison as chip
        from mksgn.bench.chip_counts import counts as chip_counts
        from mksgn.bench.chip_counts import tables as chip_tables
        from mksgn.bench.compare.runs import clip_names
        from mksgn.bench.record_io import load
        from mksgn.bench.targets import write_new
    record = load(run_folder)
    clips = clip_names(run_folder)
    if template is not None:
        write_new(template, chip_counts.template(record, clips), "an unfilled template", overwrite=overwrite)
        wrote(template, ": fill in the counters of your chip")
        return
    if counts is None:
        raise typer.BadParameter("name a file of counters, or write one with --template")
    read_out = chip_counts.read(counts)
    comparison = chip.compare_chip(record, read_out, clips=clips)
    for part in (*chip_tables.tables(comparison, every=every), *chip_tables.sentences(comparison)):
        output.print(part)
    if model_file is not None:
        models = chip_counts.models_file([chip_counts.model_of(read_out, record)])
        write_new(model_file, models, "this energy model", overwrite=overwrite)
        wrote(model_file)


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file of axes and data (docs/bench.md).")],
    workers: Annotated[int | None, count(most=MOST_PROCESSES, help="Local processes; default: one per core.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler to use instead of local processes.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    energy_model: ModelFiles = None,
    chip_file: ChipFiles = None,
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="Folder of the sweep.")] = Path(
        "runs/sweep"
    ),
) -> None:
    """Run a grid of networks over a data set.

    Varies network, time steps, thresholds, weight bits and chip, in parallel with Dask. Writes a run's folder for each
    point into points/, and the Pareto front of accuracy and energy as table and picture.

    Example: mksgn-bench sweep grid.yaml --workers 2 -o runs/sweep
    """
    run_files.SWEEP.check(out, resume=resume, overwrite=overwrite)
    with importing(NAME):
        require("a sweep", "sweep", "distributed")
        require("the picture of a Pareto front", "report", "matplotlib")
        from mksgn.bench.energy_models import known_models
        from mksgn.bench.sweep.command import sweep_and_show
        from mksgn.bench.sweep.grid import read
        from mksgn.deploy.placement.chips import known_chips
    models, chips = known_models(energy_model or ()), known_chips(chip_file or ())
    sweep_and_show(
        read(grid, chips), out, models, chips,
        workers=workers, scheduler=scheduler, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def main() -> None:
    """Run the command."""
    run_app(app, NAME)


if __name__ == "__main__":
    main()
