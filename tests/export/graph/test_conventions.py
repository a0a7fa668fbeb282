"""mksgn/export/graph/conventions: what the metadata of a node say of its reset and its initial state."""

import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.export.graph.conventions import (
    RESETS,
    V_INITS,
    initial_of,
    reset_of,
    resting_at_zero,
    subtracted,
    with_conventions,
)
from mksgn.export.reference.execute import execute
from tests.support.graphs import DT, F32, chain, graph, inp, lif, linear, out


def said(node: nir.NIRNode, **metadata: object) -> nir.NIRNode:
    node.metadata |= metadata
    return node


def test_neurons_that_say_nothing_get_the_options():
    inner = chain(("input", inp(1)), ("n", lif(1)), ("output", out(1)))
    g = chain(
        ("x", inp(1)),
        ("sub", inner),
        ("m", said(lif(1), reset="zero")),
        ("i", nir.LI(*np.ones((3, 1), F32))),
        ("y", out(1)),
    )
    flat = with_conventions(g, "subtract", "leak")
    assert flat.nodes["sub.n"].metadata == {"reset": "subtract", "v_init": "leak"}
    assert flat.nodes["m"].metadata == {"reset": "zero", "v_init": "leak"}
    assert initial_of(flat.nodes["i"]).tolist() == [1]
    assert not inner.nodes["n"].metadata
    assert with_conventions(g) is g


@pytest.mark.parametrize("name", ["reset", "v_init"])
def test_unknown_words_are_refused_with_those_that_are_known(name):
    known = ", ".join(RESETS if name == "reset" else V_INITS)
    g = chain(("x", inp(1)), ("n", lif(1)), ("y", out(1)))
    with pytest.raises(BadInputError, match=f"^{name} 'soft': choose one of {known}"):
        with_conventions(g, **{name: "soft"})
    read = reset_of if name == "reset" else initial_of
    with pytest.raises(BadInputError, match=f"^metadata of a LIF: {name} 'soft'; choose one of {known}"):
        read(said(lif(1), **{name: "soft"}))


def test_potentials_may_be_given_as_numbers():
    assert initial_of(said(lif(2), v_init=np.array([0.5, -1], F32))).tolist() == [0.5, -1]
    node = said(lif(2, leak=0.25, reset=-0.5), v_init="leak")
    assert initial_of(node).tolist() == [0.25, 0.25]
    assert initial_of(said(node, v_init="v_reset")).tolist() == [-0.5, -0.5]
    assert initial_of(lif(2, leak=0.25)).tolist() == [0]


def test_what_a_spike_subtracts():
    assert subtracted(lif(2)) is None
    assert subtracted(said(lif(2, threshold=1.0, reset=0.25), reset="subtract")).tolist() == [0.75, 0.75]
    assert subtracted(said(nir.LI(*np.ones((3, 1), F32)), reset="subtract")) is None


@pytest.mark.parametrize("v_init", ["zero", "v_reset", "leak"])
@pytest.mark.parametrize("reset", list(RESETS))
def test_shifted_potentials_give_the_same_spikes(reset, v_init):
    rng = np.random.default_rng(0)
    node = said(lif(9, threshold=0.5, tau=4 * DT, leak=0.25, reset=-0.5), reset=reset, v_init=v_init)
    nodes = {"x": inp(6), "w": linear(rng.normal(0.2, 0.6, (9, 6))), "n": node, "plain": lif(9), "y": out(9)}
    g = graph(nodes, [("x", "w"), ("w", "n"), ("n", "plain"), ("plain", "y")])
    shifted = resting_at_zero(g)
    assert not shifted.nodes["n"].v_reset.any()
    assert shifted.nodes["plain"] is nodes["plain"]
    x = (rng.random((5, 30, 6)) < 0.4).astype(F32)
    one, two = (execute(net, x, 30, DT, stepwise=True).spikes["n"] for net in (g, shifted))
    assert 0.05 < one.mean() < 0.95
    assert int((one != two).sum()) == 0
    assert resting_at_zero(shifted) is shifted
