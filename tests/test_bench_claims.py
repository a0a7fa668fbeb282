"""bench/claims: verdicts under several energy models, and that a small network is given none about the paper's."""

import pytest
from test_bench_energy_models import PAPER_SOPS, totals

from mksgn.bench.claims import Published, evaluate, percent, published_claims, reprice
from mksgn.bench.energy_models import known_models, model_named, price
from mksgn.bench.record import Claim, EnergyEntry
from mksgn.train.errors import BadInputError


def energies(**counts: float) -> list[EnergyEntry]:
    return [price(model, totals(**counts)) for model in known_models()]


def rows(network: str | bool = "paper", theory: float | None = 0.6, **counts: float) -> list[Claim]:
    return evaluate(energies(**counts), theory, network)


def test_the_published_figures_keep_their_versions_and_grades():
    v5, v4, reduction = published_claims()
    assert (v5.value, v5.version, v5.grade) == (0.596, "v5", "review")
    assert (v4.value, v4.version, v4.grade) == (0.614, "v4", "review")
    assert (reduction.value, reduction.reference_mJ, reduction.grade) == (0.98, 35, "paper")
    assert {figure.energy_model for figure in (v5, v4, reduction)} == {"horowitz45-fp32"}


def test_the_paper_s_own_operations_meet_the_claims_in_its_arithmetic_and_miss_them_on_loihi():
    v5, v4, reduction = rows(syn_ops=PAPER_SOPS, host_macs=0, spikes=1e6)
    assert v5.measured == pytest.approx(0.5958)
    assert v5.ratio == pytest.approx(0.9997, abs=1e-4)
    assert v5.theory == v4.theory == 0.6
    assert "holds under horowitz45-fp32: 0.596 mJ" in v5.verdict
    assert "does not hold under davies2018-loihi1: at least 15.6 mJ" in v5.verdict
    assert "sana-fe-loihi: at least 23.5 mJ" in v5.verdict
    assert reduction.measured == pytest.approx(1 - 0.5958 / 35)
    assert reduction.theory == pytest.approx(1 - 0.6 / 35)
    assert "holds under horowitz45-fp32: 98.3 %" in reduction.verdict
    assert "does not hold under davies2018-loihi1: at most 55 %" in reduction.verdict
    assert "sana-fe-loihi: at most 33 %" in reduction.verdict
    assert "keras-spiking-loihi: 49 %" in reduction.verdict  # a total: it excludes all the rest, and there are no MACs


def test_a_lower_bound_refutes_and_never_confirms():
    _, _, reduction = rows(syn_ops=1e6, spikes=1e4, host_macs=1)
    assert "davies2018-loihi1" in reduction.verdict.split("stays open under")[1]
    assert "does not hold" not in reduction.verdict
    assert "holds under horowitz45-fp32: over 99.99 %" in reduction.verdict


def test_the_first_layer_at_every_step_can_undo_a_claim():
    # 0.36 mJ of operations and 0.184 mJ of MACs, or 0.736 mJ of them: 0.544 and 1.096 mJ, 98.4 % and 96.9 % below 35 mJ
    v5, _, reduction = rows(syn_ops=4e8, host_macs=4e7, host_macs_every_step=16e7)
    assert "horowitz45-fp32: 0.544 mJ (not with the first layer charged at every step)" in v5.verdict
    assert "horowitz45-fp32: 98.4 % (not with the first layer charged at every step)" in reduction.verdict
    assert "horowitz45-int8: 99.9 %; " in reduction.verdict


@pytest.mark.parametrize(("network", "named"), [("demo", "the network 'demo'"), (False, "another network")])
def test_another_network_gets_no_verdict_on_the_paper_s(network, named):
    for row in rows(network, syn_ops=1e6):
        assert row.verdict.startswith(f"No verdict on the paper's network: this run is of {named}, which says nothing")
        assert "holds" not in row.verdict
        assert "meets the figure under horowitz45-fp32" in row.verdict


def test_the_paper_preset_is_named_a_reconstruction():
    for network in (True, "paper"):
        assert all(row.verdict.startswith("Our reconstruction") for row in rows(network, syn_ops=1e6))


def test_without_a_total_under_the_published_model_nothing_is_measured():
    davies = price(model_named("davies2018-loihi1"), totals(syn_ops=1e6))
    row = evaluate([davies], None, "demo")[0]
    assert row.measured is row.ratio is row.theory is None
    assert "cannot be compared: no energy model priced it" in evaluate([], None, "demo")[0].verdict
    with pytest.raises(BadInputError, match="stands twice"):
        evaluate([davies, davies], None, "demo")


def test_what_the_published_energy_becomes_at_other_prices():
    v5, _, reduction = published_claims()
    assert reduction.reference_mJ is not None
    becomes = {row.model: row for row in reprice(v5, reduction.reference_mJ)}
    assert becomes["horowitz45-fp32"].energy_mJ == pytest.approx(0.596)
    assert becomes["horowitz45-fp32"].reduction == pytest.approx(0.983, abs=1e-3)
    assert becomes["horowitz45-int32add"].energy_mJ == pytest.approx(0.066, abs=5e-4)
    assert becomes["davies2018-loihi1"].energy_mJ == pytest.approx(15.6, abs=0.05)
    assert becomes["davies2018-loihi1"].reduction == pytest.approx(0.55, abs=5e-3)
    assert becomes["sana-fe-loihi"].energy_mJ == pytest.approx(23.5, abs=0.05)
    assert becomes["sana-fe-loihi"].reduction == pytest.approx(0.33, abs=5e-3)
    assert "loihi2-pilotnet" not in becomes


def test_a_reduction_needs_its_reference():
    fields = published_claims()[2].model_dump()
    with pytest.raises(ValueError, match="reference_mJ belongs to a reduction"):
        Published.model_validate({**fields, "reference_mJ": None})
    with pytest.raises(ValueError, match="a fraction below 1"):
        Published.model_validate({**fields, "value": 98.0})


def test_percentages_keep_decimals_where_they_matter():
    texts = [percent(x) for x in (1.0, 0.99995, 0.983, 0.5536, -1.2)]
    assert texts == ["100 %", "over 99.99 %", "98.3 %", "55 %", "-120 %"]
