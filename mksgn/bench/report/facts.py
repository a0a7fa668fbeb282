"""The facts that both reports state: a run's record, the theory for it, and what its manifest adds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mksgn.bench import ann
from mksgn.bench.accuracy import wilson
from mksgn.bench.ann import AnnRow
from mksgn.bench.choices import PAPER_MODEL
from mksgn.bench.claims import Published, Repriced, reprice, synaptic_ops
from mksgn.bench.energy_models import EnergyModel, known_models, model_named
from mksgn.bench.gcn import GcnRow, comparison, network_name
from mksgn.bench.numbers import ratio, unit_of_energy
from mksgn.bench.record import Accuracy, Claim, EnergyEntry, Layer, Record
from mksgn.bench.run_files import REPORT_FILES
from mksgn.bench.theory import LayerTheory, Theory, theory_of
from mksgn.bench.verdicts import evaluate_claims, relevant
from mksgn.deploy.choices import PRECISION_TITLES

BACKEND_TITLES = {"lava": "Lava", "emulator": "the emulator"}
MOST_PREDICTIONS = 1000  # rows of clips on the page; all of them are in the manifest


@dataclass(frozen=True)
class ClassRow:
    """A row of the confusion matrix: one true class."""

    name: str
    clips: int
    recall: float | None
    predicted: tuple[int, ...]  # by class
    confused_with: str | None  # the class that it was most often confused with


@dataclass(frozen=True)
class Prediction:
    """The true and the predicted class of one clip."""

    clip: str
    label: str | None
    predicted: str

    @property
    def wrong(self) -> bool:
        return self.label is not None and self.label != self.predicted


@dataclass(frozen=True)
class PlaceSums:
    """Sums over the layers of one place, per clip; neurons of one instance of the network."""

    layers: int
    neurons: int
    spikes: float
    syn_ops: float
    theory_sops: float
    measured_mJ: float  # noqa: N815 - a unit


@dataclass(frozen=True)
class Facts:
    """Everything that the templates read."""

    record: Record
    manifest: Mapping[str, Any]  # empty if the folder has none
    models: dict[str, EnergyModel]
    figures: list[Published]
    theory: Theory
    gcn: list[GcnRow]
    ann: list[AnnRow]

    @property
    def clips(self) -> int:
        return self.record.data.clips

    @property
    def unit(self) -> str:
        """What a sample of the run is called; a student's samples are clips."""
        return self.record.unit

    @property
    def executed_by(self) -> str:
        """Backend and precision in words."""
        execution = self.record.execution
        return f"{BACKEND_TITLES[execution.backend]} in {PRECISION_TITLES[execution.precision]}"

    @property
    def paper_energy(self) -> EnergyEntry | None:
        """This run's energy under the model that the paper's line of work uses."""
        return next((entry for entry in self.record.energy if entry.model == PAPER_MODEL), None)

    @property
    def published(self) -> Claim | None:
        """The first published energy."""
        return next((claim for claim in self.record.claims if claim.unit == "mJ"), None)

    def comparable(self, claim: Claim) -> bool:
        """Whether a published figure is of the network of this run, so that their ratio means something."""
        figure = next((figure for figure in self.figures if figure.name == claim.name), None)
        return figure is None or figure.network in (None, network_name(self.record.gcn))

    @property
    def reference_mJ(self) -> float | None:  # noqa: N802
        """Energy of the GCN that a published reduction refers to."""
        return next((figure.reference_mJ for figure in self.figures if figure.reference_mJ is not None), None)

    @property
    def repriced_figure(self) -> Published | None:
        """A published energy whose own model states a synaptic price, so that other prices can be applied."""
        for figure in self.figures:
            model = self.models.get(figure.energy_model or "")
            if figure.quantity == "energy" and model is not None and isinstance(model.prices_pJ.synaptic_op, float):
                return figure
        return None

    @property
    def repriced(self) -> list[Repriced]:
        """The published energy at the synaptic price of every model."""
        if self.repriced_figure is None or self.reference_mJ is None:
            return []
        return reprice(self.repriced_figure, self.reference_mJ, list(self.models.values()))

    @property
    def repriced_sops(self) -> float | None:
        """The most synaptic operations per sample that the published energy can contain."""
        figure = self.repriced_figure
        return None if figure is None else synaptic_ops(figure, list(self.models.values()))

    @property
    def ann_bits(self) -> int:
        """Bits of an activation of the ANN of the same shape."""
        return ann.activation_bits(self.record.execution.steps)

    @property
    def layers(self) -> list[tuple[Layer, LayerTheory]]:
        """Each population's counts and theory, in network order."""
        return list(zip(self.record.layers, self.theory.layers, strict=True))

    @property
    def host_spikes(self) -> float:
        """Mean spikes per clip of the populations on the host. They are not events of the chip, so not in totals."""
        return self.place("host").spikes

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy; None without labels."""
        return None if self.record.accuracy is None else wilson(self.record.accuracy.correct, self.clips)

    @property
    def compared_layers(self) -> int:
        """Number of layers that have a ratio of measurement and theory."""
        return sum(row.ratio is not None for row in self.theory.layers)

    @property
    def exact_layers(self) -> int:
        """Number of layers whose ratio is printed as 1.000."""
        return sum(row.ratio is not None and ratio(row.ratio) == "1.000" for row in self.theory.layers)

    def place(self, place: str) -> PlaceSums:
        """Sums per clip over the layers on the host or on the chip."""
        rows = [(layer, row) for layer, row in self.layers if layer.place == place]
        return PlaceSums(
            layers=len(rows),
            neurons=sum(layer.neurons for layer, _ in rows),
            spikes=sum(layer.spikes for layer, _ in rows) / self.clips,
            syn_ops=math.fsum(row.syn_ops for _, row in rows),
            theory_sops=math.fsum(row.theory_sops for _, row in rows),
            measured_mJ=math.fsum(row.measured_mJ for _, row in rows),
        )

    @property
    def layer_unit(self) -> tuple[str, float]:
        """The unit of all layers' energies, and how many of it make one mJ."""
        return unit_of_energy([row.measured_mJ for row in self.theory.layers])

    @property
    def classes(self) -> list[ClassRow]:
        """The confusion matrix by true class; empty without labels."""
        return [] if self.record.accuracy is None else class_rows(self.record.accuracy)

    @property
    def predictions(self) -> list[Prediction]:
        """Predictions clip by clip, from the manifest; empty if it lists none."""
        data = self.manifest.get("data", {})
        names, predicted = data.get("clips", []), self.manifest.get("predictions", [])
        classes = data.get("classes") or []

        def named(number: int) -> str:
            return classes[number] if 0 <= number < len(classes) else f"class {number}"

        labels = data.get("labels") or [None] * len(names)
        return [
            Prediction(name, None if label is None else named(label), named(number))
            for name, label, number in zip(names, labels, predicted, strict=False)
        ]

    @property
    def files(self) -> dict[str, str]:
        """sha256 of the files that the run wrote, without the reports, which cannot state their own hash."""
        return {name: digest for name, digest in self.manifest.get("files", {}).items() if name not in REPORT_FILES}


def facts_of(
    record: Record,
    manifest: Mapping[str, Any],
    models: Sequence[EnergyModel] | None = None,
    claims: Sequence[Published] | None = None,
) -> Facts:
    """Gather the facts of a run.

    Args:
        record: The run.
        manifest: Its manifest; empty if there is none.
        models: Energy models to price the run with; None takes the energies that the record states.
        claims: Published figures to evaluate; None takes those that the record states.
    """
    known = known_models()
    given = known if models is None else list(models)
    figures = relevant(claims, record)
    # the formula and the GCN need the known models, whatever was given
    prices = list({model.name: model for model in [*known, *given]}.values())
    theory = theory_of(record, model_named(PAPER_MODEL, prices))
    record = evaluate_claims(record, models, claims)
    named = {model.name: model for model in given}
    return Facts(record, manifest, named, figures, theory, comparison(record, prices), ann.comparison(record, prices))


def class_rows(accuracy: Accuracy) -> list[ClassRow]:
    """Return the rows of a confusion matrix."""
    names, rows = list(accuracy.per_class), []
    for index, counts in enumerate(accuracy.confusion):
        others = [(number, -other) for other, number in enumerate(counts) if other != index and number]
        confused_with = names[-max(others)[1]] if others else None
        rows.append(ClassRow(names[index], sum(counts), accuracy.per_class[names[index]], tuple(counts), confused_with))
    return rows
