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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

SURROGATE_SLOPE = 4.0  # alpha of sigmoid(alpha x) [sibling]


def lif_step(x: Tensor, v: Tensor, tau: float, threshold: float | Tensor) -> tuple[Tensor, Tensor]:
    """Compute spikes (0.0 or 1.0) and the membrane after reset from current `x` and membrane `v` of
    the same shape."""
    h = torch.add(v, x - v, alpha=1.0 / tau)
    s = (h >= threshold).to(x.dtype)
    return s, h * (1.0 - s)


class _LIFSequence(torch.autograd.Function):
    """All steps of a population at once; stores h only, from which the backward pass recomputes
    spikes and reset. Used for float64, thresholds per neuron and traced graphs; otherwise `fused` or `gpu` is."""

    @staticmethod
    def forward(ctx, x: Tensor, tau: float, threshold: Tensor, slope: float | Tensor) -> Tensor:
        h, v = torch.empty_like(x), torch.empty_like(x[0])
        torch.mul(x[0], 1.0 / tau, out=h[0])  # v = 0
        for t in range(1, len(x)):
            torch.lt(h[t - 1], threshold, out=v).mul_(h[t - 1])  # the reset: v stays where no spike was fired
            torch.sub(x[t], v, out=h[t])
            torch.add(v, h[t], alpha=1.0 / tau, out=h[t])
        ctx.save_for_backward(h, threshold)
        ctx.tau, ctx.slope = tau, slope
        return (h >= threshold).to(x.dtype)

    @staticmethod
    def backward(ctx, grad_s: Tensor):
        h, threshold = ctx.saved_tensors
        slope = torch.as_tensor(ctx.slope, dtype=h.dtype, device=h.device)
        decay = 1.0 / ctx.tau
        carried = (1.0 - decay) / decay  # gx is dL/dx = decay dL/dh, and dh[t+1]/dv[t] = 1 - decay
        # v = h (1 - s), so dv/dh = (1 - s) - h ds/dh, with ds/dh = slope (g - g^2), g = sigmoid(slope
        # (h - th))
        g = torch.addcmul(-slope * threshold, h, slope).sigmoid_()
        torch.addcmul(g, g, g, value=-1.0, out=g).mul_(slope * decay)
        grad_x, silent = torch.empty_like(h), torch.empty_like(h[0])
        torch.mul(grad_s[-1], g[-1], out=grad_x[-1])
        for t in range(len(h) - 2, -1, -1):
            torch.lt(h[t], threshold, out=silent)
            torch.addcmul(grad_s[t], grad_x[t + 1], h[t], value=-carried, out=grad_x[t]).mul_(g[t])
            torch.addcmul(grad_x[t], grad_x[t + 1], silent, value=1.0 - decay, out=grad_x[t])
        return grad_x, None, None, None


@dataclass(frozen=True)
class Current:
    """A branch of a population's current that is not computed yet: the neuron computes it in its own
    pass.

    Attributes:
        y: A product (S, L, C, ...), or (1, L, C, ...) that all steps receive.
        steps: S.
        norm: The batch norm of y; or
        gain: the gain per channel, (C,).
    """

    y: Tensor
    steps: int
    norm: nn.BatchNorm2d | None = None
    gain: Tensor | None = None

    def computed(self) -> Tensor:
        """Compute the current, (S, L, C, ...) or (1, L, C, ...), whichever y is."""
        y = self.y
        if self.norm is not None:
            y = self.norm(y.flatten(0, 1)).unflatten(0, y.shape[:2])
        if self.gain is not None:
            y = y * self.gain.view(-1, *[1] * (y.dim() - 3))
        return y

    def value(self) -> Tensor:
        """Compute the current (S, L, C, ...)."""
        return self.computed().expand(self.steps, *self.y.shape[1:])


def summed(currents: Sequence[Tensor | Current]) -> Tensor:
    """Compute the sum (S, L, ...) of a population's branches."""
    total, *others = (current.value() if isinstance(current, Current) else current for current in currents)
    for other in others:
        total = total + other
    return total


def lif(x: Tensor, tau: float, threshold: Tensor, slope: float | Tensor = SURROGATE_SLOPE) -> Tensor:
    """Compute the spikes of all steps of currents (S, ...); `threshold` and the surrogate's `slope` broadcast against
    x[0]. The state starts at 0.

    A current in half precision (mixed precision on a GPU) is integrated in float32: a membrane
    needs more than 8 bits.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    if _fusable([x], threshold):
        shape = x.shape
        y = x if x.dim() > 2 else x.reshape(len(x), 1, 1, -1)
        return _fused([Current(y[:1] if x.stride(0) == 0 else y, len(x))], tau, threshold, float(slope)).view(shape)
    if _on_gpu(threshold) and x.dtype == torch.float32 and isinstance(slope, float):
        from mksgn.train.gpu import gpu_lif

        return gpu_lif([x[:1] if x.stride(0) == 0 else x], len(x), tau, threshold, slope)
    return _LIFSequence.apply(x, tau, threshold, slope)


def lif_of_currents(
    currents: Sequence[Tensor | Current],
    tau: float,
    threshold: Tensor,
    slope: float = SURROGATE_SLOPE,
    *,
    rates: bool = False,
) -> Tensor:
    """Compute the spikes (S, ...) of the sum of a population's branches, in one pass over them where that is possible.

    With `rates` the branches are constant, and the result is the mean over the steps, (1, ...).
    """
    fusable = [current for current in currents if isinstance(current, Current)]
    if len(fusable) == len(currents) <= 2:
        if _fusable([current.y for current in fusable], threshold):
            return _fused(fusable, tau, threshold, slope, rates=rates)
        if _on_gpu(threshold):
            from mksgn.train.gpu import gpu_lif

            computed = [current.computed() for current in fusable]
            return gpu_lif(computed, fusable[0].steps, tau, threshold, slope, rates=rates)
    spikes = lif(summed(currents), tau, threshold, slope)
    return spikes.mean(0, keepdim=True) if rates else spikes


def _fusable(tensors: Sequence[Tensor], threshold: Tensor) -> bool:
    """Tell whether the compiled loops apply. A traced graph needs torch's operations."""
    return (
        threshold.numel() == 1
        and all(x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() for x in tensors)
        and not torch.compiler.is_compiling()
    )


def _on_gpu(threshold: Tensor) -> bool:
    """Tell whether the Triton kernel applies: a GPU, and one threshold for all neurons."""
    return threshold.is_cuda and threshold.numel() == 1 and not torch.compiler.is_compiling()


def _fused(currents: Sequence[Current], tau: float, threshold: Tensor, slope: float, *, rates: bool = False) -> Tensor:
    from mksgn.train import fused

    branches = []
    for current in currents:
        y, norm, gain = current.y, current.norm, current.gain
        if norm is not None:
            branches.append(fused.Branch(y, fused.normalised(y, norm), norm.weight, norm.bias))
        else:
            branches.append(fused.Branch(y, fused.scaled(y.new_ones(y.shape[2]) if gain is None else gain), gain))
    return fused.fused_lif(branches, currents[0].steps, tau, float(threshold), slope, rates=rates)


class LIF(nn.Module):
    """A population of this neuron. Input and output are (S, ...), time step first; no state
    survives a call."""

    threshold: Tensor

    def __init__(self, tau: float = 2.0, threshold: float = 1.0, *, persistent: bool = True):
        """`persistent` says whether the threshold is part of the state_dict."""
        super().__init__()
        self.tau = tau
        self.rate_steps = 0  # > 0: the output is the mean rate over that many steps of a constant current
        self.register_buffer("threshold", torch.tensor(threshold), persistent=persistent)

    def forward(self, *currents: Tensor | Current) -> Tensor:
        """Compute the spikes of the sum of the branches, or, with `rate_steps`, their mean rate (1, ...)."""
        if self.rate_steps:
            parts = [c if isinstance(c, Current) else Current(c, 1) for c in currents]
            held = [replace(part, steps=self.rate_steps) for part in parts]
            return lif_of_currents(held, self.tau, self.threshold, rates=True)
        return lif_of_currents(currents, self.tau, self.threshold)

    def extra_repr(self) -> str:
        return f"tau={self.tau}, threshold={self.threshold.tolist()}"
