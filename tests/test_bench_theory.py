"""bench/theory: the paper's formula against hand-computed figures."""

import pytest
from test_bench_record import layer, small_run

from mksgn.bench.energy_models import model_named
from mksgn.bench.record import Layer, Record
from mksgn.bench.theory import paper_formula, theory_of
from mksgn.train.errors import BadInputError


def test_sops_are_input_rate_times_dense_operations_per_clip():
    theory = theory_of(Record.model_validate(small_run()))
    encoder, conv, product, readout = theory.layers
    assert (encoder.macs, encoder.theory_sops, encoder.syn_ops, encoder.ratio) == (10_000, 0, 0, None)
    assert (conv.macs, conv.theory_sops, conv.syn_ops) == (0, 2_000, 1_750)  # 0.5 x 16000 / 4; 7000 / 4
    assert conv.ratio == pytest.approx(0.875)
    assert (product.theory_sops, product.syn_ops) == (1_000, 1_100)
    assert (readout.theory_sops, readout.syn_ops) == (600, 150)
    assert (theory.first_layer_macs, theory.theory_sops, theory.syn_ops) == (10_000, 3_600, 3_000)
    assert theory.ratio == pytest.approx(3_000 / 3_600)


def test_energy_charges_the_first_layer_once_or_at_every_step():
    theory = theory_of(Record.model_validate(small_run()))
    # 4.6 pJ x 10000 + 0.9 pJ x 3600 = 49.24 nJ; with the first layer at all 4 steps 187.24 nJ
    assert theory.energy_mJ == pytest.approx(49.24e-6)
    assert theory.energy_every_step_mJ == pytest.approx(187.24e-6)
    assert sum(row.theory_mJ for row in theory.layers) == pytest.approx(theory.energy_mJ)
    # measured: the same MACs, 3000 operations
    assert sum(row.measured_mJ for row in theory.layers) == pytest.approx(48.7e-6)


def test_the_paper_s_headline_is_0_662_billion_operations():
    whole = Layer.model_validate(layer("all", input_rate=0.125, dense_ops=8 * 662_000_000))
    theory = paper_formula([whole], clips=1, steps=4)
    assert theory.theory_sops == 662_000_000
    assert theory.energy_mJ == theory.energy_every_step_mJ == pytest.approx(0.596, abs=5e-4)


def test_other_prices_need_both_a_mac_and_an_accumulation():
    layers = Record.model_validate(small_run()).layers
    theory = paper_formula(layers, clips=4, steps=4, model=model_named("horowitz45-int8"))
    assert theory.energy_mJ == pytest.approx((0.23 * 10_000 + 0.03 * 3_600) * 1e-9)
    with pytest.raises(BadInputError, match="davies2018-loihi1: the formula needs the price of a MAC"):
        paper_formula(layers, clips=4, steps=4, model=model_named("davies2018-loihi1"))
    with pytest.raises(BadInputError, match="at least one clip and one step, got 0 and 4"):
        paper_formula(layers, clips=0, steps=4)


def test_a_run_without_spikes_has_no_ratio():
    silent = Layer.model_validate(layer("silent", input_rate=0.0, syn_ops=0, effective_acs=0))
    theory = paper_formula([silent], clips=4, steps=4)
    assert theory.layers[0].ratio is theory.ratio is None
    assert theory.energy_mJ == 0
