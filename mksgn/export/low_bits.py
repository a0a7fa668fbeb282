"""`python -m mksgn.export.low_bits MODEL.PT`: a table of accuracies, quantised after training or trained for few bits.

Both columns are for the networks of the exported files, exact to the spike. Training runs that finished or
were interrupted are resumed, not repeated.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mksgn.common.console import new_app, output, run_app
from mksgn.common.counts import MOST_EPOCHS, MOST_SEED, count
from mksgn.common.errors import BadInputError
from mksgn.export.quantization.aware import quantization_aware
from mksgn.train import checkpoint, config, loop
from mksgn.train.choices import BITS
from mksgn.train.datasets import open_source
from mksgn.train.datasets.clips import Clip
from mksgn.train.evaluate import evaluate
from mksgn.train.parallel import Group

app = new_app("Accuracy at few bits per weight.")


@app.command()
def compare(
    model: Annotated[Path, typer.Argument(help="model.pt of mksgn-train")],
    data: Annotated[str, typer.Option(help="SOURCE")] = "synthetic",
    split: Annotated[str | None, typer.Option(help="default: the one that the model was trained on")] = None,
    bits: Annotated[str, typer.Option(help=f"widths, {BITS[0]} to {BITS[-1]}")] = "8,6,4,3,2",
    epochs: Annotated[int | None, count(most=MOST_EPOCHS, help="of each training; default: mksgn-train's")] = None,
    seed: Annotated[int, count(least=0, most=MOST_SEED, help="of each training")] = 0,
    out: Annotated[Path, typer.Option(help="folder with a folder per width")] = Path("runs/low-bits"),
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="for every training")] = None,
) -> None:
    """Quantise a model to each width, train it for that width, and print the table.

    Example: python -m mksgn.export.low_bits runs/demo/model.pt --epochs 3
    """
    if not all(width.strip() in map(str, BITS) for width in bits.split(",")):
        raise BadInputError(f"--bits {bits}: expected widths from {BITS[0]} to {BITS[-1]}, such as 8,4,2")
    start = checkpoint.load(model)
    chosen = split or start.training.get("split")
    training, held_out = (open_source(data, split=chosen, part=part, seed=seed) for part in ("train", "test"))

    def measured(network: object) -> dict[str, float]:
        return evaluate(network, start.normaliser, held_out, _no_copies, Group())  # type: ignore[arg-type]

    rows = [_row("float", measured(start.student), None)]
    for width in map(int, bits.split(",")):
        after = measured(quantization_aware(start, width, training))
        preset = start.training.get("preset")
        settings = config.load_for_fine_tuning(model, preset, width, epochs=epochs, changes=changes or ())
        folder = out / f"{width}-bit"
        trained = loop.train(settings, training, held_out, folder, start=start, seed=seed, resume=True)
        rows.append(_row(str(width), after, trained.training))
        output.print(rows[-1])
    print("\n".join([*HEADING, *rows]))


HEADING = ("| bits | quantised after training | firing rate | trained for it | firing rate |", "|---|---|---|---|---|")


def _row(name: str, after: dict[str, float], trained: dict[str, float] | None) -> str:
    cells = [name]
    for results in (after, trained):
        shown = ("held_out_top1", "held_out_firing_rate")
        cells += ["–"] * 2 if results is None else [f"{results[key]:.1%}" for key in shown]
    return f"| {' | '.join(cells)} |"


def _no_copies(clips: Sequence[Clip]) -> np.ndarray:
    """Count no clip as a copy of a training clip: the table covers all held-out clips."""
    return np.zeros(len(clips), dtype=bool)


def main() -> None:
    run_app(app, "mksgn.export.low_bits")


if __name__ == "__main__":
    main()
