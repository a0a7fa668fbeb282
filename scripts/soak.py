"""Try what breaks under load: python -m scripts.soak lava threads clips demos --json soak.json

lava     start, run and stop Lava for --seconds; compare every spike with the emulator's, and count what is left.
threads  --runs calls of `run` from as many threads on one program, against the same runs one after the other.
clips    the largest memory of mksgn-bench on a tenth of --clips synthetic clips, and on all, in the emulator.
demos    the demo's network exported and run alone, and twice side by side: the same results.

A table is printed. The file has the same numbers, and is written anew every minute. Exit code 1: a finding.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np

from mksgn.common.writing import write_text
from mksgn.deploy import Execution, Program, compile_graph, run
from mksgn.deploy.run_folder import machine
from mksgn.train.datasets.synthetic import HELD
from tests.support import graphs as net
from tests.support.leftovers import Holdings, holdings, unowned_segments
from tests.support.programs import recurrent_loop, resets, residual_chain, typed

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples" / "demo" / "model.pt"
WARM_UP = 12  # starts: in the first of each network, Lava and numba load and compile
GROWTH_MIB = 8  # that an allocator may keep; if every start kept its network, that would take more within a minute
CLIPS_MIB = GROWTH_MIB + HELD * 20 // 1000  # the source of synthetic clips keeps HELD of them, 20 kB each
REPORT_S = 60.0
SAMPLES, STEPS = 3, 4
SAME = ("accuracy", "totals", "layers", "energy", "data")  # of run.json; the rest records times and places

Report = Callable[[dict[str, Any]], None]


def resident_mib() -> float:
    """Return the memory of pages that only this process uses; those shared with files of numba or torch vary."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    pages = {name: int(value.split()[0]) for name, value in (line.split(":") for line in lines)}
    return (pages["Private_Dirty"] + pages["Private_Clean"]) / 1024


def networks() -> Iterator[tuple[str, Program]]:
    """Programs of both precisions, with convolutions, attention, loops and every kind of reset."""
    for make in (residual_chain, recurrent_loop, resets):
        yield make.__name__, compile_graph(make())
    yield "typed", compile_graph(typed()[0], precision="float")


def inputs_of(program: Program, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {p.name: (SAMPLES, STEPS, *p.shape) for p in program.inputs}
    return {
        name: rng.random(shape, np.float32) if name in program.analog else net.spikes(rng, *shape)
        for name, shape in shapes.items()
    }


def differing(found: Execution, wanted: Execution) -> tuple[int, int]:
    """Return how many spikes and output values two executions have, and how many differ."""
    pairs = [(found.spikes[name], wanted.spikes[name]) for name in wanted.spikes]
    pairs += [(found.outputs[name], wanted.outputs[name]) for name in wanted.outputs]
    different = sum(int((a != b).sum()) for a, b in pairs)
    counts = [{n: (c.spikes, c.syn_ops, c.per_neuron.tolist()) for n, c in e.counters.items()} for e in (found, wanted)]
    return sum(b.size for _, b in pairs), different + (counts[0] != counts[1])


def soak_lava(seconds: float, report: Report) -> dict[str, Any]:
    """Run one small network after the other in Lava, with new inputs each time."""
    programs, failures = list(networks()), list[str]()
    starts = decisions = different = 0
    first: dict[str, Any] = {}
    began = last = time.monotonic()
    while starts < WARM_UP + 1 or time.monotonic() - began < seconds:
        name, program = programs[starts % len(programs)]
        inputs = inputs_of(program, starts)
        try:
            compared = differing(run(program, inputs, backend="lava"), run(program, inputs))
            decisions, different = decisions + compared[0], different + compared[1]
        except Exception as error:
            failures.append(f"start {starts}, {name}: {type(error).__name__}: {error}"[:500])
        starts += 1
        if starts == WARM_UP:
            first = held()
        if starts > WARM_UP and time.monotonic() - last > REPORT_S:
            last = time.monotonic()
            report(soaked(starts, decisions, different, failures, first, last - began))
    return soaked(starts, decisions, different, failures, first, time.monotonic() - began)


def held() -> dict[str, Any]:
    """Return what the process holds, and the names in /dev/shm that no process uses."""
    now: Holdings = holdings()
    return {
        "rss_mib": round(resident_mib(), 1),
        "descriptors": now.descriptors,
        "children": len(now.children),
        "threads": now.threads,
        "shared_maps": now.maps,
        "dev_shm": len(unowned_segments()),
    }


def soaked(
    starts: int, decisions: int, different: int, failures: list[str], first: dict[str, Any], seconds: float
) -> dict[str, Any]:
    now = held()
    grown = [name for name in now if now[name] > first[name] + (GROWTH_MIB if name == "rss_mib" else 0)]
    return {
        "seconds": round(seconds),
        "starts": starts,
        "decisions": decisions,
        "decisions that differ": different,
        "failures": failures,
        **{name: f"{first[name]} → {now[name]}" for name in now},
        "findings": [f"{name} grew" for name in grown] + failures + ["spikes differ"] * bool(different),
    }


def many_threads(runs: int) -> dict[str, Any]:
    """Run programs that have never been run from many threads at once, so that all fill their caches at once."""
    findings, decisions, different = list[str](), 0, 0
    began = time.monotonic()
    for (name, program), (_, again) in zip(networks(), networks(), strict=True):
        together = Barrier(runs)

        def one(seed: int, program: Program = program, together: Barrier = together) -> Execution:
            together.wait()
            return run(program, inputs_of(program, seed))

        with ThreadPoolExecutor(runs) as pool:
            at_once = list(pool.map(one, range(runs)))
        for seed, found in enumerate(at_once):
            compared = differing(found, run(again, inputs_of(again, seed)))
            decisions, different = decisions + compared[0], different + compared[1]
            findings += [f"{name}, run {seed}: {compared[1]} differ"] * bool(compared[1])
    return {
        "runs at once": runs,
        "programs": len(list(networks())),
        "seconds": round(time.monotonic() - began, 1),
        "decisions": decisions,
        "decisions that differ": different,
        "findings": findings,
    }


def command(stage: str, *arguments: object) -> list[str]:
    code = f"import sys; sys.argv[0] = 'mksgn-{stage}'; from mksgn.{stage}.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def exported(folder: Path) -> Path:
    """Export the demo's weights into a folder; return the file."""
    path = folder / "model.nir"
    options = ("--to", "nir", "--quantize", 8, "--calibration", "synthetic", "-o", path)
    subprocess.run(command("export", DEMO, *options), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return path


def many_clips(clips: int) -> dict[str, Any]:
    """Run the command on a tenth of the clips and on all."""
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        model = exported(Path(name))
        for number in (max(1, clips // 10), clips):
            options = (
                "--data",
                "synthetic",
                "--limit",
                number,
                "--backend",
                "emulator",
                "-o",
                Path(name) / str(number),
            )
            process = subprocess.Popen(command("bench", "run", model, *options), cwd=ROOT, stdout=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"mksgn-bench ended with exit code {process.returncode} on {number} clips")
            peaks[number] = used.ru_maxrss / 1024  # KiB
    few, all_of_them = peaks.values()
    grown = all_of_them - few
    findings = [f"{grown:.0f} MiB more for ten times the clips"] if grown > CLIPS_MIB else []
    return {**{f"peak MiB, {n:,} clips": round(peak, 1) for n, peak in peaks.items()}, "findings": findings}


def side_by_side(clips: int, backend: str) -> dict[str, Any]:
    """Export and run the demo alone, then two at the same time in folders of their own."""

    def start(folder: Path) -> subprocess.Popen[bytes]:
        options = ("--data", "synthetic", "--limit", clips, "--backend", backend, "-o", folder)
        return subprocess.Popen(
            command("bench", "run", exported(folder), *options), cwd=ROOT, stdout=subprocess.DEVNULL
        )

    def results(folder: Path) -> dict[str, Any]:
        record = json.loads((folder / "run.json").read_text())
        return {key: record[key] for key in SAME} | {"model": (folder / "model.nir").read_bytes()}

    findings = []
    with tempfile.TemporaryDirectory() as name:
        alone, *both = (Path(name) / each for each in ("alone", "left", "right"))
        for folders in ([alone], both):
            for folder in folders:
                folder.mkdir()
            with ThreadPoolExecutor(2) as pool:  # both export at the same time too
                codes = [process.wait() for process in pool.map(start, folders)]
            findings += [
                f"{f.name} ended with exit code {code}" for f, code in zip(folders, codes, strict=True) if code
            ]
        if not findings:
            wanted = results(alone)
            findings = [
                f"{folder.name}: {key} differs"
                for folder in both
                for key, value in results(folder).items()
                if value != wanted[key]
            ]
    return {"backend": backend, "clips": clips, "compared": [*SAME, "model.nir"], "findings": findings}


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| case | figure | value |", "|---|---|---|"]
    for case, figures in results.items():
        for name, value in figures.items():
            text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else value
            lines.append(
                f"| {case} | {name} | {text:,} |" if isinstance(text, int) else f"| {case} | {name} | {text} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=("lava", "threads", "clips", "demos"))
    parser.add_argument("--seconds", type=float, default=3600, help="of Lava's starts and stops (default: an hour)")
    parser.add_argument("--runs", type=int, default=200, help="at once (default: 200)")
    parser.add_argument("--clips", type=int, default=10_000, help="of the memory's second run (default: 10,000)")
    parser.add_argument("--demo-clips", type=int, default=40, help="of each demo (default: 40)")
    parser.add_argument("--backend", choices=("lava", "emulator"), default="lava", help="of the demos (default: lava)")
    parser.add_argument("--json", type=Path, help="where the numbers are written")
    options = parser.parse_args()
    results: dict[str, dict[str, Any]] = {}

    def report(case: str, figures: dict[str, Any]) -> None:
        results[case] = figures
        if options.json:
            write_text(options.json, json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")

    work: dict[str, Callable[[], dict[str, Any]]] = {
        "lava": lambda: soak_lava(options.seconds, lambda figures: report("lava", figures)),
        "threads": lambda: many_threads(options.runs),
        "clips": lambda: many_clips(options.clips),
        "demos": lambda: side_by_side(options.demo_clips, options.backend),
    }
    for case in options.cases:
        report(case, work[case]())
    print(table(results))
    sys.exit(any(figures["findings"] for figures in results.values()))


if __name__ == "__main__":
    main()
