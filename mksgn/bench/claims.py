"""Published figures as data (data/claims.yaml holds the paper's), and what a published energy becomes at other prices.

`python -m mksgn.bench.claims` prints the JSON Schema of a file of claims, checked in as
data/claims.schema.json.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mksgn.bench.choices import DATA
from mksgn.bench.energy_models import PJ_IN_MJ, EnergyModel, known_models, model_named
from mksgn.bench.prices import SynapticPrices
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import Name, Positive, StrictModel, Text, json_schema_of, read_yaml, unique

SCHEMA = "mksgn.claims/1"
UNITS = {"energy": "mJ", "reduction": "fraction", "accuracy": "fraction"}


class Benchmark(StrictModel):
    """The test part of a data set's split."""

    sources: Annotated[list[Name], Field(min_length=1)]
    """What SOURCE may begin with: nw-ucla, ntu, ctrgcn, pyskl, utd-mhad."""
    split: Name
    clips: Annotated[int, Field(ge=1)]
    """Clips of the test part. A run of fewer is not the benchmark."""


class Published(StrictModel):
    """One published figure."""

    name: Text
    quantity: Literal["energy", "reduction", "accuracy"]
    value: Positive
    """mJ per sample; of a reduction: the fraction that it exceeds; of an accuracy: top-1 as a fraction."""
    unit: Literal["mJ", "fraction"]
    version: Text
    """Version of the paper."""
    grade: Literal["paper", "review", "own"]
    source: Text
    energy_model: Name | None = None
    """The one under which an energy or a reduction was published."""
    reference_mJ: Positive | None = None
    """Energy against which a reduction is taken."""
    benchmark: Benchmark | None = None
    """Data on which an accuracy was reached."""
    network: Name | None = None
    """Preset of the network that the figure is about. Left out: any network."""

    @model_validator(mode="after")
    def _consistent(self) -> Published:
        for entry, quantities in (
            ("energy_model", ("energy", "reduction")),
            ("reference_mJ", ("reduction",)),
            ("benchmark", ("accuracy",)),
        ):
            if (self.quantity in quantities) != (getattr(self, entry) is not None):
                raise ValueError(f"{entry} belongs to a figure of quantity {' or '.join(quantities)}, and only there")
        if self.unit != UNITS[self.quantity]:
            raise ValueError(
                f"unit is {self.unit}; of a figure of quantity {self.quantity} it is {UNITS[self.quantity]}"
            )
        if self.quantity == "reduction" and self.value >= 1:
            raise ValueError("a reduction is a fraction below 1")
        if self.quantity == "accuracy" and self.value > 1:
            raise ValueError("an accuracy is a fraction of at most 1")
        return self


class ClaimsFile(StrictModel):
    """A file of published figures."""

    schema_id: Literal["mksgn.claims/1"] = Field(alias="schema")
    claims: list[Published]


@dataclass(frozen=True)
class Repriced:
    """A published energy at another model's price of a synaptic operation.

    `reduction` is a fraction of the reference energy, negative where the energy exceeds the
    reference.
    """

    model: str
    energy_mJ: float
    reduction: float


def published_claims(extra_files: Iterable[Path | str] = ()) -> list[Published]:
    """Load the figures of data/claims.yaml, then those of further files.

    Raises:
        BadInputError: A file is invalid, or a name is not unique.
    """
    paths = (DATA / "claims.yaml", *map(Path, extra_files))
    return unique(((path, figure) for path in paths for figure in read_yaml(path, ClaimsFile).claims), "a claim")


def synaptic_ops(figure: Published, models: Sequence[EnergyModel] | None = None) -> float:
    """Return the largest number of synaptic operations per sample that a published energy can stand for.

    The whole energy is taken as synaptic operations: 0.596 mJ at 0.9 pJ each is 0.662 G operations.

    Raises:
        BadInputError: The model under which the figure was published has no price of a synaptic
            operation.
    """
    own_price = model_named(
        str(figure.energy_model), known_models() if models is None else models
    ).prices_pJ.synaptic_op
    if not own_price or isinstance(own_price, SynapticPrices):
        raise BadInputError(f"{figure.name}: {figure.energy_model} has no single price of a synaptic operation")
    return figure.value / (own_price * PJ_IN_MJ)


def reprice(figure: Published, reference_mJ: float, models: Sequence[EnergyModel] | None = None) -> list[Repriced]:
    """Price the synaptic operations of a published energy under other models.

    The whole figure is taken as synaptic operations, which is the most that it can contain.

    Args:
        figure: A published energy.
        reference_mJ: Energy against which the reduction is taken.
        models: Energy models; None: the known ones. Those without a price of a synaptic operation
            give no row; those with prices by kind give one for each kind.

    Raises:
        BadInputError: The model under which the figure was published has no price of a synaptic
            operation.
    """
    models = known_models() if models is None else models
    operations, rows = synaptic_ops(figure, models), []
    for model in models:
        prices = model.prices_pJ.synaptic_op
        by_kind = prices.model_dump() if isinstance(prices, SynapticPrices) else {"": prices}
        for kind, price in by_kind.items():
            if price is not None:
                energy = operations * price * PJ_IN_MJ
                name = f"{model.name}, all {kind}" if kind else model.name
                rows.append(Repriced(name, energy, 1 - energy / reference_mJ))
    return rows


if __name__ == "__main__":
    print(json_schema_of(ClaimsFile, SCHEMA, "validation"))
