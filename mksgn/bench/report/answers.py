"""The questions that a laboratory asks first, each with one line of the run's own figures."""

from dataclasses import dataclass
from typing import Literal

from mksgn.bench.layer import silent
from mksgn.bench.numbers import count, energy, share
from mksgn.bench.report.facts import Facts
from mksgn.bench.report.price_range import PriceRange
from mksgn.bench.report.timing import timing_of
from mksgn.common.limits import State
from mksgn.common.words import counted, first_three

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
    candidates = (
        _correct(facts), _fit(facts), _speed(facts), _better(facts, prices), _better_than_an_ann(facts), _confirmed(facts)
    )  # fmt: skip
    return [answer for answer in candidates if answer is not None]


def _correct(facts: Facts) -> Answer:
    """Say whether another execution of the same network gave the same spikes, and whether there were any."""
    question, file, parity = "Is the run correct?", "run.json: parity", facts.record.parity
    text = ""
    if parity is not None:
        of = f"of {count(parity.decisions)} decisions, each one neuron at one time step"
        text = f"{count(parity.mismatches)} {of}, differ{'s' if parity.mismatches == 1 else ''} from {parity.against}"
    if parity is not None and parity.faults:  # silent populations do not excuse them
        return Answer(question, "bad", "No.", f"{text}.", "parity", file)
    if names := silent(facts.record.layers):
        said = f"{first_three(names)} never fired: check the time step, and the scale of the inputs."
        firing = any(layer.spikes for layer in facts.record.layers if layer.place == "chip")
        word = "Parts never fired." if firing else "Nothing fired."
        return Answer(question, "open", word, said, "layers", "run.json: layers")
    if parity is None:
        return Answer(question, "open", "Not compared.", "No other execution of the network was run.", "parity", file)
    if not parity.mismatches:
        return Answer(question, "good", "Yes.", f"{text}.", "parity", file)
    return Answer(question, "good", "Yes, up to rounding.", f"{text}, which rounds differently.", "parity", file)


def _better(facts: Facts, prices: PriceRange | None) -> Answer | None:
    """Compare with the GCN. No GCN has run on a chip or has a price there, so the answer is never yes."""
    if prices is None:
        return None
    texts, figure = [], facts.repriced_figure
    repriced = [other for row in prices.on_chip for other in row.repriced]
    if repriced and figure is not None and facts.reference_mJ is not None:
        low, high = (end(repriced, key=lambda row: row.energy_mJ) for end in (min, max))
        texts.append(
            f"At the synaptic prices of chips, the published {energy(figure.value)} would be {energy(low.energy_mJ)} to "
            f"{energy(high.energy_mJ)}: {share(low.reduction)} to {share(high.reduction)} below the GCN's "
            f"{energy(facts.reference_mJ)}, not {share(1 - figure.value / facts.reference_mJ)}."
        )
    fair = next((row for row in facts.gcn if row.precision == "INT8" and row.model == row.student_model), None)
    if fair is not None:
        text = (
            f"In INT8 arithmetic alone, the GCN of this network's preset takes {energy(fair.gcn_mJ)} and this network "
        )
        texts.append(f"{text}{'at least ' if fair.reduction is None else ''}{energy(fair.student_mJ)}.")
        if prices.on_chip:
            least = energy(min(row.energy_mJ for row in prices.on_chip))
            texts.append(
                f"At a chip's prices, this network takes at least {least}; no GCN was measured or priced on a chip."
            )
    if not texts:
        return None
    section = "gcn" if facts.gcn else "claims"
    return Answer(
        "Cheaper than the GCN on a chip?", "open", "Not shown.", " ".join(texts), section, "run.json: gcn, energy"
    )


def _better_than_an_ann(facts: Facts) -> Answer | None:
    """Compare with an ANN of the same shape, where memory is priced on both sides, and where it is not."""
    question, rows = "Cheaper than an ANN of its shape?", facts.ann
    if not any(row.memory for row in rows):
        return None
    wins = {memory: {row.total.wins for row in rows if row.memory is memory} for memory in (False, True)}
    texts = []
    for memory, words in ((True, "With memory priced"), (False, "In arithmetic alone")):
        of_kind = [row for row in rows if row.memory is memory]
        if of_kind:
            row = of_kind[-1] if memory else of_kind[0]
            texts.append(
                f"{words} ({row.model}), this network takes {energy(row.total.snn_mJ)} and an ANN of {facts.ann_bits}-bit "
                f"activations {energy(row.total.ann_mJ)}; it is cheaper at {row.total.limit}."
            )
    rate = rows[-1].total.rate
    if rate is not None:
        texts.append(f"This run's rate is {share(rate)}.")
    mark: Mark
    if len(wins[False] | wins[True]) == 1:
        mark, word = ("good", "Yes, under every model.") if wins[True] == {True} else ("bad", "No, under no model.")
    elif wins[True] == {False}:
        mark, word = "open", "Not with memory priced."
    else:
        mark, word = "open", "It depends on the model."
    return Answer(question, mark, word, " ".join(texts), "ann", "run.json: layers, totals")


def _confirmed(facts: Facts) -> Answer | None:
    """Say that a run of another network cannot confirm the published energy."""
    figure = facts.repriced_figure
    if figure is None or not facts.record.student:
        return None
    text = (
        "Counted events and formula use this run's firing rates and the same prices, so they agree by construction. The "
        f"published {energy(figure.value)} is of the paper's own network, whose widths and firing rates are not public."
    )
    return Answer(
        "Does it confirm the paper's energy?", "open", "It cannot.", text, "theory", "run.json: layers, claims"
    )


def _speed(facts: Facts) -> Answer | None:
    timing = timing_of(facts.record)
    if timing is None or not timing.limited_by:
        return None
    text = f"Latency {timing.value}. {timing.limited_by} {timing.where}."
    placement = facts.record.placement
    if placement is not None and placement.chip != timing.chip:
        text += f" No timing model has latencies of {placement.chip}."
    return Answer("How fast, and what limits it?", "open", timing.bound_by, text, "timing", "run.json: timing")


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
    return Answer("Does it fit on a chip?", mark, word, text, "placement", "run.json: placement")
