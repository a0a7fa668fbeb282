"""Measure how a sweep scales: with one worker, with two, and with two, one of which is killed.

    python -m mksgn.bench.benchmark GRID [--rounds N] [--json]

Records must be equal in all three. The ratio of times is taken within a round, whose sweeps run
one after the other on one machine.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer

from mksgn.bench.record import TIMES
from mksgn.bench.run_files import RUN_FILE
from mksgn.bench.sweep.grid import Grid, read
from mksgn.bench.sweep.sweep import sweep
from mksgn.common.console import Json, new_app, output, print_json, run_app
from mksgn.common.counts import MOST_REPEATS, count
from mksgn.common.extras import require
from mksgn.deploy.run_folder import machine

app = new_app(__doc__ or "")


@app.command()
def measure(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="YAML file of the sweep.")],
    rounds: Annotated[int, count(most=MOST_REPEATS, help="Number of repetitions.")] = 1,
    as_json: Json = False,
) -> None:
    """Run the sweeps and print their times.

    Example: python -m mksgn.bench.benchmark grid.yaml --rounds 3 --json
    """
    require("this benchmark", "sweep", "distributed")
    requested = read(grid)
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            results.append(_round(requested, Path(folder) / str(number)))
            output.print(f"round {number + 1}: {results[-1]}")
    ratios = [result["seconds_two"] / result["seconds_one"] for result in results]
    summary = {
        "points": requested.axes.points,
        "two_over_one": median(ratios),
        "two_over_one_range": [min(ratios), max(ratios)],
        "records_that_differ": sum(result["differ_two"] + result["differ_killed"] for result in results),
        "workers_killed": sum(result["killed"] for result in results),
        "rounds": results,
        "machine": machine(),
    }
    print_json(summary) if as_json else output.print(summary)


def _round(grid: Grid, folder: Path) -> dict[str, Any]:
    """Time the sweep with one and two workers, and compare their records, also with a worker killed."""
    seconds = {}
    for name, workers in (("one", 1), ("two", 2)):
        start = time.perf_counter()
        sweep(grid, folder / name, workers=workers)
        seconds[name] = time.perf_counter() - start
    killed: list[int] = []
    killer = threading.Thread(
        target=_kill_one, args=(folder / "killed" / "points", grid.axes.points // 2, killed), daemon=True
    )
    killer.start()
    sweep(grid, folder / "killed", workers=2)
    killer.join(1)
    expected = counted(folder / "one")
    return {
        "seconds_one": seconds["one"],
        "seconds_two": seconds["two"],
        "differ_two": _differ(expected, counted(folder / "two")),
        "differ_killed": _differ(expected, counted(folder / "killed")),
        "killed": len(killed),
    }


def counted(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the run.json of every point without its times."""
    records = {path.parent.name: json.loads(path.read_text()) for path in (folder / "points").glob(f"*/{RUN_FILE}")}
    for record in records.values():
        for name in TIMES:
            record["execution"].pop(name)
    return records


def _differ(one: dict[str, Any], other: dict[str, Any]) -> int:
    return sum(one.get(name) != other.get(name) for name in {*one, *other})


def _kill_one(points: Path, after: int, killed: list[int]) -> None:
    """Send SIGKILL to the busiest worker when `after` points are finished."""
    while len(list(points.glob("*"))) < after:
        time.sleep(0.05)
    busiest = max(_workers(), key=lambda worker: worker.cpu_times().user)
    os.kill(busiest.pid, signal.SIGKILL)
    killed.append(busiest.pid)


def _workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


if __name__ == "__main__":
    run_app(app, "python -m mksgn.bench.benchmark")
