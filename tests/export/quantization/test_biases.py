"""mksgn/export/quantization/biases: several biases and v_leak in one integer, and biases that Loihi cannot hold."""

import nir
import numpy as np
import pytest

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.quantization.quantize import quantize
from mksgn.export.reference.execute import execute
from tests.export.quantization.networks import in_units, populated, refused, spikes
from tests.support.graphs import DT, affine, conv, flatten, graph, inp, lif, linear, out, pool


def two_paths(first, second, *, shape=(4,)) -> nir.NIRGraph:
    nodes = {"x": inp(3), "a": first, "b": second, "y": lif(*shape, threshold=0.5), "out": out(*shape)}
    return graph(nodes, [("x", "a"), ("x", "b"), ("a", "y"), ("b", "y"), ("y", "out")], steps=4)


def test_a_bias_next_to_a_path_without_one_is_kept():
    rng = np.random.default_rng(0)
    graph = two_paths(linear(rng.normal(size=(4, 3))), affine(rng.normal(size=(4, 3)), [0.9, 0.1, 0.5, -0.3]))
    x = (rng.random((40, 3)) < 0.5).astype(np.float32)
    quantised, scales = quantize(graph, 8, x, 4, 1e-4)
    assert quantised.nodes["b"].bias.any()
    a, b = (execute(g, x, 4, 1e-4).spikes["y"] for g in (graph, quantised))
    assert (a == b).mean() == pytest.approx(scales["y"].agreement)
    assert (a == b).mean() > 0.97


def test_biases_of_different_layouts_add_up():
    """Per channel and flattened, per row, and v_leak: integers each, and in 13 bits with the exponent in all."""
    rng = np.random.default_rng(0)
    g = graph(
        {"x": inp(3, 3), "rows": affine(rng.normal(size=(3, 3, 3)), rng.normal(size=(3, 3)) / 2),
        "f": flatten(3, 3, start=0),
         "x2": inp(4), "fc": affine(rng.normal(size=(9, 4)), rng.normal(size=9) / 2),
         "n": lif(9, threshold=0.4, leak=0.1, reset=0.0), "y": out(9)},
        [("x", "rows"), ("rows", "f"), ("f", "n"), ("x2", "fc"), ("fc", "n"), ("n", "y")],
    )  # fmt: skip
    x = {"x": spikes(rng, 20, 5, 3, 3), "x2": spikes(rng, 20, 5, 4)}
    for bias in (1, 40):  # the second needs the exponent 7
        for name in ("rows", "fc"):
            g.nodes[name].bias = g.nodes[name].bias * np.float32(bias)
        quantised, scales = quantize(g, 8, x, 5, DT)
        integers, node = in_units(quantised), quantised.nodes["n"]
        drive = np.rint(integers.nodes["n"].v_leak * (DT / node.tau))
        total = integers.nodes["rows"].bias.ravel() + integers.nodes["fc"].bias + drive
        assert np.abs(total).max() <= (4095 if bias == 1 else 8190)
        assert bias == 1 or (np.abs(total).max() > 4095 and not np.any(total % 2))
        runs = [execute(h, x, 5, DT, stepwise=True).spikes["n"] for h in (g, quantised)]
        assert (runs[0] == runs[1]).mean() == pytest.approx(scales["n"].agreement, abs=1e-3)
        assert scales["n"].agreement > 0.97


def test_biases_that_are_none_per_channel_are_refused():
    rng = np.random.default_rng(0)
    nodes = {
        "x": inp(2, 4, 4),
        "a": conv(rng.normal(size=(2, 2, 1, 1)), [1, 2]),
        "p": pool((2, 2)),
        "y": lif(2, 2, 2),
        "out": out(2, 2, 2),
    }
    g = graph(nodes, [("x", "a"), ("a", "p"), ("p", "y"), ("y", "out")], steps=4)
    with pytest.raises(UnsupportedNodeError, match="node a: its bias is pooled before y"):
        quantize(g, 8, np.ones((2, 2, 4, 4), dtype=np.float32), 4, 1e-4)
    nodes = {"x": inp(2, 3), "a": affine(rng.normal(size=(4, 3)), np.ones(4)), "y": lif(2, 4), "out": out(2, 4)}
    g = graph(nodes, [("x", "a"), ("a", "y"), ("y", "out")], steps=4)
    with pytest.raises(UnsupportedNodeError, match="an Affine's bias on the last axis of y"):
        quantize(g, 8, np.ones((2, 2, 3), dtype=np.float32), 4, 1e-4)


def test_a_bias_that_loihi_s_membrane_cannot_get():
    nodes = {**populated(lif(2))[0], "w": affine(np.eye(2), [0.5, 0.5]), "d": nir.Delay(f32([DT, DT]))}
    refused(
        nodes, [("x", "w"), ("w", "d"), ("d", "n"), ("n", "y")], message="node w: its bias reaches n through a delay"
    )
