"""The comparison of two executions: every decision of every neuron at every time step."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from mksgn.export.errors import ParityError

# A quantised file allows no difference. In an unquantised one, two implementations may round
# differently where a membrane potential meets its threshold:
ROUNDED_APART = 1e-6  # allowed share of decisions, with each population given the reference's spikes and resets
MARGIN = 1e-5  # allowed distance from the threshold, relative to it

Rule = Literal["exact", "rounding", "rounding, then free"]


@dataclass(frozen=True)
class Difference:
    """A decision that differs."""

    layer: str
    sample: int
    step: int
    neuron: tuple[int, ...]  # index in the population's shape
    margin: float | None = None  # |v - threshold| / |threshold| in the reference execution


@dataclass(frozen=True)
class LayerParity:
    """The comparison of one population; a decision is one neuron at one time step of one sample."""

    layer: str
    decisions: int
    mismatches: int
    per_step: tuple[int, ...]  # mismatches
    first: Difference | None  # by sample, step and neuron; None if all decisions agree
    largest_margin: float | None = None


@dataclass(frozen=True)
class Parity:
    """The comparison of an execution with the reference, in the order of the network.

    The rule states what is allowed: "exact" no difference; "rounding" 1e-6 of the decisions, each
    within 1e-5 of its threshold. With "rounding, then free" both executions ran on their own
    spikes, so that only the first difference must lie that close to its threshold.
    """

    against: str
    layers: list[LayerParity]
    rule: Rule = "exact"

    @property
    def decisions(self) -> int:
        return sum(layer.decisions for layer in self.layers)

    @property
    def mismatches(self) -> int:
        return sum(layer.mismatches for layer in self.layers)

    @property
    def first(self) -> Difference | None:
        """Return the first difference of the first layer with one: others may follow from it."""
        return next((layer.first for layer in self.layers if layer.first is not None), None)

    @property
    def largest_margin(self) -> float | None:
        return max((layer.largest_margin for layer in self.layers if layer.largest_margin is not None), default=None)

    @property
    def allowed(self) -> int:
        """Return the number of mismatches that the rule allows."""
        return 0 if self.rule == "exact" else int(ROUNDED_APART * self.decisions)

    @property
    def agrees(self) -> bool:
        if self.mismatches == 0:
            return True
        if self.rule == "rounding, then free":
            assert self.first is not None
            return self.first.margin is not None and self.first.margin <= MARGIN
        return self.mismatches <= self.allowed and self.largest_margin is not None and self.largest_margin <= MARGIN

    def check(self, what: object) -> None:
        """Raise ParityError, which names the first difference, unless the executions agree."""
        if self.agrees:
            return
        first = self.first
        assert first is not None
        margin = "" if first.margin is None else f", at a relative distance of {first.margin:.2g} from its threshold"
        allowed = {
            "exact": "allowed: none",
            "rounding": f"allowed: {self.allowed}, each within {MARGIN} of its threshold",
            "rounding, then free": f"allowed: the first within {MARGIN} of its threshold",
        }
        raise ParityError(
            f"{what}: {self.mismatches} of {self.decisions} decisions differ ({self.against}), first in {first.layer} "
            f"at sample {first.sample}, step {first.step}, neuron {first.neuron}{margin}; {allowed[self.rule]}"
        )

    def to_dict(self, clip_of_body: np.ndarray | None = None) -> dict[str, Any]:
        """Return plain values; `clip_of_body` (L,) adds the clip to each difference."""
        layers = [asdict(layer) for layer in self.layers]
        first = None if self.first is None else asdict(self.first)
        for difference in [first, *(layer["first"] for layer in layers)]:
            if difference is not None and clip_of_body is not None:
                difference["clip"] = int(clip_of_body[difference["sample"]])
        return {
            "against": self.against,
            "decisions": self.decisions,
            "mismatches": self.mismatches,
            "rule": self.rule,
            "largest_margin": self.largest_margin,
            "first": first,
            "layers": layers,
        }


def compare(against: str, expected: dict[str, np.ndarray], actual: dict[str, np.ndarray]) -> Parity:
    """Compare the spikes of two executions.

    Args:
        against: Names the two executions, such as "torch ↔ NIR reference".
        expected: Population → (samples, steps, *shape).
        actual: The same of the other execution. A population that one of them lacks, or has in
            another shape, counts as entirely wrong.
    """
    layers = []
    for name in [*expected, *(n for n in actual if n not in expected)]:
        a, b = expected.get(name), actual.get(name)
        if a is None or b is None or a.shape != b.shape:
            x = max((x for x in (a, b) if x is not None), key=lambda x: x.size)
            per_step = (x.size // x.shape[1],) * x.shape[1]
            layers.append(LayerParity(name, x.size, x.size, per_step, Difference(name, 0, 0, (0,) * (x.ndim - 2))))
            continue
        samples, steps = a.shape[:2]
        different = (a.astype(bool) != b.astype(bool)).reshape(samples, steps, -1)
        counts = different.sum((0, 2))
        first = None
        if counts.any():
            sample, step, *neuron = np.unravel_index(int(different.argmax()), a.shape)
            first = Difference(name, int(sample), int(step), tuple(int(i) for i in neuron))
        layers.append(LayerParity(name, a.size, int(counts.sum()), tuple(int(n) for n in counts), first))
    return Parity(against, layers)


def with_margins(
    layer: LayerParity, rule: Rule, different: np.ndarray, margin: np.ndarray, samples: np.ndarray
) -> LayerParity:
    """Add the margins of a layer's differences.

    Args:
        layer: The comparison of a population in which some decisions differ.
        rule: "rounding" needs the largest margin; otherwise that of the first difference is enough.
        different: (len(samples), S, *shape) bool, where the executions differ.
        margin: The same shape, relative distance from the threshold.
        samples: Indices of the samples: all that differ under the rule "rounding", or the first.
    """
    assert layer.first is not None
    index = (int(np.flatnonzero(samples == layer.first.sample)[0]), layer.first.step, *layer.first.neuron)
    largest = float(margin[different].max()) if rule == "rounding" else None
    return replace(layer, first=replace(layer.first, margin=float(margin[index])), largest_margin=largest)
