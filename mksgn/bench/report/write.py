"""report.html and report.md from a run's folder.

facts     what both reports say          page, markdown   the two reports
raster    spikes as images               clip      the skeleton beside them
charts    geometry of the charts
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mksgn.bench.claims import Published
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.record import RUN_FILE
from mksgn.bench.record_io import load, write_atomically
from mksgn.bench.report import markdown, page
from mksgn.bench.report.clip import clip_of
from mksgn.bench.report.facts import REPORT_FILES, facts_of
from mksgn.deploy.run_folder import MANIFEST_FILE, read_manifest


def write_report(
    run_dir: Path | str,
    *,
    models: Sequence[EnergyModel] | None = None,
    claims: Sequence[Published] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write report.html and report.md of the run in `run_dir`, and return their paths.

    models, claims: price and judge the run with these instead of what run.json states, which stays as it is
    manifest:       what manifest.json will say, where it is not written yet; None: the folder's, if it has one

    Raises BadInputError for a record, a manifest or spikes that cannot be read.
    """
    run_dir = Path(run_dir)
    if manifest is None:
        manifest = read_manifest(run_dir) if (run_dir / MANIFEST_FILE).is_file() else {}
    facts = facts_of(load(run_dir / RUN_FILE), manifest, models, claims)
    texts = (page.render(facts, clip_of(run_dir, manifest)), markdown.render(facts))
    paths = [run_dir / name for name in REPORT_FILES]
    for path, text in zip(paths, texts, strict=True):
        write_atomically(path, text)
    return paths
