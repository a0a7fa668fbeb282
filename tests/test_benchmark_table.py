"""scripts/benchmark_table.py adds one line of ratios under the headings of docs/benchmarks.md."""

import importlib.util
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEPLOY = {
    "emulator_over_torch": 2.345, "emulator_over_torch_spread": [2.0, 2.5],
    "fused_over_stock": 119.2, "fused_over_stock_spread": [93.4, 192.1],
    "syn_ops_per_second": 1.26e10, "threads": 1, "versions": {"torch": "2.13.0"},
}  # fmt: skip


def test_a_line_of_ratios(tmp_path):
    table = tmp_path / "benchmarks.md"
    shutil.copy(ROOT / "docs" / "benchmarks.md", table)
    before = table.read_text()
    spec = importlib.util.spec_from_file_location("benchmark_table", ROOT / "scripts" / "benchmark_table.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    results = [{**DEPLOY, "threads": threads, "emulator_over_torch": 2.345 / threads} for threads in (1, 2)]
    script.main(table, results)
    added = table.read_text().removeprefix(before)
    cells = [cell.strip() for cell in added.strip().strip("|").split("|")]
    headings = next(line for line in before.splitlines() if line.startswith("| date")).strip("|").split("|")
    assert len(cells) == len(headings)
    assert cells[3:] == ["2.13.0", "12.6", "2.35 (2.00 … 2.50)", "1.17 (2.00 … 2.50)", "119 (93 … 192)", *["–"] * 3]
