"""Synaptic operations of other frameworks' networks: counted from what the framework recorded and its dense weights.

Each spike of the framework's own recording counts the non-zero weights of its column. NeuroBench counts the same where
it can: networks of torch modules that it can hook, step by step. `make test-interop` installs all of them.
"""

import importlib.util
import os

import numpy as np
import pytest
import torch

from mksgn.bench import measure
from tests.support.frameworks import CASES, Case, Recorded

COUNTED = {
    ("snntorch", "Leaky"), ("snntorch", "the same, after a convolution"), ("spikingjelly", "LIFNode, IFNode"),
    ("spikingjelly", "LIFNode, after a convolution"), ("norse", "LIFBoxCell"), ("sinabs", "LIF, SingleSpike"),
    ("rockpool", "LIFNeuronTorch, one spike in a step"), ("spyx", "LIF"),
}  # fmt: skip
NETWORKS = [case for case in CASES if (case.package, case.neuron) in COUNTED]
BY_NEUROBENCH = [case for case in NETWORKS if case.package in ("snntorch", "spikingjelly", "norse")]

pytestmark = pytest.mark.filterwarnings("ignore")


def recorded(case: Case) -> Recorded:
    if case.installed is None and "MKSGN_INTEROP" not in os.environ:
        pytest.skip(f"{case.package} is not installed here: make test-interop")
    return case.recorded()


def brute_force(network: Recorded) -> list[int]:
    """Synaptic operations into each layer: spikes of each source, times its weights that are not 0."""
    sources = [network.x, *network.spikes[:-1]]
    return [
        int(source.sum((0, 1)).ravel().astype(int) @ np.count_nonzero(weight, axis=0))
        for source, weight in zip(sources, network.weights, strict=True)
    ]


@pytest.mark.parametrize("case", NETWORKS, ids=lambda case: case.name)
def test_they_are_those_of_brute_force(case):
    network = recorded(case)
    record = measure(network.graph, network.x, **case.options).record
    expected = brute_force(network)
    if "spike_delay" in case.options:  # a Delay leads to the Output, as one synapse of each neuron
        expected.append(int(network.spikes[-1].sum()))
    assert [layer.syn_ops for layer in record.layers] == [layer.effective_acs for layer in record.layers] == expected
    assert record.totals.syn_ops == sum(expected) / len(network.x) > 0


@pytest.mark.parametrize("case", BY_NEUROBENCH, ids=lambda case: case.name)
def test_they_are_neurobench_s(case):
    if "MKSGN_INTEROP" not in os.environ and importlib.util.find_spec("neurobench") is None:
        pytest.skip("neurobench is not installed here: make test-interop")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    network = recorded(case)
    data = torch.utils.data.TensorDataset(torch.from_numpy(network.x), torch.zeros(len(network.x)))
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    counted = Benchmark(TorchModel(network.network), loader, [], [], [[], [SynapticOperations]]).run(quiet=True)
    totals = measure(network.graph, network.x, **case.options).record.totals
    counted = counted["SynapticOperations"]
    assert (counted["Effective_ACs"], counted["Effective_MACs"]) == (totals.Effective_ACs, 0)
    assert totals.Effective_ACs == sum(brute_force(network)) / len(network.x) > 0
