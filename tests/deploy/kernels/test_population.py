"""Fused populations on the CPU give the spikes, counts and maxima of torch's operators and states."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mksgn.deploy.kernels import tiles
from mksgn.deploy.kernels.population import FusedPopulation, fused_population
from mksgn.deploy.program import operators as ops
from tests.deploy.kernels import networks as net

KINDS = ("conv", "strided", "conv1d", "graph", "dense", "flattened", "two", "graph and skip")


def case(kind: str, rng: np.random.Generator):
    """Return sources' shapes, their paths, and the target's shape."""
    channels, outputs = (int(n) for n in rng.choice([1, 3, 8, 16, 17, 40, 70], 2))
    shape = (channels, int(rng.integers(3, 7)), int(rng.integers(1, 6)))
    if kind == "conv":
        path = net.conv(rng, shape, outputs, (3, 1), padding=(1, 0))
    elif kind == "strided":
        geometry = {"stride": (2, 1), "padding": (2, 1), "dilation": (2, 1), "extra_end_padding": (1, 0)}
        path = net.conv(rng, shape, outputs, (2, 2), **geometry)
    elif kind == "conv1d":
        shape = shape[:2]
        path = net.conv(rng, shape, outputs, (3,), padding=(1,))
    elif kind == "graph":
        path = net.graph_conv(rng, shape, outputs, 7)
    elif kind == "dense":
        shape = (channels,)
        path = ops.Dense(net.weights(rng, outputs, channels))
    elif kind == "flattened":
        weight = net.weights(rng, outputs, int(np.prod(shape)))
        return {"a": shape}, [(ops.Flatten(0, -1), ops.Dense(weight))], (outputs,)
    else:
        first = net.graph_conv if kind == "graph and skip" else None
        paths = [
            (first(rng, shape, outputs, 9),) if first else (net.conv(rng, shape, outputs, (3, 1), padding=(1, 0)),),
            (net.conv(rng, shape, outputs, (1, 1)),),
        ]
        return {"a": shape, "b": shape}, paths, (outputs, *shape[1:])
    return {"a": shape}, [(path,)], path.out_shape(shape)


def draw(kind: str, seed: int, *, halving: bool, remembers: bool, wide: bool = False):
    rng = np.random.default_rng(seed)
    shapes, paths, target = case(kind, rng)
    worst = 1e9 if wide else 32767 * 2
    if not wide:  # what the pass guarantees where it lets sums be 16 bits wide
        paths = [tuple(_scaled(op, rng) for op in path) for path in paths]
    program = net.program(
        shapes, paths, target, net.neuron(rng, target, halving=halving, remembers=remembers, worst=worst)
    )
    steps, samples, rate = int(rng.integers(1, 6)), int(rng.integers(1, 5)), float(rng.choice([0.0, 0.1, 0.5, 1.0]))
    inputs = {
        name: torch.from_numpy((rng.random((steps, samples, *shape)) < rate).astype(np.uint8))
        for name, shape in shapes.items()
    }
    return program, inputs, rng, (steps, samples)


def _scaled(operator, rng):
    """Small weights: no sum of halves leaves 16 bits."""
    if not hasattr(operator, "weight"):
        return operator
    return ops.with_weights((operator,), lambda w: (2 * rng.integers(-8, 9, w.shape)).astype(np.float32))[0]


def assert_same(fired, expected) -> None:
    assert torch.equal(fired.spikes, expected.spikes)
    assert np.array_equal(fired.per_neuron, expected.per_neuron)
    assert (fired.max_current, fired.max_membrane) == (expected.max_current, expected.max_membrane)


@pytest.mark.parametrize("kind", KINDS)
@given(
    seed=st.integers(0, 2**32), halving=st.booleans(), remembers=st.booleans(), wide=st.booleans(), extra=st.booleans()
)
def test_all_steps_at_once(kind, seed, halving, remembers, wide, extra):
    program, inputs, rng, size = draw(kind, seed, halving=halving, remembers=remembers, wide=wide)
    y = program["y"]
    fused = FusedPopulation(program, y)
    assert len(fused.projections) == len(program.projections)
    delays = [int(d) for d in rng.integers(-1, 3, len(program.projections))]
    given_current = torch.from_numpy(rng.integers(-500, 500, (*size, *y.shape))) if extra else None
    arrivals = [(inputs[q.sources[0]], delay) for q, delay in zip(fused.projections, delays, strict=True)]
    fired = fused.run(arrivals, given_current, size)
    assert_same(fired, net.by_torch(program, inputs, delays, given_current))


@given(seed=st.integers(0, 2**32), halving=st.booleans(), remembers=st.booleans())
def test_step_by_step(seed, halving, remembers):
    program, inputs, _, (steps, samples) = draw("two", seed, halving=halving, remembers=remembers)
    fused = FusedPopulation(program, program["y"])
    expected = net.by_torch(program, inputs, [0, 0], None)
    state = fused.rest(samples)
    for t in range(steps):
        fired = fused.run([(inputs[q.sources[0]][t : t + 1], 0) for q in fused.projections], None, (1, samples), state)
        assert torch.equal(fired.spikes[0], expected.spikes[t])


def test_what_does_not_arrive_is_silent():
    program, inputs, _, size = draw("two", 3, halving=True, remembers=False)
    fused = FusedPopulation(program, program["y"])
    silent = {"a": inputs["a"], "b": torch.zeros_like(inputs["b"])}
    fired = fused.run([(inputs["a"], 0), (None, 0)], None, size)
    assert_same(fired, net.by_torch(program, silent, [0, 0], None))


@pytest.mark.parametrize("tile_bytes", [1, 700, 1 << 18])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_tiles_and_threads_change_nothing(monkeypatch, threads, tile_bytes):
    monkeypatch.setattr(tiles, "TILE_BYTES", tile_bytes)
    with ThreadPoolExecutor(threads) as pool:
        for seed, kind in enumerate(KINDS):
            program, inputs, _, size = draw(kind, seed, halving=False, remembers=False)
            fused = FusedPopulation(program, program["y"])
            arrivals = [(inputs[q.sources[0]], 0) for q in fused.projections]
            fired = fused.run(arrivals, None, size, threads=threads, pool=pool if threads > 1 else None)
            assert_same(fired, net.by_torch(program, inputs, [0] * len(inputs), None))


def test_more_steps_than_a_byte_counts():
    rng = np.random.default_rng(0)
    n = net.neuron(rng, (3,), halving=True, remembers=False, worst=1e9)
    program = net.program({"a": (4,)}, [(ops.Dense(np.full((3, 4), 254, np.float32)),)], (3,), n)
    inputs = {"a": torch.ones((600, 2, 4), dtype=torch.uint8)}
    fused = FusedPopulation(program, program["y"])
    fired = fused.run([(inputs["a"], 0)], None, (600, 2))
    assert fired.per_neuron.max() > 1000
    assert_same(fired, net.by_torch(program, inputs, [0], None))


def test_the_membrane_is_clipped_and_the_current_wraps():
    for remembers in (False, True):
        rng = np.random.default_rng(1)
        n = net.neuron(rng, (2, 2, 2), halving=False, remembers=remembers, worst=1e9)
        program = net.program({"a": (300, 2, 2)}, [(net.conv(rng, (300, 2, 2), 2, (1, 1)),)], (2, 2, 2), n)
        inputs = {"a": torch.ones((4, 2, 300, 2, 2), dtype=torch.uint8)}
        extra = torch.full((4, 2, 2, 2, 2), 100_000)
        fused = FusedPopulation(program, program["y"])
        fired = fused.run([(inputs["a"], 0)], extra, (4, 2))
        assert_same(fired, net.by_torch(program, inputs, [0], extra))


def test_other_operators_are_left_to_torch():
    rng = np.random.default_rng(0)
    pool, scale = ops.SumPool((2, 1), (2, 1)), ops.Scale(np.full((4, 4, 2), 2, np.float32))
    grouped = ops.Conv(net.weights(rng, 4, 2, 1, 1), groups=2)
    n = net.neuron(rng, (4, 4, 2), halving=True, remembers=False, worst=1e9)
    shapes = {"a": (4, 8, 2), "b": (4, 4, 2), "c": (4, 4, 2)}
    program = net.program(shapes, [(pool,), (scale,), (grouped,)], (4, 4, 2), n)
    assert FusedPopulation(program, program["y"]).projections == ()


def test_a_plan_is_made_once_and_for_firing_integers_only():
    program, *_ = draw("conv", 0, halving=True, remembers=False)
    cpu = torch.device("cpu")
    assert fused_population(program, program["y"], cpu) is fused_population(program, program["y"], cpu)
    assert fused_population(program, program["a"], cpu) is None
