"""`python -m mksgn.train.benchmark`: time a training step and an inference pass on our neuron and
on SpikingJelly's LIFNode.

Both networks are the same student with the same weights. Only the neuron differs (LIFNode:
multi-step, torch backend, sigmoid surrogate of slope 4 and differentiated reset, as in ours). Each
round times one network after the other, so that a noisy machine slows both; the ratio is the median
over the rounds. Both must give the same spikes.
"""

import copy
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

from mksgn.common.console import Json, new_app, output, print_json, run_app
from mksgn.common.counts import MOST_BATCH, MOST_REPEATS, MOST_SEED, count
from mksgn.common.errors import BadInputError, MksgnError
from mksgn.train import config, optimizers
from mksgn.train.checkpoint import tool_versions
from mksgn.train.datasets import ClipSet, open_source
from mksgn.train.describe import calibrate_batch_norms
from mksgn.train.distill import StudentObjective, weighted_sum
from mksgn.train.neurons import LIF, SURROGATE_SLOPE, Current, summed
from mksgn.train.parallel import check_device
from mksgn.train.streams import StreamNormaliser
from mksgn.train.student import Student, StudentConfig
from mksgn.train.transforms import TrainingClips

app = new_app("Compare the speed of training and inference with SpikingJelly's.")


class SpikesDifferError(MksgnError):
    """The two networks do not give the same spikes: their times cannot be compared."""

    exit_code = 3


class SpikingJellyLIF(nn.Module):
    """SpikingJelly's LIFNode in place of ours: (S, ...) currents to spikes, state reset before
    each call."""

    def __init__(self, tau: float):
        super().__init__()
        try:
            with redirect_stdout(sys.stderr):  # it prints when imported
                from spikingjelly.activation_based import neuron, surrogate
        except ImportError as error:
            raise BadInputError("spikingjelly is not installed: pip install 'mksgn[dev]'") from error
        sigmoid = surrogate.Sigmoid(alpha=SURROGATE_SLOPE)
        self.node = neuron.LIFNode(tau=tau, surrogate_function=sigmoid, step_mode="m")  # backend "torch" is the default

    def forward(self, *currents: Tensor | Current) -> Tensor:
        self.node.reset()
        return self.node(summed(currents))


def on_spikingjelly(student: Student) -> Student:
    """Copy a student with SpikingJelly's neurons in all populations."""
    twin = copy.deepcopy(student)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, LIF):
                setattr(module, name, SpikingJellyLIF(child.tau))
    return twin


@dataclass
class Contestant:
    """A student with its objective and optimiser."""

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
    rounds: Annotated[int, count(least=2, most=MOST_REPEATS, help="rounds, each of which times both")] = 15,
    batch: Annotated[int | None, count(most=MOST_BATCH, help="clips; default: the config's")] = None,
    seed: Annotated[int, count(least=0, most=MOST_SEED, help="of weights and clips")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    as_json: Json = False,
) -> None:
    """Time both networks and print the ratios, above 1 where ours is faster.

    Example: python -m mksgn.train.benchmark small --rounds 15 --json
    """
    settings = config.load(configuration)
    check_device(device, "float32")
    clips = open_source(data, split=split, part="train", limit=batch or settings.batch, seed=seed)
    results = measure(settings, clips, rounds, seed, device)
    if as_json:
        print_json(results)
        return
    output.print(
        f"{settings.preset}, {results['bodies']} bodies, {rounds} rounds, {results['threads']} thread(s), {device}"
    )
    for what in ("train", "inference"):
        low, high = results[f"{what}_spread"]
        output.print(
            f"{what:9s}  {results[f'{what}_over_spikingjelly']:.2f} times SpikingJelly's speed (quartiles "
            f"{low:.2f} to {high:.2f})"
        )
    output.print(f"0 of {results['decisions']:,} decisions differ")
    output.print(f"preparing a batch is {results['training_over_preparing']:.0f} times faster than training on it")


def measure(settings: config.TrainConfig, clips: ClipSet, rounds: int, seed: int, device: str) -> dict[str, Any]:
    """Time training steps, inference passes and the preparation of one batch of all clips.

    Raises:
        SpikesDifferError: The two networks do not give the same spikes.
    """
    torch.manual_seed(seed)
    student = Student(StudentConfig(**{**settings.student, "graph": clips.graph, "classes": clips.classes}))
    normaliser = StreamNormaliser.fit(clips.clips, student.config.frames, student.config.streams)
    stored, generator = TrainingClips(clips.clips), torch.Generator().manual_seed(seed)

    def prepare() -> tuple[list[Tensor], Tensor, Tensor]:
        return stored.batch(torch.arange(len(stored)), [normaliser], settings, generator)

    (x,), clip_of, labels = prepare()
    x, clip_of, labels = x.to(device), clip_of.to(device), labels.to(device)
    calibrate_batch_norms(student.to(device), x)
    networks = Contestant(student, settings), Contestant(on_spikingjelly(student), settings)
    decisions, mismatches = compare(networks[0].student, networks[1].student, x)
    if mismatches:
        raise SpikesDifferError(f"{mismatches} of {decisions} decisions differ from SpikingJelly's")

    def in_turn(work: Callable[[Contestant], None]) -> list[tuple[float, float]]:
        pairs = [(timed(lambda: work(networks[0])), timed(lambda: work(networks[1]))) for _ in range(rounds + 1)]
        return pairs[1:]  # the first warms up

    training = in_turn(lambda network: network.train(x, clip_of, labels))
    inference = in_turn(lambda network: network.infer(x))
    train_seconds, inference_seconds = (statistics.median(own for own, _ in pairs) for pairs in (training, inference))
    return {
        "train_over_spikingjelly": ratio(training),
        "inference_over_spikingjelly": ratio(inference),
        "train_spread": spread_of(training),
        "inference_spread": spread_of(inference),
        "train_seconds": train_seconds,
        "inference_seconds": inference_seconds,
        # how many times faster a batch is prepared than trained on: training never waits for data
        "training_over_preparing": train_seconds / statistics.median(timed(prepare) for _ in range(rounds)),
        "decisions": decisions,
        "mismatches": mismatches,
        "config": settings.preset,
        "bodies": len(x),
        "rounds": rounds,
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": tool_versions("torch", "spikingjelly"),
    }


@torch.no_grad()
def compare(a: Student, b: Student, x: Tensor) -> tuple[int, int]:
    """Count the decisions of all populations at all steps, and how many differ between two
    students."""
    spikes: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    a.eval()(x, spikes[0])
    b.eval()(x, spikes[1])
    decisions = sum(s.numel() for s in spikes[0].values())
    return decisions, sum(int((s != spikes[1][name]).sum()) for name, s in spikes[0].items())


def timed(work: Callable[[], Any]) -> float:
    """Measure how many seconds `work` takes; on a GPU, until its kernels are done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Compute the median over the rounds of SpikingJelly's time over ours."""
    return statistics.median(other / own for own, other in pairs)


def spread_of(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Compute the first and third quartile of the ratio."""
    low, _, high = statistics.quantiles([other / own for own, other in pairs], n=4)
    return low, high


def main() -> None:
    run_app(app, "mksgn.train.benchmark")


if __name__ == "__main__":
    main()
