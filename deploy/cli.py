"""mksgn-deploy: model.nir → a program, and its spikes in Lava or in the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mksgn.deploy import compile_graph, record, run
from mksgn.deploy.chips import chip_named
from mksgn.deploy.clips import clip_inputs
from mksgn.deploy.errors import ChipLimitError
from mksgn.deploy.passes.place import Placement, place
from mksgn.deploy.passes.schedule import schedule
from mksgn.deploy.program import Program
from mksgn.export import files
from mksgn.train.console import new_app, output, run_app
from mksgn.train.datasets import open_source

app = new_app("Compile a NIR graph for Loihi-compatible simulation, and run it.")


@app.command()
def deploy(
    model: Annotated[Path, typer.Argument(help="a NIR file")],
    data: Annotated[str | None, typer.Option(help="SOURCE of clips to run")] = None,
    split: Annotated[str | None, typer.Option(help="split of SOURCE; its test part is run")] = None,
    limit: Annotated[int | None, typer.Option(help="so many clips at most", min=1)] = None,
    seed: Annotated[int, typer.Option(help="of synthetic clips", min=0, max=2**31)] = 0,
    backend: Annotated[str, typer.Option(help="lava or emulator")] = "lava",
    precision: Annotated[str, typer.Option(help="fixed or float")] = "fixed",
    chip: Annotated[str, typer.Option(help="loihi2 or loihi1")] = "loihi2",
    check: Annotated[
        bool, typer.Option("--check", help="hold the program against the chip's limits; exit code 4")
    ] = False,
    describe: Annotated[
        bool, typer.Option("--describe", help="depth, delays, reset offset and window of each population")
    ] = False,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="folder for spikes.npz and manifest.json")] = None,
) -> None:
    """Compile, and run the clips of SOURCE.

    Example: mksgn-deploy runs/demo/model.nir --data synthetic --limit 8 --backend lava -o runs/deploy
    """
    graph = files.read(model)
    program = compile_graph(graph, precision=precision)
    if describe:
        _describe(program)
    if check:
        _check(place(program, chip_named(chip)))
    if data is None:
        if not (describe or check):
            output.print(
                f"{model}: {len(program.populations)} populations, latency {program.latency} steps; give --data to run clips"
            )
        return
    clips = open_source(data, split=split, part="test", limit=limit, seed=seed)
    given = clip_inputs(graph, program, clips)
    execution = run(program, given.inputs, backend=backend)
    correct = int((given.predictions(execution) == given.labels).sum())
    spikes = sum(c.spikes for c in execution.counters.values())
    output.print(
        f"{backend} {precision}: top-1 {correct / len(clips):.1%} on {len(clips)} clips ({len(given.inputs)} bodies), "
        f"{spikes / len(clips):,.0f} spikes per clip, {execution.seconds:.1f} s"
    )
    silent = [p.name for p in program.neurons if not execution.counters[p.name].spikes]
    if silent:
        output.print(f"never fired on these clips: {', '.join(silent)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        record.write_spikes(execution, out / "spikes.npz")
        facts = {
            "data": {"source": clips.source, "split": clips.split, "clips": len(clips)},
            "execution": {"backend": backend, "precision": precision, "steps": execution.steps},
        }
        parent = graph.metadata.get("parent")
        record.write_manifest(out, model=model, parents=[parent] if parent else [], program=program, facts=facts)
        output.print(f"wrote {out / 'spikes.npz'} and manifest.json")


def _describe(program: Program) -> None:
    steps = program.steps or 1
    windows = schedule(program, 1, steps)
    table = Table(
        title=f"{program.precision} point, one clip every {steps} steps, latency {program.latency}",
        title_justify="left",
    )
    for heading in ("population", "kind", "place", "shape", "depth", "delays", "reset offset", "first clip's window"):
        table.add_column(
            heading, justify="left" if heading in ("population", "kind", "place", "shape", "delays") else "right"
        )
    for p in program.populations:
        delays = ", ".join(
            f"{s} +{d}" for q in program.into(p.name) for s, d in zip(q.sources, q.delays, strict=True) if d
        )
        window = windows[p.name]
        shape = " x ".join(map(str, p.shape))
        table.add_row(
            p.name,
            p.kind,
            p.place,
            shape,
            str(p.depth),
            delays or "–",
            str(window.offset),
            f"{window.offset} … {window.end - 1}",
        )
    output.print(table)


def _check(placement: Placement) -> None:
    violations = placement.violations()
    if violations:
        raise ChipLimitError("\n".join(violations))
    for name, value, limit in placement.limits:
        output.print(f"{placement.chip.name}: {name} {value:,} of {limit:,}")
    output.print(
        f"{placement.cores} cores on {placement.chips} chips of {placement.chip.name} (source: {placement.chip.source})"
    )


def main() -> None:
    run_app(app, "mksgn-deploy")


if __name__ == "__main__":
    main()
