"""mksgn/deploy/placement/tiles: the cut of one group, by each of the limits in turn."""

import doctest
import itertools

import numpy as np
import pytest

from mksgn.deploy import compile_graph
from mksgn.deploy.placement import tiles
from mksgn.deploy.placement.connectivity import groups
from mksgn.deploy.placement.place import place
from tests.support.graphs import chain, conv, inp, lattice, lif, linear, out
from tests.support.placements import assert_placed, dense, student, tiny
from tests.support.tiers import one_in


def test_the_examples_in_the_docstrings():
    failed, attempted = doctest.testmod(tiles)
    assert failed == 0 < attempted


@pytest.mark.parametrize(
    "limits", one_in(3, [{"neurons": 7}, {"bits": 900}, {"inputs": 24}, {"neurons": 17, "inputs": 30}])
)
def test_no_other_choice_of_equal_parts_needs_fewer_cores(limits):
    """Every choice of parts per axis, of which the ones within the limits are found core by core."""
    chip = tiny(**limits)
    caps = np.array([np.inf if limit is None else limit for limit in chip.core_limits])
    for group in groups(student()):
        none = np.zeros((1,) * len(group.shape), dtype=np.int64)
        chosen = tiles.cut(group, none, chip, {})
        caps_here = np.maximum(caps, tiles.single_neuron_needs(group, none, chip))
        every = itertools.product(*(range(1, n + 1) for n in group.shape))
        bounds = [
            tuple(np.arange(c + 1) * n // c for c, n in zip(counts, group.shape, strict=True)) for counts in every
        ]
        fitting = [
            len(usage) for usage in (tiles.usage(group, none, b, chip) for b in bounds) if (usage <= caps_here).all()
        ]
        assert len(tiles.usage(group, none, chosen, chip)) == min(fitting)


def test_few_input_axons_divide_a_population():
    """Eight channels at six places see four sources each: cores of two places have eight input axons."""
    g = chain(("x", inp(4, 6, 1)), ("c", conv(np.ones((8, 4, 1, 1)))), ("l", lif(8, 6, 1)), ("y", out(8, 6, 1)))
    program = compile_graph(g, precision="float")
    for limit, cores in [(24, 1), (12, 2), (8, 3), (7, 6), (4, 6)]:
        placement = place(program, tiny(inputs=limit))
        assert placement.cores == cores
        assert placement.overflows == ()
        assert_placed(placement)
    assert place(program, tiny(inputs=8)).populations[0].usage[:, 0].tolist() == [16, 16, 16]  # no channel apart


def test_few_output_axons_divide_the_source_not_the_target():
    """Each of 12 neurons reaches the three cores of what it feeds: 36 output axons."""
    g = chain(
        ("x", inp(2)), ("a", linear(np.ones((12, 2)))), ("l", lif(12)), ("b", linear(np.ones((9, 12)))), ("m", lif(9)),
        ("y", out(9)),
    )  # fmt: skip
    program = compile_graph(g, precision="float")
    for limit, cores in [(36, 1), (35, 2), (18, 2), (12, 3), (3, 12)]:
        placement = place(program, tiny(bits=12 * 3 * 8, outputs=limit))
        source, target = placement.populations
        assert (source.cores, target.cores) == (cores, 3)
        assert np.broadcast_to(source.cores_reached, source.shape).tolist() == [3] * 12
        assert_placed(placement)


def test_a_neuron_that_no_core_holds_overflows():
    (overflow,) = place(dense(100, 3), tiny(10, 799)).overflows
    assert (overflow.name, overflow.quantity, overflow.value, overflow.limit) == ("l", "synaptic bits", 800, 799)
    assert place(dense(100, 3), tiny(10, 800)).overflows == ()
    (overflow,) = place(dense(100, 3), tiny(inputs=99)).overflows
    assert (overflow.name, overflow.quantity, overflow.value, overflow.limit) == ("l", "input axons", 100, 99)


def test_the_neuron_with_the_most_synapses_decides_an_overflow():
    """At the border a kernel of 3 has two taps, elsewhere three."""
    rng = np.random.default_rng(0)
    g = chain(
        ("x", inp(1, 3, 1)),
        ("c", conv(lattice(rng, 1, 1, 3, 1), padding=(1, 0))),
        ("l", lif(1, 3, 1)),
        ("y", out(1, 3, 1)),
    )
    program = compile_graph(g, precision="float")
    assert place(program, tiny(bits=3 * 8)).overflows == ()
    assert len(place(program, tiny(bits=3 * 8 - 1)).overflows) == 1


def test_a_neuron_lies_on_one_core_with_all_its_synapses():
    """Three neurons of 80 bits, two of which exceed a core of 120: three cores."""
    (population,) = place(dense(10, 3), tiny(10, 120)).populations
    assert population.usage[:, 1].tolist() == [80, 80, 80]


@pytest.mark.parametrize(
    ("inputs", "outputs", "chip", "cores"),
    [
        (4, 10, tiny(10), 1),
        (4, 11, tiny(10), 2),
        (4, 10, tiny(bits=4 * 10 * 8), 1),
        (4, 10, tiny(bits=4 * 5 * 8), 2),
        (4, 12, tiny(5, 4 * 4 * 8), 3),  # whichever is scarcer
        (4, 12, tiny(3, 4 * 6 * 8), 4),
        (4, 12, tiny(inputs=4), 1),
    ],
)
def test_cores_follow_from_the_scarcest_resource(inputs, outputs, chip, cores):
    (population,) = place(dense(inputs, outputs), chip).populations
    assert population.cores == cores
    assert population.synapses == inputs * outputs
