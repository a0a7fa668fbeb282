"""mksgn/export/loihi: rounding into Loihi's widths."""

import numpy as np
import pytest

from mksgn.export.loihi import HALF_STEP, accumulation_factor, round_threshold


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
