"""Weights and delays of lava-dl's synapses: the values that netx runs, and what is refused."""

import contextlib
import io

import numpy as np
import pytest

from mksgn.export.errors import UnsupportedLayerError
from mksgn.export.lava_dl.file import read
from mksgn.export.lava_dl.weights import netx_weights
from tests.support.lava_dl_files import Layers, dense, inp, recurrent, write
from tests.support.netx import assert_refused

W = np.array([[20, -4, 6], [3, 5, 70]])
CUT_OFF = [([-1], 0), ([-2, 0], -1), ([-128, 0], -64), ([-255, 0], 0), ([-256, -3], -255)]
OUT_OF_RANGE = [([256, 3], 0), ([300, -3], 254), ([-300, 3], -256)]


@pytest.mark.slow
def test_netx_weights_are_those_that_netx_and_lava_compute(netx):
    """No weight differs from optimize_weight_bits and Dense's clipping, in 3000 layers of one or two synapses."""
    from lava.lib.dl.netx.utils import optimize_weight_bits
    from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

    rng, changed = np.random.default_rng(0), 0
    for _ in range(3000):
        step = 2 ** int(rng.integers(0, 4))
        ranges = [sorted(rng.integers(-270, 271, 2)) for _ in range(rng.integers(1, 3))]
        parts = [rng.integers(low, high + 1, (2, 3)) // step * step for low, high in ranges]
        whole = np.hstack(parts)
        if not whole.any():
            continue  # netx stops at a layer without weights
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(divide="ignore"):
            optimised, bits, exponent, _ = optimize_weight_bits(whole)
        for k, (weight, held) in enumerate(zip(parts, netx_weights(parts), strict=True)):
            optimised_part = optimised[:, 3 * k : 3 * k + 3]
            mode = determine_sign_mode(optimised_part)
            optimised_part = truncate_weights(clip_weights(optimised_part, mode, num_bits=8), mode, bits) >> -exponent
            np.testing.assert_array_equal(held, optimised_part)
            changed += (held != weight).any()
    assert changed > 300


@pytest.mark.parametrize(("weight", "runs_as"), CUT_OFF + OUT_OF_RANGE)
def test_weights_that_netx_would_change(weight, runs_as, tmp_path):
    path = write(tmp_path / "net.net", [inp(len(weight)), dense([weight])])
    message = rf"layer 1 \(dense\): netx would run weight {weight[0]} from input 0 to output 0 as {runs_as}; scale"
    with pytest.raises(UnsupportedLayerError, match=message):
        read(path)


REFUSED: dict[str, tuple[Layers, str]] = {
    "shape of weights": (
        [inp(3), dense(W, shape=np.array([3]))],
        r"weight has shape \(2, 3\); write it as \(3, inputs\)",
    ),
    "recurrent shape": ([inp(3), recurrent(W, W)], r"weight_rec has shape \(2, 3\); write it as \(2, 2\)"),
    "recurrent weight": (
        [inp(3), recurrent(-W, 300 * np.eye(2))],
        r"netx would run weight 300 from input 0 to output 0 as 0",
    ),
    "long delay": (
        [inp(3), dense(W, delay=np.array([63, 0]))],
        "delay holds 63, outside 0 … 62; train with shorter .* clamps",
    ),
    "negative delay": ([inp(3), dense(W, delay=np.array([-1, 0]))], "delay holds -1, outside 0"),
    "broken delay": ([inp(3), dense(W, delay=np.array([1.5, 0]))], "delay holds 1.5, which is not an integer"),
    "delay's shape": (
        [inp(3), dense(W, delay=np.arange(4))],
        r"delay has shape \(4,\); write it as \(2,\), \(3,\) or \(2, 3\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_refused(name, tmp_path):
    assert_refused(tmp_path / "net.net", *REFUSED[name])
