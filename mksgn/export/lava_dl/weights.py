"""The synapses of lava-dl's dense layers: weights, delays, and the weights that netx would run."""

import numpy as np

from mksgn.export.lava_dl.hdf5 import SCALE, Layer
from mksgn.export.loihi import SYNAPTIC_DELAY_LIMIT


def read_matrix(layer: Layer, key: str, rows: int, columns: int | None = None) -> np.ndarray:
    """Read a matrix (rows, columns), or its values row by row on one axis, as netx does."""
    weight = layer.integers(key)
    if weight.ndim == 1 and weight.size % rows == 0:
        weight = weight.reshape(rows, -1)
    if weight.ndim != 2 or weight.shape[0] != rows or columns not in (None, weight.shape[1]):
        raise layer.refuse(f"{key} has shape {weight.shape}", f"write it as ({rows}, {columns or 'inputs'})")
    return weight


def read_delays(layer: Layer, shape: tuple[int, ...]) -> np.ndarray:
    """Read the delay of each synapse in steps, (O, I).

    netx takes a vector as one delay per output if its length allows, otherwise as one per input.
    """
    if "delay" not in layer.values:
        return np.zeros(shape, dtype=np.int64)
    delay = layer.integers("delay", 0, SYNAPTIC_DELAY_LIMIT, "train with shorter delays, since netx clamps them")
    delay = delay[:, None] if delay.shape == shape[:1] else delay
    if delay.size > 1 and delay.shape not in (shape, shape[1:], (shape[0], 1)):
        raise layer.refuse(f"delay has shape {delay.shape}", f"write it as {shape[:1]}, {shape[1:]} or {shape}")
    return np.broadcast_to(delay, shape)


def check_weights(layer: Layer, parts: list[np.ndarray]) -> None:
    """Raise UnsupportedLayerError for weights (O, I) that netx would change."""
    for weight, run in zip(parts, netx_weights(parts), strict=True):
        if (weight != run).any():
            o, i = np.argwhere(weight != run)[0]
            what = f"netx would run weight {weight[o, i]} from input {i} to output {o} as {run[o, i]}"
            raise layer.refuse(what, f"{SCALE} into -256 … 254, or give the layer one positive weight")


def netx_weights(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Compute the weights that netx would run in place of a layer's integer weights (O, I).

    netx applies `optimize_weight_bits` to all synapses of the layer together; then Lava's
    fixed-point Dense clips and truncates those of each part separately.
    """
    low, high = min(int(p.min()) for p in parts), max(int(p.max()) for p in parts)
    if low == high == 0:
        return parts
    mixed = low < 0 <= high
    if (low < 0 and high > 254) or (low < -256 and high > 0):
        low, high = max(low, -256), min(high, 254)
    scales = [127 / high if high > 0 else np.inf, -128 / low] if mixed else [-256 / low if low < 0 else 255 / high]
    shift = int(np.floor(np.log2(min(scales)))) + mixed
    parts = [np.clip(p, low, high) for p in parts]
    zero_bits = next(n for n in range(8, -1, -1) if not any((p % 2**n).any() for p in parts))
    results: list[np.ndarray] = []
    for p in parts:
        positive, negative = p.min() >= 0, p.max() <= 0
        drop = shift + zero_bits - mixed + (not positive and not negative)
        sign = -1 if negative and not positive else 1
        p = np.clip(sign * p << max(shift, 0), 0 if positive or negative else -256, 255)
        lost = shift < 0 or drop < 0  # NumPy shifts all bits out
        results.append(np.zeros_like(p) if lost else sign * (p >> drop << drop) >> shift)
    return results
