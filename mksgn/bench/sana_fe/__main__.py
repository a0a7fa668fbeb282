"""`python -m mksgn.bench.sana_fe`: run SANA-FE on three networks, and print its results next to the emulator's."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mksgn.bench.sana_fe.compare import UNITS, Comparison, compare
from mksgn.bench.sana_fe.results import read_results
from mksgn.common.console import new_app, output, run_app
from mksgn.common.errors import BadInputError
from mksgn.common.writing import write_text
from mksgn.deploy import compile_graph, run
from mksgn.deploy.benchmark.networks import conv_chain, dense_chain, paper_student, spike_inputs
from mksgn.deploy.program.program import Program
from mksgn.deploy.sana_fe import simulate
from mksgn.deploy.sana_fe.network import placed, write_network
from mksgn.train.datasets import open_source

app = new_app("SANA-FE beside the emulator.")

OPEN, CLOSE = "<!-- sana-fe -->\n", "<!-- /sana-fe -->\n"
FRAMES = 8  # of the student, as in its preset
Case = tuple[Program, np.ndarray]


def _dense() -> Case:
    graph = dense_chain()
    return compile_graph(graph), spike_inputs(graph, 1)


def _conv() -> Case:
    graph = conv_chain(layers=3, channels=16, frames=8, joints=10)
    return compile_graph(graph), spike_inputs(graph, 1)


def _student() -> Case:
    clips = open_source("synthetic", part="test", limit=8, seed=0)
    student = paper_student(clips, 1, frames=FRAMES, preset="demo", attention="none")
    return compile_graph(student.graph), np.asarray(student.inputs, dtype=np.float32)


CASES: dict[str, tuple[str, Callable[[], Case]]] = {
    "dense": ("three dense layers of 256 neurons", _dense),
    "conv": ("three convolutions (9 x 1) of 16 channels, 8 x 10", _conv),
    "student": ("the student of preset demo without attention, 8 bits, untrained, a synthetic clip", _student),
}


def simulated(network: Path, python: str, timing: str) -> Path:
    """Run SANA-FE on a network file, and return the folder of its results.

    Raises:
        BadInputError: it failed; the message is the last line that it printed.
    """
    command = [python, simulate.__file__, str(network), "--timing", timing]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise BadInputError(f"SANA-FE failed: {lines[-1]}; --python must be a Python that has the package sanafe")
    return network.with_suffix("")


@app.command()
def main(
    python: Annotated[str, typer.Option(help="a Python with sanafe (pip install 'mksgn[sana-fe]')")] = sys.executable,
    networks: Annotated[str, typer.Option(help="of " + ", ".join(CASES))] = ",".join(CASES),
    out: Annotated[Path, typer.Option("-o", "--output", help="folder of SANA-FE's files")] = Path("runs/sana-fe"),
    page: Annotated[Path | None, typer.Option(help="a page whose tables are replaced")] = None,
) -> None:
    """Run SANA-FE, and print tables in Markdown.

    Example: python -m mksgn.bench.sana_fe --page docs/sana-fe.md
    """
    chosen = networks.split(",")
    if unknown := [name for name in chosen if name not in CASES]:
        raise BadInputError(f"--networks {unknown[0]}: choose from {', '.join(CASES)}")
    lines: list[str] = []
    for name in chosen:
        title, case = CASES[name]
        program, inputs = case()
        execution = run(program, inputs)
        network = write_network(program, inputs, execution, out / name)[0]
        named = {program.inputs[0].name: inputs}
        simple = read_results(simulated(network, python, "simple")).time
        results = read_results(simulated(network, python, "detailed"))
        found = compare(placed(program), named, execution, results)
        lines += [f"**{title}**, {execution.steps} steps", "", *_counts(found), "", *_costs(found, simple), ""]
        output.print(f"{name}: done")
    text = "\n".join(lines)
    print(text)
    if page is not None:
        before = page.read_text(encoding="utf-8")
        if OPEN not in before or CLOSE not in before:
            raise BadInputError(f"{page}: no line {OPEN.strip()} followed by a line {CLOSE.strip()}")
        pattern = f"({re.escape(OPEN)}).*({re.escape(CLOSE)})"
        write_text(page, re.sub(pattern, lambda m: f"{m[1]}{text}{m[2]}", before, flags=re.S))


def _counts(found: Comparison) -> Iterator[str]:
    yield "| population | neurons | cores | spikes | differing decisions | syn_ops | messages | hops |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in found.rows:
        ours, theirs = row.ours, row.sana_fe
        pairs = [(getattr(ours, x), getattr(theirs, x)) for x in ("spikes", "syn_ops", "messages", "hops")]
        spikes, *others = [f"{a:,}" if a == b else f"{a:,} / {b:,}" for a, b in pairs]
        differing = f"{row.differing}" if row.first is None else f"{row.differing}, the first: {row.first}"
        yield f"| {row.name} | {row.neurons:,} | {row.cores} | {spikes} | {differing} | {' | '.join(others)} |"


def _costs(found: Comparison, simple: np.ndarray) -> Iterator[str]:
    yield "| nJ | emulator's counts at loihi.yaml's prices | SANA-FE, in the windows | SANA-FE, whole run |"
    yield "|---|---|---|---|"
    for unit in UNITS:
        low, high = (1e9 * x for x in found.ours[unit])
        ours = f"{low:,.2f}" if low == high else f"{low:,.2f} … {high:,.2f}"
        yield f"| {unit} | {ours} | {1e9 * found.window[unit]:,.2f} | {1e9 * found.run[unit]:,.2f} |"
    yield ""
    updated, in_sana_fe, accessed = found.updates
    yield f"Neurons updated in the windows: {updated:,} / {in_sana_fe:,}, of {accessed:,} accessed."
    yield ""
    yield "| µs per step | " + " | ".join(str(i) for i in range(1, len(simple) + 1)) + " |"
    yield "|---" * (len(simple) + 1) + "|"
    rows = {**found.step_us, "SANA-FE, simple": 1e6 * simple, "SANA-FE, detailed": 1e6 * found.time}
    for name, times in rows.items():
        yield f"| {name} | " + " | ".join(f"{x:.3f}" for x in times) + " |"


if __name__ == "__main__":
    run_app(app, "python -m mksgn.bench.sana_fe")
