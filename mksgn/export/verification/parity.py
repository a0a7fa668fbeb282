"""Two executions laid side by side: every decision of every neuron at every step."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from mksgn.export.errors import ParityError

# A quantised file allows no difference. Unquantised, two implementations may round apart where a membrane meets its threshold:
ROUNDED_APART = 1e-6  # of the decisions, each population given the reference's spikes and resets
MARGIN = 1e-5  # of the threshold

Rule = Literal["exact", "rounding", "rounding, then free"]


@dataclass(frozen=True)
class Difference:
    """A decision that differs. `neuron` is its place in the population's shape; `margin` = |v - threshold| / threshold there."""

    layer: str
    sample: int
    step: int
    neuron: tuple[int, ...]
    margin: float | None = None


@dataclass(frozen=True)
class LayerParity:
    """A decision: one neuron at one step. `first` by sample, step, neuron; None where all agree."""

    layer: str
    decisions: int
    mismatches: int
    per_step: tuple[int, ...]
    first: Difference | None
    largest_margin: float | None = None


@dataclass(frozen=True)
class Parity:
    """All layers of one comparison, in the order of the network.

    `rule` says what is allowed: "exact" nothing, "rounding" 1e-6 of the decisions within 1e-5 of their thresholds. In "rounding, then
    free" each execution went on with its own spikes, so that only the first difference must lie that near.
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
        """The first layer's that differs: what lies behind it may only follow from it."""
        return next((layer.first for layer in self.layers if layer.first is not None), None)

    @property
    def largest_margin(self) -> float | None:
        return max((layer.largest_margin for layer in self.layers if layer.largest_margin is not None), default=None)

    @property
    def allowed(self) -> int:
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
        """Raises ParityError, which names the first difference, where the two do not agree."""
        if self.agrees:
            return
        first = self.first
        assert first is not None
        margin = "" if first.margin is None else f", its membrane {first.margin:.2g} of the threshold away from it"
        allowed = {
            "exact": "allowed: none",
            "rounding": f"allowed: {self.allowed}, each within {MARGIN} of its threshold",
            "rounding, then free": f"the first may lie within {MARGIN}",
        }
        raise ParityError(
            f"{what}: {self.mismatches} of {self.decisions} decisions differ ({self.against}), first in {first.layer} at sample "
            f"{first.sample}, step {first.step}, neuron {first.neuron}{margin}; {allowed[self.rule]}"
        )

    def to_dict(self, clip_of_body: np.ndarray | None = None) -> dict[str, Any]:
        """`clip_of_body` (L,) adds the clip to each difference."""
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


def compare(against: str, wanted: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> Parity:
    """Two executions' spikes, population → (samples, steps, ...); a population that one of them lacks counts as all wrong."""
    layers = []
    for name in [*wanted, *(n for n in found if n not in wanted)]:
        a, b = wanted.get(name), found.get(name)
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


def with_margins(parity: Parity, layer: str, different: np.ndarray, margin: np.ndarray, samples: np.ndarray) -> Parity:
    """`parity` with the margins of one layer's differences; both arrays (len(samples), S, *shape).

    `samples` are those that differ, all of them under the rule "rounding", which asks for the largest margin; else the first will do.
    """
    layers = []
    for row in parity.layers:
        if row.layer == layer and row.first is not None:
            place = (int(np.flatnonzero(samples == row.first.sample)[0]), row.first.step, *row.first.neuron)
            first = replace(row.first, margin=float(margin[place]))
            largest = float(margin[different].max()) if parity.rule == "rounding" else None
            row = replace(row, first=first, largest_margin=largest)
        layers.append(row)
    return replace(parity, layers=layers)
