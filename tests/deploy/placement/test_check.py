"""mksgn/deploy/placement/check: each limit alone, with its exact message; all at once; what attention needs."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import torch

from mksgn.common.limits import Fit
from mksgn.deploy import compile_graph
from mksgn.deploy.placement.check import UNIT_DECAY, UNIT_THRESHOLD, UNIT_WEIGHT, check, limits, notes
from mksgn.deploy.placement.chips import CHIPS, LOIHI1, LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron, prepare
from mksgn.deploy.program.program import Output, Population, Program, Projection
from tests.support.graphs import DT, chain, conv, graph, inp, lif, linear, out, quantised_student_like, student_like

TINY = replace(LOIHI1, name="tiny", neurons_per_core=8, synaptic_bits_per_core=400)


def neuron(**changes) -> FixedNeuron:
    values = {"dv": 2048, "vth": np.array([100]), "bias_mant": np.array([0]), "bias_exp": 6, "du": None}
    return FixedNeuron(**(values | changes))


def program(inputs=4, outputs=3, *, weight=2, delay=0, precision="fixed", kind="spiking", **changes) -> Program:
    """x → a → b, dense, all weights the same; the changes are those of a's neuron."""
    first = (ops.Dense(np.full((outputs, inputs), weight, dtype=np.float32)),)
    second = (ops.Dense(np.full((2, outputs), 2, dtype=np.float32)),)
    populations = (
        Population("x", (inputs,), "input"),
        Population("a", (outputs,), kind, neuron=neuron(**changes)),
        Population("b", (2,), "spiking", neuron=neuron(), depth=1),
    )
    projections = (Projection("w", "x", "a", first, compensation_delay=delay), Projection("u", "a", "b", second))
    return Program(precision, 1e-4, 4, populations, projections, (Output("y", "b"),))


@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2], ids=["loihi1", "loihi2"])
def test_what_fits_has_no_violation(chip):
    assert check(program(), chip) == []
    _, graph = quantised_student_like(np.random.default_rng(0))
    assert check(compile_graph(graph), chip) == []
    assert check(compile_graph(student_like(np.random.default_rng(0)), precision="float"), chip) == []


AT_THE_LIMIT = {
    "dv": 4095,
    "du": 4095,
    "vth": np.array([131_071, 0, 5]),
    "bias_mant": np.array([-4095, 0, 4095]),
    "bias_exp": 7,
    "weight": -254,
    "delay": 62,
}


@pytest.mark.parametrize("name", AT_THE_LIMIT)
@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2], ids=["loihi1", "loihi2"])
def test_the_limit_itself_is_allowed(name, chip):
    assert check(program(**{name: AT_THE_LIMIT[name]}), chip) == []


QUANTISE, EXPORT = "quantise with fewer bits", "export it again with --quantize 8"
BEYOND = [
    ({"dv": 4096}, "a: decay dv (4096) exceeds limit (4095) of {chip}; choose another dt or tau"),
    ({"dv": np.array([1, 5000, 2])}, "a: decay dv (5000) exceeds limit (4095) of {chip}; choose another dt or tau"),
    ({"dv": -1}, "a: decay dv (-1) is below limit (0) of {chip}; choose another dt or tau"),
    ({"du": 4096}, "a: decay du (4096) exceeds limit (4095) of {chip}; choose another dt or tau of the current"),
    ({"vth": np.array([131_072])}, f"a: threshold (131072) exceeds limit (131071) of {{chip}}; {QUANTISE}"),
    ({"vth": np.array([7, -3])}, f"a: threshold (-3) is below limit (0) of {{chip}}; {QUANTISE}"),
    (
        {"bias_mant": np.array([0, 4096])},
        f"a: bias mantissa (4096) exceeds limit (4095) of {{chip}}; give the bias a larger exponent, or {QUANTISE}",
    ),
    (
        {"bias_mant": np.array([-4096, 0])},
        f"a: bias mantissa (-4096) is below limit (-4095) of {{chip}}; give the bias a larger exponent, or {QUANTISE}",
    ),
    ({"bias_exp": 8}, f"a: bias exponent (8) exceeds limit (7) of {{chip}}; {QUANTISE}"),
    ({"weight": 256}, f"w: weight (256) exceeds limit (254) of {{chip}}; {EXPORT}"),
    ({"weight": -256}, f"w: weight (-256) is below limit (-254) of {{chip}}; {EXPORT}"),
    ({"weight": 3}, f"w: weights that are not even integers (12) exceeds limit (0) of {{chip}}; {EXPORT}"),
    ({"weight": 0.5}, f"w: weights that are not even integers (12) exceeds limit (0) of {{chip}}; {EXPORT}"),
    (
        {"delay": 63},
        "w from x: synaptic delay (63) exceeds limit (62) of {chip}; "
        "put populations into the short branch, or cut the long one",
    ),
]


@pytest.mark.parametrize(("changes", "message"), BEYOND, ids=[f"{k}={v}" for c, _ in BEYOND for k, v in c.items()])
@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2], ids=["loihi1", "loihi2"])
def test_a_number_beyond_its_range_is_named(changes, message, chip):
    assert check(program(**changes), chip) == [message.format(chip=chip.name)]


def test_float_programs_have_no_ranges_but_delays_and_cores():
    violations = check(program(precision="float", weight=300.5, dv=9999, delay=63), LOIHI1)
    assert [line.split(" (")[0] for line in violations] == ["w from x: synaptic delay"]


def test_the_synapses_of_one_neuron_that_fill_a_core():
    assert check(program(inputs=50), TINY) == []
    assert check(program(inputs=51), TINY) == [
        "a: synaptic bits of one neuron (408) exceeds limit (400) of tiny; use fewer channels or a smaller kernel"
    ]


def test_the_input_axons_of_one_neuron():
    chip = replace(TINY, input_axons_per_core=40)
    assert check(program(inputs=40), chip) == []
    assert check(program(inputs=41), chip) == [
        "a: input axons of one neuron (41) exceeds limit (40) of tiny; use fewer channels or a smaller kernel, "
        "pool before it, or keep a read-out on the host"
    ]
    assert check(program(inputs=4097), replace(LOIHI1, synaptic_bits_per_core=10**6)) == [
        "a: input axons of one neuron (4097) exceeds limit (4096) of loihi1; use fewer channels or a smaller kernel, "
        "pool before it, or keep a read-out on the host"
    ]
    assert check(program(inputs=4097), LOIHI2) == []  # not published


def test_the_output_axons_of_one_neuron():
    chip = replace(TINY, neurons_per_core=1, output_axons_per_core=2)
    assert check(program(), chip) == []
    assert check(program(), replace(chip, output_axons_per_core=1)) == [
        "a: output axons of one neuron (2) exceeds limit (1) of tiny; use fewer channels or a smaller kernel after it"
    ]


def test_needing_many_chips_is_no_violation():
    placement = place(program(outputs=40), replace(TINY, cores=2))
    assert placement.chips > 1
    assert check(placement, placement.chip) == []


def test_a_membrane_that_is_sent_needs_graded_spikes():
    graded = program(kind="graded", vth=None)
    assert check(graded, LOIHI2) == []
    assert check(graded, LOIHI1) == [
        "a: bits of a message (24) exceeds limit (1) of loihi1; its spikes are binary: let the population fire, "
        "or choose a chip with graded spikes (--chip loihi2)"
    ]
    shown = replace(graded, populations=graded.populations[:2], projections=graded.projections[:1], outputs=())
    assert check(shown, LOIHI1) == []  # the host reads the membrane


def test_what_lies_on_the_host_has_no_ranges():
    given = program(dv=9999, weight=999)
    host = {name: replace(given[name], location="host") for name in ("x", "a")}
    assert check(given.with_populations(host), LOIHI1) == []


def test_all_violations_come_at_once():
    violations = check(
        program(inputs=51, dv=4096, du=-1, vth=np.array([200_000]), bias_exp=9, weight=301, delay=70), TINY
    )
    assert [line.split(" (")[0] for line in violations] == [
        "a: synaptic bits of one neuron",
        "w from x: synaptic delay",
        "a: decay dv",
        "a: decay du",
        "a: threshold",
        "a: bias exponent",
        "w: weight",
        "w: weights that are not even integers",
    ]
    assert all(" of tiny; " in line for line in violations)


def test_a_placement_on_another_chip_is_checked_on_this_one():
    placement = place(program(inputs=51), LOIHI1)
    assert check(placement, LOIHI1) == []
    assert check(placement, TINY) == check(program(inputs=51), TINY) != []


# --- attention ----------------------------------------------------------------------------------------------


def test_a_product_unit_as_a_lif_neuron_fires_where_both_inputs_do():
    """And keeps nothing for the next step, whatever came before: every sequence of six steps."""
    states = prepare(neuron(dv=UNIT_DECAY, du=UNIT_DECAY, vth=np.array([UNIT_THRESHOLD])))
    sequences = np.stack(np.meshgrid(*[range(4)] * 6), -1).reshape(-1, 6)  # which of two inputs spike, as two bits
    one, two = torch.from_numpy(sequences & 1), torch.from_numpy(sequences >> 1)
    current = (UNIT_WEIGHT * (one + two)).float()
    state = states.start(current[:, 0])
    for step in range(6):
        spikes, state, _ = states.step(current[:, step], state)
        assert torch.equal(spikes, (one & two)[:, step].bool())


def test_what_attention_needs_on_loihi_1():
    """4 channels, 4 frames, 3 joints: T V² C = 144 units for either product."""
    remarks = notes(compile_graph(student_like(np.random.default_rng(0)), precision="float"), LOIHI1)
    lif = "a LIF neuron with du = dv = 4095, weights 2 and threshold 3"
    needs = "144 compartments, 432 synapses, 1 core and one more time step"
    assert remarks == [
        f"attend.{part} units: loihi1 has fixed neurons and no product; each unit can be {lif}, "
        f"which fires where both of its inputs spike: {needs}"
        for part in "mz"
    ] + [
        "attention: of the latency of 9 steps, product units take 2, which Lava computes within a step; "
        "the longest delay is 7; the spikes are the same"
    ]


def test_what_attention_needs_on_loihi_2():
    remarks = notes(compile_graph(student_like(np.random.default_rng(0)), precision="float"), LOIHI2)
    assert remarks[0] == "loihi2: input axons per core, output axons per core: limit not published, not checked"
    assert remarks[1].startswith(
        "attend.m units: each unit is a neuron of loihi2, with its own microcode or a LIF neuron"
    )
    assert len(remarks) == 4


def test_the_steps_of_product_units_count_in_the_delays():
    """The skip around attention waits two steps longer: at a limit between the two it is a violation."""
    program = compile_graph(student_like(np.random.default_rng(0)), precision="float")
    longest = max(d for q in program.projections for d in q.compensation_delays)
    assert check(program, replace(LOIHI1, delay=longest + 2)) == []
    (violation,) = check(program, replace(LOIHI1, delay=longest + 1))
    assert violation.startswith(
        f"time_skip from encoder: synaptic delay ({longest + 2}) exceeds limit ({longest + 1}) of loihi1"
    )
    assert check(program, replace(LOIHI1, delay=None)) == []


def test_a_loop_is_noted():
    given = program()
    back = Projection("back", "b", "a", (ops.Dense(np.full((3, 2), 2, dtype=np.float32)),), logical_delay=1)
    members = {name: replace(given[name], group="a") for name in ("a", "b")}
    looped = replace(given.with_populations(members), projections=(*given.projections, back))
    for chip in (LOIHI1, LOIHI2):
        assert check(looped, chip) == []
    assert notes(looped, LOIHI1) == [
        "a: a loop over 2 populations takes one step here, and one step per synapse on loihi1"
    ]
    assert notes(program(), LOIHI1) == []


def test_a_delay_is_found_although_another_projection_bears_its_name():
    """A node that feeds two populations names two projections."""
    g = graph(
        {
            "x": inp(2), "lin": linear(np.eye(2)), "late": nir.Delay(np.full(2, 100 * DT)), "a": lif(2),
            "l2": linear(np.eye(2)), "b": lif(2), "y": out(2),
        },
        [("x", "lin"), ("lin", "late"), ("late", "a"), ("a", "l2"), ("l2", "b"), ("lin", "b"), ("b", "y")],
    )  # fmt: skip
    (violation,) = check(compile_graph(g, precision="float"), LOIHI2)
    assert violation.startswith("lin from x: synaptic delay (100) exceeds limit (62) of loihi2; ")


@pytest.mark.parametrize("kernel", [(2, 2), (1, 4), (3, 2)])
def test_even_kernels_with_padding_same_are_placed(kernel):
    g = chain(
        ("x", inp(1, 4, 5)),
        ("c", conv(np.ones((2, 1, *kernel)), padding="same")),
        ("l", lif(2, 4, 5)),
        ("y", out(2, 4, 5)),
    )
    program = compile_graph(g, precision="float")
    (placed,) = (p for p in place(program, LOIHI1).populations if p.name == "l")
    (projection,) = program.into("l")
    ones = ops.apply(ops.with_weights(projection.operators, np.ones_like), torch.ones(1, 1, 4, 5))
    assert placed.fan_in == int(ones.max())
    assert placed.cores == 1


@pytest.mark.parametrize(("pooling", "noted"), [((2, 2), True), ((1, 1), False)])
def test_overlapping_windows_in_a_chain_are_noted(pooling, noted):
    """A pixel reaches nine outputs of the convolution, several of which lie in one window of the pooling."""
    weight = np.full((1, 1, 3, 3), 2, dtype=np.float32)
    chain = (ops.Conv(weight, padding=(1, 1)), ops.SumPool(pooling, pooling, (0, 0)))
    base = program()
    source = replace(base["a"], name="image", shape=(1, 4, 4), kind="input", neuron=None)
    target = replace(base["a"], name="seen", shape=ops.Conv.out_shape(chain[0], (1, 4, 4)) if not noted else (1, 2, 2))
    given = replace(
        base, populations=(source, target), projections=(Projection("path", "image", "seen", chain),), outputs=()
    )
    remarks = [note for note in notes(given, LOIHI1) if note.startswith("path")]
    pairs = {
        (x, y)
        for x in np.ndindex(4, 4)
        for y in np.ndindex(*target.shape[1:])
        if all(pooling[i] * y[i] - 1 <= x[i] <= pooling[i] * (y[i] + 1) for i in range(2))
    }
    paths = sum(min(4, i + 2) - max(0, i - 1) for i in range(4)) ** 2
    note = (
        f"path: {paths} paths connect {len(pairs)} pairs of neurons, because windows overlap; "
        "each path counts as a synapse, though a chip can store one for each pair"
    )
    assert remarks == ([note] if noted else [])


def test_a_reset_by_subtraction_needs_microcode():
    """Only on a chip of fixed neurons is it a violation; a first membrane other than 0 is a note."""
    given = program()
    neuron = replace(given["b"].neuron, subtract=np.array([64], np.int32), initial=np.array([-64], np.int32))
    changed = given.with_populations({"b": replace(given["b"], neuron=neuron)})
    assert check(changed, LOIHI2) == []
    (violation,) = check(changed, LOIHI1)
    assert violation == (
        "b: reset by subtraction, and the neurons of loihi1 reset to 0; choose a chip with microcode (--chip loihi2), "
        "or train with a reset to 0 and deploy with --reset zero"
    )
    assert notes(changed, LOIHI1) == ["b: starts each sample from a membrane other than 0, which the host writes"]


# --- limits of other kinds, and limits that nobody published --------------------------------------------------

TRUENORTH = CHIPS["truenorth"]


def test_a_network_of_if_neurons_with_few_weights_fits_truenorth():
    """What its quantised networks have to be like: no decay, at most four weights a neuron, one core after each."""
    given = program(dv=0)
    given = given.with_populations({"b": replace(given["b"], neuron=neuron(dv=0))})
    assert check(given, TRUENORTH) == []
    assert Fit.of(limits(given, TRUENORTH)).state == "fits"
    at_once = replace(given["b"].neuron, subtract=np.array([64], np.int32))
    assert check(given.with_populations({"b": replace(given["b"], neuron=at_once)}), TRUENORTH) == []


TRUENORTH_REFUSES = [
    ({"dv": 1}, "a: decay dv (1) exceeds limit (0) of truenorth; choose a network of IF neurons"),
    ({"du": 0}, "a: a synaptic current with a decay of its own, which the neurons of truenorth do not have; use LIF or IF"),
    ({"weight": 256}, "w: weight (256) exceeds limit (255) of truenorth; export it again with --quantize 8"),
    ({"weight": 0.5}, "w: weights that are not integers (12) exceeds limit (0) of truenorth; "
                      "export it again with --quantize 8"),
    ({"bias_mant": np.array([-256])}, "a: bias mantissa (-256) is below limit (-255) of truenorth; "
                                      "give the bias a larger exponent, or quantise with fewer bits"),
    ({"inputs": 257}, "a: input axons of one neuron (257) exceeds limit (256) of truenorth; use fewer channels or a "
                      "smaller kernel, pool before it, or keep a read-out on the host"),
    ({"delay": 15}, "w from x: synaptic delay (15) exceeds limit (14) of truenorth; "
                    "put populations into the short branch, or cut the long one"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), TRUENORTH_REFUSES, ids=[next(iter(c)) for c, _ in TRUENORTH_REFUSES])
def test_what_truenorth_does_not_hold_is_named(changes, message):
    given = program(**({"dv": 0} | changes))
    given = given.with_populations({"b": replace(given["b"], neuron=neuron(dv=0))})
    assert check(given, TRUENORTH) == [message]


@pytest.mark.parametrize("different", [4, 5])
def test_the_weights_of_one_neuron_that_a_chip_tells_apart(different):
    given = program(inputs=6, outputs=1, dv=0)
    given = given.with_populations({"b": replace(given["b"], neuron=neuron(dv=0))})
    row = np.zeros((1, 6), np.float32)
    row[0, :different] = 2 * np.arange(1, different + 1)
    (first, second) = given.projections
    given = replace(given, projections=(replace(first, operators=(ops.Dense(row),)), second))
    message = "w: different weights of one neuron (5) exceeds limit (4) of truenorth; export it again with --quantize 2"
    assert check(given, TRUENORTH) == ([message] if different > 4 else [])


def test_a_chip_of_few_bits_takes_a_file_without_exponents():
    chip = replace(LOIHI2, name="narrow", weight_bits=4)
    assert check(program(weight=14), chip) == []
    assert check(program(weight=16), chip) == [
        "w: weight (16) exceeds limit (14) of narrow; export it again with --quantize 4 --no-weight-exponents"
    ]


def test_a_neuron_that_reaches_too_many_cores():
    """Three neurons after it on cores of one each; the record has a row where the chip limits it."""
    chip = replace(LOIHI2, name="narrow", neurons_per_core=1, cores_per_neuron=1)
    assert check(program(), chip) == [
        "a: cores reached by a neuron (2) exceeds limit (1) of narrow; use fewer channels or a smaller kernel after it, "
        "or copies of its neurons"
    ]
    assert ("cores reached by a neuron", 2, 1) in limits(program(), chip)
    assert "cores reached by a neuron" not in [name for name, _, _ in limits(program(), LOIHI2)]


def test_attention_needs_a_decay_that_truenorth_lacks():
    _, graph = quantised_student_like(np.random.default_rng(0))
    violations = [line for line in check(compile_graph(graph), TRUENORTH) if "product units" in line]
    assert len(violations) == 2
    assert all("need a decay of 4095, and the largest of truenorth is 0" in line for line in violations)
    assert "none of them computes one" in notes(compile_graph(graph), TRUENORTH)[0]


UNPUBLISHED = {
    "weight_bits": ("weight", 2),
    "decay_bits": ("decay dv", 2048),
    "threshold_bits": ("threshold", 100),
    "bias_bits": ("bias mantissa", 0),
    "bias_exponent": ("bias exponent", 6),
    "delay": ("synaptic delay", 3),
}


@pytest.mark.parametrize("name", UNPUBLISHED)
def test_a_limit_that_nobody_published_is_listed_with_the_value_and_never_fits(name):
    chip = replace(LOIHI1, **{name: None})
    given = program(delay=3)
    assert check(given, chip) == []
    assert Fit.of(limits(given, LOIHI1)).state == "fits"
    assert [row for row in limits(given, chip) if row[2] is None] == [(*UNPUBLISHED[name], None)]
    fit = Fit.of(limits(given, chip))
    assert (fit.state, fit.unchecked) == ("not checked", (UNPUBLISHED[name][0],))
    assert notes(given, chip) == [f"loihi1: {UNPUBLISHED[name][0]}: limit not published, not checked"]


def test_any_number_of_axons_on_one_core_never_fits_a_chip_that_states_no_limit_of_them():
    given = program(inputs=9_000)
    fit = Fit.of(limits(given, LOIHI2), check(given, LOIHI2))
    assert fit.state == "not checked"
    assert fit.text("loihi2") == (
        "fits what is published of loihi2; NOT CHECKED, no limit published: input axons per core, output axons per core"
    )


def test_graded_values_on_a_chip_that_does_not_say_how_wide_its_spikes_are():
    chip = replace(LOIHI2, spike_bits=None)
    assert ("bits of a message", 24, None) in limits(program(kind="graded", vth=None), chip)
    assert "bits of a message" not in [name for name, _, _ in limits(program(), chip)]
