"""Time per node of deep graphs, and memory of a large layer: `python -m mksgn.deploy.benchmark.size`.

Times are processor seconds of this process, which other load hardly changes; each time per node is divided by the
smallest graph's in the same run. If the time is linear in the number of nodes, the ratio stays near 1.
"""

import itertools
import time
import tracemalloc
from collections.abc import Callable
from typing import Annotated, Any

import nir
import numpy as np

from mksgn.common.console import Json, new_app, output, print_json, run_app
from mksgn.common.counts import count
from mksgn.common.tables import table
from mksgn.deploy import compile_graph, run
from mksgn.deploy.benchmark.networks import DT
from mksgn.deploy.placement.chips import CHIPS
from mksgn.deploy.placement.place import place
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.export.reference import execute as reference

app = new_app("Measure how time grows with a graph's nodes, and memory with a layer's weights.")

NODES = (500, 1000, 2000, 5000)
MOST_NODES = 100_000  # of a chain; it takes minutes
MOST_SIDE = 50_000  # weights of 10 GB
WIDTH, STEPS, SAMPLES = 4, 4, 2


def chain(nodes: int, *, neurons: bool) -> nir.NIRGraph:
    """Make a chain of Linear nodes, permutations of 4 values; with `neurons`, a LIF population after each."""
    rng = np.random.default_rng(0)
    names, parts = ["x"], {"x": nir.Input({"input": np.array([WIDTH])})}
    for i in range(nodes // 2 if neurons else nodes - 1):
        parts[f"l{i}"] = nir.Linear(np.eye(WIDTH, dtype=np.float32)[rng.permutation(WIDTH)])
        names.append(f"l{i}")
        if neurons or i == nodes - 2:
            parts[f"n{i}"] = _population(WIDTH, threshold=0.4)
            names.append(f"n{i}")
    parts["y"] = nir.Output({"output": np.array([WIDTH])})
    return nir.NIRGraph(parts, list(itertools.pairwise([*names, "y"])), metadata={"dt": DT}, type_check=False)


def _population(size: int, threshold: float) -> nir.LIF:
    values = (2 * DT, 1.0, 0.0, threshold, 0.0)
    return nir.LIF(*(np.full(size, value, dtype=np.float32) for value in values))


def _seconds(call: Callable[..., Any], *arguments: Any, **options: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = call(*arguments, **options)
    return time.process_time() - start, result


def growth(nodes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure processor seconds by stage, for both kinds of chain and each number of nodes."""
    x = (np.random.default_rng(1).random((SAMPLES, STEPS, WIDTH)) < 0.5).astype(np.float32)
    warm = compile_graph(chain(10, neurons=True), calibration=x)
    run(warm, x)  # compiles the loops
    place(warm, CHIPS["loihi1"])
    rows: list[dict[str, Any]] = []
    for kind, number in itertools.product(("Linear", "Linear, LIF"), nodes):
        graph = chain(number, neurons=kind != "Linear")
        times = {}
        times["reference"], _ = _seconds(reference.execute, graph, x, STEPS, DT, stepwise=True)
        times["quantise"], quantised = _seconds(quantize_any, graph, 8, x)
        times["compile"], program = _seconds(compile_graph, quantised)
        times["run"], _ = _seconds(run, program, x)
        times["place"], _ = _seconds(place, program, CHIPS["loihi1"])
        total = sum(times.values())
        row: dict[str, Any] = {"kind": kind, "nodes": number, "seconds": times, "total": total}
        first = next((r for r in rows if r["kind"] == kind), row)
        row["per_node_over_first"] = total / number / (first["total"] / first["nodes"])
        rows.append(row)
    return rows


def memory(side: int) -> dict[str, float]:
    """Return Python's and NumPy's peak memory, without a `side` x `side` layer's weights, as a multiple of them."""
    weight = np.random.default_rng(0).integers(-8, 9, (side, side), dtype=np.int8).astype(np.float32)
    ends = nir.Input({"input": np.array([side])}), nir.Output({"output": np.array([side])})
    nodes = {"x": ends[0], "l": nir.Linear(weight), "n": _population(side, threshold=20.0), "y": ends[1]}
    graph = nir.NIRGraph(nodes, [("x", "l"), ("l", "n"), ("n", "y")], metadata={"dt": DT}, type_check=False)
    x = (np.random.default_rng(1).random((1, STEPS, side)) < 0.1).astype(np.float32)
    peaks, held = {}, {}

    def peak(name: str, call: Callable[[], Any]) -> None:
        tracemalloc.start()
        held[name] = call()
        peaks[name] = tracemalloc.get_traced_memory()[1] / weight.nbytes
        tracemalloc.stop()

    peak("reference", lambda: reference.execute(graph, x, STEPS, DT, stepwise=True))
    peak("quantise", lambda: quantize_any(graph, 8, x))
    peak("compile", lambda: compile_graph(held["quantise"]))
    peak("run", lambda: run(held["compile"], x))
    return peaks


@app.command()
def size(
    side: Annotated[
        int, count(least=0, most=MOST_SIDE, help="inputs and outputs of the large layer; 0: leave it out")
    ] = 10_000,
    nodes: Annotated[list[int] | None, count(most=MOST_NODES, help=f"nodes of a chain; default: {NODES}")] = None,
    as_json: Json = False,
) -> None:
    """Measure both, and print a table.

    Example: python -m mksgn.deploy.benchmark.size --json
    """
    figures: dict[str, Any] = {"growth": growth(tuple(nodes or NODES))}
    if side:
        figures |= {"side": side, "peak_over_weights": memory(side)}
    if as_json:
        print_json(figures)
        return
    stages = list(figures["growth"][0]["seconds"])
    rows = [
        (
            row["kind"],
            f"{row['nodes']:,}",
            *(f"{row['seconds'][stage]:.2f}" for stage in stages),
            f"{row['per_node_over_first']:.2f}",
        )
        for row in figures["growth"]
    ]
    headings = ("series of", "nodes", *stages, "per node")
    output.print(table("processor seconds, and per node over the first row's", headings, rows))
    if side:
        parts = ", ".join(f"{name} {ratio:.2f}" for name, ratio in figures["peak_over_weights"].items())
        output.print(f"memory over the weights of {side:,} x {side:,}, which are held besides: {parts}")


if __name__ == "__main__":
    run_app(app, "python -m mksgn.deploy.benchmark.size")
