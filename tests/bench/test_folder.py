"""mksgn/bench/folder: what a new run deletes, and a report whose packages are not installed."""

import sys

import pytest

from mksgn.bench.folder import log, write_reports
from mksgn.bench.run_files import LOG_FILE, RUN
from mksgn.common.errors import BadInputError


def test_a_new_run_replaces_the_files_of_a_run_and_no_others(tmp_path):
    names = ("manifest.json", "run.json", "spikes.npz", "report.html", "report.md", "progress.npz", "notes.txt")
    for name in names:
        (tmp_path / name).write_text("old")
    with RUN.writing(tmp_path, overwrite=True) as place:
        log(place, "begun")
        assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == set(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "run.log"]


def test_the_log_is_appended_to_with_the_time_in_utc(tmp_path):
    log(tmp_path, "begun")
    log(tmp_path, "finished")
    lines = (tmp_path / LOG_FILE).read_text().splitlines()
    assert [line.partition(" ")[2] for line in lines] == ["begun", "finished"]
    assert all("+00:00 " in line for line in lines)


def test_a_report_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("mksgn.bench.report.")]:
        if not name.endswith(".facts"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(BadInputError, match=r"pip install 'mksgn\[report\]'"):
        write_reports(tmp_path)
