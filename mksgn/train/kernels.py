"""Loops of the fused neuron on the CPU, compiled by numba: batch norm's affine, sum of the
branches, integration and reset of all steps in one pass over memory, and the gradient in two.

Arrays are (S, L, R) float32: steps, bodies, the elements of a body in their order in memory, so
that one loop serves every memory format. Coefficients are (R,), expanded from the channels. A loop
handles a slice of R for all steps and bodies: threads share R, and sums over bodies do not depend
on their number.

No fast-math: `fmuladd` rounds as torch's vectorised batch norm and add do, and nothing else is
contracted or reordered.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

BLOCK = 512  # elements handled at a time: a block's scratch stays in the first-level cache
LOG2_E = np.float32(1.4426950408889634)
ROUND = np.float32(1.5 * 2**23)  # adding it rounds a float32 below 2^22 to an integer, in its lowest bits
# Taylor's series of 2^f; |f| <= 1/2 leaves an error of 1.2e-7
C1, C2, C3 = np.float32(0.6931471805599453), np.float32(0.2402265069591007), np.float32(0.0555041086648216)
C4, C5, C6 = np.float32(0.0096181291076285), np.float32(0.0013333558146428), np.float32(0.0001540353039338)
ZERO, ONE = np.float32(0), np.float32(1)
MAX_EXPONENT = np.float32(87)  # e^-87 is the smallest power that float32 holds with all its bits

compiled = njit(nogil=True, cache=True, error_model="numpy")
inner = njit(nogil=True, error_model="numpy", forceinline=True)


def _fmuladd(typingctx, a, b, c):
    """Compute a b + c, rounded once where the machine can."""

    def codegen(context, builder, signature, args):
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.fmuladd", [kind], ir.FunctionType(kind, [kind] * 3))
        return builder.call(function, args)

    return types.float32(types.float32, types.float32, types.float32), codegen


def _power_of_two(typingctx, rounded):
    """Compute 2^n from the float32 ROUND + n, -126 <= n <= 127."""

    def codegen(context, builder, signature, args):
        bits = builder.bitcast(args[0], ir.IntType(32))
        exponent = builder.add(builder.shl(bits, bits.type(23)), bits.type(127 << 23))
        return builder.bitcast(exponent, args[0].type)

    return types.float32(types.float32), codegen


fmuladd: Any = intrinsic(_fmuladd)
power_of_two: Any = intrinsic(_power_of_two)


@inner
def _surrogate_gradient(x, slope):
    """Compute the derivative of sigmoid(slope x): slope e / (1 + e)^2 with e = exp(-slope |x|)."""
    y = abs(x) * slope
    y = -(y if y < MAX_EXPONENT else MAX_EXPONENT) * LOG2_E
    rounded = y + ROUND
    f = y - (rounded - ROUND)
    p = fmuladd(fmuladd(fmuladd(fmuladd(fmuladd(fmuladd(C6, f, C5), f, C4), f, C3), f, C2), f, C1), f, ONE)
    e = p * power_of_two(rounded)
    return slope * e / ((ONE + e) * (ONE + e))


# The loops over one block, (n,) each. They are functions of their own because LLVM vectorises a
# loop only if it has few pointers to compare for overlap.


@inner
def _integrate(a, gain_a, shift_a, v, decay, threshold, h):
    """Add one step's current to the membrane `v`; write its value before the reset to `h`."""
    for j in range(len(a)):
        m = fmuladd(fmuladd(a[j], gain_a[j], shift_a[j]) - v[j], decay, v[j])
        h[j] = m
        v[j] = ZERO if m >= threshold else m


@inner
def _integrate_two(a, gain_a, shift_a, b, gain_b, shift_b, v, decay, threshold, h):
    for j in range(len(a)):
        x = fmuladd(a[j], gain_a[j], shift_a[j]) + fmuladd(b[j], gain_b[j], shift_b[j])
        m = fmuladd(x - v[j], decay, v[j])
        h[j] = m
        v[j] = ZERO if m >= threshold else m


@inner
def _step(a, gain_a, shift_a, b, gain_b, shift_b, t, body, i, k, v, decay, threshold, h):
    """Integrate step t of the elements i to k of a body, from one branch or two."""
    xa = a[t if len(a) > 1 else 0, body, i:k]
    if b is None:
        _integrate(xa, gain_a[i:k], shift_a[i:k], v, decay, threshold, h)
    else:
        xb = b[t if len(b) > 1 else 0, body, i:k]
        _integrate_two(xa, gain_a[i:k], shift_a[i:k], xb, gain_b[i:k], shift_b[i:k], v, decay, threshold, h)


@inner
def _fire(h, threshold, spikes):
    for j in range(len(h)):
        spikes[j] = ONE if h[j] >= threshold else ZERO


@inner
def _count(h, threshold, count):
    for j in range(len(h)):
        count[j] += ONE if h[j] >= threshold else ZERO


@inner
def _divide(x, divisor, out):
    for j in range(len(x)):
        out[j] = x[j] / divisor


@inner
def _surrogate_gradients(h, threshold, slope, ds):
    for j in range(len(h)):
        ds[j] = _surrogate_gradient(h[j] - threshold, slope)


@inner
def _step_back(grad_spikes, h, ds, carried, decay, threshold, grad_x):
    """Write dL/dx of a step. With v = h (1 - s), dv/dh = (1 - s) - h ds/dh; `carried` is dL/dv of
    this step and is overwritten with that of the step before."""
    for j in range(len(h)):
        m, c = h[j], carried[j]
        dh = ds[j] * (grad_spikes[j] - m * c) + (ZERO if m >= threshold else c)
        carried[j] = (ONE - decay) * dh
        grad_x[j] = decay * dh


@inner
def _clear(x):
    """Set to 0; an assignment to a slice is not vectorised."""
    for j in range(len(x)):
        x[j] = ZERO


@inner
def _copy(x, out):
    for j in range(len(x)):
        out[j] = x[j]


@inner
def _add(x, total):
    for j in range(len(x)):
        total[j] += x[j]


@inner
def _add_product(x, y, mean, total):
    for j in range(len(x)):
        total[j] += x[j] * (y[j] - mean[j])


@inner
def _add_moments(x, first, second):
    for j in range(len(x)):
        value = np.float64(x[j])
        first[j] += value
        second[j] += value * value


@inner
def _affine(x, gain_x, y, mean, gain_y, shift, out):
    for j in range(len(x)):
        out[j] = gain_x[j] * x[j] + (gain_y[j] * (y[j] - mean[j]) + shift[j])


@compiled
def lif_forward(a, gain_a, shift_a, b, gain_b, shift_b, decay, threshold, spikes, start, stop):
    """Write the spikes of the current x = gain_a a + shift_a + gain_b b + shift_b.

    Args:
        a, b: (S, L, R), or (1, L, R) where all steps receive the same current; `b` may be None.
        gain_a, shift_a, gain_b, shift_b: (R,).
        decay: 1 / tau.
        threshold: One for all neurons.
        spikes: (S, L, R), written for elements `start` to `stop` of R.
    """
    steps, bodies, _ = spikes.shape
    h, v = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for i in range(start, stop, BLOCK):
        k = min(i + BLOCK, stop)
        n = k - i
        for body in range(bodies):
            _clear(v)
            for t in range(steps):
                _step(a, gain_a, shift_a, b, gain_b, shift_b, t, body, i, k, v[:n], decay, threshold, h[:n])
                _fire(h[:n], threshold, spikes[t, body, i:k])


@compiled
def lif_backward(
    a, gain_a, shift_a, mean_a, b, gain_b, shift_b, mean_b, decay, threshold, slope, grad_spikes, grad_x, sums, start, stop
):  # fmt: skip
    """Write dL/dx of `lif_forward`'s current x, and its sums over steps and bodies.

    Membrane potentials are recomputed: reading the currents again costs less than storing them.

    Args:
        mean_a, mean_b: (R,), subtracted from a and b in their products with the gradient.
        slope: The surrogate's.
        grad_spikes, grad_x: (S, L, R); grad_x is written.
        sums: (3, R) float64, written: the sums of dL/dx, dL/dx (a - mean_a) and dL/dx (b - mean_b).
    """
    steps, bodies, _ = grad_spikes.shape
    h, ds = np.empty((steps, BLOCK), np.float32), np.empty((steps, BLOCK), np.float32)
    v, total = np.empty(BLOCK, np.float32), np.empty((3, BLOCK), np.float32)
    for i in range(start, stop, BLOCK):
        k = min(i + BLOCK, stop)
        n = k - i
        sums[:, i:k] = 0.0
        for body in range(bodies):
            _clear(v)
            for t in range(steps):
                _step(a, gain_a, shift_a, b, gain_b, shift_b, t, body, i, k, v[:n], decay, threshold, h[t, :n])
                _surrogate_gradients(h[t, :n], threshold, slope, ds[t, :n])
            _clear(v)
            _clear(total.reshape(-1))  # of one body: sums over all bodies would lose digits in float32
            for t in range(steps - 1, -1, -1):
                gx = grad_x[t, body, i:k]
                _step_back(grad_spikes[t, body, i:k], h[t, :n], ds[t, :n], v[:n], decay, threshold, gx)
                _add(gx, total[0, :n])
                _add_product(gx, a[t if len(a) > 1 else 0, body, i:k], mean_a[i:k], total[1, :n])
                if b is not None:
                    _add_product(gx, b[t if len(b) > 1 else 0, body, i:k], mean_b[i:k], total[2, :n])
            for row in range(3):
                _add(total[row, :n], sums[row, i:k])


@compiled
def rate_forward(a, gain_a, shift_a, b, gain_b, shift_b, decay, threshold, rates, steps, start, stop):
    """Write the mean over `steps` steps of the spikes of a constant current.

    Arguments as in `lif_forward`, with a, b and `rates` (1, L, R).
    """
    bodies = rates.shape[1]
    h, v, count = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for i in range(start, stop, BLOCK):
        k = min(i + BLOCK, stop)
        n = k - i
        for body in range(bodies):
            _clear(v)
            _clear(count)
            for _ in range(steps):
                _step(a, gain_a, shift_a, b, gain_b, shift_b, 0, body, i, k, v[:n], decay, threshold, h[:n])
                _count(h[:n], threshold, count[:n])
            _divide(count[:n], np.float32(steps), rates[0, body, i:k])


@compiled
def rate_backward(
    a, gain_a, shift_a, mean_a, b, gain_b, shift_b, mean_b, decay, threshold, slope, grad_rates, grad_x, sums, steps, start, stop
):  # fmt: skip
    """Write dL/dx of `rate_forward`'s constant current x, and its sums over bodies.

    Arguments as in `lif_backward`, with gradients (1, L, R).
    """
    bodies = grad_rates.shape[1]
    h, ds = np.empty((steps, BLOCK), np.float32), np.empty((steps, BLOCK), np.float32)
    v, grad = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    gx, total, product = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32), np.empty((2, BLOCK), np.float32)
    for i in range(start, stop, BLOCK):
        k = min(i + BLOCK, stop)
        n = k - i
        sums[:, i:k] = 0.0
        for body in range(bodies):
            _clear(v)
            for t in range(steps):
                _step(a, gain_a, shift_a, b, gain_b, shift_b, 0, body, i, k, v[:n], decay, threshold, h[t, :n])
                _surrogate_gradients(h[t, :n], threshold, slope, ds[t, :n])
            _divide(grad_rates[0, body, i:k], np.float32(steps), grad[:n])
            _clear(v)
            _clear(total)
            for t in range(steps - 1, -1, -1):
                _step_back(grad[:n], h[t, :n], ds[t, :n], v[:n], decay, threshold, gx[:n])
                _add(gx[:n], total[:n])
            _copy(total[:n], grad_x[0, body, i:k])
            _add(total[:n], sums[0, i:k])
            _clear(product.reshape(-1))
            _add_product(total[:n], a[0, body, i:k], mean_a[i:k], product[0, :n])
            _add(product[0, :n], sums[1, i:k])
            if b is not None:
                _add_product(total[:n], b[0, body, i:k], mean_b[i:k], product[1, :n])
                _add(product[1, :n], sums[2, i:k])


@compiled
def affine(x, gain_x, y, mean, gain_y, shift, out, start, stop):
    """Write gain_x x + gain_y (y - mean) + shift of x, y (S, L, R) and the rest (R,); `out` may be x."""
    steps, bodies, _ = x.shape
    block = np.empty(BLOCK, np.float32)  # a loop that overwrites what it reads is not vectorised
    for i in range(start, stop, BLOCK):
        k = min(i + BLOCK, stop)
        row = block[: k - i]
        for t in range(steps):
            for body in range(bodies):
                _affine(x[t, body, i:k], gain_x[i:k], y[t, body, i:k], mean[i:k], gain_y[i:k], shift[i:k], row)
                _copy(row, out[t, body, i:k])


@compiled
def moments(x, sums, start, stop):
    """Write the sums over steps and bodies of x and x^2, (2, R) float64."""
    steps, bodies, _ = x.shape
    for i in range(start, stop, BLOCK):
        k = min(i + BLOCK, stop)
        sums[:, i:k] = 0.0
        for t in range(steps):
            for body in range(bodies):
                _add_moments(x[t, body, i:k], sums[0, i:k], sums[1, i:k])
