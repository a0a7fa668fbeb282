"""scripts/lava_and_the_chip.py: the traces are the emulator's and brian2-loihi's, and docs/lava-and-the-chip.md shows them."""

import re

import numpy as np
import pytest
import torch

from scripts.lava_and_the_chip import LAVA, READINGS, Reading, network_rows, student_rows, table, trace, updated
from tests.support.loihi_traces import Trace, ours, theirs
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "lava-and-the-chip.md").read_text(encoding="utf-8")
NETWORKS = {name: network for name, (network, _) in READINGS.items()}


def found(name: str, reading: Reading) -> Trace:
    return Trace(*(np.array(x)[:, None] for x in trace(NETWORKS[name], reading)))


@pytest.mark.parametrize("name", NETWORKS)
def test_lava_s_reading_is_the_emulator(name):
    network = NETWORKS[name]
    found(name, LAVA).same(ours(network.currents[:, None], network.du, network.dv, network.vth))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "added"), [("A", 1), ("A", 0), ("B", 1), ("C", 1)])
def test_the_readings_of_brian2_loihi_are_its_own(name, added):
    pytest.importorskip("brian2_loihi", reason="brian2-loihi is not installed: make setup, with Python 3.13")
    network = NETWORKS[name]
    assert (network.weights % 2 == 0).all()
    expected = theirs(network.weights[None], network.spikes, network.du + added, network.dv, network.vth)
    found(name, Reading(added, lowest=None)).same(expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_reading_of_a_network_has_spikes_of_its_own(name):
    trains = [tuple(trace(NETWORKS[name], reading)[2]) for reading in READINGS[name][1].values()]
    assert len(set(trains)) == len(trains) > 1


def test_the_page_shows_the_three_networks():
    assert updated(PAGE, "networks", table(network_rows())) == PAGE


@pytest.mark.slow
def test_the_page_shows_the_student():
    if re.search(r"torch ([0-9.]*[0-9])", PAGE)[1] != torch.__version__.partition("+")[0]:
        pytest.skip("the page was measured with another torch, which may round the student's weights otherwise")
    assert updated(PAGE, "student", table(student_rows())) == PAGE
