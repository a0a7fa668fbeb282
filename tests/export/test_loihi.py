"""mksgn/export/loihi: rounding into Loihi's widths."""

import numpy as np
import pytest

from mksgn.export.loihi import (
    HALF_STEP,
    WeightFormat,
    accumulation_factor,
    count_saturated,
    round_threshold,
    round_weights,
    weight_limit,
)


def test_the_accumulation_factor_is_the_sum_of_equal_inputs():
    for rate, synaptic in ((0.5, 1.0), (0.0, 1.0), (0.25, 0.5), (0.0, 0.125)):
        u = v = 0.0
        for _ in range(9):
            u = u * (1 - synaptic) + 1
            v = v * (1 - rate) + u
        assert accumulation_factor(9, rate, synaptic) == pytest.approx(v)


@pytest.mark.parametrize(
    ("threshold", "rounded"),
    [
        (7.4, 7),
        (7.6, 8),
        (8.0, 8),
        (8 - 1e-3, 8),
        (0.2, 1),
        (float(np.nextafter(np.float32(8), np.float32(0))), 7),  # a step of 2^-24
        (float(np.nextafter(np.float32(5), np.float32(0))), 4),  # of 2^-23.3
        (381 * float(np.nextafter(np.float32(1), np.float32(0))) * (4 / 3) / float(np.float32(4 / 3)), 380),
    ],
)
def test_a_threshold_is_rounded_to_the_nearest_integer_and_one_that_means_an_integer_below_it(threshold, rounded):
    assert round_threshold(threshold, HALF_STEP) == rounded + HALF_STEP


@pytest.mark.parametrize("exponent", [0, 1, 4])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_rounded_to_the_nearest_that_their_bits_and_exponent_hold(bits, exponent):
    held = 2.0**exponent * np.arange(2 - 2**bits, 2**bits, 2)
    x = np.random.default_rng(bits).uniform(-2, 2, 500) * held.max()
    np.testing.assert_array_equal(round_weights(x, bits, exponent), held[np.abs(x[:, None] - held).argmin(1)])
    assert held.max() == weight_limit(bits, exponent)
    beyond = np.abs(x) > held.max() + 2.0**exponent  # what lies nearer is rounded, not clipped
    assert 0 < beyond.sum() == count_saturated(x, 1.0, bits, exponent)


@pytest.mark.parametrize("bits", range(2, 9))
def test_few_bits_with_an_exponent_are_weights_of_eight(bits):
    weights = WeightFormat.of(bits)
    assert weight_limit(weights.bits, weights.exponent) <= 254 < weight_limit(weights.bits, weights.exponent + 1)
    assert WeightFormat.of(bits, exponents=False) == WeightFormat(bits)
