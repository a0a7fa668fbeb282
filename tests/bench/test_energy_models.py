"""mksgn/bench/energy_models: prices against hand-computed figures, and what a missing price does to a total."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mksgn.bench.choices import DATA
from mksgn.bench.energy_models import (
    EVENTS,
    SCHEMA,
    EnergyModel,
    ModelsFile,
    known_models,
    model_named,
    occurrences,
    price,
)
from mksgn.bench.record import EnergyEntry, Totals
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import json_schema_of
from tests.support.paths import DOCS

ZERO = {name: 0 for name, field in Totals.model_fields.items() if field.is_required()}
NAMES = [
    "horowitz45-fp32",
    "horowitz45-fp16",
    "horowitz45-int8",
    "horowitz45-int32add",
    "davies2018-loihi1",
    "keras-spiking-loihi",
    "sana-fe-loihi",
    "sana-fe-loihi-2023",
    "lemaire2022",
    "loihi2-pilotnet",
]
KNOWN = known_models()
PAPER_SOPS = 0.662e9  # the most synaptic operations that the published 0.596 mJ can be


def totals(**counts: Any) -> Totals:
    return Totals.model_validate({**ZERO, **counts})


def test_every_model_of_the_table_is_there_with_a_source():
    assert [model.name for model in known_models()] == NAMES
    for model in known_models():
        assert len(model.source) > 30
        assert model.scope
        assert {*model.excludes, *model.covers} <= set(EVENTS) == set(occurrences(totals()))


@pytest.mark.parametrize(
    ("name", "millijoule"),
    [
        ("horowitz45-fp32", 0.596),
        ("horowitz45-fp16", 0.265),
        ("horowitz45-int8", 0.0199),
        ("horowitz45-int32add", 0.0662),
        ("davies2018-loihi1", 15.6),
        ("keras-spiking-loihi", 17.9),
        ("sana-fe-loihi", 15.9),  # of unknown kind: each as the cheapest, a convolution's
        ("sana-fe-loihi-2023", 23.5),
        ("lemaire2022", 0.596),
    ],
)
def test_the_paper_s_operations_at_each_synaptic_price(name, millijoule):
    entry = price(model_named(name), totals(syn_ops=PAPER_SOPS))
    assert entry.priced_mJ == entry.terms["syn_ops"] == pytest.approx(millijoule, rel=4e-3)


def test_an_int8_gcn_and_the_static_power_of_the_anchor():
    # 35 mJ at 4.6 pJ are 7.61 G MACs: 1.75 mJ at 0.23 pJ
    gcn = totals(host_macs=35e9 / 4.6, host_macs_every_step=35e9 / 4.6)
    assert price(model_named("horowitz45-int8"), gcn).total_mJ == pytest.approx(1.75)
    anchor = model_named("loihi2-pilotnet").anchor
    assert anchor is not None
    assert anchor.static_power_W / 389 * 1e3 == pytest.approx(0.596, rel=1e-3)  # mJ per inference, static alone


def test_the_first_layer_is_charged_once_and_at_every_step():
    counts = totals(host_macs=1e6, host_macs_every_step=4e6, syn_ops=1e7, neuron_updates=1e6, spikes=1e5)
    entry = price(model_named("horowitz45-fp32"), counts)
    assert entry.terms == pytest.approx({"host_macs": 0.0046, "syn_ops": 0.009})
    assert entry.total_mJ == entry.priced_mJ == pytest.approx(0.0136)
    assert entry.total_every_step_mJ == pytest.approx(0.0046 * 4 + 0.009)
    assert entry.unpriced == []
    assert entry.excludes == [
        "neuron_updates",
        "spike_messages",
        "spike_hops",
        "host_to_chip_spikes",
        "memory",
        "static_power",
    ]


def test_an_event_without_a_price_leaves_no_total():
    counts = totals(host_macs=1e6, syn_ops=1e7, spikes=1e5, neuron_updates=1e6, active_updates=1e5)
    entry = price(model_named("davies2018-loihi1"), counts)
    assert entry.total_mJ is entry.total_every_step_mJ is None
    assert entry.unpriced == ["host_macs", "spike_messages", "spike_hops", "static_power"]
    # 10 M x 23.6 pJ, and 0.9 M x 52 pJ + 0.1 M x 81 pJ
    assert entry.terms == pytest.approx({"syn_ops": 0.236, "coincidences": 0.0, "neuron_updates": 0.0468 + 0.0081})
    assert entry.priced_mJ == pytest.approx(0.2909)
    assert price(model_named("horowitz45-int32add"), counts).unpriced == ["host_macs"]
    without_macs = price(model_named("horowitz45-int32add"), totals(syn_ops=1e7, spikes=1e5))
    assert without_macs.total_mJ == pytest.approx(0.001)


def test_product_units_are_neurons_and_are_not_priced_twice():
    # the paper's student has 6.5 million of them: over 4 steps, at 52 pJ, more than its whole published energy
    units = totals(neuron_updates=26e6, product_units=26e6)
    assert price(model_named("davies2018-loihi1"), units).terms["neuron_updates"] == pytest.approx(1.352)


def test_messages_and_hops_are_priced_where_they_were_counted():
    uncounted = price(model_named("sana-fe-loihi"), totals(spikes=1e6))
    assert {"spike_messages", "spike_hops"} <= {*uncounted.unpriced}
    assert not {"spike_messages", "spike_hops"} & {*uncounted.terms}
    events = {"spikes": 1e6, "axon_out": 2e6, "neuron_updates": 2e6, "active_updates": 1e6}
    counted = price(model_named("sana-fe-loihi"), totals(**events))
    assert counted.terms["spike_messages"] == pytest.approx(0.222)
    assert counted.terms["neuron_updates"] == pytest.approx(0.0512 + 0.0512 + 0.0216 + 0.0693)
    assert counted.unpriced == ["spike_hops", "static_power"]
    hops = {"within_tile": 5e5, "east_west": 3e6, "north_south": 1e6}
    routed = price(model_named("sana-fe-loihi"), totals(**events, hops=hops))
    assert routed.terms["spike_hops"] == pytest.approx(0.0090 + 0.0042)
    assert routed.terms["spike_messages"] == counted.terms["spike_messages"]
    assert routed.unpriced == ["static_power"]
    # Loihi 1 by Davies: the 1.7 pJ of a spike within its tile, and a price per tile crossed
    davies = price(model_named("davies2018-loihi1"), totals(**events, hops=hops))
    assert davies.terms["spike_messages"] == pytest.approx(0.0034)
    assert davies.terms["spike_hops"] == pytest.approx(0.0090 + 0.0040)
    assert davies.unpriced == ["static_power"]
    # a model without prices of hops prices the whole way in the message; one that leaves out messages leaves out hops
    assert "spike_hops" not in price(model_named("lemaire2022"), totals(**events)).unpriced


def test_synaptic_operations_are_priced_by_kind():
    kinds = {"dense": 1e6, "sparse": 2e6, "convolution": 4e6}
    entry = price(model_named("sana-fe-loihi"), totals(syn_ops=7e6, syn_ops_by_kind=kinds))
    assert entry.terms["syn_ops"] == pytest.approx(0.0355 + 0.0672 + 0.096)
    assert entry.lower_bounds == {}
    unknown = price(model_named("sana-fe-loihi"), totals(syn_ops=7e6))
    assert unknown.terms["syn_ops"] == pytest.approx(7 * 0.024)
    assert unknown.lower_bounds == {"syn_ops": "no counts by kind of synapse: each at the cheapest kind's price"}
    assert unknown.total_mJ is None
    one_price = price(model_named("davies2018-loihi1"), totals(syn_ops=7e6, syn_ops_by_kind=kinds))
    assert one_price.terms["syn_ops"] == pytest.approx(7 * 0.0236)


@pytest.mark.parametrize(
    ("kilobytes", "pj"), [(0, 10), (8, 10), (20, 15), (32, 20), (528, 60), (1024, 100), (1536, 100 + 80 * 512 / 992)]
)
def test_an_access_costs_what_the_size_of_its_memory_costs(kilobytes, pj):
    assert model_named("lemaire2022").prices_pJ.access(kilobytes * 1024) == pytest.approx(pj)


def test_memory_and_addresses_are_terms_where_they_were_counted():
    model = model_named("lemaire2022")
    counted = totals(memory_accesses={100: 1e6, 32 << 10: 2e6}, addressing={"additions": 3e6, "macs": 1e5})
    entry = price(model, counted)
    assert entry.terms["memory"] == pytest.approx(0.010 + 0.040)
    assert entry.terms["addressing"] == pytest.approx(0.0003 + 0.00032)
    assert entry.unpriced == ["static_power"]
    assert price(model, totals()).unpriced == ["memory", "static_power", "addressing"]
    covered = price(model_named("sana-fe-loihi"), counted)  # inside its other prices
    assert not {"memory", "addressing"} & {*covered.terms, *covered.unpriced}


def test_updates_that_a_run_cannot_tell_apart_are_a_lower_bound():
    """SANA-FE has 21.6 pJ more for an update with input, which the run does not count: there is never a total."""
    entry = price(model_named("sana-fe-loihi"), totals(neuron_updates=1e6))
    assert entry.terms["neuron_updates"] == pytest.approx(0.0512)
    assert entry.unpriced == ["static_power"]
    assert entry.lower_bounds == {"neuron_updates": "the price covers only a part"}
    assert entry.total_mJ is None


def test_graded_values_on_the_chip_are_macs():
    """They are a term of their own, or there is no total."""
    counts = totals(host_macs=1e6, host_macs_every_step=4e6, graded_macs=2e6, syn_ops=1e6)
    entry = price(model_named("horowitz45-fp32"), counts)
    assert entry.terms == pytest.approx({"host_macs": 0.0046, "graded_macs": 0.0092, "syn_ops": 0.0009})
    assert entry.total_every_step_mJ == pytest.approx(0.0046 * 4 + 0.0092 + 0.0009)
    assert price(model_named("horowitz45-int32add"), counts).unpriced == ["host_macs", "graded_macs"]
    assert "graded_macs" in price(model_named("davies2018-loihi1"), counts).unpriced


def test_an_anchor_prices_nothing():
    entry = price(model_named("loihi2-pilotnet"), totals(syn_ops=1e7, host_macs=1, spikes=1))
    assert (entry.terms, entry.total_mJ, entry.priced_mJ) == ({}, None, 0.0)
    assert entry.unpriced == ["host_macs", "syn_ops", "spike_messages", "memory", "static_power"]
    assert entry.evidence == "measured"


OWN = """
schema: mksgn.energy_models/1
models:
  - name: mine
    evidence: measured
    source: our board, shunt of its core rail, 1000 inferences of one network
    prices_pJ: {mac: 3, synaptic_op: 2, coincidence: 2, neuron_update: 5, spike_message: 4, host_to_chip_spike: 30,
      time_step: 1000}
    static_power_W: 0.05
    steps_per_second: 10000
    covers: [memory]
"""
RUN: dict[str, Any] = {
    "host_macs": 1e6, "host_macs_every_step": 4e6, "Effective_MACs": 1e6, "syn_ops": 1e7, "coincidences": 1e3,
    "neuron_updates": 1e5, "spikes": 1e4, "axon_out": 2e4, "host_to_chip_spikes_per_step": 500, "lanes": 1.5,
}  # fmt: skip


def own(tmp_path: Path, text: str = OWN, name: str = "mine.yaml") -> EnergyModel:
    (tmp_path / name).write_text(text)
    return known_models([tmp_path / name])[-1]


def test_an_own_chip_has_a_total(tmp_path):
    entry = price(own(tmp_path), totals(**RUN), steps=4)
    assert entry.terms == pytest.approx(
        {
            "host_macs": 3e6 * 1e-9,
            "syn_ops": 2e7 * 1e-9,
            "coincidences": 2e3 * 1e-9,
            "neuron_updates": 5e5 * 1e-9,
            "spike_messages": 8e4 * 1e-9,
            "host_to_chip_spikes": 500 * 4 * 30e-9,
            "time_steps": 1.5 * 4 * 1000e-9,
            "static_power": 1.5 * (4 / 10000) * 0.05 * 1e3,  # 0.05 W for 0.6 ms: 0.03 mJ
        }
    )
    assert entry.unpriced == []
    assert entry.total_mJ == pytest.approx(sum(entry.terms.values()))
    assert entry.total_every_step_mJ == pytest.approx(sum(entry.terms.values()) + 9e6 * 1e-9)


def test_a_measured_time_of_an_inference_serves_as_well_as_a_speed(tmp_path):
    by_time = own(tmp_path, OWN.replace("steps_per_second: 10000", "seconds_per_inference: 4.0e-4"))
    entry = price(by_time, totals(**RUN))
    assert entry.terms["static_power"] == pytest.approx(0.03)


def test_without_the_number_of_steps_what_needs_it_is_unpriced(tmp_path):
    entry = price(own(tmp_path), totals(**RUN))
    assert entry.unpriced == ["host_to_chip_spikes", "static_power", "time_steps"]
    assert entry.total_mJ is None


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("mac: 3, ", "host_macs"),
        ("synaptic_op: 2, ", "syn_ops"),
        (" coincidence: 2,", "coincidences"),
        ("neuron_update: 5, ", "neuron_updates"),
        ("spike_message: 4, ", "spike_messages"),
        ("host_to_chip_spike: 30,", "host_to_chip_spikes"),
        ("    covers: [memory]\n", "memory"),
        ("    static_power_W: 0.05\n    steps_per_second: 10000\n", "static_power"),
    ],
)
def test_without_one_price_there_is_no_total_and_the_event_is_named(tmp_path, line, missing):
    assert line in OWN
    entry = price(own(tmp_path, OWN.replace(line, "")), totals(**RUN), steps=4)
    assert entry.unpriced == [missing]
    assert entry.total_mJ is entry.total_every_step_mJ is None
    assert missing not in entry.terms


def test_an_excluded_event_is_not_priced_by_the_price_of_a_mac_either(tmp_path):
    entry = price(own(tmp_path, OWN + "    excludes: [host_macs]\n"), totals(**RUN), steps=4)
    assert "host_macs" not in entry.terms
    assert entry.total_every_step_mJ == entry.total_mJ == pytest.approx(sum(entry.terms.values()))


@given(
    counts=st.fixed_dictionaries({
        name: st.floats(0, 1e9)
        for name in (
            "host_macs", "syn_ops", "coincidences", "spikes", "axon_out", "host_to_chip_spikes_per_step", "lanes"
        )
    }),
    updates=st.floats(0, 1e9),
    active=st.floats(0, 1),
    steps=st.integers(1, 64),
)  # fmt: skip
def test_a_total_is_the_sum_of_its_terms_and_absent_with_an_unpriced_event(counts, updates, active, steps):
    events = Totals.model_validate({
        **ZERO, **counts, "neuron_updates": updates, "active_updates": active * updates,
        "host_macs_every_step": steps * counts["host_macs"], "Effective_MACs": counts["host_macs"],
    })  # fmt: skip
    for model in KNOWN:
        entry: EnergyEntry = price(model, events, steps=steps)
        assert entry.priced_mJ == pytest.approx(sum(entry.terms.values()))
        silent = set(entry.terms) | set(entry.unpriced) | set(model.covers) | set(model.excludes)
        silent |= set() if model.prices_pJ.spike_hops else {"spike_hops"}  # part of the messages
        assert {event for event, n in occurrences(events, steps).items() if n > 0} <= silent
        assert (entry.total_mJ is None) == bool(entry.incomplete)
        assert not {*entry.terms} & {*entry.unpriced}
        assert not {*entry.unpriced} & {*model.covers, *model.excludes}


def test_the_example_of_the_documentation_is_a_complete_model(tmp_path):
    text = (DOCS / "ENERGY.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    model = own(tmp_path, example)
    assert model.evidence == "measured"
    assert price(model, totals(**RUN), steps=4).unpriced == []


def test_the_table_of_the_documentation_has_the_file_s_prices():
    rows = {}
    for line in (DOCS / "ENERGY.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6:
            rows.setdefault(cells[0].split(" ")[0], cells)  # the first table is that of prices
    for model in known_models():
        _, mac, op, update, hop_text, evidence = rows[model.name]
        prices = model.prices_pJ
        assert mac == ("–" if prices.mac is None else f"{prices.mac:g}")
        ops = prices.synaptic_op
        stated = (
            "–" if ops is None else f"{ops:g}" if isinstance(ops, float) else " / ".join(map(str, vars(ops).values()))
        )
        assert op.split(" (")[0].split(" +")[0] == stated
        for hop in prices.spike_hops.values():
            assert f"{hop}" in hop_text or not hop
        for value in (prices.neuron_update, *([] if prices.spike_message is None else [prices.spike_message])):
            assert value is None or f"{value:g}" in f"{update} {hop_text}", (model.name, value)
        assert evidence.startswith(model.evidence)


def test_the_schema_checked_in_is_the_code_s_and_accepts_our_file():
    schema = (DATA / "energy_models.schema.json").read_text(encoding="utf-8")
    assert schema == json_schema_of(ModelsFile, SCHEMA, "validation") + "\n", "run make schema"
    validator = jsonschema.Draft202012Validator(json.loads(schema))
    validator.check_schema(json.loads(schema))
    validator.validate(yaml.safe_load((DATA / "energy_models.yaml").read_text(encoding="utf-8")))
    validator.validate(yaml.safe_load(OWN))
    for wrong in ("evidence: rumoured", "static_power_W: -1"):
        content = yaml.safe_load(re.sub(rf"{wrong.split(':')[0]}: \S+", wrong, OWN))
        assert not validator.is_valid(content)


def test_a_further_file_adds_models_and_may_not_redefine_one(tmp_path):
    text = """
schema: mksgn.energy_models/1
models:
  - {name: mine, evidence: measured, source: board, scope: all, prices_pJ: {synaptic_op: 2}, excludes: [memory]}
"""
    (tmp_path / "mine.yaml").write_text(text)
    assert [model.name for model in known_models([tmp_path / "mine.yaml"])] == [*NAMES, "mine"]
    (tmp_path / "again.yaml").write_text(text.replace("mine", "lemaire2022"))
    with pytest.raises(BadInputError, match=r"'lemaire2022' exists already"):
        known_models([tmp_path / "again.yaml"])
    with pytest.raises(BadInputError, match=r"no energy model 'nobody'; known: horowitz45-fp32"):
        model_named("nobody")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("models: [", "not YAML"),
        (
            "schema: other/1\nmodels: []",
            "schema is 'other/1', this version reads 'mksgn.energy_models/1'; name a file of that schema",
        ),
        ("schema: mksgn.energy_models/1\nmodels: [{name: x}]", "x: models.0.evidence: Field required"),
        ("", "Input should be a valid dictionary"),
        (
            OWN.replace("synaptic_op: 2", "synaptic_op: -2"),
            "mine: .*synaptic_op.price: .*greater than or equal to 0; got -2",
        ),
        (OWN.replace("synaptic_op: 2", "synaptic_opp: 2"), "mine: .*synaptic_opp: Extra inputs are not permitted"),
        (OWN.replace("[memory]", "[weather]"), "mine: .*covers.0: Input should be 'host_macs'.*got 'weather'"),
        (OWN.replace("measured", "rumoured"), "mine: .*evidence: Input should be 'measured'.*got 'rumoured'"),
        (re.sub("source: .*", "source: ' '", OWN), "mine: .*source: String should have at least 1 character"),
        (
            OWN.replace("    steps_per_second: 10000\n", ""),
            "static_power_W needs one of .* got static_power_W and 0 of these",
        ),
    ],
)
def test_an_invalid_file_is_refused_in_one_line(tmp_path, text, fault):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(BadInputError, match=f"bad.yaml: .*{fault}") as error:
        known_models([tmp_path / "bad.yaml"])
    assert "\n" not in str(error.value)
    with pytest.raises(BadInputError, match="no such file"):
        known_models([tmp_path / "absent.yaml"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prices_pJ": {"synaptic_op": -1}}, "greater than or equal to 0"),
        ({"prices_pJ": {"neuron_update_active": 81}}, "neuron_update_active without neuron_update"),
        ({"covers": ["memory"], "excludes": ["memory"]}, "memory is listed in covers and in excludes"),
        ({"excludes": ["memory"], "partly": ["memory"]}, "memory is listed in excludes and in partly"),
        ({"prices_pJ": {"synaptic_op": 1}, "covers": ["syn_ops"]}, "syn_ops has a price and is covered or excluded"),
        ({"static_power_W": 1, "steps_per_second": 1, "seconds_per_inference": 1}, "got static_power_W and 2 of these"),
        ({"seconds_per_inference": 1}, "got no static_power_W and 1 of these"),
        ({"static_power_W": 0, "steps_per_second": 1}, "greater than 0"),
        ({"excludes": ["luck"]}, "Input should be 'host_macs'"),
        ({"evidence": "rumoured"}, "Input should be 'measured'"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(changes, fault):
    fields = {"name": "x", "evidence": "declared", "source": "s", "scope": "", "prices_pJ": {}}
    with pytest.raises(ValueError, match=fault):
        EnergyModel.model_validate({**fields, **changes})
