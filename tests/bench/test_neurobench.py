"""Our counts under NeuroBench's names beside NeuroBench's own, on a network that it can count, and what it misses of ours.

The network is a NIR file of ours: snnTorch's own importer makes of it what NeuroBench counts, and the emulator runs it. Where the two
mean different things by a name, the exact relation is asserted. Needs Python 3.11: `make test-interop`.
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
    import neurobench  # noqa: F401  there to be compared with: not having it is a failure

benchmarks = pytest.importorskip("neurobench.benchmarks", reason=WHY)
models = pytest.importorskip("neurobench.models", reason=WHY)
static = pytest.importorskip("neurobench.metrics.static", reason=WHY)
workload = pytest.importorskip("neurobench.metrics.workload", reason=WHY)
import_nir = pytest.importorskip("snntorch.import_nir", reason=WHY)

CLIPS, STEPS, SHAPE = 5, 4, (2, 6, 5)


def countable(*, analog: bool = False) -> nir.NIRGraph:
    """A convolution with a stride, borders and weights of 0, and a dense layer, each into LIF: integers of a quantised file."""
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
    ours: Any  # record's Totals
    theirs: dict[str, Any]


def counted_by_both(graph: nir.NIRGraph, inputs: np.ndarray) -> Both:
    program = compile_graph(graph, precision="fixed")
    execution = run(program, {"x": inputs})
    rows = layers(program, execution, place(program, LOIHI2))
    with contextlib.redirect_stdout(io.StringIO()):  # the importer shows whole arrays
        network = import_nir.import_from_nir(graph)
    model = models.SNNTorchModel(network)
    x = torch.from_numpy(inputs.astype(F32))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=2)
    metrics = [
        [static.Footprint, static.ConnectionSparsity],
        [workload.ActivationSparsity, workload.SynapticOperations],
    ]
    theirs = benchmarks.Benchmark(model, loader, [], [], metrics).run(quiet=True)
    theirs |= theirs.pop("SynapticOperations")
    with torch.no_grad():
        np.testing.assert_array_equal(
            model(x).numpy() != 0, execution.spikes["b"]
        )  # the same network, or nothing compares
    return Both(graph, inputs, execution.spikes, network, totals(program, execution, rows, len(inputs)), theirs)


@pytest.fixture(scope="module")
def spiking() -> Both:
    return counted_by_both(countable(), spikes(np.random.default_rng(6), CLIPS, STEPS, *SHAPE))


@pytest.fixture(scope="module")
def analog() -> Both:
    """Integers from -8 to 8, some of them 0, the same at every step."""
    values = np.random.default_rng(7).integers(-8, 9, (CLIPS, 1, *SHAPE)).astype(F32)
    return counted_by_both(countable(analog=True), np.repeat(values, STEPS, 1))


def test_synaptic_operations_are_the_same(spiking):
    """Both skip weights of 0, the padding and what a stride leaves out, and count no biases. Mean over the clips, sum over the steps."""
    assert spiking.theirs["Effective_ACs"] == spiking.ours.Effective_ACs > 0
    assert spiking.theirs["Effective_MACs"] == spiking.ours.Effective_MACs == 0
    assert spiking.theirs["Dense"] == spiking.ours.Dense
    assert spiking.ours.Effective_ACs < spiking.ours.syn_ops < spiking.ours.Dense


def test_sparsities_are_the_same(spiking):
    """Theirs of the connections is rounded to four decimals; theirs of the activations is the mean of each batch's, ours of all."""
    assert spiking.theirs["ConnectionSparsity"] == round(spiking.ours.ConnectionSparsity, 4) > 0.1
    assert spiking.theirs["ActivationSparsity"] == pytest.approx(spiking.ours.ActivationSparsity, rel=1e-12)
    assert 0.1 < spiking.ours.ActivationSparsity < 0.9


def test_footprint_is_theirs_less_what_a_chip_does_not_store_as_weights(spiking):
    """Theirs: all parameters and buffers of the module in float32, biases and neuron constants too. Ours: 8 bits for each weight."""
    parameters = dict(spiking.network.named_parameters())
    biases = sum(p.numel() for name, p in parameters.items() if name.endswith("bias"))
    rest = spiking.theirs["Footprint"] - 4 * biases - 4 * spiking.ours.Footprint
    constants = sum(b.numel() for name, b in spiking.network.named_buffers() if not name.endswith(".mem"))
    assert biases == 4 + 7
    assert spiking.ours.Footprint == 4 * 2 * 3 * 3 + 7 * 60
    assert rest == 4 * (constants + 2)  # the membranes are counted before the first batch, when each is one number


def test_the_analog_layer_is_charged_at_every_step_by_them_and_once_by_us(analog):
    """Theirs: values other than 0 over weights other than 0, at each step. Ours: every weight inside the borders, once."""
    (encoder,) = (p for p in Walk(analog.graph, 1e-4).projections if p.source == "x")
    nonzero = (analog.inputs[:, 0] != 0).sum(0)
    products = sum(
        int(nonzero[(slice(None), *start)] @ block.nonzero.sum(0)) for (start, _, _), block in encoder.taps.items()
    )
    synapses = sum(int(block.paths.sum()) for block in encoder.taps.values())
    assert analog.theirs["Effective_MACs"] == STEPS * products / CLIPS
    assert analog.ours.host_macs == synapses > products / CLIPS
    assert analog.theirs["Dense"] == analog.ours.Dense + (STEPS - 1) * synapses
    assert analog.theirs["Effective_ACs"] == analog.ours.Effective_ACs > 0


def test_activation_sparsity_leaves_the_host_s_neurons_to_them(analog):
    """Theirs is over all neurons of the network, ours over those on the chip."""
    assert analog.ours.ActivationSparsity == 1 - analog.trains["b"].mean()
    every = sum(train.size for train in analog.trains.values())
    fired = sum(int(train.sum()) for train in analog.trains.values())
    assert analog.theirs["ActivationSparsity"] == pytest.approx(1 - fired / every, rel=1e-12)


def test_they_miss_graph_convolution_and_attention():
    """Their hooks see nn.Conv2d and nn.Linear alone. So the student's Dense lacks every graph convolution and all products.

    Of what they see, two things are smaller in torch than in the file: the streams are fused before SMF's convolution, not in its
    weights; and the classes come behind the mean over frames, joints and steps, not as a synapse of each neuron.
    """
    model, inputs = tiny()
    student, config = model.student, model.student.config
    x = torch.from_numpy(inputs[:2])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(len(x))), batch_size=2)
    bench = benchmarks.Benchmark(models.TorchModel(student), loader, [], [], [[], [workload.SynapticOperations]])
    theirs = bench.run(quiet=True)["SynapticOperations"]["Dense"]

    graph = export_to_nir(model)
    program = compile_graph(graph, precision="float")
    execution = run(program, np.repeat(inputs[:2, None], config.steps, 1))
    rows = layers(program, execution, place(program, LOIHI2))
    ours = totals(program, execution, rows, 2).Dense
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
    assert unseen > 0.3 * ours
    assert theirs == ours - unseen - smaller
