"""The comparison counts decisions, finds the first difference, and counts missing spikes as wrong."""

from dataclasses import replace

import numpy as np
import pytest

from mksgn.export.errors import ParityError
from mksgn.export.verification.parity import MARGIN, Difference, Parity, compare, with_margins


def trains(**shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(shape) < 0.3 for name, shape in shapes.items()}


def test_equal_trains_agree_on_every_decision():
    a = trains(x=(3, 4, 5), y=(3, 4, 2, 6))
    parity = compare("itself", a, {name: spikes.astype(np.uint8) for name, spikes in a.items()})
    assert (parity.decisions, parity.mismatches) == (60 + 144, 0)
    assert all(layer.first is None for layer in parity.layers)
    assert parity.first is None
    parity.check("x")


def test_the_first_difference_is_the_first_by_sample_step_and_neuron():
    a = trains(x=(3, 4, 2, 6))
    b = {"x": a["x"].copy()}
    for place in [(2, 0, 0, 0), (1, 3, 1, 4)]:
        b["x"][place] ^= True
    parity = compare("b", a, b)
    (layer,) = parity.layers
    assert (layer.mismatches, layer.per_step, layer.first) == (2, (1, 0, 0, 1), Difference("x", 1, 3, (1, 4)))
    assert parity.to_dict(np.array([7, 8, 9]))["first"]["clip"] == 8
    with pytest.raises(
        ParityError,
        match=r"m: 2 of 144 decisions differ \(b\), first in x at sample 1, step 3, neuron \(1, 4\); allowed: none",
    ):
        parity.check("m")


@pytest.mark.parametrize("change", ["missing", "added", "shape"])
def test_what_cannot_be_compared_counts_as_wrong(change):
    a = trains(x=(3, 4, 5), y=(3, 4, 2))
    b = dict(a)
    if change == "missing":
        del b["y"]
    elif change == "added":
        b["z"] = a["y"]
    else:
        b["y"] = a["y"][:, :, :1]
    parity = compare("b", a, b)
    assert parity.mismatches == 24
    assert parity.to_dict()["mismatches"] == 24
    assert not parity.agrees


@pytest.mark.parametrize(
    ("count", "margin", "agrees"),
    [(0, None, True), (2, MARGIN / 2, True), (3, MARGIN / 2, False), (1, MARGIN * 2, False)],
)
def test_an_unquantised_file_may_round_apart_near_its_threshold(count, margin, agrees):
    a = {"x": np.zeros((2, 4, 250_000), dtype=bool)}
    b = {"x": a["x"].copy()}
    b["x"][1, 2, :count] = True
    parity = replace(compare("b", a, b), rule="rounding")
    assert parity.allowed == 2
    if count:
        margins = np.full((1, 4, 250_000), 0.0)
        margins[0, 2, :count] = margin
        layer = with_margins(parity.layers[0], parity.rule, b["x"][1:], margins, np.array([1]))
        parity = replace(parity, layers=[layer])
        assert parity.first.margin == margin
    assert parity.agrees == agrees


def test_a_parity_of_nothing_agrees():
    assert Parity("nothing", []).agrees
