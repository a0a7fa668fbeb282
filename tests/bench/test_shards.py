"""mksgn/bench/shards: which clips form a shard, settings, and the first difference of a comparison."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.bench.shards import Compared, Settings, shards
from mksgn.common.errors import BadInputError


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_shards_hold_every_missing_clip_once_inside_multiples_of_the_size(missing, size):
    ranges = shards(np.array(missing, dtype=bool), size)
    assert [clip for part in ranges for clip in part] == [clip for clip, left in enumerate(missing) if left]
    assert all(len(part) > 0 and part.start // size == part[-1] // size for part in ranges)


def test_the_first_difference_is_that_of_the_first_layer_whatever_the_order():
    early = Compared(("torch",), 10, 1, (0, 2, 7, 1))  # layer 2, clip 7
    late = Compared(("torch",), 10, 1, (0, 5, 0, 0))  # layer 5, clip 0
    for total in (early + late, late + early):
        assert (total.first, total.decisions, total.mismatches) == ((0, 2, 7, 1), 20, 2)
    assert (Compared() + early).against == (early + Compared()).against == ("torch",)


def test_settings_are_checked():
    for values, fault in (
        ({"backend": "chip"}, "backend 'chip'"),
        ({"precision": "half"}, "'half'"),
        ({"repeats": 0}, "repeat"),
        ({"repeats": 1001}, "repeat .1001. must be 1 to 1,000"),
    ):
        with pytest.raises(BadInputError, match=fault):
            Settings(**values)  # type: ignore[arg-type]
