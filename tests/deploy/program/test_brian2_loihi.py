"""The fixed-point neuron against brian2-loihi, an emulator of Loihi 1 that shares no code with Lava: u, v and spikes.

brian2-loihi 0.5.2, whose authors claim an exact match of neurons and synapses with Loihi 1, computes in one step

    I = trunc0(I (4096 - decay_I) / 4096) + w     decay_I 0 … 4096; w = 64 floor(weight 2^w_exp)
    v = trunc0(v (4096 - decay_v) / 4096) + I     without a bias, and I and v without bounds
    s = v > 64 threshold_v_mant;   v = 0 where s, and for refractory - 1 steps more

so that decay_I = du + 1 makes it Lava's model. Each test after the first two holds one difference to its formula.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mksgn.deploy import compile_graph, run
from mksgn.export.lava_dl.file import read
from mksgn.export.loihi import CURRENT_WRAP, DECAY_STEPS, MEMBRANE_MAX, SUB_UNITS, SYNAPTIC_SUM_LIMIT
from tests.support.lava_dl_files import dense, inp, neuron, write
from tests.support.loihi_traces import Trace, ours, synapses, theirs
from tests.support.tiers import examples, one_in

loihi1 = pytest.importorskip("brian2_loihi", reason="brian2-loihi is not installed: make setup, with Python 3.13")

pytestmark = pytest.mark.filterwarnings("ignore")
SETTINGS = settings(derandomize=True, deadline=None, database=None, max_examples=examples(60, fast=4))
LARGEST_WRAP = int(CURRENT_WRAP) // 2  # the largest current that does not wrap
STEPS = 40


def trunc0(x: np.ndarray, decay: int) -> np.ndarray:
    """x (4096 - decay) / 4096, toward zero."""
    return np.sign(x) * (np.abs(x) * (DECAY_STEPS - decay) >> 12)


def drawn(seed: int, inputs: int = 5, neurons: int = 6, rate: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Even weights over the whole range, with a mean of either sign, and spikes."""
    rng = np.random.default_rng(seed)
    weight = 2 * rng.integers(-128, 128, (neurons, inputs)) + 2 * rng.integers(-80, 80, (neurons, 1))
    return weight.clip(-256, 254), rng.random((STEPS, inputs)) < rate


def first(differs: np.ndarray) -> int:
    assert differs.any()
    return int(np.argmax(differs))


@SETTINGS
@given(
    st.integers(0, 2**32),
    st.none() | st.integers(0, 4095) | st.sampled_from([0, 1, 4094, 4095]),
    st.integers(0, 4095) | st.sampled_from([0, 1, 2048, 4095]),
    st.integers(0, 131_071) | st.integers(0, 2000),
    st.integers(-8, 3) | st.just(0),
    st.sampled_from([0.1, 0.5, 1.0]),
)
def test_states_and_spikes_are_the_same_step_by_step(seed, du, dv, vth, w_exp, rate):
    """At decay_I = du + 1, until the current leaves 24 bits or the membrane falls below them."""
    weight, spikes = drawn(seed, rate=rate)
    expected = theirs(weight, spikes, DECAY_STEPS if du is None else du + 1, dv, vth, w_exp=w_exp)
    held = np.floor(weight * 2.0**w_exp).astype(np.int64)
    found = ours(spikes @ held.T, du, dv, vth)
    within = (np.abs(expected.u) <= MEMBRANE_MAX) & (expected.v >= -MEMBRANE_MAX)
    assert within[0].all()
    found.same(expected, np.logical_and.accumulate(within, 0))


@pytest.mark.parametrize("seed", one_in(3, range(3)))
def test_the_fused_kernels_give_the_same_spikes(seed, tmp_path):
    """A lava-dl file's iDecay, which netx writes as du = iDecay - 1, is their decay_I."""
    weight, spikes = drawn(seed)
    rng = np.random.default_rng(seed)
    decay_i, decay_v, vth = (int(n) for n in rng.integers((300, 1, 50), (4097, 4096, 900)))
    layer = dense(weight, **neuron(decay_i, decay_v, vth))
    graph = read(write(tmp_path / "net.net", [inp(weight.shape[1]), layer]))
    found = run(compile_graph(graph, precision="fixed"), spikes[None].astype(np.float32)).spikes["layer1"][0]
    expected = theirs(weight, spikes, decay_i, decay_v, vth).spikes
    assert 0.02 < expected.mean() < 0.98
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("number", one_in(4, [700, 0, 1, 4095]))
def test_the_same_number_for_the_current_s_decay_differs_by_lava_s_plus_1(number):
    """First where the two products truncate to different currents, and there by just that."""
    weight, spikes = drawn(1)
    expected, found = theirs(weight, spikes, number, 400, 100_000), ours(spikes @ weight.T, number, 400, 100_000)
    before = found.u[:-1]
    deviation = trunc0(before, number) - trunc0(before, number + 1)
    step = first(deviation.any(1)) + 1
    Trace(found.u[:step], found.v[:step], found.spikes[:step]).same(expected, slice(step))
    np.testing.assert_array_equal((expected.u - found.u)[step], deviation[step - 1])
    assert step == first((expected.u != found.u).any(1))
    assert (expected.v != found.v)[step].any()


def test_an_odd_weight_is_cut_toward_zero_and_not_down():
    """Of mixed signs: -7 becomes -6, and -8 in Lava's Dense. Our files hold even weights."""
    mantissa = np.arange(-256, 255)
    group = loihi1.LoihiNeuronGroup(len(mantissa))
    _, made = synapses(mantissa[:, None], group, np.ones((1, 1), bool), 0)
    held = made.w_act / SUB_UNITS
    np.testing.assert_array_equal(held, 2 * np.trunc(mantissa / 2))
    lava = mantissa >> 1 << 1
    np.testing.assert_array_equal(mantissa[held != lava], np.arange(-255, 0, 2))
    np.testing.assert_array_equal((held - lava)[held != lava], 2)


def test_a_weight_with_an_exponent_is_clipped_by_itself():
    """To 21 bits less the lowest 6, 32767 weight units: only -256 at the exponent 7 is beyond."""
    weight, spikes = np.array([[-256], [-254], [254]]), np.ones((1, 1), bool)
    expected = theirs(weight, spikes, DECAY_STEPS, 0, 131_071, w_exp=7).u[0]
    np.testing.assert_array_equal(expected, [-SYNAPTIC_SUM_LIMIT * SUB_UNITS, -254 << 13, 254 << 13])


def test_a_current_beyond_24_bits_wraps_in_lava_only():
    """First where 2^23 is exceeded, and there by 2^24."""
    weight, spikes = np.array([[254] * 32, [-254] * 32]), np.ones((STEPS, 32), bool)
    expected, found = theirs(weight, spikes, 1, 1000, 131_071), ours(spikes @ weight.T, 0, 1000, 131_071)
    assert expected.spikes[:, 0].any()
    step = first(np.abs(expected.u[:, 0]) > LARGEST_WRAP)
    assert first((expected.u != found.u).any(1)) == step == 16
    np.testing.assert_array_equal((expected.u - found.u)[step], [CURRENT_WRAP, -CURRENT_WRAP])


def test_a_membrane_below_24_bits_is_clipped_in_lava_only():
    """It then fires after as many steps of excitation as lead from -(2^23 - 1), and not from where it would be."""
    down, up, vth = 40, 60, 1000
    spikes = np.repeat(np.arange(2), [down, up])[:, None] == np.repeat(np.arange(2), 32)
    weight = np.repeat([[-254, 254]], 32, 1)
    expected, found = theirs(weight, spikes, DECAY_STEPS, 0, vth), ours(spikes @ weight.T, None, 0, vth)
    sum_of_a_step = 32 * 254 * SUB_UNITS
    step = first(expected.v[:, 0] < -MEMBRANE_MAX)
    assert first(expected.v[:, 0] != found.v[:, 0]) == step == MEMBRANE_MAX // sum_of_a_step
    assert found.v[step, 0] == -MEMBRANE_MAX
    threshold = vth * SUB_UNITS
    assert first(found.spikes[:, 0]) == down + (MEMBRANE_MAX + threshold) // sum_of_a_step
    assert first(expected.spikes[:, 0]) == down + (down * sum_of_a_step + threshold) // sum_of_a_step


def test_a_refractory_period_of_1_is_none_and_a_longer_one_keeps_the_membrane_at_0():
    """First in the step after the first spike, where Lava's model integrates the current."""
    weight, spikes = drawn(2, neurons=1)
    weight = np.abs(weight).clip(2, 254)
    none, three = (theirs(weight, spikes, 1000, 300, 3000, refractory=steps) for steps in (1, 3))
    found = ours(spikes @ weight.T, 999, 300, 3000)
    found.same(none)
    np.testing.assert_array_equal(three.u, found.u)
    fired = first(found.spikes[:, 0])
    assert first(three.v[:, 0] != found.v[:, 0]) == fired + 1
    assert not three.v[fired : fired + 3].any()
    assert three.v[fired + 3] == found.u[fired + 3] > 0
    assert three.spikes.sum() < found.spikes.sum()
