"""lava-dl's HDF5 network files, written by hand: a dict per layer, as slayer writes them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layers = list[dict[str, Any]]


def write(path: Path, layers: Layers) -> Path:
    with h5py.File(path, "w") as file:
        for i, layer in enumerate(layers):
            for key, value in layer.items():
                if key == "type":
                    file.create_dataset(f"layer/{i}/type", (1,), "S10", [value.encode()])  # as slayer does
                else:
                    file.create_dataset(f"layer/{i}/{key}", data=value)
    return path


def neuron(i: Any = 4096, v: Any = 1024, vth: Any = 100, **more: Any) -> dict[str, Any]:
    values = {"type": "CUBA", "iDecay": i, "vDecay": v, "vThMant": vth, "refDelay": 1, "gradedSpike": False} | more
    return {f"neuron/{key}": value for key, value in values.items()}


def inp(*shape: int, **more: Any) -> dict[str, Any]:
    return {"type": "input", "shape": np.array(shape), **more}


def dense(weight: Any, **more: Any) -> dict[str, Any]:
    weight = np.asarray(weight)
    sizes = {"inFeatures": weight.shape[1], "outFeatures": weight.shape[0]} if weight.ndim == 2 else {}
    return {"type": "dense", "shape": np.array([len(weight)]), "weight": weight, **sizes, **neuron(), **more}


def recurrent(weight: Any, weight_rec: Any, **more: Any) -> dict[str, Any]:
    return dense(weight, **{"type": "dense_rec", "weight_rec": np.asarray(weight_rec), **more})


def conv(weight: Any, into: tuple[int, int], stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups=1, **more):
    weight = np.asarray(weight)
    axes = zip(into, weight.shape[2:], *(np.broadcast_to(x, 2) for x in (stride, padding, dilation)), strict=True)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    values = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    shape = {"type": "conv", "shape": np.array([len(weight), *size]), "kernelSize": np.array(weight.shape[2:])}
    return {**shape, "weight": weight, **values, **neuron(), **more}


FLATTEN = {"type": "flatten", "shape": np.array([1, 1, 1])}  # nobody reads its shape


def weights(rng: np.random.Generator, *shape: int, low: int = -70, high: int = 120) -> np.ndarray:
    return rng.integers(low, high, shape)
