"""mksgn/deploy/emulator: every event of a small network counted by loops; batches, recording,
constant inputs.
"""

import math

import numpy as np
import pytest

from mksgn.deploy import compile_graph, emulator, run
from mksgn.deploy.program.program import Product
from tests.support import graphs as net

STEPS = 5


def network(seed: int = 0):
    """Spike input; graph conv and strided skip into one population; attention; a pooled read-out.
    Some weights are 0.
    """
    rng = np.random.default_rng(seed)

    def sparse(*shape):
        return net.lattice(rng, *shape) * (rng.random(shape) < 0.7)

    g = net.graph(
        {
            "x": net.inp(3, 4, 3), "c": net.conv(sparse(4, 3, 3, 1), np.abs(net.lattice(rng, 4)), padding=(1, 0), stride=(2, 1)),
            "first": net.lif(4, 2, 3, threshold=0.25), "g": net.graph_conv(net.ring(3), sparse(3, 12, 4), np.abs(net.lattice(rng, 12))),
            "s": net.conv(sparse(12, 3, 1, 1), stride=(2, 1)), "qkv": net.lif(12, 2, 3, threshold=0.5),
            "a": net.attention(2, 1.0, 0.5, threshold_m=[0.5, 0.25], threshold_z=0.25), "pool": net.pool((2, 3)),
            "readout": net.conv(sparse(5, 4, 1, 1), net.lattice(rng, 5)), "y": net.out(5, 1, 1), "maps": net.out(4, 2, 3),
        },
        [
            ("x", "c"), ("c", "first"), ("first", "g"), ("g", "qkv"), ("x", "s"), ("s", "qkv"), ("qkv", "a"),
            ("a", "pool"),
            ("pool", "readout"), ("readout", "y"), ("first", "maps"),
        ],
    )  # fmt: skip
    return g, net.spikes(rng, 11, STEPS, 3, 4, 3)


@pytest.fixture(scope="module")
def done():
    """(program, execution, the loops' run, spike trains by population, the input among them)."""
    g, x = network()
    program = compile_graph(g, precision="float")
    expected = net.Euler(g, {"x": x})
    return program, run(program, x), expected, {"x": x, **expected.spikes}


def test_spikes_and_outputs_are_the_equations(done):
    _, execution, expected, trains = done
    net.assert_same_spikes(execution.spikes, expected.spikes)
    np.testing.assert_array_equal(execution.outputs["y"], expected.values["y"])
    np.testing.assert_array_equal(execution.outputs["maps"], trains["first"])
    assert execution.outputs["y"].dtype == execution.outputs["maps"].dtype == np.float32


def test_samples_steps_and_latency(done):
    program, execution, _, _ = done
    assert (execution.backend, execution.precision) == ("emulator", "float")
    assert (execution.samples, execution.steps, execution.latency_steps) == (11, STEPS, program.latency) == (11, 5, 7)
    assert execution.seconds > 0
    assert set(execution.counters) == {p.name for p in program.populations}


def test_spike_counts(done):
    program, execution, _, trains = done
    for name, train in trains.items():
        np.testing.assert_array_equal(execution.counters[name].per_neuron, train.sum((0, 1)))
        assert execution.counters[name].spikes == train.sum()
    assert execution.counters["readout"].spikes == 0
    assert execution.counters["readout"].per_neuron.shape == program["readout"].shape


def test_synaptic_operations_spike_by_spike(done):
    program, execution, _, trains = done
    for population in program.populations:
        every = effective = coincidences = 0
        for projection in program.into(population.name):
            if isinstance(projection, Product):
                deliveries, coincidences, _ = net.product_events(projection, trains["qkv"], trains["a.m"])
                every += deliveries
                effective += deliveries
                continue
            train, shape = trains[projection.source], program[projection.source].shape
            synapses, weighted = (
                net.reached(projection.operators, shape, nonzero=nonzero) for nonzero in (False, True)
            )
            for _, _, *place in np.argwhere(train):  # each spike, and where it goes
                every += synapses[tuple(place)]
                effective += weighted[tuple(place)]
        counters = execution.counters[population.name]
        assert (counters.syn_ops, counters.effective_acs, counters.coincidences) == (every, effective, coincidences)
        if population.kind != "input":
            assert counters.syn_ops > 0
            if not any(isinstance(p, Product) for p in program.into(population.name)):
                assert counters.effective_acs < counters.syn_ops
    assert execution.counters["a.m"].coincidences > 0
    assert execution.counters["a.z"].coincidences > 0


def test_updates_of_neurons_and_product_units(done):
    program, execution, _, trains = done
    for population in program.populations:
        units = sum(
            net.product_events(p, trains["qkv"], trains["a.m"])[2]
            for p in program.into(population.name)
            if isinstance(p, Product)
        )
        counters = execution.counters[population.name]
        neurons = 0 if population.kind == "input" else math.prod(population.shape)
        assert (counters.updates, counters.product_updates) == (neurons * 11 * STEPS, units * 11 * STEPS)
    assert execution.counters["a.m"].product_updates > 0


def test_largest_membranes_and_currents(done):
    """In Lava's terms: NIR's membrane times tau/(dt r); the current without the bias."""
    program, execution, expected, _ = done
    for population in program.neurons:
        counters = execution.counters[population.name]
        assert counters.max_membrane == np.abs(expected.membrane[population.name]).max() * 2
        assert counters.max_current == np.abs(expected.current[population.name] - population.neuron.bias).max()
    assert execution.counters["readout"].max_membrane == execution.counters["readout"].max_current == 0
    assert np.any(program["qkv"].neuron.bias)


def test_fixed_point_counts_in_weight_units():
    rng = np.random.default_rng(1)
    plain, g = net.quantised_student_like(rng)
    x = net.analog_clips(rng, 3)
    expected = net.Euler(plain, {"x": x})
    program = compile_graph(g)
    execution = run(program, x)
    for name in ("spatial", "qkv", "proj", "temporal"):  # 16 weight units for 1 of the plain network
        bias = sum(plain.nodes[p.name].bias for p in program.into(name)).reshape(-1, 1, 1)
        assert execution.counters[name].max_membrane == np.abs(expected.membrane[name]).max() * 2 * 16
        assert execution.counters[name].max_current == np.abs(expected.current[name] - bias).max() * 16
    floating = run(compile_graph(g, precision="float"), x)
    for name, counters in execution.counters.items():
        for key in ("spikes", "syn_ops", "effective_acs", "coincidences", "updates", "product_updates"):
            assert getattr(counters, key) == getattr(floating.counters[name], key)


def test_the_host_s_encoder_is_counted_but_receives_no_synaptic_operations():
    rng = np.random.default_rng(2)
    g = net.student_like(rng)
    x = net.analog_clips(rng, 3)
    execution = run(compile_graph(g, precision="float"), x)
    encoder, analog = execution.counters["encoder"], execution.counters["x"]
    np.testing.assert_array_equal(encoder.per_neuron, net.Euler(g, {"x": x}).spikes["encoder"].sum((0, 1)))
    assert (encoder.syn_ops, encoder.effective_acs, encoder.updates) == (0, 0, 4 * 4 * 3 * 3 * 4)
    assert (analog.spikes, analog.updates) == (0, 0)
    assert not analog.per_neuron.any()
    assert "x" not in execution.spikes
    assert "encoder" in execution.spikes


@pytest.mark.parametrize("gain", [0.1708719, 0.5681841, 1.6473106, 2.6356285])
def test_coincidences_of_any_gain(gain):
    g = net.chain(
        ("x", net.inp(9, 1, 3)),
        ("c", net.conv(4 * np.eye(9)[:, :, None, None])),
        ("qkv", net.lif(9, 1, 3)),
        ("a", net.attention(1, gain)),
        ("y", net.out(3, 1, 3)),
    )
    execution = run(compile_graph(g, precision="float"), np.ones((1, 1, 9, 1, 3), bool))
    assert execution.spikes["qkv"].all()
    assert execution.counters["a.m"].coincidences == 3 * 3 * 3


# --- batches


def state_of(execution):
    """All results that do not depend on the clock."""
    counters = {name: {k: v for k, v in vars(c).items() if k != "per_neuron"} for name, c in execution.counters.items()}
    return counters, {name: c.per_neuron for name, c in execution.counters.items()}


BATCH = 8


@pytest.fixture
def batches(monkeypatch):
    monkeypatch.setitem(emulator.BATCH_LIMIT, "cpu", BATCH)


@pytest.mark.parametrize("clips", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_samples_are_independent_of_their_batch(clips, batches):
    g, _ = network()
    rng = np.random.default_rng(clips)
    program, x = compile_graph(g, precision="float"), net.spikes(rng, clips, STEPS, 3, 4, 3)
    x[clips // 2] = True  # one busy sample among quiet ones
    together = run(program, x)
    alone = [run(program, clip[None]) for clip in x]
    for name, train in together.spikes.items():
        np.testing.assert_array_equal(train, np.concatenate([e.spikes[name] for e in alone]))
    for name, output in together.outputs.items():
        np.testing.assert_array_equal(output, np.concatenate([e.outputs[name] for e in alone]))
    for name, counters in together.counters.items():
        for key in ("spikes", "syn_ops", "effective_acs", "coincidences", "updates", "product_updates"):
            assert getattr(counters, key) == sum(getattr(e.counters[name], key) for e in alone)
        for key in ("max_membrane", "max_current"):
            assert getattr(counters, key) == max(getattr(e.counters[name], key) for e in alone)
        np.testing.assert_array_equal(counters.per_neuron, sum(e.counters[name].per_neuron for e in alone))


def test_the_order_of_the_samples_is_kept():
    g, x = network()
    program = compile_graph(g, precision="float")
    forward, backward = run(program, x), run(program, x[::-1])
    for name, train in forward.spikes.items():
        np.testing.assert_array_equal(train, backward.spikes[name][::-1])
    np.testing.assert_array_equal(forward.outputs["y"], backward.outputs["y"][::-1])


def test_without_recording_only_the_trains_are_missing(done):
    program, recorded, _, _ = done
    _, x = network()
    execution = run(program, x, record=False)
    assert execution.spikes == {}
    np.testing.assert_array_equal(execution.outputs["y"], recorded.outputs["y"])
    (actual, per_neuron), (expected, counts) = state_of(execution), state_of(recorded)
    assert actual == expected
    for name, train in counts.items():
        np.testing.assert_array_equal(per_neuron[name], train)


def test_progress_reports_the_samples_of_each_batch(done, batches):
    finished: list[int] = []
    _, x = network()
    run(done[0], x, progress=finished.append)
    assert finished == [8, 3]


# --- inputs


def test_a_constant_input_as_a_view_equals_the_full_array():
    rng = np.random.default_rng(3)
    program = compile_graph(net.student_like(rng), precision="float")
    view = net.analog_clips(rng, 10)
    assert view.strides[1] == 0
    a, b = run(program, view), run(program, np.ascontiguousarray(view))
    net.assert_same_spikes(a.spikes, b.spikes)
    np.testing.assert_array_equal(a.outputs["y"], b.outputs["y"])
    assert state_of(a)[0] == state_of(b)[0]


def test_an_input_that_changes_over_the_steps_is_not_constant():
    rng = np.random.default_rng(4)
    g = net.student_like(rng)
    x = net.lattice(rng, 3, 4, 2, 4, 3, most=16)
    program = compile_graph(g, precision="float")
    net.assert_same_spikes(run(program, x).spikes, net.Euler(g, {"x": x}).spikes)
    constant = run(program, np.broadcast_to(x[:, :1], x.shape))
    assert (constant.spikes["encoder"] != run(program, x).spikes["encoder"]).any()


def test_one_step():
    rng = np.random.default_rng(5)
    g = net.student_like(rng, steps=1)
    x = net.lattice(rng, 2, 1, 2, 4, 3, most=48)
    actual, expected = run(compile_graph(g, precision="float"), x), net.Euler(g, {"x": x})
    for name, train in expected.spikes.items():
        np.testing.assert_array_equal(actual.spikes[name], train)
    np.testing.assert_array_equal(actual.outputs["y"], expected.values["y"])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_spike_inputs_of_any_type(done, dtype):
    program, recorded, _, _ = done
    _, x = network()
    execution = run(program, x.astype(dtype))
    for name, train in recorded.spikes.items():
        np.testing.assert_array_equal(execution.spikes[name], train)


def test_a_longer_sample_begins_like_a_shorter_one(done):
    program, recorded, _, _ = done
    _, x = network()
    short = run(program, x[:, :3])
    for name, train in recorded.spikes.items():
        np.testing.assert_array_equal(short.spikes[name], train[:, :3])


def test_a_read_out_adds_its_bias_at_every_step():
    g = net.chain(("x", net.inp(2)), ("d", net.affine([[1, 2]], [0.5])), ("y", net.out(1)))
    execution = run(compile_graph(g, precision="float"), np.array([[[0, 0], [1, 0], [1, 1]]]))
    assert execution.outputs["y"].tolist() == [[[0.5], [1.5], [3.5]]]
    assert execution.logits().tolist() == [[pytest.approx(5.5 / 3)]]
