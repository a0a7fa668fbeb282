"""`python -m mksgn.train.ablation`: a table of what each component of MK-SGN contributes, over
several seeds.

Each variant and seed is one mksgn-train run in a folder of its own; finished and interrupted runs
are resumed, not repeated.
"""

import shlex
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mksgn.common.console import new_app, output, run_app
from mksgn.common.counts import MOST_EPOCHS, MOST_PROCESSES, MOST_REPEATS, MOST_SAMPLES, count
from mksgn.common.errors import BadInputError, MksgnError
from mksgn.train import checkpoint
from mksgn.train.describe import learnt

app = new_app("Ablations of the student.")


@dataclass(frozen=True)
class Variant:
    """`changes` are --set options; `distilled` adds --distill."""

    name: str
    changes: tuple[str, ...] = ()
    distilled: bool = False

    @property
    def folder(self) -> str:
        return self.name.replace(" ", "-")


VARIANTS = (
    Variant("complete"),
    Variant("distilled", distilled=True),
    Variant("without SMF", ("student.fusion=mean",)),
    Variant("without attention", ("student.attention=none",)),
    Variant("token attention", ("student.attention=token",)),
    Variant("adjacency of the skeleton", ("student.adjacency=skeleton",)),
    Variant("joint only", ("student.streams=[joint]",)),
    Variant("bone only", ("student.streams=[bone]",)),
    Variant("joint motion only", ("student.streams=[joint_motion]",)),
    Variant("bone motion only", ("student.streams=[bone_motion]",)),
    Variant("distilled, soft labels only", ("feature_weight=0",), distilled=True),
    Variant("distilled, features only", ("soft_label_weight=0",), distilled=True),
    Variant("without rate penalty", ("rate_weight=0",)),
)


@app.command()
def ablate(
    configuration: Annotated[str, typer.Argument(metavar="[CONFIG]")] = "small",
    data: Annotated[str, typer.Option(help="SOURCE")] = "synthetic",
    split: Annotated[str | None, typer.Option()] = None,
    out: Annotated[Path, typer.Option(help="folder that holds a folder per training")] = Path("runs/ablation"),
    seeds: Annotated[int, count(most=MOST_REPEATS, help="0 … N - 1, each for every variant")] = 3,
    limit: Annotated[int | None, count(most=MOST_SAMPLES, help="largest number of clips of each training")] = None,
    epochs: Annotated[int | None, count(most=MOST_EPOCHS, help="of each training; default: the config's")] = None,
    processes: Annotated[int, count(most=MOST_PROCESSES, help="trainings run in parallel, one thread each")] = 1,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="for every training")] = None,
    only: Annotated[list[str] | None, typer.Option(help="names of variants; default: all")] = None,
    teacher: Annotated[Path | None, typer.Option(help="teacher.pt; default: one is trained first, seed 0")] = None,
    device: Annotated[str, typer.Option()] = "cpu",
) -> None:
    """Train every variant with every seed and print the table.

    Example: python -m mksgn.train.ablation small --data nw-ucla:PATH --split view1-2 --seeds 3
    --processes 2
    """
    common = [configuration, "--data", data, "--device", device, "--resume"]
    common += [] if split is None else ["--split", split]
    common += [] if limit is None else ["--limit", str(limit)]
    common += [] if epochs is None else ["--epochs", str(epochs)]
    for change in changes or ():
        common += ["--set", change]
    chosen = [variant for variant in VARIANTS if not only or variant.name in only]
    unknown = set(only or ()) - {variant.name for variant in VARIANTS}
    if unknown:
        names = ", ".join(variant.name for variant in VARIANTS)
        raise BadInputError(f"--only {', '.join(sorted(unknown))}: the variants are {names}")
    master = teacher or out / "teacher" / "teacher.pt"
    if teacher is None and any(variant.distilled for variant in chosen):
        _train([*common, "--teacher", "--out", str(master.parent)])

    def run(variant: Variant, seed: int) -> None:
        options = [option for change in variant.changes for option in ("--set", change)]
        options += ["--distill", str(master)] if variant.distilled else []
        _train([*common, *options, "--seed", str(seed), "--out", str(out / variant.folder / f"seed{seed}")])

    with ThreadPoolExecutor(processes) as pool:  # seed by seed: stopped early, it has every variant
        jobs = [pool.submit(run, variant, seed) for seed in range(seeds) for variant in chosen]
        try:
            for job in jobs:
                job.result()
        except BaseException:  # also when interrupted
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if any(variant.distilled for variant in chosen):
        facts = checkpoint.load_teacher(master).training
        output.print(f"teacher, seed {facts['seed']}: {facts['held_out_top1']:.1%}")
    print(table(chosen, out))


def _train(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "mksgn.train", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MksgnError(f"{shlex.join(command[1:])}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def table(variants: list[Variant], out: Path) -> str:
    """Format held-out top-1 (mean, lowest, highest), difference from the first variant, firing rate and
    parameters as Markdown."""
    rows = ["| variant | seeds | held-out top-1, mean | least … most | difference | firing rate | parameters |"]
    rows.append("|---|---|---|---|---|---|---|")
    base: float | None = None
    for variant in variants:
        models = [checkpoint.load(path) for path in sorted((out / variant.folder).glob("seed*/model.pt"))]
        if not models:
            continue
        accuracies = [model.training["held_out_top1"] for model in models]
        mean = statistics.mean(accuracies)
        base = mean if base is None else base
        rate = statistics.mean(model.training["held_out_firing_rate"] for model in models)
        parameters = learnt(models[0].student)
        rows.append(
            f"| {variant.name} | {len(models)} | {mean:.1%} | {min(accuracies):.1%} … {max(accuracies):.1%} | "
            f"{100 * (mean - base):+.1f} | {rate:.1%} | {parameters:,} |"
        )
    return "\n".join(rows)


def main() -> None:
    run_app(app, "mksgn.train.ablation")


if __name__ == "__main__":
    main()
