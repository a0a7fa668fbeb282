"""mksgn/deploy/passes/balance: delays that keep the meaning where branches of different length
join.
"""

import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.passes.balance import balance, depths
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from tests.support import graphs as net
from tests.support.programs import recurrent_loop


def delays(program):
    return {
        f"{s} → {p.target}": d
        for p in program.projections
        for s, d in zip(p.sources, p.compensation_delays, strict=True)
    }


def test_depths_and_delays_of_a_student():
    """Every branch into a population as long as the longest; attention's v waits for its map, one
    step.
    """
    program = balance(host_split(ingest(net.student_like(np.random.default_rng(0)))))
    assert {p.name: p.depth for p in program.populations} == {
        "x": 0, "encoder": 0, "spatial": 1, "qkv": 2, "attend.m": 3, "attend.z": 4, "proj": 5, "temporal": 6,
        "classes": 7,
    }  # fmt: skip
    assert delays(program) == {
        "x → encoder": 0,
        "encoder → spatial": 0,
        "spatial → qkv": 0,
        "qkv → attend.m": 0,
        "attend.m → attend.z": 0,
        "qkv → attend.z": 1,
        "attend.z → proj": 0,
        "spatial → proj": 3,
        "proj → temporal": 0,
        "encoder → temporal": 5,
        "temporal → classes": 0,
    }
    assert program.latency == 7 + program.unit_steps == 7 + 2  # a step more for the units of either product
    assert all(program.arrival_delay(p, i) == 0 for p in program.projections for i in range(len(p.sources)))


def test_balancing_twice_changes_nothing():
    once = balance(host_split(ingest(net.student_like(np.random.default_rng(0)))))
    twice = balance(once)
    assert delays(twice) == delays(once)
    assert [p.depth for p in twice.populations] == [p.depth for p in once.populations]


def test_only_depths_and_delays_change():
    before = host_split(ingest(net.student_like(np.random.default_rng(1))))
    after = balance(before)
    for p, q in zip(before.populations, after.populations, strict=True):
        assert (p.name, p.shape, p.kind, p.location, p.unit) == (q.name, q.shape, q.kind, q.location, q.unit)
        assert p.neuron is q.neuron
    for p, q in zip(before.projections, after.projections, strict=True):
        assert (p.name, p.sources, p.target, p.kind) == (q.name, q.sources, q.target, q.kind)
        assert getattr(p, "operators", None) is getattr(q, "operators", None)


def test_a_chain_is_late_without_delays_and_in_time_with_them():
    rng = np.random.default_rng(2)
    g = net.chain(
        ("x", net.inp(4)), ("a", net.linear(net.lattice(rng, 5, 4))), ("first", net.lif(5, threshold=0.25)),
        ("b", net.linear(net.lattice(rng, 6, 5))), ("second", net.lif(6, threshold=0.25)), ("y", net.out(6)),
    )  # fmt: skip
    x = net.spikes(rng, 3, 8, 4)
    before = host_split(ingest(g))
    after = balance(before)
    late, timely = run(before, x), run(after, x)
    net.assert_same_spikes(timely.spikes, net.Euler(g, {"x": x}).spikes)
    for name, depth in (("first", 1), ("second", 2)):
        assert after[name].depth == depth
        # no bias, so that nothing fires before the sample arrives
        assert not late.spikes[name][:, :depth].any()
        np.testing.assert_array_equal(late.spikes[name][:, depth:], timely.spikes[name][:, :-depth])


def test_a_join_mixes_time_steps_without_delays_only():
    rng = np.random.default_rng(3)
    g = net.graph(
        {
            "x": net.inp(4), "a": net.linear(net.lattice(rng, 6, 4)), "first": net.lif(6, threshold=0.25),
            "b": net.linear(net.lattice(rng, 6, 6)),
            "second": net.lif(6, threshold=0.25), "c": net.linear(net.lattice(rng, 6, 6)), "skip": net.linear(net.lattice(rng, 6, 4)),
            "joined": net.lif(6, threshold=0.25), "y": net.out(6),
        },
        [
            ("x", "a"), ("a", "first"), ("first", "b"), ("b", "second"), ("second", "c"), ("c", "joined"),
            ("x", "skip"), ("skip", "joined"), ("joined", "y"),
        ],
    )  # fmt: skip
    x = net.spikes(rng, 6, 8, 4)
    before = ingest(g)
    after = balance(before)
    assert delays(after)["x → joined"] == 2
    expected = net.Euler(g, {"x": x}).spikes
    net.assert_same_spikes(run(after, x).spikes, expected)
    mixed = run(before, x).spikes["joined"]
    depth = after["joined"].depth
    assert (mixed[:, depth:] != expected["joined"][:, :-depth]).any()  # not just late: wrong


def test_a_residual_around_attention_gives_the_same_spikes():
    rng = np.random.default_rng(4)
    g = net.graph(
        {
            "x": net.inp(4, 2, 3), "q": net.conv(net.lattice(rng, 12, 4, 1, 1), net.lattice(rng, 12)),
            "qkv": net.lif(12, 2, 3, threshold=0.25),
            "a": net.attention(2, threshold_m=0.5, threshold_z=0.25), "p": net.conv(net.lattice(rng, 4, 4, 1, 1)),
            "s": net.conv(net.lattice(rng, 4, 4, 1, 1)),
            "joined": net.lif(4, 2, 3, threshold=0.25), "y": net.out(4, 2, 3),
        },
        [("x", "q"), ("q", "qkv"), ("qkv", "a"), ("a", "p"), ("p", "joined"), ("x", "s"), ("s", "joined"),
         ("joined", "y")],
    )  # fmt: skip
    x = net.spikes(rng, 4, 6, 4, 2, 3)
    program = balance(ingest(g, dt=net.DT))
    assert delays(program)["qkv → a.z"] == 1
    assert delays(program)["x → joined"] == 3
    actual, expected = run(program, x), net.Euler(g, {"x": x})
    net.assert_same_spikes(actual.spikes, expected.spikes)
    np.testing.assert_array_equal(actual.outputs["y"], expected.values["y"])


def test_inputs_of_a_population_on_the_host_get_no_delay():
    rng = np.random.default_rng(5)
    g = net.student_like(rng)
    program = balance(host_split(ingest(g)))
    assert program["encoder"].depth == program["x"].depth == 0
    x = net.analog_clips(rng, 3)
    net.assert_same_spikes(run(program, x).spikes, net.Euler(g, {"x": x}).spikes)


def test_a_population_off_the_longest_path_is_not_delayed():
    """Only where branches meet: a second output at depth 1 stays there."""
    g = net.graph(
        {
            "x": net.inp(2), "a": net.linear(np.eye(2)), "short": net.lif(2), "b": net.linear(np.eye(2)), "c": net.linear(np.eye(2)),
            "long": net.lif(2),
            "y": net.out(2), "z": net.out(2),
        },
        [("x", "a"), ("a", "short"), ("short", "b"), ("b", "long"), ("x", "c"), ("c", "long"), ("short", "y"),
         ("long", "z")],
    )  # fmt: skip
    program = balance(ingest(g))
    assert {p.name: p.depth for p in program.populations} == {"x": 0, "short": 1, "long": 2}
    assert program.latency == 2


def test_depths_at_another_cost_and_around_a_loop_that_is_not_fused():
    program = compile_graph(recurrent_loop())
    assert depths(program) == {p.name: p.depth for p in program.populations} == {"x": 0, "a": 1, "b": 1, "c": 2}
    assert depths(program, lambda projection: 3)["c"] == 6
    # not fused, a → b and b → a cost a step each, and the network allows one for both
    with pytest.raises(DeployError, match="closes a loop over several populations, in which spikes return too late"):
        depths(program, lambda projection: 1 - projection.logical_delay, fused_loops=False)
    allowed = depths(program, lambda projection: 1 - 2 * projection.logical_delay, fused_loops=False)
    assert allowed == {"x": 0, "a": 1, "b": 2, "c": 3}
