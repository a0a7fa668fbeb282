"""Neurons of lava-dl: NIR recovers Lava's integers exactly, and what it lacks is refused."""

import numpy as np
import pytest

from mksgn.export.lava_dl.file import read
from tests.support import loihi_oracle as oracle
from tests.support.lava_dl_files import Layers, dense, inp, neuron, recurrent, weights, write
from tests.support.netx import assert_refused, spikes

W = np.array([[20, -4, 6], [3, 5, 70]])


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 3.3e-5, 1.0])
def test_every_decay_bias_and_threshold_is_recovered_exactly(dt, tmp_path):
    n = 4096
    decays, rng = np.arange(1, n + 1), np.random.default_rng(0)
    vth, bias = rng.integers(0, 2**17, n), rng.integers(-4096, 4096, n)
    layer = dense(np.arange(n)[:, None] % 250 - 120, bias=bias, **neuron(decays, rng.permutation(decays), vth))
    node = read(write(tmp_path / "net.net", [inp(1), layer]), dt=dt).nodes["layer1"]
    np.testing.assert_array_equal(np.rint(4096 * dt / node.tau_syn.astype(float)), decays)
    np.testing.assert_array_equal(np.rint(4096 * dt / node.tau_mem.astype(float)), layer["neuron/vDecay"])
    scale = node.w_in * dt / node.tau_syn.astype(float) * node.r * dt / node.tau_mem
    np.testing.assert_array_equal(np.rint(scale * (2**17)), 2**17)
    np.testing.assert_array_equal(np.rint(node.v_leak * dt / node.tau_mem.astype(float)), bias)
    np.testing.assert_array_equal(node.v_threshold, vth)


def test_the_time_step_changes_no_spike(tmp_path):
    rng = np.random.default_rng(7)
    first = recurrent(weights(rng, 5, 6), weights(rng, 5, 5, low=-90), **neuron(1024, 300, 500), bias=[9, 1, 0, -5, 3])
    second = recurrent(weights(rng, 4, 5), weights(rng, 4, 4), bias=np.array([5, -5, 3, 0]))
    path = write(tmp_path / "net.net", [inp(6), first, second])
    a, b = (oracle.execute(read(path, dt=dt), spikes(1, 6), dt)["output"] for dt in (1e-4, 7e-3))
    assert a.any()
    np.testing.assert_array_equal(a, b)


REFUSED: dict[str, tuple[Layers, str]] = {
    "SDNN": (
        [inp(3), dense(W, **neuron(type="SDNN"))],
        r"layer 1 \(dense\): neurons of type 'SDNN' do not exist in NIR; train with",
    ),
    "RF": ([inp(3), dense(W, **neuron(type="RF_PHASE"))], "neurons of type 'RF_PHASE'"),
    "numbers for a type": ([inp(3), dense(W, **neuron(type=np.arange(5)))], r"neurons of type '\[0 1 2 3 4\]' do not"),
    "ALIF": ([inp(3), dense(W, **neuron(type="ALIF", thDecay=3))], "neurons of type 'ALIF'"),
    "18 bits": ([inp(3), dense(W, **neuron(vth=2**17))], "neuron/vThMant holds 131072, outside 0 … 131071; scale"),
    "negative threshold": ([inp(3), dense(W, **neuron(vth=-1))], "neuron/vThMant holds -1, outside 0"),
    "refractory": (
        [inp(3), dense(W, **neuron(refDelay=2))],
        "neuron/refDelay is 2, which netx silently drops .* refDelay = 1",
    ),
    "graded": (
        [inp(3), dense(W, **neuron(gradedSpike=True))],
        "neuron/gradedSpike is 1, .* train with gradedSpike = 0",
    ),
    "message bits": ([inp(3), dense(W, **neuron(messageBits=8))], "neuron/messageBits is 8"),
    "norm's exponent": ([inp(3), dense(W, **neuron(weight_exp=np.array([-2.0])))], "neuron/weight_exp is -2"),
    "synapse's exponent": ([inp(3), dense(W, **neuron(wgtExp=6))], "neuron/wgtExp is 6"),
    "an endless current": ([inp(3), dense(W, **neuron(i=0))], "neuron/iDecay is 0: NIR's time constants are finite"),
    "an endless membrane": ([inp(3), dense(W, **neuron(i=1024, v=0))], "neuron/vDecay is 0: NIR's time .* at least 1"),
    "partly endless": ([inp(3), dense(W, **neuron(v=np.array([0, 5])))], "neuron/vDecay is 0"),
    "decay above 12 bits": (
        [inp(3), dense(W, **neuron(v=4097))],
        "neuron/vDecay holds 4097, outside 0 … 4096; clamp it",
    ),
    "broken decay": (
        [inp(3), dense(W, **neuron(i=0.25))],
        "neuron/iDecay holds 0.25, which is not an integer; quantise it",
    ),
    "three thresholds": ([inp(3), dense(W, **neuron(vth=np.arange(3)))], "neuron/vThMant has 3 values for 2 channels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_refused(name, tmp_path):
    assert_refused(tmp_path / "net.net", *REFUSED[name])
