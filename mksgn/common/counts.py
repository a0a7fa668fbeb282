"""Options that take a count: --help shows the range, and other numbers are refused before anything is made.

Every count has an upper bound. Those that several commands share are here, with their reasons.
"""

from collections.abc import Callable
from typing import Any

import typer

from mksgn.common.quoting import quoted

MOST_EPOCHS = 10_000  # state.pt has a line for each; the presets have up to 200
MOST_BATCH = 1 << 16  # clips in memory; the sibling models take 128
MOST_CLIPS = 1_000_000  # that are generated: a label of each is kept; NTU RGB+D 120 has 114,480
MOST_SAMPLES = 1 << 31  # that are taken from the existing ones
MOST_SEED = 1 << 31  # what numpy and torch both take
MOST_STEPS = 100_000  # of a sample: where spike trains are recorded, each neuron's decision at each step is held
MOST_REPEATS = 1000  # a spread of times needs tens; progress.npz keeps the time of each
MOST_PROCESSES = 1024  # or threads: no machine gains from more; a process that has imported torch takes 300 MB


def count(*names: str, most: int, help: str, least: int = 1, **more: Any) -> Any:
    """Return an option that takes whole numbers from `least` to `most`, once or, where its type is a list, repeatedly.

    Args:
        names: Its names, if they do not follow from the parameter's name.
        most: The largest number.
        help: Its line in --help, which begins with the range.
        least: The smallest number.
        more: Further arguments of typer.Option.
    """
    return typer.Option(*names, metavar=f"{least}..{most}", help=help, callback=_within(least, most), **more)


def _within(least: int, most: int) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        for number in value if isinstance(value, list) else [value]:
            if number is not None and number < least:
                raise typer.BadParameter(f"{quoted(number)} is below {least}; choose a number from {least} to {most}")
            if number is not None and number > most:
                raise typer.BadParameter(f"{quoted(number)} exceeds {most:,}; choose a number from {least} to {most}")
        return value

    return check
