"""Graphs as other frameworks write them: the spikes are those of NIR's equations, in both precisions and executions.

`tests/data/foreign` holds files of nir until 1.0.4 and of rockpool, with the right output of one input. Around each
kind, graphs of the same structure that their authors' other exports have.
"""

import itertools
import warnings

import h5py
import nir
import numpy as np
import pytest
import torch

from mksgn.common.errors import MksgnWarning
from mksgn.deploy import compile_graph, run
from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.onnx import file as onnx_file
from mksgn.export.reference.execute import execute
from tests.support.paths import DATA
from tests.support.tiers import one_in

F32, FOREIGN = np.float32, DATA / "foreign"
X, EXPECTED = np.load(FOREIGN / "x.npy"), np.load(FOREIGN / "expected.npy")
STEPS = X.shape[1]
DT = 1e-4
# Seeds here and below are such that rounding to 8 bits changes no decision.
RNG = np.random.default_rng(0)
W1, W2 = (2 * RNG.normal(size=(8, 6))).astype(F32), (2 * RNG.normal(size=(4, 8))).astype(F32)


def spiking(currents: np.ndarray, rate: float = 0.1, gain: float = 10.0, threshold: np.ndarray | float = 1.0):
    """LIF by forward Euler in float64: currents (samples, steps, …) → spikes."""
    v, out = np.zeros(currents[:, 0].shape), []
    for x in np.moveaxis(currents, 1, 0):
        v = v + rate * (gain * x - v)
        spikes = v > threshold
        v = np.where(spikes, 0, v)
        out.append(spikes)
    return np.stack(out, 1).astype(F32)


def two_layers(threshold: np.ndarray | float = 1.0) -> np.ndarray:
    """Spikes of the second of two LIF layers."""
    return spiking(spiking(X @ W1.T, threshold=threshold) @ W2.T)


def lif(**shapes: tuple[int, ...]) -> nir.LIF:
    """A LIF of tau 1 ms and r 10; each parameter in its shape, which nir's constructor would refuse to mix."""
    values = {"tau": 1e-3, "r": 10.0, "v_leak": 0.0, "v_threshold": 1.0, "v_reset": 0.0}
    node = nir.LIF(**{name: np.full((), value, F32) for name, value in values.items()})
    for name, value in values.items():
        setattr(node, name, np.full(shapes.get(name, ()), value, F32))
    return node


def chain(shape: tuple[int, ...], *nodes: nir.NIRNode, output: tuple[int, ...] = (4,)) -> nir.NIRGraph:
    """Input of that shape, the nodes, Output; without nir's type check, as these frameworks write them."""
    names = {f"n{i}": node for i, node in enumerate(nodes)}
    path = ["input", *names, "output"]
    ends = {"input": nir.Input({"input": np.array(shape)}), "output": nir.Output({"output": np.array(output)})}
    return nir.NIRGraph(ends | names, list(itertools.pairwise(path)), type_check=False)


def same_everywhere(graph, expected: np.ndarray, x: np.ndarray = X, dt: float = DT) -> None:
    """Assert that the Output's spikes are these in float and fixed, in the emulator and, if it is there, in Lava."""
    assert 0.02 < expected.mean() < 0.98
    backends = ["emulator"]
    try:
        import lava  # noqa: F401

        backends.append("lava")
    except ImportError:
        pass
    for precision in ("float", "fixed"):
        program = compile_graph(graph, precision=precision, dt=dt, calibration=x if precision == "fixed" else None)
        for backend in backends:
            (out,) = run(program, x, backend=backend).outputs.values()
            assert int((out != expected).sum()) == 0, (precision, backend)


@pytest.mark.filterwarnings("ignore::mksgn.common.errors.MksgnWarning")
@pytest.mark.parametrize("name", ["batch_axis", "rank0", "one"])
def test_files_with_one_number_per_population_or_a_batch_axis(name):
    same_everywhere(FOREIGN / f"{name}.nir", EXPECTED)


MIXED = {
    "one number each": {},
    "a threshold per neuron": {"v_threshold": (8,)},
    "(1,) and ()": {"tau": (1,), "r": (1,)},
    "a batch axis in the parameters": dict.fromkeys(("tau", "r", "v_leak", "v_threshold", "v_reset"), (1, 8)),
}


@pytest.mark.parametrize("shapes", one_in(3, list(MIXED.values())), ids=MIXED)
def test_parameters_broadcast_to_their_signal(shapes):
    graph = chain((6,), nir.Linear(W1), lif(**shapes), nir.Linear(W2), lif())
    same_everywhere(graph, two_layers())
    reference = execute(graph, X, STEPS, DT, stepwise=True)
    np.testing.assert_array_equal(reference.outputs["output"].swapaxes(0, 1), two_layers())


def test_mixed_ranks_in_a_file(tmp_path):
    full = lif(**dict.fromkeys(("tau", "r", "v_leak", "v_threshold", "v_reset"), (4,)))
    graph = chain((6,), nir.Linear(W2[:, :6]), full)
    nir.write(tmp_path / "mixed.nir", graph)
    with h5py.File(tmp_path / "mixed.nir", "r+") as file:
        node = file["node/nodes/n1"]
        for name, value in {"tau": F32(1e-3), "r": np.full(1, 10, F32)}.items():
            del node[name]
            node[name] = value
        del node["v_reset"]  # as nir before 1.0.5
    same_everywhere(tmp_path / "mixed.nir", spiking(X @ W2[:, :6].T))


def test_scale_threshold_and_delay_of_one_number():
    late = chain((6,), nir.Delay(np.array(DT, F32)), nir.Linear(W2[:, :6]), nir.Scale(np.array(0.5, F32)), lif())
    expected = spiking(np.concatenate([np.zeros_like(X[:, :1]), X[:, :-1]], 1) @ W2[:, :6].T * 0.5)
    same_everywhere(late, expected)
    fires = chain((6,), nir.Linear(W2[:, :6]), nir.Threshold(np.array([1.0], F32)))
    (out,) = run(compile_graph(fires, precision="float"), X).outputs.values()
    np.testing.assert_array_equal(out, X @ W2[:, :6].T > 1)


@pytest.mark.parametrize("shape", [(), pytest.param((1,), marks=pytest.mark.slow), (1, 4)])
def test_a_bias_of_one_number(shape):
    expected = spiking(X @ W2[:, :6].T + 0.25)
    same_everywhere(chain((6,), nir.Affine(W2[:, :6], np.full(shape, 0.25, F32)), lif()), expected)
    conv = nir.Conv1d(None, W2[:, :1, None], 1, 0, 1, 1, np.full(shape, 0.25, F32))
    graph = chain((1, 6), conv, lif(), output=(4, 6))
    same_everywhere(graph, spiking(np.einsum("ntx,c->ntcx", X, W2[:, 0]) + 0.25), X[:, :, None])


LEADING = {
    "batch": ((1, 6), (1, 1, 4)),
    "time, as sinabs": ((5, 6), (5, 4)),
    "batch and time, as rockpool": ((1, 5, 6), (1, 5, 4)),
}


@pytest.mark.parametrize("full", one_in(2, [True, False]), ids=["full parameters", "one number"])
@pytest.mark.parametrize(("shape", "output"), one_in(2, list(LEADING.values())), ids=LEADING)
def test_leading_axes_of_an_input_are_dropped_and_it_is_said_once(shape, output, full):
    names = ("tau", "r", "v_leak", "v_threshold", "v_reset") if full else ()
    layers = (nir.Linear(W1), lif(**dict.fromkeys(names, (8,))), nir.Linear(W2), lif(**dict.fromkeys(names, (4,))))
    graph = chain(shape, *layers, output=output)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        program = compile_graph(graph, precision="fixed", calibration=X)
    (warning,) = [w for w in said if w.category is MksgnWarning]
    assert f"input input: its shape {shape} begins with batch or time axes" in str(warning.message)
    assert program["input"].shape == (6,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MksgnWarning)
        same_everywhere(graph, two_layers())


@pytest.mark.filterwarnings("ignore::mksgn.common.errors.MksgnWarning")
def test_a_batch_axis_before_a_convolution():
    rng = np.random.default_rng(2)
    x = (rng.random((2, 12, 2, 5, 5)) < 0.4).astype(F32)
    weight = rng.normal(size=(3, 2, 3, 3)).astype(F32)
    graph = chain((1, 2, 5, 5), nir.Conv2d(None, weight, 1, 0, 1, 1, np.zeros(3, F32)), lif(), output=(1, 3, 3, 3))
    current = torch.nn.functional.conv2d(torch.tensor(x).flatten(0, 1), torch.tensor(weight)).unflatten(0, (2, 12))
    same_everywhere(graph, spiking(current.double().numpy()), x)


@pytest.mark.parametrize("shape", [(1, 6), (3, 6)])
def test_axes_that_the_neurons_have_too_are_no_batch(shape):
    names = ("tau", "r", "v_leak", "v_threshold", "v_reset")
    graph = chain(shape, nir.Linear(W2[:, :6]), lif(**dict.fromkeys(names, (*shape[:-1], 4))), output=(*shape[:-1], 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error", MksgnWarning)
        assert compile_graph(graph, precision="float")["n1"].shape == (*shape[:-1], 4)


def tensors(node: nir.NIRNode, convert) -> nir.NIRNode:
    for name, value in vars(node).items():
        if isinstance(value, np.ndarray):
            setattr(node, name, convert(value))
    return node


@pytest.mark.parametrize(
    "convert",
    one_in(
        4,
        [
            torch.tensor,
            lambda x: torch.nn.Parameter(torch.tensor(x)),
            lambda x: torch.tensor(x, dtype=torch.float64),
            lambda x: torch.tensor(np.repeat(x, 2, -1) if x.ndim else x)[..., ::2] if x.ndim else torch.tensor(x),
        ],
    ),
    ids=["tensors", "parameters", "float64", "strided views"],
)
def test_tensors_in_a_graph_in_memory(convert):
    nodes = (nir.Affine(W1, np.zeros(8, F32)), lif(), nir.Affine(W2, np.zeros(4, F32)), lif(v_threshold=(4,)))
    same_everywhere(chain((6,), *(tensors(node, convert) for node in nodes)), two_layers())


def test_tensors_in_a_convolution_without_bias():
    x = (np.random.default_rng(4).random((2, 12, 2, 5, 5)) < 0.4).astype(F32)
    weight = torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(4))
    conv = nir.Conv2d(None, weight, (1, 1), (0, 0), (1, 1), 1, torch.zeros(3))
    conv.bias = None  # as spyx
    current = torch.nn.functional.conv2d(torch.tensor(x).flatten(0, 1), weight).unflatten(0, (2, 12))
    same_everywhere(chain((2, 5, 5), conv, lif(), output=(3, 3, 3)), spiking(current.double().numpy()), x)


def test_onnx_takes_them_too():
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'mksgn[onnx]'")
    x = X[:, 0]
    layers = (tensors(nir.Linear(W1), torch.tensor), lif(), nir.Linear(W2), lif(v_threshold=(1,)))
    model = onnx_file.from_nir(chain((6,), *layers), steps=STEPS, dt=DT)
    reference = execute(chain((6,), *layers), x, STEPS, DT)
    _, outputs = onnx_file.execute(model, x)
    np.testing.assert_array_equal(outputs["output"], reference.outputs["output"].swapaxes(0, 1))
    assert reference.outputs["output"].any()


@pytest.mark.parametrize("precision", ["float", "fixed"])
@pytest.mark.parametrize("tau", ["tau", "tau_mem", "tau_syn"])
def test_an_infinite_time_constant_is_refused_with_what_to_write(tau, precision):
    node = lif() if tau == "tau" else nir.CubaLIF(*(np.full(8, value, F32) for value in (1e-3, 1e-3, 10, 0, 1)))
    setattr(node, tau, np.full((8,), np.inf, F32))
    remedy = "give it a finite time constant" if tau == "tau_syn" else "it is NIR's IF: write it as one, with r = 1/dt"
    with pytest.raises(UnsupportedNodeError, match=rf"node n1: {tau} is infinite; .*{remedy}"):
        compile_graph(chain((6,), nir.Linear(W1), node, output=(8,)), precision=precision, calibration=X)


def recurrent(nested: bool) -> nir.NIRGraph:
    """A recurrent layer, nested as in snnTorch until 0.9 and in the NIR paper, or flat as in snnTorch 1.0."""
    back = nir.Linear((np.random.default_rng(1).integers(-4, 5, (8, 8)) / 4).astype(F32))
    ends = {"input": nir.Input(np.array([8])), "output": nir.Output(np.array([8]))}
    loop = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]
    layer: dict[str, nir.NIRNode] = {"1": nir.NIRGraph({**ends, "lif": lif(), "w_rec": back}, loop, type_check=False)}
    edges = [("input", "0"), ("0", "1"), ("1", "2"), ("2", "3"), ("3", "output")]
    if not nested:
        layer = {"1.lif": lif(), "1.w_rec": back}
        edges = [("input", "0"), ("0", "1.lif"), ("1.lif", "1.w_rec"), ("1.w_rec", "1.lif")]
        edges += [("1.lif", "2"), ("2", "3"), ("3", "output")]
    ends = {"input": nir.Input(np.array([1, 6])), "output": nir.Output(np.array([1, 4]))}
    nodes = {**ends, "0": nir.Linear(W1), **layer, "2": nir.Linear(W2), "3": lif()}
    return nir.NIRGraph(nodes, edges, type_check=False)


@pytest.mark.filterwarnings("ignore::mksgn.common.errors.MksgnWarning")
@pytest.mark.parametrize("nested", one_in(2, [True, False]))
def test_recurrence_flat_and_nested_with_one_number_and_a_batch_axis(nested):
    graph = recurrent(nested)
    back = (graph.nodes["1"].nodes["w_rec"] if nested else graph.nodes["1.w_rec"]).weight
    v, s, hidden = np.zeros((len(X), 8)), np.zeros((len(X), 8)), []
    for x in X.swapaxes(0, 1):
        v = v + 0.1 * (10 * (x @ W1.T + s @ back.T) - v)
        s = (v > 1).astype(float)
        v[v > 1] = 0
        hidden.append(s)
    same_everywhere(graph, spiking(np.stack(hidden, 1) @ W2.T))
