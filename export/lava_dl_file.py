"""lava-dl's HDF5 network file → NIR graph: what `slayer.block.*.export_hdf5` writes and `lava.lib.dl.netx` reads, without either.

The graph says what netx runs in Lava's fixed point, with the file's integers as they are in `weight`. In Lava's units:

    u = u (1 - iDecay/4096) + W s;   v = v (1 - vDecay/4096) + u + bias;   spike where v > vThMant, then v = 0

tau_syn = dt 4096/iDecay, w_in = 4096/iDecay, tau_mem = dt 4096/vDecay, r = 4096/vDecay, so that rounding 4096 dt/tau and the weights'
scale w_in dt/tau_syn r dt/tau_mem = 1 recovers every integer. iDecay = 4096 keeps no current: that is a LIF (with vDecay = 0 an IF of
r = 1/dt), everything else a CubaLIF. The bias enters the membrane, never the current: where a linear node's bias would pass through a
current or a Delay first, or is not one per channel, it is v_leak = bias 4096/vDecay, with v_reset = 0. All state starts at 0, v too.

Shapes are (C, H, W) and flatten in that order, as in SLAYER; netx's own order (W, H, C) never shows. A synapse takes one step in
Lava; that latency is not in the graph, but for the one step of a recurrent edge. A delay by output holds back the neuron's input, as
in netx, not its spikes, as in SLAYER: with a bias they differ until the delay is over. An input layer with neurons takes analog
values x: its current is weight x + bias. Loihi's 24 bits of u (they wrap) and of v (clipped) are not in NIR: the graph is netx's
network while neither happens.

What netx would drop or change in silence is refused. Measured in lava-dl 0.6.0: it runs the lone weight -1 as 0, weights {-2, 0} as
{-1, 0}, {-255, 0} as 0, all positive weights as 0 once one exceeds 255, 128 convolution groups as no synapse, and the weights
(30, -4, 6) of a dense_rec with delays eight times as large. It does not round odd weights of mixed sign: -256 … 254 arrive as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from mksgn.export.errors import UnsupportedLayerError
from mksgn.export.lower import SCHEMA
from mksgn.train import checkpoint
from mksgn.train.errors import BadInputError

DECAY = 4096  # decays are in units of 1/4096
MAX_DELAY = 62  # netx clamps longer ones
MAX_THRESHOLD = 2**17 - 1  # 17 bits
READOUT_THRESHOLD = 2**18 - 1  # what SLAYER's Affine writes for a layer that never fires
BIAS = (-(2**12), 2**12 - 1)  # 13 bits, signed
EXACT = 2**24  # float32 holds every integer up to here
MAX_CONV = 127  # Lava's Conv keeps groups, kernel, stride, padding and dilation in int8
INPUT_WEIGHT = 64  # netx's, where an input layer has none
MAX_VALUES = 2**28  # of one array: a damaged or hostile header must not allocate the machine's memory

DENSE = {"shape", "weight", "bias", "delay", "neuron/", "inFeatures", "outFeatures"}
CONV = {"shape", "weight", "bias", "delay", "neuron/", "inChannels", "outChannels", "kernelSize"}
KEYS = {  # of each layer type that is read; every other key would be lost
    "input": {"shape", "weight", "bias", "neuron/"},
    "conv": CONV | {"stride", "padding", "dilation", "groups"},
    "flatten": {"shape"},
    "dense": DENSE,
    "dense_rec": DENSE | {"weight_rec"},
}
NEURON_KEYS = {"type", "iDecay", "vDecay", "vThMant", "theta", "tauRho", "scaleRho"}  # the last two: the surrogate's
NEURON_FIXED = {
    "refDelay": 1,
    "gradedSpike": 0,
    "messageBits": 0,
    "weight_exp": 0,
    "wgtExp": 0,
}  # as netx runs them all
NEURON_TYPES = ("CUBA", "LOIHI")
SCALE = "scale weight, bias and vThMant alike"


def read(path: Path, *, dt: float = 1e-4, input_shape: tuple[int, ...] | None = None) -> nir.NIRGraph:
    """The file's network as a graph of stock NIR primitives, one step being `dt` seconds.

    `input_shape`, (C, H, W) or (N,), is for files without an input layer; only a convolution with a stride needs it.

    The neurons of layer i are node `layer<i>`, the nodes before them that name with `_dense`, `_conv`, `_recurrent`, `_flatten`,
    `_delay` or `_scale`. The graph is type-checked unless nir cannot type it (grouped convolutions, most kernels that are not square).
    Raises UnsupportedLayerError for what NIR cannot say or netx would lose, BadInputError for a missing, damaged or foreign file.
    """
    if not (np.isfinite(dt) and dt > 0):
        raise BadInputError(f"dt is {dt}, expected a time step in seconds above 0, as 1e-4")
    builder = _Builder(dt, input_shape or ())
    for layer in _load(path):
        builder.add(layer)
    if not builder.populations:
        raise BadInputError(f"{path}: holds no layer with neurons; export the whole network")
    versions = checkpoint.tool_versions("mksgn", "nir", "numpy", "h5py")
    return builder.graph(parent=checkpoint.sha256(path), versions=json.dumps(versions))


# --- the file -------------------------------------------------------------------------------------------------------------


@dataclass
class _Layer:
    """One numbered group: its values by key (`neuron/iDecay`), and the errors that name it."""

    path: Path
    index: int
    kind: str
    values: dict[str, Any]  # str, or a NumPy array of numbers

    def refuse(self, what: str, remedy: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(f"{self.path}: layer {self.index} ({self.kind}): {what}; {remedy}")

    def integers(self, key: str, low: int = -EXACT, high: int = EXACT, remedy: str = SCALE) -> np.ndarray:
        """An array of integers in [low, high], int64. netx would cut fractions off, or wrap what is too large."""
        values = self.values.get(key)
        if not isinstance(values, np.ndarray) or not values.size:
            raise self.refuse(f"{key} is {values!r}, expected numbers", "export the network again")
        whole = np.isfinite(values) & (values == np.floor(values))
        if not whole.all():
            raise self.refuse(f"{key} holds {values[~whole][0]}, no integer", "quantise it, netx cuts it off")
        if values.min() < low or values.max() > high:
            worst = values.min() if values.min() < low else values.max()
            raise self.refuse(f"{key} holds {worst}, outside {low} … {high}", remedy)
        return values.astype(np.int64)

    def sizes(self, key: str, low: int = 1, high: int = 2**31) -> tuple[int, ...]:
        return tuple(self.integers(key, low, high, "change the layer, or export it again").ravel().tolist())

    def pair(self, key: str, low: int) -> tuple[int, int]:
        """(height, width), of one value or two."""
        values = self.sizes(key, low, MAX_CONV)
        if len(values) > 2:
            raise self.refuse(f"{key} has {len(values)} values, expected 1 or 2", "convolve over two axes")
        return values[0], values[-1]

    def agree(self, **found: tuple[int, ...]) -> None:
        """Check what netx does not read against the shapes that it does."""
        for key, expected in found.items():
            said = self.sizes(key) if key in self.values else expected
            if said != expected and set(said) != set(expected):
                raise self.refuse(f"{key} is {said}, but its other values give {expected}", "export it again")


def _load(path: Path) -> list[_Layer]:
    if not path.is_file():
        raise BadInputError(f"{path}: no such file; slayer's blocks write one with export_hdf5")
    try:
        with h5py.File(path, "r") as file:
            return _layers(path, file)
    except BadInputError:
        raise
    except Exception as error:  # h5py: OSError, KeyError, RuntimeError, … according to where the damage sits
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInputError(f"{path}: no readable HDF5 file ({reason}); it may be truncated: copy it again") from error


def _layers(path: Path, file: h5py.File) -> list[_Layer]:
    top = _member(path, file, "layer") if "layer" in file else None
    if not isinstance(top, h5py.Group):
        raise BadInputError(f"{path}: has no group 'layer', so it is no lava-dl network; use a file of export_hdf5")
    lost = sorted(set(file) - {"layer", "simulation"})  # simulation: slayerPytorch's Ts and tSample, of its training
    if lost:
        raise UnsupportedLayerError(f"{path}: netx drops {lost[0]!r} beside 'layer' in silence; remove it")
    missing = [str(i) for i in range(max(len(top), 1)) if str(i) not in top]
    if missing:
        raise BadInputError(f"{path}: layer {missing[0]} of {len(top)} is missing; number them from 0 without gaps")
    layers = []
    for i in range(len(top)):
        group = _member(path, top, str(i))
        values = _values(path, group) if isinstance(group, h5py.Group) else {}
        kind = values.pop("type", None)
        if not isinstance(kind, str):
            raise BadInputError(f"{path}: layer {i} has no 'type'; export it again")
        layers.append(_Layer(path, i, kind, values))
    return layers


def _values(path: Path, group: h5py.Group, prefix: str = "") -> dict[str, Any]:
    """Every dataset below a group: numbers as arrays, text as str. Nothing else is read, so that nothing runs."""
    found: dict[str, Any] = {}
    for name in group:
        key, item = prefix + name, _member(path, group, name)
        if isinstance(item, h5py.Group):
            found |= _values(path, item, f"{key}/")
        elif item.dtype.kind == "S" or h5py.check_string_dtype(item.dtype) is not None:
            text = item[()] if item.shape == () else item[0]
            found[key] = text.decode("ascii") if isinstance(text, bytes) else str(text)
        elif item.dtype.kind in "biuf" and item.shape is not None and item.size <= MAX_VALUES:
            found[key] = np.asarray(item[()])
        else:
            raise BadInputError(
                f"{path}: {item.name} holds {item.size} values of {item.dtype}; text and up to {MAX_VALUES} numbers are read"
            )
    return found


def _member(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A group or dataset that lies in this file: a link could name any other file, or lead in a circle."""
    item = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
    if isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external):
        return item
    if isinstance(item, h5py.Group) and item.name.count("/") <= 3:  # /layer/0/neuron
        return item
    raise BadInputError(
        f"{path}: {name!r} in {group.name} is a link, lies in another file or too deep; copy it into place"
    )


# --- neurons --------------------------------------------------------------------------------------------------------------


@dataclass
class _Neuron:
    """Lava's integers of a population, int64, each of the full shape."""

    i_decay: np.ndarray
    v_decay: np.ndarray
    threshold: np.ndarray

    @property
    def remembers_current(self) -> bool:
        return bool((self.i_decay < DECAY).any())

    def node(self, dt: float, leak: np.ndarray) -> nir.NIRNode:
        """`leak` is the bias that v_leak has to carry; 0 for vDecay = 0."""
        threshold, zero = _f32(self.threshold), np.zeros(self.threshold.shape, np.float32)
        if not self.v_decay.any():
            node: nir.NIRNode = nir.IF(_f32(np.full(threshold.shape, 1 / dt)), threshold, zero)
        else:
            gain = DECAY / self.v_decay
            membrane = (_f32(dt * gain), _f32(gain), _f32(leak * gain), threshold, zero)
            scale = DECAY / self.i_decay
            cuba = self.remembers_current
            node = nir.CubaLIF(_f32(dt * scale), *membrane, w_in=_f32(scale)) if cuba else nir.LIF(*membrane)
        integers = {"lava_du": self.i_decay - 1, "lava_dv": self.v_decay, "lava_vth": self.threshold}
        node.metadata = {key: int(x.flat[0]) for key, x in integers.items() if not np.ptp(x)} | {"lava_bias_exp": 6}
        return node


def _neuron(layer: _Layer, shape: tuple[int, ...]) -> _Neuron:
    found = {key.partition("/")[2] for key in layer.values if key.startswith("neuron/")}
    if not found:
        what = "has no neuron: SLAYER gives its current, netx integrates it up to a threshold of 131072"
        raise layer.refuse(what, "give it a neuron, or leave the layer out")
    kind = layer.values.get("neuron/type")
    if not isinstance(kind, str) or kind not in NEURON_TYPES:
        raise layer.refuse(
            f"neurons of type {str(kind)[:80]!r} are not in NIR", f"train with {' or '.join(NEURON_TYPES)}"
        )
    for key in sorted(found - NEURON_KEYS - set(NEURON_FIXED)):
        raise layer.refuse(f"netx drops neuron/{key} in silence", "remove it if the network runs without it")
    for key in sorted(found & set(NEURON_FIXED)):
        values = np.unique(layer.integers(f"neuron/{key}"))
        if values.tolist() != [NEURON_FIXED[key]]:
            what = f"neuron/{key} is {values[-1]}, which netx drops in silence and NIR's neurons do not have"
            raise layer.refuse(what, f"train with {key} = {NEURON_FIXED[key]}")

    def per_channel(key: str, high: int, remedy: str) -> np.ndarray:
        values = layer.integers(f"neuron/{key}", 0, high, remedy).ravel()
        if values.size not in (1, shape[0]):
            raise layer.refuse(
                f"neuron/{key} has {values.size} values for {shape[0]} channels", "write one, or one each"
            )
        return np.broadcast_to(values.reshape(-1, *(1,) * (len(shape) - 1)), shape)

    if np.all(layer.values.get("neuron/vThMant") == READOUT_THRESHOLD):
        raise layer.refuse(f"vThMant is {READOUT_THRESHOLD}: a read-out that never fires", "leave the layer out")
    threshold = per_channel("vThMant", MAX_THRESHOLD, SCALE)
    if "theta" in found and (per_channel("theta", 2**30, SCALE) != threshold * 64).any():
        raise layer.refuse("neuron/theta is not 64 vThMant, and netx drops it in silence", "remove it")
    i_decay, v_decay = (per_channel(key, DECAY, "clamp it") for key in ("iDecay", "vDecay"))
    neuron = _Neuron(i_decay, v_decay, threshold)
    if not i_decay.all() or (not v_decay.all() and (v_decay.any() or neuron.remembers_current)):
        what = "is 0: NIR's time constants are finite, and its IF has no memory in the current"
        raise layer.refuse(f"neuron/{'vDecay' if i_decay.all() else 'iDecay'} {what}", "set it to at least 1")
    return neuron


# --- the graph ------------------------------------------------------------------------------------------------------------


class _Builder:
    def __init__(self, dt: float, input_shape: tuple[int, ...]):
        self.dt, self.input_shape = dt, tuple(input_shape)
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.shape: tuple[int, ...] = ()  # of the last node's output; () before the first layer
        self.last = "input"
        self.populations = 0
        self.typed = True  # whether nir finds the right types of every node
        self.flattened: _Layer | None = None  # a flatten layer that waits for its dense layer

    def graph(self, **metadata: str) -> nir.NIRGraph:
        self.no_flatten_waits()
        self.put("output", nir.Output({"output": np.array(self.shape)}), [self.last])
        facts = {"schema": SCHEMA, "profile": "portable", "source": "lava-dl", "dt": self.dt}
        reset = "hard, to 0; all state is 0 at the start of a clip"
        return nir.NIRGraph(self.nodes, self.edges, metadata=facts | {"reset": reset} | metadata, type_check=self.typed)

    def add(self, layer: _Layer) -> None:
        if layer.kind not in KEYS:
            known = ", ".join(sorted(KEYS))
            raise layer.refuse("netx cannot run this type, or skips it in silence", f"build the network of {known}")
        if any(key.startswith("weight/") for key in layer.values):
            raise layer.refuse("complex weights are not in NIR", "train with real ones")
        for key in sorted(layer.values):
            if ("neuron/" if key.startswith("neuron/") else key) not in KEYS[layer.kind]:
                raise layer.refuse(f"netx drops {key!r} in silence", "remove it if the network runs without it")
        if layer.kind in ("input", "conv"):
            self.no_flatten_waits()
        if self.input_shape and not layer.index and layer.kind != "input":
            self.start(self.input_shape)
        {"input": self.input, "conv": self.conv, "flatten": self.flatten}.get(layer.kind, self.dense)(layer)

    def no_flatten_waits(self) -> None:
        if self.flattened:
            raise self.flattened.refuse("netx drops a flatten that no dense layer follows", "leave it out")

    def put(self, name: str, node: nir.NIRNode, sources: list[str]) -> str:
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def population(self, layer: _Layer, neuron: _Neuron, sources: list[str], leak: np.ndarray) -> None:
        if leak.any() and not neuron.v_decay.any():
            what = "neuron/vDecay is 0: NIR's IF has no place for a bias beside a delay, or of a single neuron"
            raise layer.refuse(what, "set it to at least 1")
        self.last = self.put(f"layer{layer.index}", neuron.node(self.dt, leak), sources)
        self.populations += 1

    def start(self, shape: tuple[int, ...], signal: str = "spikes") -> None:
        self.nodes["input"] = nir.Input({"input": np.array(shape)})
        self.nodes["input"].metadata = {"signal": signal}
        self.shape = shape

    def input(self, layer: _Layer) -> None:
        shape = layer.sizes("shape")
        if layer.index:
            raise layer.refuse("netx leaves an input that is not the first layer unconnected", "leave it out")
        if self.input_shape not in ((), shape):
            raise layer.refuse(f"shape is {shape}, input_shape {self.input_shape}", "leave input_shape out")
        if len(shape) not in (1, 3):
            raise layer.refuse(f"shape is {shape}, netx runs (N,) and (C, H, W)", "reshape the input")
        if not any(key.startswith("neuron/") for key in layer.values):
            if set(layer.values) != {"shape"}:
                raise layer.refuse("netx drops weight and bias of an input without neurons", "remove them")
            return self.start(shape)
        self.start(shape, "analog")
        neuron = _neuron(layer, shape)
        if neuron.remembers_current:
            what = f"neuron/iDecay is {neuron.i_decay.min()}: SLAYER filters the input by it, netx does not"
            raise layer.refuse(what, "train the input with current_decay = 1")
        weight, bias = (layer.sizes(key, -EXACT, EXACT) if key in layer.values else () for key in ("weight", "bias"))
        if len(weight) > 1 or len(bias) > 1:
            raise layer.refuse("weight or bias of the input has more than one value", "write one each")
        gain, offset = weight[0] if weight else INPUT_WEIGHT, bias[0] if bias else 0
        if not offset:
            node: nir.NIRNode = nir.Scale(_f32(np.full(shape, gain)))
        elif len(shape) == 1:
            node = nir.Affine(_f32(gain * np.eye(shape[0])), _f32(np.full(shape, offset)))
        else:
            kernel = gain * np.eye(shape[0])[:, :, None, None]
            node = nir.Conv2d(shape[1:], _f32(kernel), (1, 1), (0, 0), (1, 1), 1, _f32(np.full(shape[0], offset)))
        self.population(layer, neuron, [self.put("layer0_scale", node, ["input"])], np.zeros(shape))

    def conv(self, layer: _Layer) -> None:
        weight = layer.integers("weight")
        weight = weight[..., 0] if weight.ndim == 5 and weight.shape[4] == 1 else weight
        if weight.ndim != 4 or max(weight.shape[2:]) > MAX_CONV:
            remedy = f"write it as (C_out, C_in/groups, H, W), H and W at most {MAX_CONV}"
            raise layer.refuse(f"weight has shape {weight.shape}", remedy)
        stride, padding, dilation = layer.pair("stride", 1), layer.pair("padding", 0), layer.pair("dilation", 1)
        groups, kernel = layer.sizes("groups", 1, MAX_CONV)[0], weight.shape[2:]
        outputs, inputs = weight.shape[0], weight.shape[1] * groups
        layer.agree(inChannels=(inputs,), outChannels=(outputs,), kernelSize=kernel)
        if "delay" in layer.values and layer.integers("delay").any():
            raise layer.refuse("netx drops the delays of a convolution in silence", "train without them")
        axes = list(zip(kernel, stride, padding, dilation, strict=True))
        said = layer.sizes("shape")
        if not self.shape:  # the size of the output tells that of the input, unless a stride leaves a remainder
            if stride != (1, 1) or len(said) != 3:
                raise layer.refuse("the file does not say the input's size", "give input_shape = (C, H, W)")
            self.start((inputs, *(n + d * (k - 1) - 2 * p for n, (k, _, p, d) in zip(said[1:], axes, strict=True))))
        if len(self.shape) != 3 or self.shape[0] != inputs or outputs % groups:
            what = f"{groups} groups of {weight.shape[1]} channels, {outputs} in all, on an input {self.shape}"
            raise layer.refuse(what, "give it an input (C, H, W) with as many channels")
        spans = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, (k, s, p, d) in zip(self.shape[1:], axes, strict=True)]
        shape = (outputs, *spans)
        if said != shape:
            raise layer.refuse(
                f"shape is {said}, but weight, stride, padding and dilation give {shape}", "export it again"
            )
        neuron = _neuron(layer, shape)
        bias, leak = np.zeros(outputs), np.zeros(shape)
        if "bias" in layer.values:
            values = layer.integers("bias", *BIAS)
            if values.shape == shape[::-1]:
                leak = values.transpose()  # one per neuron, in netx's order (W, H, C)
            elif values.shape != (outputs,):
                raise layer.refuse(f"bias has shape {values.shape}", f"write it as {(outputs,)}")
            elif neuron.remembers_current:
                leak = np.broadcast_to(values[:, None, None], shape)
            else:
                bias = values
        # "same" is the one form in which nir types a kernel that is not square
        same = (
            kernel[0] != kernel[1] and stride == (1, 1) and shape[1:] == self.shape[1:] and all(k % 2 for k in kernel)
        )
        node = nir.Conv2d(
            self.shape[1:], _f32(weight), stride, "same" if same else padding, dilation, groups, bias=_f32(bias)
        )
        self.typed &= groups == 1 and tuple(node.output_type["output"]) == shape
        self.shape = shape
        self.population(layer, neuron, [self.put(f"layer{layer.index}_conv", node, [self.last])], leak)

    def flatten(self, layer: _Layer) -> None:
        if len(self.shape) == 3:
            node = nir.Flatten({"input": np.array(self.shape)}, 0, -1)
            self.last = self.put(f"layer{layer.index}_flatten", node, [self.last])
            self.shape = (int(np.prod(self.shape)),)
            self.flattened = layer if layer.kind == "flatten" else None

    def dense(self, layer: _Layer) -> None:
        outputs = int(np.prod(layer.sizes("shape")))
        parts = [_matrix(layer, "weight", outputs)]
        if layer.kind == "dense_rec":
            parts.append(_matrix(layer, "weight_rec", outputs, outputs))
        inputs = parts[0].shape[1]
        layer.agree(inFeatures=(inputs,), outFeatures=(outputs,))
        _check_held(layer, parts)
        if not self.shape:
            self.start((inputs,))
        if len(self.shape) == 3 and sorted(self.shape)[:2] == [1, 1]:
            self.flatten(layer)
        if self.shape != (inputs,):
            what = f"{inputs} columns of weights on an input {self.shape}"
            raise layer.refuse(what, "put a flatten layer before it" if len(self.shape) == 3 else "export it again")
        self.flattened, self.shape = None, (outputs,)
        neuron = _neuron(layer, self.shape)
        if "delay" in layer.values and len(parts) > 1:
            what = "netx delays the loop as well, and gets the weights' scale wrong"
            raise layer.refuse(what, "train without delays, or remove them if all are 0")
        delay = _delays(layer, parts[0].shape)
        by_output = bool((delay == delay[:, :1]).all() and (delay != delay[:1]).any())
        bias = layer.integers("bias", *BIAS).ravel() if "bias" in layer.values else np.zeros(1)
        if bias.size not in (1, outputs):
            raise layer.refuse(f"bias has {bias.size} values", f"write it as {self.shape}")
        bias, leak = np.broadcast_to(bias, self.shape), np.zeros(self.shape)
        if neuron.remembers_current or by_output:
            bias, leak = leak, bias
        sources = self.synapses(layer.index, parts[0], bias, delay, by_output)
        for recurrent in parts[1:]:
            name = f"layer{layer.index}"
            sources.append(self.put(f"{name}_recurrent", nir.Linear(_f32(recurrent)), [name]))
        self.population(layer, neuron, sources, leak)

    def synapses(
        self, index: int, weight: np.ndarray, bias: np.ndarray, delay: np.ndarray, by_output: bool
    ) -> list[str]:
        """The nodes whose sum is the neurons' input. `delay` (O, I), in steps, lies behind the weights where it is one per output
        (`by_output`), before them where it is one per input; else there is one branch for each of its values."""
        name, late = f"layer{index}_dense", f"layer{index}_delay"

        def delayed(name: str, steps: np.ndarray, source: str) -> str:
            return self.put(name, nir.Delay(_f32(steps * self.dt)), [source]) if steps.any() else source

        if by_output:
            return [delayed(late, delay[:, 0], self.put(name, _linear(weight, bias), [self.last]))]
        if (delay == delay[:1]).all():
            return [self.put(name, _linear(weight, bias), [delayed(late, delay[0], self.last)])]
        found: list[str] = []
        for steps in np.unique(delay):
            source = delayed(f"{late}{steps}", np.full(weight.shape[1], steps), self.last)
            node = _linear(np.where(delay == steps, weight, 0), np.zeros_like(bias) if found else bias)
            found.append(self.put(f"{name}{steps}", node, [source]))
        return found


def _linear(weight: np.ndarray, bias: np.ndarray) -> nir.NIRNode:
    return nir.Affine(_f32(weight), _f32(bias)) if bias.any() else nir.Linear(_f32(weight))


def _matrix(layer: _Layer, key: str, rows: int, columns: int | None = None) -> np.ndarray:
    """(rows, columns); one axis is read row by row, as netx does."""
    weight = layer.integers(key)
    if weight.ndim == 1 and weight.size % rows == 0:
        weight = weight.reshape(rows, -1)
    if weight.ndim != 2 or weight.shape[0] != rows or columns not in (None, weight.shape[1]):
        raise layer.refuse(f"{key} has shape {weight.shape}", f"write it as ({rows}, {columns or 'inputs'})")
    return weight


def _delays(layer: _Layer, shape: tuple[int, ...]) -> np.ndarray:
    """Steps by synapse, (O, I). netx takes a vector as one per output if its length allows, else as one per input."""
    if "delay" not in layer.values:
        return np.zeros(shape, dtype=np.int64)
    delay = layer.integers("delay", 0, MAX_DELAY, "train with shorter delays, netx clamps them")
    delay = delay[:, None] if delay.shape == shape[:1] else delay
    if delay.size > 1 and delay.shape not in (shape, shape[1:], (shape[0], 1)):
        raise layer.refuse(f"delay has shape {delay.shape}", f"write it as {shape[:1]}, {shape[1:]} or {shape}")
    return np.broadcast_to(delay, shape)


def _check_held(layer: _Layer, parts: list[np.ndarray]) -> None:
    for weight, held in zip(parts, held_weights(parts), strict=True):
        if (weight != held).any():
            o, i = np.argwhere(weight != held)[0]
            what = f"netx would run weight {weight[o, i]} from input {i} to output {o} as {held[o, i]}"
            raise layer.refuse(what, f"{SCALE} into -256 … 254, or give the layer one positive weight")


def held_weights(parts: list[np.ndarray]) -> list[np.ndarray]:
    """What netx makes of the integer weights (O, I) of a layer's synapses: its `optimize_weight_bits`, over all of them
    together, then what Lava's fixed-point Dense clips and cuts off, of each alone."""
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
    found: list[np.ndarray] = []
    for p in parts:
        positive, negative = p.min() >= 0, p.max() <= 0
        drop = shift + zero_bits - mixed + (not positive and not negative)
        sign = -1 if negative and not positive else 1
        p = np.clip(sign * p << max(shift, 0), 0 if positive or negative else -256, 255)
        lost = shift < 0 or drop < 0  # NumPy shifts everything out
        found.append(np.zeros_like(p) if lost else sign * (p >> drop << drop) >> shift)
    return found


def _f32(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, dtype=np.float32)
