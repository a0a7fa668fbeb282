"""Terminal behaviour of the four commands: errors in one line, exit codes, progress bars."""

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mksgn.common.ending import (
    INTERRUPTED,
    PIPE_CLOSED,
    discard,
    end_at_next_interruption,
    ending_at_interruption,
    open_streams,
    say,
    written_out,
)
from mksgn.common.errors import MksgnError, MksgnWarning, first_line
from mksgn.common.quoting import printable

Item = TypeVar("Item")

# typer carries its own copy of click; the base of its usage errors has no public name
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


# A log file has no width: 140 columns suffice for every table here. Brackets in a user's file names
# are not markup.
class _Output(Console):
    """A console that escapes what a terminal would act on in names and labels; line ends stay."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


output = _Output(highlight=False, markup=False, emoji=False, width=None if _on_terminal() else 140)


def new_app(help_text: str) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command. Exit codes: 0 done; 2 bad input or usage; 130 Ctrl-C; 141 nobody reads stdout; else the error's
    own. Errors are one line on stderr. Any other exception is a defect of ours and keeps its traceback."""
    open_streams()
    _use_one_thread()
    _print_warnings(name)
    # The interpreter would traverse all modules' objects once more before it ends: up to a second after Ctrl-C.
    atexit.register(gc.freeze)
    try:
        code = _run(app, name)
    except (KeyboardInterrupt, typer.Abort):
        end_at_next_interruption(name)
        fail(name, "interrupted", INTERRUPTED)
    error = written_out()
    if error is not None and not isinstance(error, BrokenPipeError):
        fail(name, f"standard output: {error.strerror}", 2)
    sys.exit(PIPE_CLOSED if error else code)


@contextmanager
def importing(name: str) -> Iterator[None]:
    """Import in this block, when a command runs, what it works with: its help needs none of it.

    Ctrl-C ends the process at once meanwhile, and torch, where it is imported, has one thread afterwards.
    """
    with ending_at_interruption(name):
        yield
    _use_one_thread()


def _use_one_thread() -> None:
    """Set torch's number of threads, if a command has imported it and the user has not set it.

    Threads synchronise after each of thousands of small operations, which makes two slower than one as soon as anything
    else runs (docs/measurements.md). Use more cores by more processes.
    """
    torch = sys.modules.get("torch")
    if torch is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _run(app: typer.Typer, name: str) -> int:
    """Return the exit code of a command that ends without an error; of the others, print the line and end."""
    try:
        code = app(prog_name=name, standalone_mode=False)
    except MksgnError as error:
        fail(name, str(error).strip(), error.exit_code)
    except _UsageError as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        fail(name, printable(text), 2)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):  # typer ends with 1
            raise
        discard(sys.stdout)
        return PIPE_CLOSED
    except OSError as error:
        fail(name, printable(f"{error.filename or 'file'}: {error.strerror or error}"), 2)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        text = printable(first_line(error))
        fail(name, f"not enough memory ({text}); run fewer samples at once (--limit), or a smaller network", 2)
    if code == INTERRUPTED:  # typer catches Ctrl-C
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed; torch has a RuntimeError for it, and on a GPU one of this name."""
    named = type(error).__name__ == "OutOfMemoryError"  # without importing torch
    return isinstance(error, MemoryError) or named or "DefaultCPUAllocator" in str(error)


def _print_warnings(name: str) -> None:
    """Print each of our warnings once, as a line on stderr."""
    others, said = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, MksgnWarning):
            others(message, category, *place, **more)
        elif str(message) not in said:
            said.add(str(message))
            say(f"{name}: {printable(str(message))}")

    warnings.simplefilter("always", MksgnWarning)
    warnings.showwarning = show


def fail(name: str, message: str, code: int) -> NoReturn:
    """Print a message and end. It is one line, unless the caller lets a list follow."""
    first, *rest = message.strip().split("\n")
    written_out()
    for line in (f"{name}: {first or 'failed'}", *rest):
        say(printable(line))
    sys.exit(code)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[str] = ()) -> Table:
    """Return a table; the first column and those headed by `left` are left-aligned, the others right-aligned."""
    result = Table(title=title, title_justify="left")
    for heading in headings:
        text = heading == headings[0] or heading in left
        result.add_column(heading, justify="left" if text else "right", overflow="fold")
    for row in rows:
        result.add_row(*map(printable, row))
    return result


def track(
    items: Iterable[Item], total: int, label: str, size: Callable[[Item], int] = lambda item: 1
) -> Iterator[Item]:
    """Show a progress bar on a terminal only; `size` is how much an item counts."""
    if not _on_terminal():
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
