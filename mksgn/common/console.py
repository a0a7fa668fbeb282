"""Terminal behaviour of the four commands: errors in one line, exit codes, --quiet, --json."""

import atexit
import functools
import gc
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from mksgn.common import progress
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

# typer carries its own copy of click; the base of its usage errors has no public name
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]

# Columns of output that is not a terminal, unless COLUMNS is set: enough for the tables of a run to have one part.
LOG_WIDTH = 140


class _Output(Console):
    """A console that escapes what a terminal would act on in names and labels, but keeps line ends.

    `quiet` is set by --quiet, and `stderr` by --json: stdout then has only the document.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(map(printable, text.split("\n"))), **options)


def _on_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def _piped_width() -> int:
    """Return the columns of output that is not a terminal."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else LOG_WIDTH


# brackets in a user's file names are not markup
output = _Output(highlight=False, markup=False, emoji=False, width=None if _on_terminal(sys.stdout) else _piped_width())

Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print only errors and the paths of written files; with --json, only the document."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; everything else goes to stderr.")]
DescribeJson = Annotated[
    bool, typer.Option("--json", help="With --describe: print one JSON document; everything else goes to stderr.")
]


class _App(typer.Typer):
    """An app whose commands all have --quiet, without a parameter in their functions; `as_json` is their --json."""

    def command(self, *arguments: Any, **options: Any) -> Any:
        register = super().command(*arguments, **options)

        def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
            register(_with_quiet(function))
            return function

        return decorated


def set_quiet(quiet: bool) -> None:
    """From now on print only errors and paths, or everything again."""
    output.quiet = progress.state.quiet = quiet


def _with_quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*, quiet: bool, **options: Any) -> Any:
        set_quiet(quiet)
        output.stderr, progress.state.within = bool(options.get("as_json")), False
        return function(**options)

    signature = inspect.signature(function)
    more = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    run.__annotations__ = {**function.__annotations__, "quiet": Quiet}
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), more])  # type: ignore[attr-defined]
    return run


def new_app(help_text: str) -> typer.Typer:
    return _App(
        help=help_text,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command. Exit codes: 0 done; 2 bad input or usage; 130 Ctrl-C; 141 broken pipe; else the error's own.
    Errors are one line on stderr. Any other exception is a bug in mksgn and keeps its traceback."""
    open_streams()
    _use_one_thread()
    _print_warnings(name)
    # Otherwise the interpreter traverses all modules' objects once more before it exits: up to a second after Ctrl-C.
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
    """Import in this block what a command works with, once it runs: its help needs none of it.

    Meanwhile Ctrl-C ends the process at once. Afterwards torch, if it is imported, has one thread.
    """
    with ending_at_interruption(name):
        yield
    _use_one_thread()


def _use_one_thread() -> None:
    """Set torch's number of threads, if a command has imported it and the user has not set it.

    Threads synchronise after each of thousands of small operations, which makes two slower than one as soon as anything
    else runs (docs/measurements.md). To use more cores, run more processes.
    """
    torch = sys.modules.get("torch")
    if torch is not None and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _run(app: typer.Typer, name: str) -> int:
    """Run a command and return its exit code; after an error, print its line and exit."""
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
    """Tell whether an allocation failed: torch raises a RuntimeError, on a GPU one named OutOfMemoryError."""
    named = type(error).__name__ == "OutOfMemoryError"  # without importing torch
    return isinstance(error, MemoryError) or named or "DefaultCPUAllocator" in str(error)


def _print_warnings(name: str) -> None:
    """Print each of our warnings once, as a line on stderr."""
    others, said = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if not issubclass(category, MksgnWarning):
            others(message, category, *place, **more)
        elif str(message) not in said and not output.quiet:
            said.add(str(message))
            say(f"{name}: {printable(str(message))}")

    warnings.simplefilter("always", MksgnWarning)
    warnings.showwarning = show


def fail(name: str, message: str, code: int) -> NoReturn:
    """Print a message and exit. It is one line, unless the caller appends a list."""
    first, *rest = message.strip().split("\n")
    written_out()
    for line in (f"{name}: {first or 'failed'}", *rest):
        say(printable(line))
    sys.exit(code)


def print_json(document: Any) -> None:
    """Print the document of --json, which is then all that stdout has.

    Args:
        document: A value that JSON can hold; characters beyond ASCII are escaped, so that every stream can carry it.
    """
    print(json.dumps(document, indent=2, allow_nan=False))


def wrote(path: Path | str, more: str = "", *, word: str = "wrote ") -> None:
    """Print what was written; with --quiet, only its path."""
    if output.quiet and not output.stderr:
        print(printable(str(path)))
    else:
        output.print(f"{word}{path}{more}", soft_wrap=True)
