"""mksgn/deploy/execute: inputs by name, backends, and what is refused before a run."""

import sys

import numpy as np
import pytest
import torch

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from tests.support import graphs as net
from tests.support.programs import simple


def test_an_array_or_a_dict_by_name():
    program = compile_graph(simple(), precision="float")
    x = net.spikes(np.random.default_rng(0), 3, 4, 2)
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
        match=r"backend lava: Lava cannot be imported .*pip install 'mksgn\[lava\]'.*, or use --backend emulator$",
    ):
        run(compile_graph(simple(), precision="float"), np.zeros((1, 1, 2)), backend="lava")


@pytest.mark.parametrize("shape", [(1, 4, 3), (1, 4, 2, 1), (4, 2), (2,), (0, 4, 2), (1, 0, 2), (1, 4)])
def test_a_wrong_input_shape(shape):
    with pytest.raises(DeployError) as caught:
        run(compile_graph(simple(), precision="float"), np.zeros(shape))
    assert str(caught.value) == f"input x: shape {shape}, expected (samples, steps, 2)"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_sample_and_step(value):
    x = np.zeros((3, 4, 2))
    x[2, 1, 0] = x[2, 3, 1] = value
    with pytest.raises(
        DeployError,
        match=r"^input x: sample 2, step 1 holds a value that is not finite; repair or leave out the sample$",
    ):
        run(compile_graph(simple(), precision="float"), x)


def two_inputs():
    return compile_graph(
        net.graph(
            {
                "x": net.inp(2),
                "w": net.inp(3),
                "a": net.linear(np.eye(2)),
                "b": net.linear(np.ones((2, 3))),
                "l": net.lif(2),
                "y": net.out(2),
            },
            [("x", "a"), ("w", "b"), ("a", "l"), ("b", "l"), ("l", "y")],
        ),
        precision="float",
    )


@pytest.mark.parametrize(
    ("inputs", "given"), [({"x": np.zeros((1, 1, 2))}, "x"), ({"x": 0, "w": 0, "z": 0}, "w, x, z"), ({}, "none")]
)
def test_inputs_by_other_names(inputs, given):
    with pytest.raises(DeployError, match=f"^input {given}: the graph's inputs are w, x$"):
        run(two_inputs(), inputs)


def test_an_array_for_several_inputs():
    with pytest.raises(DeployError, match=r"^the graph has 2 inputs \(w, x\); give a dict of arrays by their names$"):
        run(two_inputs(), np.zeros((1, 1, 3)))


@pytest.mark.parametrize("other", [(2, 4, 3), (3, 5, 3)])
def test_inputs_of_different_lengths(other):
    with pytest.raises(DeployError, match=r"^inputs differ in samples or steps: \[\("):
        run(two_inputs(), {"x": np.zeros((3, 4, 2)), "w": np.zeros(other)})


def test_several_inputs():
    x = {"x": net.spikes(np.random.default_rng(0), 3, 4, 2), "w": net.spikes(np.random.default_rng(1), 3, 4, 3)}
    execution = run(two_inputs(), x)
    assert execution.outputs["y"].shape == (3, 4, 2)
    assert execution.counters["l"].syn_ops == 2 * x["x"].sum() + 2 * x["w"].sum()
    assert execution.counters["l"].effective_acs == x["x"].sum() + 2 * x["w"].sum()


def test_spikes_of_an_input_may_be_the_output():
    x = net.spikes(np.random.default_rng(0), 3, 4, 2)
    execution = run(compile_graph(net.chain(("x", net.inp(2)), ("y", net.out(2))), precision="float"), x)
    np.testing.assert_array_equal(execution.outputs["y"], x)


def test_an_analog_input_as_an_output_is_refused_or_passed_on():
    g = net.chain(("x", net.inp(2)), ("y", net.out(2)))
    try:
        outputs = run(compile_graph(g, precision="float", analog=("x",)), np.full((1, 2, 2), 0.5)).outputs
    except DeployError:
        return
    assert outputs["y"].tolist() == [[[0.5, 0.5]] * 2]


def test_running_twice_gives_the_same():
    rng = np.random.default_rng(3)
    program = compile_graph(net.student_like(rng), precision="float")
    x = net.analog_clips(rng, 3)
    a, b = run(program, x), run(program, x)
    net.assert_same_spikes(a.spikes, b.spikes)
    assert a.counters["proj"].syn_ops == b.counters["proj"].syn_ops


def test_lists_and_tensors_are_arrays():
    program = compile_graph(simple(steps=4), precision="float")
    x = np.ones((2, 4, 2))
    for given in (x.tolist(), torch.from_numpy(x)):
        np.testing.assert_array_equal(run(program, given).spikes["l"], run(program, x).spikes["l"])
    with pytest.raises(DeployError, match="input x: holds <U1, expected numbers"):
        run(program, np.full((2, 4, 2), "a"))
