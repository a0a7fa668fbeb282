"""What mksgn-bench sweep does; mksgn/bench/cli.py imports it when the command runs."""

from pathlib import Path

from mksgn.bench.energy_models import EnergyModel, model_named
from mksgn.bench.run_files import SWEEP
from mksgn.bench.sweep import pareto, sweep
from mksgn.bench.sweep.folder import pictures
from mksgn.bench.sweep.grid import Grid
from mksgn.common.console import output, wrote
from mksgn.deploy.placement.chips import Chip
from mksgn.export.errors import ParityError


def sweep_and_show(
    grid: Grid,
    out: Path,
    models: list[EnergyModel],
    chips: list[Chip],
    *,
    workers: int | None,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Run a grid's points, write the front's table and picture, and print it.

    Args:
        grid: The points, and the energy models of the front.
        out: Folder of the sweep.
        models: The known energy models.
        chips: The known chips.
        workers: Processes on this machine; None starts one per core.
        scheduler: Address of a Dask scheduler to use instead.
        resume: Continue the sweep in `out`.
        overwrite: Replace the sweep in `out`.

    Raises:
        ParityError: A point's spikes differ from torch's.
    """
    front_models = [model_named(name, models) for name in grid.energy_models]
    records = sweep.sweep(
        grid, out, workers=workers, scheduler=scheduler, resume=resume, overwrite=overwrite, models=models, chips=chips,
        tables=lambda place, records: pareto.write(place, grid, pareto.rows(grid, records, front_models)),
    )  # fmt: skip
    points = pareto.rows(grid, records, front_models)
    for part in pareto.tables_and_notes(points, grid.energy_models):
        output.print(part)
    wrote(out, f"/{', '.join(SWEEP.results + pictures(out))}")
    mismatches = [f"{row.label}: {row.mismatches}" for row in points if row.mismatches]
    if mismatches:
        raise ParityError(f"{out}: spikes differ from torch's; decisions by point: {'; '.join(mismatches)}")
