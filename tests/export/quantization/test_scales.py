"""mksgn/export/quantization/scales: which scale is chosen."""

import numpy as np
import pytest

from mksgn.export.loihi import WeightFormat
from mksgn.export.quantization.scales import FINER, Candidate, choose, power_of_two, weight_exponent


def test_the_coarsest_of_the_scales_that_agree_best():
    agreement = {factor: min(1.0, 0.5 + factor / 4) for factor in FINER}
    chosen = choose(1.0, 10.0, lambda scale: Candidate(scale, {}, agreement[scale], 0.0))
    assert chosen.scale == 2.0
    assert choose(1.0, 10.0, lambda scale: Candidate(scale, {}, 1.0, 0.0)).scale == 1.0


@pytest.mark.parametrize(("limit", "scale"), [(0.1, 3.0), (3.9, 3.78), (100.0, 6.0)])
def test_no_finer_scale_exceeds_the_limit(limit, scale):
    assert choose(3.0, limit, lambda s: Candidate(s, {}, s, 0.0)).scale == pytest.approx(scale)


def test_a_power_of_two_is_doubled_where_clipping_costs_less_than_rounding():
    small = {"w": np.array([3.0, 1.0, 1.0, 1.0, 1.0, 1.0])}
    assert power_of_two({"weights": 1.9, "float32": 8.0}, 8, small) == (2.0, "weights")
    assert power_of_two({"weights": 1.9, "float32": 1.8}, 8, small) == (1.0, "float32")
    assert power_of_two({"weights": 1.9, "float32": 8.0}, 8, {"w": np.array([200.0, 2.0])}) == (1.0, "weights")


@pytest.mark.parametrize(
    ("weight", "exponent"),
    [
        ([14.0, 3.0], 0),
        ([28.0, 3.0], 1),
        ([200.0, 100.0], 4),
        ([1000.0, 500.0], 4),  # no exponent of 4 bits is larger
        ([0.0, 0.0], 0),
        ([30.0, *[3.0] * 400], 1),  # to clip one weight costs less than to set 400 to 0 or 4
        ([60.0, *[2.0] * 2000], 0),
    ],
)
def test_the_exponent_of_a_projection_has_the_least_squared_error(weight, exponent):
    assert weight_exponent(np.array(weight) / 8, 8.0, WeightFormat.of(4)) == exponent
    assert weight_exponent(np.array(weight) / 8, 8.0, WeightFormat(4)) == 0
