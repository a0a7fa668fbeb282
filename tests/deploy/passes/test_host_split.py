"""mksgn/deploy/passes/host_split: analog inputs and the populations that read nothing else stay on
the host.
"""

import numpy as np
import pytest

from mksgn.deploy import run
from mksgn.deploy.emulator import host_values
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.fixed_point import fixed_point
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from tests.support import graphs as net


def places(program):
    return {p.name: p.location for p in program.populations}


def test_only_the_input_and_its_encoder_move_to_the_host():
    program = host_split(ingest(net.student_like(np.random.default_rng(0))))
    assert [name for name, place in places(program).items() if place == "host"] == ["x", "encoder"]


def test_nothing_else_changes():
    before = ingest(net.student_like(np.random.default_rng(0)))
    after = host_split(before)
    assert [p.name for p in after.populations] == [p.name for p in before.populations]
    assert after.projections == before.projections
    assert after.outputs == before.outputs
    assert all(a.neuron is b.neuron for a, b in zip(after.populations, before.populations, strict=True))


def test_a_program_whose_inputs_are_spikes_stays_on_the_chip_and_keeps_its_spikes():
    rng = np.random.default_rng(1)
    before = ingest(
        net.chain(
            ("x", net.inp(3)),
            ("d", net.linear(net.lattice(rng, 4, 3))),
            ("l", net.lif(4, threshold=0.25)),
            ("y", net.out(4)),
        )
    )
    after = host_split(before)
    assert set(places(after).values()) == {"chip"}
    x = net.spikes(rng, 3, 5, 3)
    net.assert_same_spikes(run(balance(after), x).spikes, run(balance(before), x).spikes)


def test_the_encoder_fires_as_the_equations_do():
    rng = np.random.default_rng(2)
    g = net.student_like(rng)
    x = net.analog_clips(rng, 3)
    given = host_values(host_split(ingest(g)), {"x": x})
    assert set(given) == {"encoder"}
    assert given["encoder"].dtype == bool
    net.assert_same_spikes(given, {"encoder": net.Euler(g, {"x": x}).spikes["encoder"]})


def test_an_encoder_of_two_analog_inputs_one_of_them_constant():
    rng = np.random.default_rng(3)
    g = net.graph(
        {
            "x": net.inp(3, analog=True), "w": net.inp(2, analog=True), "a": net.linear(net.lattice(rng, 5, 3)),
            "b": net.linear(net.lattice(rng, 5, 2)),
            "encoder": net.lif(5, threshold=0.5), "y": net.out(5),
        },
        [("x", "a"), ("w", "b"), ("a", "encoder"), ("b", "encoder"), ("encoder", "y")],
    )  # fmt: skip
    program = host_split(ingest(g))
    assert places(program) == {"x": "host", "w": "host", "encoder": "host"}
    inputs = {
        "x": net.lattice(rng, 4, 5, 3, most=24),
        "w": np.broadcast_to(net.lattice(rng, 4, 1, 2, most=24), (4, 5, 2)),
    }
    expected = net.Euler(g, inputs).spikes
    net.assert_same_spikes(host_values(program, inputs), expected)
    swapped = {"x": np.broadcast_to(inputs["x"][:, :1], (4, 5, 3)), "w": net.lattice(rng, 4, 5, 2, most=24)}
    net.assert_same_spikes(host_values(program, swapped), net.Euler(g, swapped).spikes)


def test_spike_inputs_do_not_move_to_the_host():
    rng = np.random.default_rng(4)
    g = net.graph(
        {
            "x": net.inp(2, analog=True), "s": net.inp(3), "a": net.linear(net.lattice(rng, 4, 2)), "encoder": net.lif(4, threshold=0.5),
            "b": net.linear(net.lattice(rng, 4, 4)), "c": net.linear(net.lattice(rng, 4, 3)), "joined": net.lif(4, threshold=0.25),
            "y": net.out(4),
        },
        [("x", "a"), ("a", "encoder"), ("encoder", "b"), ("s", "c"), ("b", "joined"), ("c", "joined"), ("joined", "y")],
    )  # fmt: skip
    program = balance(host_split(ingest(g)))
    assert places(program) == {"s": "chip", "x": "host", "encoder": "host", "joined": "chip"}
    assert program["joined"].depth == 1  # both arrive over one synapse
    inputs = {"x": net.lattice(rng, 3, 4, 2, most=24), "s": net.spikes(rng, 3, 4, 3)}
    given = host_values(program, inputs)
    np.testing.assert_array_equal(given["s"], inputs["s"])
    net.assert_same_spikes(run(program, inputs).spikes, net.Euler(g, inputs).spikes)


MIXED = {
    "a population of analog and spikes": net.graph(
        {
            "x": net.inp(2, analog=True), "s": net.inp(2), "a": net.linear(np.eye(2)), "b": net.linear(np.eye(2)),
            "l": net.lif(2, threshold=0.5),
            "y": net.out(2),
        },
        [("x", "a"), ("s", "b"), ("a", "l"), ("b", "l"), ("l", "y")],
    ),
    "a skip around the encoder": net.graph(
        {
            "x": net.inp(2, analog=True), "a": net.linear(np.eye(2)), "e": net.lif(2), "b": net.linear(np.eye(2)),
            "c": net.linear(np.eye(2)),
            "l": net.lif(2), "y": net.out(2),
        },
        [("x", "a"), ("a", "e"), ("e", "b"), ("x", "c"), ("b", "l"), ("c", "l"), ("l", "y")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MIXED)
def test_a_population_of_analog_and_spike_inputs_runs_in_float_on_the_chip(name):
    rng = np.random.default_rng(6)
    program = balance(host_split(ingest(MIXED[name])))
    assert program["l"].location == "chip"
    inputs = {
        p.name: net.lattice(rng, 3, 4, 2, most=24) if p.name in program.analog else net.spikes(rng, 3, 4, 2)
        for p in program.inputs
    }
    net.assert_same_spikes(run(program, inputs).spikes, net.Euler(MIXED[name], inputs).spikes)


@pytest.mark.parametrize("name", MIXED)
def test_a_population_of_analog_and_spike_inputs_is_refused_in_fixed_point(name):
    units = {"populations": {"l": {"exponent": 0}}}
    with pytest.raises(
        DeployError, match="population l: reads the analog input x and is not a plain encoder; only a population"
    ):
        fixed_point(host_split(ingest(MIXED[name])), units)


def test_an_analog_read_out_stays_on_the_host():
    rng = np.random.default_rng(7)
    weight = net.lattice(rng, 2, 2)
    g = net.chain(("x", net.inp(2, analog=True)), ("d", net.linear(weight)), ("y", net.out(2)))
    program = balance(host_split(ingest(g)))
    assert places(program) == {"x": "host", "d": "host"}
    x = net.lattice(rng, 3, 4, 2)
    np.testing.assert_array_equal(run(program, x).outputs["y"], x @ weight.T)
