"""What the options of mksgn-deploy and mksgn-bench offer, as data: their help imports nothing that they choose."""

from pathlib import Path
from typing import Literal, get_args

from mksgn.common.yaml_text import names_in

CHIPS_FILE = Path(__file__).parent / "data" / "chips.yaml"
# only their names; mksgn/deploy/placement/chips.py reads and checks the file
CHIP_NAMES = names_in(CHIPS_FILE, "chips")

BackendName = Literal["emulator", "lava"]
PrecisionName = Literal["fixed", "float"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
PRECISIONS: tuple[PrecisionName, ...] = get_args(PrecisionName)
PRECISION_TITLES: dict[str, str] = {"fixed": "fixed point", "float": "floating point"}
PLACES = ("compact", "balanced")

# The compiler's passes, in the order in which they run; in float, without FIXED_POINT.
INGEST = "ingest"
GRAPH_BRANCHES = "graph-branches"
LOOPS = "loops"
HOST_SPLIT = "host-split"
FIXED_POINT = "fixed-point"
BALANCE = "balance"
PASS_NAMES = (INGEST, GRAPH_BRANCHES, LOOPS, HOST_SPLIT, FIXED_POINT, BALANCE)

DECODINGS = ("sum", "max", "last", "first-spike")  # mksgn/deploy/decode.py says what they mean
