"""The questions that a laboratory asks first, each with one line of the run's own figures."""

from dataclasses import dataclass
from typing import Literal

from mksgn.bench.numbers import counted, energy, percent
from mksgn.bench.report.facts import Facts
from mksgn.bench.report.price_range import PriceRange
from mksgn.bench.report.timing import timing_of
from mksgn.common.limits import State

Mark = Literal["good", "open", "bad"]

FITS: dict[State, tuple[Mark, str]] = {
    "exceeds": ("bad", "No."),
    "not checked": ("open", "As far as limits are published."),
    "fits": ("good", "Yes."),
}


@dataclass(frozen=True)
class Answer:
    """One answer. `section` is the id of the section that it summarises, `file` the file that it comes from."""

    question: str
    mark: Mark
    word: str
    text: str
    section: str
    file: str


def answers(facts: Facts, prices: PriceRange | None) -> list[Answer]:
    """Answer what the record can answer.

    Args:
        facts: What the page states.
        prices: The run's energy over the models; None if nothing is priced.
    """
    candidates = (_better(facts, prices), _better_than_an_ann(facts), _speed(facts), _fit(facts), _confirmed(facts))
    return [answer for answer in candidates if answer is not None]


def _better(facts: Facts, prices: PriceRange | None) -> Answer | None:
    """Compare with the GCN. No GCN has run on a chip or has a price there, so the answer is never yes."""
    if prices is None:
        return None
    texts, figure = [], facts.repriced_figure
    repriced = [other for row in prices.on_chip for other in row.repriced]
    if repriced and figure is not None and facts.reference_mJ is not None:
        low, high = (end(repriced, key=lambda row: row.energy_mJ) for end in (min, max))
        texts.append(
            f"At chips' synaptic prices the published {energy(figure.value)} would be {energy(low.energy_mJ)} to "
            f"{energy(high.energy_mJ)}: {percent(low.reduction)} to {percent(high.reduction)} below the GCN's "
            f"{energy(facts.reference_mJ)}, not {percent(1 - figure.value / facts.reference_mJ)}."
        )
    fair = next((row for row in facts.gcn if row.precision == "INT8" and row.model == row.student_model), None)
    if fair is not None:
        text = (
            f"In INT8 arithmetic alone the GCN of this network's preset takes {energy(fair.gcn_mJ)} and this network "
        )
        texts.append(f"{text}{'at least ' if fair.reduction is None else ''}{energy(fair.student_mJ)}.")
        if prices.on_chip:
            least = energy(min(row.energy_mJ for row in prices.on_chip))
            texts.append(
                f"At a chip's prices this network takes at least {least}; no GCN was measured or priced on a chip."
            )
    if not texts:
        return None
    section = "gcn" if facts.gcn else "claims"
    return Answer(
        "Better than the GCN on a chip?", "open", "Not shown.", " ".join(texts), section, "run.json: gcn, energy"
    )


def _better_than_an_ann(facts: Facts) -> Answer | None:
    """Compare with an ANN of the same shape, where memory is priced on both sides."""
    with_memory = [row for row in facts.ann if row.memory]
    if not with_memory:
        return None
    total = with_memory[-1].total
    measured = "" if total.rate is None else f"; this run's rate is {percent(total.rate)}"
    text = (
        f"With memory priced ({with_memory[-1].model}) this network takes {energy(total.snn_mJ)} and an ANN of "
        f"{facts.ann_bits}-bit activations {energy(total.ann_mJ)}. It is cheaper at {total.limit}{measured}."
    )
    word = "Yes, by a model." if total.wins else "No, by a model."
    return Answer(
        "Better than an ANN of its shape?",
        "good" if total.wins else "bad",
        word,
        text,
        "ann",
        "run.json: layers, totals",
    )


def _confirmed(facts: Facts) -> Answer | None:
    """Say that a run of another network cannot confirm the published energy."""
    figure = facts.repriced_figure
    if figure is None or not facts.record.student:
        return None
    text = (
        "Counted events and formula use this run's firing rates and the same prices. The published figure is of the "
        "paper's own network, whose widths and firing rates are not public."
    )
    return Answer("The paper's energy confirmed?", "bad", "No.", text, "theory", "run.json: layers, claims")


def _speed(facts: Facts) -> Answer | None:
    timing = timing_of(facts.record)
    if timing is None or not timing.limited_by:
        return None
    text = f"{timing.limited_by} {timing.where}."
    return Answer("What limits the speed?", "open", timing.bound_by, text, "timing", "run.json: timing")


def _fit(facts: Facts) -> Answer | None:
    placement = facts.record.placement
    if placement is None:
        return None
    fit = placement.fit
    mark, word = FITS[fit.state]
    text = f"{counted(placement.cores, 'core')} on {counted(placement.chips, 'chip')} of {placement.chip}."
    if fit.exceeded:
        text += f" Exceeded: {'; '.join(fit.exceeded)}."
    if fit.unchecked:
        text += f" Not checked, since their limits are not published: {', '.join(fit.unchecked)}."
    return Answer("Does it fit?", mark, word, text, "placement", "run.json: placement")
