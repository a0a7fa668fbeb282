"""mksgn/bench/theory: the paper's formula against hand-computed figures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.bench.choices import PAPER_MODEL
from mksgn.bench.energy_models import model_named
from mksgn.bench.record import Layer, Record
from mksgn.bench.theory import paper_formula, theory_of
from mksgn.common.errors import BadInputError
from tests.support.records import layer, small_run


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


def graded(**changes) -> Layer:
    """A layer on the chip that receives graded values: 4000 MACs per clip, over all its steps."""
    return Layer.model_validate(layer("graded", input_rate=None, syn_ops=0, effective_acs=0, **changes))


def test_strict_mode_charges_a_mac_for_every_graded_value_at_every_step():
    run = Record.model_validate(small_run())
    without = theory_of(run)
    assert without.strict_mJ == without.energy_every_step_mJ  # all layers on the chip receive spikes
    theory = paper_formula([*run.layers, graded()], clips=4, steps=4)
    row = theory.layers[-1]
    assert (row.macs, row.strict_macs, row.theory_sops, row.ratio) == (0, 4_000, 4_000, None)
    # the formula charges an accumulation for each value, the strict reading a MAC; both the encoder at 4 steps
    assert theory.energy_every_step_mJ == pytest.approx(without.energy_every_step_mJ + 0.9e-9 * 4_000)
    assert theory.strict_mJ == pytest.approx(without.strict_mJ + 4.6e-9 * 4_000)
    assert row.measured_mJ == pytest.approx(4.6e-9 * 4_000)
    assert theory.ratio == without.ratio  # it is about spikes alone


def test_graded_values_are_not_charged_for_the_steps_twice():
    """dense_ops of the chip include the steps already; those of the host do not."""
    theory = paper_formula([graded()], clips=4, steps=4)
    assert theory.first_layer_macs == 0
    assert theory.energy_mJ == theory.energy_every_step_mJ == pytest.approx(0.9e-9 * 4_000)
    assert theory.strict_mJ == pytest.approx(4.6e-9 * 4_000)


PAPER = model_named(PAPER_MODEL)
ROWS = st.lists(
    st.builds(
        lambda dense, rate, host: Layer.model_validate(
            layer(
                f"{dense}",
                dense_ops=dense,
                input_rate=None if host else rate,
                place="host" if host else "chip",
                syn_ops=0,
                effective_acs=0,
            )
        ),
        st.integers(0, 10**12),
        st.none() | st.floats(0, 1),
        st.booleans(),
    ),
    max_size=6,
)


@given(rows=ROWS, clips=st.integers(1, 100), steps=st.integers(1, 32))
def test_properties_of_the_three_readings(rows, clips, steps):
    theory = paper_formula(rows, clips=clips, steps=steps, model=PAPER)
    exact = pytest.approx
    assert theory.energy_mJ <= theory.energy_every_step_mJ * (1 + 1e-12)
    assert theory.energy_every_step_mJ <= theory.strict_mJ * (1 + 1e-12)  # a MAC costs more than an accumulation
    if steps == 1:
        assert theory.energy_mJ == exact(theory.energy_every_step_mJ)
    if all(row.place == "host" or row.input_rate is not None for row in rows):
        assert theory.strict_mJ == exact(theory.energy_every_step_mJ)
    assert sum(row.theory_mJ for row in theory.layers) == exact(theory.energy_mJ)
    assert theory.theory_sops <= sum(row.dense_ops for row in rows) / clips * (1 + 1e-12)
    # per clip: twice the events in twice the clips; per layer: the sum of any two parts
    twice = [row.model_copy(update={"dense_ops": 2 * row.dense_ops}) for row in rows]
    assert paper_formula(twice, clips=2 * clips, steps=steps, model=PAPER).strict_mJ == exact(theory.strict_mJ)
    first, rest = (paper_formula(part, clips=clips, steps=steps, model=PAPER) for part in (rows[:2], rows[2:]))
    for reading in ("energy_mJ", "energy_every_step_mJ", "strict_mJ"):
        assert getattr(first, reading) + getattr(rest, reading) == exact(getattr(theory, reading))
