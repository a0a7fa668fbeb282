"""mksgn/deploy/placement/loads: what every core does at every step, against every synapse followed by itself."""

import importlib.util
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings

from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.activity import Activity
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.loads import COLUMN, EVENTS, core_loads
from mksgn.deploy.placement.place import place
from mksgn.deploy.program.program import SynapseKind
from tests.deploy.test_any_graph import RANDOM
from tests.support import graphs as net
from tests.support.core_loads_oracle import CoreCensus
from tests.support.random_programs import random_programs
from tests.support.tiers import examples

# cores so small that small populations take several
SMALL = replace(LOIHI2, name="small", neurons_per_core=20, synaptic_bits_per_core=8 * 400)
SMALLEST = replace(LOIHI2, name="smallest", neurons_per_core=3, synaptic_bits_per_core=8 * 60)
SYNAPTIC = [COLUMN[kind] for kind in ("dense", "sparse", "convolution")]
BACKENDS = [
    "emulator",
    pytest.param(
        "lava", marks=pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed")
    ),
]


def operations(program, execution, kind):
    """Synaptic operations of a kind that the run counted; a coincidence is a sparse one."""
    total = 0
    for population in program.populations:
        counters = execution.counters[population.name]
        if population.location == "chip" and population.kind != "input":
            into = zip(program.into(population.name), counters.deliveries, strict=True)
            total += sum(count for projection, count in into if projection.synapse_kind == kind)
            total += counters.coincidences if kind == "sparse" else 0
    return total


def assert_equal_by_core_and_step(graph, inputs, chip, backend="emulator", **compiling):
    program = compile_graph(graph, **compiling)
    execution = run(program, inputs, backend=backend)
    given_ = {name: x != 0 for name, x in inputs.items() if name not in program.analog}
    trains = given_ | execution.spikes
    placement = place(program, chip)
    found = core_loads(placement, Activity(program, trains))
    expected = CoreCensus(graph, placement, trains).counts
    assert np.array_equal(found.counts[..., SYNAPTIC].sum(-1), expected.pop("synaptic"))
    for kind in get_args(SynapseKind):  # the same kinds as the counters of the run, which prices by kind refer to
        assert found.counts[..., COLUMN[kind]].sum() == operations(program, execution, kind), kind
    for event, counts in expected.items():
        assert np.array_equal(found.counts[..., COLUMN[event]], counts), event
    return found, placement


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_student_in_emulator_and_lava(backend):
    rng = np.random.default_rng(0)
    _, graph = net.quantised_student_like(rng)
    found, placement = assert_equal_by_core_and_step(graph, {"x": net.analog_clips(rng, 3)}, SMALL, backend, dt=net.DT)
    assert placement.cores > 2 * len(placement.populations)
    assert (found.counts.sum((0, 1, 2)) > 0).sum() >= len(EVENTS) - 2  # no dense layer, and perhaps no convolution


@settings(RANDOM, max_examples=examples(40, 6))
@given(random_programs())
def test_random_programs(network):
    """Recurrent, delayed, pooled, grouped, flattened: by core and step."""
    assert_equal_by_core_and_step(network.graph, network.inputs, SMALLEST, dt=network.dt, if_dt=network.if_dt)


def test_streaming_samples_follow_each_other():
    """What a sample alone does at step τ, it does at τ mod S while like samples surround it."""
    rng = np.random.default_rng(1)
    _, graph = net.quantised_student_like(rng)
    program = compile_graph(graph, dt=net.DT)
    spikes = run(program, net.analog_clips(rng, 2)).spikes
    found = core_loads(place(program, SMALL), Activity(program, spikes))
    streaming = found.streaming()
    assert streaming.shape[1] == found.steps == 4
    assert found.counts.shape[1] == 4 + max(p.chip_depth for p in program.populations)
    for event, column in COLUMN.items():
        if event != "accesses":
            assert streaming[..., column].sum() == found.counts[..., column].sum()
    accesses = COLUMN["accesses"]
    assert (streaming[..., accesses] == place(program, SMALL).usage[:, 0]).all()
    first = streaming[:, 0, :, COLUMN["spikes"]]
    assert np.array_equal(first, found.counts[:, ::4, :, COLUMN["spikes"]].sum(1))
