"""mksgn/deploy/describe: the table of a program, and the picture of its schedule."""

import json

import numpy as np

from mksgn.deploy import compile_graph
from mksgn.deploy.describe import describe, document
from mksgn.export.graph import files
from tests.support.graphs import DT, chain, inp, lif, linear, out
from tests.support.programs import recurrent_loop, resets


def test_rows_and_picture_of_a_loop(capsys):
    describe(compile_graph(recurrent_loop()), 4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "fixed point, one sample every 4 steps, latency 2"
    rows = {cells[1]: cells for line in lines if len(cells := [cell.strip() for cell in line.split("│")]) == 11}
    assert rows["a"][4:9] == ["4", "1", "b ↺1, a ↺3", "1", "1 … 4"]
    assert rows["c"][4:9] == ["3", "2", "x +2", "2", "2 … 5"]  # a logical step, and one that compensates for the loop
    assert [line.split() for line in lines[-3:]] == [
        ["111122223333··", "x"],
        ["·111122223333·", "a,", "b"],
        ["··111122223333", "c"],
    ]


def test_a_long_schedule_is_a_table_without_a_picture(capsys):
    net = chain(("x", inp(2)), ("d", linear(np.eye(2))), ("l", lif(2, tau=2 * DT)), ("y", out(2)))
    describe(compile_graph(net, precision="float"), 50)
    assert "no picture: 151 time steps, the limit is 96" in capsys.readouterr().out


def _layers(tmp_path, graph) -> dict[str, dict]:
    path = tmp_path / "net.nir"
    files.write(graph, path)
    described = json.loads(json.dumps(document(path, compile_graph(path), None)))
    return {layer["name"]: layer for layer in described["layers"]}


def test_delays_in_json_are_numbers(tmp_path):
    layers = _layers(tmp_path, recurrent_loop())
    assert layers["a"]["delays"] == [{"from": "b", "steps": 1, "loop": True}, {"from": "a", "steps": 3, "loop": True}]
    assert layers["c"]["delays"] == [{"from": "x", "steps": 2, "loop": False}]
    assert (layers["x"]["delays"], layers["x"]["neuron"], layers["x"]["window"]) == ([], None, None)


def test_neurons_in_json_are_fields(tmp_path):
    neurons = {name: layer["neuron"] for name, layer in _layers(tmp_path, resets()).items()}
    at_rest = {"v_init": [0.0, 0.0]}
    assert neurons["x"] is None
    assert neurons["a"] == {
        "reset": "subtract", "threshold": [5.0, 5.0], "v_reset": None, "subtracted": [5.0, 5.0], **at_rest
    }  # fmt: skip
    assert neurons["b"] == {
        "reset": "subtract-at-once", "threshold": [3.0, 3.0], "v_reset": None, "subtracted": [3.0, 3.0],
        "v_init": [-2.0, 1.0],
    }  # fmt: skip
    assert neurons["c"] == {
        "reset": "zero", "threshold": [4.0, 4.0], "v_reset": [0.0, 0.0], "subtracted": None, **at_rest
    }  # fmt: skip
