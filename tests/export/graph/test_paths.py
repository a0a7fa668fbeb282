"""mksgn/export/graph/paths: the linear paths into a node, in order, and their limit."""

import numpy as np
import pytest

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.paths import PATHS_LIMIT, LinearPath, LinearPaths
from mksgn.export.reference.execute import evaluation_order
from tests.support.graphs import graph, inp, ladder, lif, linear, out


def paths_of(g) -> LinearPaths:
    return LinearPaths(g, g.edges, evaluation_order(g))


def test_an_edge_that_closes_a_loop_delays_by_a_step():
    nodes = {name: linear(np.eye(2)) for name in ("w", "join", "back")} | {"x": inp(2), "n": lif(2), "y": out(2)}
    edges = [("x", "w"), ("w", "join"), ("x", "join"), ("join", "n"), ("n", "back"), ("back", "n"), ("n", "y")]
    paths = paths_of(graph(nodes, edges))
    expected = (LinearPath("n", ("back",), 1), LinearPath("x", ("w", "join")), LinearPath("x", ("join",)))
    assert paths.into("n") == expected
    assert paths.into("y") == (LinearPath("n"),)


def test_the_limit_itself_is_allowed():
    assert len(paths_of(ladder(8)).into("n")) == PATHS_LIMIT == 256
    with pytest.raises(UnsupportedNodeError, match="node s8: 512 linear paths lead into it, more than 256"):
        paths_of(ladder(9)).into("n")


def test_an_output_is_no_source():
    g = graph({"x": inp(2), "n": lif(2), "y": out(2), "m": lif(2)}, [("x", "n"), ("n", "y"), ("y", "m")])
    with pytest.raises(UnsupportedNodeError, match="node y: an edge leads out of this Output; end the graph there"):
        paths_of(g).into("m")
