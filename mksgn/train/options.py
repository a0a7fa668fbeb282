"""Options that several commands share: what is known of the sources of clips, as data, without their readers."""

from typing import Annotated

import typer

from mksgn.common.choices import beginning

SPLITS = {  # the first is the default; a ctrgcn file's is in its name
    "synthetic": ("synthetic",),
    "nw-ucla": ("xview", "view1-2", "subject-val"),
    "ntu": ("xsub", "xview", "xsub-val", "xsub120", "xset", "xsub120-val"),
    "ctrgcn": ("xsub", "xview", "xsub120", "xset"),
    "pyskl": ("xsub", "xview", "xsub120", "xset"),
    "utd-mhad": ("xsub", "xsub-val"),
}
_BY_SOURCE = "; ".join(f"{source}: {', '.join(names)}" for source, names in SPLITS.items() if source != "synthetic")
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"split of the benchmark that SOURCE is of. {_BY_SOURCE}",
        autocompletion=beginning(tuple(dict.fromkeys(name for names in SPLITS.values() for name in names))),
    ),
]
