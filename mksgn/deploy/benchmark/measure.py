"""The command `python -m mksgn.deploy.benchmark`: speed ratios of Lava, the emulator and torch.

Fused Lava is compared with stock Lava, the emulator with torch, streamed Lava with the emulator.

Each ratio is above 1 if the first is faster. Its two sides run alternately, so that a noisy machine
slows both. They must give the same spikes; otherwise the benchmark ends with exit code 3. A table
then shows how the cost grows with channels, frames, joints, layers and samples.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import nir
import numpy as np
import torch
import typer

from mksgn.common.console import Json, new_app, output, print_json, run_app
from mksgn.common.counts import MOST_CLIPS, MOST_PROCESSES, MOST_REPEATS, count
from mksgn.common.errors import MksgnError
from mksgn.common.tables import table
from mksgn.deploy import Execution, Program, compile_graph, emulator, run
from mksgn.deploy.benchmark.memory import peak_memory
from mksgn.deploy.benchmark.networks import (
    PaperStudent,
    conv_chain,
    graph_chain,
    paper_student,
    spike_inputs,
    trained_student,
)
from mksgn.deploy.errors import LavaMissingError
from mksgn.train.checkpoint import tool_versions
from mksgn.train.datasets import open_source
from mksgn.train.parallel import check_device
from mksgn.train.streams import MOST_FRAMES

app = new_app("Measure the speed of the fused Lava Processes and of the emulator.")

GROWTH = {  # the values that each size of a graph chain takes
    "channels": (16, 32, 64, 128),
    "frames": (8, 16, 32, 64),
    "joints": (10, 20, 40, 80),
    "layers": (2, 4, 8, 16),
    "clips": (4, 8, 16, 32),
}
Pairs = list[tuple[float, float]]  # per round: seconds of the baseline and of what is compared with it


class SpikesDifferError(MksgnError):
    """Two executions give different spikes, so that their times cannot be compared."""

    exit_code = 3


@app.command()
def benchmark(
    data: Annotated[str, typer.Option(help="SOURCE of the paper student's samples")] = "synthetic",
    split: Annotated[str | None, typer.Option(help="of the source, if it has several")] = None,
    clips: Annotated[int, count(most=MOST_CLIPS, help="samples of the paper student in the emulator and torch")] = 16,
    lava_clips: Annotated[
        int, count(most=MOST_CLIPS, help="samples streamed through Lava: many, so that its latency weighs little")
    ] = 64,
    slots: Annotated[int, count(most=MOST_CLIPS, help="samples run in parallel in Lava")] = 8,
    frames: Annotated[int, count(least=4, most=MOST_FRAMES, help="of a sample")] = 16,
    preset: Annotated[str, typer.Option(help="name of the student's widths")] = "paper",
    rounds: Annotated[int, count(least=2, most=MOST_REPEATS, help="repetitions of each ratio")] = 5,
    threads: Annotated[int, count(most=MOST_PROCESSES, help="of torch, both in torch and in the emulator")] = 1,
    model: Annotated[Path | None, typer.Option(help="a trained student, model.pt, instead of an untrained one")] = None,
    device: Annotated[
        str, typer.Option(help="of torch and the emulator; on a GPU, Lava's ratios are left out")
    ] = "cpu",
    growth: Annotated[bool, typer.Option(help="measure the growth table")] = True,
    as_json: Json = False,
) -> None:
    """Run all measurements and print the ratios.

    Example: python -m mksgn.deploy.benchmark --data nw-ucla:PATH --split view1-2 --json
    """
    check_device(device, "float32")
    torch.set_num_threads(threads)
    source = open_source(data, split=split, part="train", limit=max(clips, 16))
    if model is None:
        student = paper_student(source, clips, frames=frames, preset=preset)
    else:
        student = trained_student(model, source, clips)
        preset, frames = str(model), student.student.config.frames
    program = compile_graph(student.graph)
    figures: dict[str, Any] = {"preset": preset, "frames": frames, "clips": clips, "slots": slots, "rounds": rounds}
    if device == "cpu":
        figures |= ratio_of("fused_over_stock", _stock_and_fused(rounds))
    figures |= ratio_of("emulator_over_torch", torch_and_emulator(program, student, rounds, device))
    if device == "cpu":
        pairs, peak = _emulator_and_lava(program, student, lava_clips, slots, rounds)
        figures |= ratio_of("lava_over_emulator", pairs) | peak
    execution = run(program, student.inputs, record=False, device=device)
    syn_ops = sum(counters.syn_ops for counters in execution.counters.values())
    figures["syn_ops_per_second"] = syn_ops / figures["emulator_over_torch_seconds"][1]
    figures["firing_rate"] = firing_rate(program, execution)
    if growth and device == "cpu":
        figures["growth"] = [row for name, values in GROWTH.items() for row in _growth(name, values, rounds)]
    figures |= {"device": device, "threads": threads, "versions": tool_versions("torch", "lava-nc", "numpy", "numba")}
    if as_json:
        print_json(figures)
        return
    _print(figures)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio_of(name: str, pairs: Pairs) -> dict[str, Any]:
    """Summarise pairs: the median of their ratios, its range, and the median seconds of both sides."""
    ratios = [baseline / compared for baseline, compared in pairs]
    return {
        name: statistics.median(ratios),
        f"{name}_spread": [min(ratios), max(ratios)],
        f"{name}_seconds": [statistics.median(side) for side in zip(*pairs, strict=True)],
    }


def _stock_and_fused(rounds: int) -> Pairs:
    """(a) Run six Conv(9 x 1) + LIF, 64 channels, 16 x 20, in stock and in fused Processes; start-up is not timed."""
    network, stock = _lava()
    graph = conv_chain()
    program, x = compile_graph(graph), {"input": spike_inputs(graph, 2)}
    emulated = emulator.execute(program, x)
    pairs = []
    for _ in range(rounds):
        in_stock = stock.execute(program, x)
        fused = network.execute(program, x, slots=1)
        _require_same_spikes(program, emulated, in_stock, "stock Lava")
        _require_same_spikes(program, emulated, fused, "fused Lava")
        pairs.append((in_stock.seconds, fused.seconds))
    return pairs


def torch_and_emulator(program: Program, student: PaperStudent, rounds: int, device: str = "cpu") -> Pairs:
    """(b) Run the student in torch (float, steps folded into the batch) and its 8-bit program in the emulator."""
    network, x = student.student.to(device), torch.from_numpy(student.bodies)

    @torch.inference_mode()
    def infer() -> None:
        network(x.to(device)).cpu()

    def emulate() -> None:
        run(program, student.inputs, record=False, device=device)

    return [(timed(infer), timed(emulate)) for _ in range(rounds + 1)][1:]  # the first round warms both up


def _emulator_and_lava(
    program: Program, student: PaperStudent, clips: int, slots: int, rounds: int
) -> tuple[Pairs, dict[str, Any]]:
    """(c) Run the same samples in the emulator and through Lava, and measure the memory of all Lava's processes."""
    network, _ = _lava()
    inputs = np.resize(student.bodies, (clips, *student.bodies.shape[1:]))
    x = {"input": np.broadcast_to(inputs[:, None], (clips, student.inputs.shape[1], *inputs.shape[1:]))}
    few = {"input": x["input"][:slots]}
    _require_same_spikes(
        program, emulator.execute(program, few), network.execute(program, few, slots=slots), "fused Lava"
    )
    pairs = []
    with peak_memory() as peak:
        for _ in range(rounds):
            seconds = timed(lambda: emulator.execute(program, x, record=False))
            pairs.append((seconds, network.execute(program, x, record=False, slots=slots).seconds))
    facts = {
        "lava_clips": clips,
        "lava_pss_bytes": peak.pss,
        "lava_shared_bytes": peak.shared,
        "lava_processes": peak.processes,
    }
    return pairs, facts


def _growth(name: str, values: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """(d) Time a chain of graph convolutions; the growth is the exponent from one value to the next."""
    network, _ = _lava()
    rows: list[dict[str, Any]] = []
    for value in values:
        sizes = {"channels": 32, "frames": 16, "joints": 20, "layers": 4} | ({name: value} if name != "clips" else {})
        graph: nir.NIRGraph = graph_chain(**sizes)
        program, x = compile_graph(graph), {"input": spike_inputs(graph, value if name == "clips" else 8)}
        emulator.execute(program, x, record=False)
        emulated = min(timed(lambda: emulator.execute(program, x, record=False)) for _ in range(rounds))  # noqa: B023
        streamed = min(network.execute(program, x, record=False, slots=4).seconds for _ in range(2))
        row = {"what": name, "value": value, "emulator_seconds": emulated, "lava_seconds": streamed}
        for key in ("emulator", "lava"):
            row[f"{key}_growth"] = _exponent(rows[-1], row, f"{key}_seconds") if rows else None
        rows.append(row)
    return rows


def _exponent(before: dict[str, Any], row: dict[str, Any], key: str) -> float:
    return math.log(row[key] / before[key]) / math.log(row["value"] / before["value"])


def _lava() -> tuple[Any, Any]:
    try:
        from mksgn.deploy.lava import network
        from mksgn.deploy.lava.stock import execute as stock
    except ImportError as error:
        raise LavaMissingError(error) from error
    return network, stock


def _require_same_spikes(program: Program, emulated: Execution, other: Execution, name: str) -> None:
    for population in program.neurons:
        a, b = emulated.spikes[population.name], other.spikes[population.name]
        if not np.array_equal(a, b):
            raise SpikesDifferError(
                f"{name}: {int((a != b).sum())} of {a.size} decisions of {population.name} differ from the emulator's"
            )
        if not a.any():
            raise SpikesDifferError(f"{population.name} never fires: the comparison of spikes would be empty")


def firing_rate(program: Program, execution: Execution) -> float:
    neurons = sum(p.size for p in program.neurons)
    spikes = sum(execution.counters[p.name].spikes for p in program.neurons)
    return spikes / (neurons * execution.samples * execution.steps)


def _print(figures: dict[str, Any]) -> None:
    for name, text in (
        ("fused_over_stock", "fused Lava over stock Lava, six Conv(9 x 1) + LIF, 64 channels, 16 x 20"),
        ("emulator_over_torch", f"emulator over torch float, {figures['preset']} student, {figures['clips']} samples"),
        (
            "lava_over_emulator",
            f"Lava over the emulator, {figures.get('lava_clips')} samples, {figures['slots']} slots",
        ),
    ):
        if name in figures:
            low, high = figures[f"{name}_spread"]
            output.print(f"{text}: {figures[name]:.2f} ({low:.2f} … {high:.2f} in {figures['rounds']} rounds)")
    output.print(
        f"emulator: {figures['syn_ops_per_second']:.3g} synaptic operations per second; firing rate "
        f"{figures['firing_rate']:.1%}; {figures['device']}, {figures['threads']} thread(s)"
    )
    if "lava_processes" in figures:
        output.print(
            f"Lava: {figures['lava_processes']} processes, {figures['lava_pss_bytes'] / 2**30:.2f} GiB PSS, "
            f"{figures['lava_shared_bytes'] / 2**20:.0f} MiB shared"
        )
    if "growth" in figures:
        title = "seconds of a chain of graph convolutions (growth: exponent from the previous line)"
        columns = {"emulator_seconds": ".3f", "emulator_growth": ".2f", "lava_seconds": ".3f", "lava_growth": ".2f"}
        rows = []
        for row in figures["growth"]:
            cells = ("–" if row[name] is None else format(row[name], digits) for name, digits in columns.items())
            rows.append((row["what"], str(row["value"]), *cells))
        output.print(table(title, ("what", "value", "emulator", "growth", "Lava", "growth"), rows))


def main() -> None:
    run_app(app, "python -m mksgn.deploy.benchmark")
