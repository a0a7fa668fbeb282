"""mksgn/deploy/spike_bits: what is packed comes back, and takes an eighth."""

import numpy as np
import pytest

from mksgn.deploy import spike_bits


@pytest.mark.parametrize("dtype", [bool, np.uint8])
@pytest.mark.parametrize("shape", [(13,), (3, 8), (2, 3, 17), (0,)])
def test_packed_spikes_come_back(shape, dtype):
    spikes = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    bits = spike_bits.pack(spikes)
    assert bits.shape == (*shape[:-1], -(-shape[-1] // 8))
    unpacked = spike_bits.unpack(bits, shape[-1])
    assert unpacked.dtype == bool
    np.testing.assert_array_equal(unpacked, spikes)
