"""The tables that mksgn-export prints: quantisation by population, and parity."""

from typing import Any

import numpy as np

from mksgn.common.console import output
from mksgn.common.tables import table
from mksgn.export.loihi import SYNAPTIC_SUM_LIMIT
from mksgn.export.verification.parity import Parity


def scales(quantization: dict[str, Any]) -> None:
    """Print a row per population, then warnings about silent populations and large sums.

    Args:
        quantization: The graph's metadata entry of that name.
    """
    populations = quantization["populations"]
    exponents = any(scale.get("weight_exponents") for scale in populations.values())
    result = table(
        f"{quantization['bits']}-bit weights",
        (
            *("population", "unit", *(["weights"] if exponents else []), "bound by", "saturated", "firing rate"),
            *("agreement with float", "largest sum", "worst"),
        ),
        left=("bound by",),
    )
    for name, scale in populations.items():
        result.add_row(
            name,
            f"2^{scale['exponent']}",
            *([_factors(scale)] if exponents else []),
            scale["binding"],
            str(scale["saturated"]),
            _or_dash(scale["firing_rate"], "{:.2%}"),
            _or_dash(scale["agreement"], "{:.4%}"),
            _or_dash(scale["largest_sum"], "{:,.0f}"),
            _or_dash(scale["worst_sum"], "{:,.0f}"),
        )
    output.print(result)
    if not quantization["exact_on_chip"]:
        output.print(
            "Loihi truncates membrane potentials to 1/64 of a weight unit: with this tau and number of steps "
            "some of its spikes differ from torch's; measure them with mksgn-bench run"
        )
    for name, scale in populations.items():
        if scale["firing_rate"] == 0:
            output.print(f"{name}: never fired on the calibration clips; train it longer, or with a rate_floor")
        if scale["agreement"] is not None and scale["worst_sum"] > SYNAPTIC_SUM_LIMIT:
            output.print(
                f"{name}: the worst-case sum of weights ({scale['worst_sum']:,.0f}) exceeds {SYNAPTIC_SUM_LIMIT:,}, "
                "the limit of Loihi's documented 16 bits; "
                f"the largest on the calibration clips was {scale['largest_sum']:,.0f}"
            )


def _factors(scale: dict[str, Any]) -> str:
    """Format the factors by which the integers of a population's projections are multiplied."""
    found = sorted({f"× {1 << e}" for e in scale.get("weight_exponents", {}).values()}, key=lambda text: int(text[2:]))
    return ", ".join(found) or "–"


def parities(parities: list[Parity], rates: dict[str, float], clips: int) -> None:
    """Print mismatches by population and comparison, then totals and first differences.

    Args:
        parities: The comparisons, all over the same populations.
        rates: Firing rate of each population.
        clips: Number of clips compared.
    """
    result = table(
        f"decisions that differ from the NIR reference execution, {clips} clips",
        ("population", "firing rate", "decisions", *(p.against.partition(" ")[0] for p in parities)),
    )
    for rows in zip(*(p.layers for p in parities), strict=True):
        rate = _or_dash(rates.get(rows[0].layer), "{:.2%}")
        result.add_row(rows[0].layer, rate, f"{rows[0].decisions:,}", *(f"{row.mismatches:,}" for row in rows))
    output.print(result)
    for parity in parities:
        output.print(f"{parity.mismatches:,} mismatches in {parity.decisions:,} decisions: {parity.against}")
        if parity.first is not None:
            first, margin = parity.first, _or_dash(parity.first.margin, "{:.2g}")
            position = f"sample {first.sample}, step {first.step}, neuron {first.neuron}"
            output.print(f"  first in {first.layer}, {position}, at a relative distance of {margin} from its threshold")


def accuracies(labels: np.ndarray, predictions: dict[str, np.ndarray]) -> None:
    """Print the top-1 accuracy of each set of predictions (clips,) against `labels` (clips,)."""
    for name, predicted in predictions.items():
        output.print(f"top-1 {(predicted == labels).mean():.1%}  {name}, {len(labels)} clips")


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
