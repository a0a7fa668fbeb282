"""mksgn/bench/ann: the ANN of the same shape on paper, and the rate at which both cost the same."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.bench.ann import activation_bits, comparison
from mksgn.bench.energy_models import known_models, model_named
from mksgn.bench.record import Record
from tests.support.records import CLIPS, INPUTS, NEURONS, STEPS, dense_run, small_run


def network(arrived: int) -> Record:
    return Record.model_validate(dense_run(arrived))


def row_of(record: Record, model: str, memory: bool):
    return next(row for row in comparison(record) if (row.model, row.memory) == (model, memory))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 15, 16, 1000])
def test_activations_tell_apart_every_number_of_spikes(steps):
    assert activation_bits(steps) == math.ceil(math.log2(steps + 1))


def test_arithmetic_on_paper():
    """2000 MACs per clip at 0.23 pJ against 0.03 pJ per synaptic operation."""
    row = row_of(network(arrived=16), "horowitz45-int8", memory=False)
    assert row.total.ann_mJ == pytest.approx(2000 * 0.23e-9)
    assert row.total.snn_mJ == pytest.approx(16 / CLIPS * NEURONS * 0.03e-9)
    assert row.total.fixed_mJ == 0
    assert row.total.rate == pytest.approx(16 / (INPUTS * STEPS * CLIPS))
    # 0.23 / 0.03 spikes per synapse and inference: more than S, so it is cheaper at every rate
    assert row.total.break_even_per_synapse == pytest.approx(0.23 / 0.03)
    assert (row.total.limit, row.total.wins, row.without_products) == ("every rate", True, None)


def test_neuron_updates_and_memory_on_paper():
    record = network(arrived=16)
    arithmetic = row_of(record, "lemaire2022", memory=False).total
    assert arithmetic.ann_mJ == pytest.approx(2000 * 4.6e-9)
    assert arithmetic.fixed_mJ == pytest.approx(400 * 5.5e-9)
    assert arithmetic.break_even_per_synapse == pytest.approx((2000 * 4.6 - 400 * 5.5) / (2000 * 0.9))
    memory = row_of(record, "lemaire2022", memory=True).total
    # all memories are below 8 KB, 10 pJ: weights, inputs once and outputs of the ANN; the host writes its outputs
    ann = 2000 * 4.6 + 10 * (2000 + INPUTS + NEURONS) + 0.1 * 2000
    assert memory.ann_mJ == pytest.approx((ann + 10 * INPUTS) * 1e-9)
    # a weight, and a state read and written, per synaptic operation; states at each update; a queue's read per arrival
    spiking = 400 * 0.9 + 10 * (400 + 2 * 400 + 4) + 0.1 * 400
    fixed = 400 * 5.5 + 10 * 2 * 400
    assert memory.snn_mJ == pytest.approx((spiking + fixed) * 1e-9)
    assert memory.fixed_mJ == pytest.approx(fixed * 1e-9)
    assert memory.limit.endswith(" %")


@given(arrived=st.integers(1, INPUTS * STEPS * CLIPS), scale=st.sampled_from([2, 3, 5]))
def test_the_break_even_rate_is_where_both_cost_the_same(arrived, scale):
    for one, other in zip(comparison(network(arrived)), comparison(network(scale * arrived)), strict=True):
        first, second = one.total, other.total
        assert first.rate is not None
        assert (first.break_even is None) == (second.break_even is None) == (first.ann_mJ <= first.fixed_mJ)
        if first.break_even is not None:
            assert second.break_even == pytest.approx(first.break_even)  # whatever the measured rate
            at_break_even = first.fixed_mJ + (first.snn_mJ - first.fixed_mJ) * first.break_even / first.rate
            assert at_break_even == pytest.approx(first.ann_mJ)
            assert first.wins == (first.rate < first.break_even)


def test_a_silent_network_has_no_break_even_and_an_old_record_no_comparison():
    silent = row_of(network(arrived=0), "horowitz45-int8", memory=False).total
    assert (silent.break_even, silent.limit, silent.wins) == (None, "unknown rates: no spike arrived", True)
    assert comparison(Record.model_validate(small_run())) == []


def test_models_with_a_mac_and_a_synaptic_price_are_compared_without_and_with_memory():
    rows = comparison(network(8))
    names = [m.name for m in known_models() if m.prices_pJ.mac is not None and m.prices_pJ.synaptic_op is not None]
    assert [(row.model, row.memory) for row in rows] == [(name, memory) for name in names for memory in (False, True)]
    assert model_named("horowitz45-int8").prices_pJ.memory_access == {}  # the memory is Lemaire's
    with_memory = [row.total for row in rows if row.memory]
    assert all(row.ann_mJ > 2000 * 10e-9 for row in with_memory)
