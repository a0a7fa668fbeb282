"""mksgn/bench/memory: kinds of synapses, and accesses to memory against figures made on paper."""

import nir
import numpy as np
import pytest

from mksgn.bench.counters import layers, totals
from mksgn.bench.memory import QUEUE_BYTES, dense, macs_of, spiking
from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement.chips import LOIHI2
from mksgn.deploy.placement.place import place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Projection
from tests.support import graphs as net

CONV = ops.Conv(np.ones((2, 2, 3, 3), dtype=np.int64))
DENSE = ops.Dense(np.ones((3, 4), dtype=np.int64))
GRAPH = ops.GraphConv(np.ones((2, 3, 3), dtype=np.int64), np.array([0, 1]), np.array([1, 0]), 2)
POOL = ops.SumPool((2, 2), (2, 2))
SCALE = ops.Scale(np.ones(1, dtype=np.int64))
FLATTEN = ops.Flatten(0, -1)


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        ((CONV,), "convolution"),
        ((POOL,), "convolution"),
        ((CONV, POOL, SCALE), "convolution"),
        ((DENSE,), "dense"),
        ((POOL, FLATTEN, DENSE), "dense"),
        ((CONV, FLATTEN, DENSE), "dense"),
        ((GRAPH, FLATTEN, DENSE), "dense"),
        ((GRAPH,), "sparse"),
        ((CONV, GRAPH), "sparse"),
        ((SCALE,), "sparse"),
        ((FLATTEN,), "sparse"),
        ((), "sparse"),
    ],
)
def test_the_kind_of_a_chain_of_operators(operators, kind):
    assert Projection("p", "a", "b", operators).synapse_kind == kind


def rows_of(graph, inputs, **compiling):
    program = compile_graph(graph, precision="float", **compiling)
    execution = run(program, {program.inputs[0].name: inputs})
    rows = layers(program, execution, place(program, LOIHI2))
    return {row.name: row for row in rows}, totals(program, execution, rows, execution.samples)


def lif(shape, threshold=0.5):
    ones = np.ones(shape, dtype=np.float32)
    return nir.IF(r=ones, v_threshold=threshold * ones)


def test_a_dense_layer_on_paper():
    """3 inputs, 2 neurons with a bias, 4 steps; inputs 0 and 1 spike twice each, 2 never."""
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input({"input": np.array([3])}),
            "fc": nir.Affine(np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]]), np.array([0.01, 0.0])),
            "if": lif(2),
            "output": nir.Output({"output": np.array([2])}),
        },
        edges=[("input", "fc"), ("fc", "if"), ("if", "output")],
    )
    x = np.zeros((1, 4, 3), dtype=np.float32)
    x[0, [0, 1], 0] = x[0, [1, 3], 1] = 1
    rows, summed = rows_of(graph, x, dt=1.0, if_dt=1.0)
    (layer,) = rows.values()
    assert layer.memory is not None
    assert layer.syn_ops_by_kind == {"dense": 8, "sparse": 0, "convolution": 0}  # the zero is a synapse
    assert layer.memory.arrivals == {"dense": 4, "sparse": 0, "convolution": 0}
    assert (layer.memory.weights, layer.memory.weight_bytes, layer.memory.weight_reads) == (6, 4, 8)
    assert (layer.memory.inputs, layer.memory.dense_inputs, layer.memory.biases) == (3, 3, 2)
    counted = spiking(layer)
    states, biases = 2 * (8 + 8), 8  # both memories have 8 bytes
    assert counted.by_size == {24: 8, 8: states + biases, QUEUE_BYTES: 4 + layer.spikes}
    assert (counted.additions, counted.macs) == (8, 0)
    assert summed.memory_accesses == counted.by_size
    # the ANN, 1-byte weights and 3-bit activations: 6 MACs, 3 inputs read once, 2 biases, 2 outputs
    assert macs_of(layer) == 6
    ann = dense(layer, 1, weight_bytes=1, input_bits=3, output_bits=3)
    assert ann.by_size == {6: 6, 2: 3, 8: 2, 1: 2}
    assert ann.additions == 6


def test_a_convolution_and_a_pooling_on_paper():
    """A 1 x 4 x 4 input, a kernel of 3 x 3 without padding: a spike in a corner reaches one place, in the middle four."""
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input({"input": np.array([1, 4, 4])}),
            "conv": nir.Conv2d((4, 4), np.ones((2, 1, 3, 3)), 1, 0, 1, 1, np.zeros(2)),
            "if": lif((2, 2, 2)),
            "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
            "last": lif((2, 1, 1)),
            "output": nir.Output({"output": np.array([2, 1, 1])}),
        },
        edges=[("input", "conv"), ("conv", "if"), ("if", "pool"), ("pool", "last"), ("last", "output")],
    )
    x = np.zeros((1, 2, 1, 4, 4), dtype=np.float32)
    x[0, 0, 0, 0, 0] = x[0, 1, 0, 1, 1] = 1
    rows, _ = rows_of(graph, x, dt=1.0, if_dt=1.0)
    conv, pool = rows["if"], rows["last"]
    assert conv.syn_ops_by_kind == {"dense": 0, "sparse": 0, "convolution": 2 * (1 + 4)}
    counted = spiking(conv)
    assert counted.by_size == {18 * 4: 10, 8 * 4: 2 * (10 + 16), QUEUE_BYTES: 2 + conv.spikes}
    assert (counted.additions, counted.macs) == (10, 4)
    assert pool.memory is not None
    assert (pool.memory.weights, pool.memory.weight_reads) == (0, 0)  # a pooling stores no weights
    assert pool.syn_ops_by_kind == {"dense": 0, "sparse": 0, "convolution": conv.spikes}
    ann = dense(conv, 1, weight_bytes=1, input_bits=2, output_bits=2)
    assert macs_of(conv) == 2 * 4 * 9
    assert ann.by_size == {18: 72, 4: 72, 2: 8}
    assert ann.additions == 16 + 8 + 18


def test_products_have_states_and_no_weights_and_an_ann_multiplies_once_per_unit():
    rng = np.random.default_rng(0)
    _, graph = net.quantised_student_like(rng)
    program = compile_graph(graph, dt=net.DT)
    execution = run(program, {program.inputs[0].name: net.analog_clips(rng, 3)})
    rows = layers(program, execution, place(program, LOIHI2))
    hops = {"within_tile": 6, "east_west": 3, "north_south": 0}
    assert totals(program, execution, rows, 3).hops is None
    assert totals(program, execution, rows, 3, hops=hops).hops == {"within_tile": 2, "east_west": 1, "north_south": 0}
    products = [row for row in rows if row.product_units]
    assert products
    for row in products:
        assert row.memory is not None
        updates = row.neuron_updates - row.product_units
        units = row.product_units // (execution.samples * execution.steps)
        assert macs_of(row) == units == sum(row.memory.synapses.values()) // 2
        counted, expected = spiking(row).by_size, 2 * (row.syn_ops + row.product_units)
        assert counted[4 * units] == expected
        assert counted[4 * row.neurons] == 2 * (row.coincidences + updates)
        assert row.memory.weights == row.memory.weight_reads == 0
