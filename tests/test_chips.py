"""deploy/chips: the published limits, each with its source."""

import pytest

from mksgn.deploy.chips import CHIPS, LOIHI1, LOIHI2, chip_named
from mksgn.deploy.errors import DeployError


def test_limits_of_loihi_1():
    assert (LOIHI1.cores, LOIHI1.neurons_per_core, LOIHI1.synaptic_bits_per_core) == (128, 1024, 2**20)
    assert "nengo-loihi" in LOIHI1.source


def test_limits_of_loihi_2():
    assert (LOIHI2.cores, LOIHI2.neurons_per_core, LOIHI2.synaptic_bits_per_core) == (128, 8192, 192 * 2**13)
    assert "second-hand" in LOIHI2.source


def test_chips_by_name():
    assert {name: chip.name for name, chip in CHIPS.items()} == {"loihi1": "loihi1", "loihi2": "loihi2"}
    assert chip_named("loihi1") is LOIHI1
    assert chip_named("loihi2") is LOIHI2


@pytest.mark.parametrize("name", ["loihi3", "", "Loihi2"])
def test_an_unknown_chip_is_refused_with_the_known_ones(name):
    with pytest.raises(DeployError, match=f"chip '{name}' is not known; choose one of loihi1, loihi2"):
        chip_named(name)
