"""Published figures (data/claims.yaml: the paper's) beside the same figures of a run, with a verdict in words and one for machines.

Four rules. A figure is compared under the energy model that it was published under. A lower bound can refute a reduction or an
energy, never confirm it. A run of another network than the figure's says nothing about the figure's network: a small
network uses little energy under every model. And an accuracy is compared on the benchmark's whole test part, or not at all.

`python -m mksgn.bench.claims` prints the JSON Schema of a file of claims, checked in as data/claims.schema.json.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from mksgn.bench.energy_models import (
    DATA,
    EnergyModel,
    Positive,
    Text,
    json_schema_of,
    known_models,
    model_named,
    read_yaml,
    unique,
)
from mksgn.bench.numbers import percent, significant
from mksgn.bench.record import Accuracy, Claim, Data, EnergyEntry, Name, Part, Record
from mksgn.bench.theory import PAPER_MODEL
from mksgn.common.errors import BadInputError

SCHEMA = "mksgn.claims/1"
PAPER_NETWORK = "paper"  # the preset that rebuilds the paper's student; its widths are ours, the paper's are not known
UNITS = {"energy": "mJ", "reduction": "fraction", "accuracy": "fraction"}

Outcome = Literal["holds", "fails", "open", "not comparable"]
"""open: the run has only a lower bound of the energy, and that meets the figure."""


class Benchmark(Part):
    """The test part of a data set's split."""

    sources: Annotated[list[Name], Field(min_length=1)]
    """What SOURCE may begin with: nw-ucla, ntu, ctrgcn, pyskl."""
    split: Name
    clips: Annotated[int, Field(ge=1)]
    """Of the test part. A run of fewer is not the benchmark."""


class Published(Part):
    """One published figure."""

    name: Text
    quantity: Literal["energy", "reduction", "accuracy"]
    value: Positive
    """mJ per sample; of a reduction: the fraction that it exceeds; of an accuracy: top-1 as a fraction."""
    unit: Literal["mJ", "fraction"]
    version: Text
    """Of the paper."""
    grade: Literal["paper", "review", "own"]
    source: Text
    energy_model: Name | None = None
    """Under which an energy or a reduction was published."""
    reference_mJ: Positive | None = None
    """What a reduction is against."""
    benchmark: Benchmark | None = None
    """On which an accuracy was reached."""
    network: Name | None = None
    """Preset of the network that the figure is about. Left out: whatever network is run."""

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


class ClaimsFile(Part):
    """A file of published figures."""

    schema_id: Literal["mksgn.claims/1"] = Field(alias="schema")
    claims: list[Published]


@dataclass(frozen=True)
class Repriced:
    """The published energy itself under another price of a synaptic operation."""

    model: str
    energy_mJ: float
    reduction: float  # against the reference, as a fraction; negative where it is more than the reference


@dataclass(frozen=True)
class Judged:
    """A figure against a run under one energy model, or on its data. `text`: the run's figure, or why there is none."""

    outcome: Outcome
    text: str


def published_claims(extra_files: Iterable[Path | str] = ()) -> list[Published]:
    """The figures of data/claims.yaml, then those of further files of the same form. Names are unique."""
    paths = (DATA / "claims.yaml", *map(Path, extra_files))
    return unique(((path, figure) for path in paths for figure in read_yaml(path, ClaimsFile).claims), "a claim")


def evaluate(
    energy: Sequence[EnergyEntry],
    theory_mJ: float | None,
    network: str,
    published: Iterable[Published] | None = None,
    *,
    data: Data | None = None,
    accuracy: Accuracy | None = None,
) -> list[Claim]:
    """One row per published figure.

    energy:    the run under every energy model (mJ per clip)
    theory_mJ: the paper's formula with the run's firing rates (bench.theory), first layer charged once; None if unknown
    network:   the preset's name with what departs from it (bench.gcn.network_name)
    data, accuracy: of the run; without them no accuracy is compared
    """
    rows = []
    for figure in published_claims() if published is None else published:
        judged = judge(figure, energy, data, accuracy)
        own = next((entry for entry in energy if entry.model == figure.energy_model), None)
        theory = _in_unit(figure, theory_mJ) if figure.energy_model == PAPER_MODEL else None
        measured = _in_unit(figure, own.total_mJ) if own else None
        if figure.quantity == "accuracy" and accuracy is not None and _comparable(judged):
            measured = accuracy.top1
        rows.append(
            Claim(
                name=figure.name,
                published=figure.value,
                unit=figure.unit,
                theory=theory,
                measured=measured,
                ratio=None if measured is None else measured / figure.value,
                source=f"{figure.source} ({figure.version}) [{figure.grade}]",
                verdict=_verdict(figure, judged, network),
            )
        )
    return rows


def judge(
    figure: Published, energy: Sequence[EnergyEntry], data: Data | None = None, accuracy: Accuracy | None = None
) -> dict[str, Judged]:
    """A figure against a run, by energy model; of an accuracy the one key is "accuracy". Whose network ran is not looked at."""
    if len({entry.model for entry in energy}) != len(energy):
        raise BadInputError("an energy model stands twice among the run's energies")
    if figure.benchmark is not None:
        return {"accuracy": _judge_accuracy(figure, figure.benchmark, data, accuracy)}
    return {entry.model: _judge_energy(figure, entry) for entry in energy}


@dataclass(frozen=True)
class Gate:
    """A required claim. `model` is None for an accuracy; `text` is one line for the user."""

    name: str
    model: str | None
    outcome: Outcome
    text: str

    @property
    def missed(self) -> bool:
        """Only what holds is met: an open or incomparable figure has not been shown."""
        return self.outcome != "holds"


def gate(record: Record, required: str, published: Iterable[Published] | None = None) -> Gate:
    """Whether a run meets a claim, for continuous integration: NAME, or NAME@MODEL for another energy model than the figure's own.

    The network of the record is the preset in `gcn`; a figure of another network is not comparable. The verdict's rules
    hold: the first layer is charged once. Raises BadInputError for a name or model that does not exist.
    """
    figures = {figure.name: figure for figure in (published_claims() if published is None else published)}
    name, _, model = (required, "", "") if required in figures else required.rpartition("@")
    if name not in figures:
        raise BadInputError(f"no claim {required!r}: use NAME or NAME@MODEL with one of: {'; '.join(figures)}")
    figure = figures[name]
    if figure.quantity == "accuracy" and model:
        raise BadInputError(f"claim {name!r} is an accuracy, which has no energy model: leave out @{model}")
    key = "accuracy" if figure.quantity == "accuracy" else model or str(figure.energy_model)
    judged = judge(figure, record.energy, record.data, record.accuracy)
    if key not in judged:
        raise BadInputError(f"the run was not priced by {key!r}: use one of {', '.join(judged)}")
    found = judged[key]
    network = record.gcn.preset if record.gcn else "custom"
    if figure.network not in (None, network):
        found = Judged("not comparable", f"the figure is of the network {figure.network!r}, the run of {network!r}")
    under = f" under {key}" if figure.quantity != "accuracy" else ""
    text = f"{name}{under}: {found.outcome} ({found.text}; published {_show(figure, figure.value)})"
    return Gate(name, key if under else None, found.outcome, text)


def reprice(figure: Published, reference_mJ: float, models: Sequence[EnergyModel] | None = None) -> list[Repriced]:
    """What a published energy becomes at the synaptic price of each model, for the same number of synaptic operations.

    All of the figure is taken as synaptic operations (0.596 mJ at 0.9 pJ: 0.662 G): the most that it can hold.
    """
    models = known_models() if models is None else models
    own_price = model_named(str(figure.energy_model), models).prices_pJ.synaptic_op
    if not own_price:
        raise BadInputError(f"{figure.name}: {figure.energy_model} has no price of a synaptic operation")
    rows = []
    for model in models:
        if model.prices_pJ.synaptic_op is not None:
            energy = figure.value * model.prices_pJ.synaptic_op / own_price
            rows.append(Repriced(model.name, energy, 1 - energy / reference_mJ))
    return rows


def _judge_energy(figure: Published, entry: EnergyEntry) -> Judged:
    """A lower bound of the energy is an upper bound of the reduction."""
    if not entry.terms:
        return Judged("not comparable", "the model prices nothing of it")
    bound = "" if entry.total_mJ is not None else "at least " if figure.quantity == "energy" else "at most "
    text = bound + _show(figure, _in_unit(figure, entry.priced_mJ))
    if not _meets(figure, entry.priced_mJ):
        return Judged("fails", text)
    if entry.total_mJ is None or entry.total_every_step_mJ is None:
        return Judged("open", text)
    both = _meets(figure, entry.total_every_step_mJ)
    return Judged("holds", text if both else f"{text} (not with the first layer charged at every step)")


def _judge_accuracy(figure: Published, wanted: Benchmark, data: Data | None, accuracy: Accuracy | None) -> Judged:
    if data is None or accuracy is None:
        return Judged("not comparable", "the run has no accuracy")
    if data.source.partition(":")[0] not in wanted.sources or data.split != wanted.split:
        return Judged("not comparable", f"this run is on other data: {data.source}, split {data.split}")
    if data.clips != wanted.clips:
        return Judged("not comparable", f"this run is on {data.clips:,} of the {wanted.clips:,} clips of the test part")
    decimals = len(f"{figure.value}".partition(".")[2])  # as many as were published
    right = round(accuracy.top1, decimals) >= figure.value
    return Judged("holds" if right else "fails", f"{_show(figure, accuracy.top1)} of {data.clips:,} clips")


def _comparable(judged: Mapping[str, Judged]) -> bool:
    return any(each.outcome != "not comparable" for each in judged.values())


def _verdict(figure: Published, judged: Mapping[str, Judged], network: str) -> str:
    """Under which models the figure holds, under which not, and which leave it open (a lower bound of the energy)."""
    if figure.network is None:
        about, yes, no = "", "holds", "does not hold"
    elif network == figure.network:
        whose = "the paper's network, whose widths were not published" if network == PAPER_NETWORK else f"{network!r}"
        about, yes, no = f"Our reconstruction of {whose}: ", "holds", "does not hold"
    else:
        whose = "the paper's network" if figure.network == PAPER_NETWORK else f"the network {figure.network!r}"
        which = f"the network {network!r}" if network else "another network"
        about = f"No verdict on {whose}: this run is of {which}, which says nothing about it. By itself it "
        yes, no = "meets the figure", "misses it"
    if figure.quantity == "accuracy":
        (found,) = judged.values()
        said = {"holds": f"{yes}: {found.text}", "fails": f"{no}: {found.text}"}
        return about + said.get(found.outcome, f"cannot be compared: {found.text}")
    under = {
        outcome: [(model, each.text) for model, each in judged.items() if each.outcome == outcome]
        for outcome in ("holds", "fails", "open")
    }
    parts = []
    for outcome, words in (("holds", yes), ("fails", no)):
        if found_under := under[outcome]:
            parts.append(f"{words} under {', '.join(f'{model}: {text}' for model, text in found_under)}")
    if under["open"]:
        models = ", ".join(model for model, _ in under["open"])
        parts.append(f"stays open under {models}: events without a price leave only a lower bound")
    if not parts:
        return about + "cannot be compared: no energy model priced it"
    # a GCN priced in INT8 too is another comparison (bench.gcn): here the student alone changes its prices
    of = (
        "" if figure.reference_mJ is None else f". The GCN stays at its published {figure.reference_mJ:g} mJ throughout"
    )
    return about + "; ".join(parts) + of


def _in_unit(figure: Published, energy_mJ: float | None) -> float | None:
    """An energy in the figure's own unit: mJ, or the fraction by which it is less than the reference. None for an accuracy."""
    if energy_mJ is None or figure.quantity == "accuracy":
        return None
    return energy_mJ if figure.reference_mJ is None else 1 - energy_mJ / figure.reference_mJ


def _meets(figure: Published, energy_mJ: float) -> bool:
    """An energy is met at or below it, a reduction above it."""
    if figure.reference_mJ is None:
        return energy_mJ <= figure.value
    return 1 - energy_mJ / figure.reference_mJ > figure.value


def _show(figure: Published, value: float | None) -> str:
    if value is None:
        return "–"
    if figure.quantity == "accuracy":
        return f"{100 * value:.1f} %"
    return f"{significant(value)} mJ" if figure.quantity == "energy" else percent(value)


if __name__ == "__main__":
    print(json_schema_of(ClaimsFile, SCHEMA))
