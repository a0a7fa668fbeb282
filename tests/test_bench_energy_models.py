"""bench/energy_models: prices against hand-computed figures, and what a missing price does to a total."""

from typing import Any

import pytest

from mksgn.bench.energy_models import EVENTS, EnergyModel, known_models, model_named, occurrences, price
from mksgn.bench.record import Totals
from mksgn.train.errors import BadInputError

ZERO = {name: 0 for name, field in Totals.model_fields.items() if field.is_required()}
NAMES = [
    "horowitz45-fp32",
    "horowitz45-int8",
    "horowitz45-int32add",
    "davies2018-loihi1",
    "keras-spiking-loihi",
    "sana-fe-loihi",
    "lemaire2022",
    "loihi2-pilotnet",
]
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
        ("horowitz45-int8", 0.0199),
        ("horowitz45-int32add", 0.0662),
        ("davies2018-loihi1", 15.6),
        ("keras-spiking-loihi", 17.9),
        ("sana-fe-loihi", 23.5),
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
    assert entry.excludes == ["neuron_updates", "spike_messages", "host_to_chip_spikes", "memory", "static_power"]


def test_what_occurred_without_a_price_takes_the_total_away():
    counts = totals(host_macs=1e6, syn_ops=1e7, spikes=1e5, neuron_updates=1e6, active_updates=1e5)
    entry = price(model_named("davies2018-loihi1"), counts)
    assert entry.total_mJ is entry.total_every_step_mJ is None
    assert entry.unpriced == ["host_macs", "spike_messages", "static_power"]
    # 10 M x 23.6 pJ, and 0.9 M x 52 pJ + 0.1 M x 81 pJ
    assert entry.terms == pytest.approx({"syn_ops": 0.236, "coincidences": 0.0, "neuron_updates": 0.0468 + 0.0081})
    assert entry.priced_mJ == pytest.approx(0.2909)
    assert price(model_named("horowitz45-int32add"), counts).unpriced == ["host_macs"]
    without_macs = price(model_named("horowitz45-int32add"), totals(syn_ops=1e7, spikes=1e5))
    assert without_macs.total_mJ == pytest.approx(0.001)


def test_product_units_are_neurons_and_are_not_paid_twice():
    # the paper's student has 6.5 million of them: over 4 steps, at 52 pJ, more than its whole published energy
    units = totals(neuron_updates=26e6, product_units=26e6)
    assert price(model_named("davies2018-loihi1"), units).terms["neuron_updates"] == pytest.approx(1.352)


def test_messages_are_priced_where_they_were_counted_and_hops_never():
    uncounted = price(model_named("sana-fe-loihi"), totals(spikes=1e6))
    assert "spike_messages" in uncounted.unpriced
    assert "spike_messages" not in uncounted.terms
    counts = totals(spikes=1e6, axon_out=2e6, neuron_updates=2e6, active_updates=1e6)
    counted = price(model_named("sana-fe-loihi"), counts)
    assert counted.terms["spike_messages"] == pytest.approx(0.1536)
    assert counted.terms["neuron_updates"] == pytest.approx(0.0512 + 0.0728 + 0.0693)
    assert "spike_messages" in counted.unpriced


def test_an_anchor_prices_nothing():
    entry = price(model_named("loihi2-pilotnet"), totals(syn_ops=1e7, host_macs=1, spikes=1))
    assert (entry.terms, entry.total_mJ, entry.priced_mJ) == ({}, None, 0.0)
    assert entry.unpriced == ["host_macs", "syn_ops", "spike_messages", "memory", "static_power"]
    assert entry.evidence == "measured"


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
        ("schema: other/1\nmodels: []", "schema: Input should be 'mksgn.energy_models/1'"),
        ("schema: mksgn.energy_models/1\nmodels: [{name: x}]", "models.0.evidence: Field required"),
    ],
)
def test_a_file_that_is_none_is_refused_in_one_line(tmp_path, text, fault):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(BadInputError, match=fault) as error:
        known_models([tmp_path / "bad.yaml"])
    assert "\n" not in str(error.value)
    with pytest.raises(BadInputError, match="No such file"):
        known_models([tmp_path / "absent.yaml"])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"prices_pJ": {"synaptic_op": -1}}, "greater than or equal to 0"),
        ({"prices_pJ": {"neuron_update_active": 81}}, "neuron_update_active without neuron_update"),
        ({"covers": ["memory"], "excludes": ["memory"]}, "memory is covered and excluded at once"),
        ({"excludes": ["luck"]}, "Input should be 'host_macs'"),
        ({"evidence": "rumoured"}, "Input should be 'measured'"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(changes, fault):
    fields = {"name": "x", "evidence": "declared", "source": "s", "scope": "", "prices_pJ": {}}
    with pytest.raises(ValueError, match=fault):
        EnergyModel.model_validate({**fields, **changes})
