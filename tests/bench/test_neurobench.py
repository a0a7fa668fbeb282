"""NeuroBench's names: the counts of mksgn and its own, on a network that it can count, and what it misses.

The network is a NIR file: NeuroBench counts what snnTorch's importer makes of it, and the emulator
runs it. Where a name means different things, the exact relation is asserted. Needs Python 3.11: `make
test-interop`.
"""

import contextlib
import io
import json
import os
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import pytest
import torch

from mksgn.bench.counters import layers, totals
from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.export import export_to_nir
from tests.support.brute_force import count
from tests.support.graphs import F32, affine, chain, conv, flatten, inp, lif, out, spikes
from tests.support.students import tiny
from tests.support.synapse_walk import Walk

WHY = "neurobench is not installed here: make test-interop"
if os.environ.get("MKSGN_INTEROP"):
    import neurobench  # noqa: F401  required there: its absence is a failure

benchmarks = pytest.importorskip("neurobench.benchmarks", reason=WHY)
models = pytest.importorskip("neurobench.models", reason=WHY)
static = pytest.importorskip("neurobench.metrics.static", reason=WHY)
workload = pytest.importorskip("neurobench.metrics.workload", reason=WHY)
import_nir = pytest.importorskip("snntorch.import_nir", reason=WHY)

CLIPS, STEPS, SHAPE = 5, 4, (2, 6, 5)


def countable(*, analog: bool = False) -> nir.NIRGraph:
    """A convolution with stride, borders and zero weights, and a dense layer, each into LIF, quantised to integers."""
    rng = np.random.default_rng(5)

    def even(*shape: int) -> np.ndarray:
        return (2 * rng.integers(-10, 21, shape) * (rng.random(shape) > 0.2)).astype(F32)

    def population(*shape: int, threshold: int) -> nir.LIF:
        return lif(*shape, threshold=(threshold + 1 / 128) / 2)

    first = conv(even(4, 2, 3, 3), rng.integers(-5, 6, 4), stride=(2, 1), padding=1, input_shape=SHAPE[1:])
    return chain(
        ("x", inp(*SHAPE, analog=analog)),
        ("conv", first),
        ("a", population(4, 3, 5, threshold=40)),
        ("flat", flatten(4, 3, 5, start=-3)),
        ("dense", affine(even(7, 60), rng.integers(-5, 6, 7))),
        ("b", population(7, threshold=200)),
        ("y", out(7)),
        steps=STEPS,
        quantization=json.dumps({"bits": 8, "populations": {"a": {"exponent": 0}, "b": {"exponent": 0}}}),
    )


@dataclass
class Both:
    graph: nir.NIRGraph
    inputs: np.ndarray
    trains: dict[str, np.ndarray]
    network: torch.nn.Module
    mksgn: Any  # record's Totals
    neurobench: dict[str, Any]


def counted_by_both(graph: nir.NIRGraph, inputs: np.ndarray) -> Both:
    program = compile_graph(graph, precision="fixed")
    execution = run(program, {"x": inputs})
    rows = layers(program, execution, place(program, LOIHI2))
    with contextlib.redirect_stdout(io.StringIO()):  # the importer prints whole arrays
        network = import_nir.import_from_nir(graph)
    model = models.SNNTorchModel(network)
    x = torch.from_numpy(inputs.astype(F32))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=2)
    metrics = [
        [static.Footprint, static.ConnectionSparsity],
        [workload.ActivationSparsity, workload.SynapticOperations],
    ]
    reported = benchmarks.Benchmark(model, loader, [], [], metrics).run(quiet=True)
    reported |= reported.pop("SynapticOperations")
    with torch.no_grad():
        np.testing.assert_array_equal(
            model(x).numpy() != 0, execution.spikes["b"]
        )  # the same network, or the counts could not be compared
    return Both(graph, inputs, execution.spikes, network, totals(program, execution, rows, len(inputs)), reported)


@pytest.fixture(scope="module")
def spiking() -> Both:
    return counted_by_both(countable(), spikes(np.random.default_rng(6), CLIPS, STEPS, *SHAPE))


@pytest.fixture(scope="module")
def analog() -> Both:
    """Integers from -8 to 8, some of them 0, the same at every step."""
    values = np.random.default_rng(7).integers(-8, 9, (CLIPS, 1, *SHAPE)).astype(F32)
    return counted_by_both(countable(analog=True), np.repeat(values, STEPS, 1))


def test_synaptic_operations_are_the_same(spiking):
    """Both skip weights of 0, padding and what a stride leaves out, and count no biases; per clip, over all steps."""
    assert spiking.neurobench["Effective_ACs"] == spiking.mksgn.Effective_ACs > 0
    assert spiking.neurobench["Effective_MACs"] == spiking.mksgn.Effective_MACs == 0
    assert spiking.neurobench["Dense"] == spiking.mksgn.Dense
    assert spiking.mksgn.Effective_ACs < spiking.mksgn.syn_ops < spiking.mksgn.Dense


def test_sparsities_are_the_same(spiking):
    """NeuroBench rounds that of connections to four decimals and averages that of activations over batches."""
    assert spiking.neurobench["ConnectionSparsity"] == round(spiking.mksgn.ConnectionSparsity, 4) > 0.1
    assert spiking.neurobench["ActivationSparsity"] == pytest.approx(spiking.mksgn.ActivationSparsity, rel=1e-12)
    assert 0.1 < spiking.mksgn.ActivationSparsity < 0.9


def test_footprint_leaves_out_what_a_chip_does_not_store_as_weights(spiking):
    """NeuroBench: all parameters and buffers in float32, with biases and neuron constants. mksgn: 8 bits per weight."""
    parameters = dict(spiking.network.named_parameters())
    biases = sum(p.numel() for name, p in parameters.items() if name.endswith("bias"))
    rest = spiking.neurobench["Footprint"] - 4 * biases - 4 * spiking.mksgn.Footprint
    constants = sum(b.numel() for name, b in spiking.network.named_buffers() if not name.endswith(".mem"))
    assert biases == 4 + 7
    assert spiking.mksgn.Footprint == 4 * 2 * 3 * 3 + 7 * 60
    assert rest == 4 * (constants + 2)  # membranes are counted before the first batch, when each is one number


def test_neurobench_charges_the_first_layer_at_every_step_and_mksgn_once(analog):
    """NeuroBench: non-zero values over non-zero weights, at each step. mksgn: every weight inside the borders, once."""
    (encoder,) = (p for p in Walk(analog.graph, 1e-4).projections if p.source == "x")
    nonzero = (analog.inputs[:, 0] != 0).sum(0)
    products = sum(
        int(nonzero[(slice(None), *start)] @ block.nonzero.sum(0)) for (start, _, _), block in encoder.taps.items()
    )
    synapses = sum(int(block.paths.sum()) for block in encoder.taps.values())
    assert analog.neurobench["Effective_MACs"] == STEPS * products / CLIPS
    assert analog.mksgn.host_macs == synapses > products / CLIPS
    assert analog.neurobench["Dense"] == analog.mksgn.Dense + (STEPS - 1) * synapses
    assert analog.neurobench["Effective_ACs"] == analog.mksgn.Effective_ACs > 0


def test_activation_sparsity_leaves_out_the_host_s_neurons(analog):
    """NeuroBench counts all neurons of the network, mksgn those on the chip."""
    assert analog.mksgn.ActivationSparsity == 1 - analog.trains["b"].mean()
    every = sum(train.size for train in analog.trains.values())
    fired = sum(int(train.sum()) for train in analog.trains.values())
    assert analog.neurobench["ActivationSparsity"] == pytest.approx(1 - fired / every, rel=1e-12)


def test_neurobench_misses_graph_convolution_and_attention():
    """Its hooks see nn.Conv2d and nn.Linear alone, so its Dense lacks every graph convolution and all products.

    Two of the layers that it sees are smaller in torch than in the file: the streams are fused before
    SMF's convolution, not in its weights; and the classes follow the mean over frames, joints and
    steps, so they are not a synapse of each neuron.
    """
    model, inputs = tiny()
    student, config = model.student, model.student.config
    x = torch.from_numpy(inputs[:2])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=2)
    bench = benchmarks.Benchmark(models.TorchModel(student), loader, [], [], [[], [workload.SynapticOperations]])
    reported = bench.run(quiet=True)["SynapticOperations"]["Dense"]

    graph = export_to_nir(model)
    program = compile_graph(graph, precision="float")
    execution = run(program, np.repeat(inputs[:2, None], config.steps, 1))
    rows = layers(program, execution, place(program, LOIHI2))
    dense = totals(program, execution, rows, 2).Dense
    census = count(graph, execution.spikes)
    per_body = {name: layer.dense_ops / 2 for name, layer in census.layers.items()}
    walk = Walk(graph, float(graph.metadata["dt"]))
    unseen = sum(per_body[name] for name in per_body if name.endswith((".m", ".z")))
    for i in range(1, len(config.widths) + 1):
        into = [p for p in walk.projections if p.target == f"block{i}_sgc"]
        (graph_conv,) = (
            p for p in into if any(start != end for start, end, _ in p.taps)
        )  # its skip joins no two joints
        unseen += config.steps * sum(int(block.paths.sum()) for block in graph_conv.taps.values())
    streams = len(config.streams)
    smaller = per_body["smf"] * (streams - 1) / streams
    smaller += per_body["readout"] - len(config.classes) * config.widths[-1]
    assert unseen > 0.3 * dense
    assert reported == dense - unseen - smaller
