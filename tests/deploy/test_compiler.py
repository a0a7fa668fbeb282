"""mksgn/deploy/compiler: graphs and files, both precisions, calibration, and what is refused."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest

from mksgn.common.errors import BadInputError, MksgnError
from mksgn.deploy import compile_graph, compiler, run
from mksgn.deploy.choices import PASS_NAMES
from mksgn.deploy.errors import DeployError, PassError
from mksgn.export.graph import files
from mksgn.export.quantization.quantize import quantize
from tests.support import graphs as net
from tests.support.programs import assert_same_program, recurrent_loop, simple, typed


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_a_graph_and_its_file_give_the_same_program(tmp_path, kind):
    g, rng = typed()
    path = tmp_path / "model.nir"
    files.write(g, path)
    from_file, from_graph = compile_graph(kind(path), precision="float"), compile_graph(g, precision="float")
    assert_same_program(from_file, from_graph)
    x = net.lattice(rng, 3, 4, 2, 4, 3, most=16)
    expected = net.Euler(g, {"x": x})
    net.assert_same_spikes(run(from_file, x).spikes, expected.spikes)
    np.testing.assert_array_equal(run(from_file, x).outputs["y"], expected.values["y"])


def test_a_quantised_graph_and_its_file_give_the_same_fixed_point_program(tmp_path):
    g, rng = typed()
    quantised, _ = quantize(g, 8, net.lattice(rng, 4, 2, 4, 3, most=16), 4, net.DT)
    files.write(quantised, tmp_path / "model.nir")
    assert_same_program(compile_graph(tmp_path / "model.nir"), compile_graph(quantised))


def test_calibration_quantises_by_export_s_own_function():
    g, rng = typed()
    calibration = net.lattice(rng, 6, 2, 4, 3, most=16)
    quantised, _ = quantize(g, 8, calibration, 4, net.DT)
    program = compile_graph(g, calibration=calibration)
    assert program.precision == "fixed"
    assert_same_program(program, compile_graph(quantised))
    x = np.broadcast_to(net.lattice(rng, 5, 1, 2, 4, 3, most=16), (5, 4, 2, 4, 3))
    fixed, floating = run(program, x), run(compile_graph(quantised, precision="float"), x)
    net.assert_same_spikes(fixed.spikes, floating.spikes)
    net.assert_same_spikes(fixed.spikes, net.Euler(quantised, {"x": x}).spikes)
    np.testing.assert_array_equal(fixed.outputs["y"], floating.outputs["y"])


def test_calibration_of_a_quantised_file_changes_nothing():
    rng = np.random.default_rng(0)
    _, g = net.quantised_student_like(rng)
    assert_same_program(compile_graph(g, calibration=np.zeros((1, 2, 4, 3))), compile_graph(g))


def test_compiling_leaves_the_graph_as_it_was():
    g, rng = typed()
    before = copy.deepcopy(g)
    compile_graph(g, calibration=net.lattice(rng, 4, 2, 4, 3, most=16))
    compile_graph(g, precision="float")
    assert list(g.nodes) == list(before.nodes)
    assert g.metadata == before.metadata
    for name, node in g.nodes.items():
        for key in ("weight", "bias", "v_threshold", "gain_m", "threshold_m", "adjacency"):
            np.testing.assert_array_equal(getattr(node, key, 0), getattr(before.nodes[name], key, 0))


def test_steps_dt_and_analog_of_a_program():
    program = compile_graph(simple(steps=7, dt=2e-4), precision="float", analog=("x",))
    assert (program.steps, program.dt, program.analog, program["x"].location) == (
        7,
        2e-4,
        {"x"},
        "chip",
    )  # nothing else to run
    unnamed = simple()
    del unnamed.metadata["dt"]
    assert compile_graph(unnamed, precision="float", dt=2e-4)["l"].neuron.decay == 1.0


@pytest.mark.parametrize("precision", ["int8", "", "FIXED"])
def test_an_unknown_precision(precision):
    with pytest.raises(DeployError, match=f"^precision '{precision}': choose fixed or float$"):
        compile_graph(simple(), precision=precision)


def test_an_unquantised_file_in_fixed_point():
    message = r"the file is not quantised, and fixed point needs integers: quantise it \(mksgn-export FILE"
    with pytest.raises(DeployError, match=message):
        compile_graph(simple(steps=4))
    # the length of a sample decides what a membrane can accumulate
    with pytest.raises(
        DeployError, match=r"the file does not say how many steps a sample has: give calibration with a step axis"
    ):
        compile_graph(simple(), calibration=np.ones((1, 2)))


def test_a_missing_or_broken_file(tmp_path):
    with pytest.raises(BadInputError, match=r"model\.nir: no such file"):
        compile_graph(tmp_path / "model.nir")
    files.write(typed()[0], tmp_path / "whole.nir")
    (tmp_path / "half.nir").write_bytes((tmp_path / "whole.nir").read_bytes()[:500])
    with pytest.raises(BadInputError, match=r"half\.nir: not a readable NIR file"):
        compile_graph(tmp_path / "half.nir")


def test_errors_have_exit_code_2():
    with pytest.raises(MksgnError) as caught:
        compile_graph(simple(), precision="int8")
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)


def test_calibration_of_a_network_of_vectors():
    rng = np.random.default_rng(0)
    g = net.chain(
        ("x", net.inp(6)), ("a", net.affine(net.lattice(rng, 8, 6), net.lattice(rng, 8))), ("l", net.lif(8, threshold=0.25)),
        ("b", net.affine(net.lattice(rng, 3, 8), net.lattice(rng, 3))), ("y", net.out(3)), steps=4,
    )  # fmt: skip
    x = np.broadcast_to(net.spikes(rng, 5, 1, 6), (5, 4, 6))
    program = compile_graph(g, calibration=x[:, 0].astype(np.float32))
    agreement = (run(program, x).spikes["l"] == net.Euler(g, {"x": x}).spikes["l"]).mean()
    assert agreement > 0.9


def test_calibration_of_two_weighted_nodes_in_series_is_refused_by_name():
    g = net.chain(
        ("x", net.inp(2, 1, 3)),
        ("c", net.conv(np.ones((2, 2, 1, 1)))),
        ("joints", net.linear(np.eye(3))),
        ("l", net.lif(2, 1, 3)),
        ("y", net.out(2, 1, 3)),
        steps=4,
    )
    with pytest.raises(BadInputError, match="joints"):
        compile_graph(g, calibration=np.ones((2, 2, 1, 3)))


def test_metadata_reaches_the_program():
    program = compile_graph(simple(steps=3, classes=json.dumps(["a", "b"])), precision="float")
    assert program.metadata["classes"] == '["a", "b"]'


@pytest.mark.parametrize(("name", "value"), [("dt", 0.0), ("dt", -1e-4), ("if_dt", 0.0), ("if_dt", float("inf"))])
def test_a_time_step_that_is_not_positive(name, value):
    with pytest.raises(DeployError, match=f"^{name} .*: expected a positive number of seconds"):
        compile_graph(simple(), precision="float", **{name: value})


def test_calibration_by_currents_of_an_input_that_is_not_named_analog():
    with pytest.raises(DeployError, match=r"calibration of x: spikes are 0 or 1, .* name it in `analog`"):
        compile_graph(simple(steps=4), calibration=np.full((3, 2), 0.5))


def pooled_read_out(rng):
    """A read-out that is pooled after its weights."""
    return net.chain(
        ("x", net.inp(2, 1, 3)), ("a", net.conv(net.lattice(rng, 2, 2, 1, 1))), ("l", net.lif(2, 1, 3, threshold=0.25)),
        ("b", net.conv(net.lattice(rng, 4, 2, 1, 1), net.lattice(rng, 4))), ("p", net.pool((1, 3))), ("y", net.out(4, 1, 1)), steps=4,
    )  # fmt: skip


def read_out_of_two_branches(rng):
    return net.graph(
        {
            "x": net.inp(2, 1, 3), "a": net.conv(net.lattice(rng, 2, 2, 1, 1)), "l": net.lif(2, 1, 3, threshold=0.25),
            "b": net.conv(net.lattice(rng, 4, 2, 1, 1)),
            "c": net.conv(net.lattice(rng, 4, 2, 1, 1)), "y": net.out(4, 1, 3),
        },
        [("x", "a"), ("a", "l"), ("l", "b"), ("b", "y"), ("x", "c"), ("c", "y")],
        steps=4,
    )  # fmt: skip


@pytest.mark.parametrize(("network", "name"), [(pooled_read_out, "b"), (read_out_of_two_branches, "y")])
def test_calibration_gives_a_read_out_its_unit(network, name):
    """The unit is that of the quantiser's report, weights and bias are integers of it, and the
    output is in the file's units.
    """
    g = network(np.random.default_rng(0))
    program = compile_graph(g, calibration=np.ones((2, 2, 1, 3)))
    readout = program[program.outputs[0].population]
    assert (readout.name, readout.kind) == (name, "readout")
    assert readout.unit == 2.0 ** program.quantization["populations"][name]["exponent"]
    assert readout.bias.dtype == np.int64
    x = net.spikes(np.random.default_rng(1), 3, 4, 2, 1, 3)
    quantised, _ = quantize(g, 8, np.ones((2, 2, 1, 3)), 4, net.DT)
    np.testing.assert_array_equal(run(program, x).outputs["y"], net.Euler(quantised, {"x": x}).values["y"])
    # the weights are multiples of 1/8 and fit 8 bits: quantising them changes no output
    np.testing.assert_allclose(run(program, x).outputs["y"], net.Euler(g, {"x": x}).values["y"], atol=1e-6)


@pytest.mark.parametrize("precision", ["fixed", "float"])
def test_passes_are_handed_out_in_order(precision):
    g = recurrent_loop()
    programs = {}
    program = compile_graph(g, precision=precision, after=lambda name, each: programs.update({name: each}))
    assert list(programs) == [name for name in PASS_NAMES if precision == "fixed" or name != "fixed-point"]
    assert programs["balance"] is program
    assert [p.precision for p in programs.values()].count("fixed") == 2 * (precision == "fixed")


def test_a_pass_that_breaks_the_program_is_named(monkeypatch):
    def misplace(program):
        return replace(program, populations=program.populations[::-1])

    monkeypatch.setattr(compiler, "join_loops", misplace)
    with pytest.raises(PassError, match=r"^after pass loops: projection d: l is evaluated before its source x"):
        compile_graph(simple(), precision="float")
