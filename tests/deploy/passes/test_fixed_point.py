"""mksgn/deploy/passes/fixed_point: the file's integers recovered, the same decisions, and each range that Loihi has."""

import json
from dataclasses import replace

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.fixed_point import fixed_point
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.neurons import FixedNeuron, FloatNeuron
from mksgn.export.errors import RangeError
from tests.support import graphs as net


def units(**exponents) -> dict:
    return {"populations": {name: {"exponent": exponent} for name, exponent in exponents.items()}}


def half_step(threshold: float, unit: float = 1.0, rate: float = 0.5) -> float:
    """A file's threshold for an integer `threshold` in weight units."""
    return (threshold + 1 / 128) * rate * unit


def one(weight, bias=0.0, threshold=10.0, exponent=0, **neuron):
    """x → l, a single neuron, in integers of the unit 2**exponent."""
    unit = 2.0**exponent
    weight = np.atleast_2d(np.asarray(weight, float))
    bias = np.broadcast_to(np.asarray(bias, float), len(weight))
    g = net.chain(
        ("x", net.inp(weight.shape[1])), ("d", net.affine(weight * unit, bias * unit)),
        ("l", net.lif(len(weight), threshold=half_step(threshold, unit), **neuron)), ("y", net.out(len(weight))),
    )  # fmt: skip
    return fixed_point(ingest(g), units(l=exponent))


def read_out(weight, bias, exponent=0):
    g = net.chain(
        ("x", net.inp(len(weight[0]))),
        ("d", net.affine(np.array(weight) * 2.0**exponent, np.array(bias) * 2.0**exponent)),
        ("y", net.out(len(weight))),
    )
    return fixed_point(ingest(g), units(d=exponent))


# --- the integers ---------------------------------------------------------------------------------


def test_the_file_s_integers_are_recovered_exactly():
    plain, g = net.quantised_student_like(np.random.default_rng(0))
    program = fixed_point(host_split(ingest(g)), json.loads(g.metadata["quantization"]))
    assert program.precision == "fixed"
    nodes = plain.nodes
    for name in ("spatial", "qkv", "proj", "temporal"):
        population = program[name]
        assert isinstance(population.neuron, FixedNeuron)
        assert population.unit == 2.0 ** net.UNITS[name]
        assert population.neuron.dv == 2048
        assert population.neuron.vth.ravel().tolist() == [0.25 * 2 * 16]
        bias = sum(nodes[p.name].bias for p in program.into(name))
        np.testing.assert_array_equal(
            population.neuron.bias_mant.ravel() << (population.neuron.bias_exp - 6), bias * 16
        )
        for projection in program.into(name):
            (operator,) = projection.operators
            if isinstance(operator, ops.GraphConv):
                adjacency = nodes[projection.name].adjacency
                expected = [
                    16 * sum(adjacency[k, i, j] * nodes[projection.name].weight[k] for k in range(3))
                    for i, j in zip(operator.source, operator.target, strict=True)
                ]
            else:
                expected = 16 * nodes[projection.name].weight
            np.testing.assert_array_equal(operator.weight, expected)
    products = {p.target: p.weight for p in program.projections if p.kind == "product"}
    assert products == {"attend.m": 2, "attend.z": 4}
    assert program["attend.m"].neuron.vth.ravel().tolist() == [2, 1]
    assert program["attend.z"].neuron.vth.ravel().tolist() == [2, 2, 4, 4]
    readout = program["classes"]
    np.testing.assert_array_equal(readout.bias, nodes["classes"].bias * 16)
    np.testing.assert_array_equal(program.into("classes")[0].operators[-1].weight, nodes["classes"].weight * 16)
    assert readout.unit == 1 / 16


def test_the_host_s_encoder_stays_in_float():
    _, g = net.quantised_student_like(np.random.default_rng(0))
    program = compile_graph(g)
    assert isinstance(program["encoder"].neuron, FloatNeuron)
    (projection,) = program.into("encoder")
    np.testing.assert_array_equal(projection.operators[0].weight, g.nodes["encode"].weight)


@pytest.mark.parametrize("seed", [0, 1])
def test_fixed_float_and_the_equations_decide_alike(seed):
    rng = np.random.default_rng(seed)
    plain, g = net.quantised_student_like(rng)
    x = net.analog_clips(rng, 4)
    expected = net.Euler(plain, {"x": x})
    fixed, floating = (run(compile_graph(g, precision=precision), x) for precision in ("fixed", "float"))
    net.assert_same_spikes(fixed.spikes, expected.spikes)
    net.assert_same_spikes(floating.spikes, expected.spikes)
    for execution in (fixed, floating):
        np.testing.assert_array_equal(execution.outputs["y"], expected.values["y"])


@pytest.mark.parametrize("exponent", [-12, 0, 3])
def test_any_unit(exponent):
    rng = np.random.default_rng(2)
    weight = 2 * rng.integers(-127, 128, (5, 6))
    program = one(weight, bias=[1, -7, 20, 0, 4095], threshold=40, exponent=exponent)
    assert program["l"].unit == 2.0**exponent
    np.testing.assert_array_equal(program.into("l")[0].operators[0].weight, weight)
    assert program["l"].neuron.vth.item() == 40
    assert (program["l"].neuron.bias_mant.tolist(), program["l"].neuron.bias_exp) == ([1, -7, 20, 0, 4095], 6)


def test_a_bias_above_the_mantissa_takes_the_exponent_7():
    neuron = one([[2], [2], [2]], bias=[8190, -8190, 4096])["l"].neuron
    assert (neuron.bias_mant.tolist(), neuron.bias_exp) == ([4095, -4095, 2048], 7)
    neuron = one([[2]], bias=-4095)["l"].neuron
    assert (neuron.bias_mant.item(), neuron.bias_exp) == (-4095, 6)


@pytest.mark.parametrize(("steps", "dv"), [(2, 2048), (4, 1024), (3, 1365), (1000, 4)])
def test_decay_in_4096ths(steps, dv):
    program = ingest(
        net.chain(("x", net.inp(1)), ("d", net.linear([[2]])), ("l", net.lif(1, tau=steps * net.DT)), ("y", net.out(1)))
    )
    neuron = FloatNeuron(program["l"].neuron.decay, np.array([1 + 1 / 128]), np.zeros(1))
    program = program.with_populations({"l": replace(program["l"], neuron=neuron)})
    assert fixed_point(program, units(l=0))["l"].neuron.dv == dv


@pytest.mark.parametrize("steps", [3, 5, 10])
def test_half_steps_survive_any_time_constant(steps):
    rate = np.float32(net.DT) / np.float32(steps * net.DT)
    for threshold in range(1, 200):
        written = np.float32((threshold + 1 / 128) * float(rate))  # as export writes it
        g = net.chain(
            ("x", net.inp(1)),
            ("d", net.linear([[2]])),
            ("l", net.lif(1, tau=steps * net.DT, threshold=written)),
            ("y", net.out(1)),
        )
        assert fixed_point(ingest(g), units(l=0))["l"].neuron.vth.item() == threshold


def test_outputs_come_back_in_the_file_s_units():
    program = read_out([[2, -4], [254, 0]], [5, -3], exponent=-3)
    x = np.array([[[1, 1], [0, 1]]])
    assert run(balance(program), x).outputs["y"].tolist() == [[[3 / 8, 251 / 8], [1 / 8, -3 / 8]]]


# --- ranges ---------------------------------------------------------------------------------------


def test_the_largest_values_that_fit():
    program = one([[254, -254]], bias=8190, threshold=131_071)
    neuron = program["l"].neuron
    assert (neuron.vth.item(), neuron.bias_mant.item(), neuron.bias_exp) == (131_071, 4095, 7)


@pytest.mark.parametrize("weight", [256, -258, 1000])
def test_weights_beyond_8_bits(weight):
    with pytest.raises(
        RangeError,
        match=rf"^d: weights \({abs(weight)}\) are outside -256 … 254, the range of an 8-bit synapse; export it again",
    ):
        one([[2, weight]])


@pytest.mark.parametrize("weight", [1, -3, 2.5, 0.25])
def test_weights_that_are_no_even_integers(weight):
    with pytest.raises(
        DeployError, match=r"^d: weights are not even integers in the file's unit; export it again with --quantize"
    ):
        one([[2, weight]])


@pytest.mark.parametrize(
    "node",
    [net.conv(np.full((2, 2, 1, 1), 3)), net.graph_conv(np.eye(3)[None], np.full((1, 2, 2), 3))],
    ids=["conv", "graph conv"],
)
def test_every_kind_of_weights_is_checked(node):
    g = net.chain(
        ("x", net.inp(2, 1, 3)),
        ("culprit", node),
        ("l", net.lif(2, 1, 3, threshold=half_step(1))),
        ("y", net.out(2, 1, 3)),
    )
    with pytest.raises(DeployError, match="culprit: weights are not even integers"):
        fixed_point(ingest(g), units(l=0))


@pytest.mark.parametrize("threshold", [131_072, 200_000])
def test_a_threshold_beyond_17_bits(threshold):
    with pytest.raises(
        RangeError,
        match=rf"^l: threshold \({threshold} … {threshold}\) is outside 0 … 131071, the range of vth's 17 bits; quantise",
    ):
        one([[2]], threshold=threshold)


def test_a_negative_threshold():
    with pytest.raises(RangeError, match=r"^l: threshold"):
        one([[2]], threshold=-1)


@pytest.mark.parametrize(("off", "left"), [(0.5, "10.500000"), (1 / 64, "10.015625")])
def test_a_threshold_without_its_half_step(off, left):
    g = net.chain(
        ("x", net.inp(1)), ("d", net.linear([[2]])), ("l", net.lif(1, threshold=(10 + off) / 2)), ("y", net.out(1))
    )
    with pytest.raises(
        DeployError,
        match=rf"^l: threshold {left} is not an integer plus half a step of its membrane; .*export it again",
    ):
        fixed_point(ingest(g), units(l=0))


@pytest.mark.parametrize("bias", [0.5, 1 / 64])
def test_a_bias_that_is_no_integer(bias):
    with pytest.raises(DeployError, match=r"^l: bias are not integers in the file's unit"):
        one([[2]], bias=bias)


@pytest.mark.parametrize("bias", [8192, -8192, 4097, -8189])
def test_a_bias_beyond_13_bits_or_odd_above_them(bias):
    with pytest.raises(
        RangeError,
        match=rf"^l: bias \({abs(bias)}\) does not fit 13 bits << 7: it must be at most 8190, and even above 4095",
    ):
        one([[2]], bias=bias)


def test_one_large_bias_makes_odd_small_ones_impossible():
    with pytest.raises(RangeError, match=r"^l: bias \(5000\) does not fit"):
        one([[2], [2]], bias=[5000, 3])


def test_a_decay_of_all_or_nothing():
    g = net.chain(
        ("x", net.inp(1)),
        ("d", net.linear([[2]])),
        ("l", net.lif(1, tau=1e-4, threshold=1 + 1 / 128)),
        ("y", net.out(1)),
    )
    with pytest.raises(
        RangeError, match=r"^l: a membrane without memory .* needs dv = 4096, beyond 4095 of its 12 bits"
    ):
        fixed_point(ingest(g), units(l=0))
    g.nodes["l"] = net.lif(1, tau=1e-4 * 2**14, threshold=(1 + 1 / 128) / 2**14)
    with pytest.raises(RangeError, match=r"^l: decay dv = 4096 dt/tau \(0\) is outside 1 … 4095 of its 12 bits"):
        fixed_point(ingest(g), units(l=0))


def test_a_worst_sum_beyond_the_membrane():
    fits, exceeds = 516, 517  # 254 · 516 = 131064
    one(np.full((1, fits), 254))
    with pytest.raises(
        RangeError,
        match=r"^l: worst-case sum of weights \(131318\) exceeds 131071, the limit of the 24-bit membrane; quantise with fewer",
    ):
        one(np.full((1, exceeds), -254))


def test_the_worst_sum_adds_up_over_branches():
    branch = ("a", net.linear(np.full((1, 300), 254)))
    nodes = {
        "x": net.inp(300),
        "a": branch[1],
        "b": net.linear(np.full((1, 300), -254)),
        "l": net.lif(1, threshold=half_step(1)),
        "y": net.out(1),
    }
    g = nir.NIRGraph(
        nodes, [("x", "a"), ("x", "b"), ("a", "l"), ("b", "l"), ("l", "y")], metadata={"dt": 1e-4}, type_check=False
    )
    with pytest.raises(RangeError, match=r"^l: worst-case sum of weights \(152400\) exceeds 131071"):
        fixed_point(ingest(g), units(l=0))


def test_the_worst_sum_of_a_read_out_is_float32_s():
    def pooled(neurons):
        g = net.chain(
            ("x", net.inp(1, neurons, 1)),
            ("c", net.conv([[[[254]]]])),
            ("p", net.pool((neurons, 1))),
            ("y", net.out(1, 1, 1)),
        )
        return fixed_point(ingest(g), units(c=0))

    pooled(66_000)  # 254 · 66000 < 2^24: beyond a membrane, which a read-out has not
    with pytest.raises(
        RangeError,
        match=r"^c: worst-case sum of weights \(17018000\) exceeds 16777216, the limit of the 24 bits of a float32 sum",
    ):
        pooled(67_000)


@pytest.mark.parametrize(
    ("channels", "joints", "culprit"),
    [(517, 1, r"a\.m"), (1, 517, r"a\.z")],
    ids=["channels of a head", "keys of a query"],
)
def test_the_worst_sum_of_products(channels, joints, culprit):
    node = net.attention(1, 254.0, 254.0, half_step(1), half_step(1))
    g = net.chain(
        ("x", net.inp(1, 1, joints)), ("c", net.conv(np.full((3 * channels, 1, 1, 1), 2))),
        ("qkv", net.lif(3 * channels, 1, joints, threshold=half_step(1))), ("a", node), ("y", net.out(channels, 1, joints)),
    )  # fmt: skip
    with pytest.raises(
        RangeError,
        match=rf"^{culprit}: worst-case sum of weights \(131318\) exceeds 131071, the limit of the 24-bit membrane",
    ):
        fixed_point(ingest(g), {"populations": {name: {"exponent": 0} for name in ("qkv", "a.m", "a.z")}})


@pytest.mark.parametrize(
    ("gain", "error", "message"),
    [(3.0, DeployError, "not even integers"), (256.0, RangeError, r"\(256\) are outside -256 … 254")],
)
def test_the_weight_of_a_product(gain, error, message):
    node = net.attention(1, gain, 2.0, half_step(1), half_step(1))
    g = net.chain(
        ("x", net.inp(1, 1, 2)), ("c", net.conv(np.full((3, 1, 1, 1), 2))), ("qkv", net.lif(3, 1, 2, threshold=half_step(1))),
        ("a", node), ("y", net.out(1, 1, 2)),
    )  # fmt: skip
    with pytest.raises(error, match=rf"^a\.qk: weight .*{message}"):
        fixed_point(ingest(g), {"populations": {name: {"exponent": 0} for name in ("qkv", "a.m", "a.z")}})


def test_a_population_without_a_unit():
    g = net.chain(
        ("x", net.inp(1)), ("d", net.linear([[2]])), ("l", net.lif(1, threshold=half_step(1))), ("y", net.out(1))
    )
    with pytest.raises(
        DeployError, match=r"^population l: the file gives no unit for it; export it again with --quantize 8"
    ):
        fixed_point(ingest(g), units(other=0))


@pytest.mark.parametrize("wrong", [1, -1])
def test_a_wrong_unit_is_noticed(wrong):
    """A unit too large leaves no integers; one too small, no half step."""
    g = net.chain(
        ("x", net.inp(1)), ("d", net.linear([[2]])), ("l", net.lif(1, threshold=half_step(10))), ("y", net.out(1))
    )
    with pytest.raises(DeployError):
        fixed_point(ingest(g), units(l=wrong))


def test_two_weighted_nodes_in_series_keep_their_meaning_or_are_refused():
    unit = 2.0**-7
    g = net.chain(
        ("x", net.inp(1, 1, 2)), ("c", net.conv([[[[2 * unit]]]])), ("joints", net.linear(np.eye(2))),
        ("l", net.lif(1, 1, 2, threshold=half_step(10, unit))),
        ("y", net.out(1, 1, 2)), steps=4, quantization=json.dumps(units(l=-7)),
    )  # fmt: skip
    x = net.spikes(np.random.default_rng(0), 3, 4, 1, 1, 2)
    floating = run(compile_graph(g, precision="float"), x).spikes["l"]
    try:
        fixed = run(compile_graph(g), x).spikes["l"]
    except DeployError:
        return
    assert int((fixed != floating).sum()) == 0
