"""Small networks, and what the quantiser promises of their integers."""

import copy
import json

import nir
import numpy as np
import pytest

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.weights import weight_of
from mksgn.export.loihi import HALF_STEP
from mksgn.export.quantization.paths import weighted_paths
from mksgn.export.quantization.quantize import quantize
from tests.support.graphs import DT, conv, flatten, graph, inp, linear, out

IF_DT = 1.0


def spikes(rng, *shape, rate=0.5) -> np.ndarray:
    return (rng.random(shape) < rate).astype(np.float32)


def tau(rng, shape, dyadic: bool) -> np.ndarray:
    """dt / tau is a whole number of 4096ths."""
    of_4096 = 2 ** rng.integers(9, 12, shape) if dyadic else rng.integers(300, 3800, shape)
    return f32(DT * 4096 / of_4096)


def neuron(rng, kind: str, *shape: int, dyadic: bool = False) -> nir.NIRNode:
    """Parameters of its own for each neuron."""

    def per_neuron(low, high):
        return f32(rng.uniform(low, high, shape))

    if kind == "IF":
        return nir.IF(per_neuron(0.5, 2), per_neuron(0.8, 2))
    r, leak, threshold, reset = per_neuron(0.5, 2), per_neuron(-0.2, 0.2), per_neuron(0.3, 0.7), f32(np.zeros(shape))
    if kind == "LIF":
        return nir.LIF(tau(rng, shape, dyadic), r, leak, threshold, reset)
    taus = tau(rng, shape, dyadic), tau(rng, shape, dyadic)
    return nir.CubaLIF(*taus, r, leak, threshold, reset, per_neuron(0.5, 2))


def network(rng, kind: str, dyadic: bool = False) -> nir.NIRGraph:
    """A convolution, a delayed recurrent layer, and a skip through a Scale; no bias into a CubaLIF."""
    bias = rng.uniform(-0.2, 0.2, 3) * (kind != "CubaLIF")
    wide = (3, 2, 4)
    return graph(
        {
            "x": inp(2, 4, 4), "conv": conv(rng.normal(size=(3, 2, 3, 1)), bias),
            "first": neuron(rng, kind, *wide, dyadic=dyadic),
            "flat": flatten(*wide, start=0), "fc": linear(rng.normal(size=(5, 24)) / 2),
            "second": neuron(rng, kind, 5, dyadic=dyadic),
            "late": nir.Delay(f32(rng.integers(0, 3, 5) * DT)), "back": linear(rng.normal(size=(5, 5)) / 2),
            "scale": nir.Scale(f32(rng.normal(size=5))), "third": neuron(rng, kind, 5, dyadic=dyadic), "y": out(5),
        },
        [
            ("x", "conv"), ("conv", "first"), ("first", "flat"), ("flat", "fc"), ("fc", "second"), ("second", "late"),
            ("late", "back"),
            ("back", "second"), ("second", "scale"), ("scale", "third"), ("second", "third"), ("third", "y"),
        ],
    )  # fmt: skip


def gain_and_rate(node) -> tuple[np.ndarray, np.ndarray]:
    """The gain, and the rate of the membrane; float64 of float32 quotients, as every execution has them."""

    def rate(tau):
        return (np.float32(DT) / tau).astype(float)

    if isinstance(node, nir.IF | nir.I):
        return IF_DT * node.r.astype(float), np.zeros(node.r.shape)
    if isinstance(node, nir.CubaLIF | nir.CubaLI):
        return rate(node.tau_mem) * node.r * rate(node.tau_syn) * node.w_in, rate(node.tau_mem)
    return rate(node.tau) * node.r, rate(node.tau)


def in_units(quantised: nir.NIRGraph) -> nir.NIRGraph:
    """In integers, as loihi_oracle reads them, after checking the file's: gains of 1, thresholds without offset."""
    g = copy.deepcopy(quantised)
    for name, scale in json.loads(quantised.metadata["quantization"])["populations"].items():
        node, unit = g.nodes[name], 2.0 ** scale["exponent"]
        biases = 0.0
        for path in weighted_paths(quantised, name):
            weighted = g.nodes[path.weighted]
            weight = weight_of(weighted) / unit
            np.testing.assert_array_equal(weight % 2, 0)
            assert np.abs(weight).max() <= 254
            setattr(weighted, "scale" if isinstance(weighted, nir.Scale) else "weight", weight)
            if hasattr(weighted, "bias"):
                weighted.bias = weighted.bias.astype(float) / unit
                np.testing.assert_array_equal(weighted.bias % 1, 0)
                biases += np.abs(weighted.bias).max()
        gain, rate = gain_and_rate(node)
        assert biases <= 8190
        if hasattr(node, "v_leak"):
            node.v_leak = node.v_leak / gain / unit
            drive = node.v_leak * rate
            np.testing.assert_allclose(drive, np.rint(drive), rtol=1e-6, atol=1e-3)
            node.r = 1 / rate
        else:
            node.r = np.full(node.r.shape, 1 / DT)
        if hasattr(node, "w_in"):
            node.w_in = node.tau_syn.astype(float) / DT
        if not hasattr(node, "v_threshold"):
            continue
        threshold = node.v_threshold / gain / unit
        node.v_threshold = np.rint(threshold - HALF_STEP)
        assert node.v_threshold.min() >= 1
        assert node.v_threshold.max() <= 131_071
        above = threshold - node.v_threshold
        assert np.all((above > 0) & (above < 2.5 * HALF_STEP))
    return g


def refused(nodes: dict, edges, error=UnsupportedNodeError, *, x=None, message: str) -> None:
    shape = tuple(nodes["x"].input_type["input"])
    x = np.ones((2, *shape), dtype=np.float32) if x is None else x
    with pytest.raises(error, match=message):
        quantize(graph(nodes, edges), 8, x, 4, DT)


def populated(node: nir.NIRNode, weight=None) -> tuple[dict, list]:
    nodes = {"x": inp(2), "w": linear(np.eye(2)) if weight is None else weight, "n": node, "y": out(2)}
    return nodes, [("x", "w"), ("w", "n"), ("n", "y")]


def cuba(**changes) -> nir.CubaLIF:
    values = {
        "tau_syn": 2 * DT,
        "tau_mem": 2 * DT,
        "r": 1,
        "v_leak": 0,
        "v_threshold": 1,
        "v_reset": 0,
        "w_in": 1,
        **changes,
    }
    return nir.CubaLIF(**{name: f32(np.full(2, value)) for name, value in values.items()})
