"""deploy: compile_graph and run as a user calls them: graphs and paths, both precisions, and what is refused."""

import copy
import json
import sys

import numpy as np
import pytest
import torch

from mksgn.common.errors import BadInputError, MksgnError
from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.program.program import Projection
from mksgn.export.graph import files
from mksgn.export.quantization.quantize import quantize
from tests.support.graphs import (
    DT,
    Euler,
    affine,
    analog_clips,
    assert_same_spikes,
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
    quantised_student_like,
    ring,
    spikes,
    student_like,
)


def simple(**metadata):
    """Two spiking neurons behind two inputs."""
    return chain(("x", inp(2)), ("d", linear(np.eye(2))), ("l", lif(2)), ("y", out(2)), **metadata)


def typed(seed: int = 0, steps: int = 4):
    """A network whose types NIR can check, so that it can be written and read: attention, a graph conv, a decimating pool."""
    rng = np.random.default_rng(seed)
    g = graph(
        {
            "x": inp(2, 4, 3, analog=True), "encode": conv(lattice(rng, 4, 2, 3, 3), lattice(rng, 4), padding=(1, 1), input_shape=(4, 3)),
            "encoder": lif(4, 4, 3, threshold=0.5), "g": graph_conv(ring(3), lattice(rng, 3, 12, 4), np.abs(lattice(rng, 12))),
            "qkv": lif(12, 4, 3, threshold=0.25), "a": attention(2, threshold_m=0.25, threshold_z=0.25),
            "c": conv(lattice(rng, 6, 4, 3, 1), lattice(rng, 6), padding="same", input_shape=(4, 3)), "c_stride": pool((1, 1), (2, 1)),
            "skip": conv(lattice(rng, 6, 4, 1, 1), lattice(rng, 6), stride=(2, 1), input_shape=(4, 3)),
            "l": lif(6, 2, 3, threshold=0.25), "p": pool((2, 3)), "f": flatten(6, 1, 1),
            "classes": affine(lattice(rng, 5, 6), lattice(rng, 5)),
            "y": out(5),
        },
        [
            ("x", "encode"), ("encode", "encoder"), ("encoder", "g"), ("g", "qkv"), ("qkv", "a"), ("a", "c"), ("c", "c_stride"),
            ("c_stride", "l"), ("encoder", "skip"), ("skip", "l"), ("l", "p"), ("p", "f"), ("f", "classes"), ("classes", "y"),
        ],
        steps=steps,
    )  # fmt: skip
    g.nodes["a"].input_type = {"input": np.array([12, 4, 3])}  # else known only to files that NIR has checked
    return g, rng


def same_program(a, b):
    assert (a.precision, a.dt, a.steps, a.analog, a.outputs[0].population) == (
        b.precision,
        b.dt,
        b.steps,
        b.analog,
        b.outputs[0].population,
    )
    for p, q in zip(a.populations, b.populations, strict=True):
        assert (p.name, p.shape, p.kind, p.location, p.unit, p.depth) == (
            q.name,
            q.shape,
            q.kind,
            q.location,
            q.unit,
            q.depth,
        )
        for key, value in vars(p.neuron).items() if p.neuron else ():
            np.testing.assert_array_equal(value, getattr(q.neuron, key))
    for p, q in zip(a.projections, b.projections, strict=True):
        assert (p.name, p.sources, p.target, p.delays, p.kind) == (q.name, q.sources, q.target, q.delays, q.kind)
        if isinstance(p, Projection):
            for one, other in zip(p.operators, q.operators, strict=True):
                np.testing.assert_array_equal(getattr(one, "weight", 0), getattr(other, "weight", 0))
        else:
            assert p.weight == q.weight


# --- compile_graph -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_a_graph_and_its_file_are_the_same_program(tmp_path, kind):
    g, rng = typed()
    path = tmp_path / "model.nir"
    files.write(g, path)
    from_file, from_graph = compile_graph(kind(path), precision="float"), compile_graph(g, precision="float")
    same_program(from_file, from_graph)
    x = lattice(rng, 3, 4, 2, 4, 3, most=16)
    wanted = Euler(g, {"x": x})
    assert_same_spikes(run(from_file, x).spikes, wanted.spikes)
    np.testing.assert_array_equal(run(from_file, x).outputs["y"], wanted.values["y"])


def test_a_quantised_file_is_the_same_program_in_fixed_point(tmp_path):
    g, rng = typed()
    quantised, _ = quantize(g, 8, lattice(rng, 4, 2, 4, 3, most=16), 4, DT)
    files.write(quantised, tmp_path / "model.nir")
    same_program(compile_graph(tmp_path / "model.nir"), compile_graph(quantised))


def test_calibration_quantises_by_export_s_own_function():
    g, rng = typed()
    calibration = lattice(rng, 6, 2, 4, 3, most=16)
    quantised, _ = quantize(g, 8, calibration, 4, DT)
    program = compile_graph(g, calibration=calibration)
    assert program.precision == "fixed"
    same_program(program, compile_graph(quantised))
    x = np.broadcast_to(lattice(rng, 5, 1, 2, 4, 3, most=16), (5, 4, 2, 4, 3))
    fixed, floating = run(program, x), run(compile_graph(quantised, precision="float"), x)
    assert_same_spikes(fixed.spikes, floating.spikes)
    assert_same_spikes(fixed.spikes, Euler(quantised, {"x": x}).spikes)
    np.testing.assert_array_equal(fixed.outputs["y"], floating.outputs["y"])


def test_calibration_of_a_quantised_file_changes_nothing():
    rng = np.random.default_rng(0)
    _, g = quantised_student_like(rng)
    same_program(compile_graph(g, calibration=np.zeros((1, 2, 4, 3))), compile_graph(g))


def test_compiling_leaves_the_graph_as_it_was():
    g, rng = typed()
    before = copy.deepcopy(g)
    compile_graph(g, calibration=lattice(rng, 4, 2, 4, 3, most=16))
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
    message = "the file is not quantised, and fixed point needs integers: export it with --quantize 8, give calibration clips, or run it"
    with pytest.raises(DeployError, match=message):
        compile_graph(simple(steps=4))
    # how long a clip is decides what a membrane can pile up
    with pytest.raises(
        DeployError, match=r"the file does not say how many steps a sample has: give calibration with a step axis"
    ):
        compile_graph(simple(), calibration=np.ones((1, 2)))


def test_a_file_that_is_not_there_or_broken(tmp_path):
    with pytest.raises(BadInputError, match=r"model\.nir: no such file"):
        compile_graph(tmp_path / "model.nir")
    files.write(typed()[0], tmp_path / "whole.nir")
    (tmp_path / "half.nir").write_bytes((tmp_path / "whole.nir").read_bytes()[:500])
    with pytest.raises(BadInputError, match=r"half\.nir: no readable NIR file"):
        compile_graph(tmp_path / "half.nir")


def test_errors_end_a_command_with_2():
    with pytest.raises(MksgnError) as caught:
        compile_graph(simple(), precision="int8")
    assert caught.value.exit_code == 2
    assert isinstance(caught.value, ValueError)


def test_calibration_of_a_network_of_vectors():
    rng = np.random.default_rng(0)
    g = chain(
        ("x", inp(6)), ("a", affine(lattice(rng, 8, 6), lattice(rng, 8))), ("l", lif(8, threshold=0.25)),
        ("b", affine(lattice(rng, 3, 8), lattice(rng, 3))), ("y", out(3)), steps=4,
    )  # fmt: skip
    x = np.broadcast_to(spikes(rng, 5, 1, 6), (5, 4, 6))
    program = compile_graph(g, calibration=x[:, 0].astype(np.float32))
    agreement = (run(program, x).spikes["l"] == Euler(g, {"x": x}).spikes["l"]).mean()
    assert agreement > 0.9


def test_calibration_of_two_weighted_nodes_in_series_is_refused_by_name():
    g = chain(
        ("x", inp(2, 1, 3)),
        ("c", conv(np.ones((2, 2, 1, 1)))),
        ("joints", linear(np.eye(3))),
        ("l", lif(2, 1, 3)),
        ("y", out(2, 1, 3)),
        steps=4,
    )
    with pytest.raises(BadInputError, match="joints"):
        compile_graph(g, calibration=np.ones((2, 2, 1, 3)))


def test_calibration_of_a_read_out_that_is_pooled_behind_its_weights():
    rng = np.random.default_rng(0)
    g = chain(
        ("x", inp(2, 1, 3)), ("a", conv(lattice(rng, 2, 2, 1, 1))), ("l", lif(2, 1, 3, threshold=0.25)),
        ("b", conv(lattice(rng, 4, 2, 1, 1))), ("p", pool((1, 3))), ("y", out(4, 1, 1)), steps=4,
    )  # fmt: skip
    compile_graph(g, calibration=np.ones((2, 2, 1, 3)))


def test_calibration_of_a_read_out_of_two_branches():
    rng = np.random.default_rng(0)
    g = graph(
        {
            "x": inp(2, 1, 3), "a": conv(lattice(rng, 2, 2, 1, 1)), "l": lif(2, 1, 3, threshold=0.25), "b": conv(lattice(rng, 4, 2, 1, 1)),
            "c": conv(lattice(rng, 4, 2, 1, 1)), "y": out(4, 1, 3),
        },
        [("x", "a"), ("a", "l"), ("l", "b"), ("b", "y"), ("x", "c"), ("c", "y")],
        steps=4,
    )  # fmt: skip
    compile_graph(g, calibration=np.ones((2, 2, 1, 3)))


# --- run ---------------------------------------------------------------------------------------------------------------------


def test_an_array_or_a_dict_by_name():
    program = compile_graph(simple(), precision="float")
    x = spikes(np.random.default_rng(0), 3, 4, 2)
    a, b = run(program, x), run(program, {"x": x})
    np.testing.assert_array_equal(a.outputs["y"], b.outputs["y"])
    assert a.outputs["y"].shape == (3, 4, 2)


@pytest.mark.parametrize("backend", ["loihi", "", "Lava"])
def test_an_unknown_backend(backend):
    with pytest.raises(DeployError, match=f"^backend '{backend}': choose emulator or lava$"):
        run(compile_graph(simple(), precision="float"), np.zeros((1, 1, 2)), backend=backend)


def test_lava_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "mksgn.deploy.lava", None)
    with pytest.raises(
        DeployError,
        match=r"backend lava: Lava cannot be imported .*pip install 'mksgn\[lava\]', or use --backend emulator",
    ):
        run(compile_graph(simple(), precision="float"), np.zeros((1, 1, 2)), backend="lava")


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 4, 2, 1), (4, 2), (2,), (0, 4, 2), (1, 0, 2), (1, 4)])
def test_a_wrong_input_shape(shape):
    with pytest.raises(DeployError) as caught:
        run(compile_graph(simple(), precision="float"), np.zeros(shape))
    assert str(caught.value) == f"input x: shape {shape}, expected (samples, steps, 2)"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_clip_and_step(value):
    x = np.zeros((3, 4, 2))
    x[2, 1, 0] = x[2, 3, 1] = value
    with pytest.raises(
        DeployError,
        match=r"^input x: sample 2, step 1 holds a value that is not finite; repair or leave out the sample$",
    ):
        run(compile_graph(simple(), precision="float"), x)


def two_inputs():
    return compile_graph(
        graph(
            {"x": inp(2), "w": inp(3), "a": linear(np.eye(2)), "b": linear(np.ones((2, 3))), "l": lif(2), "y": out(2)},
            [("x", "a"), ("w", "b"), ("a", "l"), ("b", "l"), ("l", "y")],
        ),
        precision="float",
    )


@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        ({"x": np.zeros((1, 1, 2))}, "x"),
        ({"x": 0, "w": 0, "z": 0}, "w, x, z"),
        ({}, "none"),
        (np.zeros((1, 1, 3)), "w"),
    ],
)
def test_inputs_by_other_names(inputs, given):
    with pytest.raises(DeployError, match=f"^inputs {given}: the program has w, x$"):
        run(two_inputs(), inputs)


@pytest.mark.parametrize("other", [(2, 4, 3), (3, 5, 3)])
def test_inputs_of_different_lengths(other):
    with pytest.raises(DeployError, match=r"^inputs differ in samples or steps: \[\("):
        run(two_inputs(), {"x": np.zeros((3, 4, 2)), "w": np.zeros(other)})


def test_several_inputs():
    x = {"x": spikes(np.random.default_rng(0), 3, 4, 2), "w": spikes(np.random.default_rng(1), 3, 4, 3)}
    execution = run(two_inputs(), x)
    assert execution.outputs["y"].shape == (3, 4, 2)
    assert execution.counters["l"].syn_ops == 2 * x["x"].sum() + 2 * x["w"].sum()
    assert execution.counters["l"].effective_acs == x["x"].sum() + 2 * x["w"].sum()


def test_spikes_of_an_input_may_be_the_output():
    x = spikes(np.random.default_rng(0), 3, 4, 2)
    execution = run(compile_graph(chain(("x", inp(2)), ("y", out(2))), precision="float"), x)
    np.testing.assert_array_equal(execution.outputs["y"], x)


def test_an_analog_input_as_an_output_is_refused_or_passed_on():
    g = chain(("x", inp(2)), ("y", out(2)))
    try:
        outputs = run(compile_graph(g, precision="float", analog=("x",)), np.full((1, 2, 2), 0.5)).outputs
    except DeployError:
        return
    assert outputs["y"].tolist() == [[[0.5, 0.5]] * 2]


def test_running_twice_gives_the_same():
    rng = np.random.default_rng(3)
    program = compile_graph(student_like(rng), precision="float")
    x = analog_clips(rng, 3)
    a, b = run(program, x), run(program, x)
    assert_same_spikes(a.spikes, b.spikes)
    assert a.counters["proj"].syn_ops == b.counters["proj"].syn_ops


def test_metadata_reaches_the_program():
    program = compile_graph(simple(steps=3, classes=json.dumps(["a", "b"])), precision="float")
    assert program.metadata["classes"] == '["a", "b"]'


@pytest.mark.parametrize(("name", "value"), [("dt", 0.0), ("dt", -1e-4), ("if_dt", 0.0), ("if_dt", float("inf"))])
def test_a_time_step_that_is_none(name, value):
    with pytest.raises(DeployError, match=f"^{name} .*: expected a positive number of seconds"):
        compile_graph(simple(), precision="float", **{name: value})


def test_lists_and_tensors_are_arrays():
    program = compile_graph(simple(steps=4), precision="float")
    x = np.ones((2, 4, 2))
    for given in (x.tolist(), torch.from_numpy(x)):
        np.testing.assert_array_equal(run(program, given).spikes["l"], run(program, x).spikes["l"])
    with pytest.raises(DeployError, match="input x: holds <U1, expected numbers"):
        run(program, np.full((2, 4, 2), "a"))


def test_calibration_by_currents_of_an_input_that_is_not_named_analog():
    with pytest.raises(DeployError, match=r"calibration of x: spikes are 0 or 1, .* name it in `analog`"):
        compile_graph(simple(steps=4), calibration=np.full((3, 2), 0.5))
