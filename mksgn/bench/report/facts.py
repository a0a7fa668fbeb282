"""What both reports say of a run, gathered once: the record, the theory on it, and what its manifest adds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mksgn.bench.claims import Published, Repriced, published_claims, reprice
from mksgn.bench.energy_models import EnergyModel, known_models, model_named
from mksgn.bench.gcn import GcnRow, comparison
from mksgn.bench.record import Accuracy, Claim, EnergyEntry, Layer, Limit, Record
from mksgn.bench.theory import PAPER_MODEL, LayerTheory, Theory, theory_of
from mksgn.bench.verdicts import evaluate_claims

REPORT_FILES = ("report.html", "report.md")
BACKENDS = {"lava": "Lava", "emulator": "the emulator"}
PRECISIONS = {"fixed": "fixed point", "float": "floating point"}
MOST_PREDICTIONS = 1000  # rows of clips on the page; beyond, they are in the manifest


@dataclass(frozen=True)
class ClassRow:
    """One true class of the labelled clips."""

    name: str
    clips: int
    recall: float | None
    predicted: tuple[int, ...]  # by class
    taken_for: str | None  # the other class that it was most often taken for


@dataclass(frozen=True)
class Prediction:
    clip: str
    label: str | None
    predicted: str

    @property
    def wrong(self) -> bool:
        return self.label is not None and self.label != self.predicted


@dataclass(frozen=True)
class Facts:
    record: Record
    manifest: Mapping[str, Any]  # empty where the folder has none
    models: dict[str, EnergyModel]
    figures: list[Published]
    theory: Theory
    gcn: list[GcnRow]

    @property
    def clips(self) -> int:
        return self.record.data.clips

    @property
    def where(self) -> str:
        """How it was executed, in words."""
        execution = self.record.execution
        return f"{BACKENDS[execution.backend]} in {PRECISIONS[execution.precision]}"

    @property
    def own(self) -> EnergyEntry | None:
        """The run under the energy model that the paper's line of work uses."""
        return next((entry for entry in self.record.energy if entry.model == PAPER_MODEL), None)

    @property
    def published(self) -> Claim | None:
        return next((claim for claim in self.record.claims if claim.unit == "mJ"), None)

    @property
    def reference_mJ(self) -> float | None:  # noqa: N802
        """The GCN that a published reduction is against."""
        return next((figure.reference_mJ for figure in self.figures if figure.reference_mJ is not None), None)

    @property
    def repriced_figure(self) -> Published | None:
        """A published energy that can be priced anew: its own model names a synaptic price."""
        for figure in self.figures:
            own = self.models.get(figure.energy_model or "")
            if figure.quantity == "energy" and own is not None and own.prices_pJ.synaptic_op:
                return figure
        return None

    @property
    def repriced(self) -> list[Repriced]:
        if self.repriced_figure is None or self.reference_mJ is None:
            return []
        return reprice(self.repriced_figure, self.reference_mJ, list(self.models.values()))

    @property
    def layers(self) -> list[tuple[Layer, LayerTheory]]:
        return list(zip(self.record.layers, self.theory.layers, strict=True))

    @property
    def spikes(self) -> float:
        """Per clip, those of the host's populations included."""
        return sum(layer.spikes for layer in self.record.layers) / self.clips

    @property
    def layer_energy_mJ(self) -> float:  # noqa: N802
        return math.fsum(row.measured_mJ for row in self.theory.layers)

    @property
    def exceeded(self) -> list[Limit]:
        placement = self.record.placement
        return [] if placement is None else [each for each in placement.limits if each.max and each.value > each.max]

    @property
    def classes(self) -> list[ClassRow]:
        return [] if self.record.accuracy is None else class_rows(self.record.accuracy)

    @property
    def predictions(self) -> list[Prediction]:
        """Clip by clip, from the manifest; empty where it lists none."""
        data = self.manifest.get("data", {})
        names, predicted = data.get("clips", []), self.manifest.get("predictions", [])
        classes = data.get("classes") or [f"class {number}" for number in range(max(predicted, default=-1) + 1)]
        labels = data.get("labels") or [None] * len(names)
        return [
            Prediction(name, None if label is None else classes[label], classes[number])
            for name, label, number in zip(names, labels, predicted, strict=False)
        ]

    @property
    def files(self) -> dict[str, str]:
        """sha256 of what the run wrote; the reports cannot state their own."""
        return {name: digest for name, digest in self.manifest.get("files", {}).items() if name not in REPORT_FILES}


def facts_of(
    record: Record,
    manifest: Mapping[str, Any],
    models: Sequence[EnergyModel] | None = None,
    claims: Sequence[Published] | None = None,
) -> Facts:
    """`models`: price the run with these instead of what run.json states; `claims`: judge it by these figures."""
    known = known_models()
    given = known if models is None else list(models)
    figures = published_claims() if claims is None else list(claims)
    # the formula and the GCN have their own models, which a list of others need not repeat
    prices = list({model.name: model for model in [*known, *given]}.values())
    theory = theory_of(record, model_named(PAPER_MODEL, prices))
    record = evaluate_claims(record, models if models is None else given, claims if claims is None else figures)
    named = {model.name: model for model in given}
    return Facts(record, manifest, named, figures, theory, comparison(record, prices))


def class_rows(accuracy: Accuracy) -> list[ClassRow]:
    """The confusion matrix by true class."""
    names, rows = list(accuracy.per_class), []
    for index, counts in enumerate(accuracy.confusion):
        others = [(number, -other) for other, number in enumerate(counts) if other != index and number]
        taken_for = names[-max(others)[1]] if others else None
        rows.append(ClassRow(names[index], sum(counts), accuracy.per_class[names[index]], tuple(counts), taken_for))
    return rows
