"""The neuron and the batch norms before it, fused on the CPU: one forward and one backward pass over
a population's currents, by the compiled loops of `kernels`.

The batch norms' statistics are summed in float64, then rounded to float32 as torch's are. At
inference the coefficients are torch's own and the loops round as torch does, so that spikes are those
of the separate modules; in training they agree within float32's rounding.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PARALLEL_FROM = 1 << 16  # elements: below, waking threads costs more than it saves

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """Drop the parent's pool in a forked process: its threads do not exist there."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)


def run(kernel: Callable[..., None], size: int, length: int, *arguments: Any) -> None:
    """Run a kernel over slices of `length`, on as many threads as torch uses; `size` is the total number
    of elements."""
    global _pool
    threads = torch.get_num_threads() if size >= PARALLEL_FROM else 1
    if threads == 1:
        kernel(*arguments, 0, length)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="mksgn-kernel")
    share = -(-length // threads)
    slices = [(i, min(i + share, length)) for i in range(0, length, share)]
    for done in [_pool.submit(kernel, *arguments, *part) for part in slices]:
        done.result()


def _rows(x: Tensor) -> Tensor:
    """View (S, L, C, ...) as (S, L, R), copied if it is not contiguous."""
    return x.contiguous().flatten(2)


def _expand(values: Tensor, length: int) -> Tensor:
    """Repeat values (C,) for the elements of their channels: (R,) float32."""
    return values.float().repeat_interleave(length // len(values))


def _by_channel(sums: Tensor, channels: int) -> Tensor:
    """Sum (k, R) over the elements of a channel: (k, C)."""
    return sums.view(len(sums), channels, -1).sum(2)


class Affine(NamedTuple):
    """A branch's current per channel, weight (y - mean) inverse_std + bias, each (C,).

    `gain` and `shift` give the same as gain y + shift; `samples` is the number of elements of a
    channel that mean and inverse_std were computed from, 0 where they are constants.
    """

    gain: Tensor
    shift: Tensor
    mean: Tensor
    inverse_std: Tensor
    samples: int = 0


def scaled(gain: Tensor) -> Affine:
    """Make the affine of a gain per channel."""
    gain = gain.detach()
    zero = torch.zeros_like(gain)
    return Affine(gain, zero, zero, torch.ones_like(gain))


@torch.no_grad()
def normalised(y: Tensor, norm: nn.BatchNorm2d) -> Affine:
    """Make the affine of a batch norm, whose running statistics it updates in training."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if not norm.training:
        mean, var, zero = norm.running_mean, norm.running_var, torch.zeros_like(norm.running_mean)
        # torch's own coefficients, to the last bit: gain 1 + 0, and gain 0 + shift
        gain = F.batch_norm(torch.ones_like(mean)[None], zero, var, norm.weight, zero, eps=norm.eps)[0]
        shift = F.batch_norm(zero[None], mean, var, norm.weight, norm.bias, eps=norm.eps)[0]
        return Affine(gain, shift, mean, torch.rsqrt(var + norm.eps))
    from mksgn.train import kernels  # numba takes half a second

    rows = _rows(y)
    sums = torch.empty(2, rows.shape[2], dtype=torch.float64)
    run(kernels.moments, rows.numel(), rows.shape[2], rows.detach().numpy(), sums.numpy())
    samples = y.numel() // y.shape[2]
    if samples == 1:
        raise ValueError(f"a batch norm of {tuple(y.shape)}: one value per channel has no variance; use larger batches")
    mean, square = _by_channel(sums, y.shape[2]) / samples
    var = (square - mean * mean).clamp_min(0)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.float(), momentum)
    norm.running_var.lerp_((var * (samples / (samples - 1))).float(), momentum)
    inverse_std = torch.rsqrt(var + norm.eps)
    gain = norm.weight * inverse_std
    return Affine(gain.float(), (norm.bias - mean * gain).float(), mean.float(), inverse_std.float(), samples)


class _FusedLIF(torch.autograd.Function):
    """Spikes (S, L, C, ...) of the sum of one or two branches, each y (S or 1, L, C, ...) with the
    weight and bias (C,) that its affine has absorbed, or None; with `rates` their mean (1, L, C, ...) under constant
    currents y (1, L, C, ...)."""

    @staticmethod
    def forward(ctx, steps, rates, tau, threshold, slope, affines, *branches):
        from mksgn.train import kernels

        shape = branches[0].shape[1:]  # (L, C, ...)
        rows = [_rows(y) for y in branches[::3]]
        ctx.rate_steps = (steps,) if rates else ()
        spikes = rows[0].new_empty(1 if rates else steps, *rows[0].shape[1:])
        ctx.scalars = [rows[0].numpy().dtype.type(value) for value in (1.0 / tau, threshold, slope)]
        coefficients = [
            [_expand(v, spikes.shape[2]) for v in (affine.gain, affine.shift, affine.mean)] for affine in affines
        ]
        arguments = _numpy_pairs([[y, *c[:2]] for y, c in zip(rows, coefficients, strict=True)])
        kernel = kernels.rate_forward if rates else kernels.lif_forward
        outputs = (spikes.numpy(), *ctx.rate_steps)
        run(kernel, spikes.numel(), spikes.shape[2], *arguments, *ctx.scalars[:2], *outputs)
        ctx.save_for_backward(*rows)
        ctx.shape, ctx.affines, ctx.coefficients = shape, affines, coefficients
        return spikes.view(-1, *shape)

    @staticmethod
    def backward(ctx, grad_spikes):
        from mksgn.train import kernels

        rows = ctx.saved_tensors
        grad_spikes = _rows(grad_spikes)
        grad_x, length = torch.empty_like(grad_spikes), grad_spikes.shape[2]
        sums = torch.empty(3, length, dtype=torch.float64)
        arguments = _numpy_pairs([[y, *c] for y, c in zip(rows, ctx.coefficients, strict=True)])
        kernel = kernels.rate_backward if ctx.rate_steps else kernels.lif_backward
        outputs = (grad_spikes.numpy(), grad_x.numpy(), sums.numpy(), *ctx.rate_steps)
        run(kernel, grad_x.numel(), length, *arguments, *ctx.scalars, *outputs)
        total, *dots = _by_channel(sums, ctx.shape[1])
        gradients: list[Tensor | None] = []
        for i, (y, affine, dot) in enumerate(zip(rows, ctx.affines, dots, strict=False)):
            needed = ctx.needs_input_grad[6 + 3 * i : 9 + 3 * i]
            last = i == len(rows) - 1  # its gradient may overwrite that of the sum
            grad_y = _grad_y(grad_x, y, affine, total, dot, in_place=last).view(-1, *ctx.shape) if needed[0] else None
            gradients += [grad_y, (dot * affine.inverse_std).float() if needed[1] else None]
            gradients += [total.float() if needed[2] else None]
        return (None, None, None, None, None, None, *gradients)


def _numpy_pairs(branches: list[list[Tensor]]) -> list[Any]:
    """List the arrays of two branches, None for those of an absent branch."""
    arrays: list[Any] = [tensor.numpy() for branch in branches for tensor in branch]
    return arrays + [None] * (2 * len(branches[0]) - len(arrays))


def _grad_y(grad_x: Tensor, y: Tensor, affine: Affine, total: Tensor, dot: Tensor, *, in_place: bool) -> Tensor:
    """Compute dL/dy, like y, from dL/dx (S, L, R), its sum and its product with y - mean, both (C,) float64.

    gain (dL/dx - total / samples - (y - mean) inverse_std^2 dot / samples), whose last two terms
    are there because the statistics depend on y.
    """
    from mksgn.train import kernels

    if len(y) < len(grad_x):
        grad_x, in_place = grad_x.sum(0, keepdim=True), True
    gain = affine.gain.double()
    gain_y = shift = torch.zeros_like(gain)
    if affine.samples:
        gain_y = -gain * affine.inverse_std**2 * dot / affine.samples
        shift = -gain * total / affine.samples
    coefficients = [_expand(v, y.shape[2]).numpy() for v in (gain, affine.mean, gain_y, shift)]
    out = grad_x if in_place else torch.empty_like(grad_x)
    arguments = grad_x.numpy(), coefficients[0], y.numpy(), *coefficients[1:], out.numpy()
    run(kernels.affine, out.numel(), out.shape[2], *arguments)
    return out


class Branch(NamedTuple):
    """One branch of a population's current: y (S or 1, L, C, ...) float32, its affine, and the
    parameters (C,) that receive the affine's gradient."""

    y: Tensor
    affine: Affine
    weight: Tensor | None = None
    bias: Tensor | None = None


def fused_lif(
    branches: Sequence[Branch], steps: int, tau: float, threshold: float, slope: float, *, rates: bool = False
) -> Tensor:
    """Compute the spikes (S, L, C, ...) of the sum of one or two branches on the CPU; with `rates` their mean
    (1, L, C, ...) for constant branches."""
    tensors = [tensor for branch in branches for tensor in (branch.y, branch.weight, branch.bias)]
    return _FusedLIF.apply(steps, rates, tau, threshold, slope, [branch.affine for branch in branches], *tensors)
