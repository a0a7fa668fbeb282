"""Files of SLAYER's own blocks give the spikes of netx and SLAYER; nodes and metadata of the graph."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.export.errors import UnsupportedLayerError
from mksgn.export.lava_dl.file import read
from mksgn.train import checkpoint
from tests.support import loihi_oracle as oracle
from tests.support.lava_dl_files import FLATTEN, conv, dense, inp, weights, write
from tests.support.netx import T, same, spikes

R = np.random.default_rng(7)
LIF = {"threshold": 1.0, "current_decay": 1.0, "voltage_decay": 0.1}
CUBA = {"threshold": 1.5, "current_decay": 0.25, "voltage_decay": 0.1}
W = np.array([[20, -4, 6], [3, 5, 70]])


def slayer_networks() -> dict[str, tuple[list, tuple[int, ...]]]:
    """Make networks of SLAYER's blocks, and the shapes of their inputs."""
    from lava.lib.dl import slayer

    b, norm = slayer.block.cuba, {**CUBA, "norm": slayer.neuron.norm.MeanOnlyBatchNorm}
    strided = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    own = {**CUBA, "shared_param": False}
    kept = {**CUBA}  # Recurrent notes in it that neurons keep their state from one sequence to the next
    return {
        "conv": (
            [b.Conv(norm, 2, 4, 3, **strided), b.Flatten(), b.Dense(CUBA, 12, 6, delay=True), b.Dense(norm, 6, 4)],
            (2, 6, 5),
        ),
        "recurrent": ([b.Dense(LIF, 6, 5), b.Recurrent(kept, 5, 6), b.Dense(own, 6, 3)], (6,)),
        "analog": (
            [b.Input(LIF, weight=1, bias=0.25), b.Conv(LIF, 2, 3, 3), b.Flatten(), b.Dense(CUBA, 18, 4)],
            (2, 4, 5),
        ),
    }


def slayer_export(blocks: list, inputs: np.ndarray, path: Path) -> list[np.ndarray]:
    """Randomise weights, norms and delays, export the file, and return SLAYER's spikes by block, (T, *shape)."""
    import torch

    def forward() -> list[np.ndarray]:
        x, actual = torch.from_numpy(np.moveaxis(inputs, 0, -1).astype(np.float32))[None], []
        for block in blocks:
            x = block(x)
            actual.append(np.moveaxis(x[0].numpy(), -1, 0))
        return actual

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
def test_files_of_slayer_give_the_spikes_of_netx_and_slayer(name, netx, tmp_path):
    pytest.importorskip("lava.lib.dl.slayer", reason="lava-dl 0.6.0 needs Python 3.10")
    blocks, shape = slayer_networks()[name]
    inputs, bias = spikes(4, *shape), None
    if name == "analog":
        x = np.random.default_rng(4).integers(-16, 60, shape) / 32  # slayer rounds to 1/32
        inputs, bias = np.broadcast_to(x, (T, *shape)), (64 * x + 16).astype(int)
    trained = slayer_export(blocks, inputs, tmp_path / "net.net")
    graph = same(tmp_path / "net.net", netx, inputs, bias, input_shape=shape)
    actual = oracle.execute(graph, inputs)
    delays = 0
    for i, (block, slayer_spikes) in enumerate(zip(blocks, trained, strict=True)):
        if hasattr(block, "neuron"):
            delays += 1  # slayer shows each block's spikes a step late
            assert int((actual[f"layer{i}"][:-delays] != slayer_spikes[delays:]).sum()) == 0


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


def test_the_given_input_shape_must_be_the_files(tmp_path):
    path = write(tmp_path / "net.net", [inp(3), dense(W)])
    with pytest.raises(UnsupportedLayerError, match=r"layer 0 \(input\): shape is \(3,\), input_shape \(4,\); leave"):
        read(path, input_shape=(4,))
    assert read(path, input_shape=(3,)).nodes["input"].input_type["input"] == [3]


@pytest.mark.parametrize("dt", [0.0, -1e-4, np.nan, np.inf])
def test_dt_is_a_time(dt, tmp_path):
    with pytest.raises(BadInputError, match="expected a time step in seconds above 0"):
        read(write(tmp_path / "net.net", [inp(3), dense(W)]), dt=dt)
