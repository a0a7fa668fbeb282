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
}  # the last two belong to the surrogate gradient
# values with which netx runs every neuron
NEURON_FIXED = {"refDelay": 1, "gradedSpike": 0, "messageBits": 0, "weight_exp": 0, "wgtExp": 0}
NEURON_TYPES = ("CUBA", "LOIHI")


@dataclass
class Neuron:
    """Lava's integers of a population, int64, each in the full shape."""

    i_decay: np.ndarray
    v_decay: np.ndarray
    threshold: np.ndarray | None  # None: a read-out, whose membrane is the output

    @property
    def keeps_current(self) -> bool:
        return bool((self.i_decay < DECAY_STEPS).any())

    def node(self, dt: float, leak: np.ndarray) -> nir.NIRNode:
        """Convert to NIR.

        Args:
            dt: Time step in seconds.
            leak: The bias that v_leak holds, in the full shape; 0 if vDecay = 0.
        """
        fires, integers = self.threshold is not None, {"lava_du": self.i_decay - 1, "lava_dv": self.v_decay}
        firing: tuple[np.ndarray, ...] = ()
        if self.threshold is not None:
            firing = f32(self.threshold), np.zeros(self.threshold.shape, np.float32)
            integers["lava_vth"] = self.threshold
        if not self.v_decay.any():
            r = f32(np.full(self.v_decay.shape, 1 / dt))
            node: nir.NIRNode = nir.IF(r, *firing) if fires else nir.I(r)
        else:
            gain, scale = DECAY_STEPS / self.v_decay, DECAY_STEPS / self.i_decay
            membrane = (f32(dt * gain), f32(gain), f32(leak * gain), *firing)
            if self.keeps_current:
                node = (nir.CubaLIF if fires else nir.CubaLI)(f32(dt * scale), *membrane, w_in=f32(scale))
            else:
                node = (nir.LIF if fires else nir.LI)(*membrane)
        node.metadata = {key: int(x.flat[0]) for key, x in integers.items() if not np.ptp(x)} | {"lava_bias_exp": 6}
        return node


def read_neuron(layer: Layer, shape: tuple[int, ...]) -> Neuron | None:
    """Read the neurons of a layer, None for a read-out without memory; `shape` starts with the channels.

    Raises:
        UnsupportedLayerError: The neurons have no equivalent in NIR, or netx would lose part of
            them.
    """
    keys = {key.partition("/")[2] for key in layer.values if key.startswith("neuron/")}
    if not keys:
        return None  # SLAYER outputs its current
    kind = layer.values.get("neuron/type")
    if not isinstance(kind, str) or kind not in NEURON_TYPES:
        raise layer.refuse(
            f"neurons of type {str(kind)[:80]!r} do not exist in NIR", f"train with {' or '.join(NEURON_TYPES)}"
        )
    for key in sorted(keys - NEURON_KEYS - set(NEURON_FIXED)):
        layer.ignore(f"neuron/{key}")
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

    i_decay, v_decay = (per_channel(key, DECAY_STEPS, "clamp it") for key in ("iDecay", "vDecay"))
    readout = bool(np.all(layer.values.get("neuron/vThMant") == READOUT_THRESHOLD))
    if readout and np.all(i_decay == DECAY_STEPS) and np.all(v_decay == DECAY_STEPS):
        return None
    threshold = None if readout else per_channel("vThMant", THRESHOLD_LIMIT, SCALE)
    if threshold is not None and "theta" in keys and (per_channel("theta", 2**30, SCALE) != threshold * 64).any():
        layer.ignore("neuron/theta (it is not 64 vThMant)")
    neuron = Neuron(i_decay, v_decay, threshold)
    if not i_decay.all() or (not v_decay.all() and (v_decay.any() or neuron.keeps_current)):
        what = "is 0: NIR's time constants are finite, and its IF keeps no current"
        raise layer.refuse(f"neuron/{'vDecay' if i_decay.all() else 'iDecay'} {what}", "set it to at least 1")
    return neuron
