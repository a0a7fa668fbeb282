"""mksgn/deploy/program/neurons: one step of a neuron against Lava's equations in plain Python
integers, and against NIR's in float.
"""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from mksgn.deploy.program.neurons import FixedNeuron, FloatNeuron, Membrane, decay, prepare
from tests.support.graphs import SETTINGS

MAX = 2**23 - 1
MEMBRANES = st.integers(-MAX, MAX) | st.integers(-5, 5) | st.sampled_from([-MAX, MAX])


def trunc0(x: int, shift: int) -> int:
    return -(-x >> shift) if x < 0 else x >> shift


def lava(v: int, a: int, dv: int, mant: int, exp: int, vth: int) -> tuple[bool, int, int]:
    """LIF fixed of LAVA.md with du = 4095: u is this step's a << 6 alone."""
    u = trunc0(0 * (4096 - (4095 + 1)), 12) + (a << 6)
    h = trunc0(v * (4096 - dv), 12) + u + (mant << exp)
    h = max(-MAX, min(MAX, h))
    s = h > vth << 6
    return s, 0 if s else h, h


def neuron(dv, vth, mant=0, exp=6) -> FixedNeuron:
    return FixedNeuron(dv, np.array([vth], np.int32), np.array([mant], np.int32), exp)


@SETTINGS
@given(MEMBRANES, st.integers(1, 4095) | st.sampled_from([1, 2048, 4095]))
@example(-1, 2048)
@example(-3, 2048)
@example(-MAX, 1)
@example(MAX, 1)
def test_decay_truncates_toward_zero_for_either_sign(v, dv):
    actual = decay(torch.tensor([float(v)]), keep(dv))
    assert actual.dtype == torch.float32
    assert actual.item() == trunc0(v * (4096 - dv), 12) == int(v * (4096 - dv) / 4096)


def keep(dv: int) -> torch.Tensor:
    return torch.tensor((4096 - dv) / 4096, dtype=torch.float64)


def test_halving_every_small_membrane():
    v = torch.arange(-9.0, 10.0)
    assert decay(v, keep(2048)).tolist() == [-4, -4, -3, -3, -2, -2, -1, -1, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


@SETTINGS
@given(
    st.lists(st.integers(-131_071, 131_071) | st.integers(-300, 300), min_size=1, max_size=12),
    MEMBRANES,
    st.integers(1, 4095) | st.just(2048),
    st.integers(0, 131_071) | st.integers(0, 300),
    st.integers(-4096, 4095),
    st.integers(0, 7),
)
def test_fixed_neuron_equals_lava_s_equations_step_by_step(currents, start, dv, vth, mant, exp):
    state = prepare(neuron(dv, vth, mant, exp))
    v, expected = Membrane(torch.tensor([[float(start)]])), start
    for a in currents:
        s, v, h = state.step(torch.tensor([[float(a)]]), v)
        fired, expected, before = lava(expected, a, dv, mant, exp, vth)
        assert (s.item(), v.v.item(), h.item()) == (fired, expected, before)


@SETTINGS
@given(
    st.lists(st.integers(-131_071, 131_071) | st.integers(-300, 300), min_size=1, max_size=12),
    MEMBRANES,
    st.integers(1, 4095) | st.just(2048),
    st.integers(0, 131_071) | st.integers(0, 300),
    st.integers(0, MAX) | st.integers(0, 300),
    st.booleans(),
)
def test_a_reset_by_subtraction_step_by_step(currents, start, dv, vth, taken, in_next):
    """Against Loihi's equations in plain integers: at once, or in the next step after the decay."""
    x = np.array([taken], np.int32)
    subtracts = {"subtract_next": x} if in_next else {"subtract": x}
    constants = np.array([vth], np.int32), np.array([7], np.int32), 6
    state = prepare(FixedNeuron(dv, *constants, **subtracts, initial=np.array([start], np.int32)))
    v, expected = state.start(torch.zeros(1, 1)), start
    for a in currents:
        kept = trunc0(expected * (4096 - dv), 12)
        if in_next and expected > vth << 6:
            kept -= taken
        before = max(-MAX, min(MAX, kept + (a << 6) + (7 << 6)))
        fired = before > vth << 6
        expected = before - taken if fired and not in_next else before
        s, v, h = state.step(torch.tensor([[float(a)]]), v)
        assert (s.item(), v.v.item(), h.item()) == (fired, expected, before)


def test_a_membrane_is_clipped_at_24_bits_on_both_sides():
    state = prepare(neuron(2048, 131_071))
    v = Membrane(torch.full((1,), float(-MAX)))
    assert state.step(torch.tensor([-131_071.0]), v)[2].item() == -MAX
    s, after, h = state.step(torch.tensor([131_071.0]), Membrane(torch.full((1,), float(MAX))))
    assert (h.item(), s.item(), after.v.item()) == (
        MAX,
        True,
        0,
    )  # 2^23 - 1 lies above the largest threshold, 131071 << 6


def test_all_terms_at_their_limit_do_not_wrap_around():
    """v + u + bias reaches 3 · 2^23 before it is clipped."""
    for sign in (1, -1):
        state = prepare(FixedNeuron(1, np.array([131_071], np.int32), np.array([sign * 4095], np.int32), 7))
        h = state.step(torch.tensor([sign * 131_071.0]), Membrane(torch.tensor([float(sign * MAX)])))[2]
        assert h.item() == sign * MAX


def test_a_membrane_at_the_threshold_does_not_fire_and_one_sub_unit_above_does():
    state = prepare(FixedNeuron(2048, np.array([10], np.int32), np.array([1], np.int32), 0))
    none = torch.zeros(1)
    assert state.step(torch.tensor([9.0]), Membrane(none + 126))[2].item() == 640  # 576 + 63 + 1
    assert not state.step(torch.tensor([9.0]), Membrane(none + 126))[0].item()
    s, v, h = state.step(torch.tensor([9.0]), Membrane(none + 128))
    assert (h.item(), s.item(), v.v.item()) == (641, True, 0)


@pytest.mark.parametrize("exponent", range(8))
@pytest.mark.parametrize("mantissa", [-4096, -1, 0, 1, 4095])
def test_the_bias_is_shifted_by_its_exponent(mantissa, exponent):
    h = prepare(neuron(2048, 131_071, mantissa, exponent)).step(torch.zeros(1), Membrane(torch.zeros(1)))[2]
    assert h.item() == mantissa * 2**exponent


def test_parameters_broadcast_against_the_population():
    vth = np.array([5, 10], np.int32).reshape(2, 1, 1)
    state = prepare(FixedNeuron(2048, vth, np.zeros((1, 1, 1), np.int32), 6))
    current = torch.full((3, 2, 4, 5), 7.0)
    v = state.start(current)
    assert (v.v.shape, v.v.dtype, int(v.v.abs().max()), v.u) == (current.shape, torch.float32, 0, None)
    s, after, h = state.step(current, v)
    assert s[:, 0].all()
    assert not s[:, 1].any()
    assert after.v[:, 0].eq(0).all()
    assert after.v[:, 1].eq(7 << 6).all()
    assert h.eq(7 << 6).all()


def test_a_step_leaves_the_membrane_it_was_given():
    for state, v in ((prepare(neuron(2048, 1)), torch.tensor([100.0])), (prepare(float_neuron()), torch.tensor([0.5]))):
        before = v.clone()
        state.step(torch.tensor([3.0]), Membrane(v))
        assert torch.equal(v, before)


def float_neuron(rate=0.5, threshold=1.0, bias=0.0) -> FloatNeuron:
    return FloatNeuron(rate, np.array([threshold], np.float32), np.array([bias], np.float32))


@SETTINGS
@given(
    st.lists(st.integers(-200, 200), min_size=1, max_size=12),
    st.sampled_from([0.5, 0.25, 1.0]),
    st.integers(1, 40),
    st.integers(-16, 16),
)
def test_float_neuron_equals_the_equation_on_lattice_numbers(currents, rate, threshold, bias):
    """Eighths, halved or quartered some twelve times at most, with a reset in between: all exact in
    Python's floats.
    """
    state = prepare(float_neuron(rate, threshold / 8, bias / 8))
    v, expected = state.start(torch.zeros(1)), 0.0
    for a in currents:
        s, v, h = state.step(torch.tensor([a / 8]), v)
        expected = np.float32(expected) * (1 - rate) + (a / 8 + bias / 8)
        assert h.item() == np.float32(expected)
        fired = expected > threshold / 8
        expected = 0.0 if fired else float(np.float32(expected))
        assert (s.item(), v.v.item()) == (fired, expected)


def test_a_float_membrane_at_its_threshold_does_not_fire():
    state = prepare(float_neuron(threshold=2.0))
    assert not state.step(torch.tensor([2.0]), Membrane(torch.zeros(1)))[0].item()
    assert state.step(torch.tensor([np.nextafter(np.float32(2), np.float32(3))]), Membrane(torch.zeros(1)))[0].item()


def test_scales_turn_membranes_into_weight_units():
    assert prepare(neuron(2048, 1)).scale == 64
    assert prepare(float_neuron()).scale == 1


@SETTINGS
@given(
    st.lists(st.integers(-254, 254).map(lambda a: 2 * (a // 2)), min_size=4, max_size=4),
    st.integers(1, 300),
    st.integers(-50, 50),
)
def test_fixed_and_float_make_the_same_decisions_with_half_step_thresholds(currents, vth, bias):
    """tau = 2, S = 4, even weights, integer biases: neither truncation nor a tie can tell them
    apart (LAVA.md).
    """
    fixed = prepare(FixedNeuron(2048, np.array([vth], np.int32), np.array([bias], np.int32), 6))
    floating = prepare(float_neuron(0.5, vth + 1 / 128, bias))
    v, w = Membrane(torch.zeros(1)), Membrane(torch.zeros(1))
    for a in currents:
        a = torch.tensor([float(a)])
        s, v, h = fixed.step(a, v)
        z, w, g = floating.step(a, w)
        assert s.item() == z.item()
        assert h.item() == g.item() * 64
