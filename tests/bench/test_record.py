"""mksgn/bench/record: what run.json accepts and refuses, and that the schema checked in is the code's."""

import json

import jsonschema
import pytest

from mksgn.bench.choices import DATA
from mksgn.bench.record import SCHEMA, EnergyEntry, Record
from mksgn.bench.record_io import load, save
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import json_schema_of
from tests.support.records import changed, small_run


def test_a_dumped_run_fits_the_schema_that_is_checked_in(tmp_path):
    text = (DATA / "run.schema.json").read_text(encoding="utf-8")
    assert text == json_schema_of(Record, SCHEMA, "serialization") + "\n", "run `make schema`"
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    save(Record.model_validate(small_run()), tmp_path / "run.json")
    jsonschema.validate(json.loads((tmp_path / "run.json").read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed("layers.1.joules", 1), schema)


def test_labels_parity_and_chip_may_be_absent_as_null():
    for part in ("accuracy", "parity", "placement", "seed"):
        assert getattr(Record.model_validate(changed(part, None)), part) is None


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("layers.1.firing_rate", 1.2, "layers.1.firing_rate: Input should be less than or equal to 1"),
        ("layers.1.firing_rate", float("nan"), "layers.1.firing_rate: Input should be a finite number"),
        ("layers.1.max_membrane", float("inf"), "layers.1.max_membrane: Input should be a finite number"),
        ("layers.1.spikes", 1.5, "layers.1.spikes: Input should be a valid integer"),
        ("layers.1.spikes", "400", "layers.1.spikes: Input should be a valid integer"),
        ("layers.1.spikes", -1, "layers.1.spikes: Input should be greater than or equal to 0"),
        ("layers.1.joules", 1, "layers.1.joules: Extra inputs are not permitted"),
        ("layers.1.place", "cloud", "layers.1.place: Input should be 'host' or 'chip'"),
        ("layers.1.effective_acs", 9_999, r"effective_acs \(9999\) exceeds syn_ops \(7000\)"),
        ("layers.1.spikes", 1_601, r"spikes \(1601\) exceeds its neurons' updates \(1600\)"),
        ("layers.1.coincidences", 1, r"coincidences \(1\) exceeds product_units \(0\)"),
        ("layers.3.spikes", 1, r"readout: spikes \(1\) exceeds its neurons' updates \(0\)"),
        ("totals.spikes", 1e101, r"totals\.spikes: .*1e\+101 exceeds 1e\+100"),
        ("layers.1.name", "readout", "layer 'readout' is listed more than once"),
        ("totals.active_updates", 1213, "active_updates .* exceeds neuron_updates"),
        ("accuracy.top1", 0.5, r"accuracy.top1 \(0.5\) is not correct / clips \(3 / 4\)"),
        ("accuracy.correct", 4, r"correct \(4\) is not the diagonal of confusion \(3\)"),
        ("accuracy.confusion", [[3, 0], [0, 1]], "confusion must have 3 rows and columns"),
        ("execution.seconds", 3.0, "seconds .* lie outside seconds_min and seconds_max"),
        ("model.sha256", "abc", "model.sha256: String should match pattern"),
        ("data.clips", 0, "data.clips: Input should be greater than or equal to 1"),
        ("parity.mismatches", 20_000, r"mismatches \(20000\) exceeds decisions"),
        ("parity.first", {"layer": "x", "clip": 0, "step": 1}, "first mismatch given, though mismatches is 0"),
        ("schema", "mksgn.run/0", "schema is 'mksgn.run/0', this version reads 'mksgn.run/1'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path, path, value, fault):
    (tmp_path / "run.json").write_text(json.dumps(changed(path, value)))
    with pytest.raises(BadInputError, match=fault) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "run.json"))


def test_a_total_stands_if_and_only_if_everything_is_priced():
    entry = {
        "model": "x",
        "evidence": "declared",
        "source": "s",
        "terms": {"syn_ops": 1.0},
        "total_mJ": 1.0,
        "total_every_step_mJ": 1.0,
        "priced_mJ": 1.0,
        "unpriced": ["memory"],
        "excludes": [],
    }
    with pytest.raises(ValueError, match="if and only if an event is unpriced"):
        EnergyEntry.model_validate(entry)
    bound = {**entry, "unpriced": [], "lower_bounds": {"syn_ops": "the price covers only a part"}}
    with pytest.raises(ValueError, match="if and only if an event is unpriced or a lower bound"):
        EnergyEntry.model_validate(bound)
    none = {"total_mJ": None, "total_every_step_mJ": None}
    assert EnergyEntry.model_validate({**bound, **none}).incomplete == ["syn_ops"]
    with pytest.raises(ValueError, match="x: syn_ops is both among the terms and unpriced"):
        EnergyEntry.model_validate({**entry, **none, "unpriced": ["syn_ops"], "prices": {}})
    # as records of versions before prices were kept have it
    EnergyEntry.model_validate({**entry, **none, "unpriced": ["syn_ops"]})
    with pytest.raises(ValueError, match="total_every_step_mJ must be null"):
        EnergyEntry.model_validate({**entry, "total_mJ": None})
