"""Stock Lava Processes, the fused leaves and the emulator: one program, the same spikes in all three."""

import json

import nir
import numpy as np
import pytest

pytest.importorskip("lava", reason="lava-nc is not installed: make setup")

from mksgn.deploy import compile_graph, run
from mksgn.deploy.errors import DeployError
from mksgn.deploy.lava.stock import execute as stock
from mksgn.export import export_to_nir
from tests.support import graphs as net
from tests.support.students import calibration, tiny
from tests.support.tiers import one_in


def even(rng: np.random.Generator, *shape: int, most: int = 254, mean: float = 0.0) -> np.ndarray:
    """Even integers in ±`most`, as a quantised file's unit makes of weights."""
    values = rng.normal(mean, 0.3, shape).clip(-1, 1) * most
    return 2 * np.rint(values / 2)


def neurons(*shape: int, threshold, **parameters) -> nir.LIF:
    """A LIF whose threshold is in weight units, half a step of the membrane above an integer."""
    return net.lif(*shape, threshold=(np.asarray(threshold) + 1 / 128) / 2, **parameters)


def in_integers(g: nir.NIRGraph, *populations: str) -> nir.NIRGraph:
    """The file's metadata for weights that are integers already: unit 1."""
    units = {name: {"exponent": 0} for name in populations}
    g.metadata["quantization"] = json.dumps({"bits": 8, "populations": units})
    return g


def conv_chain(
    blocks: int = 6,
    channels: int = 64,
    frames: int = 16,
    joints: int = 20,
    *,
    kernel: int = 9,
    steps: int = 4,
    rate: float = 0.1,
    seed: int = 0,
) -> nir.NIRGraph:
    """A quantised chain of Conv (kernel x 1, padded to keep the frames) and LIF, firing at about `rate`.

    The thresholds are that quantile of the sum of so many random weights, over a membrane's steps, if
    the input fires at `rate`.
    """
    rng = np.random.default_rng(seed)
    shape = (channels, frames, joints)
    nodes: dict[str, nir.NIRNode] = {"x": net.inp(*shape)}
    for i in range(blocks):
        weight = even(rng, channels, channels, kernel, 1, most=120)
        deviation = np.sqrt(rate * channels * kernel * np.mean(weight**2))
        nodes[f"conv{i}"] = net.conv(weight, padding=(kernel // 2, 0))
        nodes[f"lif{i}"] = neurons(*shape, threshold=np.rint(1.25 * deviation))
    nodes["y"] = net.out(*shape)
    return in_integers(net.chain(*nodes.items(), steps=steps), *(f"lif{i}" for i in range(blocks)))


def strided(rng: np.random.Generator) -> tuple[nir.NIRGraph, tuple[int, ...]]:
    """Each of a convolution's parameters; one convolution has a decimation after it."""
    g = net.chain(
        ("x", net.inp(4, 9, 7)),
        ("a", net.conv(even(rng, 6, 4, 3, 2, mean=0.1), rng.integers(-40, 90, 6), stride=(2, 1), padding=(2, 1))),
        ("la", neurons(6, 6, 8, threshold=260)),
        ("b", net.conv(even(rng, 4, 3, 2, 3, mean=0.1), stride=1, padding=(1, 0), dilation=(2, 2), groups=2)),
        ("decimate", net.pool((1, 1), (2, 2))),
        ("lb", neurons(4, 3, 2, threshold=150)),
        ("y", net.out(4, 3, 2)),
        steps=5,
    )
    return in_integers(g, "la", "lb"), (4, 9, 7)


def residual(rng: np.random.Generator) -> tuple[nir.NIRGraph, tuple[int, ...]]:
    """A skip past one and past two populations, into a graph convolution's sum: delays of 1 and 2 steps."""
    shape = (3, 2, 5)
    nodes = {
        "x": net.inp(*shape),
        "graph1": net.graph_conv(net.ring(5), even(rng, 3, 3, 3, mean=0.1)), "l1": neurons(*shape, threshold=60),
        "graph2": net.graph_conv(net.ring(5), even(rng, 3, 3, 3, mean=0.1)), "l2": neurons(*shape, threshold=60),
        "graph3": net.graph_conv(net.ring(5), even(rng, 3, 3, 3)), "from1": net.conv(even(rng, 3, 3, 1, 1)),
        "from0": net.conv(even(rng, 3, 3, 1, 1, mean=0.2)), "l3": neurons(*shape, threshold=120),
        "y": net.out(*shape),
    }  # fmt: skip
    edges = [
        ("x", "graph1"), ("graph1", "l1"), ("l1", "graph2"), ("graph2", "l2"), ("l2", "graph3"), ("graph3", "l3"),
        ("l1", "from1"), ("from1", "l3"), ("x", "from0"), ("from0", "l3"), ("l3", "y"),
    ]  # fmt: skip
    return in_integers(net.graph(nodes, edges, steps=4), "l1", "l2", "l3"), shape


def pooled(rng: np.random.Generator) -> tuple[nir.NIRGraph, tuple[int, ...]]:
    """Overlapping windows give entries of up to 4 · 254, more than a synapse has; a pooled read-out with a bias."""
    g = net.chain(
        ("x", net.inp(2, 6, 6)),
        ("windows", net.pool((3, 3), (1, 1), (1, 1))),
        ("mix", net.conv(np.where(even(rng, 3, 2, 2, 2) < 0, -254, 254), rng.integers(-100, 100, 3))),
        ("l", neurons(3, 5, 5, threshold=[[[400]], [[900]], [[1500]]])),
        ("pool", net.pool((5, 5))),
        ("flat", net.flatten(3, 1, 1)),
        ("classes", net.affine(even(rng, 4, 3), [7, -3, 0, 100])),
        ("y", net.out(4)),
        steps=4,
    )
    return in_integers(g, "l", "classes"), (2, 6, 6)


def attended(rng: np.random.Generator) -> tuple[nir.NIRGraph, tuple[int, ...]]:
    """Two heads with thresholds of their own."""
    z = [(50 + 1 / 128) / 2, (100 + 1 / 128) / 2]
    m = [(30 + 1 / 128) / 2, (50 + 1 / 128) / 2]
    g = net.chain(
        ("x", net.inp(3, 2, 3)),
        ("mix", net.conv(even(rng, 12, 3, 1, 1, mean=0.3), rng.integers(0, 60, 12))),
        ("qkv", neurons(12, 2, 3, threshold=80)),
        ("attend", net.attention(2, gain_m=40, gain_z=60, threshold_m=m, threshold_z=z)),
        ("after", net.conv(even(rng, 4, 4, 1, 1, mean=0.3))),
        ("l", neurons(4, 2, 3, threshold=80)),
        ("y", net.out(4, 2, 3)),
        steps=4,
    )
    return in_integers(g, "qkv", "attend.m", "attend.z", "l"), (3, 2, 3)


def looped(rng: np.random.Generator) -> tuple[nir.NIRGraph, tuple[int, ...]]:
    """Neurons that receive their own spikes of the step before, after a population with a bias; and a Delay node.

    Without a sample, `l` would fire on its bias and start its loop.
    """
    nodes = {
        "x": net.inp(5), "a": net.affine(even(rng, 6, 5, mean=0.1), np.full(6, 60)), "l": neurons(6, threshold=100),
        "b": net.affine(even(rng, 4, 6, mean=-0.1), [30, -20, 90, 170]), "m": neurons(4, threshold=120),
        "again": net.linear(even(rng, 4, 4, mean=0.3)), "late": net.linear(even(rng, 4, 6, mean=0.2)),
        "delay": nir.Delay(np.full(6, 2 * net.DT)),
        "y": net.out(4),
    }  # fmt: skip
    edges = [
        ("x", "a"), ("a", "l"), ("l", "b"), ("b", "m"), ("m", "again"), ("again", "m"),
        ("l", "delay"), ("delay", "late"), ("late", "m"), ("m", "y"),
    ]  # fmt: skip
    return in_integers(net.graph(nodes, edges, steps=6), "l", "m"), (5,)


def small_chain(rng: np.random.Generator) -> tuple[nir.NIRGraph, tuple[int, ...]]:
    return conv_chain(3, 4, 6, 3, kernel=3, rate=0.12, seed=1), (4, 6, 3)


def same(expected, actual) -> None:
    """No decision and no output differs, and no population is silent or saturated."""
    assert set(actual.spikes) == set(expected.spikes)
    for name, train in expected.spikes.items():
        assert 0.005 < train.mean() < 0.98, f"{name} is silent or saturated: it fires at {train.mean():.3f}"
        assert int((actual.spikes[name] != train).sum()) == 0, f"{name}: decisions differ"
        np.testing.assert_array_equal(actual.counters[name].per_neuron, expected.counters[name].per_neuron)
        assert actual.counters[name].spikes == expected.counters[name].spikes == train.sum()
    for name, values in expected.outputs.items():
        np.testing.assert_array_equal(actual.outputs[name], values)


CASES = [small_chain, strided, residual, pooled, attended, looped]


@pytest.mark.parametrize("build", one_in(4, CASES))
def test_stock_fused_and_emulated_spikes_are_the_same(build):
    rng = np.random.default_rng(7)
    g, shape = build(rng)
    program = compile_graph(g)
    x = net.spikes(rng, 3, program.steps, *shape)
    emulated = run(program, x)
    in_stock = stock.execute(program, {"x": x})
    assert in_stock.seconds > 0
    same(emulated, in_stock)
    same(emulated, run(program, x, backend="lava"))


@pytest.mark.slow
@pytest.mark.parametrize("build", one_in(3, [looped, small_chain, strided, residual, pooled]))
def test_stock_float_models_decide_alike_on_quantised_numbers(build):
    rng = np.random.default_rng(7)
    g, shape = build(rng)
    program = compile_graph(g, precision="float")
    x = net.spikes(rng, 2, program.steps, *shape)
    same(run(program, x), stock.execute(program, {"x": x}))


@pytest.mark.slow
def test_a_student_with_attention_and_a_host_encoder():
    rng = np.random.default_rng(0)
    _, g = net.quantised_student_like(rng)
    program, x = compile_graph(g), net.analog_clips(rng, 3)
    same(run(program, x), stock.execute(program, {"x": x}))


@pytest.mark.slow
def test_an_exported_student():
    model, inputs = tiny(stream_channels=2, widths=(4, 8), frames=4)
    program = compile_graph(export_to_nir(model, quantize=8, calibration=calibration(model, 4)))
    x = np.broadcast_to(inputs[:2, None], (2, 4, *inputs.shape[1:]))
    same(run(program, x), stock.execute(program, {"input": x}))


@pytest.mark.slow
def test_without_recording_there_are_counters_and_outputs():
    rng = np.random.default_rng(7)
    g, shape = pooled(rng)
    program, x = compile_graph(g), net.spikes(rng, 2, 4, *shape)
    recorded, unrecorded = stock.execute(program, {"x": x}), stock.execute(program, {"x": x}, record=False)
    assert unrecorded.spikes == {}
    assert unrecorded.counters["l"].spikes == recorded.spikes["l"].sum() > 0
    np.testing.assert_array_equal(unrecorded.outputs["y"], recorded.outputs["y"])


def test_parts_without_a_connection_both_run():
    rng = np.random.default_rng(3)
    nodes = {name: node for i in "ab" for name, node in {
        f"x{i}": net.inp(4), f"d{i}": net.linear(even(rng, 5, 4, mean=0.2)), f"l{i}": neurons(5, threshold=120),
        f"y{i}": net.out(5),
    }.items()}  # fmt: skip
    edges = [pair for i in "ab" for pair in ((f"x{i}", f"d{i}"), (f"d{i}", f"l{i}"), (f"l{i}", f"y{i}"))]
    program = compile_graph(in_integers(net.graph(nodes, edges, steps=4), "la", "lb"))
    x = {f"x{i}": net.spikes(rng, 2, 4, 4) for i in "ab"}
    same(run(program, x), stock.execute(program, x))


@pytest.mark.slow
def test_a_loop_s_neurons_are_held_back_before_their_clip(monkeypatch):
    """Otherwise they fire on their bias and receive those spikes within the sample: the comparison above can fail."""
    rng = np.random.default_rng(7)
    g, shape = looped(rng)
    program, x = compile_graph(g), net.spikes(rng, 3, 6, *shape)
    monkeypatch.setattr(stock, "hold_back", lambda *_: None)
    assert (run(program, x).spikes["m"] != stock.execute(program, {"x": x}).spikes["m"]).any()


def small(threshold, *more, bias=0.0, precision="fixed"):
    size = np.size(threshold)
    tail = more or (("y", net.out(size)),)
    g = net.chain(
        ("x", net.inp(3)),
        ("d", net.affine(np.full((size, 3), 2), np.full(size, bias))),
        ("l", neurons(size, threshold=threshold)),
        *tail,
        steps=2,
    )
    return compile_graph(in_integers(g, "l", "m", "e"), precision=precision)


def test_what_stock_processes_cannot_do_is_refused():
    x = {"x": np.ones((1, 2, 3))}
    with pytest.raises(
        DeployError, match=r"^population l: a stock LIF has one threshold .* needs 17 of them, more than 16"
    ):
        stock.execute(small(np.arange(17) + 1), x)
    membrane = nir.LI(*(np.full(2, value, dtype=np.float32) for value in (2 * net.DT, 1, 0)))
    with pytest.raises(
        DeployError, match=r"^population m: outputs its membrane potential, which stock LIF does not send"
    ):
        stock.execute(small([1, 2], ("e", net.linear(2 * np.eye(2))), ("m", membrane), ("y", net.out(2))), x)
    rng = np.random.default_rng(0)
    g, shape = attended(rng)
    with pytest.raises(DeployError, match=r"^projection .*: stock ProdNeuron has a fixed-point model only"):
        stock.execute(compile_graph(g, precision="float"), {"x": net.spikes(rng, 1, 4, *shape)})


@pytest.mark.parametrize("options", [{"reset": "subtract"}, {"reset": "subtract-at-once"}])
def test_a_reset_by_subtraction_is_refused(options):
    g = net.chain(("x", net.inp(2)), ("d", net.linear(np.eye(2))), ("l", net.lif(2)), ("y", net.out(2)), steps=3)
    with pytest.raises(
        DeployError, match=r"^population l: stock LIF resets to 0 and starts there; run the fused network"
    ):
        stock.execute(compile_graph(g, precision="float", **options), {"x": np.ones((1, 3, 2))})


def test_a_loop_of_two_populations_is_refused():
    nodes = {
        "x": net.inp(2), "d": net.linear(2 * np.eye(2)), "l": neurons(2, threshold=2), "there": net.linear(2 * np.eye(2)),
        "m": neurons(2, threshold=2), "back": net.linear(2 * np.eye(2)), "y": net.out(2),
    }  # fmt: skip
    edges = [("x", "d"), ("d", "l"), ("l", "there"), ("there", "m"), ("m", "back"), ("back", "l"), ("m", "y")]
    program = compile_graph(in_integers(net.graph(nodes, edges, steps=3), "l", "m"))
    with pytest.raises(DeployError, match="closes a loop over several populations, in which spikes return too late"):
        stock.execute(program, {"x": np.ones((1, 3, 2))})


def test_currents_into_a_population_of_the_chip_are_refused():
    nodes = {
        "x": net.inp(2), "d": net.linear(2 * np.eye(2)), "a": net.inp(2, analog=True), "e": net.linear(2 * np.eye(2)),
        "l": neurons(2, threshold=2), "y": net.out(2),
    }  # fmt: skip
    g = net.graph(nodes, [("x", "d"), ("a", "e"), ("d", "l"), ("e", "l"), ("l", "y")], steps=3)
    with pytest.raises(
        DeployError, match=r"^projection e: a sends currents and stock synapses take spikes; run the fused"
    ):
        stock.execute(compile_graph(g, precision="float"), {"x": np.ones((1, 3, 2)), "a": np.ones((1, 3, 2))})
