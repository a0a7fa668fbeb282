"""`python -m mksgn.train.benchmark`: a training step and an inference pass on our neuron and on SpikingJelly's LIFNode, in turn.

Both networks are the same student with the same weights; only the neuron differs (LIFNode: multi-step, torch backend, sigmoid surrogate of
slope 4, the reset differentiated, as ours). Times are compared inside a round, one after the other, so that a noisy machine slows both; the
ratio is the median over the rounds. Both must give the same spikes.
"""

from __future__ import annotations

import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from mksgn.common.console import new_app, output, run_app
from mksgn.common.errors import BadInputError, MksgnError
from mksgn.train import config, optimizers
from mksgn.train.checkpoint import tool_versions
from mksgn.train.datasets import open_source
from mksgn.train.describe import calibrate_batch_norms
from mksgn.train.distill import StudentObjective, weighted_sum
from mksgn.train.neurons import LIF, SURROGATE_SLOPE
from mksgn.train.parallel import check_device
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.transforms import TrainingClips

app = new_app("Speed of training and inference beside SpikingJelly.")


class SpikesDifferError(MksgnError):
    """The two networks do not give the same spikes: their times cannot be compared."""

    exit_code = 3


class SpikingJellyLIF(nn.Module):
    """SpikingJelly's LIFNode in the place of ours: (S, ...) currents to spikes, state reset before each call."""

    def __init__(self, tau: float):
        super().__init__()
        try:
            with redirect_stdout(sys.stderr):  # it greets its importer
                from spikingjelly.activation_based import neuron, surrogate
        except ImportError as error:
            raise BadInputError("spikingjelly is not installed: pip install 'mksgn[dev]'") from error
        sigmoid = surrogate.Sigmoid(alpha=SURROGATE_SLOPE)
        self.node = neuron.LIFNode(tau=tau, surrogate_function=sigmoid, step_mode="m")  # backend "torch" is the default

    def forward(self, x: Tensor) -> Tensor:
        self.node.reset()
        return self.node(x)


def on_spikingjelly(student: Student) -> Student:
    """A copy of a student whose every population is SpikingJelly's."""
    twin = copy.deepcopy(student)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, LIF):
                setattr(module, name, SpikingJellyLIF(child.tau))
    return twin


@dataclass
class Contestant:
    """A student with all that a training step needs."""

    student: Student
    settings: config.TrainConfig

    def __post_init__(self) -> None:
        self.objective = StudentObjective(self.student, self.settings)
        self.optimizer, _ = optimizers.build(self.objective, self.settings, 1000)

    def train(self, x: Tensor, clip_of: Tensor, labels: Tensor) -> None:
        self.objective.train()
        losses, _ = self.objective([x], clip_of, labels)
        self.optimizer.zero_grad(set_to_none=True)
        (weighted_sum(losses, self.objective.weights) / len(labels)).backward()
        nn.utils.clip_grad_norm_(self.objective.parameters(), self.settings.clip_gradient)
        self.optimizer.step()

    @torch.no_grad()
    def infer(self, x: Tensor) -> None:
        self.student.eval()(x)


@app.command()
def benchmark(
    configuration: Annotated[str, typer.Argument(metavar="[CONFIG]")] = "demo",
    data: Annotated[str, typer.Option(help="SOURCE of the clips")] = "synthetic",
    split: Annotated[str | None, typer.Option()] = None,
    rounds: Annotated[int, typer.Option(help="of each: ours, theirs", min=2)] = 15,
    batch: Annotated[int | None, typer.Option(help="clips; default: the config's", min=1)] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="print one object")] = False,
) -> None:
    """Time both and print the ratios, above 1 where ours is faster.

    Example: python -m mksgn.train.benchmark small --rounds 15 --json
    """
    settings = config.load(configuration)
    check_device(device, "float32")
    size = batch or settings.batch
    clips = open_source(data, split=split, part="train", limit=size, seed=seed)
    torch.manual_seed(seed)
    values = {**settings.student, "graph": clips.graph, "classes": clips.classes}
    student = Student(StudentConfig(**values))
    normaliser = StreamNormaliser.fit(clips.clips, student.config.frames, student.config.streams)
    stored, generator = TrainingClips(clips.clips), torch.Generator().manual_seed(seed)

    def prepare() -> tuple[list[Tensor], Tensor, Tensor]:
        return stored.batch(torch.arange(len(stored)), [normaliser], settings, generator)

    (x,), clip_of, labels = prepare()
    x, clip_of, labels = x.to(device), clip_of.to(device), labels.to(device)
    calibrate_batch_norms(student.to(device), x)
    ours, theirs = Contestant(student, settings), Contestant(on_spikingjelly(student), settings)
    decisions, mismatches = compare(ours.student, theirs.student, x)
    if mismatches:
        raise SpikesDifferError(f"{mismatches} of {decisions} decisions differ from SpikingJelly's")
    training = [(timed(lambda: ours.train(x, clip_of, labels)), timed(lambda: theirs.train(x, clip_of, labels)))
                for _ in range(rounds + 1)][1:]  # fmt: skip
    inference = [(timed(lambda: ours.infer(x)), timed(lambda: theirs.infer(x))) for _ in range(rounds + 1)][1:]
    preparing = statistics.median(timed(prepare) for _ in range(rounds))
    found: dict[str, Any] = {
        "train_over_spikingjelly": ratio(training),
        "inference_over_spikingjelly": ratio(inference),
        "train_spread": spread_of(training),
        "inference_spread": spread_of(inference),
        "train_seconds": statistics.median(mine for mine, _ in training),
        "inference_seconds": statistics.median(mine for mine, _ in inference),
        # preprocessing of a batch is so many times faster than a training step on it: nothing waits for the loader
        "training_over_preparing": statistics.median(mine for mine, _ in training) / preparing,
        "decisions": decisions,
        "mismatches": mismatches,
        "config": settings.preset,
        "bodies": len(x),
        "rounds": rounds,
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": tool_versions("torch", "spikingjelly"),
    }
    if as_json:
        print(json.dumps(found))
        return
    output.print(f"{settings.preset}, {len(x)} bodies, {rounds} rounds, {found['threads']} thread(s), {device}")
    for what in ("train", "inference"):
        low, high = found[f"{what}_spread"]
        output.print(
            f"{what:9s}  {found[f'{what}_over_spikingjelly']:.2f} times SpikingJelly's speed (quartiles {low:.2f} to {high:.2f})"
        )
    output.print(f"0 of {decisions:,} decisions differ")
    output.print(f"a batch is prepared {found['training_over_preparing']:.0f} times faster than it is trained on")


@torch.no_grad()
def compare(a: Student, b: Student, x: Tensor) -> tuple[int, int]:
    """Decisions of all populations at all steps, and how many differ."""
    left: dict[str, Tensor] = {}
    right: dict[str, Tensor] = {}
    a.eval()(x, left)
    b.eval()(x, right)
    return sum(s.numel() for s in left.values()), sum(int((s != right[name]).sum()) for name, s in left.items())


def timed(work: Callable[[], Any]) -> float:
    """Seconds; on a GPU until it is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Theirs over ours, the median over the rounds."""
    return statistics.median(theirs / mine for mine, theirs in pairs)


def spread_of(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """First and third quartile of the ratio."""
    low, _, high = statistics.quantiles([theirs / mine for mine, theirs in pairs], n=4)
    return low, high


def main() -> None:
    run_app(app, "mksgn.train.benchmark")


if __name__ == "__main__":
    main()
