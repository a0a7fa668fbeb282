"""The paper's published figures (data/claims.yaml) beside the same figures of a run, with a verdict in words.

Three rules. A figure is compared under the energy model that it was published under. A lower bound can refute a
reduction, never confirm it. And a run of another network than the paper's says nothing about the paper's network: a
small network uses little energy under every model.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mksgn.bench.energy_models import DATA, EnergyModel, known_models, model_named, read_yaml
from mksgn.bench.record import Claim, EnergyEntry, Name, Part
from mksgn.train.errors import BadInputError

PAPER_NETWORK = "paper"  # the preset that rebuilds the paper's student; its widths are ours, the paper's are not known

Positive = Annotated[float, Field(gt=0)]
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Published(Part):
    """One published figure."""

    name: Name
    quantity: Literal["energy", "reduction"]
    value: Positive  # mJ per sample; of a reduction: the fraction that it exceeds
    unit: Name
    version: Name  # of the paper
    grade: Literal["paper", "review"]
    source: Name
    energy_model: Name
    reference_mJ: Positive | None = None  # what the reduction is against

    @model_validator(mode="after")
    def _consistent(self) -> Published:
        if (self.quantity == "reduction") != (self.reference_mJ is not None):
            raise ValueError(f"{self.name}: reference_mJ belongs to a reduction, and only there")
        if self.quantity == "reduction" and self.value >= 1:
            raise ValueError(f"{self.name}: a reduction is a fraction below 1")
        return self


class ClaimsFile(Part):
    schema_id: Literal["mksgn.claims/1"] = Field(alias="schema")
    claims: list[Published]


@dataclass(frozen=True)
class Repriced:
    """The published energy itself under another price of a synaptic operation."""

    model: str
    energy_mJ: float
    reduction: float  # against the reference, as a fraction; negative where it is more than the reference


def published_claims(path: Path | str = DATA / "claims.yaml") -> list[Published]:
    """The published figures, in the order of the file."""
    return read_yaml(Path(path), ClaimsFile).claims


def evaluate(
    energy: Sequence[EnergyEntry],
    theory_mJ: float | None,
    network: str | bool,
    published: Iterable[Published] | None = None,
) -> list[Claim]:
    """One row per published figure.

    energy:    the run under every energy model (mJ per clip)
    theory_mJ: the paper's formula with the run's firing rates (bench.theory), first layer charged once; None if unknown
    network:   the preset's name, or whether the run's network is the `paper` preset
    """
    entries = {entry.model: entry for entry in energy}
    if len(entries) != len(energy):
        raise BadInputError("an energy model stands twice among the run's energies")
    rows = []
    for figure in published_claims() if published is None else published:
        own = entries.get(figure.energy_model)
        theory, measured = (_in_unit(figure, mJ) for mJ in (theory_mJ, own.total_mJ if own else None))
        rows.append(
            Claim(
                name=figure.name,
                published=figure.value,
                unit=figure.unit,
                theory=theory,
                measured=measured,
                ratio=None if measured is None else measured / figure.value,
                source=f"{figure.source} [{figure.grade}]",
                verdict=_verdict(figure, energy, network),
            )
        )
    return rows


def reprice(figure: Published, reference_mJ: float, models: Sequence[EnergyModel] | None = None) -> list[Repriced]:
    """What a published energy becomes at the synaptic price of each model, for the same number of synaptic operations.

    All of the figure is taken as synaptic operations (0.596 mJ at 0.9 pJ: 0.662 G): the most that it can hold.
    """
    models = known_models() if models is None else models
    own_price = model_named(figure.energy_model, models).prices_pJ.synaptic_op
    if not own_price:
        raise BadInputError(f"{figure.name}: {figure.energy_model} has no price of a synaptic operation")
    rows = []
    for model in models:
        if model.prices_pJ.synaptic_op is not None:
            energy = figure.value * model.prices_pJ.synaptic_op / own_price
            rows.append(Repriced(model.name, energy, 1 - energy / reference_mJ))
    return rows


def _verdict(figure: Published, energy: Sequence[EnergyEntry], network: str | bool) -> str:
    """Under which models the figure holds, under which not, and which leave it open (a lower bound of the energy)."""
    if network is True or network == PAPER_NETWORK:
        about = "Our reconstruction of the paper's network, whose widths were not published: "
        yes, no = "holds under", "does not hold under"
    else:
        which = f"the network {network!r}" if isinstance(network, str) and network else "another network"
        about = f"No verdict on the paper's network: this run is of {which}, which says nothing about it. By itself it "
        yes, no = "meets the figure under", "misses it under"
    holds, fails, undecided = [], [], []
    for entry in energy:
        if not entry.terms:
            continue
        if not _meets(figure, entry.priced_mJ):
            fails.append(f"{entry.model}: {_amount(figure, entry)}")
        elif entry.total_mJ is None or entry.total_every_step_mJ is None:
            undecided.append(entry.model)
        else:
            both = _meets(figure, entry.total_every_step_mJ)
            caution = "" if both else " (not with the first layer charged at every step)"
            holds.append(f"{entry.model}: {_amount(figure, entry)}{caution}")
    parts = []
    if holds:
        parts.append(f"{yes} {', '.join(holds)}")
    if fails:
        parts.append(f"{no} {', '.join(fails)}")
    if undecided:
        parts.append(f"stays open under {', '.join(undecided)}: events without a price leave only a lower bound")
    return about + ("; ".join(parts) or "cannot be compared: no energy model priced it")


def _in_unit(figure: Published, energy_mJ: float | None) -> float | None:
    """An energy in the figure's own unit: mJ, or the fraction by which it is less than the reference."""
    if energy_mJ is None or figure.reference_mJ is None:
        return energy_mJ
    return 1 - energy_mJ / figure.reference_mJ


def _meets(figure: Published, energy_mJ: float) -> bool:
    """An energy is met at or below it, a reduction above it."""
    if figure.reference_mJ is None:
        return energy_mJ <= figure.value
    return 1 - energy_mJ / figure.reference_mJ > figure.value


def _amount(figure: Published, entry: EnergyEntry) -> str:
    """The run's figure under a model; a lower bound of the energy is an upper bound of the reduction."""
    bound = entry.total_mJ is None
    if figure.reference_mJ is None:
        return f"{'at least ' if bound else ''}{significant(entry.priced_mJ)} mJ"
    return f"{'at most ' if bound else ''}{percent(1 - entry.priced_mJ / figure.reference_mJ)}"


def significant(value: float) -> str:
    """Three significant digits, trailing zeros kept: 0.00380, 8.69 × 10⁻⁵, 12,300."""
    if value and not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(SUPERSCRIPT)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def percent(fraction: float) -> str:
    """A fraction as a percentage: whole numbers; decimals close to 100 %, where they matter."""
    if fraction > 0.9999:
        return "100 %" if fraction >= 1 else "over 99.99 %"
    return f"{100 * fraction:.1f} %" if fraction >= 0.9 else f"{100 * fraction:.0f} %"
