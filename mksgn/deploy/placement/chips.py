"""The limits of the chips: what a core holds, and how wide its numbers are, each with its source.

Look up a limit or add a chip here. None stands for a limit that has not been published and is not
checked.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mksgn.deploy.errors import DeployError
from mksgn.export import loihi

RESOURCES = ("neurons", "synaptic bits", "input axons", "output axons")  # of a core, in the order of Chip.core_limits


@dataclass(frozen=True)
class Chip:
    """What one chip and one of its cores hold, and how wide its numbers are."""

    name: str
    cores: int
    neurons_per_core: int
    synaptic_bits_per_core: int
    source: str
    input_axons_per_core: int | None = None  # distinct neurons that reach a core
    output_axons_per_core: int | None = None  # over a core's neurons: the cores that each of them reaches
    delay: int | None = None  # time steps that a synapse can hold a spike back
    weight_bits: int = loihi.WEIGHT_BITS  # of both signs: even integers from -254 to 254
    decay_bits: int = loihi.DECAY_BITS  # of dv and du
    threshold_bits: int = loihi.THRESHOLD_BITS  # mantissa of vth
    bias_bits: int = loihi.BIAS_BITS  # mantissa, sign included
    bias_exponent: int = loihi.BIAS_EXPONENT_LIMIT
    spike_bits: int = 1  # 1: spikes are binary
    neurons: Literal["fixed", "microcode"] = "fixed"

    @property
    def core_limits(self) -> tuple[int | None, ...]:
        """What one core holds of each of RESOURCES."""
        axons = self.input_axons_per_core, self.output_axons_per_core
        return self.neurons_per_core, self.synaptic_bits_per_core, *axons

    @property
    def capacities(self) -> np.ndarray:
        """core_limits as float64; infinite where not published."""
        return np.array([np.inf if limit is None else limit for limit in self.core_limits])

    @property
    def weight_limit(self) -> int:
        return loihi.weight_limit(self.weight_bits)

    @property
    def decay_limit(self) -> int:
        return 2**self.decay_bits - 1

    @property
    def threshold_limit(self) -> int:
        return 2**self.threshold_bits - 1

    @property
    def bias_limit(self) -> int:
        return 2 ** (self.bias_bits - 1) - 1


LOIHI1 = Chip(
    name="loihi1",
    cores=128,
    neurons_per_core=1024,  # compartments: MAX_COMPARTMENTS
    synaptic_bits_per_core=1_048_576,  # MAX_SYNAPSE_BITS
    input_axons_per_core=4096,  # MAX_IN_AXONS
    output_axons_per_core=4096,  # MAX_OUT_AXONS
    delay=loihi.SYNAPTIC_DELAY_LIMIT,
    source="constants of nengo-loihi, block.py and builder/discretize.py; delay of lava-dl 0.6.0",
)
LOIHI2 = Chip(
    name="loihi2",
    cores=128,  # some texts say that 120 of them are usable
    neurons_per_core=8192,
    synaptic_bits_per_core=192 * 1024 * 8,  # 192 KB for all of a core's state: synapses get at most that
    delay=loihi.SYNAPTIC_DELAY_LIMIT,
    spike_bits=32,
    neurons="microcode",
    source="second-hand: vendor texts as quoted elsewhere; no primary source was opened; "
    "widths and delay of Lava and lava-dl",
)
CHIPS = {chip.name: chip for chip in (LOIHI1, LOIHI2)}


def chip_named(name: str) -> Chip:
    """Look up a chip; raises DeployError for an unknown name."""
    if name not in CHIPS:
        raise DeployError(f"chip {name!r} is not known; choose one of {', '.join(CHIPS)}")
    return CHIPS[name]
