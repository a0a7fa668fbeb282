"""Options that several commands share. They know the sources of clips as data, without importing the readers."""

from typing import Annotated, Any

from mksgn.common.choices import open_choice
from mksgn.train.choices import SPLITS

_BY_SOURCE = "; ".join(f"{source}: {', '.join(names)}" for source, names in SPLITS.items() if source != "synthetic")
Split = Annotated[
    str | None,
    open_choice(
        metavar="NAME",
        values=tuple(dict.fromkeys(name for names in SPLITS.values() for name in names)),
        help=f"Split of the benchmark that SOURCE belongs to. {_BY_SOURCE}.",
    ),
]


def device_option(help_text: str) -> Any:
    """Return an option that takes a torch device, which `check_device` checks."""
    return open_choice(metavar="[cpu|cuda|cuda:N]", values=("cpu", "cuda"), help=help_text)
