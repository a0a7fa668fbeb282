"""mksgn/deploy/benchmark/measure: the command, and how ratios are summarised."""

import subprocess
import sys

import numpy as np
import pytest

from mksgn.deploy import compile_graph, emulator
from mksgn.deploy.benchmark import measure
from mksgn.deploy.benchmark.networks import conv_chain, spike_inputs


def test_the_command_shows_its_options():
    command = [sys.executable, "-m", "mksgn.deploy.benchmark", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--slots", "--lava-clips", "--rounds", "--json"))


def test_ratios_are_of_each_round():
    assert measure._ratio("a_over_b", [(6.0, 2.0), (1.0, 2.0), (4.0, 4.0)]) == {
        "a_over_b": 1.0,
        "a_over_b_spread": [0.5, 3.0],
        "a_over_b_seconds": [4.0, 2.0],
    }


def test_other_spikes_and_silence_are_refused():
    graph = conv_chain(layers=1, channels=2, frames=4, joints=3, kernel=3)
    program, spikes = compile_graph(graph), spike_inputs(graph, 2)
    one, other = (emulator.execute(program, {"input": spikes}) for _ in range(2))
    assert one.spikes["lif1"].any()
    measure._require_same_spikes(program, one, other, "other")
    other.spikes["lif1"] = ~other.spikes["lif1"]
    size = other.spikes["lif1"].size
    with pytest.raises(measure.SpikesDifferError, match=f"other: {size} of {size} decisions of lif1 differ"):
        measure._require_same_spikes(program, one, other, "other")
    silent = emulator.execute(program, {"input": np.zeros_like(spikes)})
    with pytest.raises(measure.SpikesDifferError, match="lif1 never fires"):
        measure._require_same_spikes(program, silent, silent, "silent")
