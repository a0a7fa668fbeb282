"""Networks of other people with their right output (tests/data/cases), and three variants of each.

Each runs in float as NIR's equations have it, in an oracle that shares no code with deploy (or in the file's own
numbers), and in fixed point in the emulator and in Lava alike: 0 decisions differ.
"""

from pathlib import Path

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.export.graph import files
from mksgn.export.graph.conventions import with_conventions
from mksgn.export.graph.metadata import json_of
from mksgn.export.quantization.quantize import quantize
from tests.support import euler_oracle
from tests.support.graphs import DT, F32, affine, chain, conv, graph, inp, lif, linear, out
from tests.support.tiers import one_in

CASES = Path(__file__).parents[1] / "data" / "cases"
OPTIONS = {  # and the decisions that 8-bit weights and Loihi's truncating decay change
    "recurrent_bias_first_step": ({}, 0),
    "input_joins_the_recurrent_weight": ({}, 9),
    "subtract_reset": ({"reset": "subtract"}, 0),
    "initial_state_at_v_reset": ({"v_init": "v_reset"}, 0),
}
BACKENDS = ["emulator", pytest.param("lava", marks=pytest.mark.slow)]


def needs(backend: str) -> None:
    if backend == "lava":
        pytest.importorskip("lava", reason="lava-nc is not installed: make setup")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_case_gives_its_right_output(name, backend):
    needs(backend)
    (path,) = (CASES / name).glob("*.nir")
    x, expected = (np.load(CASES / name / f"{array}.npy") for array in ("x", "expected"))
    options, rounded = OPTIONS[name]
    floats = run(compile_graph(path, precision="float", **options), x, backend=backend).outputs["output"]
    assert int((floats != expected).sum()) == 0
    fixed = run(compile_graph(path, calibration=x, **options), x, backend=backend).outputs["output"]
    assert int((fixed != expected).sum()) == rounded


def numbers(seed: int):
    rng = np.random.default_rng(seed)

    def weights(*shape: int, mean: float = 0.1) -> np.ndarray:
        return rng.normal(mean, 1 / np.sqrt(shape[-1]), shape).astype(F32)

    return rng, weights


def cubalif(n: int, threshold: float, **metadata: object) -> nir.CubaLIF:
    node = nir.CubaLIF(*(np.full(n, v, F32) for v in (2 * DT, 4 * DT, 2, 0, threshold, 0, 2)))
    node.metadata |= metadata
    return node


def said(node: nir.NIRNode, **metadata: object) -> nir.NIRNode:
    node.metadata |= metadata
    return node


def biased_ring(seed: int) -> nir.NIRGraph:
    """Two populations in a loop, each edge an Affine."""
    _, w = numbers(seed)
    nodes = {
        "x": inp(6), "in": affine(w(8, 6), w(8)), "a": lif(8, threshold=0.4), "forth": affine(w(5, 8), w(5)),
        "b": lif(5, threshold=0.5), "back": affine(w(8, 5), w(8, mean=0.4)), "y": out(5),
    }  # fmt: skip
    edges = [("x", "in"), ("in", "a"), ("a", "forth"), ("forth", "b"), ("b", "back"), ("back", "a"), ("b", "y")]
    return graph(nodes, edges)


def biased_convolution(seed: int) -> nir.NIRGraph:
    """A convolutional population, whose own spikes come back through a convolution with bias and a Scale."""
    rng, w = numbers(seed)
    nodes = {
        "x": inp(2, 5, 4), "in": conv(rng.normal(0.1, 0.3, (3, 2, 3, 3)), w(3), padding=(1, 1), input_shape=(5, 4)),
        "a": lif(3, 5, 4, threshold=0.4), "back": conv(rng.normal(0, 0.3, (3, 3, 1, 1)), [0.5, 0.3, -0.1], input_shape=(5, 4)),
        "half": nir.Scale(np.full((3, 5, 4), 0.5, F32)), "y": out(3, 5, 4),
    }  # fmt: skip
    edges = [("x", "in"), ("in", "a"), ("a", "back"), ("back", "half"), ("half", "a"), ("a", "y")]
    return graph(nodes, edges)


def nested_bias(seed: int) -> nir.NIRGraph:
    """A recurrent population as a nested graph, as snnTorch's RLeaky is written."""
    _, w = numbers(seed)
    inner = graph(
        {"input": inp(7), "lif": lif(7, threshold=0.5), "w_rec": affine(w(7, 7), w(7, mean=0.5)), "output": out(7)},
        [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")],
    )
    return chain(("x", inp(6)), ("fc", linear(w(7, 6))), ("rec", inner), ("y", out(7)))


def biased_currents(seed: int) -> nir.NIRGraph:
    """snnTorch's RSynaptic: the bias of its recurrent weight enters the synaptic current, some of it very large."""
    _, w = numbers(seed)
    bias = np.array([0.6, -0.3, 0.1, 4.0, -4.0, 0.0, 0.3, 0.2], F32)
    nodes = {
        "x": inp(6), "w": affine(w(8, 6), w(8)), "n": cubalif(8, 0.9), "back": affine(w(8, 8, mean=-0.1), bias),
        "v": linear(w(4, 8)), "m": cubalif(4, 0.5), "y": out(4),
    }  # fmt: skip
    return graph(nodes, [("x", "w"), ("w", "n"), ("n", "back"), ("back", "n"), ("n", "v"), ("v", "m"), ("m", "y")])


def biased_convolution_of_currents(seed: int) -> nir.NIRGraph:
    rng, w = numbers(seed)
    shape = (3, 4, 4)
    node = nir.CubaLIF(*(np.full(shape, v, F32) for v in (2 * DT, 4 * DT, 2, 0.1, 0.6, 0, 2)))
    first = conv(rng.normal(0.1, 0.3, (3, 2, 3, 3)), w(3), padding=(1, 1), input_shape=(4, 4))
    return chain(("x", inp(2, 4, 4)), ("c", first), ("n", node), ("y", out(*shape)))


def two_inputs_join(seed: int) -> nir.NIRGraph:
    """Two signals and the population's own spikes join before the weights, one of them through a node of its own."""
    _, w = numbers(seed)
    nodes = {
        "x": inp(6), "own": linear(w(6, 6)), "w": affine(w(6, 6), w(6)), "n": lif(6, threshold=0.4), "y": out(6),
    }  # fmt: skip
    return graph(nodes, [("x", "w"), ("x", "own"), ("own", "w"), ("n", "w"), ("w", "n"), ("n", "y")])


def joined_twice(seed: int) -> nir.NIRGraph:
    """A loop over two populations, both of which read what joins before the same weights."""
    _, w = numbers(seed)
    nodes = {
        "x": inp(6), "w": affine(w(6, 6), w(6)), "b": lif(6, threshold=0.4), "v": linear(w(6, 6)),
        "a": lif(6, threshold=0.6), "y": out(6),
    }  # fmt: skip
    edges = [("x", "w"), ("a", "w"), ("w", "b"), ("b", "v"), ("v", "a"), ("w", "a"), ("a", "y")]
    return graph(nodes, edges)


def delayed_join(seed: int) -> nir.NIRGraph:
    """The spikes that come back wait in a Delay before they join the input."""
    _, w = numbers(seed)
    nodes = {
        "x": inp(6), "w": linear(w(6, 6, mean=0.3)), "n": lif(6, threshold=0.4),
        "late": nir.Delay(np.full(6, 2 * DT, F32)), "y": out(6),
    }  # fmt: skip
    return graph(nodes, [("x", "w"), ("n", "late"), ("late", "w"), ("w", "n"), ("n", "y")])


def subtracting_layers(seed: int) -> nir.NIRGraph:
    _, w = numbers(seed)
    return chain(
        ("x", inp(6)), ("w", affine(w(9, 6, mean=0.4), w(9))), ("a", said(lif(9, threshold=0.6, tau=4 * DT), reset="subtract")),
        ("v", linear(w(5, 9, mean=0.3))), ("b", said(lif(5, threshold=0.5), reset="subtract-at-once")), ("y", out(5)),
    )  # fmt: skip


def subtracting_currents(seed: int) -> nir.NIRGraph:
    """snnTorch's Synaptic, whose own spikes come back."""
    _, w = numbers(seed)
    nodes = {
        "x": inp(6), "w": linear(w(9, 6, mean=0.5)), "n": cubalif(9, 0.7, reset="subtract"),
        "back": linear(w(9, 9, mean=-0.1)), "y": out(9),
    }  # fmt: skip
    return graph(nodes, [("x", "w"), ("w", "n"), ("n", "back"), ("back", "n"), ("n", "y")])


def subtracting_integrator(seed: int) -> nir.NIRGraph:
    _, w = numbers(seed)
    node = nir.IF(np.full(9, 1 / DT, F32), np.linspace(0.5, 1.5, 9, dtype=F32), np.zeros(9, F32))
    return chain(("x", inp(6)), ("w", linear(w(9, 6, mean=0.4))), ("n", said(node, reset="subtract")), ("y", out(9)))


def starts_at_leak(seed: int) -> nir.NIRGraph:
    _, w = numbers(seed)
    node = said(lif(9, threshold=0.6, leak=0.3, reset=-0.2), v_init="leak")
    return chain(("x", inp(6)), ("w", linear(w(9, 6))), ("n", node), ("y", out(9)))


def integrator_below_zero(seed: int) -> nir.NIRGraph:
    """Per neuron: thresholds and resting potentials, some thresholds below 0."""
    _, w = numbers(seed)
    reset = np.linspace(-0.9, 0.2, 9, dtype=F32)
    node = said(nir.IF(np.full(9, 1 / DT, F32), reset + F32(0.7), reset), v_init="v_reset")
    return chain(("x", inp(6)), ("w", affine(w(9, 6), w(9))), ("n", node), ("y", out(9)))


def starts_at_zero_above_v_reset(seed: int) -> nir.NIRGraph:
    """NIR's own reading of a v_reset other than 0: the first spike comes from another state than all later ones."""
    _, w = numbers(seed)
    return chain(
        ("x", inp(6)), ("w", linear(w(9, 6, mean=0.5))), ("n", lif(9, threshold=0.5, leak=-0.3)), ("y", out(9))
    )


VARIANTS = [
    biased_ring, biased_convolution, nested_bias, biased_currents, biased_convolution_of_currents,
    two_inputs_join, joined_twice, delayed_join,
    subtracting_layers, subtracting_currents, subtracting_integrator,
    starts_at_leak, integrator_below_zero, starts_at_zero_above_v_reset,
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("build", VARIANTS)
def test_a_variant_runs_as_its_equations_say(build, backend):
    needs(backend)
    g = build(3)
    shape = tuple(int(n) for n in g.nodes["x"].input_type["input"])
    x = np.random.default_rng(5).random((6, 24, *shape)) < 0.4
    spikes, _, _ = euler_oracle.execute(g, {"x": x.astype(F32)}, DT)
    floats = run(compile_graph(g, precision="float"), x, backend=backend)
    for name, train in spikes.items():
        assert 0.02 < train.mean() < 0.98, f"{name}: the test is blind"
        assert int((floats.spikes[name] != train).sum()) == 0, name
    program = compile_graph(g, calibration=x)
    fixed = run(program, x, backend=backend)
    for name, train in spikes.items():
        assert (fixed.spikes[name] == train).mean() > 0.9, name
    if backend == "lava":
        emulated = run(program, x)
        for name, train in emulated.spikes.items():
            assert int((fixed.spikes[name] != train).sum()) == 0, name
            assert fixed.counters[name].syn_ops == emulated.counters[name].syn_ops, name


@pytest.mark.parametrize("build", one_in(3, VARIANTS))
def test_a_variant_survives_a_file(build, tmp_path):
    """What the metadata say of a neuron is in the file, quantised or not. With tau = 2 dt and few steps, Loihi's
    decay truncates nothing: the quantised file's float and fixed-point executions decide alike.
    """
    g = build(4)
    shape = tuple(int(n) for n in g.nodes["x"].input_type["input"])
    x = np.random.default_rng(6).random((4, 6, *shape)) < 0.4
    files.write(g, tmp_path / "net.nir")
    one, two = (run(compile_graph(net, precision="float"), x).spikes for net in (g, tmp_path / "net.nir"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    quantised, _ = quantize(g, 8, x.astype(F32), 6, DT)
    quantised.metadata["steps"] = 6
    files.write(quantised, tmp_path / "quantised.nir")
    read = files.read(tmp_path / "quantised.nir")
    fixed = [run(compile_graph(net), x).spikes for net in (quantised, read)]
    assert all(np.array_equal(fixed[0][name], fixed[1][name]) for name in one)
    if json_of(read, "quantization")["exact_on_chip"]:
        floats = run(compile_graph(read, precision="float"), x).spikes
        for name, train in floats.items():
            assert int((fixed[1][name] != train).sum()) == 0, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graded_output_starts_where_it_is_said(backend):
    """A CubaLI, whose membrane starts at v_leak, and whose synaptic current has a bias."""
    needs(backend)
    rng, w = numbers(0)
    node = nir.CubaLI(*(np.full(3, v, F32) for v in (2 * DT, 4 * DT, 2, 0.5, 2)))
    g = chain(("x", inp(4)), ("d", affine(w(3, 4), [0.3, -0.2, 2])), ("m", node), ("y", out(3)))
    x = rng.random((4, 8, 4)) < 0.5
    floats = run(compile_graph(g, precision="float", v_init="leak"), x, backend=backend).outputs["y"]
    np.testing.assert_allclose(floats[:, 0], _first_membranes(g, x), rtol=1e-5)
    fixed = run(compile_graph(g, calibration=x, v_init="leak"), x, backend=backend).outputs["y"]
    assert np.abs(fixed - floats).max() < 0.02 * np.abs(floats).max()


def _first_membranes(g: nir.NIRGraph, x: np.ndarray) -> np.ndarray:
    """u = (w_in / 2) (W x + b); v = 0.5 + ((0.5 - 0.5) + 2 u) / 4."""
    current = x[:, 0] @ g.nodes["d"].weight.T + g.nodes["d"].bias
    return 0.5 + 2 * current / 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reset", ["subtract", "subtract-at-once"])
def test_an_encoder_on_the_host_resets_as_it_is_said(backend, reset):
    needs(backend)
    rng, w = numbers(0)
    g = chain(
        ("x", inp(4, analog=True)), ("d", linear(rng.normal(size=(9, 4)))), ("e", lif(9, threshold=0.3, leak=-0.1)),
        ("w", linear(w(5, 9, mean=0.2))), ("n", lif(5, threshold=0.3)), ("y", out(5)),
    )  # fmt: skip
    x = rng.normal(0, 1, (4, 6, 4)).astype(F32)
    options = {"reset": reset, "v_init": "v_reset"}
    expected, _, _ = euler_oracle.execute(with_conventions(g, **options), {"x": x}, DT)
    floats = run(compile_graph(g, precision="float", **options), x, backend=backend)
    fixed = run(compile_graph(g, calibration=x, **options), x, backend=backend)
    for name, train in expected.items():
        assert 0.02 < train.mean() < 0.98, f"{name}: the test is blind"
        assert int((floats.spikes[name] != train).sum()) == 0, name
        assert (fixed.spikes[name] == train).mean() > 0.95, name


def test_options_do_not_override_a_file():
    g = subtracting_layers(0)
    changed = with_conventions(g, "zero", "leak")
    assert [changed.nodes[n].metadata["reset"] for n in "ab"] == ["subtract", "subtract-at-once"]
    assert [changed.nodes[n].metadata["v_init"] for n in "ab"] == ["leak", "leak"]
    assert "v_init" not in g.nodes["a"].metadata
    ours = chain(("x", inp(1)), ("n", lif(1)), ("y", out(1)), reset="hard, to 0; all state is 0 at the start of a clip")
    assert not with_conventions(ours, "subtract", "leak").nodes["n"].metadata
