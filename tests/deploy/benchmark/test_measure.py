"""mksgn/deploy/benchmark/measure: the command, and how ratios are summarised."""

import subprocess
import sys

import numpy as np
import pytest

from mksgn.deploy import compile_graph, emulator
from mksgn.deploy.benchmark import measure
from mksgn.deploy.benchmark.networks import conv_chain, spike_inputs


@pytest.mark.slow
def test_the_command_shows_its_options():
    command = [sys.executable, "-m", "mksgn.deploy.benchmark", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--slots", "--lava-clips", "--rounds", "--json"))


def test_ratios_are_of_each_round():
    assert measure.ratio_of("a_over_b", [(6.0, 2.0), (1.0, 2.0), (4.0, 4.0)]) == {
        "a_over_b": 1.0,
        "a_over_b_spread": [0.5, 3.0],
        "a_over_b_seconds": [4.0, 2.0],
    }


def test_the_growth_is_an_exponent_and_the_report_shows_it(capsys):
    rows = [
        {"what": "joints", "value": 10 * 2**i, "emulator_seconds": 2.0 * 4**i, "lava_seconds": 2.0**i} for i in range(2)
    ]
    for key, exponent in (("emulator", 2.0), ("lava", 1.0)):
        rows[0][f"{key}_growth"] = None
        rows[1][f"{key}_growth"] = measure._exponent(*rows, f"{key}_seconds")
        assert rows[1][f"{key}_growth"] == pytest.approx(exponent)
    figures = {
        "preset": "paper",
        "clips": 2,
        "lava_clips": 4,
        "slots": 3,
        "rounds": 5,
        "threads": 1,
        "firing_rate": 0.125,
        "syn_ops_per_second": 6.3e9,
        "device": "cpu",
    }
    figures |= {"lava_processes": 9, "lava_pss_bytes": 2**30, "lava_shared_bytes": 2**20, "growth": rows}
    for name in ("fused_over_stock", "emulator_over_torch", "lava_over_emulator"):
        figures |= measure.ratio_of(name, [(6.0, 2.0)])
    measure._print(figures)
    printed = capsys.readouterr().out
    assert "3.00 (3.00 … 3.00 in 5 rounds)" in printed
    assert [line.replace("│", " ").split() for line in printed.splitlines() if "joints" in line][1] == [
        "joints",
        "20",
        "8.000",
        "2.00",
        "2.000",
        "1.00",
    ]


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
