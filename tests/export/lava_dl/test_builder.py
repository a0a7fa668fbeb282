"""Layers of lava-dl give netx's spikes, as it runs in Lava; what would be lost is refused."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mksgn.common.errors import MksgnWarning
from mksgn.export.graph.metadata import json_of
from mksgn.export.lava_dl.file import read
from tests.support import loihi_oracle as oracle
from tests.support.lava_dl_files import FLATTEN, Layers, conv, dense, inp, neuron, recurrent, weights, write
from tests.support.netx import T, assert_refused, same, spikes, typed
from tests.support.tiers import one_in

R = np.random.default_rng(7)
CHANNELS = {"i": np.array([4096, 1024, 300]), "v": np.array([410, 4096, 1]), "vth": np.array([150, 60, 4000])}
DELAYS = {  # name: (delay, with the bias of a LIF, what is expected)
    "scalar": (3, {"layer1_delay", "layer1_dense"}),
    "inputs": (np.array([0, 4, 1, 2, 62, 3]), {"layer1_delay", "layer1_dense"}),
    "outputs": (np.array([2.0, 0, 5, 1], dtype=np.float32), {"layer1_dense", "layer1_delay"}),
    "synapses": (R.integers(0, 3, (4, 6)), {f"layer1_{n}" for n in ("dense0", "delay1", "dense1", "delay2", "dense2")}),
    "zero": (np.zeros(4), {"layer1_dense"}),
}
HANDMADE: dict[str, Layers] = {
    "dense": [inp(9), dense(weights(R, 7, 9)), dense(weights(R, 5, 7), **neuron(vth=80))],
    "dense with current memory": [
        inp(9, 1, 1),
        dense(weights(R, 7, 9), **neuron(1024, 410, 300)),
        dense(weights(R, 5, 7), **neuron(2000, 1, 500)),
    ],
    "no input layer": [dense(weights(R, 7, 9)), dense(weights(R, 5, 7).ravel(), shape=np.array([5, 1, 1]))],
    "no input layer before a conv": [conv(weights(R, 3, 2, 3, 3), (5, 6), 1, (1, 0), (1, 2))],
    "extreme weights": [
        inp(4),
        dense([[-256, 254, 253, 255 - 2], [127, -1, 99, 254]], **neuron(vth=200)),
        dense([[255, 1]]),
    ],
    "decays at their ends": [
        inp(6),
        dense(weights(R, 5, 6), **neuron(1, 1, 3000)),
        dense(weights(R, 4, 5), **neuron(v=4096)),
    ],
    "no leak": [inp(6), dense(weights(R, 5, 6), **neuron(v=0, vth=400), bias=np.array([3, -9, 0, 40, 7]))],
    "channels of their own": [inp(2, 5, 4), conv(weights(R, 3, 2, 3, 3, low=-30), (5, 4), **neuron(**CHANNELS))],
    "neurons of their own": [inp(6), dense(weights(R, 3, 6), **neuron(**CHANNELS), bias=np.array([7, -3, 1]))],
    "legacy keys": [
        inp(1, 1, 6),
        dense(weights(R, 3, 6), **neuron(type="LOIHI", wgtExp=0, theta=6400, tauRho=0.1, scaleRho=1)),
    ],
    "strides, padding, dilation": [
        inp(2, 9, 8),
        conv(weights(R, 4, 2, 3, 3, low=-40, high=60), (9, 8), np.array([2, 1]), np.array([1, 2]), np.array([1, 2])),
        conv(weights(R, 3, 4, 2, 3), (5, 8), np.array([1, 2]), **neuron(1500, 600, 400)),
        FLATTEN,
        dense(weights(R, 5, 3 * 4 * 3), **neuron(vth=200)),
    ],
    "groups": [
        inp(4, 5, 6),
        conv(weights(R, 6, 2, 3, 3), (5, 6), groups=2, padding=1),
        conv(weights(R, 6, 1, 1, 1), (5, 6), groups=6, **neuron(vth=60)),
    ],
    "tall kernel": [inp(2, 6, 3), conv(weights(R, 3, 2, 5, 1), (6, 3), padding=np.array([2, 0]))],
    "wide kernel": [
        inp(2, 6, 3),
        conv(weights(R, 3, 2, 1, 2), (6, 3)),
        FLATTEN,
        dense(weights(R, 4, 36, low=-50, high=50)),
    ],
    "biases": [
        inp(2, 5, 4),
        conv(weights(R, 3, 2, 3, 3, low=-50, high=50), (5, 4), bias=np.array([30, -20, 44])),
        conv(weights(R, 3, 3, 1, 1), (3, 2), bias=np.array([5, 14, -3]), **neuron(1000, 800, 60)),
        FLATTEN,
        dense(weights(R, 4, 18, low=-60), bias=np.array([8.0, -9, 20, -30], dtype=np.float32), **neuron(900, 700, 300)),
        dense(weights(R, 3, 4), bias=5),
    ],
    "a bias by neuron": [
        inp(2, 3, 4),
        conv(weights(R, 3, 2, 1, 1), (3, 4), bias=weights(R, 4, 3, 3, low=-30, high=40)),
        conv(weights(R, 2, 3, 1, 1), (3, 4), bias=weights(R, 4, 3, 2, low=-9, high=20), **neuron(2048, 512, 200)),
    ],
    "recurrent": [inp(6), recurrent(weights(R, 5, 6), weights(R, 5, 5, low=-90, high=50)), dense(weights(R, 3, 5))],
    "recurrent with current memory and bias": [
        inp(6),
        recurrent(
            weights(R, 5, 6),
            weights(R, 5, 5, low=-90).ravel().reshape(5, 5),
            **neuron(1024, 300, 500),
            bias=[9, 1, 0, -5, 3],
        ),
        recurrent(weights(R, 4, 5), weights(R, 4, 4), bias=np.array([5, -5, 3, 0])),
    ],
}
SHAPES = {"no input layer": (9,), "no input layer before a conv": (2, 5, 6)}


@pytest.mark.parametrize("name", one_in(2, list(HANDMADE)))
def test_handmade_files_give_the_spikes_of_netx(name, netx, tmp_path):
    layers = HANDMADE[name]
    shape = SHAPES.get(name) or tuple(layers[0]["shape"])
    graph = same(write(tmp_path / "net.net", layers), netx, spikes(1, *shape))
    assert typed(graph) == (name not in ("groups", "wide kernel", "strides, padding, dilation"))


@pytest.mark.parametrize(("kind", "memory"), one_in(3, list(itertools.product(DELAYS, (False, True)))))
def test_delays(kind, memory, netx, tmp_path):
    delay, nodes = DELAYS[kind]
    rng = np.random.default_rng(3)
    bias = np.array([11, -4, 20, 6])
    layer = dense(
        weights(rng, 4, 6), delay=delay, bias=bias, **neuron(*(1024, 400, 300) if memory else (4096, 400, 130))
    )
    graph = same(write(tmp_path / "net.net", [inp(6), layer, dense(weights(rng, 3, 4))]), netx, spikes(2, 6))
    assert {name for name in graph.nodes if name.startswith("layer1_")} == nodes
    assert graph.nodes["layer1"].v_leak.any() == (memory or kind == "outputs")


@pytest.mark.parametrize(
    ("shape", "more"), [((7,), {}), ((7,), {"weight": 36, "bias": [34.0]}), ((2, 3, 4), {"weight": [50], "bias": 9})]
)
def test_an_input_layer_with_neurons_takes_analog_values(shape, more, netx, tmp_path):
    rng = np.random.default_rng(5)
    size = int(np.prod(shape))
    flatten = [FLATTEN] if len(shape) == 3 else []
    layers = [inp(*shape, **more, **neuron(v=700, vth=150)), *flatten, dense(weights(rng, 5, size, low=-60, high=70))]
    x = rng.integers(-2, 5, shape)
    bias = x * int(np.ravel(more.get("weight", 64))[0]) + int(np.ravel(more.get("bias", 0))[0])
    graph = same(write(tmp_path / "net.net", layers), netx, np.broadcast_to(x, (T, *shape)), bias)
    assert graph.nodes["input"].metadata == {"signal": "analog"}


def random_network(seed: int, path: Path) -> tuple[Layers, np.ndarray]:
    """Draw layers of every kind, with thresholds at which all fire in the oracle, and an input."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 4)), *rng.integers(4, 8, 2).tolist())
    layers, inputs = [inp(*shape)], spikes(seed, *shape)

    def add(layer: dict[str, Any]) -> tuple[int, ...]:
        memory, bias = rng.random(2) < 0.5
        i, v = (int(rng.integers(300, 4096)) if memory else 4096), int(rng.integers(1, 4097))
        offsets = rng.integers(-20, 60, len(layer["weight"]))
        for vth in 2 ** np.arange(11, 1, -1):
            extra = (
                {"bias": np.minimum(offsets, vth // 8)} if bias else {}
            )  # alone, they do not fire before the input comes
            layers.append({**layer, **extra, **neuron(i, v, vth + 1)})
            actual = oracle.execute(read(write(path, layers)), inputs)["output"]
            if actual.mean() > 0.1 or vth == 4:
                return actual.shape[1:]
            layers.pop()
        raise AssertionError

    for _ in range(rng.integers(0, 3)):
        groups = int(rng.choice([g for g in (1, 2, 3) if shape[0] % g == 0]))
        weight = weights(rng, groups * int(rng.integers(1, 4)), shape[0] // groups, *rng.integers(1, 4, 2), low=-40)
        stride, padding = rng.integers(1, 3, 2), rng.integers(1, 3, 2)
        dilation = rng.integers(1, 3, 2) if min(shape[1:]) > 3 else 1
        shape = add(conv(weight, shape[1:], stride, padding, dilation, groups))
    layers.append(FLATTEN)
    size = int(np.prod(shape))
    for _ in range(rng.integers(1, 4)):
        inputs_, size = size, int(rng.integers(2, 9))
        weight = weights(rng, size, inputs_, low=-50)
        if rng.random() < 0.4:
            add(recurrent(weight, weights(rng, size, size)))
        else:
            delay = [0, rng.integers(0, 6, size), rng.integers(0, 3, weight.shape)][int(rng.integers(0, 3))]
            add(dense(weight, delay=delay))
    return layers, inputs


@pytest.mark.parametrize("seed", one_in(8, range(8)))
def test_random_networks_give_the_spikes_of_netx(seed, netx, tmp_path):
    layers, inputs = random_network(seed, tmp_path / "trial.net")
    same(write(tmp_path / "net.net", layers), netx, inputs)


W = np.array([[20, -4, 6], [3, 5, 70]])
C = np.full((2, 1, 1, 1), 30)
CONV_IN = inp(1, 3, 4)
COMPLEX = {k: v for k, v in dense(W).items() if k != "weight"} | {"weight/real": W, "weight/imag": W}
REFUSED: dict[str, tuple[Layers, str]] = {
    **{
        kind: (
            [inp(3), dense(W, type=kind)],
            rf"layer 1 \({kind}\): netx cannot run this type, or silently skips it; build",
        )
        for kind in ("pool", "convT", "unpool", "average", "concat", "dense_comp", "Dense", "whatever")
    },
    "bias of an IF": (
        [inp(3), dense(W, delay=np.array([1, 2]), bias=np.array([1, 2]), **neuron(v=0))],
        "IF cannot hold a bias",
    ),
    "complex": ([inp(3), COMPLEX], "NIR has no complex weights; train"),
    "recurrent delay": (
        [inp(3), recurrent(W, W[:, :2], delay=np.zeros(2))],
        r"\(dense_rec\): netx delays the loop as well",
    ),
    "wrong input": ([inp(4), dense(W)], r"3 columns of weights on an input \(4,\); export it again"),
    "no flatten": (
        [inp(1, 1, 1), dense([[1]]), inp(3)],
        "netx leaves an input that is not the first layer unconnected",
    ),
    "unflattened": (
        [inp(3, 1, 2), dense(np.ones((2, 6)))],
        r"weights on an input \(3, 1, 2\); put a flatten layer before it",
    ),
    "bias' shape": ([inp(3), dense(W, bias=np.arange(3))], r"bias has 3 values; write it as \(2,\)"),
    "conv's delay": (
        [CONV_IN, conv(C, (3, 4), delay=np.array([1, 0]))],
        "netx silently drops the delays of a convolution",
    ),
    "layers after a read-out": (
        [CONV_IN, {k: v for k, v in conv(C, (3, 4)).items() if "/" not in k}, dense(W)],
        "has no threshold, and its values, which are not spikes, would enter another layer; end the network with it",
    ),
    "a loop without threshold": (
        [inp(3), recurrent(W, np.eye(len(W), dtype=int), **neuron(vth=2**18 - 1))],
        "a loop without a threshold feeds back values that are not spikes; give it a neuron",
    ),
    "an input without threshold": (
        [inp(3, **neuron(vth=2**18 - 1)), dense(W)],
        "an input without a threshold sends no",
    ),
    "conv's bias": (
        [CONV_IN, conv(C, (3, 4), bias=np.ones((2, 1, 1)))],
        r"bias has shape \(2, 1, 1\); write it as \(2,\)",
    ),
    "conv's weights": (
        [CONV_IN, conv(C, (3, 4)) | {"weight": C[0]}],
        r"weight has shape \(1, 1, 1\); write it as \(C_out",
    ),
    "conv's shape": ([CONV_IN, conv(C, (4, 3))], r"shape is \(2, 4, 3\), but .* give \(2, 3, 4\); export it again"),
    "conv's kernel": ([CONV_IN, conv(C, (3, 4), kernelSize=np.array([3, 3]))], r"kernelSize is \(3, 3\), but"),
    "conv's stride": ([CONV_IN, conv(C, (3, 4)) | {"stride": np.ones(3)}], "stride has 3 values, expected 1 or 2"),
    "conv's groups": (
        [inp(128, 1, 1), conv(np.ones((128, 1, 1, 1)), (1, 1), groups=128)],
        "groups holds 128, outside 1 … 127",
    ),
    "conv's input": ([inp(3), conv(C, (3, 4))], r"1 groups of 1 channels, 2 in all, on an input \(3,\)"),
    "conv without input": (
        [conv(C, (3, 4), 2)],
        r"the file does not give the size of the input; give input_shape = \(C, H, W\)",
    ),
    "flatten at the end": (
        [CONV_IN, conv(C, (3, 4)), FLATTEN],
        r"layer 2 \(flatten\): netx drops a flatten that no dense",
    ),
    "flatten before a conv": ([CONV_IN, FLATTEN, conv(C, (3, 4))], r"layer 1 \(flatten\): netx drops a flatten"),
    "two axes": ([inp(3, 4), dense(W)], r"shape is \(3, 4\), netx only accepts \(N,\) and \(C, H, W\)"),
    "input's memory": (
        [inp(3, **neuron(i=1024)), dense(W)],
        r"layer 0 \(input\): neuron/iDecay is 1024: SLAYER filters the input",
    ),
    "input's neurons": ([inp(1 << 31, **neuron()), dense(W)], "has 2,147,483,648 values, the limit is 1,048,576"),
    "input's bias": (
        [inp(100_000, bias=[1], **neuron()), dense(W)],
        "an input with neurons and a bias has 100,000 values, the limit is 4,096; leave its neurons out",
    ),
    "input's weights": (
        [inp(3, weight=[1, 2, 3], **neuron()), dense(W)],
        "weight or bias of the input has more than one value",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_is_refused(name, tmp_path):
    assert_refused(tmp_path / "net.net", *REFUSED[name])


UNUSED = {
    "a layer's key": ([inp(3), dense(W, mask=W)], "/layer/1/mask"),
    "a nested key": ([inp(3), dense(W, **{"shape2/x": 1})], "/layer/1/shape2/x"),
    "an input's weight": ([inp(3, weight=3), dense(W)], "/layer/0/weight"),
    "an input's delay": ([inp(3, delay=1, **neuron()), dense(W)], "/layer/0/delay"),
    "a neuron's key": ([inp(3), dense(W, **neuron(tauRef=100))], "/layer/1/neuron/tauRef"),
    "theta": ([inp(3), dense(W, **neuron(theta=100))], r"/layer/1/neuron/theta \(it is not 64 vThMant\)"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_what_netx_drops_is_reported_and_not_fatal(name, tmp_path):
    layers, key = UNUSED[name]
    with pytest.warns(MksgnWarning, match=rf"net\.net: netx drops {key}, and so does the graph"):
        graph = read(write(tmp_path / "net.net", layers))
    kept = [{k: v for k, v in layer.items() if not re.fullmatch(key.split()[0], f"/layer/{i}/{k}")}
            for i, layer in enumerate(layers)]  # fmt: skip
    without = read(write(tmp_path / "without.net", kept))
    assert sorted(graph.nodes) == sorted(without.nodes)
    for node, other in ((graph.nodes[n], without.nodes[n]) for n in graph.nodes):
        for field, value in node.to_dict().items():
            np.testing.assert_array_equal(value, other.to_dict()[field])


def test_integers_are_marked_as_such_where_a_chip_holds_them(tmp_path):
    even = read(write(tmp_path / "even.net", [inp(3), dense([[-256, 2, 254], [4, 6, 8]])]))
    assert json_of(even, "quantization")["populations"].keys() == {"layer1"}
    odd = read(write(tmp_path / "odd.net", [inp(3), dense([[1, -3, 5], [2, 4, 6]])]))
    assert json_of(odd, "quantization") is None
