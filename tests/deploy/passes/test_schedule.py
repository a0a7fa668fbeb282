"""mksgn/deploy/passes/schedule: windows, and clips that stream back to back through a chip's own
time.
"""

import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.emulator import host_values
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.passes.schedule import Window, run_length, schedule
from tests.support import graphs as net


def program(seed: int = 0):
    return compile_graph(net.student_like(np.random.default_rng(seed)), precision="float")


def test_windows_start_at_the_populations_depths():
    windows = schedule(program(), samples=5)
    assert {name: w.offset for name, w in windows.items()} == {
        "x": 0, "encoder": 0, "spatial": 1, "qkv": 2, "attend.m": 3, "attend.z": 4, "proj": 5, "temporal": 6,
        "classes": 7,
    }  # fmt: skip
    assert {(w.period, w.samples, w.end - w.offset) for w in windows.values()} == {(4, 5, 20)}


def test_the_run_ends_with_the_last_output_of_the_last_sample():
    assert run_length(program(), 5) == 7 + 5 * 4
    assert run_length(program(), 1, steps=10) == 7 + 10


def test_steps_of_the_inputs_override_those_of_the_file():
    assert schedule(program(), 2, steps=6)["qkv"] == Window(offset=2, period=6, samples=2)


def test_a_window_step_by_step():
    window = Window(offset=3, period=4, samples=2)
    assert window.end == 11
    assert [t for t in range(15) if window.inside(t)] == list(range(3, 11))
    assert [t for t in range(3, 11) if window.starts_sample(t)] == [3, 7]
    assert [t for t in range(3) if window.starts_sample(t)] == []  # no sample starts between 0 and the offset …
    assert window.starts_sample(11)  # … and resetting after the end does no harm


@pytest.mark.parametrize("steps", [None, 0, -1])
def test_a_program_without_steps_needs_them(steps):
    g = net.chain(("x", net.inp(2)), ("d", net.linear(np.eye(2))), ("l", net.lif(2)), ("y", net.out(2)))
    with pytest.raises(DeployError, match="does not say how many steps a sample has; give inputs with a step axis"):
        schedule(compile_graph(g, precision="float"), 1, steps)


def test_an_unbalanced_program_is_refused_with_the_name_of_the_projection():
    unbalanced = host_split(ingest(net.student_like(np.random.default_rng(0))))
    with pytest.raises(
        DeployError, match=r"projection graph: spikes of encoder arrive at another step; run the balance pass first"
    ):
        schedule(unbalanced, 1)


@pytest.mark.parametrize("precision", ["float", "fixed"])
def test_samples_that_stream_back_to_back_equal_each_alone(precision):
    """In a chip's own time: neurons fire on their bias outside their windows, buffers are never
    cleared; nothing leaks.
    """
    rng = np.random.default_rng(1)
    _, g = net.quantised_student_like(rng)
    compiled = compile_graph(g, precision=precision)
    x = net.analog_clips(rng, 5)
    windows = schedule(compiled, samples=5)
    assert run_length(compiled, 5) == max(w.end for w in windows.values())
    streamed = net.on_chip(compiled, host_values(compiled, {"x": x}), windows, steps=4)
    emulated = run(compiled, x)
    net.assert_same_spikes(emulated.spikes, {name: streamed[name].astype(bool) for name in emulated.spikes})
    np.testing.assert_array_equal(emulated.outputs["y"], streamed["classes"].astype(np.float32))


def test_spikes_from_biases_outside_the_windows_have_no_effect():
    rng = np.random.default_rng(2)
    g = net.chain(
        ("x", net.inp(3)), ("a", net.affine(net.lattice(rng, 4, 3), np.full(4, 0.75))), ("first", net.lif(4, threshold=0.5)),
        ("b", net.affine(net.lattice(rng, 4, 4), np.full(4, 0.25))), ("second", net.lif(4, threshold=0.5)), ("y", net.out(4)),
    )  # fmt: skip
    compiled = balance(ingest(g))
    x = net.spikes(rng, 4, 5, 3)
    actual = net.on_chip(compiled, {"x": x}, schedule(compiled, 4, 5), 5)
    expected = net.Euler(g, {"x": x}).spikes
    net.assert_same_spikes({name: actual[name].astype(bool) for name in expected}, expected)


def test_without_the_balance_pass_the_stream_goes_wrong():
    """The comparison above can fail: a missing delay changes spikes."""
    rng = np.random.default_rng(1)
    compiled = compile_graph(net.student_like(rng), precision="float")
    x = net.analog_clips(rng, 5)
    windows = schedule(compiled, samples=5)
    flat = host_split(ingest(net.student_like(np.random.default_rng(1))))
    streamed = net.on_chip(flat, host_values(flat, {"x": x}), windows, steps=4)
    assert (streamed["temporal"].astype(bool) != run(compiled, x).spikes["temporal"]).any()
