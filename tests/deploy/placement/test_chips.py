"""mksgn/deploy/placement/chips: the published limits, each with its source."""

import importlib.util
from pathlib import Path

import pytest

from mksgn.deploy.errors import DeployError
from mksgn.deploy.placement.chips import CHIPS, LOIHI1, LOIHI2, chip_named
from mksgn.export import loihi as ranges


def test_limits_of_loihi_1():
    assert (LOIHI1.cores, LOIHI1.neurons_per_core, LOIHI1.synaptic_bits_per_core) == (128, 1024, 2**20)
    assert (LOIHI1.input_axons_per_core, LOIHI1.output_axons_per_core) == (4096, 4096)
    assert (LOIHI1.spike_bits, LOIHI1.neurons) == (1, "fixed")
    assert "nengo-loihi" in LOIHI1.source


def test_limits_of_loihi_2():
    assert (LOIHI2.cores, LOIHI2.neurons_per_core, LOIHI2.synaptic_bits_per_core) == (128, 8192, 192 * 2**13)
    assert (LOIHI2.input_axons_per_core, LOIHI2.output_axons_per_core) == (None, None)  # not published
    assert (LOIHI2.spike_bits, LOIHI2.neurons) == (32, "microcode")
    assert "second-hand" in LOIHI2.source


@pytest.mark.parametrize("chip", CHIPS.values(), ids=CHIPS)
def test_widths_are_those_that_the_exporter_quantises_for(chip):
    assert chip.weight_limit == ranges.WEIGHT_LIMIT == 254
    assert chip.threshold_limit == ranges.THRESHOLD_LIMIT == 131_071
    assert chip.bias_limit == ranges.BIAS_MANTISSA_LIMIT == 4_095
    assert chip.bias_exponent == ranges.BIAS_EXPONENT_LIMIT == 7
    assert chip.decay_limit == 2**ranges.DECAY_BITS - 1 == 4_095
    assert chip.delay == 62


def test_the_delay_is_the_one_that_lava_dl_clips_at():
    spec = importlib.util.find_spec("lava")  # found, and not imported: that takes seconds
    files = [Path(folder, "lib/dl/netx/hdf5.py") for folder in spec.submodule_search_locations] if spec else []
    sources = [path.read_text() for path in files if path.is_file()]
    if not sources:
        pytest.skip("lava-dl is not installed")
    assert f"a_max={LOIHI1.delay})" in sources[0]
    assert LOIHI1.delay == LOIHI2.delay


def test_chips_by_name():
    assert {name: chip.name for name, chip in CHIPS.items()} == {"loihi1": "loihi1", "loihi2": "loihi2"}
    assert chip_named("loihi1") is LOIHI1
    assert chip_named("loihi2") is LOIHI2


@pytest.mark.parametrize("name", ["loihi3", "", "Loihi2"])
def test_an_unknown_chip_is_refused_with_the_known_ones(name):
    with pytest.raises(DeployError, match=f"chip '{name}' is not known; choose one of loihi1, loihi2"):
        chip_named(name)
