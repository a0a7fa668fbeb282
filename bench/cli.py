"""mksgn-bench: measured spikes beside the theory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mksgn.bench import folder, theory
from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import EnergyModel, known_models, model_named
from mksgn.bench.record import Record
from mksgn.bench.run import Judges, bench, torch_accuracy
from mksgn.bench.shards import Settings
from mksgn.train.console import new_app, output, run_app
from mksgn.train.datasets import open_source

app = new_app("Lay the spikes that were really counted beside the published energy.")

ModelFiles = Annotated[
    list[Path] | None, typer.Option("--energy-model", help="a YAML file of further energy models; may be repeated")
]
ClaimFiles = Annotated[
    list[Path] | None, typer.Option("--claims", help="a YAML file of further published figures; may be repeated")
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
    out: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")] = Path("runs/bench"),
) -> None:
    """Run clips, count, price, compare, and write run.json, spikes.npz, the reports, a log and manifest.json.

    A run that was killed goes on with --resume and ends in the same record; it loses the shard in hand at most.

    Example: mksgn-bench run runs/demo/model.nir --data synthetic --limit 100 -o runs/demo
    """
    judges = Judges(chip, _models(energy_model), _claims(claims))
    settings = Settings(backend, precision, compare, repeat)  # type: ignore[arg-type]  # Settings names what it refuses
    clips = open_source(data, split=split, part="test", limit=limit, seed=seed)
    record = bench(model, clips, out, settings, seed=seed, judges=judges, resume=resume, shard=shard)
    in_torch = torch_accuracy(model, clips)
    _print(record, in_torch)
    output.print(f"report: {out / 'report.html'}")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="DIR", help="folder of a run")],
    energy_model: ModelFiles = None,
    claims: ClaimFiles = None,
) -> None:
    """Write report.html and report.md anew from a run's record, with further energy models and claims if they are given.

    Example: mksgn-bench report runs/demo
    """
    for path in folder.write_reports(run_folder, _models(energy_model), _claims(claims)):
        output.print(f"report: {path}")


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
    from mksgn.bench import sweep as sweeps  # Dask takes a second to import
    from mksgn.bench.sweep import pareto
    from mksgn.bench.sweep.grid import read

    asked, models = read(grid), known_models(energy_model or ())
    records = sweeps.sweep(asked, out, workers=workers, scheduler=scheduler, resume=resume, models=models)
    points = pareto.rows(asked, records, [model_named(name, models) for name in asked.energy_models])
    paths = pareto.write(out, asked, points)
    for model in asked.energy_models:
        output.print(pareto.table(points, model))
    output.print(f"wrote {', '.join(map(str, paths))}")


def _models(paths: list[Path] | None) -> list[EnergyModel] | None:
    return known_models(paths) if paths else None


def _claims(paths: list[Path] | None) -> list[Published] | None:
    return published_claims(paths) if paths else None


def _print(record: Record, in_torch: float | None) -> None:
    clips = record.data.clips
    formula = theory.theory_of(record)
    rows = {row.name: row for row in formula.layers}
    table = Table(title=f"per clip, over {clips} clips of {record.data.source}", title_justify="left")
    for heading in ("population", "firing rate", "spikes", "syn_ops", "theory SOPs", "uJ at 0.9 pJ"):
        table.add_column(heading, justify="left" if heading == "population" else "right")
    for layer in record.layers:
        row = rows[layer.name]
        table.add_row(
            layer.name,
            f"{layer.firing_rate:.2%}",
            f"{layer.spikes / clips:,.0f}",
            f"{layer.syn_ops / clips:,.0f}" if layer.place == "chip" else f"{row.macs:,.0f} MACs",
            f"{row.theory_sops:,.0f}" if layer.place == "chip" else "–",
            f"{row.measured_mJ * 1e3:,.3f}",
        )
    output.print(table)
    execution, totals = record.execution, record.totals
    if record.accuracy is not None:
        if in_torch is not None:
            output.print(f"top-1 in torch, unquantised            {in_torch:7.1%}")
        output.print(
            f"top-1 in {execution.backend + ', ' + execution.precision + ' point':<30}{record.accuracy.top1:7.1%}"
        )
    output.print(f"spikes per clip                        {totals.spikes:14,.0f}")
    output.print(f"syn_ops per clip                       {totals.syn_ops:14,.0f}")
    for entry in record.energy:
        if entry.total_mJ is not None:
            note = f"{entry.evidence}; excludes {', '.join(entry.excludes)}"
            output.print(f"energy per clip, {entry.model:<22}{entry.total_mJ:14.6f} mJ   ({note})")
        elif entry.terms:
            note = f"{entry.evidence}; no price: {', '.join(entry.unpriced)}"
            output.print(f"energy per clip, {entry.model:<19} >= {entry.priced_mJ:13.6f} mJ   ({note})")
    output.print(
        f"energy per clip, theory               {formula.energy_mJ:15.6f} mJ   (paper's formula, measured rates)"
    )
    for claim in record.claims:
        here = "–" if claim.measured is None else f"{claim.measured:.4g}"
        output.print(
            f"{claim.name}: published {claim.published:g} {claim.unit}, this run {here} (verdict in the report)"
        )
    if record.parity is not None:
        parity = record.parity
        output.print(
            f"parity against {parity.against}: {parity.mismatches} mismatches in {parity.decisions:,} decisions"
        )
    spread = ""
    if execution.repeats > 1:
        spread = f" ({execution.seconds_min:.1f} to {execution.seconds_max:.1f} s in {execution.repeats} repetitions)"
    speed = f"{execution.seconds:.1f} s{spread}, {execution.clips_per_second:.1f} clips/s on this host"
    output.print(f"{speed}; latency {execution.latency_steps} steps")


def main() -> None:
    run_app(app, "mksgn-bench")


if __name__ == "__main__":
    main()
