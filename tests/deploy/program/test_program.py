"""mksgn/deploy/program/program: attention's products unit by unit, arrival delays, and properties of
itself.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.deploy.errors import DeployError
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FloatNeuron
from mksgn.deploy.program.program import Output, Population, Product, Program, Projection, float_neuron
from tests.support.graphs import SETTINGS, product_events, spikes


def as_sent(spikes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(spikes.astype(np.uint8))


def product(part: str, heads: int, width: int, weight: float = 1.0) -> Product:
    sources = ("qkv",) if part == "m" else ("m", "qkv")
    return Product(part, part, sources, part, heads, weight, (0,) * len(sources), _width=width)


@st.composite
def attentions(draw):
    heads, width, frames, joints = (draw(st.integers(1, high)) for high in (3, 3, 2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    qkv = spikes(rng, 2, 3 * heads * width, frames, joints)
    return (
        heads,
        width,
        qkv,
        spikes(rng, 2, heads, frames, joints, joints),
        draw(st.sampled_from([1.0, 0.25, 2.0, -2.0])),
    )


@SETTINGS
@given(attentions())
def test_the_map_s_current_is_the_weighted_count_of_pairs(drawn):
    heads, width, qkv, _, weight = drawn
    clips, stacked, frames, joints = qkv.shape
    channels = stacked // 3
    expected = np.zeros((clips, heads, frames, joints, joints))
    for n, h, t, i, j in np.ndindex(*expected.shape):
        for c in range(width):
            expected[n, h, t, i, j] += weight * (qkv[n, h * width + c, t, i] & qkv[n, channels + h * width + c, t, j])
    actual = product("m", heads, width, weight).current((as_sent(qkv),))
    np.testing.assert_array_equal(actual.numpy(), expected)


@SETTINGS
@given(attentions())
def test_the_value_s_current_is_the_weighted_count_of_pairs(drawn):
    heads, width, qkv, m, weight = drawn
    clips, stacked, frames, joints = qkv.shape
    channels = stacked // 3
    expected = np.zeros((clips, channels, frames, joints))
    for n, c, t, i in np.ndindex(*expected.shape):
        for j in range(joints):
            expected[n, c, t, i] += weight * (m[n, c // width, t, i, j] & qkv[n, 2 * channels + c, t, j])
    actual = product("z", heads, width, weight).current((as_sent(m), as_sent(qkv)))
    np.testing.assert_array_equal(actual.numpy(), expected)


@SETTINGS
@given(attentions())
def test_synapses_and_units_of_products_one_by_one(drawn):
    """A unit per head, frame, query, key and channel has exactly two inputs."""
    heads, width, qkv, m, _ = drawn
    _, stacked, frames, joints = qkv.shape
    channels = stacked // 3
    to_m, to_z_from_m, to_z = (np.zeros(shape, np.int64) for shape in (qkv.shape[1:], m.shape[1:], qkv.shape[1:]))
    units = 0
    for h, t, i, j, c in np.ndindex(heads, frames, joints, joints, width):
        channel = h * width + c
        to_m[channel, t, i] += 1
        to_m[channels + channel, t, j] += 1
        to_z_from_m[h, t, i, j] += 1
        to_z[2 * channels + channel, t, j] += 1
        units += 1
    for nonzero in (False, True):
        (actual,) = product("m", heads, width).fan_outs((qkv.shape[1:],), nonzero=nonzero)
        np.testing.assert_array_equal(actual, to_m)
        for actual, expected in zip(
            product("z", heads, width).fan_outs((m.shape[1:], qkv.shape[1:]), nonzero=nonzero),
            (to_z_from_m, to_z),
            strict=True,
        ):
            np.testing.assert_array_equal(actual, expected)
    assert product("m", heads, width).product_units(m.shape[1:]) == units
    assert product("z", heads, width).product_units((channels, frames, joints)) == units
    # each unit has two inputs
    assert to_m.sum() == to_z_from_m.sum() + to_z.sum() == 2 * units
    for part in ("m", "z"):
        assert product_events(product(part, heads, width), qkv[None], m[None])[2] == units


def small() -> Program:
    """encoder on the host → a → b, with a shortcut from the encoder to b."""
    dense = (ops.Dense(np.ones((2, 2), np.float32)),)
    neuron = FloatNeuron(0.5, np.ones(1, np.float32), np.zeros(1, np.float32))
    populations = (
        Population("x", (2,), "input", "host"),
        Population("encoder", (2,), "spiking", "host", neuron),
        Population("a", (2,), "spiking", "chip", neuron, depth=1),
        Population("b", (2,), "spiking", "chip", neuron, depth=2),
        Population("y", (2,), "readout", "chip", bias=np.zeros(2), depth=3, chip_depth=3),
    )
    projections = (
        Projection("in", "x", "encoder", dense),
        Projection("first", "encoder", "a", dense),
        Projection("second", "a", "b", dense),
        Projection("shortcut", "encoder", "b", dense, compensation_delay=1),
        Projection("last", "b", "y", dense),
    )
    return Program("float", 1e-4, 4, populations, projections, (Output("out", "y"),), frozenset({"x"}))


def test_arrival_delays_of_a_balanced_program_are_0():
    program = small()
    assert [program.arrival_delay(p, 0) for p in program.projections] == [0, 0, 0, 0, 0]


def test_the_arrival_delay_is_the_cost_of_the_synapse_beyond_the_depths():
    program = small()
    first, shortcut = program.into("a")[0], program.into("b")[1]
    late = {
        p.name: Population(p.name, p.shape, p.kind, p.location, p.neuron, p.bias, depth=0) for p in program.populations
    }
    flat = program.with_populations(late)
    assert flat.arrival_delay(first, 0) == 1  # the synapse's own step
    assert flat.arrival_delay(shortcut, 0) == 2
    assert flat.arrival_delay(program.projections[0], 0) == 0  # host to host takes no step
    z = Product("z", "z", ("a", "b"), "y", 1, 1.0, (0, 2), _width=1)
    assert [program.arrival_delay(z, index) for index in (0, 1)] == [1 + 1 + 0 - 3, 2 + 1 + 2 - 3]


def test_a_program_knows_its_parts():
    program = small()
    assert [p.name for p in program.inputs] == ["x"]
    assert [p.name for p in program.neurons] == ["encoder", "a", "b"]
    assert [p.name for p in program.into("b")] == ["second", "shortcut"]
    assert program.into("x") == ()
    assert program.latency == 3
    assert program["a"].size == 2
    assert Population("p", (2, 3, 4), "input").size == 24
    assert [p.kind for p in program.projections] == ["dense"] * 5
    assert program.projections[3].compensation_delays == (1,)
    assert program.projections[3].sources == ("encoder",)
    assert program.projections[3].product_units((2,)) == 0


def test_a_projection_is_named_after_its_first_operator_with_weights():
    pool, flat, dense = ops.SumPool((2, 2), (2, 2)), ops.Flatten(0, -1), ops.Dense(np.ones((1, 1)))
    assert Projection("p", "a", "b", (pool, flat, dense)).kind == "dense"
    assert Projection("p", "a", "b", (pool, flat)).kind == "pool"
    assert product("m", 1, 1).kind == "product"


def test_an_unknown_population_is_refused_with_the_known_names():
    with pytest.raises(DeployError, match="no population 'c'; it has x, encoder, a, b, y"):
        small()["c"]


def test_changed_populations_keep_their_place():
    program = small()
    changed = program.with_populations({"a": Population("a", (2,), "spiking", "chip", program["a"].neuron, depth=7)})
    assert [p.name for p in changed.populations] == [p.name for p in program.populations]
    assert (changed["a"].depth, program["a"].depth) == (7, 1)


def test_the_neuron_of_a_float_program():
    program = small()
    assert float_neuron(program["a"]) is program["a"].neuron


def test_a_program_without_outputs_has_no_latency():
    program = small()
    assert Program("float", 1e-4, 4, program.populations, program.projections, ()).latency == 0
