"""Every primitive agrees with its equation, written as a plain NumPy loop."""

import nir
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mksgn.export.errors import UnsupportedNodeError
from mksgn.export.graph.nodes import f32
from mksgn.export.reference.execute import execute
from mksgn.export.reference.nodes import linear as run_linear
from tests.support.graphs import DT, F32, apply_node, chain, conv, flatten, inp, lif, out, pool
from tests.support.tiers import examples

QUICK = settings(derandomize=True, deadline=None, database=None, max_examples=examples(30))
seeds = st.integers(0, 10**6)


def applied(node, x) -> np.ndarray:
    return run_linear(node, "node", torch.from_numpy(np.asarray(x, dtype=F32))).numpy()


def close(actual, expected) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@given(seeds, st.sampled_from([1, 2]), st.booleans(), st.sampled_from(["numbers", "same", "valid"]))
@QUICK
def test_convolution_in_two_dimensions(seed, groups, dilated, padding):
    rng = np.random.default_rng(seed)
    kernel, dilation = tuple(rng.choice([1, 3], 2)), tuple(rng.integers(1, 3, 2)) if dilated else (1, 1)
    pads = tuple(int(p) for p in rng.integers(0, 3, 2)) if padding == "numbers" else padding
    stride = (1, 1) if padding == "same" else tuple(int(s) for s in rng.integers(1, 3, 2))
    weight = rng.normal(size=(2 * groups, 3, *kernel))
    node = conv(weight, rng.normal(size=2 * groups), stride=stride, padding=pads, dilation=dilation, groups=groups)
    x = f32(rng.normal(size=(2, 3 * groups, 7, 6)))
    close(applied(node, x), apply_node(node, x))


@given(seeds, st.sampled_from([1, 3]), st.sampled_from([0, 1, 2, "same", "valid"]), st.integers(1, 2))
@QUICK
def test_convolution_in_one_dimension(seed, groups, padding, dilation):
    rng = np.random.default_rng(seed)
    stride = 1 if padding == "same" else int(rng.integers(1, 3))
    weight, bias = f32(rng.normal(size=(2 * groups, 2, 3))), f32(rng.normal(size=2 * groups))
    x = f32(rng.normal(size=(2, 2 * groups, 9)))
    node = nir.Conv1d(9, weight, stride, padding, dilation, groups, bias)
    pad = {"same": dilation, "valid": 0}.get(padding, padding)
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad)))
    length = (padded.shape[2] - 2 * dilation - 1) // stride + 1
    expected = np.zeros((2, 2 * groups, length))
    for o, i, c, k in np.ndindex(2 * groups, length, 2, 3):
        expected[:, o, i] += weight[o, c, k] * padded[:, o // 2 * 2 + c, i * stride + k * dilation]
    close(applied(node, x), expected + bias[:, None])


def test_numbers_as_files_bring_them():
    """A file returns NumPy scalars and arrays in place of the numbers and lists that were written."""
    rng = np.random.default_rng(0)
    plain = conv(rng.normal(size=(2, 2, 3, 3)), stride=2, padding=1)
    x = f32(rng.normal(size=(1, 2, 6, 6)))
    for two in (np.int64(2), np.array([2, 2]), np.array([2])):
        node = nir.Conv2d(None, plain.weight, two, np.array([1, 1]), np.int64(1), np.int64(1), plain.bias)
        np.testing.assert_array_equal(applied(node, x), applied(plain, x))


@given(seeds, st.sampled_from([nir.SumPool2d, nir.AvgPool2d]))
@QUICK
def test_pooling_counts_its_padding(seed, kind):
    rng = np.random.default_rng(seed)
    kernel, stride, padding = rng.integers(1, 4, 2), rng.integers(1, 3, 2), rng.integers(0, 4, 2)
    x = f32(rng.normal(size=(2, 3, 6, 5)))
    expected = apply_node(pool(kernel, stride, padding), np.asarray(x, dtype=float))
    divisor = kernel.prod() if kind is nir.AvgPool2d else 1
    close(applied(kind(kernel, stride, padding), x), expected / divisor)


@given(seeds, st.sampled_from([(), (2,), (2, 3)]), st.booleans(), st.booleans())
@QUICK
def test_dense_nodes_one_matrix_or_one_for_each_row(seed, lead, batched, biased):
    rng = np.random.default_rng(seed)
    weight = f32(rng.normal(size=(*lead, 4, 5) if batched else (4, 5)))
    bias = f32(rng.normal(size=weight.shape[:-1])) * biased
    x = f32(rng.normal(size=(3, *lead, 5)))
    expected = np.zeros((3, *lead, 4))
    for n, *place in np.ndindex(3, *lead):
        own, place = (tuple(place) if batched else ()), tuple(place)
        expected[(n, *place)] = weight[own] @ x[(n, *place)].astype(float) + bias[own]
    close(applied(nir.Affine(weight, bias) if biased else nir.Linear(weight), x), expected)


def test_scale_and_flatten():
    rng = np.random.default_rng(0)
    x = f32(rng.normal(size=(2, 3, 4, 5)))
    scale = f32(rng.normal(size=(3, 4, 5)))
    close(applied(nir.Scale(scale), x), x * scale)
    for start, end in ((0, -1), (1, 2), (0, 1), (1, -1)):
        node = flatten(3, 4, 5, start=start, end=end)
        np.testing.assert_array_equal(applied(node, x), apply_node(node, x))


def parameters(rng, names: str, *shape: int) -> dict[str, np.ndarray]:
    bounds = {"tau": (1.2 * DT, 9 * DT), "tau_mem": (1.2 * DT, 9 * DT), "tau_syn": (DT, 6 * DT), "r": (0.5, 2), "w_in": (0.5, 2),
              "v_leak": (-0.3, 0.3), "v_threshold": (0.2, 0.6), "v_reset": (-0.2, 0.1)}  # fmt: skip
    return {name: f32(rng.uniform(*bounds[name], shape)) for name in names.split()}


NEURONS = {
    nir.LIF: "tau r v_leak v_threshold v_reset",
    nir.LI: "tau r v_leak",
    nir.IF: "r v_threshold v_reset",
    nir.I: "r",
    nir.CubaLIF: "tau_syn tau_mem r v_leak v_threshold v_reset w_in",
    nir.CubaLI: "tau_syn tau_mem r v_leak w_in",
}


@pytest.mark.parametrize("kind", NEURONS, ids=lambda kind: kind.__name__)
@given(seed=seeds)
@QUICK
def test_neurons_by_their_equations(kind, seed):
    """The equations in float32, with parameters per neuron; all state starts at 0."""
    rng = np.random.default_rng(seed)
    p = parameters(rng, NEURONS[kind], 2, 3)
    if_dt = 0.5
    x = f32(rng.normal(size=(4, 8, 2, 3)))
    run = execute(chain(("x", inp(2, 3)), ("n", kind(**p)), ("y", out(2, 3))), x, 8, DT, stepwise=True, if_dt=if_dt)
    u = v = np.zeros((4, 2, 3), dtype=F32)
    fired = 0.0
    for t in range(8):
        current = x[:, t]
        if "tau_syn" in p:
            u = current = u + F32(DT) / p["tau_syn"] * (-u + p["w_in"] * current)
        if "v_leak" in p:
            v = v + F32(DT) / p["tau_mem" if "tau_syn" in p else "tau"] * ((p["v_leak"] - v) + p["r"] * current)
        else:
            v = v + F32(if_dt) * p["r"] * current
        if "v_threshold" not in p:
            np.testing.assert_allclose(run.outputs["y"][t], v, rtol=1e-5, atol=1e-6)
            continue
        s = v > p["v_threshold"]
        np.testing.assert_array_equal(run.spikes["n"][t], s)
        np.testing.assert_array_equal(run.outputs["y"][t], s)
        v = np.where(s, p["v_reset"], v)
        fired += s.mean() / 8
    assert "v_threshold" not in p or 0 < fired < 1


def test_if_integrates_with_dt_unless_told():
    g = chain(("x", inp(1)), ("n", nir.I(f32([3.0]))), ("y", out(1)))
    assert execute(g, f32([[1]]), 2, 0.25).outputs["y"].ravel().tolist() == [0.75, 1.5]
    assert execute(g, f32([[1]]), 2, 0.25, if_dt=1.0).outputs["y"].ravel().tolist() == [3.0, 6.0]


def test_a_clip_starts_at_0_and_not_at_rest():
    g = chain(("x", inp(1)), ("n", lif(1, leak=0.8, threshold=0.72, reset=0.0)), ("y", out(1)))
    assert execute(g, f32([[0]]), 5, DT).spikes["n"].ravel().tolist() == [False, False, False, True, False]


def test_threshold_is_strict_and_has_no_memory():
    g = chain(("x", inp(3)), ("n", nir.Threshold(f32([0.5, 0.5, 0.2]))), ("y", out(3)))
    run = execute(g, f32([[[0.5, 0.6, 0.3], [0.4, 0.5, 0.3]]]), 2, DT, stepwise=True)
    assert run.outputs["y"][:, 0].tolist() == [[0, 1, 1], [0, 0, 1]]
    assert run.spikes["n"].dtype == bool


@given(seeds)
@QUICK
def test_delays_element_by_element(seed):
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 6, (2, 2))
    x = f32(rng.normal(size=(3, 5, 2, 2)))
    run = execute(chain(("x", inp(2, 2)), ("d", nir.Delay(f32(steps * DT))), ("y", out(2, 2))), x, 5, DT, stepwise=True)
    for t, (i, j) in ((t, p) for t in range(5) for p in np.ndindex(2, 2)):
        late = t - steps[i, j]
        np.testing.assert_array_equal(run.outputs["y"][t, :, i, j], x[:, late, i, j] if late >= 0 else np.zeros(3))


@pytest.mark.parametrize("delay", [1.5 * DT, -DT, np.nan, 1.0001 * DT])
def test_delays_of_no_whole_step_are_refused(delay):
    g = chain(("x", inp(1)), ("late", nir.Delay(f32([delay]))), ("y", out(1)))
    with pytest.raises(
        UnsupportedNodeError, match=r"node late: a delay of .* s is not a whole number of steps of 0\.0001 s"
    ):
        execute(g, f32([[1]]), 2, DT)
