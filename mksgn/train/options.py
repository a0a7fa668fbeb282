"""Options that several commands share: what is known of the sources of clips, as data, without their readers."""

from typing import Annotated, Any

import typer

from mksgn.common.choices import beginning
from mksgn.train.choices import SPLITS

_BY_SOURCE = "; ".join(f"{source}: {', '.join(names)}" for source, names in SPLITS.items() if source != "synthetic")
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Split of the benchmark that SOURCE belongs to. {_BY_SOURCE}.",
        autocompletion=beginning(tuple(dict.fromkeys(name for names in SPLITS.values() for name in names))),
    ),
]


def device_option(help_text: str) -> Any:
    """Return an option that takes a device of torch, which `check_device` checks."""
    return typer.Option(metavar="[cpu|cuda|cuda:N]", help=help_text, autocompletion=beginning(("cpu", "cuda")))
