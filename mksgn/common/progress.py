"""How far a command is: on stderr, a bar on a terminal, else a line every few seconds; with --quiet nothing."""

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

LINE_AFTER_S = 5.0  # of work without a terminal until a line says how far it is
LINE_SHARE = 0.05  # of the time so far between two lines, once that is more: a run of hours has some hundred


@dataclass
class _State:
    """Of this process: whether it is quiet, as a library is and a command with --quiet; whether a loop is being shown."""

    quiet: bool = True
    within: bool = False


state = _State()


def track(
    items: Iterable[Item], total: int, label: str, size: Callable[[Item], int] = lambda item: 1
) -> Generator[Item, None, None]:
    """Hand on items, and show how many are done, unless a loop around this one is shown.

    Args:
        items: What is worked on between one and the next.
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
    """Show progress as `track` does, of work that is no loop here: call what is given with the number just done."""
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
    # Without rich's own thread: items may fork, as Lava's runs do, and a child keeps what another thread has locked.
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
