"""Limits of the chips, each with its source. A limit of None has not been published."""

from __future__ import annotations

from dataclasses import dataclass

from mksgn.deploy.errors import DeployError


@dataclass(frozen=True)
class Chip:
    """What one chip and one of its cores hold."""

    name: str
    cores: int
    neurons_per_core: int
    synaptic_bits_per_core: int
    source: str


LOIHI1 = Chip(
    name="loihi1",
    cores=128,
    neurons_per_core=1024,  # compartments
    synaptic_bits_per_core=1_048_576,
    source="constants of nengo-loihi, block.py and builder/discretize.py",
)
LOIHI2 = Chip(
    name="loihi2",
    cores=128,  # some texts say that 120 of them are usable
    neurons_per_core=8192,
    synaptic_bits_per_core=192 * 1024 * 8,  # 192 KB for all of a core's state: synapses get at most that
    source="second-hand: vendor texts as quoted elsewhere; no primary source was opened",
)
CHIPS = {chip.name: chip for chip in (LOIHI1, LOIHI2)}


def chip_named(name: str) -> Chip:
    if name not in CHIPS:
        raise DeployError(f"chip {name!r} is not known; choose one of {', '.join(CHIPS)}")
    return CHIPS[name]
