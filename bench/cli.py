"""mksgn-bench: measured spikes beside the theory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mksgn.bench import theory
from mksgn.bench.record import Record
from mksgn.bench.report import write_report
from mksgn.bench.run import bench, torch_accuracy
from mksgn.train.console import new_app, output, run_app
from mksgn.train.datasets import open_source

app = new_app("Lay the spikes that were really counted beside the published energy.")


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="a NIR file")],
    data: Annotated[str, typer.Option(help="SOURCE of clips; the test part of its split is run")],
    split: Annotated[str | None, typer.Option(help="name of the benchmark's split")] = None,
    limit: Annotated[int | None, typer.Option(help="so many clips at most", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of synthetic clips", min=0, max=2**31)] = 0,
    backend: Annotated[str, typer.Option(help="lava or emulator")] = "lava",
    precision: Annotated[str, typer.Option(help="fixed or float")] = "fixed",
    compare: Annotated[
        int | None, typer.Option(help="compare spikes on the first N clips; default: all", min=0)
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")] = Path("runs/bench"),
) -> None:
    """Run clips, count, price, compare, and write run.json, spikes.npz, manifest.json and report.html.

    Example: mksgn-bench run runs/demo/model.nir --data synthetic --limit 100 -o runs/demo
    """
    clips = open_source(data, split=split, part="test", limit=limit, seed=seed)
    record = bench(model, clips, out, backend=backend, precision=precision, seed=seed, compare=compare)
    in_torch = torch_accuracy(model, clips)
    _print(record, in_torch)
    output.print(f"report: {write_report(out)}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="folder of a run")]) -> None:
    """Write report.html anew from a run's record.

    Example: mksgn-bench report runs/demo
    """
    output.print(f"report: {write_report(folder)}")


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
    speed = f"{execution.seconds:.1f} s, {execution.clips_per_second:.1f} clips/s on this host"
    output.print(f"{speed}; latency {execution.latency_steps} steps")


def main() -> None:
    run_app(app, "mksgn-bench")


if __name__ == "__main__":
    main()
