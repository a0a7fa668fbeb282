"""The shapes that are inferred are those that every execution computes, for all nodes of random graphs."""

import nir
import numpy as np
import pytest
from hypothesis import given

from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.kinds import LINEAR
from mksgn.export.graph.shapes import broadcast, infer_shapes, output_shape
from mksgn.export.graph.standard import standard_form
from mksgn.export.reference.nodes import linear, tensor
from tests.support.graphs import SETTINGS, chain, conv, inp, lif, out
from tests.support.random_networks import random_networks


@given(random_networks())
@SETTINGS
def test_shapes_of_random_graphs(network):
    graph = flatten(network.graph)
    signals = infer_shapes(graph, {name: x.shape[2:] for name, x in network.inputs.items()})
    assert signals is not None
    for name, shape in signals.into.items():
        node = graph.nodes[name]
        if isinstance(node, LINEAR) and not isinstance(node, nir.Delay):
            computed = tuple(linear(node, name, tensor(np.zeros((1, *shape)))).shape[1:])
            assert output_shape(node, shape) == computed, (name, type(node).__name__)
        elif isinstance(node, nir.Output):
            assert shape == tuple(node.output_type["output"])
    assert standard_form(graph) is graph


@pytest.mark.parametrize(
    ("shape", "fits"),
    [((), True), ((1,), True), ((1, 1, 3, 4), True), ((2, 3, 4), True), ((2, 1, 1), True), ((4,), False), ((3, 4), False),
     ((2, 3, 1, 4), False), ((2,), False)],
)  # fmt: skip
def test_parameters_have_the_signals_axes_or_are_one_number(shape, fits):
    fitted = broadcast(np.ones(shape), (2, 3, 4))
    assert (fitted is not None) is fits
    assert fitted is None or fitted.shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(2, 4), (3, 4, 5), (1, 2, 2)])
def test_a_signal_that_a_node_does_not_take_has_no_shape(shape):
    assert output_shape(conv(np.ones((1, 2, 3, 3))), shape) is None
    graph = chain(("x", inp(*shape)), ("c", conv(np.ones((1, 2, 3, 3)))), ("n", lif(1, 2, 3)), ("y", out(1, 2, 3)))
    assert infer_shapes(graph, {"x": shape}) is None
    assert standard_form(graph) is graph  # the stage that runs it names the node


@pytest.mark.parametrize(
    ("field", "value"),
    [("stride", (0, 0)), ("padding", (1, 1, 1)), ("weight", np.float32(1)), ("groups", None), ("dilation", "two")],
)
def test_damaged_fields_have_no_shape(field, value):
    node = conv(np.ones((1, 2, 3, 3)))
    setattr(node, field, value)
    graph = chain(("x", inp(2, 5, 5)), ("c", node), ("n", lif(1, 3, 3)), ("y", out(1, 3, 3)))
    assert infer_shapes(graph, {"x": (2, 5, 5)}) is None
