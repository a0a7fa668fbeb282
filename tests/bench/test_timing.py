"""mksgn/bench/timing: step times by hand, and what a placement that balances wins."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from mksgn.bench.step_time import Span
from mksgn.bench.timing import step_times, timing, timings
from mksgn.bench.timing_models import TimingModel, known_timing_models
from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.chips import CHIPS, LOIHI1
from mksgn.deploy.placement.loads import COLUMN, core_loads
from mksgn.deploy.placement.place import place
from tests.deploy.test_any_graph import RANDOM
from tests.support import graphs as net
from tests.support.random_programs import random_programs
from tests.support.tiers import examples

SMALL = replace(LOIHI1, name="small", neurons_per_core=20, synaptic_bits_per_core=8 * 400)
LATENCIES = {
    "message_in": 1000.0,
    "synaptic_op": {"dense": 1.0, "sparse": 2.0, "convolution": 3.0},
    "neuron_access": 10.0,
    "neuron_update": 20.0,
    "spike": 40.0,
    "message_out": 80.0,
}


def model(**changes: Any) -> TimingModel:
    fields = {"name": "x", "chip": "small", "evidence": "declared", "source": "the test", "latencies_ns": LATENCIES}
    return TimingModel(**{**fields, "barrier_us": {1: 0.5}, **changes})


def student(bodies: int = 3):
    rng = np.random.default_rng(0)
    _, graph = net.quantised_student_like(rng)
    program = compile_graph(graph, dt=net.DT)
    return program, run(program, net.analog_clips(rng, bodies))


def chain(*weights: float) -> tuple[Any, Activity]:
    """2 inputs, one neuron each for `weights`; both inputs spike at step 0, the first one at step 2."""
    graph = net.chain(
        ("x", net.inp(2)), ("w", net.linear(np.array([weights, weights]).T)), ("n", net.lif(len(weights))), ("y", net.out(len(weights)))
    )  # fmt: skip
    program = compile_graph(graph, precision="float", dt=net.DT)
    inputs = np.array([[[1, 1], [0, 0], [1, 0]]], dtype=np.float32)
    execution = run(program, {"x": inputs})
    return program, Activity(program, {"x": inputs != 0} | execution.spikes)


def test_step_times_by_hand():
    """Two neurons on one core: the first fires at the first step, where both inputs arrive."""
    program, activity = chain(5.0, 0.0)
    assert activity.spikes["n"][0].tolist() == [[True, False], [False, False], [True, False]]
    placement = place(program, SMALL)
    counts = core_loads(placement, activity).counts[0, :, 0]
    steps = [dict(zip(COLUMN, row.tolist(), strict=True)) for row in counts]
    # the inputs' step t is the chip's t, that of the neurons t + 1: a synapse of weight 0 is a synapse
    assert [s["messages_in"] for s in steps] == [2, 0, 1, 0]
    assert [s["dense"] for s in steps] == [4, 0, 2, 0]
    assert [s["accesses"] for s in steps] == [2, 2, 2, 2]
    assert [s["updates"] for s in steps] == [0, 2, 0, 2]
    assert [s["spikes"] for s in steps] == [0, 1, 0, 1]
    assert [s["messages_out"] for s in steps] == [0] * 4  # an output is read, not sent
    lower, estimate = step_times(model(), placement, counts[None, :, None])
    # 2 x 1000 + 4 x 1 for messages; then 2 x 10 + 2 x 20 + 40 for neurons; and the barrier
    assert lower[0].tolist() == pytest.approx([2.504, 0.6, 1.502, 0.6])
    # every neuron updated, 2 x 10 + 2 x 20 + spikes, and then the messages
    assert estimate[0].tolist() == pytest.approx([2.564, 0.6, 1.562, 0.6])


def test_a_run_of_one_core_by_hand():
    program, activity = chain(5.0, 0.0)
    found = timing(
        model(static_power_W=0.1),
        {"compact": place(program, SMALL)},
        activity,
        bodies_per_sample=2,
        energy_mJ={"compact": 3},
    )
    (row,) = found.placements
    # streaming: step 0 of the inputs is step 2 of the neurons before, and so on
    stream = [2.504, 0.6, 1.502]  # µs: the first is bound by messages, at its neurons' 0.1 + 0.5
    assert row.step_us.lower == pytest.approx(sum(stream) / 3)
    assert row.longest_step_us.lower == pytest.approx(2.504)
    assert row.latency_us.lower == pytest.approx(2.504 + 0.6 + 1.502 + 0.6)
    assert row.samples_per_second.estimate == pytest.approx(1e6 / (2 * sum(stream)))
    assert row.static_mJ.lower == pytest.approx(0.1 * 2 * sum(stream) * 1e-3)
    assert row.energy_delay_mJ_ms == pytest.approx(3 / 2 * 5.206e-3)  # of one of the sample's two bodies
    assert (found.steps, found.bodies, found.latency_steps, found.barrier_us) == (3, 1, 1, 0.5)
    first = row.binding[0]
    assert (first.population, first.event) == ("n", "messages_in")
    assert first.share == pytest.approx((2.004 + 1.002) / (2.004 + 1.002 + 0.1))


def test_a_model_without_latencies_counts():
    program, execution = student()
    (found,) = timings(
        program, execution, [model(latencies_ns=None, barrier_us={})], chips=[SMALL], balance=False, bodies_per_sample=1,
        energy_of=lambda model, placement: None,
    )  # fmt: skip
    (row,) = found.placements
    assert (row.step_us, row.latency_us, row.samples_per_second, row.binding) == (None, None, None, [])
    assert row.busiest["accesses"] == place(program, SMALL).usage[:, 0].max()


def test_an_energy_is_multiplied_with_the_latency_of_its_own_placement():
    """An energy depends on the placement's messages: here each is a thousandth of its cores."""
    program, execution = student()
    (found,) = timings(
        program, execution, [model(energy_model="e")], chips=[SMALL], balance=True, bodies_per_sample=1,
        energy_of=lambda model, placement: placement.cores / 1000,
    )  # fmt: skip
    for row in found.placements:
        assert row.energy_delay_mJ_ms == pytest.approx(row.cores / 1000 * row.latency_us.lower * 1e-3)


def test_no_time_without_spike_trains():
    program, execution = student()
    execution.spikes.clear()
    given_ = {
        "chips": list(CHIPS.values()),
        "balance": False,
        "bodies_per_sample": 1,
        "energy_of": lambda model, placement: None,
    }
    assert timings(program, execution, known_timing_models(), **given_) == []


def test_balancing_a_student_shortens_its_steps():
    program, execution = student()
    given_ = {"chips": [SMALL], "bodies_per_sample": 1, "energy_of": lambda model, placement: None}
    (found,) = timings(program, execution, [model()], balance=True, **given_)
    compact, balanced = found.placements
    assert (compact.place, balanced.place) == ("compact", "balanced")
    assert balanced.step_us.lower < 0.9 * compact.step_us.lower
    assert balanced.cores > compact.cores
    assert balanced.chips == compact.chips


@settings(RANDOM, max_examples=examples(25, 4))
@given(random_programs())
def test_balancing_never_lengthens_a_step(network):
    program = compile_graph(network.graph, dt=network.dt, if_dt=network.if_dt)
    execution = run(program, network.inputs)
    execution.spikes |= {name: x != 0 for name, x in network.inputs.items() if program.sends_spikes(name)}
    chip = replace(SMALL, neurons_per_core=4, cores=16)
    for found in timings(
        program,
        execution,
        [model(chip="small")],
        chips=[chip],
        balance=True,
        bodies_per_sample=1,
        energy_of=lambda model, placement: None,
    ):
        compact, balanced = found.placements
        assert balanced.step_us.lower <= compact.step_us.lower
        assert balanced.chips <= compact.chips


def test_a_span_has_its_bounds_in_order():
    with pytest.raises(ValueError, match="exceeds estimate"):
        Span(lower=2.0, estimate=1.0)
