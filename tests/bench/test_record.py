"""mksgn/bench/record: what run.json accepts and refuses, and that the schema checked in is the code's."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mksgn.bench import record as rec
from mksgn.bench.record import Record, json_schema, load, save
from mksgn.common.errors import BadInputError

SCHEMA_FILE = Path(rec.__file__).parent / "data" / "run.schema.json"


def layer(name: str, **changes: Any) -> dict[str, Any]:
    """A chip layer of 100 neurons over 4 clips of 4 steps (one body): 1600 updates, 400 of them spikes."""
    row: dict[str, Any] = {
        "name": name,
        "kind": "conv",
        "place": "chip",
        "shape": [4, 5, 5],
        "neurons": 100,
        "spikes": 400,
        "firing_rate": 0.25,
        "input_rate": 0.5,
        "syn_ops": 7_000,
        "dense_ops": 16_000,
        "coincidences": 0,
        "neuron_updates": 1_600,
        "product_units": 0,
        "effective_acs": 6_500,
        "axon_out": 1_200,
        "spikes_in": 1_500,
        "cores": 1,
        "max_membrane": 812.0,
        "max_current": 1024.0,
        "silent_fraction": 0.02,
        "saturated_fraction": 0.01,
    }
    return {**row, **changes}


def small_run() -> dict[str, Any]:
    """A hand-made run of 4 clips: an encoder on the host, a convolution, a product and a read-out on the chip."""
    encoder = {"kind": "encoder", "place": "host", "input_rate": None, "syn_ops": 0, "effective_acs": 0}
    encoder |= {"axon_out": None, "spikes_in": None, "cores": None}
    product = {"kind": "product", "coincidences": 90, "input_rate": 0.25, "syn_ops": 4_400, "effective_acs": 4_400}
    product |= {"neuron_updates": 3_200, "product_units": 1_600, "axon_out": 890, "spikes_in": 690, "cores": 3}
    readout = {"kind": "readout", "shape": [3], "neurons": 3, "spikes": 0, "firing_rate": 0.0, "silent_fraction": 0.0}
    readout |= {"syn_ops": 600, "effective_acs": 600, "dense_ops": 4_800, "neuron_updates": 48, "axon_out": 0}
    readout |= {"spikes_in": 800, "saturated_fraction": 0.0}
    return {
        "schema": "mksgn.run/1",
        "model": {"file": "model.nir", "sha256": "a" * 64},
        "data": {"source": "synthetic", "split": "test", "clips": 4},
        "seed": 0,
        "environment": {"python": "3.10.14", "torch": "2.3.1", "nir": "1.0.8", "platform": "Linux"},
        "parents": ["b" * 64],
        "execution": {
            "backend": "lava",
            "precision": "fixed",
            "steps": 4,
            "latency_steps": 3,
            "seconds": 2.0,
            "clips_per_second": 2.0,
            "repeats": 3,
            "seconds_min": 1.9,
            "seconds_max": 2.5,
        },
        "accuracy": {
            "top1": 0.75,
            "correct": 3,
            "per_class": {"wave": 1.0, "sit down": 0.5, "throw": None},
            "confusion": [[2, 0, 0], [0, 1, 1], [0, 0, 0]],
        },
        "layers": [
            layer("encoder", **{**encoder, "dense_ops": 40_000}),
            layer("blocks.0.conv"),
            layer("blocks.0.attention.m", **product),
            layer("readout", **readout),
        ],
        "totals": {
            "spikes": 200.0,
            "syn_ops": 3_000.0,
            "coincidences": 22.5,
            "neuron_updates": 1_212.0,
            "product_units": 400.0,
            "active_updates": 222.5,
            "host_macs": 10_000.0,
            "host_macs_every_step": 40_000.0,
            "graded_macs": 0.0,
            "host_to_chip_spikes_per_step": 25.0,
            "latency_steps": 3,
            "lanes": 1.0,
            "Effective_ACs": 2_875.0,
            "Effective_MACs": 10_000.0,
            "Dense": 19_200.0,
            "ActivationSparsity": 0.75,
            "ConnectionSparsity": 0.1,
            "Footprint": 12_345.0,
            "dendrite_updates": 1_212.0,
            "spikes_in": 747.5,
            "axon_out": 522.5,
        },
        "energy": [],
        "claims": [],
        "parity": {"against": "torch", "decisions": 4_800, "mismatches": 0, "first": None},
        "placement": {
            "chip": "loihi2",
            "cores": 5,
            "chips": 1,
            "limits": [
                {"name": "neurons per core", "value": 100, "max": 8192},
                {"name": "output axons per core", "value": 12, "max": None},
            ],
        },
        "gcn": {"preset": "demo", "streams": ["joint", "bone"], "layers": 10, "parameters": 5_000, "macs": 2_000_000.0},
    }


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small run with one field replaced; numbers in the path index lists."""
    run = copy.deepcopy(small_run())
    at: Any = run
    *way, last = path.split(".")
    for part in way:
        at = at[int(part)] if part.isdigit() else at[part]
    at[last] = value
    return run


def test_a_run_survives_saving_and_loading(tmp_path):
    run = Record.model_validate(small_run())
    save(run, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == load(tmp_path) == run
    assert json.loads((tmp_path / "run.json").read_text()) == small_run()
    assert list(json.loads((tmp_path / "run.json").read_text())) == list(small_run())  # the order of the schema
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_dumped_run_fits_the_schema_that_is_checked_in(tmp_path):
    schema = json.loads(SCHEMA_FILE.read_text())
    assert schema == json_schema(), "run `make schema`"
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


def test_files_that_are_no_run_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="No such file"):
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

    monkeypatch.setattr("mksgn.common.atomic.os.replace", full)
    with pytest.raises(BadInputError, match="No space left"):
        save(Record.model_validate(changed("seed", 7)), tmp_path / "run.json")
    assert (tmp_path / "run.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


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
        rec.EnergyEntry.model_validate(entry)
    with pytest.raises(ValueError, match="total_every_step_mJ must be null"):
        rec.EnergyEntry.model_validate({**entry, "total_mJ": None})
