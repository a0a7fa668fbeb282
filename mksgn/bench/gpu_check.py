"""The command `python -m mksgn.bench.gpu_check`: compare a GPU's results with the CPU's, and time the GPU.

It compares networks in the emulator on both devices, bit for bit; times the emulator against torch's float
inference on the same card; and trains briefly in float32 and in bfloat16. It prints one JSON object,
takes a few minutes, and needs neither Lava nor a data set.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from mksgn.common.console import Json, new_app, print_json, run_app
from mksgn.common.counts import MOST_CLIPS, MOST_EPOCHS, MOST_PROCESSES, MOST_REPEATS, count
from mksgn.deploy import Program, compile_graph, run
from mksgn.deploy.benchmark.measure import firing_rate, ratio_of, torch_and_emulator
from mksgn.deploy.benchmark.networks import PaperStudent, conv_chain, graph_chain, paper_student, spike_inputs
from mksgn.deploy.execution import Counters
from mksgn.train import config, loop
from mksgn.train.datasets import open_source
from mksgn.train.parallel import check_device

app = new_app("Compare a GPU with the CPU: spikes, speed and training.")


@app.command()
def gpu_check(
    device: Annotated[str, typer.Option(help="device to check: cuda, or cuda:N")] = "cuda",
    epochs: Annotated[int, count(most=MOST_EPOCHS, help="of each training")] = 10,
    clips: Annotated[int, count(most=MOST_CLIPS, help="samples of the paper student")] = 256,
    rounds: Annotated[int, count(most=MOST_REPEATS, help="repetitions of each time")] = 5,
    preset: Annotated[str, typer.Option(help="name of the timed student's widths")] = "paper",
    threads: Annotated[
        int | None, count(most=MOST_PROCESSES, help="of torch, for the host's part; all by default")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run all comparisons. Exit code 1 if a spike, output or count differs.

    Example: python -m mksgn.bench.gpu_check --json
    """
    check_device(device, "mixed")
    torch.set_num_threads(threads or os.cpu_count() or 1)
    figures: dict[str, Any] = {"machine": machine(device), "networks": [], "trainings": []}
    source = open_source("synthetic", split=None, part="train", limit=16)
    students = {name: paper_student(source, 16, frames=16, preset=name) for name in dict.fromkeys(("small", preset))}
    programs = {name: (compile_graph(student.graph), student.inputs) for name, student in students.items()}
    for name, graph in (("convolutions", conv_chain()), ("graph convolutions", graph_chain())):
        programs[name] = compile_graph(graph), spike_inputs(graph, 16)
    for name, (program, inputs) in programs.items():
        figures["networks"].append({"network": name, **compare_devices(program, inputs, device)})
    figures["speed"] = speed(programs[preset][0], students[preset], device, clips, rounds)
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "mixed"):
            figures["trainings"].append(training(precision, epochs, device, Path(folder) / precision))
        figures["nccl"] = train_on_all_gpus(Path(folder) / "nccl")
    print_json(figures)
    if any(network["differences"] for network in figures["networks"]):
        raise typer.Exit(1)


def machine(device: str) -> dict[str, Any]:
    """Return the hardware and versions that the figures depend on."""
    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "memory_GiB": round(properties.total_memory / 2**30, 1),
        "gpus": torch.cuda.device_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def compare_devices(program: Program, inputs: np.ndarray, device: str) -> dict[str, Any]:
    """Run a program on the CPU and on a device; count the spikes, outputs and counters that differ."""
    on_cpu, on_device = run(program, inputs), run(program, inputs, device=device)
    differing = [p.name for p in program.neurons if not np.array_equal(on_cpu.spikes[p.name], on_device.spikes[p.name])]
    outputs = [name for name, x in on_cpu.outputs.items() if not np.array_equal(x, on_device.outputs[name])]
    counters = [name for name, c in on_cpu.counters.items() if not same_counters(c, on_device.counters[name])]
    return {
        "decisions": sum(x.size for x in on_cpu.spikes.values()),
        "mismatches": sum(int((x != on_device.spikes[name]).sum()) for name, x in on_cpu.spikes.items()),
        "firing_rate": firing_rate(program, on_cpu),
        "differences": {"spikes": differing, "outputs": outputs, "counters": counters}
        if differing or outputs or counters
        else {},
    }


def same_counters(a: Counters, b: Counters) -> bool:
    return all(np.array_equal(value, vars(b)[name]) for name, value in vars(a).items())


def speed(program: Program, student: PaperStudent, device: str, clips: int, rounds: int) -> dict[str, Any]:
    """Time the 8-bit program in the emulator and torch's float inference on the same card, in turn."""
    many = dataclasses.replace(student, bodies=np.resize(student.bodies, (clips, *student.bodies.shape[1:])))
    pairs = torch_and_emulator(program, many, rounds, device)
    syn_ops = sum(c.syn_ops for c in run(program, many.inputs, record=False, device=device).counters.values())
    ratio = ratio_of("emulator_over_torch", pairs)
    torch_seconds, seconds = ratio.pop("emulator_over_torch_seconds")
    return {
        "clips": clips,
        "torch_seconds": torch_seconds,
        "emulator_seconds": seconds,
        **ratio,
        "clips_per_second": clips / seconds,
        "syn_ops_per_second": syn_ops / seconds,
        "torch_tf32": torch.backends.cudnn.allow_tf32,
    }


def training(precision: str, epochs: int, device: str, out: Path) -> dict[str, Any]:
    """Train the `small` student on synthetic clips; return the seconds of each epoch and the last losses."""
    settings = config.load("small", epochs=epochs, changes=[f"precision={precision}"])
    clips, held_out = (open_source("synthetic", split=None, part=part) for part in ("train", "test"))
    lines: list[dict[str, Any]] = []
    torch.cuda.reset_peak_memory_stats(device)
    loop.train(settings, clips, held_out, out, device=device, report=lines.append)
    return {
        "precision": precision,
        "clips": len(clips),
        "epochs": epochs,
        "seconds": [round(line["seconds"], 3) for line in lines],
        "losses": [round(line["loss"], 4) for line in lines],
        "train_top1": lines[-1]["train_top1"],
        "held_out_top1": lines[-1]["held_out_top1"],
        "peak_memory_GiB": round(torch.cuda.max_memory_allocated(device) / 2**30, 2),
    }


def train_on_all_gpus(out: Path) -> dict[str, Any]:
    """Train two epochs with one process per GPU, connected by NCCL."""
    gpus = torch.cuda.device_count()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    command += [
        "-m",
        "mksgn.train",
        "demo",
        "--data",
        "synthetic",
        "--epochs",
        "2",
        "--device",
        "cuda",
        "--out",
        str(out),
    ]
    if gpus < 2:
        return {"gpus": gpus, "ran": False, "reason": "NCCL connects two GPUs or more"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    return {"gpus": gpus, "ran": True, "exit_code": done.returncode, "seconds": seconds, "error": done.stderr[-500:]}


def main() -> None:
    run_app(app, "python -m mksgn.bench.gpu_check")


if __name__ == "__main__":
    main()
