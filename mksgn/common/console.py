"""Terminal behaviour of the four commands: errors in one line, exit codes, progress bars."""

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from mksgn.common.errors import MksgnError, MksgnWarning

Item = TypeVar("Item")

# typer carries its own copy of click; the base of its usage errors has no public name
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

# A log file has no width: 140 columns suffice for every table here. Brackets in a user's file names
# are not markup.
output = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 140)


def new_app(help_text: str) -> typer.Typer:
    return typer.Typer(help=help_text, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command. Exit codes: 0 done; 2 bad input or usage; else the error's own. Errors are one
    line on stderr."""
    if "OMP_NUM_THREADS" not in os.environ:
        # Threads synchronise after each of thousands of small operations, which makes two slower
        # than one as soon as anything else runs (docs/measurements.md). Use more cores by more
        # processes.
        torch.set_num_threads(1)
    _print_warnings(name)
    # The interpreter would traverse all modules' objects once more before it ends: up to a second after Ctrl-C.
    atexit.register(gc.freeze)
    try:
        code = app(prog_name=name, standalone_mode=False)
    except MksgnError as error:
        fail(name, str(error), error.exit_code)
    except _UsageError as error:
        fail(name, error.format_message() if hasattr(error, "format_message") else str(error), 2)
    except BrokenPipeError:
        sys.exit(141)
    except OSError as error:
        fail(name, f"{error.filename or 'file'}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        fail(name, "interrupted", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _print_warnings(name: str) -> None:
    """Print each of our warnings once, as a line on stderr."""
    others, said = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, MksgnWarning):
            others(message, category, *place, **more)
        elif str(message) not in said:
            said.add(str(message))
            print(f"{name}: {message}", file=sys.stderr)

    warnings.simplefilter("always", MksgnWarning)
    warnings.showwarning = show


def fail(name: str, message: str, code: int) -> None:
    first, *rest = message.strip().splitlines() or ["failed"]
    print(f"{name}: {first}", file=sys.stderr)
    # only a Lava Process's traceback may follow, which a user needs to repair the model
    print(*rest, sep="\n", end="\n" if rest else "", file=sys.stderr)
    sys.exit(code)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()) -> Table:
    """Return a table; the first column and those headed by `left` are left-aligned, the others right-aligned."""
    result = Table(title=title, title_justify="left")
    for heading in headings:
        text = heading == headings[0] or heading in left
        result.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def track(
    items: Iterable[Item], total: int, label: str, size: Callable[[Item], int] = lambda item: 1
) -> Iterator[Item]:
    """Show a progress bar on a terminal only; `size` is how much an item counts."""
    if not sys.stdout.isatty():
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Without rich's own thread: items may fork, as Lava's runs do, and a child keeps what another thread has locked.
    with Progress(*columns, transient=True, console=output, auto_refresh=False) as progress:
        task = progress.add_task(label, total=total)
        for item in items:
            done = size(item)  # before the caller changes the item
            yield item
            progress.advance(task, done)
            progress.refresh()
