"""mksgn/deploy/decode: scores of an output, by hand, and what cannot be decoded."""

import numpy as np
import pytest

from mksgn.deploy import compile_graph
from mksgn.deploy.decode import Decoding
from mksgn.deploy.errors import DeployError
from mksgn.deploy.execution import Execution
from tests.support import graphs as net


def program(second: bool = False):
    nodes = {"x": net.inp(2), "w": net.linear(np.eye(2)), "n": net.lif(2), "y": net.out(2)}
    edges = [("x", "w"), ("w", "n"), ("n", "y")]
    if second:
        nodes["z"] = net.out(2)
        edges.append(("n", "z"))
    return compile_graph(net.graph(nodes, edges), precision="float")


def predictions(how, values, second=False):
    values = np.asarray(values, np.float32)[None]
    execution = Execution("emulator", "float", 1, values.shape[1], 0, {"y": values, "z": values[..., ::-1]})
    return Decoding.of(how).scores(program(second), execution)[0].argmax()


LATE, EARLY = [[0, 0], [1, 0], [1, 0], [0, 1]], [[0, 1], [1, 0], [1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("how", "values", "expected"),
    [
        ("sum", EARLY, 0),
        ("first-spike", EARLY, 1),
        ("first-spike", [[1, 1], [0, 1]], 1),  # at the same step: more spikes
        ("first-spike", [[0, 0], [0, 0]], 0),  # no spike: the first class
        ("last", LATE, 1),
        ("max", [[0, 0], [1, 3], [2, 0], [2, 0]], 1),
        ("sum", [[0, 0], [1, 3], [2, 0], [2, 0]], 0),
    ],
)
def test_predictions(how, values, expected):
    assert predictions(how, values) == expected


def test_one_of_several_outputs():
    assert predictions("sum@y", LATE, second=True) != predictions("sum@z", LATE, second=True)
    with pytest.raises(DeployError, match=r"2 outputs \(y, z\): say which is decoded, sum@y"):
        predictions("sum", LATE, second=True)
    with pytest.raises(DeployError, match="no such output; it has y"):
        predictions("sum@q", LATE)


def test_membrane_potentials_have_no_first_spike():
    readout = compile_graph(
        net.chain(("x", net.inp(2)), ("n", net.lif(2)), ("w", net.linear(np.eye(2))), ("y", net.out(2))),
        precision="float",
    )
    with pytest.raises(DeployError, match="gives membrane potentials, not spikes"):
        Decoding.of("first-spike").check(readout)
    with pytest.raises(DeployError, match="choose sum, max, last, first-spike"):
        Decoding.of("mean")
