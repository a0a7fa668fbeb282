"""Both reports of a run's folder: where they are written, from what, and what is refused."""

import pytest

from mksgn.bench.claims import Published, published_claims
from mksgn.bench.energy_models import EnergyModel
from mksgn.bench.record_io import load
from mksgn.bench.report.facts import facts_of
from mksgn.bench.report.write import write_report
from mksgn.common.errors import BadInputError
from tests.support.paths import ROOT
from tests.support.report_pages import Balanced, manifest


def test_both_reports_are_written_into_the_run_s_folder(run_folder):
    paths = write_report(run_folder)
    assert paths == [run_folder / "report.html", run_folder / "report.md"]
    assert paths[0].read_text(encoding="utf-8").startswith("<!doctype html>")
    assert paths[1].read_text(encoding="utf-8").startswith("## MK-SGN run: `model.nir` on synthetic\n")
    names = ["manifest.json", "report.html", "report.md", "run.json", "spikes.npz"]
    assert sorted(path.name for path in run_folder.iterdir()) == names
    with pytest.raises(BadInputError, match="no such file"):
        write_report(run_folder / "absent")


def test_a_report_before_its_manifest_is_the_one_after_it(run_folder, tmp_path_factory):
    """The manifest comes last, with the reports' hashes; writing them again must change nothing."""
    after = [path.read_bytes() for path in write_report(run_folder)]
    (run_folder / "manifest.json").unlink()
    unfinished = manifest()
    for name in ("report.html", "report.md"):
        unfinished["files"].pop(name)
    before = [path.read_bytes() for path in write_report(run_folder, manifest=unfinished)]
    assert before == after


def test_a_changed_manifest_or_broken_spikes_are_refused(run_folder):
    (run_folder / "spikes.npz").write_bytes(b"PK nothing")
    with pytest.raises(BadInputError, match=r"spikes\.npz: not readable as the spikes of a run"):
        write_report(run_folder)
    text = (run_folder / "manifest.json").read_text()
    (run_folder / "manifest.json").write_text(text.replace("a processor", "another"))
    with pytest.raises(BadInputError, match="it was changed since it was written"):
        write_report(run_folder)


def test_other_prices_and_claims_hold_for_the_pages_alone(run_folder):
    before = (run_folder / "run.json").read_bytes()
    mine = EnergyModel.model_validate(
        {"name": "my-chip", "evidence": "measured", "source": "bench 7", "prices_pJ": {"synaptic_op": 1e6}}
    )
    figure = {"name": "my figure", "quantity": "energy", "value": 2.0, "unit": "mJ", "version": "1", "grade": "own"}
    figure |= {"source": "us", "energy_model": "my-chip"}
    paths = write_report(run_folder, models=[mine], claims=[Published.model_validate(figure)])
    html, text = (path.read_text() for path in paths)
    for words in (Balanced(html).text, text):
        assert "my-chip" in words
        assert "keras-spiking-loihi" in words  # what the record states besides
        assert "≥ 3" in words  # 3000 synaptic operations at a microjoule each; the rest has no price
        assert "does not hold under my-chip: at least 3 mJ" in words
        assert "energy per sample, v5" in words
    assert (run_folder / "run.json").read_bytes() == before
    judged = facts_of(load(run_folder), {}, claims=published_claims())
    assert judged.record.claims == load(run_folder).claims  # the same figures, judged again


def test_what_the_pages_are_made_of_is_part_of_the_package():
    names = {path.name for path in (ROOT / "mksgn" / "bench" / "data").iterdir()}
    parts = {f"report_{name}.html" for name in ("charts", "network", "prices", "summary", "timing")}
    assert {"report.html", "report.css", "report.js", "report.md"} | parts <= names
