"""What the options of mksgn-deploy and mksgn-bench offer, as data: their help imports nothing that they choose."""

from pathlib import Path

from mksgn.common import yaml_text

CHIPS_FILE = Path(__file__).parent / "data" / "chips.yaml"
# only their names; mksgn/deploy/placement/chips.py reads and checks the file
CHIP_NAMES = tuple(str(chip["name"]) for chip in yaml_text.read(CHIPS_FILE)["chips"])

# The compiler's passes, which run in this order; those in float without FIXED_POINT.
INGEST, GRAPH_BRANCHES, LOOPS, HOST_SPLIT, FIXED_POINT, BALANCE = PASS_NAMES = (
    "ingest",
    "graph-branches",
    "loops",
    "host-split",
    "fixed-point",
    "balance",
)

DECODINGS = ("sum", "max", "last", "first-spike")  # mksgn/deploy/decode.py has what they mean
