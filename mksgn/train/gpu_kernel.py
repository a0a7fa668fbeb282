"""The Triton kernels of mksgn/train/gpu: a neuron's steps, and their gradient, in registers.

Currents are (S, N) or, where all steps receive the same, (1, N); one program of a kernel handles BLOCK
of the N elements for all steps. The equations are those of mksgn/train/neurons.
"""

import triton
import triton.language as tl


@triton.jit
def _current(a, b, i, inside, size, STEP: tl.constexpr, STEPS_A: tl.constexpr, STEPS_B: tl.constexpr):
    """Load the current a + b of a step; STEPS_B is 0 where there is no b."""
    x = tl.load(a + (STEP % STEPS_A) * size + i, mask=inside, other=0).to(tl.float32)
    if STEPS_B:
        x += tl.load(b + (STEP % STEPS_B) * size + i, mask=inside, other=0).to(tl.float32)
    return x


@triton.jit
def _membrane(
    a, b, i, inside, size, decay, threshold, UP_TO: tl.constexpr, STEPS_A: tl.constexpr, STEPS_B: tl.constexpr
):
    """Compute the membrane potentials of step UP_TO before its reset, starting from the first step."""
    v = tl.zeros(i.shape, tl.float32)
    h = v
    for t in tl.static_range(UP_TO + 1):
        h = v + (_current(a, b, i, inside, size, t, STEPS_A, STEPS_B) - v) * decay
        v = tl.where(h >= threshold, 0.0, h)
    return h


@triton.jit
def forward_kernel(
    a, b, threshold, spikes, size, decay,
    STEPS: tl.constexpr, STEPS_A: tl.constexpr, STEPS_B: tl.constexpr, RATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the spikes (STEPS, N) of the current a + b, or with RATES their mean (1, N)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    limit = tl.load(threshold)
    v = tl.zeros(i.shape, tl.float32)
    count = v
    for t in tl.static_range(STEPS):
        h = v + (_current(a, b, i, inside, size, t, STEPS_A, STEPS_B) - v) * decay
        fired = h >= limit
        v = tl.where(fired, 0.0, h)
        if RATES:
            count += fired.to(tl.float32)
        else:
            tl.store(spikes + t * size + i, fired.to(tl.float32), mask=inside)
    if RATES:
        tl.store(spikes + i, count / STEPS, mask=inside)


@triton.jit
def backward_kernel(
    a, b, threshold, grad_spikes, grad_x, size, decay, slope,
    STEPS: tl.constexpr, STEPS_A: tl.constexpr, STEPS_B: tl.constexpr, RATES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write dL/dx (STEPS, N) of the current x = a + b, or with RATES its sum over the steps (1, N).

    Membrane potentials are recomputed for every step: a few additions cost less than storing them in memory.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    limit = tl.load(threshold)
    carried = tl.zeros(i.shape, tl.float32)  # dL/dv of the next step
    total = carried
    for back in tl.static_range(STEPS):
        h = _membrane(a, b, i, inside, size, decay, limit, STEPS - 1 - back, STEPS_A, STEPS_B)
        e = tl.exp(-slope * tl.abs(h - limit))
        surrogate = slope * e / ((1 + e) * (1 + e))
        if RATES:
            grad = tl.load(grad_spikes + i, mask=inside, other=0).to(tl.float32) / STEPS
        else:
            grad = tl.load(grad_spikes + (STEPS - 1 - back) * size + i, mask=inside, other=0).to(tl.float32)
        # v = h (1 - s), so dv/dh = (1 - s) - h ds/dh
        dh = surrogate * (grad - h * carried) + tl.where(h >= limit, 0.0, carried)
        carried = (1 - decay) * dh
        if RATES:
            total += decay * dh
        else:
            tl.store(grad_x + (STEPS - 1 - back) * size + i, decay * dh, mask=inside)
    if RATES:
        tl.store(grad_x + i, total, mask=inside)
