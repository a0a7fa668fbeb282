"""lava-dl's neurons: Lava's integers, and the NIR nodes with the same dynamics."""

from dataclasses import dataclass

import nir
import numpy as np

from mksgn.export.graph.nodes import f32
from mksgn.export.lava_dl.hdf5 import SCALE, Layer
from mksgn.export.loihi import DECAY_STEPS, THRESHOLD_LIMIT

READOUT_THRESHOLD = 2**18 - 1  # written by SLAYER's Affine for a layer that never fires
NEURON_KEYS = {
    "type",
    "iDecay",
    "vDecay",
    "vThMant",
    "theta",
    "tauRho",
    "scaleRho",
}  # the last two are of the surrogate
# values with which netx runs every neuron
NEURON_FIXED = {"refDelay": 1, "gradedSpike": 0, "messageBits": 0, "weight_exp": 0, "wgtExp": 0}
NEURON_TYPES = ("CUBA", "LOIHI")


@dataclass
class Neuron:
    """Lava's integers of a population, int64, each in the full shape."""

    i_decay: np.ndarray
    v_decay: np.ndarray
    threshold: np.ndarray

    @property
    def keeps_current(self) -> bool:
        return bool((self.i_decay < DECAY_STEPS).any())

    def node(self, dt: float, leak: np.ndarray) -> nir.NIRNode:
        """Convert to NIR.

        Args:
            dt: Time step in seconds.
            leak: The bias that v_leak holds, in the full shape; 0 if vDecay = 0.
        """
        threshold, zero = f32(self.threshold), np.zeros(self.threshold.shape, np.float32)
        if not self.v_decay.any():
            node: nir.NIRNode = nir.IF(f32(np.full(threshold.shape, 1 / dt)), threshold, zero)
        else:
            gain = DECAY_STEPS / self.v_decay
            membrane = (f32(dt * gain), f32(gain), f32(leak * gain), threshold, zero)
            scale = DECAY_STEPS / self.i_decay
            cuba = self.keeps_current
            node = nir.CubaLIF(f32(dt * scale), *membrane, w_in=f32(scale)) if cuba else nir.LIF(*membrane)
        integers = {"lava_du": self.i_decay - 1, "lava_dv": self.v_decay, "lava_vth": self.threshold}
        node.metadata = {key: int(x.flat[0]) for key, x in integers.items() if not np.ptp(x)} | {"lava_bias_exp": 6}
        return node


def read_neuron(layer: Layer, shape: tuple[int, ...]) -> Neuron:
    """Read the neurons of a layer; `shape` starts with the channels.

    Raises:
        UnsupportedLayerError: The neurons have no equivalent in NIR, or netx would lose part of
            them.
    """
    keys = {key.partition("/")[2] for key in layer.values if key.startswith("neuron/")}
    if not keys:
        what = "has no neuron: SLAYER outputs its current, netx integrates it up to a threshold of 131072"
        raise layer.refuse(what, "give it a neuron, or leave the layer out")
    kind = layer.values.get("neuron/type")
    if not isinstance(kind, str) or kind not in NEURON_TYPES:
        raise layer.refuse(
            f"neurons of type {str(kind)[:80]!r} do not exist in NIR", f"train with {' or '.join(NEURON_TYPES)}"
        )
    for key in sorted(keys - NEURON_KEYS - set(NEURON_FIXED)):
        raise layer.refuse(f"netx silently drops neuron/{key}", "remove it if the network runs without it")
    for key in sorted(keys & set(NEURON_FIXED)):
        values = np.unique(layer.integers(f"neuron/{key}"))
        if values.tolist() != [NEURON_FIXED[key]]:
            what = f"neuron/{key} is {values[-1]}, which netx silently drops and NIR's neurons do not have"
            raise layer.refuse(what, f"train with {key} = {NEURON_FIXED[key]}")

    def per_channel(key: str, high: int, remedy: str) -> np.ndarray:
        values = layer.integers(f"neuron/{key}", 0, high, remedy).ravel()
        if values.size not in (1, shape[0]):
            raise layer.refuse(
                f"neuron/{key} has {values.size} values for {shape[0]} channels", "write one value, or one per channel"
            )
        return np.broadcast_to(values.reshape(-1, *(1,) * (len(shape) - 1)), shape)

    if np.all(layer.values.get("neuron/vThMant") == READOUT_THRESHOLD):
        raise layer.refuse(f"vThMant is {READOUT_THRESHOLD}: a read-out that never fires", "leave the layer out")
    threshold = per_channel("vThMant", THRESHOLD_LIMIT, SCALE)
    if "theta" in keys and (per_channel("theta", 2**30, SCALE) != threshold * 64).any():
        raise layer.refuse("neuron/theta is not 64 vThMant, and netx silently drops it", "remove it")
    i_decay, v_decay = (per_channel(key, DECAY_STEPS, "clamp it") for key in ("iDecay", "vDecay"))
    neuron = Neuron(i_decay, v_decay, threshold)
    if not i_decay.all() or (not v_decay.all() and (v_decay.any() or neuron.keeps_current)):
        what = "is 0: NIR's time constants are finite, and its IF keeps no current"
        raise layer.refuse(f"neuron/{'vDecay' if i_decay.all() else 'iDecay'} {what}", "set it to at least 1")
    return neuron
