"""Options with a fixed set of values: --help shows them, the shell completes them, and others are refused."""

from collections.abc import Callable, Collection
from typing import Any

import typer

from mksgn.common.quoting import quoted


def choice(*names: str, values: Collection[object], help: str, **more: Any) -> Any:
    """Return an option that takes one of some values.

    Args:
        names: Its names, if they do not follow from the parameter's name.
        values: The values that it takes, of any type whose text is what a user writes.
        help: Its line in --help, which begins with the list of values.
        more: Further arguments of typer.Option.
    """
    texts = [str(value) for value in values]

    def check(value: Any) -> Any:
        if value is not None and str(value) not in texts:
            raise typer.BadParameter(f"{quoted(value)}: choose one of {', '.join(texts)}")
        return value

    return typer.Option(
        *names, metavar=f"[{'|'.join(texts)}]", help=help, callback=check, autocompletion=beginning(texts), **more
    )


def open_choice(*names: str, metavar: str, values: Collection[str], help: str) -> Any:
    """Return an option that takes other values too: the shell completes these, and none is refused here."""
    return typer.Option(*names, metavar=metavar, help=help, autocompletion=beginning(values))


def beginning(values: Collection[str]) -> Callable[[str], list[str]]:
    """Return the completion function of an option or argument that takes other values too."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]
