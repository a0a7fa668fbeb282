"""Training on a GPU in few kernel launches: one Triton kernel for a population's forward pass and one for
its backward pass, and one CUDA graph for the passes of a training step.

A step of the `small` student consists of some thousand small operations; a GPU waits for their
launches (docs/training.md). Operations that ask the GPU for a value, such as `bool(tensor)`, cannot be recorded.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BLOCK = 1024  # elements per program of a kernel


class _GpuLIF(torch.autograd.Function):
    """Spikes (S, ...) of the sum of one or two currents, each (S, ...) or (1, ...); with `rates` their mean
    (1, ...)."""

    @staticmethod
    def forward(ctx, steps, rates, tau, threshold, slope, *branches):
        from mksgn.train.gpu_kernel import forward_kernel

        currents = [x.contiguous() for x in branches]
        spikes = torch.empty(1 if rates else steps, *currents[0].shape[1:], device=threshold.device)
        ctx.scalars = 1.0 / tau, slope
        ctx.constants = {"STEPS": steps, "RATES": rates, "BLOCK": BLOCK} | {
            f"STEPS_{name}": len(x) for name, x in zip("AB", [*currents, ()], strict=False)
        }
        ctx.save_for_backward(threshold, *currents)
        size = currents[0][0].numel()
        forward_kernel[-(-size // BLOCK),](
            currents[0], currents[-1], threshold, spikes, size, ctx.scalars[0], **ctx.constants
        )
        return spikes

    @staticmethod
    def backward(ctx, grad_spikes):
        from mksgn.train.gpu_kernel import backward_kernel

        threshold, *currents = ctx.saved_tensors
        grad_spikes = grad_spikes.contiguous()
        grad_x, size = torch.empty_like(grad_spikes), currents[0][0].numel()
        backward_kernel[-(-size // BLOCK),](
            currents[0], currents[-1], threshold, grad_spikes, grad_x, size, *ctx.scalars, **ctx.constants
        )
        grads = [grad_x if len(x) == len(grad_x) else grad_x.sum(0, keepdim=True) for x in currents]
        return (None, None, None, None, None, *(g.to(x.dtype) for g, x in zip(grads, currents, strict=True)))


def gpu_lif(
    currents: Sequence[Tensor], steps: int, tau: float, threshold: Tensor, slope: float, *, rates: bool = False
) -> Tensor:
    """Compute the spikes (S, ...) of the sum of one or two currents on a GPU; with `rates` their mean (1, ...).

    Args:
        currents: (S, ...) each, or (1, ...) where all steps receive the same.
        steps: S.
        tau: Time constant of the membrane, in steps.
        threshold: One for all neurons, on the GPU.
        slope: The surrogate's.
        rates: Whether to return the mean over the steps.
    """
    return _GpuLIF.apply(steps, rates, tau, threshold, slope, *currents)


class Recorded:
    """The passes of a training step, recorded as one CUDA graph per batch shape and replayed.

    The first batch of a shape is computed directly, which compiles kernels and sets up libraries; the
    second is recorded.
    """

    def __init__(self, passes: Callable[..., Tensor], parameters: Sequence[Tensor]):
        self.passes, self.parameters = passes, parameters
        self.stream, self.pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        self.recordings: dict[Any, _Recording | None] = {}

    def __call__(self, clips: int, *tensors: Tensor) -> Tensor:
        key = clips, *(tuple(x.shape) for x in tensors)
        if key not in self.recordings:
            self.recordings[key] = None
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                result = self.passes(clips, *tensors)
            torch.cuda.current_stream().wait_stream(self.stream)
            return result
        recording = self.recordings[key] or _Recording(self, clips, tensors)
        self.recordings[key] = recording
        return recording.replay(tensors)


class _Recording:
    def __init__(self, recorded: Recorded, clips: int, tensors: Sequence[Tensor]):
        self.parameters, self.inputs = recorded.parameters, [x.clone() for x in tensors]
        for parameter in self.parameters:
            parameter.grad = None  # so that the gradients are written to the graph's memory, not accumulated
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, pool=recorded.pool, stream=recorded.stream):
            self.result = recorded.passes(clips, *self.inputs)
        self.gradients = [parameter.grad for parameter in self.parameters]

    def replay(self, tensors: Sequence[Tensor]) -> Tensor:
        for own, given in zip(self.inputs, tensors, strict=True):
            own.copy_(given)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.result.clone()
