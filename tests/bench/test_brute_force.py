"""mksgn/bench/counters: every count of emulator and Lava equals brute force over the NIR file's synapses."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from hypothesis import given, settings

from mksgn.bench.counters import layers, totals
from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.export import export_to_nir
from mksgn.export.graph.nodes import SpikingSelfAttention
from tests.deploy.test_any_graph import RANDOM
from tests.support import graphs as net
from tests.support.brute_force import Census, count, current
from tests.support.compare_counts import compared, differences
from tests.support.random_networks import random_networks
from tests.support.random_programs import random_programs
from tests.support.students import calibration, tiny
from tests.support.synapse_walk import Walk
from tests.support.tiers import examples

LAVA = pytest.param(
    "lava",
    marks=pytest.mark.skipif(importlib.util.find_spec("lava") is None, reason="lava-nc is not installed: make setup"),
)
# no real chips: cores so small that small populations take several
SMALL = dataclasses.replace(LOIHI2, name="small", neurons_per_core=50, synaptic_bits_per_core=8 * 2000)
SMALLEST = dataclasses.replace(LOIHI2, name="smallest", neurons_per_core=3, synaptic_bits_per_core=8 * 60)


def both(g, inputs, *, backend="emulator", chip=LOIHI2, clips=None, merged=True, **compiling):
    """(fields that differ, brute force's census, the record's layers): of one run."""
    program = compile_graph(g, **compiling)
    inputs = inputs if isinstance(inputs, dict) else {program.inputs[0].name: inputs}
    execution = run(program, inputs, backend=backend)
    placement = place(program, chip)
    rows = layers(program, execution, placement)
    clips = clips or execution.samples
    trains = {name: x != 0 for name, x in inputs.items() if name not in program.analog} | execution.spikes
    census = count(g, trains, {placed.name: placed.core_of() for placed in placement.populations}, merged=merged)
    return differences(census, rows, totals(program, execution, rows, clips), clips), census, rows


def student(**changes):
    """A quantised student, and its inputs repeated over the steps."""
    model, inputs = tiny(**changes)
    g = export_to_nir(model, quantize=8, calibration=calibration(model, 4))
    return g, np.repeat(inputs[:, None], model.student.config.steps, 1)


def assert_covers_all_kinds_of_event(census: Census) -> None:
    counted = census.layers.values()
    assert compared(census) > 100
    assert all(layer.syn_ops for layer in counted if layer.place == "chip")
    assert any(layer.effective_acs < layer.syn_ops for layer in counted)
    assert any(layer.coincidences for layer in counted)
    assert any(layer.silent_fraction for layer in counted)
    assert census.macs > census.effective_macs > 0
    assert census.host_to_chip_spikes > 0
    sent, received = (sum(getattr(x, name) or 0 for x in counted) for name in ("axon_out", "spikes_in"))
    assert 0 < sent < received  # the host's messages are received only


# --- programs


@pytest.mark.parametrize("backend", [pytest.param("emulator", marks=pytest.mark.slow), LAVA])
def test_a_student(backend):
    """On cores so small that spikes go to several of them."""
    g, inputs = student(stream_channels=2, widths=(4, 8), frames=7)
    differ, census, rows = both(g, inputs, backend=backend, chip=SMALL, clips=5)
    assert differ == []
    assert_covers_all_kinds_of_event(census)
    assert sum(row.axon_out or 0 for row in rows) > 2 * sum(row.spikes for row in rows if row.place == "chip")


@pytest.mark.slow
def test_a_student_with_another_kernel_more_heads_and_both_strides():
    g, inputs = student(widths=(8, 16, 16, 32), heads=4, kernel=3, frames=9)
    differ, census, _ = both(g, inputs[:4])
    assert differ == []
    assert_covers_all_kinds_of_event(census)


@pytest.mark.parametrize("backend", ["emulator", LAVA])
def test_a_quantised_graph_by_hand(backend):
    rng = np.random.default_rng(0)
    _, g = net.quantised_student_like(rng)
    differ, census, _ = both(g, net.analog_clips(rng, 6), backend=backend, chip=SMALLEST, dt=net.DT)
    assert differ == []
    assert_covers_all_kinds_of_event(census)


@settings(RANDOM, max_examples=examples(40, 5))
@given(random_programs())
def test_random_programs_in_fixed_point(network):
    """Recurrent, delayed, pooled, grouped. The counters count each path over linear nodes in series."""
    given_ = {"dt": network.dt, "if_dt": network.if_dt}
    differ, census, _ = both(network.graph, network.inputs, merged=False, **given_)
    assert differ == []
    merged = both(network.graph, network.inputs, **given_)[1]
    # a chip that merges overlapping paths has fewer synapses
    for name, layer in merged.layers.items():
        assert layer.syn_ops <= census.layers[name].syn_ops


@settings(RANDOM, max_examples=examples(40, 5))
@given(random_networks(without=("nested", "analog", "i", "li", "cubali")))
def test_random_networks_in_float(network):
    differ, _, _ = both(
        network.graph, network.inputs, merged=False, precision="float", dt=network.dt, if_dt=network.if_dt
    )
    assert differ == []


@pytest.mark.slow
@settings(RANDOM, max_examples=examples(25))
@given(random_programs())
def test_messages_of_random_programs(network):
    """Upper bounds where axes are merged or delays differ between neurons (deploy/placement/place), else exact."""
    differ, census, rows = both(
        network.graph, network.inputs, chip=SMALLEST, merged=False, dt=network.dt, if_dt=network.if_dt
    )
    if not network.features & {"flatten", "per_element"}:
        assert differ == []
    assert [line for line in differ if "axon_out" not in line and "spikes_in" not in line] == []
    for row in rows:
        assert row.axon_out >= census.layers[row.name].axon_out
        assert row.spikes_in >= census.layers[row.name].spikes_in


def test_silent_and_saturated_neurons_are_told_apart_from_the_rest():
    thresholds = np.array([1e9, -1, 0.3, -1], net.F32)
    differ, census, (row,) = both(
        net.chain(
            ("x", net.inp(3)),
            ("w", net.linear(np.ones((4, 3)))),
            ("a", net.lif(4, threshold=thresholds)),
            ("y", net.out(4)),
        ),
        net.spikes(np.random.default_rng(0), 2, 6, 3, rate=0.3),
        precision="float",
    )
    assert differ == []
    assert (row.silent_fraction, row.saturated_fraction) == (0.25, 0.5)
    assert census.layers["a"].saturated_fraction == 0.5


@pytest.mark.parametrize(
    "field", ["syn_ops", "effective_acs", "coincidences", "neuron_updates", "axon_out", "spikes_in"]
)
def test_a_count_that_is_off_by_one_is_reported(field):
    rng = np.random.default_rng(0)
    _, g = net.quantised_student_like(rng)
    inputs = net.analog_clips(rng, 2)
    program = compile_graph(g, dt=net.DT)
    execution = run(program, inputs)
    placement = place(program, LOIHI2)
    rows = layers(program, execution, placement)
    census = count(g, execution.spikes, {placed.name: placed.core_of() for placed in placement.populations})
    counted_ = totals(program, execution, rows, 2)
    assert differences(census, rows, counted_, 2) == []
    wrong = [row.model_copy(update={field: (getattr(row, field) or 0) + (row.name == "attend.m")}) for row in rows]
    (difference,) = [line for line in differences(census, wrong, counted_, 2) if line.startswith("attend.m.")]
    assert difference.startswith(f"attend.m.{field}: ")


# --- membranes and currents


def test_the_largest_membrane_and_current_are_those_of_the_file_s_equations():
    """In weight units: NIR's v += dt/tau (a - v), with tau = 2 dt, is half of the chip's v = v/2 + a."""
    g, inputs = student(stream_channels=2, widths=(4, 8), frames=7)
    program = compile_graph(g)
    execution = run(program, {"input": inputs})
    rows = {row.name: row for row in layers(program, execution, place(program, LOIHI2))}
    units = {name: 2.0 ** q["exponent"] for name, q in json.loads(g.metadata["quantization"])["populations"].items()}
    walk = Walk(g, float(g.metadata["dt"]))
    checked = 0
    for name, train in execution.spikes.items():
        if rows[name].place == "host":
            assert (rows[name].max_membrane, rows[name].max_current) == (None, None)
            continue
        sums = current(walk, name, execution.spikes) / units[name]
        bias = walk.bias.get(name, np.zeros(sums.shape[2:])) / units[name]
        threshold = _threshold(g, name, sums.ndim - 2) / units[name]
        v, largest = np.zeros_like(sums[:, 0]), 0.0
        for t in range(sums.shape[1]):
            h = v / 2 + sums[:, t] + bias
            largest = max(largest, float(np.abs(h).max()))
            fired = h / 2 > threshold
            np.testing.assert_array_equal(fired, train[:, t])
            v = np.where(fired, 0.0, h)
        assert rows[name].max_membrane == largest
        assert rows[name].max_current == float(np.abs(sums).max())
        checked += 1
    assert checked == 1 + 2 * 6
    assert rows["readout"].max_membrane is None


def _threshold(g, name, axes):
    node = g.nodes[name.rpartition(".")[0]] if name not in g.nodes else g.nodes[name]
    if isinstance(node, SpikingSelfAttention):
        per_head = (node.threshold_m if name.endswith(".m") else node.threshold_z).astype(np.float64)
        channels = (
            g.nodes[name.replace("attention.z", "sgc")].v_threshold.shape[0] if name.endswith(".z") else node.heads
        )
        return np.repeat(per_head, channels // node.heads).reshape(-1, *[1] * (axes - 1))
    return node.v_threshold.astype(np.float64)


# --- the oracle itself, on cases that can be counted by hand


def counted(g, x, **trains):
    return count(g, {"x": np.asarray(x, bool), **trains}).layers["a"]


def one(shape, *places):
    """One sample of one step with a spike at each place."""
    x = np.zeros((1, 1, *shape), bool)
    for place_ in places:
        x[(0, 0, *place_)] = True
    return x


def into_lif(node, shape, after, name="n"):
    return net.chain(("x", net.inp(*shape)), (name, node), ("a", net.lif(*after)), ("y", net.out(*after)))


@pytest.mark.parametrize(
    ("node", "shape", "after", "at", "reached"),
    [
        (net.conv(np.ones((5, 1, 3, 1)), padding=(1, 0)), (1, 4, 2), (5, 4, 2), (0, 1, 0), 15),
        (net.conv(np.ones((5, 1, 3, 1)), padding=(1, 0)), (1, 4, 2), (5, 4, 2), (0, 0, 0), 10),  # at a border
        (net.conv(np.ones((5, 1, 1, 1)), stride=(2, 1)), (1, 4, 2), (5, 2, 2), (0, 2, 1), 5),
        (net.conv(np.ones((5, 1, 1, 1)), stride=(2, 1)), (1, 4, 2), (5, 2, 2), (0, 1, 1), 0),  # a stride steps over it
        (net.conv(np.ones((6, 1, 1, 1)), groups=2), (2, 4, 2), (6, 4, 2), (1, 0, 0), 3),
        (net.conv(np.ones((1, 1, 2, 2)), dilation=2), (1, 3, 3), (1, 1, 1), (0, 2, 0), 1),
        (net.conv(np.ones((1, 1, 2, 2)), dilation=2), (1, 3, 3), (1, 1, 1), (0, 1, 1), 0),
        (net.pool((2, 2), (1, 1)), (1, 3, 3), (1, 2, 2), (0, 1, 1), 4),
        (net.affine(np.zeros((3, 4)), np.zeros(3)), (4,), (3,), (2,), 3),  # weights of 0 are synapses
    ],
)
def test_a_spike_reaches(node, shape, after, at, reached):
    assert counted(into_lif(node, shape, after), one(shape, at)).syn_ops == reached


def test_an_adjacency_of_zero_is_no_synapse_and_subsets_share_one():
    """Joint 0 leads to joint 1 in both subsets, with weights that cancel in channel 0; nothing leads from joint 1."""
    adjacency = np.zeros((2, 2, 2))
    adjacency[:, 0, 1] = 1
    weight = np.array([[[2.0], [3.0]], [[-2.0], [3.0]]])
    g = into_lif(net.graph_conv(adjacency, weight), (1, 3, 2), (2, 3, 2))
    layer = counted(g, one((1, 3, 2), (0, 0, 0), (0, 2, 0), (0, 2, 1)))
    assert (layer.syn_ops, layer.effective_acs, layer.dense_ops) == (4, 2, 6)


def test_overlapping_paths_are_one_synapse_when_merged():
    """A convolution of two frames, then a sum over two: the middle frame of three reaches the one neuron twice."""
    g = net.graph(
        {
            "x": net.inp(1, 3, 1),
            "c": net.conv(np.ones((1, 1, 2, 1))),
            "p": net.pool((2, 1)),
            "a": net.lif(1, 1, 1),
            "y": net.out(1, 1, 1),
        },
        [("x", "c"), ("c", "p"), ("p", "a"), ("a", "y")],
    )
    x = one((1, 3, 1), (0, 1, 0))
    assert [count(g, {"x": x}, merged=merged).layers["a"].syn_ops for merged in (True, False)] == [1, 2]


def test_a_spike_that_arrives_after_the_sample_reaches_nothing():
    """One spike at each of three steps: the last one's return round the loop comes too late."""
    g = net.graph(
        {"x": net.inp(1), "w": net.linear([[1.0]]), "back": net.linear([[1.0]]), "a": net.lif(1), "y": net.out(1)},
        [("x", "w"), ("w", "a"), ("a", "back"), ("back", "a"), ("a", "y")],
    )
    always = np.ones((1, 3, 1), bool)
    assert counted(g, always, a=always).syn_ops == 3 + 2


def test_attention_by_hand():
    """Two heads of one channel, two joints: a q reaches two keys' units, a k two queries', an m one unit, a v two."""
    g = net.chain(("x", net.inp(6, 1, 2)), ("att", net.attention(2)), ("y", net.out(2, 1, 2)))
    qkv = one((6, 1, 2), (0, 0, 0), (2, 0, 0), (2, 0, 1), (3, 0, 1), (5, 0, 1))  # q of head 0; k of both; v of head 1
    m = one((2, 1, 2, 2), (1, 0, 0, 1), (1, 0, 1, 0))
    census = count(g, {"x": qkv, "att.m": m})
    layers_ = [census.layers[f"att.{part}"] for part in "mz"]
    assert [layer.syn_ops for layer in layers_] == [2 * 4, 1 * 2 + 2]
    assert [layer.coincidences for layer in layers_] == [2, 1]
    assert [layer.product_units for layer in layers_] == [8, 8]
    assert [layer.neuron_updates for layer in layers_] == [8 + 8, 8 + 4]


def test_messages_by_hand():
    """A spike over 3 x 1 taps reaches neurons of two frames at a border, three inside; a core each, or all on one."""
    g = into_lif(net.conv(np.ones((2, 1, 3, 1)), padding=(1, 0)), (1, 4, 1), (2, 4, 1))
    x = one((1, 4, 1), (0, 0, 0), (0, 2, 0))
    by_frame = np.broadcast_to(np.arange(4).reshape(1, 4, 1), (2, 4, 1))
    for cores, messages in ((by_frame, 2 + 3), (by_frame // 2, 1 + 2), (by_frame * 0, 2), (by_frame + 7, 5)):
        assert count(g, {"x": x}, {"a": cores}).layers["a"].spikes_in == messages
