"""Progress of a command, on stderr: a bar on a terminal, else a line every few seconds; with --quiet nothing."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mksgn.common.ending import say
from mksgn.common.quoting import printable

Item = TypeVar("Item")

LINE_AFTER_S = 5.0  # of work before the first line, without a terminal
LINE_SHARE = 0.05  # of the time so far, between two lines, once that is longer: a run of hours prints about a hundred


@dataclass
class _State:
    """State of this process: whether it is quiet, as a library or with --quiet, and whether a loop is being shown."""

    quiet: bool = True
    within: bool = False


state = _State()


def track(
    items: Iterable[Item], total: int, label: str, size: Callable[[Item], int] = lambda item: 1
) -> Generator[Item, None, None]:
    """Yield items, and show how many are done, unless a loop around this one is being shown.

    Args:
        items: The items; the caller works on each before it takes the next.
        total: The sum of their sizes.
        label: What they are, in the plural.
        size: How much an item counts.
    """
    if state.quiet or state.within:
        yield from items
        return
    state.within = True
    try:
        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        if console.is_interactive:
            yield from _bar(console, items, total, label, size)
        else:
            yield from _lines(items, total, label, size)
    finally:
        state.within = False


@contextmanager
def counting(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Show progress as `track` does, for work without a loop here: call what is yielded with the number just done."""
    steps = track(range(total), total, label)
    next(steps, None)

    def advance(done: int) -> None:
        for _ in range(done):
            next(steps, None)

    try:
        yield advance
    finally:
        steps.close()


def _bar(
    console: Console, items: Iterable[Item], total: int, label: str, size: Callable[[Item], int]
) -> Iterator[Item]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Without rich's own thread: items may fork, as Lava's runs do, and in a child another thread's locks stay locked.
    with Progress(*columns, transient=True, console=console, auto_refresh=False, redirect_stdout=False) as progress:
        task = progress.add_task(printable(label), total=total)
        progress.refresh()
        for item in items:
            done = size(item)  # before the caller changes the item
            yield item
            progress.advance(task, done)
            progress.refresh()


def _lines(items: Iterable[Item], total: int, label: str, size: Callable[[Item], int]) -> Iterator[Item]:
    begun = last = time.monotonic()
    done = 0
    for item in items:
        counted = size(item)  # before the caller changes the item
        yield item
        done += counted
        now = time.monotonic()
        if now - last >= max(LINE_AFTER_S, LINE_SHARE * (now - begun)):
            last = now
            say(printable(f"{label}: {done:,} of {total:,}, {now - begun:.0f} s"))
