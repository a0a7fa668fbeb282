"""mksgn/bench/record_io: a record survives saving and loading, whole or not at all."""

import json

import pytest

from mksgn.bench.record import Record
from mksgn.bench.record_io import load, save
from mksgn.common.errors import BadInputError
from tests.support.records import changed, small_run


def test_a_run_survives_saving_and_loading(tmp_path):
    run = Record.model_validate(small_run())
    save(run, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == load(tmp_path) == run
    written = json.loads((tmp_path / "run.json").read_text())
    # a record of an older version, without the later fields, is read, and gets their defaults
    for name, default in (("encoder_steps", 1), ("decode", "sum"), ("compiling", {})):
        assert written["execution"].pop(name) == default
    assert written.pop("student") is True
    assert written.pop("schedule") is None
    assert written.pop("timing") == []
    assert written["placement"].pop("violations") == []
    for limit in written["placement"]["limits"]:
        assert limit.pop("evidence") is limit.pop("source") is None
    assert written["parity"].pop("rounding") == 0
    for layer in written["layers"]:
        assert layer.pop("syn_ops_by_kind") is layer.pop("memory") is None
    for name in ("hops", "syn_ops_by_kind", "memory_accesses", "addressing"):
        assert written["totals"].pop(name) is None
    assert written == small_run()
    assert list(json.loads((tmp_path / "run.json").read_text())) == [
        *small_run(),
        "timing",
        "student",
        "schedule",
    ]  # the order of the schema
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_files_that_are_no_run_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="no such file"):
        load(tmp_path / "run.json")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(BadInputError, match="not JSON"):
        load(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(BadInputError, match="schema is None"):
        load(tmp_path)


def test_saving_where_nothing_can_be_written_leaves_the_old_file(tmp_path, monkeypatch):
    run = Record.model_validate(small_run())
    with pytest.raises(BadInputError, match="cannot be written"):
        save(run, tmp_path / "absent" / "run.json")
    save(run, tmp_path / "run.json")
    before = (tmp_path / "run.json").read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mksgn.common.writing.os.replace", full)
    with pytest.raises(BadInputError, match="No space left"):
        save(Record.model_validate(changed("seed", 7)), tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
