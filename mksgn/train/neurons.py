"""The neuron of all populations: leaky integrate-and-fire with a hard reset, and its surrogate
gradient.

    h[t] = v[t-1] + (x[t] - v[t-1]) / tau        tau = 2           [sibling] SpikingJelly's default
    s[t] = 1 if h[t] >= v_th else 0              v_th = 1
    v[t] = h[t] (1 - s[t])                       hard reset to 0, v[0] = 0 at the start of a clip

This is the reference definition: the NIR file (export/), the emulator and Lava's leaf
Processes (deploy/) derive their parameters from it. In the backward pass the step s is given the
derivative of sigmoid(4 (h - v_th)) [sibling]; the reset is differentiated too, as SpikingJelly does
by default.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

SURROGATE_SLOPE = 4.0  # alpha of sigmoid(alpha x) [sibling]


def lif_step(x: Tensor, v: Tensor, tau: float, threshold: float | Tensor) -> tuple[Tensor, Tensor]:
    """Compute spikes (0.0 or 1.0) and the membrane after reset from current `x` and membrane `v` of
    one shape."""
    h = torch.add(v, x - v, alpha=1.0 / tau)
    s = (h >= threshold).to(x.dtype)
    return s, h * (1.0 - s)


# Elements of a population handled at a time: small enough that a step's operands stay in a core's
# cache. A pass over whole populations was three times slower on a 2-core machine.
CHUNK = 1 << 15


class _LIFSequence(torch.autograd.Function):
    """All steps of a population at once; stores h only, from which the backward pass recomputes
    spikes and reset."""

    @staticmethod
    def forward(ctx, x: Tensor, tau: float, threshold: Tensor) -> Tensor:
        h, s = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
        for xs, hs, ss, th in _chunks(x, h, s, threshold=threshold):
            torch.mul(xs[0], 1.0 / tau, out=hs[0])  # v = 0
            v = torch.empty_like(hs[0])
            for t in range(1, len(xs)):
                torch.lt(hs[t - 1], th, out=v).mul_(hs[t - 1])  # the reset: kept where it was silent
                torch.sub(xs[t], v, out=hs[t])
                torch.add(v, hs[t], alpha=1.0 / tau, out=hs[t])
            torch.ge(hs, th, out=ss)
        ctx.save_for_backward(h, threshold)
        ctx.tau = tau
        return s

    @staticmethod
    def backward(ctx, grad_s: Tensor):
        h, threshold = ctx.saved_tensors
        decay = 1.0 / ctx.tau
        carried = (1.0 - decay) / decay  # gx is dL/dx = decay dL/dh, and dh[t+1]/dv[t] = 1 - decay
        grad_x = torch.empty_like(h)
        for gs, hs, gx, th in _chunks(grad_s, h, grad_x, threshold=threshold):
            # v = h (1 - s), so dv/dh = (1 - s) - h ds/dh, with ds/dh = slope (g - g^2), g =
            # sigmoid(slope (h - th))
            g = torch.add(-SURROGATE_SLOPE * th, hs, alpha=SURROGATE_SLOPE).sigmoid_()
            torch.addcmul(g, g, g, value=-1.0, out=g).mul_(SURROGATE_SLOPE * decay)
            torch.mul(gs[-1], g[-1], out=gx[-1])
            silent = torch.empty_like(hs[0])
            for t in range(len(hs) - 2, -1, -1):
                torch.lt(hs[t], th, out=silent)
                torch.addcmul(gs[t], gx[t + 1], hs[t], value=-carried, out=gx[t]).mul_(g[t])
                torch.addcmul(gx[t], gx[t + 1], silent, value=1.0 - decay, out=gx[t])
        return grad_x, None, None


def _chunks(*tensors: Tensor, threshold: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same (S, elements) slice of each tensor, and the threshold; a threshold per neuron
    is not split."""
    if threshold.numel() > 1:
        yield (*tensors, threshold)
        return
    threshold = threshold.reshape(())  # whatever axes it had, the slices have others
    flat = [x.reshape(len(x), -1) for x in tensors]
    size = CHUNK if flat[0].device.type == "cpu" else max(1, flat[0].shape[1])  # a GPU wants few, large launches
    for i in range(0, flat[0].shape[1], size):
        yield (*(x[:, i : i + size] for x in flat), threshold)


def lif(x: Tensor, tau: float, threshold: Tensor) -> Tensor:
    """Compute the spikes of all steps of currents (S, ...); `threshold` broadcasts against x[0].
    The state starts at 0.

    A current in half precision (mixed precision on a GPU) is integrated in float32: a membrane
    needs more than 8 bits.
    """
    return _LIFSequence.apply(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, tau, threshold)


class LIF(nn.Module):
    """A population of this neuron. Input and output are (S, ...), time step first; no state
    survives a call."""

    threshold: Tensor

    def __init__(self, tau: float = 2.0, threshold: float = 1.0, *, persistent: bool = True):
        """`persistent` says whether the threshold is part of the state_dict."""
        super().__init__()
        self.tau = tau
        self.register_buffer("threshold", torch.tensor(threshold), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return lif(x, self.tau, self.threshold)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, threshold={self.threshold.tolist()}"
