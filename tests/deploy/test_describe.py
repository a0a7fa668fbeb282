"""mksgn/deploy/describe: the table of a program, and the picture of its schedule."""

import numpy as np

from mksgn.deploy import compile_graph
from mksgn.deploy.describe import describe
from tests.support.graphs import DT, chain, inp, lif, linear, out
from tests.support.programs import recurrent_loop


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
    assert "no picture of 151 time steps: more than 96" in capsys.readouterr().out
