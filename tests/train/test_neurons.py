"""The neuron against its equation, and against the four other implementations that it must agree
with."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mksgn.deploy.program.neurons import FixedNeuron, FloatNeuron, prepare
from mksgn.train.neurons import LIF, SURROGATE_SLOPE, lif, lif_step
from tests.support.tiers import examples

S, N = 12, 300
SUB_UNITS = 64


def loop(x: np.ndarray, tau: float, threshold: float) -> np.ndarray:
    """PAPER.md's three lines, neuron by neuron."""
    spikes = np.zeros_like(x)
    for n in range(x.shape[1]):
        v = 0.0
        for t in range(x.shape[0]):
            h = v + (x[t, n] - v) / tau
            spikes[t, n] = h >= threshold
            v = 0.0 if spikes[t, n] else h
    return spikes


def lattice_currents(steps: int, clips: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Even integer sums, integer biases, integer thresholds: what a quantised population sees, clip
    after clip of 4 steps."""
    rng = np.random.default_rng(seed)
    sums = 2 * rng.integers(-400, 500, (clips * steps, N))
    return sums, rng.integers(-60, 60, N), rng.integers(1, 900, N)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2.0, 4.0, 8.0]), st.sampled_from([0.5, 1.0]))
@settings(max_examples=examples(20), deadline=None)
def test_sequence_equals_the_equation_and_the_single_step(seed, tau, threshold):
    x = np.random.default_rng(seed).integers(-32, 96, (S, 37)) / 32.0
    found = lif(torch.tensor(x, dtype=torch.float64), tau, torch.tensor(threshold)).numpy()
    v, steps = torch.zeros(37, dtype=torch.float64), []
    for t in range(S):
        s, v = lif_step(torch.tensor(x[t]), v, tau, threshold)
        steps.append(s.numpy())
    np.testing.assert_array_equal(found, np.stack(steps))
    np.testing.assert_array_equal(found, loop(x, tau, threshold))  # exact in binary, ties included


def test_a_constant_input_of_one_never_fires_and_two_always_does():
    """PAPER.md, trap 1: 0.5, 0.75, 0.875, 0.9375 never reach 1; and the comparison is >=."""
    x = torch.ones(4, 1)
    assert lif(x, 2.0, torch.tensor(1.0)).sum() == 0
    assert lif(2 * x, 2.0, torch.tensor(1.0)).sum() == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # the compiled loops, and torch's
@pytest.mark.parametrize("per_neuron", [False, True])
def test_a_neuron_in_other_units_has_the_same_spikes_and_gradient(dtype, per_neuron):
    """Currents and threshold c times as large, and a slope of 1/c."""
    torch.manual_seed(0)
    x = (torch.randn(6, 2, 3, 5) * 2).to(dtype).requires_grad_()
    c = torch.full((5,), 0.37) if per_neuron else torch.tensor(0.37)
    weight, grads = torch.randn(6, 2, 3, 5), []
    for factor, slope in ((torch.ones(()), SURROGATE_SLOPE), (c, SURROGATE_SLOPE / c)):
        spikes = lif(x * factor, 2.0, factor * torch.ones(()), slope if per_neuron else float(slope))
        grads.append((spikes, *torch.autograd.grad((spikes * weight).sum(), x)))
    assert torch.equal(grads[0][0], grads[1][0])
    torch.testing.assert_close(grads[0][1], grads[1][1], rtol=1e-4, atol=1e-6)
    assert grads[0][0].any()


@pytest.mark.parametrize("shape", [(4, 3, 5), (4, 70_000)])
def test_a_threshold_per_neuron_and_populations_longer_than_a_chunk(shape):
    torch.manual_seed(0)
    x = torch.randint(-32, 96, shape) / 32.0
    per_neuron = torch.ones(shape[1:])
    torch.testing.assert_close(lif(x, 2.0, per_neuron), lif(x, 2.0, torch.tensor(1.0)), rtol=0, atol=0)
    mixed = torch.linspace(0.2, 1.5, shape[-1])
    one_by_one = torch.stack([lif(x[..., i], 2.0, mixed[i]) for i in range(3)], -1)
    torch.testing.assert_close(lif(x, 2.0, mixed)[..., :3], one_by_one, rtol=0, atol=0)


def test_the_gradient_is_that_of_the_surrogate():
    """Against autograd through the plain loop, with the step replaced by sigmoid(4 x) in the
    backward pass only."""
    torch.manual_seed(1)
    x = torch.randn(6, 50, dtype=torch.float64) * 2
    weight = torch.randn(6, 50, dtype=torch.float64)

    def surrogate_loop(x):
        v, out = torch.zeros(50, dtype=torch.float64), []
        for t in range(6):
            h = v + (x[t] - v) / 2
            smooth = torch.sigmoid(SURROGATE_SLOPE * (h - 1))
            s = (h >= 1).double() + smooth - smooth.detach()
            out.append(s)
            v = h * (1 - s)
        return torch.stack(out)

    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    (lif(a, 2.0, torch.tensor(1.0)) * weight).sum().backward()
    (surrogate_loop(b) * weight).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_spikingjelly_lif_node_agrees():
    neuron = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="SpikingJelly 0.0.0.0.14 runs on Python 3.10 only"
    )
    torch.manual_seed(0)
    x = torch.randn(4, 200_000) * 1.5
    theirs = neuron.LIFNode(tau=2.0, v_threshold=1.0, v_reset=0.0, step_mode="m")(x)
    ours = LIF()(x)
    assert int((theirs != ours).sum()) == 0
    assert 0.05 < float(ours.mean()) < 0.5


def test_slayer_cuba_neuron_agrees_on_the_lattice():
    """lava-dl's SLAYER neuron, current without memory, voltage decay 1/2: its quantised states are
    integers of 1/64 unit."""
    cuba = pytest.importorskip("lava.lib.dl.slayer.neuron.cuba", reason="lava-dl needs Python 3.10")
    scale = 1 << 6
    neuron = cuba.Neuron(threshold=1.0, current_decay=1.0, voltage_decay=0.5, scale=scale, shared_param=True)
    # one step of the loop below at a time, without the bias; SLAYER fires at >=, so ties must not
    # occur: odd sixty-fourths
    rng = np.random.default_rng(0)
    x = torch.tensor((rng.integers(-128, 384, (1, 400, 4)) * 8 + 4) / 8.0 / scale, dtype=torch.float32)
    theirs = neuron(x.clone())
    # SLAYER integrates v ← v/2 + x against its threshold; in our terms the current is twice that
    ours = lif(2 * x.permute(2, 0, 1), 2.0, torch.tensor(1.0)).permute(1, 2, 0)
    assert float(ours.mean()) > 0.2
    assert int((theirs != ours).sum()) == 0


def run_stock_lif(sums: np.ndarray, precision: str, **parameters) -> np.ndarray:
    """Spikes (time steps, N) of Lava's own LIFReset, fed by its own RingBuffer, under the guard;
    reset every 4 steps."""
    pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    from mksgn.deploy.lava.guard.runtime import GuardedRuntime

    # After the guard, whose import patches Lava.
    # isort: split
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIFReset

    source = Source(data=sums.T)
    neurons = LIFReset(shape=(sums.shape[1],), reset_interval=4, reset_offset=1, **parameters)
    sink = Sink(shape=(sums.shape[1],), buffer=len(sums))
    source.s_out.connect(neurons.a_in)
    neurons.s_out.connect(sink.a_in)
    config = Loihi2SimCfg(select_tag="fixed_pt" if precision == "fixed" else "floating_pt")
    with GuardedRuntime(neurons, config) as runtime:
        runtime.run(len(sums))
        return sink.data.get().T.astype(bool)


def clip_by_clip(step, start, sums: np.ndarray) -> np.ndarray:
    out = []
    for t, current in enumerate(torch.from_numpy(sums.astype(np.float32))):
        if t % 4 == 0:
            v = start(current)
        s, v, _ = step(current, v)
        out.append(s.numpy())
    return np.stack(out)


@pytest.mark.parametrize("vth", [3, 150])
def test_lavas_stock_lif_in_fixed_point_agrees(vth):
    """The float32 neuron with a half-lattice threshold, our integer step, and real Lava: 0
    differing decisions."""
    sums, bias, _ = lattice_currents(steps=4, clips=25, seed=vth)
    fixed = prepare(FixedNeuron(dv=2048, vth=np.array([vth]), bias_mant=bias, bias_exp=6))
    ours = clip_by_clip(fixed.step, fixed.start, sums)
    lava = run_stock_lif(sums, "fixed", du=4095, dv=2048, vth=vth, bias_mant=bias, bias_exp=6)
    assert int((ours != lava).sum()) == 0
    unit = 2.0**-9
    x = torch.tensor((sums + bias) * unit, dtype=torch.float32).view(25, 4, N).transpose(0, 1)
    threshold = torch.tensor((vth + 0.5 / SUB_UNITS) * unit / 2, dtype=torch.float32)
    torch_spikes = lif(x, 2.0, threshold).transpose(0, 1).reshape(100, N).numpy().astype(bool)
    assert int((torch_spikes != lava).sum()) == 0
    assert 0.02 < lava.mean() < 0.98


def test_lavas_stock_lif_in_floating_point_agrees():
    """In Lava's terms: du = 1, dv = 1/tau, threshold doubled."""
    sums, bias, _ = lattice_currents(steps=4, clips=25, seed=9)
    unit = 2.0**-9
    threshold = (150 + 0.5 / SUB_UNITS) * unit
    neuron = prepare(FloatNeuron(0.5, np.array([threshold], dtype=np.float32), (bias * unit).astype(np.float32)))
    ours = clip_by_clip(neuron.step, neuron.start, sums * unit)
    lava = run_stock_lif(sums * unit, "float", du=1.0, dv=0.5, vth=threshold, bias_mant=bias * unit)
    assert int((ours != lava).sum()) == 0
    assert 0.02 < lava.mean() < 0.98
