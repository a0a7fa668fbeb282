"""The repository's own files, and real clips where they are available."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = ROOT / "examples"
DATA = ROOT / "tests" / "data"
NW_UCLA = ROOT.parent / "shared" / "data" / "nw_ucla"
needs_nw_ucla = pytest.mark.skipif(
    not NW_UCLA.is_dir(), reason="the real NW-UCLA clips are not next to this checkout (../shared/data/nw_ucla)"
)
