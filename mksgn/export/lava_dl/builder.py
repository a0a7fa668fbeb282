"""The conversion of lava-dl's layers, one after the other, to nodes and edges of a NIR graph."""

import json
import math
from dataclasses import asdict
from typing import Any

import nir
import numpy as np

from mksgn.export.graph.kinds import WEIGHTED
from mksgn.export.graph.metadata import SCHEMA
from mksgn.export.graph.nodes import f32
from mksgn.export.graph.weights import weight_of
from mksgn.export.lava_dl.hdf5 import MAX_CONV, Layer
from mksgn.export.lava_dl.neurons import Neuron, read_neuron
from mksgn.export.lava_dl.weights import check_weights, read_delays, read_matrix
from mksgn.export.loihi import BIAS_MANTISSA_LIMIT, FLOAT_EXACT, WEIGHT_LEAST, WEIGHT_LIMIT
from mksgn.export.quantization.scales import PopulationScale

BIAS = (-BIAS_MANTISSA_LIMIT - 1, BIAS_MANTISSA_LIMIT)
INPUT_WEIGHT = 64  # netx's default for an input layer
MOST_INPUTS = 1 << 20  # with neurons of their own; an image of 640 x 480 in two polarities has 600,000
MOST_BIASED = 1 << 12  # with a bias too: the synapses are a matrix with that many rows and columns
INPUT_SYNAPSES = "layer0_scale"
DENSE = {"shape", "weight", "bias", "delay", "neuron/", "inFeatures", "outFeatures"}
CONV = {"shape", "weight", "bias", "delay", "neuron/", "inChannels", "outChannels", "kernelSize"}
KEYS = {  # supported keys by layer type; any other key would be lost
    "input": {"shape", "weight", "bias", "neuron/"},
    "conv": CONV | {"stride", "padding", "dilation", "groups"},
    "flatten": {"shape"},
    "dense": DENSE,
    "dense_rec": DENSE | {"weight_rec"},
}


def _bound(layer: Layer, shape: tuple[int, ...], most: int) -> None:
    """Refuse an input of too many neurons: its size is only declared, no array in the file has it."""
    if math.prod(shape) > most:
        what = f"an input with neurons{' and a bias' if most == MOST_BIASED else ''} has {math.prod(shape):,} values"
        raise layer.refuse(f"{what}, the limit is {most:,}", "leave its neurons out, or split the network")


class Builder:
    """Takes the layers one by one with `add` and then builds the `graph`.

    Args:
        dt: Time step in seconds.
        input_shape: (C, H, W) or (N,), or () if the file gives it.
    """

    def __init__(self, dt: float, input_shape: tuple[int, ...]):
        self.dt, self.input_shape = dt, tuple(input_shape)
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.shape: tuple[int, ...] = ()  # output of the last node; () before the first layer
        self.last = ["input"]  # the nodes whose sum is the output of the last layer: one, except after a read-out
        self.populations: list[str] = []
        self.readout: Layer | None = None  # a layer without threshold, after which there can be no other
        self.unused: list[str] = []  # paths of what nothing uses in the file
        self.typed = True  # whether nir infers the right types for every node
        self.flattened: Layer | None = None  # a flatten layer that no dense layer has followed yet

    def graph(self, **metadata: str) -> nir.NIRGraph:
        """Return the network; `metadata` are entries to add."""
        self.check_flattened()
        self.put("output", nir.Output({"output": np.array(self.shape)}), self.last)
        entries = {"schema": SCHEMA, "profile": "portable", "source": "lava-dl", "dt": self.dt}
        entries |= {"quantization": json.dumps(self.quantization())} if self.holds_integers() else {}
        reset = "hard, to 0; all state is 0 at the start of a clip"
        return nir.NIRGraph(
            self.nodes, self.edges, metadata=entries | {"reset": reset} | metadata, type_check=self.typed
        )

    def holds_integers(self) -> bool:
        """Return whether all weights are even and of 8 bits, as SLAYER trains them; fixed point then takes them as is.

        Those of an input layer belong to the host, and may be any.
        """
        on_chip = [node for name, node in self.nodes.items() if isinstance(node, WEIGHTED) and name != INPUT_SYNAPSES]
        weights = [weight_of(node) for node in on_chip]
        return all(not np.any(w % 2) and w.min() >= WEIGHT_LEAST and w.max() <= WEIGHT_LIMIT for w in weights)

    def quantization(self) -> dict[str, Any]:
        """Return what the quantiser would record for Lava's integers, which all have the unit 1."""
        populations = list(self.populations)
        if self.readout and self.last != populations[-1:]:  # a sum, named as the compiler names it
            name = self.last[0]
            if isinstance(self.nodes[name], nir.Delay):
                name = next(source for source, target in self.edges if target == name)
            populations.append(name if len(self.last) == 1 else "output")
        as_they_are = asdict(PopulationScale(0, 1.0, "lava-dl's integers", 0))
        return {"bits": 8, "exact_on_chip": False, "populations": dict.fromkeys(populations, as_they_are)}

    def add(self, layer: Layer) -> None:
        """Append a layer.

        Raises:
            UnsupportedLayerError: NIR cannot express it, or netx would lose part of it.
        """
        if layer.kind not in KEYS:
            known = ", ".join(sorted(KEYS))
            raise layer.refuse("netx cannot run this type, or silently skips it", f"build the network of {known}")
        if any(key.startswith("weight/") for key in layer.values):
            raise layer.refuse("NIR has no complex weights", "train with real ones")
        if self.readout:
            what = "its values, which are not spikes, would enter another layer"
            raise self.readout.refuse(f"has no threshold, and {what}", "end the network with it, or give it a neuron")
        for key in sorted(layer.values):
            if ("neuron/" if key.startswith("neuron/") else key) not in KEYS[layer.kind]:
                layer.ignore(key)
        if layer.kind in ("input", "conv"):
            self.check_flattened()
        if self.input_shape and not layer.index and layer.kind != "input":
            self.start(self.input_shape)
        {"input": self.input, "conv": self.conv, "flatten": self.flatten}.get(layer.kind, self.dense)(layer)
        self.unused += layer.unused

    def check_flattened(self) -> None:
        """Refuse a flatten layer that no dense layer follows."""
        if self.flattened:
            raise self.flattened.refuse("netx drops a flatten that no dense layer follows", "leave it out")

    def put(self, name: str, node: nir.NIRNode, sources: list[str]) -> str:
        """Add a node with edges from its sources; return its name."""
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def population(self, layer: Layer, neuron: Neuron | None, sources: list[str], leak: np.ndarray) -> None:
        """Add the neurons of a layer, if it has any; `leak` is the bias that v_leak holds."""
        if neuron is None or neuron.threshold is None:
            self.readout = layer
        if neuron is None:
            self.last = sources
            return
        if leak.any() and not neuron.v_decay.any():
            what = "neuron/vDecay is 0: NIR's IF cannot hold a bias together with a delay, or one per neuron"
            raise layer.refuse(what, "set it to at least 1")
        self.last = [self.put(f"layer{layer.index}", neuron.node(self.dt, leak), sources)]
        self.populations += self.last

    def start(self, shape: tuple[int, ...], signal: str = "spikes") -> None:
        """Add the Input."""
        self.nodes["input"] = nir.Input({"input": np.array(shape)})
        self.nodes["input"].metadata = {"signal": signal}
        self.shape = shape

    def input(self, layer: Layer) -> None:
        """Add an input layer, with neurons of its own if it has any."""
        shape = layer.sizes("shape")
        if layer.index:
            raise layer.refuse("netx leaves an input that is not the first layer unconnected", "leave it out")
        if self.input_shape not in ((), shape):
            raise layer.refuse(f"shape is {shape}, input_shape {self.input_shape}", "leave input_shape out")
        if len(shape) not in (1, 3):
            raise layer.refuse(f"shape is {shape}, netx only accepts (N,) and (C, H, W)", "reshape the input")
        if not any(key.startswith("neuron/") for key in layer.values):
            for key in sorted(set(layer.values) & {"weight", "bias"}):
                layer.ignore(key)
            return self.start(shape)
        _bound(layer, shape, MOST_INPUTS)
        self.start(shape, "analog")
        neuron = read_neuron(layer, shape)
        if neuron is None or neuron.threshold is None:
            raise layer.refuse("an input without a threshold sends no spikes", "give it a neuron that fires")
        if neuron.keeps_current:
            what = f"neuron/iDecay is {neuron.i_decay.min()}: SLAYER filters the input with it, netx does not"
            raise layer.refuse(what, "train the input with current_decay = 1")
        weight, bias = (
            layer.sizes(key, -FLOAT_EXACT, FLOAT_EXACT) if key in layer.values else () for key in ("weight", "bias")
        )
        if len(weight) > 1 or len(bias) > 1:
            raise layer.refuse("weight or bias of the input has more than one value", "write one each")
        gain, offset = weight[0] if weight else INPUT_WEIGHT, bias[0] if bias else 0
        if offset:
            _bound(layer, shape, MOST_BIASED)
        if not offset:
            node: nir.NIRNode = nir.Scale(f32(np.full(shape, gain)))
        elif len(shape) == 1:
            node = nir.Affine(f32(gain * np.eye(shape[0])), f32(np.full(shape, offset)))
        else:
            kernel = gain * np.eye(shape[0])[:, :, None, None]
            node = nir.Conv2d(shape[1:], f32(kernel), (1, 1), (0, 0), (1, 1), 1, f32(np.full(shape[0], offset)))
        self.population(layer, neuron, [self.put(INPUT_SYNAPSES, node, ["input"])], np.zeros(shape))

    def conv(self, layer: Layer) -> None:
        """Add a convolution and its neurons."""
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
            raise layer.refuse("netx silently drops the delays of a convolution", "train without them")
        axes = list(zip(kernel, stride, padding, dilation, strict=True))
        declared = layer.sizes("shape")
        if not self.shape:  # the output's size determines the input's, unless a stride leaves a remainder
            if stride != (1, 1) or len(declared) != 3:
                raise layer.refuse("the file does not give the size of the input", "give input_shape = (C, H, W)")
            self.start((inputs, *(n + d * (k - 1) - 2 * p for n, (k, _, p, d) in zip(declared[1:], axes, strict=True))))
        if len(self.shape) != 3 or self.shape[0] != inputs or outputs % groups:
            what = f"{groups} groups of {weight.shape[1]} channels, {outputs} in all, on an input {self.shape}"
            raise layer.refuse(what, "give it an input (C, H, W) with as many channels")
        spans = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, (k, s, p, d) in zip(self.shape[1:], axes, strict=True)]
        shape = (outputs, *spans)
        if declared != shape:
            raise layer.refuse(
                f"shape is {declared}, but weight, stride, padding and dilation give {shape}", "export it again"
            )
        neuron = read_neuron(layer, shape)
        bias, leak = np.zeros(outputs), np.zeros(shape)
        if "bias" in layer.values:
            values = layer.integers("bias", *BIAS)
            if values.shape == shape[::-1]:
                leak = values.transpose()  # one per neuron, in netx's order (W, H, C)
            elif values.shape != (outputs,):
                raise layer.refuse(f"bias has shape {values.shape}", f"write it as {(outputs,)}")
            elif neuron and neuron.keeps_current:
                leak = np.broadcast_to(values[:, None, None], shape)
            else:
                bias = values
        # nir can only type a kernel that is not square if its padding is "same"
        same = (
            kernel[0] != kernel[1] and stride == (1, 1) and shape[1:] == self.shape[1:] and all(k % 2 for k in kernel)
        )
        node = nir.Conv2d(
            self.shape[1:], f32(weight), stride, "same" if same else padding, dilation, groups, bias=f32(bias)
        )
        self.typed &= groups == 1 and tuple(node.output_type["output"]) == shape
        self.shape = shape
        self.population(layer, neuron, [self.put(f"layer{layer.index}_conv", node, self.last)], leak)

    def flatten(self, layer: Layer) -> None:
        """Add a Flatten, unless the signal is flat already."""
        if len(self.shape) == 3:
            node = nir.Flatten({"input": np.array(self.shape)}, 0, -1)
            self.last = [self.put(f"layer{layer.index}_flatten", node, self.last)]
            self.shape = (int(np.prod(self.shape)),)
            self.flattened = layer if layer.kind == "flatten" else None

    def dense(self, layer: Layer) -> None:
        """Add a dense or recurrent dense layer and its neurons."""
        outputs = int(np.prod(layer.sizes("shape")))
        parts = [read_matrix(layer, "weight", outputs)]
        if layer.kind == "dense_rec":
            parts.append(read_matrix(layer, "weight_rec", outputs, outputs))
        inputs = parts[0].shape[1]
        layer.agree(inFeatures=(inputs,), outFeatures=(outputs,))
        check_weights(layer, parts)
        if not self.shape:
            self.start((inputs,))
        if len(self.shape) == 3 and sorted(self.shape)[:2] == [1, 1]:
            self.flatten(layer)
        if self.shape != (inputs,):
            what = f"{inputs} columns of weights on an input {self.shape}"
            raise layer.refuse(what, "put a flatten layer before it" if len(self.shape) == 3 else "export it again")
        self.flattened, self.shape = None, (outputs,)
        neuron = read_neuron(layer, self.shape)
        if "delay" in layer.values and len(parts) > 1:
            what = "netx delays the loop as well, and scales the weights wrongly"
            raise layer.refuse(what, "train without delays, or remove them if all are 0")
        delay = read_delays(layer, parts[0].shape)
        by_output = bool((delay == delay[:, :1]).all() and (delay != delay[:1]).any())
        bias = layer.integers("bias", *BIAS).ravel() if "bias" in layer.values else np.zeros(1)
        if bias.size not in (1, outputs):
            raise layer.refuse(f"bias has {bias.size} values", f"write it as {self.shape}")
        bias, leak = np.broadcast_to(bias, self.shape), np.zeros(self.shape)
        if neuron and (neuron.keeps_current or by_output):
            bias, leak = leak, bias
        sources = self.synapses(layer.index, parts[0], bias, delay, by_output)
        for recurrent in parts[1:]:
            name = f"layer{layer.index}"
            if neuron is None or neuron.threshold is None:
                raise layer.refuse(
                    "a loop without a threshold feeds back values that are not spikes", "give it a neuron"
                )
            sources.append(self.put(f"{name}_recurrent", nir.Linear(f32(recurrent)), [name]))
        self.population(layer, neuron, sources, leak)

    def synapses(
        self, index: int, weight: np.ndarray, bias: np.ndarray, delay: np.ndarray, by_output: bool
    ) -> list[str]:
        """Add weights and delays of a dense layer; return the nodes that lead into its neurons.

        Args:
            index: The layer's number.
            weight: (O, I).
            bias: (O,).
            delay: (O, I) in steps. A delay per output is put after the weights, a delay per input
                before them; otherwise there is one branch per value.
            by_output: Whether there is a delay per output.
        """
        name, delay_name = f"layer{index}_dense", f"layer{index}_delay"

        (last,) = self.last

        def delayed(name: str, steps: np.ndarray, source: str) -> str:
            return self.put(name, nir.Delay(f32(steps * self.dt)), [source]) if steps.any() else source

        if by_output:
            return [delayed(delay_name, delay[:, 0], self.put(name, _linear(weight, bias), [last]))]
        if (delay == delay[:1]).all():
            return [self.put(name, _linear(weight, bias), [delayed(delay_name, delay[0], last)])]
        branches: list[str] = []
        for steps in np.unique(delay):
            source = delayed(f"{delay_name}{steps}", np.full(weight.shape[1], steps), last)
            node = _linear(np.where(delay == steps, weight, 0), np.zeros_like(bias) if branches else bias)
            branches.append(self.put(f"{name}{steps}", node, [source]))
        return branches


def _linear(weight: np.ndarray, bias: np.ndarray) -> nir.NIRNode:
    return nir.Affine(f32(weight), f32(bias)) if bias.any() else nir.Linear(f32(weight))
