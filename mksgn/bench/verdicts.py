"""Published figures compared with a run: a verdict in words for readers, an outcome for machines.

Four rules apply. A figure is compared under the energy model that it was published under. A lower
bound of an energy can refute a figure but never confirm it. A run of one network gives no verdict
on another: a small network uses little energy under every model. An accuracy is compared on the
whole test part of its benchmark, or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mksgn.bench.choices import PAPER_MODEL
from mksgn.bench.claims import Benchmark, Published, published_claims
from mksgn.bench.energy_models import EnergyModel, price
from mksgn.bench.errors import BoundMissedError
from mksgn.bench.gcn import network_name
from mksgn.bench.numbers import energy as energy_text
from mksgn.bench.numbers import percent
from mksgn.bench.record import Accuracy, Claim, Data, EnergyEntry, Record
from mksgn.bench.theory import theory_of
from mksgn.common.console import output
from mksgn.common.errors import BadInputError

PAPER_NETWORK = "paper"  # the preset that rebuilds the paper's student; the paper's widths are not published

Outcome = Literal["holds", "fails", "open", "not comparable"]
"""`open`: the run has only a lower bound of the energy, and that meets the figure."""


@dataclass(frozen=True)
class Assessment:
    """A figure compared with a run under one energy model. `text`: the run's figure, or why there is none."""

    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Gate:
    """A required claim. `model` is None for an accuracy; `text` is one line for the user."""

    name: str
    model: str | None
    outcome: Outcome
    text: str

    @property
    def missed(self) -> bool:
        """Whether the claim was not shown to hold; an open or incomparable figure counts as missed."""
        return self.outcome != "holds"


def evaluate_claims(
    record: Record, models: Sequence[EnergyModel] | None = None, claims: Sequence[Published] | None = None
) -> Record:
    """Price a record's events and compare its figures with published ones; its counts stay as they are.

    Entries of the record under other energy models, and its claims with other names, are kept. Figures on a
    preset of mksgn are left out for a network that is not a student of mksgn.

    Args:
        record: The run.
        models: Energy models to price the events with; None: keep the energies of the record.
        claims: Published figures; None: the known ones. If `models` is None as well, the record is
            returned as it is.
    """
    if models is None and claims is None:
        return record
    energy = record.energy
    if models is not None:
        energy = [price(model, record.totals, steps=record.execution.steps) for model in models]
        names = {model.name for model in models}
        energy += [entry for entry in record.energy if entry.model not in names]
    rows = compare_with_published(
        energy,
        theory_of(record).energy_mJ,
        network_name(record.gcn),
        relevant(claims, record),
        data=record.data,
        accuracy=record.accuracy,
    )
    names = {claim.name for claim in rows}
    rows += [claim for claim in record.claims if claim.name not in names]
    return record.model_copy(update={"energy": energy, "claims": rows})


def relevant(claims: Iterable[Published] | None, record: Record) -> list[Published]:
    """Return the figures that a record states: all for a student, for any other network those that name no preset."""
    figures = published_claims() if claims is None else claims
    return [figure for figure in figures if record.student or figure.network is None]


def compare_with_published(
    energy: Sequence[EnergyEntry],
    theory_mJ: float | None,
    network: str,
    published: Iterable[Published] | None = None,
    *,
    data: Data | None = None,
    accuracy: Accuracy | None = None,
) -> list[Claim]:
    """Build one row per published figure.

    Args:
        energy: The run under every energy model, in mJ per clip.
        theory_mJ: The paper's formula with the run's firing rates, first layer charged once; None
            if unknown.
        network: Name of the preset with any departures from it (bench.gcn.network_name).
        published: Figures to compare with; None: the known ones.
        data: Data of the run; without it no accuracy is compared.
        accuracy: Accuracy of the run; without it no accuracy is compared.
    """
    rows = []
    for figure in published_claims() if published is None else published:
        assessments = assess(figure, energy, data, accuracy)
        own = next((entry for entry in energy if entry.model == figure.energy_model), None)
        theory = _in_unit(figure, theory_mJ) if figure.energy_model == PAPER_MODEL else None
        measured = _in_unit(figure, own.total_mJ) if own else None
        if figure.quantity == "accuracy" and accuracy and assessments["accuracy"].outcome != "not comparable":
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
                verdict=_verdict(figure, assessments, network),
            )
        )
    return rows


def assess(
    figure: Published, energy: Sequence[EnergyEntry], data: Data | None = None, accuracy: Accuracy | None = None
) -> dict[str, Assessment]:
    """Compare a figure with a run, without regard to the network that ran.

    Returns:
        Assessments by energy model; those of an accuracy have the single key "accuracy".
    """
    if len({entry.model for entry in energy}) != len(energy):
        raise BadInputError("an energy model is listed twice among the run's energies")
    if figure.benchmark is not None:
        return {"accuracy": _assess_accuracy(figure, figure.benchmark, data, accuracy)}
    return {entry.model: _assess_energy(figure, entry) for entry in energy}


def gate(record: Record, required: str, published: Iterable[Published] | None = None) -> Gate:
    """Decide whether a run meets a required claim, for continuous integration.

    The rules of the verdict apply, with the first layer charged once. A figure of a network other
    than the record's (the preset in `gcn`) is not comparable.

    Args:
        record: The run.
        required: NAME of a figure, or NAME@MODEL for an energy model other than the figure's own.
        published: The figures; None: the known ones.

    Raises:
        BadInputError: There is no such figure, or the run was not priced by the model.
    """
    figures = {figure.name: figure for figure in (published_claims() if published is None else published)}
    name, _, model = (required, "", "") if required in figures else required.rpartition("@")
    if name not in figures:
        raise BadInputError(f"no claim {required!r}: use NAME or NAME@MODEL with one of: {'; '.join(figures)}")
    figure = figures[name]
    if model and figure.quantity == "accuracy":
        raise BadInputError(f"claim {name!r} is an accuracy, which has no energy model: leave out @{model}")
    key = "accuracy" if figure.quantity == "accuracy" else model or str(figure.energy_model)
    assessments = assess(figure, record.energy, record.data, record.accuracy)
    if key not in assessments:
        raise BadInputError(f"the run was not priced by {key!r}: use one of {', '.join(assessments)}")
    assessment = assessments[key]
    network = network_name(record.gcn)
    if figure.network not in (None, network):
        assessment = Assessment(
            "not comparable", f"the figure is of the network {figure.network!r}, the run of {network!r}"
        )
    under = f" under {key}" if figure.quantity != "accuracy" else ""
    text = f"{name}{under}: {assessment.outcome} ({assessment.text}; published {_show(figure.quantity, figure.value)})"
    return Gate(name, key if under else None, assessment.outcome, text)


def require_claims(folder: Path, record: Record, names: Iterable[str] | None, figures: list[Published] | None) -> None:
    """Print the outcome of each required figure, and raise BoundMissedError unless all hold."""
    gates = [gate(record, name, figures) for name in names or ()]
    for claim in gates:
        output.print(claim.text)
    if missed := [claim.text for claim in gates if claim.missed]:
        raise BoundMissedError(str(folder), missed)


def _show(quantity: str, value: float | None) -> str:
    """Format a figure with its unit: an energy, a reduction or an accuracy in percent."""
    if value is None:
        return "–"
    if quantity == "accuracy":
        return f"{100 * value:.1f} %"
    return energy_text(value).replace("\N{NO-BREAK SPACE}", " ") if quantity == "energy" else percent(value)


def _assess_energy(figure: Published, entry: EnergyEntry) -> Assessment:
    """A lower bound of the energy is an upper bound of the reduction."""
    if not entry.terms:
        return Assessment("not comparable", "the model prices nothing of it")
    bound = "" if entry.total_mJ is not None else "at least " if figure.quantity == "energy" else "at most "
    text = bound + _show(figure.quantity, _in_unit(figure, entry.priced_mJ))
    if not _meets(figure, entry.priced_mJ):
        return Assessment("fails", text)
    if entry.total_mJ is None or entry.total_every_step_mJ is None:
        return Assessment("open", text)
    at_every_step = _meets(figure, entry.total_every_step_mJ)
    return Assessment("holds", text if at_every_step else f"{text} (not with the first layer charged at every step)")


def _assess_accuracy(
    figure: Published, benchmark: Benchmark, data: Data | None, accuracy: Accuracy | None
) -> Assessment:
    if data is None or accuracy is None:
        return Assessment("not comparable", "the run has no accuracy")
    if data.source.partition(":")[0] not in benchmark.sources or data.split != benchmark.split:
        return Assessment("not comparable", f"this run is on other data: {data.source}, split {data.split}")
    if data.clips != benchmark.clips:
        part = f"{data.clips:,} of the {benchmark.clips:,} clips of the test part"
        return Assessment("not comparable", f"this run is on {part}")
    decimals = len(f"{figure.value}".partition(".")[2])  # as many as were published
    holds = round(accuracy.top1, decimals) >= figure.value
    text = f"{_show('accuracy', accuracy.top1)} of {data.clips:,} clips"
    return Assessment("holds" if holds else "fails", text)


def _verdict(figure: Published, assessments: Mapping[str, Assessment], network: str) -> str:
    """State under which models the figure holds, under which it does not, and which leave it open."""
    prefix, holds, fails = _verdict_words(figure, network)
    if figure.quantity == "accuracy":
        (assessment,) = assessments.values()
        words = {"holds": f"{holds}: ", "fails": f"{fails}: "}.get(assessment.outcome, "cannot be compared: ")
        return prefix + words + assessment.text
    by_outcome: dict[Outcome, dict[str, str]] = {"holds": {}, "fails": {}, "open": {}, "not comparable": {}}
    for model, assessment in assessments.items():
        by_outcome[assessment.outcome][model] = assessment.text
    parts = [
        f"{words} under {', '.join(f'{model}: {text}' for model, text in texts.items())}"
        for words, texts in ((holds, by_outcome["holds"]), (fails, by_outcome["fails"]))
        if texts
    ]
    if by_outcome["open"]:
        models = ", ".join(by_outcome["open"])
        parts.append(f"stays open under {models}: events without a price leave only a lower bound")
    if not parts:
        return prefix + "cannot be compared: no energy model priced it"
    # pricing the GCN in INT8 too is another comparison (bench.gcn): here only the student's prices change
    gcn = (
        "" if figure.reference_mJ is None else f". The GCN stays at its published {figure.reference_mJ:g} mJ throughout"
    )
    return prefix + "; ".join(parts) + gcn


def _verdict_words(figure: Published, network: str) -> tuple[str, str, str]:
    """Return the beginning of a verdict, and its words for a figure that is met and for one that is not."""
    if figure.network is None:
        return "", "holds", "does not hold"
    if network == figure.network:
        whose = "the paper's network, whose widths were not published" if network == PAPER_NETWORK else f"{network!r}"
        return f"Our reconstruction of {whose}: ", "holds", "does not hold"
    whose = "the paper's network" if figure.network == PAPER_NETWORK else f"the network {figure.network!r}"
    other = f"the network {network!r}" if network else "another network"
    prefix = f"No verdict on {whose}: this run is of {other}, which says nothing about it. By itself it "
    return prefix, "meets the figure", "misses it"


def _in_unit(figure: Published, energy_mJ: float | None) -> float | None:
    """Convert an energy to the figure's unit: mJ, or the reduction against the reference. None for an accuracy."""
    if energy_mJ is None or figure.quantity == "accuracy":
        return None
    return energy_mJ if figure.reference_mJ is None else 1 - energy_mJ / figure.reference_mJ


def _meets(figure: Published, energy_mJ: float) -> bool:
    """Return whether a figure is met: an energy at or below its value, a reduction above its value."""
    if figure.reference_mJ is None:
        return energy_mJ <= figure.value
    return 1 - energy_mJ / figure.reference_mJ > figure.value
