"""mksgn/deploy/placement/place: cores counted neuron by neuron and synapse by synapse, on small programs and on drawn ones."""

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.deploy import compile_graph
from mksgn.deploy.placement.chips import LOIHI1, LOIHI2, Chip
from mksgn.deploy.placement.place import Placement, place, synapses
from mksgn.deploy.placement.tiles import RESOURCES, WEIGHT_BITS, core_limits
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Population, Product, Program, Projection
from tests.support.graphs import (
    SETTINGS,
    attention,
    chain,
    conv,
    flatten,
    graph,
    graph_conv,
    inp,
    lattice,
    lif,
    linear,
    out,
    pool,
    reached,
    ring,
    student_like,
)


def student():
    return compile_graph(student_like(np.random.default_rng(0)), precision="float")


def tiny(neurons=10**6, bits=10**9, inputs=None, outputs=None, cores=4) -> Chip:
    return Chip("tiny", cores, neurons, bits, "made up", inputs, outputs)


def dense(inputs: int, outputs: int):
    g = chain(("x", inp(inputs)), ("d", linear(np.ones((outputs, inputs)))), ("l", lif(outputs)), ("y", out(outputs)))
    return compile_graph(g, precision="float")


# --- every synapse of a placement, as (source neuron, target neuron) --------------------------------------------------------


def connected(operators, shape) -> np.ndarray:
    """(target neurons, source neurons): paths, every weight 1, from one spike at each source neuron in turn."""
    one_by_one = torch.eye(math.prod(shape)).view(-1, *shape)
    found = ops.apply(ops.with_weights(operators, np.ones_like), one_by_one)
    return np.rint(found.flatten(1).T.numpy()).astype(int)


def unit_synapses(projection: Product, program: Program) -> list[tuple[str, str, np.ndarray]]:
    """Of a product's units, one by one: what ends in them, and what they end in."""
    target = program[projection.target]
    stacked, frames, joints = program[projection.sources[-1]].shape
    channels, name = stacked // 3, f"{projection.target} units"
    shape, width = (channels, frames, joints, joints), channels // projection.heads
    into = {s: np.zeros((math.prod(shape), program[s].size), dtype=int) for s in projection.sources}
    onward = np.zeros((target.size, math.prod(shape)), dtype=int)
    for unit, (c, t, i, j) in enumerate(np.ndindex(*shape)):
        if projection.part == "m":
            ends = [(c, t, i), (channels + c, t, j)]
            sums = (c // width, t, i, j)
        else:
            ends = [(2 * channels + c, t, j)]
            sums = (c, t, i)
            maps = projection.sources[0]
            into[maps][unit, np.ravel_multi_index((c // width, t, i, j), program[maps].shape)] += 1
        for end in ends:
            into[projection.sources[-1]][unit, np.ravel_multi_index(end, (stacked, frames, joints))] += 1
        onward[np.ravel_multi_index(sums, target.shape), unit] += 1
    return [*((s, name, matrix) for s, matrix in into.items()), (name, projection.target, onward)]


def by_hand(placement: Placement) -> dict[str, np.ndarray]:
    """(cores, RESOURCES) by population, from lists of synapses and of the core of each neuron."""
    program = placement.program
    core = {p.name: p.core_of().ravel() for p in placement.populations}
    ends: list[tuple[str, str, np.ndarray]] = []
    for projection in program.projections:
        if isinstance(projection, Product):
            ends += unit_synapses(projection, program)
        elif projection.target in core:
            source = projection.source
            ends.append((source, projection.target, connected(projection.operators, program[source].shape)))
    used = np.zeros((placement.cores, len(RESOURCES)), dtype=int)
    arriving: dict[int, set] = defaultdict(set)
    reaching: dict[tuple, set] = defaultdict(set)
    for cores in core.values():
        used[:, 0] += np.bincount(cores, minlength=placement.cores)
    for source, target, paths in ends:
        np.add.at(used[:, 1], core[target], WEIGHT_BITS * paths.sum(1))
        for t, s in np.argwhere(paths):
            arriving[core[target][t]].add((source, s))
            if source in core:
                reaching[source, s].add(core[target][t])
    for each, sources in arriving.items():
        used[each, 2] = len(sources)
    for (source, s), targets in reaching.items():
        used[core[source][s], 3] += len(targets)
    return {p.name: used[p.first_core : p.first_core + p.cores] for p in placement.populations}


def assert_placed(placement: Placement, *, exact: bool = True) -> None:
    """Every neuron on one core, every count right, and no core beyond a limit unless one neuron alone is."""
    wanted = by_hand(placement)
    first = 0
    for p in placement.populations:
        core = p.core_of()
        assert core.shape == p.shape
        assert sorted(np.unique(core)) == list(range(first, first + p.cores))  # none empty
        first += p.cores
        if exact:
            np.testing.assert_array_equal(p.usage, wanted[p.name], err_msg=p.name)
        else:
            np.testing.assert_array_equal(p.usage[:, :2], wanted[p.name][:, :2], err_msg=p.name)
            assert (p.usage >= wanted[p.name]).all()
        assert p.synapses * WEIGHT_BITS == p.usage[:, 1].sum()
        assert np.broadcast_to(p.cores_reached, p.shape).sum() == p.usage[:, 3].sum()
        for resource, used, limit in zip(RESOURCES, p.usage.T, core_limits(placement.chip), strict=True):
            if not any((o.name, o.quantity) == (p.name, resource) for o in placement.overflows):
                assert limit is None or used.max() <= limit, f"{p.name}: {resource}"


# --- counts ---------------------------------------------------------------------------------------------------------------


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


def test_product_units_are_neurons_with_synapses_of_their_own():
    placed = {p.name: p for p in place(student(), LOIHI2).populations}
    units = 4 * 3 * 3 * 4  # T · V² · C
    assert [placed[name].neurons for name in ("attend.m units", "attend.m")] == [units, 2 * 4 * 3 * 3]
    assert [placed[name].neurons for name in ("attend.z units", "attend.z")] == [units, 4 * 4 * 3]
    assert [placed[name].synapses for name in ("attend.m units", "attend.z units")] == [2 * units, 2 * units]
    assert [placed[name].synapses for name in ("attend.m", "attend.z")] == [units, units]
    assert [placed[name].fan_in for name in ("attend.m", "attend.z")] == [2, 3]  # channels per head; keys
    assert [placed[name].units_of for name in ("attend.m units", "attend.m")] == ["attend.m", None]


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
        ("x", inp(2)), ("a", linear(np.ones((12, 2)))), ("l", lif(12)), ("b", linear(np.ones((9, 12)))), ("m", lif(9)), ("y", out(9))
    )  # fmt: skip
    program = compile_graph(g, precision="float")
    for limit, cores in [(36, 1), (35, 2), (18, 2), (12, 3), (3, 12)]:
        placement = place(program, tiny(bits=12 * 3 * 8, outputs=limit))
        source, target = placement.populations
        assert (source.cores, target.cores) == (cores, 3)
        assert np.broadcast_to(source.cores_reached, source.shape).tolist() == [3] * 12
        assert_placed(placement)


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


def test_nothing_of_a_small_network_breaks_a_real_chip():
    for chip in (LOIHI1, LOIHI2):
        placement = place(student(), chip)
        assert placement.overflows == ()
        assert all(limit is None or value <= limit for _, value, limit in placement.limits)
        assert_placed(placement)


def test_an_empty_program_needs_nothing():
    program = compile_graph(chain(("x", inp(3)), ("y", out(3))), precision="float")
    program = replace(program, populations=program.inputs, projections=(), outputs=())
    placement = place(program, LOIHI1)
    assert (placement.cores, placement.chips, placement.overflows) == (0, 0, ())
    assert [value for _, value, _ in placement.limits] == [0, 0, 0, 0]


def test_a_neuron_lies_on_one_core_with_all_its_synapses():
    """Three neurons of 80 bits, two of which exceed a core of 120: three cores."""
    (population,) = place(dense(10, 3), tiny(10, 120)).populations
    assert population.usage[:, 1].tolist() == [80, 80, 80]


# --- by hand, on whole networks ----------------------------------------------------------------------------------------------


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


@SETTINGS
@given(st.data())
def test_no_core_of_a_drawn_program_exceeds_a_limit(data):
    """Convolutions with groups, strides and borders, graph convolutions with skips, attention, pooled read-outs; drawn limits."""
    draw = data.draw
    small = st.integers(1, 3)
    groups, heads = draw(small), draw(st.integers(1, 2))
    channels, frames, joints = groups * draw(small), draw(st.integers(2, 5)), draw(st.integers(2, 4))
    kernel, stride, padding, dilation = draw(small), draw(st.integers(1, 2)), draw(st.integers(0, 2)), draw(small)
    after = (frames + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    width = heads * draw(st.integers(1, 2))
    nodes = {
        "x": inp(channels, frames, joints),
        "space": graph_conv(ring(joints), np.ones((3, width, channels))),
        "skip": conv(np.ones((width, channels, 1, 1))),
        "a": lif(width, frames, joints),
    }
    edges = [("x", "space"), ("x", "skip"), ("space", "a"), ("skip", "a")]
    last, shape = "a", (width, frames, joints)
    if draw(st.booleans()):
        nodes |= {"c": conv(np.ones((3 * width, width, 1, 1))), "qkv": lif(3 * width, frames, joints)}
        nodes |= {"attend": attention(heads), "p": conv(np.ones((width, width, 1, 1))), "b": lif(*shape)}
        edges += [("a", "c"), ("c", "qkv"), ("qkv", "attend"), ("attend", "p"), ("p", "b"), ("skip", "b")]
        last = "b"
    if after > 0 and width % groups == 0:
        weight = np.ones((groups * draw(small), width // groups, kernel, 1))
        nodes["t"] = conv(weight, stride=(stride, 1), padding=(padding, 0), dilation=(dilation, 1), groups=groups)
        shape = (len(weight), after, joints)
        nodes["e"] = lif(*shape)
        edges += [(last, "t"), ("t", "e")]
        last = "e"
    nodes |= {"pool": pool((shape[1], joints)), "flat": flatten(shape[0], 1, 1), "d": linear(np.ones((3, shape[0])))}
    nodes["y"] = out(3)
    edges += [(last, "pool"), ("pool", "flat"), ("flat", "d"), ("d", "y")]
    program = compile_graph(graph(nodes, edges), precision="float")

    def limit(low: int, high: int):
        return st.none() | st.integers(low, high)

    chip = tiny(
        neurons=draw(st.integers(1, 60)),
        bits=draw(st.integers(8, 4000)),
        inputs=draw(limit(1, 60)),
        outputs=draw(limit(1, 60)),
    )
    assert_placed(place(program, chip))


def hand_built(shapes: dict[str, tuple], *projections: Projection) -> Program:
    """Float populations that fire; those that nothing leads to are inputs."""
    targets = {p.target for p in projections}
    populations = tuple(Population(n, s, "spiking" if n in targets else "input") for n, s in shapes.items())
    return Program("float", 1e-4, 4, populations, projections, ())


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


@pytest.mark.parametrize(
    ("shape", "operators", "exact"),
    [
        ((3, 4), (ops.Conv(np.ones((2, 3, 2), dtype=np.float32), (1,), (1,), (1,)),), True),
        ((2, 3), (ops.Dense(np.ones((2, 4, 3), dtype=np.float32)),), True),
        ((2, 3), (), True),
        ((2, 3), (ops.Scale(np.zeros((2, 3), dtype=np.float32)),), True),
        (
            (2, 4, 3),
            (ops.SumPool((2, 3), (2, 3)), ops.Flatten(0, 2), ops.Dense(np.ones((3, 4), dtype=np.float32))),
            True,
        ),
        ((2, 4, 3), (ops.SumPool((2, 2), (1, 1), (1, 1)),), True),
        ((2, 1, 3), (ops.Flatten(1, 2), ops.Dense(np.ones((5, 3), dtype=np.float32))), True),
        ((2, 4, 3), (ops.Flatten(0, 2),), False),  # three axes in one, which tiles do not separate
        ((2, 3), (ops.Mask(np.array([[True, False, True], [False, True, True]])),), False),
    ],
    ids=["conv1d", "batch", "identity", "scale", "readout", "pool", "squeeze", "flatten", "mask"],
)
def test_every_operator_is_counted_by_hand(shape, operators, exact):
    target = ops.out_shape(operators, shape)
    program = hand_built(
        {"x": shape, "a": shape, "b": target},
        Projection("in", "x", "a", ()),
        Projection("w", "a", "b", operators),
    )
    for chip in (tiny(), tiny(neurons=5), tiny(inputs=7, outputs=4)):
        assert_placed(place(program, chip), exact=exact)


def test_many_projections_between_two_populations_share_axons():
    """Two convolutions from one source that overlap in part: an axon serves both."""
    here = ops.Conv(np.ones((2, 2, 3, 1), dtype=np.float32), (1, 1), (1, 0))
    there = ops.Conv(np.ones((2, 2, 1, 3), dtype=np.float32), (1, 1), (0, 1))
    program = hand_built(
        {"x": (2, 5, 3), "a": (2, 5, 3), "b": (2, 5, 3)},
        Projection("in", "x", "a", ()),
        Projection("here", "a", "b", (here,)),
        Projection("there", "a", "b", (there,)),
        Projection("skip", "a", "b", ()),
    )
    for chip in (tiny(), tiny(neurons=4), tiny(inputs=12, outputs=9)):
        assert_placed(place(program, chip))


def test_projections_along_different_axes_share_the_axons_where_they_cross():
    """Neuron i of the target sums the ends of row i and all of column i of the source."""
    rows = (ops.Conv(np.ones((3, 1, 2), dtype=np.float32), (1,), (0,), (2,), groups=3), ops.Flatten(0, 1))
    columns = (ops.Conv(np.ones((1, 3, 1), dtype=np.float32), (1,), (0,), (1,)), ops.Flatten(0, 1))
    program = hand_built(
        {"x": (3, 3), "a": (3, 3), "b": (3,)},
        Projection("in", "x", "a", ()),
        Projection("rows", "a", "b", rows),
        Projection("columns", "a", "b", columns),
    )
    for cores, axons in [(3, 5), (2, 8), (1, 9)]:
        placement = place(program, tiny(bits=5 * 8 * -(-3 // cores)))
        assert_placed(placement)
        assert placement.populations[1].usage[:, 2].max() == axons


def test_very_many_projections_between_two_populations_get_an_upper_bound():
    shifted = [ops.Conv(np.ones((1, 1, 2), dtype=np.float32), (1,), (d,), (2 * d,)) for d in range(1, 7)]
    program = hand_built(
        {"x": (1, 9), "a": (1, 9), "b": (1, 9)},
        Projection("in", "x", "a", ()),
        *(Projection(f"by {i}", "a", "b", (operator,)) for i, operator in enumerate(shifted)),
    )
    assert_placed(place(program, tiny(neurons=3, inputs=60)), exact=False)


def test_placing_twice_gives_the_same():
    one, two = (place(student(), tiny(neurons=17, inputs=30)) for _ in range(2))
    assert [p.cores for p in one.populations] == [p.cores for p in two.populations]
    for a, b in zip(one.populations, two.populations, strict=True):
        np.testing.assert_array_equal(a.core_of(), b.core_of())
