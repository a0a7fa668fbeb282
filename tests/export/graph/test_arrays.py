"""mksgn/export/graph/arrays: an array or a mapping by input's name, and what is refused."""

import numpy as np
import pytest
import torch

from mksgn.deploy.errors import DeployError
from mksgn.export.errors import ExportError
from mksgn.export.graph.arrays import arrays_by_input


def test_an_array_is_that_of_the_only_input():
    x = np.zeros((2, 3))
    assert arrays_by_input(x, ["x"]) == {"x": x}
    assert arrays_by_input({"x": x}, ["x"]) == {"x": x}


def test_lists_and_tensors_become_arrays():
    arrays = arrays_by_input({"a": [[1, 0]], "b": torch.ones(1, 2)}, ["b", "a"])
    assert {name: x.tolist() for name, x in arrays.items()} == {"a": [[1, 0]], "b": [[1.0, 1.0]]}
    assert all(isinstance(x, np.ndarray) for x in arrays.values())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (np.zeros(1), r"^the graph has 2 inputs \(p, q\); give a dict of arrays by their names$"),
        ({"p": np.zeros(1)}, "^calibration of p: the graph's inputs are p, q$"),
        ({}, "^calibration of none: the graph's inputs are p, q$"),
        ({"p": np.zeros(1), "q": np.array(["a"])}, "^calibration of q: holds <U1, expected numbers$"),
    ],
)
@pytest.mark.parametrize("error", [ExportError, DeployError])
def test_what_does_not_fit_is_named(arrays, message, error):
    with pytest.raises(error, match=message):
        arrays_by_input(arrays, ["q", "p"], "calibration of", error=error)
