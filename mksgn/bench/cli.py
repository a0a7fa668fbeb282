"""mksgn-bench: measured spikes beside the theory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mksgn.bench import folder, summary
from mksgn.bench.accuracy import torch_accuracy
from mksgn.bench.check.check import check as check_folder
from mksgn.bench.chip_counts import counts as chip
from mksgn.bench.chip_counts import tables as beside_shown
from mksgn.bench.chip_counts.comparison import beside as lay_beside
from mksgn.bench.claims import Published, published_claims
from mksgn.bench.compare import tables as show
from mksgn.bench.compare.gate import Bounds, judge, raise_missed
from mksgn.bench.compare.runs import clip_names, compare_folders
from mksgn.bench.energy_models import EnergyModel, known_models, model_named
from mksgn.bench.errors import BoundMissedError
from mksgn.bench.evaluation import EvaluationOptions
from mksgn.bench.record import Record
from mksgn.bench.record_io import load, write_atomically
from mksgn.bench.run import bench
from mksgn.bench.shards import Settings
from mksgn.bench.theory import PAPER_MODEL
from mksgn.bench.verdicts import evaluate_claims, gate
from mksgn.common.console import new_app, output, run_app
from mksgn.export.errors import ParityError
from mksgn.train.datasets import open_source

app = new_app("Lay the spikes that were really counted beside the published energy.")

ModelFiles = Annotated[
    list[Path] | None, typer.Option("--energy-model", help="a YAML file of further energy models; may be repeated")
]
ClaimFiles = Annotated[
    list[Path] | None, typer.Option("--claims", help="a YAML file of further published figures; may be repeated")
]
RequiredClaims = Annotated[
    list[str] | None,
    typer.Option("--require-claim", help="NAME or NAME@ENERGYMODEL that must hold, else exit code 5; may be repeated"),
]


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="a NIR file")],
    data: Annotated[str, typer.Option(help="SOURCE of clips; the test part of its split is run")],
    split: Annotated[str | None, typer.Option(help="name of the benchmark's split")] = None,
    limit: Annotated[int | None, typer.Option(help="so many clips at most", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of synthetic clips", min=0, max=2**31)] = 0,
    backend: Annotated[str, typer.Option(help="lava or emulator")] = "lava",
    precision: Annotated[str, typer.Option(help="fixed or float")] = "fixed",
    chip: Annotated[str, typer.Option(help="whose cores the network is placed on: loihi2 or loihi1")] = "loihi2",
    compare: Annotated[
        int | None, typer.Option(help="compare spikes on the first N clips; default: all", min=0)
    ] = None,
    repeat: Annotated[int, typer.Option(help="run every clip so many times, for the spread of the times", min=1)] = 1,
    shard: Annotated[
        int | None,
        typer.Option(
            help="clips that are kept together; default: what the emulator computes at once, in Lava 64", min=1
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in the folder")] = False,
    energy_model: ModelFiles = None,
    claims: ClaimFiles = None,
    require_claim: RequiredClaims = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")] = Path("runs/bench"),
) -> None:
    """Run clips, count, price, compare, and write run.json, spikes.npz, the reports, a log and manifest.json.

    A run that was killed goes on with --resume and ends in the same record; it loses the shard in hand at most.

    Example: mksgn-bench run runs/demo/model.nir --data synthetic --limit 100 -o runs/demo
    """
    options = EvaluationOptions(chip, known_models(energy_model or ()), published_claims(claims or ()))
    settings = Settings(backend, precision, compare, repeat)  # type: ignore[arg-type]  # Settings names what it refuses
    clips = open_source(data, split=split, part="test", limit=limit, seed=seed)
    for note in clips.notes:
        output.print(note)
    record = bench(model, clips, out, settings, seed=seed, options=options, resume=resume, shard=shard)
    summary.show(record, torch_accuracy(model, clips))
    output.print(f"report: {out / 'report.html'}")
    _require(out, record, require_claim, options.claims)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of a run")],
    energy_model: ModelFiles = None,
    claims: ClaimFiles = None,
    require_claim: RequiredClaims = None,
) -> None:
    """Write report.html and report.md anew from a run's record, with further energy models and claims if they are given.

    Example: mksgn-bench report runs/demo
    """
    models, published = _models(energy_model), _claims(claims)
    for path in folder.write_reports(run_folder, models, published):
        output.print(f"report: {path}")
    _require(run_folder, evaluate_claims(load(run_folder), models, published), require_claim, published)


@app.command()
def check(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of a run")],
    near: Annotated[
        list[Path] | None, typer.Option(help="where the model and its parents may lie besides; may be repeated")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="a model or parent that is not found is a fault")] = False,
    energy_model: ModelFiles = None,
) -> None:
    """Check a run's hashes, its figures against each other, and the chain of its parents; exit code 2 on any fault.

    Example: mksgn-bench check runs/ref --near runs/demo
    """
    result = check_folder(run_folder, near=near or (), strict=strict, models=_models(energy_model))
    for line in result.lines():
        output.print(line)
    result.raise_faults()
    output.print(f"{run_folder}: no fault found")


@app.command()
def compare(
    reference: Annotated[Path, typer.Argument(metavar="A", help="folder of the reference run, or its run.json")],
    run_folder: Annotated[Path, typer.Argument(metavar="B", help="folder of the run held against it, or its run.json")],
    max_drop_accuracy: Annotated[
        float | None, typer.Option(help="of top-1 on the scale 0 to 1: 0.005 allows 0.985 after 0.990")
    ] = None,
    max_rise_energy: Annotated[float | None, typer.Option(help="relative: 0.05 allows 105 after 100")] = None,
    under: Annotated[
        str, typer.Option(metavar="NAME", help="energy model that --max-rise-energy is about")
    ] = PAPER_MODEL,
    max_rise_spikes: Annotated[float | None, typer.Option(help="relative")] = None,
    max_rise_syn_ops: Annotated[float | None, typer.Option(help="relative")] = None,
    max_rise_latency: Annotated[
        float | None, typer.Option(help="relative, of the steps from a clip's first input to its last output")
    ] = None,
    max_rise_cores: Annotated[float | None, typer.Option(help="relative")] = None,
    identical: Annotated[
        bool, typer.Option("--identical", help="every count and prediction equal; times and environment may differ")
    ] = False,
    allow_different_data: Annotated[
        bool, typer.Option("--allow-different-data", help="judge bounds although the runs are of other clips")
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="write the comparison there too, for a pull request")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Differences of B against A, per figure, class and layer; exit code 5 where a bound is missed.

    Example: mksgn-bench compare runs/ref runs/new --max-drop-accuracy 0.005 --max-rise-energy 0.05
    """
    bounds = Bounds(
        max_drop_accuracy,
        max_rise_energy,
        max_rise_spikes,
        max_rise_syn_ops,
        max_rise_latency,
        max_rise_cores,
        identical,
        under,
    )
    found = compare_folders(reference, run_folder)
    verdicts = judge(found, bounds, allow_different_data=allow_different_data)
    if markdown is not None:
        write_atomically(markdown, show.markdown(found, verdicts))
    if as_json:
        print(show.as_json(found, verdicts))
    else:
        for table in show.tables(found, verdicts):
            output.print(table)
        for line in show.notes(found):
            output.print(line)
    raise_missed(found, verdicts)


@app.command()
def beside(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of a run")],
    counts: Annotated[Path | None, typer.Argument(metavar="COUNTS", help="a chip's counters: YAML or JSON")] = None,
    template: Annotated[
        Path | None, typer.Option(help="write a file of counters to be filled in for this run, and stop")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="show equal counters too")] = False,
    model_file: Annotated[
        Path | None, typer.Option(help="write the measured energy there, as a file of energy models")
    ] = None,
) -> None:
    """Lay a chip's own counters beside a run's, population by population, and its measured energy beside every price list.

    Examples: mksgn-bench beside runs/ref --template counts.yaml
              mksgn-bench beside runs/ref counts.yaml
    """
    record = load(run_folder)
    clips = clip_names(run_folder)
    if template is not None:
        write_atomically(template, chip.template(record, clips))
        output.print(f"wrote {template}: fill in what your chip counted")
        return
    if counts is None:
        raise typer.BadParameter("name a file of counters, or write one with --template")
    read_out = chip.read(counts)
    found = lay_beside(record, read_out, clips=clips)
    for table in beside_shown.tables(found, every=every):
        output.print(table)
    for line in beside_shown.sentences(found):
        output.print(line)
    if model_file is not None:
        write_atomically(model_file, chip.models_file([chip.model_of(read_out, record)]))
        output.print(f"wrote {model_file}")


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="a YAML file of axes and data (docs/bench.md)")],
    workers: Annotated[int | None, typer.Option(help="processes on this machine; default: one per core", min=1)] = None,
    scheduler: Annotated[str | None, typer.Option(help="address of a Dask scheduler to use instead")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with what is in the folder")] = False,
    energy_model: ModelFiles = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="folder of the sweep")] = Path("runs/sweep"),
) -> None:
    """Run a grid of time steps, thresholds, bits, networks and chips over a whole data set, spread over Dask's workers.

    Leaves a run's folder for each point in points/, and the Pareto front of accuracy against energy as table and picture.

    Example: mksgn-bench sweep grid.yaml --workers 2 -o runs/sweep
    """
    from mksgn.bench.sweep import pareto
    from mksgn.bench.sweep import sweep as sweeps
    from mksgn.bench.sweep.grid import read

    asked, models = read(grid), known_models(energy_model or ())
    records = sweeps.sweep(asked, out, workers=workers, scheduler=scheduler, resume=resume, models=models)
    points = pareto.rows(asked, records, [model_named(name, models) for name in asked.energy_models])
    paths = pareto.write(out, asked, points)
    for model in asked.energy_models:
        output.print(pareto.table(points, model))
    output.print(f"wrote {', '.join(map(str, paths))}")
    apart = [f"{row.label}: {row.mismatches}" for row in points if row.mismatches]
    if apart:
        raise ParityError(f"{out}: spikes differ from torch's, decisions by point: {'; '.join(apart)}")


def _require(place: Path, record: Record, required: list[str] | None, published: list[Published] | None) -> None:
    gates = [gate(record, name, published) for name in required or ()]
    for found in gates:
        output.print(found.text)
    missed = [found.text for found in gates if found.missed]
    if missed:
        raise BoundMissedError(str(place), missed)


def _models(paths: list[Path] | None) -> list[EnergyModel] | None:
    return known_models(paths) if paths else None


def _claims(paths: list[Path] | None) -> list[Published] | None:
    return published_claims(paths) if paths else None


def main() -> None:
    run_app(app, "mksgn-bench")


if __name__ == "__main__":
    main()
