"""mksgn/bench/counters: the record's layers and totals from an execution, each figure counted again."""

import math

import numpy as np
import pytest

from mksgn.bench.counters import layers, totals, totals_of
from mksgn.bench.record import Layer, Record, Totals
from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.deploy.program.program import Product
from tests.support import graphs as net
from tests.support.records import TOTALS, small_run

BODIES, STEPS = 6, 4
CLIPS = 4  # of which two have two bodies


@pytest.fixture(scope="module")
def done():
    """(program, execution, rows, totals, spike trains of the loops) for six bodies of four clips."""
    rng = np.random.default_rng(3)
    g = net.student_like(rng)
    x = net.analog_clips(rng, BODIES)
    program = compile_graph(g, precision="float")
    execution = run(program, x)
    rows = layers(program, execution, place(program, LOIHI2))
    return (
        program,
        execution,
        {row.name: row for row in rows},
        totals(program, execution, rows, CLIPS),
        net.Euler(g, {"x": x}).spikes,
    )


def test_a_layer_for_each_population_that_computes(done):
    program, _, rows, _, _ = done
    assert list(rows) == [p.name for p in program.populations if p.kind != "input"]
    assert {name: row.kind for name, row in rows.items()} == {
        "encoder": "encoder", "spatial": "graph_conv+conv", "qkv": "conv", "attend.m": "product", "attend.z": "product",
        "proj": "conv", "temporal": "conv", "classes": "readout",
    }  # fmt: skip
    assert {name for name, row in rows.items() if row.place == "host"} == {"encoder"}
    for row in rows.values():
        assert isinstance(row, Layer)
        assert row.shape == list(program[row.name].shape)
        assert row.neurons == math.prod(row.shape)


def test_spikes_and_rates(done):
    _, _, rows, _, trains = done
    for name, train in trains.items():
        row = rows[name]
        assert row.spikes == train.sum()
        assert row.firing_rate == pytest.approx(train.mean())
        assert row.silent_fraction == pytest.approx((train.sum((0, 1)) == 0).mean())
    assert (rows["classes"].spikes, rows["classes"].firing_rate, rows["classes"].silent_fraction) == (0, 0.0, 0.0)


def test_counts_are_the_execution_s(done):
    _, execution, rows, _, _ = done
    for name, row in rows.items():
        counters = execution.counters[name]
        assert (row.syn_ops, row.effective_acs, row.coincidences) == (
            counters.syn_ops,
            counters.effective_acs,
            counters.coincidences,
        )
        assert row.neuron_updates == counters.updates + counters.product_updates
        if row.place == "chip" and row.kind != "readout":
            assert (row.max_membrane, row.max_current) == (counters.max_membrane, counters.max_current)
        else:
            assert row.max_membrane is row.max_current is None


def test_dense_operations_are_all_synapses_at_every_step(done):
    """As if every source fired at every step; the encoder's MACs once per body."""
    program, _, rows, _, _ = done
    for name, row in rows.items():
        synapses = 0
        for projection in program.into(name):
            if isinstance(projection, Product):
                busy = [np.ones((1, 1, *program[source].shape), bool) for source in ("qkv", "attend.m")]
                synapses += net.product_events(projection, *busy)[0]
            else:
                synapses += int(net.reached(projection.operators, program[projection.source].shape).sum())
        assert row.dense_ops == synapses * BODIES * (1 if name == "encoder" else STEPS)
        assert row.syn_ops <= row.dense_ops


def test_input_rates(done):
    """Weighted by the synapses of each projection; for a single uniform one, rate x dense = syn_ops."""
    program, _, rows, _, trains = done
    assert rows["encoder"].input_rate is None
    for name in ("qkv", "classes"):
        (projection,) = program.into(name)
        assert rows[name].input_rate == pytest.approx(trains[projection.source].mean())
        assert rows[name].input_rate * rows[name].dense_ops == pytest.approx(rows[name].syn_ops)
    (skip,) = (p for p in program.into("temporal") if p.sources == ("encoder",))
    weighted = synapses = 0.0
    for projection in program.into("temporal"):
        reach = net.reached(projection.operators, program[projection.source].shape)
        weighted += trains[projection.source][:, :, reach > 0].mean() * reach.sum()
        synapses += reach.sum()
    assert rows["temporal"].input_rate == pytest.approx(weighted / synapses)
    assert (net.reached(skip.operators, program["encoder"].shape) == 0).any()  # the skip's stride leaves some out
    q_and_k = trains["qkv"][:, :, :8].mean()
    assert rows["attend.m"].input_rate == pytest.approx(q_and_k)
    assert rows["attend.m"].input_rate * rows["attend.m"].dense_ops == pytest.approx(rows["attend.m"].syn_ops)


def test_totals_are_the_sums_over_the_chip_s_layers_per_clip(done):
    _, execution, rows, total, _ = done
    assert isinstance(total, Totals)
    chip = [row for row in rows.values() if row.place == "chip"]
    for name, key in [
        ("spikes", "spikes"), ("syn_ops", "syn_ops"), ("coincidences", "coincidences"),
        ("neuron_updates", "neuron_updates"),
        ("Effective_ACs", "effective_acs"), ("dendrite_updates", "neuron_updates"),
    ]:  # fmt: skip
        assert getattr(total, name) == sum(getattr(row, key) for row in chip) / CLIPS
        assert getattr(total, name) > 0
    assert total.Dense == sum(row.dense_ops for row in rows.values()) / CLIPS
    assert total.product_units == sum(c.product_updates for c in execution.counters.values()) / CLIPS
    assert total.product_units == 2 * 4 * 3 * 3 * 4 * STEPS * BODIES / CLIPS  # two products of T · V² · C units
    assert total.active_updates == total.spikes + total.coincidences
    assert total.lanes == BODIES / CLIPS
    assert total.latency_steps == 9


def test_totals_of_the_host(done):
    _, _, rows, total, trains = done
    assert total.host_macs == rows["encoder"].dense_ops / CLIPS
    assert 0 < total.Effective_MACs < total.host_macs  # some of its weights are 0
    assert total.graded_macs == 0
    assert total.host_macs_every_step == total.host_macs * STEPS
    sent = trains["encoder"].sum()
    assert total.host_to_chip_spikes_per_step == pytest.approx(sent / (CLIPS * STEPS))
    assert total.spikes == sum(row.spikes for row in rows.values() if row.name != "encoder") / CLIPS


def test_sparsities(done):
    _, _, _, total, trains = done
    on_chip = {name: train for name, train in trains.items() if name != "encoder"}
    decisions = sum(train.size for train in on_chip.values())
    assert total.ActivationSparsity == pytest.approx(
        1 - sum(int(train.sum()) for train in on_chip.values()) / decisions
    )


def test_weights_are_counted_once_per_synapse_group(done):
    """Zeros among the stored weights, a block per edge of the graph; four bytes each in float, one in fixed point."""
    program, _, _, total, _ = done
    g = net.student_like(np.random.default_rng(3))
    arrays = [
        g.nodes[name].weight
        for name in ("encode", "graph_skip", "qkv_conv", "proj_conv", "proj_skip", "time", "time_skip", "classes")
    ]
    node = g.nodes["graph"]
    edges = [(i, j) for i, j in np.ndindex(3, 3) if node.adjacency[:, i, j].any()]
    arrays += [sum(node.adjacency[k, i, j] * node.weight[k] for k in range(3)) for i, j in edges]
    arrays += [np.ones(1), np.ones(1)]  # a weight per product
    count, zeros = sum(a.size for a in arrays), sum(int((a == 0).sum()) for a in arrays)
    assert zeros > 0
    assert total.ConnectionSparsity == pytest.approx(zeros / count)
    assert total.Footprint == 4 * count
    assert program.precision == "float"


def test_fixed_point_counts_the_same_events_and_one_byte_per_weight():
    rng = np.random.default_rng(3)
    _, g = net.quantised_student_like(rng)
    x = net.analog_clips(rng, BODIES)
    by_precision = {}
    for precision in ("fixed", "float"):
        program = compile_graph(g, precision=precision)
        execution = run(program, x, record=False)
        by_precision[precision] = totals(
            program, execution, layers(program, execution, place(program, LOIHI2)), CLIPS
        ).model_dump()
        del by_precision[precision]["memory_accesses"]  # smaller memories, where weights have one byte
    assert by_precision["float"].pop("Footprint") == 4 * by_precision["fixed"].pop("Footprint")
    assert by_precision["fixed"] == by_precision["float"]


def test_spike_inputs_are_sent_by_the_host():
    g = net.chain(("x", net.inp(3)), ("d", net.linear(np.eye(3))), ("l", net.lif(3, threshold=0.25)), ("y", net.out(3)))
    x = net.spikes(np.random.default_rng(0), 2, 5, 3)
    program = compile_graph(g, precision="float")
    execution = run(program, x)
    rows = layers(program, execution, place(program, LOIHI2))
    total = totals(program, execution, rows, 2)
    (row,) = rows
    assert total.host_to_chip_spikes_per_step == x.sum() / 10
    assert total.host_macs == total.Effective_MACs == 0
    assert (row.syn_ops, row.effective_acs) == (3 * x.sum(), x.sum())
    assert total.ConnectionSparsity == pytest.approx(6 / 9)
    assert row.input_rate == pytest.approx(x.mean())
    assert (total.spikes_in, total.axon_out) == (x.sum() / 2, 0)  # one core, which sends nothing


def test_a_silent_run():
    g = net.chain(("x", net.inp(3)), ("d", net.linear(np.eye(3))), ("l", net.lif(3)), ("y", net.out(3)))
    program = compile_graph(g, precision="float")
    execution = run(program, np.zeros((2, 5, 3)))
    rows = layers(program, execution, place(program, LOIHI2))
    total = totals(program, execution, rows, 2)
    assert (rows[0].firing_rate, rows[0].silent_fraction, rows[0].syn_ops, rows[0].input_rate) == (0.0, 1.0, 0, 0.0)
    assert (total.ActivationSparsity, total.spikes, total.active_updates) == (1.0, 0, 0)
    assert total.neuron_updates == 3 * 5


def test_totals_of_hand_made_layers():
    """Each total that follows from the layers, as worked out on paper in tests/support/records.py."""
    layers_ = Record.model_validate(small_run()).layers
    assert totals_of(layers_, clips=4, steps=4, latency_steps=3) == {
        name: value
        for name, value in TOTALS.items()
        if name not in ("host_to_chip_spikes_per_step", "lanes", "Effective_MACs", "ConnectionSparsity", "Footprint")
    }
