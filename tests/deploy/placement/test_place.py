"""mksgn/deploy/placement/place: whole programs, counted neuron by neuron and synapse by synapse."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mksgn.deploy import compile_graph
from mksgn.deploy.placement.chips import LOIHI1, LOIHI2
from mksgn.deploy.placement.place import place, synapses
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Product, Projection
from tests.support import graphs as net
from tests.support.placements import assert_placed, dense, hand_built, student, tiny


def test_synapses_end_where_they_are_counted():
    """Zeros of the weights are stored, zeros of the adjacency and places beyond the border are not."""
    program = student()
    for population in program.populations:
        expected = 0
        for projection in program.into(population.name):
            if isinstance(projection, Product):  # two inputs for each of T · V² · C units
                expected += 2 * 4 * 3 * 3 * 4
            else:
                expected += int(net.reached(projection.operators, program[projection.source].shape).sum())
        assert synapses(program, population) == expected
    assert synapses(program, program["spatial"]) == 4 * 4 * 4 * (4 + 3)  # T · C · C · (edges + joints)
    assert synapses(program, program["temporal"]) == 6 * 4 * (5 * 3 + 2 * 3)  # 5 of 6 taps lie inside, and the skip


def test_the_host_and_the_inputs_take_no_core():
    placement = place(student(), LOIHI2)
    assert [p.name for p in placement.populations] == [
        "spatial",
        "qkv",
        "attend.m units",
        "attend.m",
        "attend.z units",
        "attend.z",
        "proj",
        "temporal",
        "classes",
    ]
    assert [p.cores for p in placement.populations] == [1] * 9
    assert (placement.cores, placement.chips) == (9, 1)


def test_limits_show_the_fullest_core_and_what_is_not_published():
    placement = place(dense(4, 11), tiny(4, 10**4))
    (population,) = placement.populations
    assert population.usage[:, 0].tolist() == [3, 4, 4]
    assert placement.limits == [
        ("neurons per core", 4, 4),
        ("synaptic bits per core", 128, 10**4),
        ("input axons per core", 4, None),
        ("output axons per core", 0, None),
    ]


def test_many_cores_need_several_chips_which_is_no_overflow():
    placement = place(dense(4, 20), tiny(2, 10**4))
    assert (placement.cores, placement.chips) == (10, 3)
    assert placement.overflows == ()


def test_nothing_of_a_small_network_breaks_a_real_chip():
    for chip in (LOIHI1, LOIHI2):
        placement = place(student(), chip)
        assert placement.overflows == ()
        assert all(limit is None or value <= limit for _, value, limit in placement.limits)
        assert_placed(placement)


def test_an_empty_program_needs_nothing():
    program = compile_graph(net.chain(("x", net.inp(3)), ("y", net.out(3))), precision="float")
    program = replace(program, populations=program.inputs, projections=(), outputs=())
    placement = place(program, LOIHI1)
    assert (placement.cores, placement.chips, placement.overflows) == (0, 0, ())
    assert [value for _, value, _ in placement.limits] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "chip",
    [
        tiny(),
        tiny(neurons=7),
        tiny(bits=900),
        tiny(inputs=24),
        tiny(outputs=20),
        tiny(neurons=17, bits=1500, inputs=30, outputs=25),
    ],
    ids=["roomy", "neurons", "bits", "inputs", "outputs", "all"],
)
def test_a_student_synapse_by_synapse(chip):
    assert_placed(place(student(), chip))


@net.SETTINGS
@given(st.data())
def test_no_core_of_a_drawn_program_exceeds_a_limit(data):
    """Convolutions with groups, strides and padding, graph convolutions, skips, attention, read-outs; drawn limits."""
    draw = data.draw
    small = st.integers(1, 3)
    groups, heads = draw(small), draw(st.integers(1, 2))
    channels, frames, joints = groups * draw(small), draw(st.integers(2, 5)), draw(st.integers(2, 4))
    kernel, stride, padding, dilation = draw(small), draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(small)
    after = (frames + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    width = heads * draw(st.integers(1, 2))
    nodes = {
        "x": net.inp(channels, frames, joints),
        "space": net.graph_conv(net.ring(joints), np.ones((3, width, channels))),
        "skip": net.conv(np.ones((width, channels, 1, 1))),
        "a": net.lif(width, frames, joints),
    }
    edges = [("x", "space"), ("x", "skip"), ("space", "a"), ("skip", "a")]
    last, shape = "a", (width, frames, joints)
    if draw(st.booleans()):
        nodes |= {"c": net.conv(np.ones((3 * width, width, 1, 1))), "qkv": net.lif(3 * width, frames, joints)}
        nodes |= {"attend": net.attention(heads), "p": net.conv(np.ones((width, width, 1, 1))), "b": net.lif(*shape)}
        edges += [("a", "c"), ("c", "qkv"), ("qkv", "attend"), ("attend", "p"), ("p", "b"), ("skip", "b")]
        last = "b"
    if after > 0 and width % groups == 0:
        weight = np.ones((groups * draw(small), width // groups, kernel, 1))
        nodes["t"] = net.conv(weight, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1), groups=groups)
        shape = (len(weight), after, joints)
        nodes["e"] = net.lif(*shape)
        edges += [(last, "t"), ("t", "e")]
        last = "e"
    nodes |= {
        "pool": net.pool((shape[1], joints)),
        "flat": net.flatten(shape[0], 1, 1),
        "d": net.linear(np.ones((3, shape[0]))),
    }
    nodes["y"] = net.out(3)
    edges += [(last, "pool"), ("pool", "flat"), ("flat", "d"), ("d", "y")]
    program = compile_graph(net.graph(nodes, edges), precision="float")

    def limit(low: int, high: int):
        return st.none() | st.integers(low, high)

    chip = tiny(
        neurons=draw(st.integers(1, 60)),
        bits=draw(st.integers(8, 4000)),
        inputs=draw(limit(1, 60)),
        outputs=draw(limit(1, 60)),
    )
    assert_placed(place(program, chip))


def test_a_population_in_a_loop_reaches_its_own_cores():
    """Eight neurons in a row, each with its two neighbours: those at the edge of a core reach the next one too."""
    ones = np.ones((1, 1, 3), dtype=np.float32)
    program = hand_built(
        {"x": (1, 8), "l": (1, 8)},
        Projection("w", "x", "l", ()),
        Projection("loop", "l", "l", (ops.Conv(ones, (1,), (1,), (1,)),), logical_delay=1),
    )
    for outputs, cores in [(None, 2), (5, 2), (4, 4), (3, 8), (2, 8)]:
        placement = place(program, tiny(neurons=4, outputs=outputs))
        assert placement.cores == cores
        assert_placed(placement)
        assert [o.value for o in placement.overflows] == ([3] if outputs == 2 else [])


def test_a_loop_of_all_to_all_that_no_cut_fits():
    """However many neurons share a core, together they reach eight cores."""
    ones = ops.Dense(np.ones((8, 8), dtype=np.float32))
    program = hand_built(
        {"x": (8,), "l": (8,)}, Projection("w", "x", "l", ()), Projection("loop", "l", "l", (ones,), logical_delay=1)
    )
    assert place(program, tiny(neurons=4, outputs=8)).overflows == ()
    (overflow,) = place(program, tiny(neurons=4, outputs=7)).overflows
    assert (overflow.name, overflow.quantity, overflow.value, overflow.limit) == ("l", "output axons", 8, 7)


def test_a_loop_over_two_populations_is_placed():
    ones = (ops.Dense(np.ones((6, 6), dtype=np.float32)),)
    program = hand_built(
        {"x": (6,), "a": (6,), "b": (6,)},
        Projection("in", "x", "a", ones),
        Projection("there", "a", "b", ones),
        Projection("back", "b", "a", ones, logical_delay=1),
    )
    for outputs in (None, 12, 6):
        placement = place(program, tiny(neurons=3, outputs=outputs))
        assert placement.overflows == ()
        assert_placed(placement)


def test_placing_twice_gives_the_same():
    one, two = (place(student(), tiny(neurons=17, inputs=30)) for _ in range(2))
    assert [p.cores for p in one.populations] == [p.cores for p in two.populations]
    for a, b in zip(one.populations, two.populations, strict=True):
        np.testing.assert_array_equal(a.core_of(), b.core_of())
