"""mksgn/export/loihi: rounding into Loihi's widths."""

import pytest

from mksgn.export.loihi import accumulation_factor


def test_the_accumulation_factor_is_the_sum_of_equal_inputs():
    for rate, synaptic in ((0.5, 1.0), (0.0, 1.0), (0.25, 0.5), (0.0, 0.125)):
        u = v = 0.0
        for _ in range(9):
            u = u * (1 - synaptic) + 1
            v = v * (1 - rate) + u
        assert accumulation_factor(9, rate, synaptic) == pytest.approx(v)
