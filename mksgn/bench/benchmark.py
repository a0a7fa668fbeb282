"""How a sweep grows with its workers, and whether it depends on them: one worker, two, and two of which one is killed in the middle.

    python -m mksgn.bench.benchmark GRID [--rounds N] [--json]

The ratio of times is taken inside a round, in which one sweep follows the other on the same machine.
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

from mksgn.bench.record import RUN_FILE, TIMES
from mksgn.bench.sweep.grid import Grid, read, size
from mksgn.bench.sweep.sweep import sweep
from mksgn.common.console import new_app, output, run_app
from mksgn.deploy.run_folder import machine

app = new_app(__doc__ or "")


@app.command()
def measure(
    grid: Annotated[Path, typer.Argument(metavar="GRID", help="a sweep's YAML file")],
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Example: python -m mksgn.bench.benchmark grid.yaml --rounds 3 --json"""
    asked, found = read(grid), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            found.append(_round(asked, Path(folder) / str(number)))
            output.print(f"round {number + 1}: {found[-1]}")
    ratios = [each["seconds_two"] / each["seconds_one"] for each in found]
    result = {
        "points": size(asked),
        "two_over_one": median(ratios),
        "two_over_one_range": [min(ratios), max(ratios)],
        "records_that_differ": sum(each["differ_two"] + each["differ_killed"] for each in found),
        "workers_killed": sum(each["killed"] for each in found),
        "rounds": found,
        "machine": machine(),
    }
    print(json.dumps(result, indent=2)) if as_json else output.print(result)


def _round(grid: Grid, folder: Path) -> dict[str, Any]:
    seconds = {}
    for name, workers in (("one", 1), ("two", 2)):
        start = time.perf_counter()
        sweep(grid, folder / name, workers=workers)
        seconds[name] = time.perf_counter() - start
    killed: list[int] = []
    killer = threading.Thread(
        target=_kill_one, args=(folder / "killed" / "points", size(grid) // 2, killed), daemon=True
    )
    killer.start()
    sweep(grid, folder / "killed", workers=2)
    killer.join(1)
    wanted = counted(folder / "one")
    return {
        "seconds_one": seconds["one"],
        "seconds_two": seconds["two"],
        "differ_two": _differ(wanted, counted(folder / "two")),
        "differ_killed": _differ(wanted, counted(folder / "killed")),
        "killed": len(killed),
    }


def counted(folder: Path) -> dict[str, dict[str, Any]]:
    """Every point's run.json, but for times."""
    records = {path.parent.name: json.loads(path.read_text()) for path in (folder / "points").glob(f"*/{RUN_FILE}")}
    for record in records.values():
        for name in TIMES:
            record["execution"].pop(name)
    return records


def _differ(one: dict[str, Any], other: dict[str, Any]) -> int:
    return sum(one.get(name) != other.get(name) for name in {*one, *other})


def _kill_one(points: Path, after: int, killed: list[int]) -> None:
    """SIGKILL to a worker at work, when so many points are finished."""
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
