"""The chips that a program is placed on, from data/chips.yaml and from files of the same form.

Look up a limit or add a chip there. None stands for a limit that has not been published and is not
checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mksgn.common.schemas import read_yaml, unique
from mksgn.deploy.choices import CHIPS_FILE
from mksgn.deploy.errors import DeployError
from mksgn.deploy.placement.chip_file import ChipEntry, ChipsFile, Mesh, Stated
from mksgn.export import loihi

RESOURCES = ("neurons", "synaptic bits", "input axons", "output axons")  # of a core, in the order of Chip.core_limits
CORES_REACHED = "cores reached by a neuron"


@dataclass(frozen=True)
class Chip:
    """What one chip and one of its cores hold, and how wide its numbers are.

    The widths default to Loihi's, for chips that are made in Python. chip_file.Limits describes each field.
    """

    name: str
    cores: int
    neurons_per_core: int
    synaptic_bits_per_core: int | None
    source: str
    input_axons_per_core: int | None = None
    output_axons_per_core: int | None = None
    delay: int | None = None
    weight_bits: int | None = loihi.WEIGHT_BITS
    decay_bits: int | None = loihi.DECAY_BITS
    threshold_bits: int | None = loihi.THRESHOLD_BITS
    bias_bits: int | None = loihi.BIAS_BITS
    bias_exponent: int | None = loihi.BIAS_EXPONENT_LIMIT
    spike_bits: int | None = 1
    neurons: Literal["fixed", "microcode"] = "fixed"
    weight_step: int = 2  # of both signs: even integers from -254 to 254
    bits_per_synapse: int = loihi.WEIGHT_BITS
    cores_per_neuron: int | None = None  # None: no such limit; likewise weights_per_neuron
    weights_per_neuron: int | None = None
    resets: tuple[str, ...] = ("zero",)
    synaptic_current: bool = True
    mesh: Mesh | None = None
    stated: Mapping[str, Stated] = field(default_factory=dict, compare=False, repr=False)  # by the field's name

    @classmethod
    def of(cls, entry: ChipEntry) -> Chip:
        """Make the chip of a file's entry."""
        limits: dict[str, Stated | None] = dict(entry.limits)
        values = {name: None if limit is None else limit.value for name, limit in limits.items()}
        defaults = {"weight_step": 1, "bits_per_synapse": loihi.WEIGHT_BITS}
        values |= {name: value for name, value in defaults.items() if values[name] is None}
        sources = (limit.source for limit in (*limits.values(), entry.neurons) if limit is not None)
        return cls(
            name=entry.name,
            source="; ".join(dict.fromkeys(sources)),
            neurons=entry.neurons.kind,
            resets=entry.neurons.resets,
            synaptic_current=entry.neurons.synaptic_current,
            mesh=entry.mesh,
            stated={name: limit for name, limit in limits.items() if limit is not None},
            **values,  # type: ignore[arg-type]
        )

    @property
    def core_limits(self) -> tuple[int | None, ...]:
        """What one core holds of each of RESOURCES."""
        axons = self.input_axons_per_core, self.output_axons_per_core
        return self.neurons_per_core, self.synaptic_bits_per_core, *axons

    @property
    def capacities(self) -> np.ndarray:
        """core_limits as float64; infinite where not published."""
        return np.array([np.inf if limit is None else limit for limit in self.core_limits])

    def statement(self, limit: str) -> Stated | None:
        """Return who states a limit, by its name in Placement.limits; None: nobody, or nobody with a source."""
        return self.stated.get("cores_per_neuron" if limit == CORES_REACHED else limit.replace(" ", "_"))

    @property
    def weight_limit(self) -> int | None:
        return None if self.weight_bits is None else self.weight_step * (2 ** (self.weight_bits - 1) - 1)

    @property
    def decay_limit(self) -> int | None:
        return None if self.decay_bits is None else 2**self.decay_bits - 1

    @property
    def threshold_limit(self) -> int | None:
        return None if self.threshold_bits is None else 2**self.threshold_bits - 1

    @property
    def bias_limit(self) -> int | None:
        return None if self.bias_bits is None else 2 ** (self.bias_bits - 1) - 1


def known_chips(extra_files: Iterable[Path | str] = ()) -> list[Chip]:
    """Load the chips of data/chips.yaml, then those of further files.

    Raises:
        BadInputError: A file is invalid, or a name is not unique.
    """
    return [Chip.of(entry) for entry in entries(extra_files)]


def entries(extra_files: Iterable[Path | str] = ()) -> list[ChipEntry]:
    """Load the same chips as the files state them, with the evidence for every number."""
    paths = (CHIPS_FILE, *map(Path, extra_files))
    return unique(((path, entry) for path in paths for entry in read_yaml(path, ChipsFile).chips), "a chip")


CHIPS = {chip.name: chip for chip in known_chips()}
LOIHI1, LOIHI2 = CHIPS["loihi1"], CHIPS["loihi2"]


def chip_named(name: str, chips: Sequence[Chip] | None = None) -> Chip:
    """Look up a chip among `chips`, or among the known ones; raises DeployError for an unknown name."""
    by_name = CHIPS if chips is None else {chip.name: chip for chip in chips}
    if name not in by_name:
        raise DeployError(
            f"chip {name!r} is not known; choose one of {', '.join(by_name)}, or add yours with --chip-file"
        )
    return by_name[name]
