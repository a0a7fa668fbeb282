"""deploy/passes/place: neurons, product units and synapses counted one by one, and the cores that they need."""

import numpy as np
import pytest
from graphs import chain, conv, inp, lattice, lif, linear, out, reached, student_like

from mksgn.deploy import compile_graph
from mksgn.deploy.chips import LOIHI1, LOIHI2, Chip
from mksgn.deploy.passes.place import WEIGHT_BITS, place, synapses
from mksgn.deploy.program import Product


def student():
    return compile_graph(student_like(np.random.default_rng(0)), precision="float")


def tiny(neurons: int, bits: int, cores: int = 4) -> Chip:
    return Chip("tiny", cores, neurons, bits, "made up")


def dense(inputs: int, outputs: int):
    g = chain(("x", inp(inputs)), ("d", linear(np.ones((outputs, inputs)))), ("l", lif(outputs)), ("y", out(outputs)))
    return compile_graph(g, precision="float")


def test_synapses_end_where_they_are_counted():
    """Zeros of the weights are stored, zeros of the adjacency and places beyond the border are not."""
    program = student()
    for population in program.populations:
        wanted = 0
        for projection in program.into(population.name):
            if isinstance(projection, Product):  # two inputs for each of T · V² · C units
                wanted += 2 * 4 * 3 * 3 * 4
            else:
                wanted += int(reached(projection.operators, program[projection.source].shape).sum())
        assert synapses(program, population) == wanted
    assert synapses(program, program["spatial"]) == 4 * 4 * 4 * (4 + 3)  # T · C · C · (edges + joints)
    assert synapses(program, program["temporal"]) == 6 * 4 * (5 * 3 + 2 * 3)  # 5 of 6 taps lie inside, and the skip


def test_the_host_and_the_inputs_take_no_core():
    placement = place(student(), LOIHI2)
    assert [p.name for p in placement.populations] == [
        "spatial",
        "qkv",
        "attend.m",
        "attend.z",
        "proj",
        "temporal",
        "classes",
    ]
    assert [p.cores for p in placement.populations] == [1] * 7
    assert (placement.cores, placement.chips) == (7, 1)


def test_product_units_are_neurons():
    neurons = {p.name: p.neurons for p in place(student(), LOIHI2).populations}
    units = 4 * 3 * 3 * 4  # T · V² · C
    assert neurons["attend.m"] == 2 * 4 * 3 * 3 + units
    assert neurons["attend.z"] == 4 * 4 * 3 + units
    assert neurons["qkv"] == 12 * 4 * 3
    assert neurons["classes"] == 5


@pytest.mark.parametrize(
    ("inputs", "outputs", "chip", "cores"),
    [
        (4, 10, tiny(10, 10**6), 1),
        (4, 11, tiny(10, 10**6), 2),
        (4, 10, tiny(100, 4 * 10 * 8), 1),
        (4, 10, tiny(100, 4 * 5 * 8), 2),
        (4, 12, tiny(5, 4 * 4 * 8), 3),  # whichever is scarcer
        (4, 12, tiny(3, 4 * 6 * 8), 4),
    ],
)
def test_cores_follow_from_the_scarcer_of_neurons_and_memory(inputs, outputs, chip, cores):
    (population,) = place(dense(inputs, outputs), chip).populations
    assert population.cores == cores
    assert population.synapses == inputs * outputs


def test_limits_show_the_fullest_core():
    placement = place(dense(4, 11), tiny(4, 10**4))
    (population,) = placement.populations
    assert (population.cores, population.neurons_per_core, population.synaptic_bits_per_core) == (
        3,
        4,
        4 * 4 * WEIGHT_BITS,
    )
    assert placement.limits == [("neurons per core", 4, 4), ("synaptic bits per core", 128, 10**4)]


def test_many_cores_need_several_chips_which_is_no_violation():
    placement = place(dense(4, 20), tiny(2, 10**4, cores=4))
    assert (placement.cores, placement.chips) == (10, 3)
    assert placement.violations() == []


def test_a_neuron_whose_synapses_do_not_fit_one_core_is_a_violation():
    (violation,) = place(dense(100, 3), tiny(10, 799)).violations()
    assert violation == (
        "l: synaptic bits of one neuron (800) exceed 799 of a core of tiny; use fewer channels or a smaller kernel"
    )
    assert place(dense(100, 3), tiny(10, 800)).violations() == []


def test_nothing_of_a_small_network_breaks_a_real_chip():
    for chip in (LOIHI1, LOIHI2):
        placement = place(student(), chip)
        assert placement.violations() == []
        assert all(value <= limit for _, value, limit in placement.limits)


def test_an_empty_program_needs_nothing():
    program = compile_graph(chain(("x", inp(3)), ("y", out(3))), precision="float")
    placement = place(program, LOIHI2)
    assert (placement.cores, placement.chips, placement.violations()) == (0, 0, [])
    assert placement.limits == [("neurons per core", 0, 8192), ("synaptic bits per core", 0, 192 * 1024 * 8)]


def test_a_neuron_lies_on_one_core_with_all_its_synapses():
    """Three neurons of 80 bits, two of which exceed a core of 120: three cores."""
    (population,) = place(dense(10, 3), tiny(10, 120)).populations
    assert population.cores == 3
    assert population.synaptic_bits_per_core == 80


def test_the_neuron_with_the_most_synapses_decides_a_violation():
    """At the border a kernel of 3 has two taps, elsewhere three."""
    rng = np.random.default_rng(0)
    g = chain(
        ("x", inp(1, 3, 1)),
        ("c", conv(lattice(rng, 1, 1, 3, 1), padding=(1, 0))),
        ("l", lif(1, 3, 1)),
        ("y", out(1, 3, 1)),
    )
    program = compile_graph(g, precision="float")
    assert place(program, tiny(10, 3 * 8)).violations() == []
    assert len(place(program, tiny(10, 3 * 8 - 1)).violations()) == 1
