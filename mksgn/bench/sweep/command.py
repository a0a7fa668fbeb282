"""What `mksgn-bench sweep` does once its packages are there: run the grid, and print its Pareto fronts."""

from pathlib import Path

from mksgn.bench.energy_models import EnergyModel, model_named
from mksgn.bench.record import Record
from mksgn.bench.sweep import pareto
from mksgn.bench.sweep.folder import SWEEP, pictures
from mksgn.bench.sweep.grid import read
from mksgn.bench.sweep.sweep import sweep
from mksgn.common.console import output, wrote
from mksgn.deploy.placement.chips import Chip
from mksgn.export.errors import ParityError


def sweep_and_show(
    grid: Path,
    out: Path,
    models: list[EnergyModel],
    chips: list[Chip],
    *,
    workers: int | None,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
) -> None:
    """Run a grid's points, write the sweep's folder, and print the front under each energy model.

    Args:
        grid: The YAML file.
        out: Folder of the sweep.
        models: The known energy models.
        chips: The known chips.
        workers: Local processes; None: one per core.
        scheduler: Address of a Dask scheduler to use instead.
        resume: Continue the sweep in `out`.
        overwrite: Replace it.

    Raises:
        BadInputError: As `read` and `sweep`.
        ParityError: Spikes of a point differ from torch's. Everything is written by then.
    """
    requested = read(grid, chips)
    shown = [model_named(name, models) for name in requested.energy_models]

    def tables(place: Path, records: dict[str, Record]) -> None:
        pareto.write(place, requested, pareto.rows(requested, records, shown))

    records = sweep(
        requested, out, workers=workers, scheduler=scheduler, resume=resume, overwrite=overwrite,
        models=models, chips=chips, tables=tables,
    )  # fmt: skip
    points = pareto.rows(requested, records, shown)
    for part in pareto.shown(points, requested.energy_models):
        output.print(part)
    if output.quiet:
        wrote(out)
    else:
        output.print(f"wrote {', '.join(str(out / name) for name in SWEEP.results + pictures(out))}")
    mismatches = [f"{row.label}: {row.mismatches}" for row in points if row.mismatches]
    if mismatches:
        raise ParityError(f"{out}: spikes differ from torch's; decisions by point: {'; '.join(mismatches)}")
