"""Records, manifests, counts and grids with any other content: they are used, or refused in one line."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from mksgn.bench.check.check import check
from mksgn.bench.chip_counts import comparison, counts, tables
from mksgn.bench.compare import runs
from mksgn.bench.compare import tables as compare_tables
from mksgn.bench.manifest import verified
from mksgn.bench.record import Record
from mksgn.bench.record_io import load
from mksgn.bench.report.clip import clip_of
from mksgn.bench.report.facts import facts_of
from mksgn.bench.report.write import manifest_of
from mksgn.bench.summary import lines
from mksgn.bench.sweep import grid
from mksgn.common.errors import BadInputError
from mksgn.deploy.nir_data import dt_of_folder
from mksgn.deploy.run_files import MANIFEST_FILE
from mksgn.deploy.run_folder import UNSEALED, _seal
from tests.support.damaged_json import damaged, damaged_text
from tests.support.records import small_run
from tests.support.refusals import refusal
from tests.support.tiers import examples

DATA = Path(__file__).parents[1] / "data" / "schemas"
RUNS = [small_run(), json.loads((DATA / "run-1.json").read_text())]
MANIFEST = json.loads((DATA / "manifest-1.json").read_text())
COUNTS = yaml.safe_load((DATA / "chip_counts-1.yaml").read_text())
GRID = yaml.safe_load((DATA / "sweep-1.yaml").read_text())

several = settings(max_examples=examples(100, 12), suppress_health_check=[HealthCheck.function_scoped_fixture])


def shown(record: Record) -> None:
    assert lines(record)
    compared = runs.compare(record, record, names=("a", "b"))
    assert [*compare_tables.tables(compared), compare_tables.markdown(compared), compare_tables.document(compared)]


def facts(folder: Path) -> None:
    found = facts_of(load(folder), manifest_of(folder))
    assert found.predictions is not None
    assert found.files is not None
    clip_of(folder, found.manifest)


def used_or_refused(*uses: Callable[[], object]) -> None:
    """Call each; the only error that they may raise is ours, in one line."""
    for use in uses:
        message = ""
        try:
            use()
        except BadInputError as error:
            message = str(error)
        assert "\n" not in message
        assert len(message) < 1000


@pytest.mark.parametrize("valid", RUNS, ids=["by hand", "of a run"])
def test_any_run(valid, tmp_path):
    @several
    @given(damaged_text(valid))
    def holds(text):
        (tmp_path / "run.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        used_or_refused(lambda: shown(load(tmp_path)), lambda: check(tmp_path))

    holds()


def test_any_manifest(tmp_path):
    shutil.copy(DATA / "run-1.json", tmp_path / "run.json")

    @several
    @given(damaged({key: value for key, value in MANIFEST.items() if key not in ("schema", "sha256")}))
    def holds(content):
        content = content if isinstance(content, dict) else {}
        draft = json.dumps({"schema": MANIFEST["schema"], "sha256": UNSEALED, **content})
        (tmp_path / MANIFEST_FILE).write_text(draft.replace(UNSEALED, _seal(draft), 1))
        used_or_refused(
            lambda: verified(tmp_path), lambda: dt_of_folder(tmp_path), lambda: facts(tmp_path), lambda: check(tmp_path)
        )

    holds()


def test_any_counts(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(small_run()))
    record = load(tmp_path)

    def compared() -> None:
        read_out = counts.read(tmp_path / "counts.yaml")
        found = comparison.compare_chip(record, read_out)
        assert [*tables.tables(found), *tables.sentences(found)]
        counts.models_file([counts.model_of(read_out, record)])

    @several
    @given(damaged(COUNTS))
    def holds(content):
        (tmp_path / "counts.yaml").write_text(json.dumps(content))
        used_or_refused(compared)

    holds()


def test_any_grid(tmp_path):
    def planned() -> None:
        requested = grid.read(tmp_path / "grid.yaml")
        assert requested.axes.points
        json.dumps(requested.request())
        assert requested.settings
        assert [point.label for point in requested.points()]

    @several
    @given(damaged(GRID))
    def holds(content):
        (tmp_path / "grid.yaml").write_text(json.dumps(content))
        used_or_refused(planned)

    holds()


def test_a_kind_of_synapse_that_is_left_out_is_named(tmp_path):
    run = copy.deepcopy(RUNS[1])
    layer = next(layer for layer in run["layers"] if layer["syn_ops_by_kind"])
    del layer["syn_ops_by_kind"]["sparse"]
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "Input should have dense, sparse, convolution; sparse is missing" in refusal(lambda: load(tmp_path))


@pytest.mark.parametrize("program", [True, {"dt": "x"}, {"dt": -1}, {"dt": True}, {"dt": 10**39}])
def test_a_time_step_of_the_manifest_is_seconds(program, tmp_path):
    draft = json.dumps({**MANIFEST, "sha256": UNSEALED, "program": program})
    (tmp_path / MANIFEST_FILE).write_text(draft.replace(UNSEALED, _seal(draft), 1))
    if program == {"dt": 10**39}:
        assert dt_of_folder(tmp_path) == 1e39
    else:
        assert "the manifest's time step is " in refusal(lambda: dt_of_folder(tmp_path))
