"""A run's energy as a range over the energy models, next to the published energy at each model's synaptic price.

Positions are percentages of one logarithmic axis, so that the page can draw it at any width.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mksgn.bench import numbers
from mksgn.bench.claims import Repriced
from mksgn.bench.record import EnergyEntry

ARITHMETIC, PARTLY, MEMORY, CHIP = (
    "Arithmetic alone",
    "Arithmetic and neurons, memory left out",
    "Arithmetic, neurons and memory, modelled",
    "Prices of a chip, memory included",
)


@dataclass(frozen=True)
class Row:
    """One energy model. Positions are in percent; None: nothing to draw."""

    model: str
    evidence: str
    energy_mJ: float
    bound: bool  # the run's energy is at least this
    missing: str  # events that occurred and have no price
    at: float
    repriced: tuple[Repriced, ...]  # the published energy at this model's synaptic prices, the lowest first
    repriced_at: float | None  # of the lowest


@dataclass(frozen=True)
class PriceRange:
    """The models that price something of the run, by what their prices contain."""

    groups: tuple[tuple[str, tuple[Row, ...]], ...]
    ticks: tuple[tuple[float, str], ...]
    reference_at: float | None  # of the GCN that the published reduction refers to

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for _, rows in self.groups for row in rows)

    @property
    def summary(self) -> str:
        """The run's energy in words: of arithmetic alone, and with what models of memory or of a chip add."""
        arithmetic = [row for title, rows in self.groups if title == ARITHMETIC for row in rows]
        more = [row for row in self.rows if row not in arithmetic]
        whole = _between([row for row in arithmetic if not row.bound])
        texts = [f"{whole} in arithmetic alone"] if whole else []
        texts += [f"{_between(more)} with memory or at a chip's prices"] if more else []
        return "; ".join(texts) or _between(self.rows)

    @property
    def on_chip(self) -> tuple[Row, ...]:
        """Models of a chip: their price of a synaptic operation contains the access to memory."""
        return tuple(row for title, rows in self.groups if title == CHIP for row in rows)


def price_range(
    energy: Sequence[EnergyEntry], repriced: Sequence[Repriced], reference_mJ: float | None = None
) -> PriceRange | None:
    """Lay out a run's energies and the published one.

    Args:
        energy: The run under every model.
        repriced: The published energy at each model's synaptic price.
        reference_mJ: The GCN's energy, for a line.

    Returns:
        The range; None if no model prices anything of the run.
    """
    entries = [entry for entry in energy if entry.terms and entry.priced_mJ > 0]
    if not entries:
        return None
    published = {entry.model: _of_model(entry.model, repriced) for entry in entries}
    values = [entry.priced_mJ for entry in entries]
    values += [row.energy_mJ for rows in published.values() for row in rows]
    axis = _Axis([*values, *([] if reference_mJ is None else [reference_mJ])])
    rows: dict[str, list[Row]] = {ARITHMETIC: [], PARTLY: [], MEMORY: [], CHIP: []}
    for entry in entries:
        contents = _contents(entry)
        # where memory is a separate term, the price of a synaptic operation alone says nothing about the whole energy
        other = () if contents == MEMORY else published[entry.model]
        rows[contents].append(
            Row(
                model=entry.model,
                evidence=entry.evidence,
                energy_mJ=entry.priced_mJ,
                bound=entry.total_mJ is None,
                missing=numbers.words(entry.unpriced) if entry.unpriced else "",
                at=axis.at(entry.priced_mJ),
                repriced=other,
                repriced_at=axis.at(other[0].energy_mJ) if other and other[0].energy_mJ > 0 else None,
            )
        )
    groups = tuple((title, tuple(sorted(own, key=lambda row: row.energy_mJ))) for title, own in rows.items() if own)
    return PriceRange(groups, axis.ticks, None if reference_mJ is None else axis.at(reference_mJ))


def _between(rows: Sequence[Row]) -> str:
    """Format the energies of rows from the lowest to the highest; lower bounds are marked as such."""
    if not rows:
        return ""
    low, high = (end(rows, key=lambda row: row.energy_mJ) for end in (min, max))
    least = "at least " if any(row.bound for row in rows) else ""
    ends = dict.fromkeys((numbers.energy(low.energy_mJ), numbers.energy(high.energy_mJ)))
    return least + " to ".join(ends)


def _of_model(model: str, repriced: Sequence[Repriced]) -> tuple[Repriced, ...]:
    """Return the published energy at a model's price, or at its prices by kind of synapse."""
    rows = [row for row in repriced if row.model == model or row.model.startswith(f"{model}, ")]
    return tuple(sorted(rows, key=lambda row: row.energy_mJ))


def _contents(entry: EnergyEntry) -> str:
    """Name what a model's prices contain. Memory is always accessed: priced, covered by a chip's prices, or left out."""
    if "memory" in entry.terms:
        return MEMORY
    if "memory" not in (*entry.unpriced, *entry.excludes):
        return CHIP
    return ARITHMETIC if "neuron_updates" in entry.excludes else PARTLY


class _Axis:
    """A logarithmic axis over whole decades."""

    def __init__(self, values: Iterable[float]) -> None:
        logarithms = [math.log10(value) for value in values]
        self.low = math.floor(min(logarithms))
        self.high = max(math.ceil(max(logarithms)), self.low + 1)

    def at(self, value: float) -> float:
        return 100 * (math.log10(value) - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        every = -(-(self.high - self.low) // 4)  # at most five labels
        return tuple(
            (self.at(10.0**power), _tick(10.0**power) if (self.high - power) % every == 0 else "")
            for power in range(self.low, self.high + 1)
        )


def _tick(energy_mJ: float) -> str:
    unit, per_mJ = numbers.unit_of_energy([energy_mJ])
    return f"{energy_mJ * per_mJ:g}\u00a0{unit}"
