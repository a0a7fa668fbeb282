"""Large and deep graphs, from the file's graph to counted spikes: no recursion over the depth, no step per pair of nodes."""

import itertools
import json
import sys
import tracemalloc
from importlib.util import find_spec

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.placement import connectivity
from mksgn.deploy.placement.chips import CHIPS
from mksgn.deploy.placement.connectivity import link
from mksgn.deploy.placement.place import place
from mksgn.deploy.program import operators as ops
from mksgn.deploy.program.program import Program
from mksgn.export.graph.flatten import flatten
from mksgn.export.graph.order import evaluation_order
from mksgn.export.quantization.any_graph import quantize_any
from mksgn.export.reference import execute as reference
from tests.support.graphs import DT, graph, inp, lif, linear, out

WIDTH, STEPS = 4, 3


def in_series(parts: list[tuple[str, nir.NIRNode]]) -> nir.NIRGraph:
    parts = [("x", inp(WIDTH)), *parts, ("y", out(WIDTH))]
    return graph(dict(parts), itertools.pairwise(name for name, _ in parts))


def linear_series(nodes: int) -> nir.NIRGraph:
    """Permutations in series, and a LIF population: exact in any order of the sums."""
    rng = np.random.default_rng(0)
    maps = [(f"l{i}", linear(np.eye(WIDTH)[rng.permutation(WIDTH)])) for i in range(nodes)]
    return in_series([*maps, ("n", lif(WIDTH, threshold=0.3))])


def layers(number: int, threshold: float = 0.4) -> nir.NIRGraph:
    """Pairs of Linear and LIF in series, through which spikes pass."""
    rng = np.random.default_rng(0)
    pairs = [
        ((f"l{i}", linear(np.eye(WIDTH)[rng.permutation(WIDTH)])), (f"n{i}", lif(WIDTH, threshold=threshold)))
        for i in range(number)
    ]
    return in_series([node for pair in pairs for node in pair])


def spikes(samples: int = 2, steps: int = STEPS) -> np.ndarray:
    return (np.random.default_rng(1).random((samples, steps, WIDTH)) < 0.5).astype(np.float32)


@pytest.mark.parametrize("precision", [pytest.param("float", marks=pytest.mark.slow), "fixed"])
def test_two_thousand_linear_nodes_in_series_run_as_the_reference_does(precision):
    g, x = linear_series(2000), spikes()
    wanted = reference.execute(g, x, STEPS, DT, stepwise=True).spikes["n"].swapaxes(0, 1)
    given = {"calibration": x} if precision == "fixed" else {}
    program = compile_graph(g, precision=precision, **given)
    np.testing.assert_array_equal(run(program, x).spikes["n"], wanted)
    assert 0.1 < wanted.mean() < 0.9


@pytest.mark.slow
def test_a_loop_may_hold_thousands_of_linear_nodes():
    g = linear_series(2000)
    back = {f"b{i}": linear(np.eye(WIDTH) / 2) for i in range(2)} | {
        f"b{i}": linear(np.eye(WIDTH)) for i in range(2, 1500)
    }
    looped = graph(g.nodes | back, [*g.edges, ("n", "b0"), *itertools.pairwise(back), (list(back)[-1], "n")])
    x = spikes()
    wanted = reference.execute(looped, x, STEPS, DT, stepwise=True).spikes["n"].swapaxes(0, 1)
    np.testing.assert_array_equal(run(compile_graph(looped, precision="float"), x).spikes["n"], wanted)


def visits(monkeypatch, layer_count: int) -> int:
    """How many projections are looked at while a quantised chain is compiled and placed."""
    g = quantize_any(layers(layer_count), 8, spikes(1))
    seen = [0]

    class Counted(tuple):
        def __iter__(self):
            for item in tuple.__iter__(self):
                seen[0] += 1
                yield item

    counted = Program.__init__

    def init(self, *args, **kwargs):
        counted(self, *args, **kwargs)
        for name in ("projections", "populations"):
            object.__setattr__(self, name, Counted(getattr(self, name)))

    with monkeypatch.context() as patch:
        patch.setattr(Program, "__init__", init)
        place(compile_graph(g), CHIPS["loihi1"])
    return seen[0]


def test_twice_the_layers_are_twice_the_work(monkeypatch):
    """Counted, not timed: a scan of all projections for each population would make it four times."""
    small, large = visits(monkeypatch, 20), visits(monkeypatch, 40)
    assert small > 20 * 10
    assert large < 2.2 * small


def each_with_a_loop(number: int) -> nir.NIRGraph:
    """Populations in series, each with weights to itself."""
    own = {f"w{i}": linear(np.eye(WIDTH) / 4) for i in range(number)}
    chain = layers(number, 0.3)
    loops = [edge for i in range(number) for edge in ((f"n{i}", f"w{i}"), (f"w{i}", f"n{i}"))]
    return graph(chain.nodes | own, [*chain.edges, *loops])


def each_with_feedback(number: int) -> nir.NIRGraph:
    """Populations in series, each with weights to the one before: all are in one strongly connected component."""
    back = {f"w{i}": linear(np.eye(WIDTH) / 4) for i in range(number - 1)}
    chain = layers(number, 0.3)
    loops = [edge for i in range(number - 1) for edge in ((f"n{i + 1}", f"w{i}"), (f"w{i}", f"n{i}"))]
    return graph(chain.nodes | back, [*chain.edges, *loops])


def both_ways_round(number: int) -> nir.NIRGraph:
    """A ring in which each population feeds both neighbours."""
    edges = [(f"n{i}", f"n{(i + side) % number}") for i in range(number) for side in (1, -1)]
    nodes = {"x": inp(WIDTH), "y": out(WIDTH)} | {f"n{i}": lif(WIDTH) for i in range(number)}
    return graph(nodes, [("x", "n0"), *edges, ("n0", "y")])


def one_for_all(number: int) -> nir.NIRGraph:
    """Populations that all feed one linear node, which feeds them all."""
    edges = [edge for i in range(number) for edge in ((f"n{i}", "w"), ("w", f"n{i}"))]
    nodes = {"x": inp(WIDTH), "w": linear(np.eye(WIDTH)), "y": out(WIDTH)} | {
        f"n{i}": lif(WIDTH) for i in range(number)
    }
    return graph(nodes, [("x", "w"), *edges, ("n0", "y")])


def lines_of(work, *args) -> int:
    """How many lines of Python are executed."""
    seen = [0]

    def trace(frame, event, arg):
        seen[0] += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work(*args)
    finally:
        sys.settrace(before)
    return seen[0]


@pytest.mark.parametrize("made", [each_with_a_loop, each_with_feedback, both_ways_round, one_for_all])
def test_twice_the_recurrent_populations_are_twice_the_work_of_ordering(made):
    """Counted, not timed: all loops found anew at each opening would make it four times."""
    small, large = (lines_of(evaluation_order, made(number)) for number in (100, 200))
    assert small > 100
    assert large < 2.3 * small


@pytest.mark.slow
def test_two_thousand_populations_with_loops_run_as_the_reference_does():
    g, x = each_with_a_loop(2000), spikes(1)
    wanted = reference.execute(g, x, STEPS, DT, stepwise=True).spikes["n1999"].swapaxes(0, 1)
    np.testing.assert_array_equal(run(compile_graph(g, precision="float"), x).spikes["n1999"], wanted)
    assert wanted.any()


def test_nested_graphs_in_series_flatten_into_a_chain():
    parts = [
        (f"g{i}", graph({"i": inp(WIDTH), "l": linear(np.eye(WIDTH)), "o": out(WIDTH)}, [("i", "l"), ("l", "o")]))
        for i in range(1500)
    ]
    flat = flatten(in_series(parts))
    names = ["x", *(f"g{i}.l" for i in range(1500)), "y"]
    assert sorted(flat.edges) == sorted(itertools.pairwise(names))


def test_a_student_of_many_steps_keeps_its_weights():
    """float32 cannot hold the membranes of 1,100 halvings exactly; weights of 0 would be exact, and say nothing."""
    g = layers(2)
    g.metadata["student"] = "{}"
    for steps in (12, 40, 1100):
        quantised = quantize_any(g, 8, spikes(1, steps))
        assert np.any(quantised.nodes["l0"].weight), steps
        scale = json.loads(quantised.metadata["quantization"])["populations"]["n0"]["scale"]
        assert scale * np.abs(g.nodes["l0"].weight).max() >= 2


@pytest.mark.slow
def test_eleven_hundred_steps_at_half_a_time_constant_run_as_the_reference_does():
    g, x = layers(2), spikes(1, 1100)
    execution = run(compile_graph(g, calibration=x), x)
    wanted = reference.execute(g, x, 1100, DT, stepwise=True).spikes
    for name, train in wanted.items():
        assert np.mean(execution.spikes[name] != train.swapaxes(0, 1)) < 0.01, name


@pytest.mark.slow
def test_a_large_layer_is_quantised_and_compiled_in_the_memory_of_its_copies():
    """float64 copies of all weights would take twice the layer's memory each."""
    side = 3000
    weight = np.random.default_rng(0).integers(-8, 9, (side, side)).astype(np.float32) / 8
    g = graph({"x": inp(side), "l": nir.Linear(weight), "n": lif(side, threshold=20.0), "y": out(side)},
              [("x", "l"), ("l", "n"), ("n", "y")])  # fmt: skip
    x = (np.random.default_rng(1).random((1, 2, side)) < 0.2).astype(np.float32)
    tracemalloc.start()
    try:
        quantised = quantize_any(g, 8, x)
        _, quantising = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        compile_graph(quantised)
        _, compiling = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    blocks = 5 * 8 * (1 << 22)  # a few float64 arrays of one block
    assert quantising < 2 * weight.nbytes + blocks
    assert compiling - held < 2 * weight.nbytes + blocks


def test_paths_of_a_deep_chain_are_counted_up_to_a_bound():
    """60 layers of 4 x 4 have 4^60 paths from each neuron, beyond 64 bits; float32 itself ends at 4^64."""
    for depth in (60, 500):
        chain = tuple(ops.Dense(np.ones((WIDTH, WIDTH), dtype=np.float32)) for _ in range(depth))
        np.testing.assert_array_equal(ops.fan_out(chain, (WIDTH,)), np.full(WIDTH, ops.MOST_PATHS))


def test_a_dense_layer_of_many_inputs_has_a_pattern():
    """Its identity matrix of 80,000 x 80,000 would take 6 GB."""
    tracemalloc.start()
    try:
        (factor,) = link((ops.Dense(np.ones((3, 80_000), dtype=np.float32)),), (80_000,))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert factor.matrix.shape == (3, 80_000)
    assert factor.matrix.all()
    assert peak < 10 * factor.matrix.nbytes


def directly(size: int) -> nir.NIRGraph:
    """An input that leads into a population without weights, and that into another."""
    nodes = {"x": inp(size), "n": lif(size, threshold=0.3), "m": lif(size, threshold=0.3), "y": out(size)}
    return graph(nodes, itertools.pairwise(nodes))


@pytest.mark.parametrize("chip", ["loihi1", "loihi2"])
def test_neurons_that_are_connected_one_to_one_are_placed_without_an_identity_matrix(chip):
    """Its 20,000 x 20,000 places would take 400 MB for each projection, and minutes."""
    program = compile_graph(directly(20_000), precision="float")
    tracemalloc.start()
    try:
        placement = place(program, CHIPS[chip])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    used = {p.name: p.usage.sum(axis=0).tolist()[2:] for p in placement.populations}
    assert used == {"n": [20_000, 20_000], "m": [20_000, 0]}  # an axon for each spike that comes, and that goes


def test_one_to_one_needs_the_same_with_and_without_a_matrix(monkeypatch):
    program = compile_graph(directly(900), precision="float")
    with_matrix = [(p.bounds, p.usage.tolist()) for p in place(program, CHIPS["truenorth"]).populations]
    monkeypatch.setattr(connectivity, "MOST_OWN", 899)
    without = [(p.bounds, p.usage.tolist()) for p in place(program, CHIPS["truenorth"]).populations]
    np.testing.assert_equal(without, with_matrix)


@pytest.mark.parametrize(
    "backend", ["emulator", pytest.param("lava", marks=pytest.mark.skipif(not find_spec("lava"), reason="needs Lava"))]
)
def test_twenty_thousand_neurons_without_weights_run_as_the_reference_does(backend):
    x = (np.random.default_rng(1).random((1, STEPS, 20_000)) < 0.5).astype(np.float32)
    quantised = quantize_any(directly(20_000), 8, x)
    wanted = reference.execute(quantised, x, STEPS, DT, stepwise=True).spikes
    found = run(compile_graph(quantised), x, backend=backend).spikes
    for name in ("n", "m"):
        np.testing.assert_array_equal(found[name], wanted[name].swapaxes(0, 1))
    assert 0.1 < wanted["n"].mean() < 0.9
