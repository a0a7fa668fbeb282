"""netx in Lava, and the comparison of a file's graph with it, spike for spike.

The graph runs in tests/support/loihi_oracle.py, from its floats alone. netx starts the neurons of
all layers at once, so that a neuron with a bias has integrated it for as many steps as the input
takes to arrive. Files with biases therefore run with netx's own reset, which clears each layer when
its first input arrives, and with biases too small to fire before (a delay or a loop would keep those
spikes).
"""

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
from tests.support import loihi_oracle as oracle
from tests.support.lava_dl_files import Layers, write

T = 30


def run_netx(path: Path, inputs: np.ndarray, bias: np.ndarray | None = None) -> list[np.ndarray]:
    """Run netx; return the spikes of every layer, (T, *shape) in the order (C, H, W), without latency.

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
        actual = [sink.data.get() for sink in sinks]
    return [spikes[..., k + first :].transpose()[: len(inputs)] for k, spikes in enumerate(actual)]


def same(path: Path, netx, inputs: np.ndarray, bias: np.ndarray | None = None, **options: Any) -> nir.NIRGraph:
    """Assert that all layers fire and give netx's spikes, also after the graph is written and read."""
    graph = read(path, **options)
    actual = oracle.execute(graph, inputs)
    populations = [name for name in graph.nodes if name in actual and name != "output"]
    expected = netx(path, inputs, bias)
    assert len(populations) == len(expected)
    for name, spikes in zip(populations, expected, strict=True):
        assert 0.01 < spikes.mean() < 0.99, f"{name} fires at {spikes.mean()}: nothing is compared"
        assert actual[name].shape == spikes.shape, name
        assert int((actual[name] != spikes).sum()) == 0, name
    np.testing.assert_array_equal(actual["output"], expected[-1])
    again = path.with_suffix(".nir")
    nir.write(again, graph)
    reread = files.read(again) if typed(graph) else nir.read(again, type_check=False)
    np.testing.assert_array_equal(oracle.execute(reread, inputs)["output"], actual["output"])
    return graph


def typed(graph: nir.NIRGraph) -> bool:
    with contextlib.suppress(ValueError):
        return graph.check_types()
    return False


def spikes(seed: int, *shape: int, rate: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random((T, *shape)) < rate


def assert_refused(path: Path, layers: Layers, message: str) -> None:
    """Assert that a file is refused in one line that names it and the layer."""
    with pytest.raises(UnsupportedLayerError, match=message) as caught:
        read(write(path, layers))
    assert "\n" not in str(caught.value)
    assert f"{path}: layer " in str(caught.value)
