"""Add a line to the table of speed ratios: python scripts/benchmark_table.py TABLE RESULT.json...

The results are those of `python -m mksgn.deploy.benchmark --json`, with one thread and with two, and of
`python -m mksgn.train.benchmark --json`, measured on this machine, on the commit that is checked out
(`make benchmark`). A line can only be compared with others of the same processor.
"""

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from mksgn.common.writing import append
from mksgn.deploy.run_folder import machine


def main(table: Path, results: list[dict[str, Any]]) -> None:
    if not table.is_file():
        sys.exit(f"{table}: no such file; name the table in docs/benchmarks.md")
    by_threads = {result["threads"]: result for result in results if "emulator_over_torch" in result}
    train: dict[str, Any] = next((result for result in results if "train_over_spikingjelly" in result), {})
    one = by_threads.get(1, {})
    speed = one.get("syn_ops_per_second")
    cells = (
        datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        _commit(),
        machine()["processor"],
        next((result["versions"]["torch"] for result in results), "–"),
        "–" if speed is None else f"{speed / 1e9:.1f}",
        _ratio(one, "emulator_over_torch"),
        _ratio(by_threads.get(2, {}), "emulator_over_torch"),
        _ratio(one, "fused_over_stock"),
        _ratio(one, "lava_over_emulator"),
        _ratio(train, "train_over_spikingjelly", "train_spread"),
        _ratio(train, "inference_over_spikingjelly", "inference_spread"),
    )
    append(table, _line(cells))


def _ratio(result: dict[str, Any], name: str, spread: str | None = None) -> str:
    """Write a ratio and its range."""
    if name not in result:
        return "–"
    low, high = result[spread or f"{name}_spread"]
    digits = ".0f" if result[name] >= 20 else ".2f"
    return f"{result[name]:{digits}} ({low:{digits}} … {high:{digits}})"


def _commit() -> str:
    """Name the commit that is checked out; a copy without git has none."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return described.stdout.strip() or "–"


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [json.loads(Path(path).read_text()) for path in sys.argv[2:]])
