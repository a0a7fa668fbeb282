"""Options that several commands of mksgn-bench share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mksgn.bench.choices import CLAIMS, ENERGY_MODELS
from mksgn.common.choices import open_choice
from mksgn.deploy.choices import DECODINGS

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the unfinished work in the output folder.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there; it stays until the new one is complete.")
]
OverwriteFile = Annotated[
    bool, typer.Option("--overwrite", help="Replace a file that this command may not have written.")
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE", help="Samples that calibrate the quantisation of an unquantised file (fixed point)."
    ),
]
Decode = Annotated[
    str,
    open_choice(
        metavar="HOW[@OUTPUT]",
        values=DECODINGS,
        help=f"How output values become a prediction: {', '.join(DECODINGS)}; @OUTPUT where there are several outputs.",
    ),
]
ModelName = Annotated[
    str,
    open_choice(
        metavar="NAME",
        values=ENERGY_MODELS,
        help=f"Energy model of --max-rise-energy: {', '.join(ENERGY_MODELS)}, or another of the runs.",
    ),
]
ModelFiles = Annotated[
    list[Path] | None,
    typer.Option("--energy-model", metavar="FILE", help="YAML file of additional energy models; may be repeated."),
]
ClaimFiles = Annotated[
    list[Path] | None,
    typer.Option("--claims", metavar="FILE", help="YAML file of additional published figures; may be repeated."),
]
TimingFiles = Annotated[
    list[Path] | None,
    typer.Option("--timing-model", metavar="FILE", help="YAML file of additional timing models; may be repeated."),
]
RequiredClaims = Annotated[
    list[str] | None,
    open_choice(
        "--require-claim",
        metavar="NAME[@MODEL]",
        values=CLAIMS,
        help="Published figure that must hold, under an energy model; exit code 5 if it does not. May be repeated. "
        f"{'; '.join(CLAIMS)}, or one of --claims",
    ),
]
Identical = Annotated[bool, typer.Option("--identical", help="Require equal counts and predictions.")]
AllowDifferentData = Annotated[
    bool, typer.Option("--allow-different-data", help="Evaluate the bounds even if the runs' samples differ.")
]
AllowDifferentPrices = Annotated[
    bool, typer.Option("--allow-different-prices", help="Leave out energies of one model at different prices.")
]
Markdown = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write Markdown; an earlier comparison there is replaced.")
]


def limit_of(help_text: str) -> Any:
    """Return an option of `mksgn-bench compare` that takes a fraction."""
    return typer.Option(metavar="FRACTION", help=help_text)
