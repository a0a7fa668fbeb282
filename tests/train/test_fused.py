"""The fused neuron against the separate modules in torch: spikes, gradients, running statistics,
threads and forked processes."""

import copy
import os
import signal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from mksgn.train import fused
from mksgn.train.neurons import LIF, SURROGATE_SLOPE, Current, lif, lif_step, summed
from tests.support.tiers import examples


def surrogate_lif(x, tau, threshold):
    """The plain definition for autograd: a step in the forward pass, sigmoid(4 x) in the backward."""
    v, spikes = torch.zeros_like(x[0]), []
    for current in x:
        h = v + (current - v) / tau
        smooth = torch.sigmoid(SURROGATE_SLOPE * (h - threshold))
        s = (h >= threshold).to(x.dtype) + smooth - smooth.detach()
        spikes.append(s)
        v = h * (1 - s)
    return torch.stack(spikes)


def norm_of(channels, generator, training):
    norm = nn.BatchNorm2d(channels)
    with torch.no_grad():
        norm.weight.uniform_(-1.5, 1.5, generator=generator)
        norm.bias.uniform_(0.0, 1.0, generator=generator)
        norm.running_mean.normal_(0.0, 0.3, generator=generator)
        norm.running_var.uniform_(0.3, 2.0, generator=generator)
    return norm.train(training)


def branches_of(draw_shape, branches, training, seed, constant=False):
    steps, bodies, channels, frames, joints = draw_shape
    generator = torch.Generator().manual_seed(seed)
    currents = []
    for _ in range(branches):
        y = torch.randn(1 if constant else steps, bodies, channels, frames, joints, generator=generator) * 1.3 + 0.4
        currents.append(Current(y, steps, norm=norm_of(channels, generator, training)))
    return currents, generator


def gain_of(current):
    """The largest factor by which the norm scales a channel."""
    norm = current.norm
    var = current.y.detach().var((0, 1, 3, 4), unbiased=False) if norm.training else norm.running_var
    return float((norm.weight / torch.sqrt(var + norm.eps)).abs().max())


shapes = st.tuples(st.integers(1, 8), st.integers(1, 3), st.integers(1, 5), st.integers(2, 9), st.integers(1, 30))


@given(shapes, st.sampled_from([1, 2]), st.sampled_from([1.5, 2.0, 4.0]), st.integers(0, 2**31))
@settings(max_examples=examples(40), deadline=None)
def test_spikes_at_inference_are_those_of_the_separate_modules(shape, branches, tau, seed):
    currents, _ = branches_of(shape, branches, False, seed)
    with torch.no_grad():
        x = summed(currents)
        v, expected = torch.zeros_like(x[0]), []
        for current in x:
            s, v = lif_step(current, v, tau, 1.0)
            expected.append(s)
        assert torch.equal(LIF(tau)(*currents), torch.stack(expected))


def rate_lif(tau, steps):
    """A neuron that outputs its mean rate under a constant current."""
    neuron = LIF(tau)
    neuron.rate_steps = steps
    return neuron


@given(shapes, st.sampled_from([1, 2]), st.sampled_from([1.5, 2.0, 4.0]), st.integers(0, 2**31))
@settings(max_examples=examples(40), deadline=None)
def test_rates_are_the_means_of_the_spikes_of_constant_currents(shape, branches, tau, seed):
    currents, _ = branches_of(shape, branches, False, seed, constant=True)
    with torch.no_grad():
        torch.testing.assert_close(rate_lif(tau, shape[0])(*currents), LIF(tau)(*currents).mean(0, keepdim=True))


@given(
    shapes, st.sampled_from([1, 2]), st.booleans(), st.booleans(), st.sampled_from([2.0, 3.0]), st.integers(0, 2**31)
)
@settings(max_examples=examples(40), deadline=None)
def test_gradients_and_running_statistics_are_those_of_autograd_in_float64(shape, branches, training, rates, tau, seed):
    currents, generator = branches_of(shape, branches, training, seed, constant=rates)
    exact = [Current(c.y.double(), c.steps, norm=copy.deepcopy(c.norm).double()) for c in currents]
    for current in (*currents, *exact):
        current.y.requires_grad_()
    x = summed(exact)
    x.retain_grad()
    expected = surrogate_lif(x, tau, 1.0)
    # a membrane within float32's rounding of the threshold: another function's gradient
    with torch.no_grad():
        assume(torch.equal(LIF(tau)(*copy.deepcopy(currents)).double(), expected.detach().round()))
    neuron = rate_lif(tau, shape[0]) if rates else LIF(tau)
    spikes, expected = neuron(*currents), expected.mean(0, keepdim=True) if rates else expected
    weight = torch.randn(spikes.shape, generator=generator)
    (spikes * weight).sum().backward()
    (expected * weight).sum().backward()
    for current, reference in zip(currents, exact, strict=True):
        # batch statistics subtract terms of this size from each other: of two elements almost nothing is left
        scale = max(float(x.grad.abs().max()) * gain_of(reference), 1e-3)
        torch.testing.assert_close(current.y.grad.double(), reference.y.grad, rtol=1e-5, atol=1e-5 * scale)
        for name, parameter in current.norm.named_parameters():
            grad = dict(reference.norm.named_parameters())[name].grad
            # a sum of terms that cancel: relative to their number
            torch.testing.assert_close(
                parameter.grad.double(), grad, rtol=1e-5, atol=1e-5 * spikes[:, :, 0].numel() ** 0.5
            )
        for name, buffer in current.norm.named_buffers():
            torch.testing.assert_close(
                buffer.double(), dict(reference.norm.named_buffers())[name].double(), rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("gain", [False, True])
def test_one_current_for_all_steps_and_a_gain(steps, gain):
    generator = torch.Generator().manual_seed(steps)
    y = (torch.randn(1, 2, 3, 4, 5, generator=generator) + 1).requires_grad_()
    g = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    current = Current(y, steps, gain=g if gain else None)
    weight = torch.randn(steps, 2, 3, 4, 5, generator=generator)
    leaves = [y, g] if gain else [y]
    actual = torch.autograd.grad((LIF()(current) * weight).sum(), leaves)
    expected = torch.autograd.grad((surrogate_lif(current.value(), 2.0, 1.0) * weight).sum(), leaves)
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", ["contiguous", "channels last", "transposed", "expanded"])
def test_strides_dtypes_and_thresholds_of_plain_currents(dtype, form):
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(4, 3, 6, 5, 7, generator=generator) + 0.5).to(dtype)
    if form == "channels last":
        x = x.movedim(2, -1).contiguous().movedim(-1, 2)
    elif form == "transposed":
        x = x.transpose(1, 4)
    elif form == "expanded":
        x = x[:1].expand(4, -1, -1, -1, -1)
    integrated = x.float() if dtype == torch.bfloat16 else x
    per_neuron = torch.linspace(0.3, 1.5, x[0].numel()).view(x[0].shape).to(integrated.dtype)
    for threshold in (torch.tensor(0.8), torch.tensor([[0.8]]), per_neuron):
        assert torch.equal(lif(x, 2.0, threshold), surrogate_lif(integrated, 2.0, threshold).round())


def test_a_traced_graph_consists_of_torch_operations():
    x = torch.randn(4, 2, 3, 4, 5)
    compiled = torch.compile(LIF(), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), LIF()(x))


def test_the_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr(fused, "PARALLEL_FROM", 1)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        currents, _ = branches_of((4, 3, 5, 8, 25), 2, True, 7)
        for current in currents:
            current.y.requires_grad_()
        spikes = LIF()(*currents)
        spikes.square().sum().backward()
        results.append([spikes, *(t for c in currents for t in (c.y.grad, c.norm.weight.grad, c.norm.running_var))])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_forked_after_the_pool_was_made_does_not_hang(monkeypatch):
    monkeypatch.setattr(fused, "PARALLEL_FROM", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    x = torch.randn(4, 2, 3, 4, 5)
    expected = LIF()(x)
    assert fused._pool is not None
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # kills a child that hangs
        os._exit(0 if fused._pool is None and torch.equal(LIF()(x), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
