"""Networks of lava-dl in fixed point: the integers are the file's, and no decision differs from what netx runs.

`tests/data/foreign/lava_dl.npz` holds what netx computes of lava_dl.net. Other networks are compared with
tests/support/loihi_oracle.py, which tests/export/lava_dl compares with netx itself.
"""

from pathlib import Path

import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.export.graph import files
from mksgn.export.lava_dl.file import read
from tests.support import loihi_oracle as oracle
from tests.support.lava_dl_files import FLATTEN, Layers, conv, dense, inp, neuron, recurrent, write
from tests.support.paths import DATA
from tests.support.tiers import one_in

FOREIGN, STEPS = DATA / "foreign", 40
BACKENDS = ["emulator", "lava"]
R = np.random.default_rng(3)


def even(*shape: int, most: int = 60) -> np.ndarray:
    return 2 * R.integers(-most // 2, most // 2 + 10, shape)


def executed(graph, x: np.ndarray, backend: str):
    """Run a graph in fixed point without calibration: its integers are the file's."""
    if backend == "lava":
        pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    return run(compile_graph(graph, precision="fixed"), x.astype(np.float32), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_spikes_of_netx(backend, tmp_path):
    with np.load(FOREIGN / "lava_dl.npz") as arrays:
        expected = dict(arrays)
    files.write(read(FOREIGN / "lava_dl.net"), tmp_path / "net.nir")
    execution = executed(tmp_path / "net.nir", expected.pop("x"), backend)
    for name, spikes in expected.items():
        assert spikes.any()
        assert int((execution.spikes[name] != spikes).sum()) == 0, name


def without_neuron(layer: dict) -> dict:
    return {key: value for key, value in layer.items() if not key.startswith("neuron/")}


NETWORKS: dict[str, Layers] = {
    "two layers, the extremes of a weight": [
        inp(9),
        dense(np.concatenate([even(6, 9), [[-256, 254] + [2] * 7]]), **neuron(vth=60)),
        dense(even(5, 7), **neuron(1024, 410, 90)),
    ],
    "decays and thresholds per channel": [
        inp(6),
        dense(even(3, 6), **neuron(np.array([4096, 1024, 300]), np.array([410, 4000, 1]), np.array([80, 40, 900]))),
        dense(even(4, 3), **neuron(v=0, vth=50)),
    ],
    "convolution": [
        inp(2, 5, 6),
        conv(even(3, 2, 3, 3), (5, 6), padding=1, stride=(2, 1), bias=np.array([10, -10, 3]), **neuron(vth=70)),
        FLATTEN,
        dense(even(4, 3 * 3 * 6), **neuron(900, 300, 6000)),
    ],
    "recurrence and a bias": [
        inp(6),
        recurrent(even(5, 6), even(5, 5, most=20), bias=np.array([20, -3, 0, 7, 1]), **neuron(2000, 500, 120)),
    ],
    "delays": [
        inp(6),
        dense(even(5, 6), delay=np.array([0, 3, 1, 0, 2]), **neuron(vth=60)),
        dense(even(4, 5), delay=R.integers(0, 3, (4, 5)), **neuron(1024, 410, 60)),
    ],
}


@pytest.mark.parametrize("backend", one_in(2, BACKENDS))
@pytest.mark.parametrize("name", NETWORKS)
def test_no_decision_differs_from_lavas_integers(name, backend, tmp_path):
    graph = read(write(tmp_path / "net.net", NETWORKS[name]))
    x = np.random.default_rng(1).random((2, STEPS, *graph.nodes["input"].input_type["input"])) < 0.3
    execution = executed(graph, x, backend)
    for sample in range(len(x)):
        expected = oracle.execute(graph, x[sample])
        for population in execution.spikes:
            spikes = expected[population]
            assert 0.01 < spikes.mean() < 0.99, population
            assert int((execution.spikes[population][sample] != spikes).sum()) == 0, population


def integrated(currents: np.ndarray, i_decay: int, v_decay: int) -> np.ndarray:
    """The membrane of Lava's fixed LIF without threshold, in weight units: currents (samples, steps, n) int."""
    u = v = np.zeros(currents[:, 0].shape, dtype=np.int64)
    out = []
    for a in currents.swapaxes(0, 1):
        u = oracle.truncate(u, i_decay) + (a.astype(np.int64) << 6)
        v = np.clip(oracle.truncate(v, v_decay) + u, -(2**23 - 1), 2**23 - 1)
        out.append(v / 64)
    return np.stack(out, 1)


READOUTS = {
    "current": (without_neuron(dense(even(3, 4))), None),
    "current with a bias": (without_neuron(dense(even(3, 4), bias=np.array([5, -7, 100]))), None),
    "current, late by output": (without_neuron(dense(even(3, 4), delay=np.array([0, 2, 1]))), None),
    "current, late by synapse": (without_neuron(dense(even(3, 4), delay=R.integers(0, 3, (3, 4)))), None),
    "dynamics without memory": (dense(even(3, 4), **neuron(4096, 4096, 2**18 - 1)), None),
    "membrane": (dense(even(3, 4), **neuron(4096, 128, 2**18 - 1)), (4096, 128)),
    "membrane with a current": (dense(even(3, 4), **neuron(1024, 128, 2**18 - 1)), (1024, 128)),
    "membrane without leak": (dense(even(3, 4), **neuron(4096, 0, 2**18 - 1)), (4096, 0)),
}


@pytest.mark.parametrize("backend", one_in(2, BACKENDS))
@pytest.mark.parametrize("name", READOUTS)
def test_a_last_layer_without_threshold_is_read_out(name, backend, tmp_path):
    layer, decays = READOUTS[name]
    graph = read(write(tmp_path / "net.net", [inp(6), dense(even(4, 6), **neuron(vth=60)), layer]))
    x = np.random.default_rng(1).random((2, STEPS, 6)) < 0.4
    execution = executed(graph, x, backend)
    spikes = execution.spikes["layer1"]
    assert 0.05 < spikes.mean() < 0.95
    delay = np.broadcast_to(np.atleast_2d(layer.get("delay", 0)).T if np.ndim(layer.get("delay", 0)) == 1 else
                            layer.get("delay", 0), (3, 4))  # fmt: skip
    currents = np.zeros((2, STEPS, 3))
    for (o, i), steps in np.ndenumerate(delay):
        currents[:, steps:, o] += layer["weight"][o, i] * spikes[:, : STEPS - steps, i]
    currents += layer.get("bias", 0)
    expected = currents if decays is None else integrated(currents, *decays)
    np.testing.assert_array_equal(execution.outputs["output"], expected)


@pytest.mark.parametrize("name", ["lava_dl_readout", "lava_dl_readout_membrane"])
def test_the_read_outs_of_the_tutorials(name, tmp_path):
    graph = read(FOREIGN / f"{name}.net")
    x = np.random.default_rng(1).random((2, STEPS, 6)) < 0.5
    execution = executed(graph, x, "emulator")
    currents = execution.spikes["layer0"] @ np.full((4, 3), 8)
    assert execution.spikes["layer0"].any()
    expected = integrated(currents, 1024, 128) if "membrane" in name else currents
    np.testing.assert_array_equal(execution.outputs["output"], expected)


def test_a_readout_by_convolution(tmp_path):
    last = without_neuron(conv(even(2, 3, 2, 2), (4, 4)))
    graph = read(write(tmp_path / "net.net", [inp(2, 5, 5), conv(even(3, 2, 2, 2), (5, 5)), last]))
    x = np.random.default_rng(1).random((1, STEPS, 2, 5, 5)) < 0.4
    execution = executed(graph, x, "emulator")
    expected = oracle.execute(graph, x[0])
    np.testing.assert_array_equal(execution.outputs["output"][0], expected["output"])
    assert execution.spikes["layer1"].any()


def test_odd_weights_are_no_integers_of_a_chip(tmp_path: Path):
    graph = read(write(tmp_path / "net.net", [inp(3), dense([[1, -3, 5], [2, 4, 6]])]))
    with pytest.raises(DeployError, match="the file is not quantised, and fixed point needs integers"):
        compile_graph(graph, precision="fixed")
