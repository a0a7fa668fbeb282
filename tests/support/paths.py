"""Where the tests find the repository's own files, and real clips where they are at hand."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DATA = ROOT / "tests" / "data"
NW_UCLA = ROOT.parent / "shared" / "data" / "nw_ucla"  # absent in a stranger's checkout: tests that need it skip
