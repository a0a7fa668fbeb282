"""lava-dl's files → NIR: spike for spike against netx in real Lava, on slayer's own files and handmade ones.

The graph runs in tests/support/loihi_oracle.py, from its floats alone. netx starts the neurons of every layer at once, so that one with a
bias has integrated it for as many steps as the input takes to arrive: files with biases run with netx's own reset, which clears each
layer when its first input comes, and with biases too small to fire before (a delay or a loop would keep those spikes).

Facts about netx 0.6.0 that the refusals rest on, each measured: what it makes of weights is `netx_weights` (3000 layers below: none
differs), 128 groups convolve nothing, a dense_rec with delays of 0 and weights (30, -4, 6) runs them eight times as large, an input
layer that is not the first is left unconnected, Dense takes odd weights of mixed sign as they are, and the file is never closed.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest

from mksgn.export.errors import UnsupportedLayerError
from mksgn.export.graph import files
from mksgn.export.lava_dl.file import read
from mksgn.export.lava_dl.weights import netx_weights
from mksgn.train import checkpoint
from tests.support import loihi_oracle as oracle
from tests.support.lava_dl_files import FLATTEN, Layers, conv, dense, inp, neuron, recurrent, weights, write

T = 30


# --- netx in Lava ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def netx():
    pytest.importorskip("lava.lib.dl.netx", reason="lava-dl 0.6.0 needs Python 3.10")
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a leaf that uses torch hangs otherwise (LAVA.md)
    yield run_netx
    torch.set_num_threads(threads)


def run_netx(path: Path, inputs: np.ndarray, bias: np.ndarray | None = None) -> list[np.ndarray]:
    """Spikes of every layer of netx's network, (T, *shape) with shapes (C, H, W), each layer's latency removed.

    `inputs` (T, *shape) are spikes; with `bias` (*shape), an input layer with neurons is driven by that constant instead.
    """
    from lava.lib.dl.netx import hdf5
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    from mksgn.deploy.lava.guard.runtime import GuardedRuntime

    with h5py.File(path) as file:
        layers = len(file["layer"])
        biased = any("bias" in file[f"layer/{i}"] for i in range(1, layers))
    first = 0 if bias is not None else 1  # the synapses before the first layer of neurons
    options: dict[str, Any] = {"reset_interval": 1000, "reset_offset": first} if biased else {}
    with contextlib.redirect_stdout(io.StringIO()):
        net = hdf5.Network(net_config=str(path), input_shape=inputs.shape[:0:-1], **options)
    net.net_config.f.close()
    steps = len(inputs) + len(net.layers)
    start: Any = net.layers[0].neuron
    if bias is not None:
        net.in_layer.neuron.bias_mant.init = bias.transpose()
    else:
        data = np.zeros((*net.inp.shape, steps), dtype=int)
        for t, x in enumerate(inputs):
            data[..., t] = x.transpose() if x.ndim == len(net.inp.shape) else x.ravel()
        start = Source(data=data)
        start.s_out.connect(net.inp)
    sinks = [Sink(shape=layer.shape, buffer=steps) for layer in net.layers]
    for layer, sink in zip(net.layers, sinks, strict=True):
        layer.out.connect(sink.a_in)
    with GuardedRuntime(start, Loihi2SimCfg(select_tag="fixed_pt"), deadline_s=60) as runtime:
        runtime.run(steps)
        found = [sink.data.get() for sink in sinks]
    return [spikes[..., k + first :].transpose()[: len(inputs)] for k, spikes in enumerate(found)]


def same(path: Path, netx, inputs: np.ndarray, bias: np.ndarray | None = None, **options: Any) -> nir.NIRGraph:
    """Every spike of every layer alike, every layer alive; the file survives being written and read."""
    graph = read(path, **options)
    found = oracle.execute(graph, inputs)
    populations = [name for name in graph.nodes if name in found and name != "output"]
    expected = netx(path, inputs, bias)
    assert len(populations) == len(expected)
    for name, spikes in zip(populations, expected, strict=True):
        assert 0.01 < spikes.mean() < 0.99, f"{name} fires at {spikes.mean()}: nothing is compared"
        assert found[name].shape == spikes.shape, name
        assert int((found[name] != spikes).sum()) == 0, name
    np.testing.assert_array_equal(found["output"], expected[-1])
    again = path.with_suffix(".nir")
    nir.write(again, graph)
    reread = files.read(again) if typed(graph) else nir.read(again, type_check=False)
    np.testing.assert_array_equal(oracle.execute(reread, inputs)["output"], found["output"])
    return graph


def typed(graph: nir.NIRGraph) -> bool:
    with contextlib.suppress(ValueError):
        return graph.check_types()
    return False


def spikes(seed: int, *shape: int, rate: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random((T, *shape)) < rate


# --- against netx ---------------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("name", HANDMADE)
def test_handmade_files_give_netxs_spikes(name, netx, tmp_path):
    layers = HANDMADE[name]
    shape = SHAPES.get(name) or tuple(layers[0]["shape"])
    graph = same(write(tmp_path / "net.net", layers), netx, spikes(1, *shape))
    assert typed(graph) == (name not in ("groups", "wide kernel", "strides, padding, dilation"))


@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("kind", DELAYS)
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
    """Layers of every kind at random, thresholds such that each fires (found by the oracle), and an input."""
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
            found = oracle.execute(read(write(path, layers)), inputs)["output"]
            if found.mean() > 0.1 or vth == 4:
                return found.shape[1:]
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


@pytest.mark.parametrize("seed", range(8))
def test_random_networks_give_netxs_spikes(seed, netx, tmp_path):
    layers, inputs = random_network(seed, tmp_path / "trial.net")
    same(write(tmp_path / "net.net", layers), netx, inputs)


# --- slayer's own files, and slayer itself --------------------------------------------------------------------------------

LIF = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
CUBA = {"threshold": 1.5, "current_decay": 0.25, "voltage_decay": 0.1}


def slayer_networks() -> dict[str, tuple[list, tuple[int, ...]]]:
    """Blocks of slayer, and the shape of their input."""
    from lava.lib.dl import slayer

    b, norm = slayer.block.cuba, {**CUBA, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    strided = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    own = {**CUBA, "shared_param": False}
    return {
        "conv": (
            [b.Conv(norm, 2, 4, 3, **strided), b.Flatten(), b.Dense(CUBA, 12, 6, delay=True), b.Dense(norm, 6, 4)],
            (2, 6, 5),
        ),
        "recurrent": ([b.Dense(LIF, 6, 5), b.Recurrent(CUBA, 5, 6), b.Dense(own, 6, 3)], (6,)),
        "analog": (
            [b.Input(LIF, weight=1, bias=0.25), b.Conv(LIF, 2, 3, 3), b.Flatten(), b.Dense(CUBA, 18, 4)],
            (2, 4, 5),
        ),
    }


def slayer_export(blocks: list, inputs: np.ndarray, path: Path) -> list[np.ndarray]:
    """Random weights, norms and delays; slayer's file, and its own spikes of every block, (T, *shape)."""
    import torch

    def forward() -> list[np.ndarray]:
        x, found = torch.from_numpy(np.moveaxis(inputs, 0, -1).astype(np.float32))[None], []
        for block in blocks:
            x = block(x)
            found.append(np.moveaxis(x[0].numpy(), -1, 0))
        return found

    torch.manual_seed(0)
    with torch.no_grad(), h5py.File(path, "w") as file:
        forward()  # gives every neuron its shape
        for i, block in enumerate(blocks):
            for name in ("synapse", "input_synapse", "recurrent_synapse"):
                if hasattr(block, name):
                    weight = getattr(block, name).weight.data
                    weight[:] = torch.randn_like(weight) * 0.6 + 0.1
            if getattr(block, "delay", None) is not None:
                block.delay.delay.data = 4 * torch.rand_like(block.delay.delay)
            cell = getattr(block, "neuron", None)
            if cell is not None:
                if cell.norm is not None:
                    cell.norm.running_mean = 0.2 * torch.randn(block.shape[0])
                cell.current_state = cell.voltage_state = torch.zeros(1)  # Recurrent keeps them
            block.eval().export_hdf5(file.create_group(f"layer/{i}"))
        return forward()


@pytest.mark.parametrize("name", ["conv", "recurrent", "analog"])
def test_slayers_files_give_netxs_and_slayers_spikes(name, netx, tmp_path):
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl 0.6.0 needs Python 3.10")
    blocks, shape = slayer_networks()[name]
    inputs, bias = spikes(4, *shape), None
    if name == "analog":
        x = np.random.default_rng(4).integers(-16, 60, shape) / 32  # slayer rounds to 1/32
        inputs, bias = np.broadcast_to(x, (T, *shape)), (64 * x + 16).astype(int)
    trained = slayer_export(blocks, inputs, tmp_path / "net.net")
    graph = same(tmp_path / "net.net", netx, inputs, bias, input_shape=shape)
    found = oracle.execute(graph, inputs)
    delays = 0
    for i, (block, theirs) in enumerate(zip(blocks, trained, strict=True)):
        if hasattr(block, "neuron"):
            delays += 1  # slayer shows each block's spikes a step late
            assert int((found[f"layer{i}"][:-delays] != theirs[delays:]).sum()) == 0


# --- what netx makes of weights -------------------------------------------------------------------------------------------


def test_netx_weights_is_what_netx_and_lava_make_of_them(netx):
    """optimize_weight_bits, then Dense's clip and truncation, of 3000 layers of one or two synapses: 0 weights differ."""
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
            theirs = optimised[:, 3 * k : 3 * k + 3]
            mode = determine_sign_mode(theirs)
            theirs = truncate_weights(clip_weights(theirs, mode, num_bits=8), mode, bits) >> -exponent
            np.testing.assert_array_equal(held, theirs)
            changed += (held != weight).any()
    assert changed > 300


CUT_OFF = [([-1], 0), ([-2, 0], -1), ([-128, 0], -64), ([-255, 0], 0), ([-256, -3], -255)]
OUT_OF_RANGE = [([256, 3], 0), ([300, -3], 254), ([-300, 3], -256)]


@pytest.mark.parametrize(("weight", "runs_as"), CUT_OFF + OUT_OF_RANGE)
def test_weights_that_netx_would_change(weight, runs_as, tmp_path):
    path = write(tmp_path / "net.net", [inp(len(weight)), dense([weight])])
    message = rf"layer 1 \(dense\): netx would run weight {weight[0]} from input 0 to output 0 as {runs_as}; scale"
    with pytest.raises(UnsupportedLayerError, match=message):
        read(path)


# --- the graph ------------------------------------------------------------------------------------------------------------


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
    path = write(tmp_path / "net.net", HANDMADE["recurrent with current memory and bias"])
    a, b = (oracle.execute(read(path, dt=dt), spikes(1, 6), dt)["output"] for dt in (1e-4, 7e-3))
    assert a.any()
    np.testing.assert_array_equal(a, b)


def test_nodes_and_metadata(tmp_path):
    layers = [
        inp(2, 6, 3),
        conv(weights(R, 3, 2, 5, 1), (6, 3), padding=np.array([2, 0])),
        FLATTEN,
        dense(weights(R, 4, 54)),
    ]
    path = write(tmp_path / "net.net", layers)
    graph = read(path)
    assert {name: type(node).__name__ for name, node in graph.nodes.items()} == {
        "input": "Input",
        "layer1_conv": "Conv2d",
        "layer1": "LIF",
        "layer2_flatten": "Flatten",
        "layer3_dense": "Linear",
        "layer3": "LIF",
        "output": "Output",
    }
    facts = {
        "schema": "mksgn.nir/1",
        "profile": "portable",
        "source": "lava-dl",
        "dt": 1e-4,
        "parent": checkpoint.sha256(path),
    }
    assert facts.items() <= graph.metadata.items()
    assert '"nir": "1.0.8"' in graph.metadata["versions"]
    assert graph.nodes["input"].metadata == {"signal": "spikes"}
    assert graph.nodes["layer1"].metadata == {"lava_du": 4095, "lava_dv": 1024, "lava_vth": 100, "lava_bias_exp": 6}
    assert graph.nodes["layer1_conv"].padding == "same"
    np.testing.assert_array_equal(graph.nodes["layer3_dense"].weight, layers[3]["weight"])
    for name in ("layer1", "layer3"):
        node, shape = graph.nodes[name], graph.nodes[name].input_type["input"]
        for parameter in (node.tau, node.r, node.v_leak, node.v_threshold, node.v_reset):
            assert parameter.dtype == np.float32
            np.testing.assert_array_equal(parameter.shape, shape)
