"""Write the table of other frameworks' networks: python -m scripts.interop_table docs/interop.md

Each network of tests/support/frameworks.py whose framework is installed is exported, simulated by its framework, and
executed here. Its line in the table is replaced; lines of other frameworks, and Lava's cells without Lava, stay.
"""

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from mksgn.common.writing import write_text
from mksgn.deploy import compile_graph, run
from mksgn.export.graph.conventions import with_conventions
from mksgn.export.graph.standard import standard_form
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.export.reference.execute import execute
from tests.support.frameworks import CASES, Case, Recorded, differing, own_spikes

HEADINGS = (
    "framework", "neuron", "options", "decisions", "float", "fixed", "reference, float", "reference, fixed",
    "Lava, float", "Lava, fixed",
)  # fmt: skip
NOT_MEASURED = "–"
OPEN, CLOSE = "<!-- interop -->\n", "<!-- /interop -->\n"


def options_of(case: Case) -> str:
    """Return the options of a case as a command takes them."""
    values = {name: v if isinstance(v, str) else f"{v:g}".replace("e-0", "e-") for name, v in case.options.items()}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in values.items()]
    return f"`{' '.join(words)}`" if words else "none"


def measured(case: Case) -> tuple[str, ...]:
    """Build a case's network, run it everywhere, and return the cells of its line."""
    recorded = case.recorded()
    cells = {
        "framework": f"{case.package} {case.installed}",
        "neuron": case.neuron,
        "options": options_of(case),
        "decisions": f"{sum(train.size for train in recorded.spikes):,}",
    }
    for precision in ("float", "fixed"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cells |= _executed(case, recorded, precision)
    return tuple(cells.get(heading, NOT_MEASURED) for heading in HEADINGS)


def _executed(case: Case, recorded: Recorded, precision: str) -> dict[str, str]:
    """Count differing decisions: emulator against framework; reference execution and Lava against emulator."""
    graph, options = recorded.graph, dict(case.options)
    if precision == "fixed":
        graph = quantize_any(graph, 8, recorded.x, **options)
    program = compile_graph(graph, precision=precision, **options)
    execution = run(program, recorded.x)
    found = own_spikes(recorded, execution, options)
    cells = {precision: f"{differing(found, recorded.spikes):,}"}
    constants: dict[str, Any] = {"dt": program.dt, "if_dt": options.get("if_dt")}
    open_points = {"reset": "zero", "v_init": "zero"} | {k: v for k, v in options.items() if k not in constants}
    same = with_conventions(standard_form(graph), **open_points, **constants)
    reference = execute(same, recorded.x, recorded.x.shape[1], stepwise=True, **constants).spikes
    ours = execution.spikes
    common = [name for name in ours if name in reference]  # not the neurons that hold a bias
    theirs = [reference[name].swapaxes(0, 1) for name in common]
    cells[f"reference, {precision}"] = f"{differing([ours[name] for name in common], theirs):,}"
    if importlib.util.find_spec("lava"):
        lava = run(program, recorded.x, backend="lava").spikes
        cells[f"Lava, {precision}"] = f"{differing([lava[name] for name in ours], list(ours.values())):,}"
    return cells


def torch_of(page: str) -> str:
    """Return the release of torch with which a page's table was measured."""
    found = re.search(r"torch ([0-9.]*[0-9])", page)
    return found[1] if found else ""


def rows(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the lines of a page's table, by framework (without its version) and neuron."""
    _, _, rest = text.partition(OPEN)
    table, _, _ = rest.partition(CLOSE)
    lines = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()[2:]]
    return {(line[0].split()[0], line[1]): line for line in lines}


def updated(text: str, new: dict[tuple[str, str], tuple[str, ...]]) -> str:
    """Return the page with these lines in its table, in the order of CASES; cells that were not measured stay."""
    before, _, rest = text.partition(OPEN)
    _, _, after = rest.partition(CLOSE)
    old, table = rows(text), [HEADINGS, ("---",) * len(HEADINGS)]
    for case in CASES:
        key = (case.package, case.neuron)
        kept, line = old.get(key), new.get(key)
        if line is not None and kept is not None and kept[0] == line[0]:
            line = tuple(k if n == NOT_MEASURED else n for k, n in zip(kept, line, strict=True))
        if (line or kept) is not None:
            table.append(line or kept)
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    return f"{before}{OPEN}{lines}{CLOSE}{after}"


def main(page: Path) -> None:
    if not page.is_file():
        sys.exit(f"{page}: no such file; name the page with the table, docs/interop.md")
    new = {}
    for case in CASES:
        if case.installed is None:
            print(f"{case.package}: not installed, its line stays")
            continue
        new[case.package, case.neuron] = measured(case)
        print(" | ".join(new[case.package, case.neuron]))
    text = updated(page.read_text(encoding="utf-8"), new)
    measured_with = f"torch {torch.__version__.partition('+')[0]}"
    write_text(page, text.replace(f"torch {torch_of(text)}", measured_with))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
