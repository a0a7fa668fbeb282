"""The comparison itself: it counts decisions, finds the first difference, and never takes what is missing for equal."""

import numpy as np
import pytest

from mksgn.export import files
from mksgn.export.parity import Difference, compare
from mksgn.train.errors import BadInputError


def trains(**shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random(shape) < 0.3 for name, shape in shapes.items()}


def test_equal_trains_agree_on_every_decision():
    a = trains(x=(3, 4, 5), y=(3, 4, 2, 6))
    parity = compare("itself", a, {name: spikes.astype(np.uint8) for name, spikes in a.items()})
    assert (parity.decisions, parity.mismatches) == (60 + 144, 0)
    assert all(layer.first is None for layer in parity.layers)


def test_the_first_difference_is_the_first_by_lane_step_and_neuron():
    a = trains(x=(3, 4, 2, 6))
    b = {"x": a["x"].copy()}
    for place in [(2, 0, 0, 0), (1, 3, 1, 4)]:
        b["x"][place] ^= True
    (layer,) = compare("b", a, b).layers
    assert (layer.mismatches, layer.per_step, layer.first) == (2, (1, 0, 0, 1), Difference("x", 1, 3, (1, 4)))


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


@pytest.mark.parametrize("content", [None, b"", b"no HDF5 at all"])
def test_a_file_that_is_no_nir_graph_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.nir"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInputError, match=r"a\.nir") as caught:
        files.read(path)
    assert "\n" not in str(caught.value)
