"""mksgn/bench/timing_models: the known models, and what a file may say."""

import json

import pytest

from mksgn.bench.choices import DATA
from mksgn.bench.timing_models import SCHEMA, ModelsFile, TimingModel, known_timing_models
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import json_schema_of
from mksgn.deploy.placement.loads import EVENTS

KNOWN = {model.name: model for model in known_timing_models()}
LATENCIES = {"message_in": 1, "synaptic_op": 2, "neuron_access": 3, "neuron_update": 4, "spike": 5, "message_out": 6}


def test_loihi_1_has_latencies_and_loihi_2_counts():
    assert list(KNOWN) == ["sana-fe-loihi", "loihi2-counts"]
    loihi1, loihi2 = KNOWN.values()
    assert (loihi1.chip, loihi2.chip) == ("loihi1", "loihi2")
    assert loihi1.latencies_ns.by_event() == {
        "messages_in": 16.0,
        "dense": 3.8,
        "sparse": 4.7,
        "convolution": 3.1,
        "accesses": 6.0,
        "updates": 3.7,
        "spikes": 30.0,
        "messages_out": 5.1,
    }
    assert loihi2.latencies_ns is None
    assert all(len(model.source) > 30 and model.scope for model in KNOWN.values())


def test_one_latency_stands_for_all_kinds_of_synapse():
    model = TimingModel(name="x", chip="loihi1", evidence="measured", source="a board", latencies_ns=LATENCIES)
    by_event = model.latencies_ns.by_event()
    assert set(by_event) == set(EVENTS)
    assert (by_event["dense"], by_event["sparse"], by_event["convolution"]) == (2, 2, 2)


@pytest.mark.parametrize(("tiles", "time"), [(0, 0.6), (1, 0.6), (2, 1.0), (3, 1.0), (28, 1.4), (29, 1.8), (500, 1.8)])
def test_the_barrier_is_that_of_the_largest_number_of_tiles_not_exceeded(tiles, time):
    assert KNOWN["sana-fe-loihi"].barrier(tiles) == time
    assert KNOWN["loihi2-counts"].barrier(tiles) == 0


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"barrier_us": {1: 0.5}}, "need latencies_ns"),
        ({"static_power_W": 0.1}, "need latencies_ns"),
        ({"latencies_ns": LATENCIES, "barrier_us": {2: 1.0}}, "begins at 2 tiles"),
        ({"latencies_ns": {**LATENCIES, "spike": -1}}, "greater than or equal to 0"),
        ({"latencies_ns": {**LATENCIES, "spik": 1}}, "Extra inputs"),
    ],
)
def test_contradictions_are_refused(tmp_path, changes, fault):
    entry = {"name": "x", "chip": "loihi1", "evidence": "measured", "source": "a board", **changes}
    path = tmp_path / "models.yaml"
    path.write_text(json.dumps({"schema": SCHEMA, "models": [entry]}))
    with pytest.raises(BadInputError, match=fault):
        known_timing_models([path])


def test_a_name_that_exists_is_refused(tmp_path):
    entry = {"name": "loihi2-counts", "chip": "loihi1", "evidence": "measured", "source": "a board"}
    (tmp_path / "models.yaml").write_text(json.dumps({"schema": SCHEMA, "models": [entry]}))
    with pytest.raises(BadInputError, match="a timing model named 'loihi2-counts' exists already"):
        known_timing_models([tmp_path / "models.yaml"])


def test_the_schema_that_is_checked_in_is_that_of_the_code():
    text = (DATA / "timing_models.schema.json").read_text(encoding="utf-8")
    assert text == json_schema_of(ModelsFile, SCHEMA, "validation") + "\n"
