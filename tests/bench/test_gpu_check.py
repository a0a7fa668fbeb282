"""`python -m mksgn.bench.gpu_check`: what it compares is told apart; without a GPU it says so."""

import sys

import numpy as np
import pytest
import torch

from mksgn.bench import gpu_check
from mksgn.deploy import compile_graph, run
from mksgn.deploy.benchmark.networks import graph_chain, spike_inputs


@pytest.fixture(scope="module")
def chain():
    graph = graph_chain(layers=2, channels=8, frames=4, joints=5)
    return compile_graph(graph), spike_inputs(graph, 2)


def test_equal_executions_have_no_differences(chain):
    figures = gpu_check.compare_devices(*chain, "cpu")
    assert figures["mismatches"] == 0
    assert figures["differences"] == {}
    assert figures["decisions"] == 2 * 2 * 4 * 8 * 4 * 5
    assert 0.02 < figures["firing_rate"] < 0.5


def test_each_difference_is_named(chain, monkeypatch):
    def run_otherwise(program, inputs, **options):
        execution = run(program, inputs, **{**options, "device": "cpu"})
        if "device" in options:
            execution.spikes["lif1"] = ~execution.spikes["lif1"]
            execution.counters["lif2"].max_current += 1
        return execution

    monkeypatch.setattr(gpu_check, "run", run_otherwise)
    figures = gpu_check.compare_devices(*chain, "cuda")
    assert figures["mismatches"] == 2 * 4 * 8 * 4 * 5
    assert figures["differences"] == {"spikes": ["lif1"], "outputs": [], "counters": ["lif2"]}


def test_counters_are_compared_to_the_neuron(chain):
    a, b = (run(*chain).counters["lif1"] for _ in range(2))
    assert gpu_check.same_counters(a, b)
    b.per_neuron = np.roll(b.per_neuron, 1)
    assert not gpu_check.same_counters(a, b)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_ends_with_code_2(monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["gpu_check"])
    with pytest.raises(SystemExit) as ended:
        gpu_check.main()
    assert ended.value.code == 2
    assert "--device cuda: not available here" in capfd.readouterr().err
