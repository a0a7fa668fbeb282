"""Hypothesis strategies for random quantised NIR graphs: integers times a power of two per population.

The numbers are drawn with unit 1 and then scaled by the population's unit u = 2**k. Weights are even
integers in [-254, 254] times u, a bias is an integer times u, and a threshold is (integer + 1/128)
times gain times u, where gain is what the node multiplies a current by in one step.
"""

import json
from collections.abc import Collection

import nir
import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from mksgn.export.graph.nodes import SpikingSelfAttention
from tests.support import euler_oracle
from tests.support.firing_thresholds import settle
from tests.support.graphs import DT, F32, attention
from tests.support.network_builder import Builder, Signal
from tests.support.random_networks import Network

FEATURES = frozenset(
    [
        *("conv1d", "conv2d", "stride", "dilation", "groups", "rectangular", "same", "graph_conv"),
        *("affine", "linear", "pool", "flatten", "if", "lif", "cubalif", "attention", "per_neuron", "per_neuron_tau"),
        *("skip", "join", "delay", "delay_behind", "per_element", "self_loop", "conv_loop", "loop"),
        *("inputs", "outputs", "readout", "li_readout", "names", "half", "quarter", "other_rate"),
    ]
)
STOCK = FEATURES - {"if", "cubalif", "per_neuron", "per_neuron_tau", "loop", "readout", "li_readout", "delay_behind"}
WEIGHT, BIAS, THRESHOLD, SUM = 254, 4095, 131071, 131071  # largest magnitudes, in units
RATES = {"half": 0.5, "quarter": 0.25, "other_rate": 0.3}


class IntegerBuilder(Builder):
    clear = 0.0  # the thresholds' 1/128 is the distance

    def __init__(self, draw, allowed: Collection[str], most_weight: int = WEIGHT):
        super().__init__(draw, allowed)
        self.dt = DT
        self.most_weight = most_weight
        self.halves = "half" in self.allowed and draw(
            st.booleans()
        )  # in the whole network, so that no chip decay truncates

    def weight(self, *shape: int) -> np.ndarray:
        largest = self.draw(st.sampled_from([self.most_weight, 40, 10]))
        values = np.rint(self.rng.normal(0.15, 0.5, shape) * largest / 2)
        return (2 * np.clip(values, -(largest // 2), largest // 2)).astype(F32)

    def bias(self, *shape: int) -> np.ndarray:
        return self.rng.integers(-30, 31, shape).astype(F32)

    def similar(self, weight: np.ndarray) -> np.ndarray:
        return np.maximum(np.abs(weight), 2 * np.ceil(max(np.abs(weight).max(), 2) / 4)).astype(F32)

    def adjacency(self, joints: int) -> np.ndarray:
        edges = np.argwhere(self.rng.random((joints, joints)) < 0.6)
        a = np.zeros((max(1, len(edges)), joints, joints), F32)
        for k, (i, j) in enumerate(edges):
            a[k, i, j] = 1
        return a

    def rate(self) -> float:
        name = self.one_of("half") if self.halves else self.one_of(*RATES)
        if name == "other_rate":
            return self.draw(st.sampled_from([0.3, 0.15, 0.7]))
        return RATES[name or "half"]

    def tau(self, shape, per_neuron: bool) -> np.ndarray:
        tau = np.full(shape, self.dt / self.rate())
        if per_neuron and self.may("per_neuron_tau", 5):
            tau *= self.rng.choice([1, 2, 4], shape)
        return tau.astype(F32)

    def neuron(self, kind: str, shape: tuple[int, ...]) -> nir.NIRNode:
        per_neuron = self.may("per_neuron", 5)
        threshold = self.parameter(0.7, 1.4, shape, per_neuron)
        r = self.rng.choice([0.5, 1, 2], shape if per_neuron else ()) * np.ones(shape)
        zero, r = np.zeros(shape, F32), r.astype(F32)
        if kind == "if":
            return nir.IF((r / self.if_dt).astype(F32), threshold, zero)
        tau = self.tau(shape, per_neuron)
        if kind == "lif":
            return nir.LIF(tau, r, zero, threshold, zero.copy())
        w_in = self.rng.choice([0.5, 1, 1.5], shape if per_neuron else ()) * np.ones(shape)
        return nir.CubaLIF(self.tau(shape, per_neuron), tau, r, zero, threshold, zero.copy(), w_in.astype(F32))

    def attention_node(self, heads: int) -> SpikingSelfAttention:
        gains = (2 * self.rng.integers(1, 20, 2)).astype(F32)
        thresholds = self.parameter(0.7, 1.4, (2, heads), "per_neuron" in self.allowed)
        return attention(heads, *gains, *thresholds, tau=self.dt / self.rate())

    def readout(self, leaf: Signal) -> Signal:
        signal = self.dense(leaf, outputs=self.size(2, 5))
        if not self.may("li_readout", 4):
            return signal
        zero = np.zeros(signal.shape, F32)
        node = nir.LI(self.tau(signal.shape, False), zero + 1, zero)
        return Signal(self.add("li", node, signal.name), signal.shape, signal.depth + 1)

    def snap(self, node: nir.NIRNode, threshold: np.ndarray) -> np.ndarray:
        gain = step_gain(node, self.dt, self.if_dt)
        integers = np.clip(np.rint(threshold / gain), 1, THRESHOLD)
        return ((integers + 1 / 128) * gain).astype(F32)

    # --- linear paths into a population

    def weighted_sources(self, name: str) -> tuple[list[str], bool]:
        """Return the weighted nodes whose currents `name` adds up, and whether a Delay follows one of them."""
        weighted, delayed, new = [], False, [a for a, b in self.edges if b == name]
        while new:
            node = self.nodes[source := new.pop()]
            if hasattr(node, "weight"):
                weighted.append(source)
            elif not isinstance(node, (*euler_oracle.NEURONS, nir.Input)):
                delayed |= isinstance(node, nir.Delay)
                new += [a for a, b in self.edges if b == source]
        return sorted(set(weighted)), delayed

    def largest_current(self, name: str, spikes: float) -> np.ndarray:
        """Bound the current that can reach a node: `spikes` from every neuron, every weight and bias positive."""
        node = self.nodes[name]
        if isinstance(node, SpikingSelfAttention):
            channels, *sizes = (int(n) for n in node.input_type["input"])
            return np.full((1, channels // 3, *sizes), spikes, F32)
        if isinstance(node, (*euler_oracle.NEURONS, nir.Input)):
            shape = node.input_type["input"]
            return np.full((1, *(int(n) for n in shape)), spikes, F32)
        total = self.largest_sum(name, spikes)
        return total if isinstance(node, nir.Delay | nir.Output) else euler_oracle.apply(positive(node), total)

    def largest_sum(self, name: str, spikes: float) -> np.ndarray:
        return np.sum([self.largest_current(a, spikes) for a, b in self.edges if b == name], 0)

    def bound(self) -> None:
        """Reduce weights and biases where a membrane could leave its range; drop a bias where a chip cannot hold it."""
        for name, node in list(self.nodes.items()):
            if not isinstance(node, nir.LIF | nir.IF | nir.CubaLIF | nir.LI | nir.Output):
                continue
            weighted, delayed = self.weighted_sources(name)
            cuba = isinstance(node, nir.CubaLIF)
            for w in weighted:
                if (cuba or delayed) and hasattr(self.nodes[w], "bias"):
                    self.nodes[w].bias = np.zeros_like(self.nodes[w].bias)
            while weighted and self.largest_sum(name, 0.0).max() > BIAS:
                for w in weighted:
                    if hasattr(self.nodes[w], "bias"):
                        self.nodes[w].bias = np.trunc(self.nodes[w].bias / 2)
            while weighted and self.largest_sum(name, 1.0).max() * self.steps ** (2 if cuba else 1) > SUM:
                for w in weighted:
                    self.nodes[w].weight = 2 * np.trunc(self.nodes[w].weight / 3)
                    if hasattr(self.nodes[w], "bias"):
                        self.nodes[w].bias = np.trunc(self.nodes[w].bias / 2)

    # --- the file

    def quantised(self) -> nir.NIRGraph:
        """Scale every population by a unit of its own, and note the units in the metadata."""
        units: dict[str, int] = {}
        for name, node in self.nodes.items():
            k = int(self.rng.integers(-9, 1))
            if isinstance(node, SpikingSelfAttention):
                for part in "mz":
                    units[f"{name}.{part}"] = k
                    for field in ("gain", "threshold"):
                        setattr(node, f"{field}_{part}", getattr(node, f"{field}_{part}") * F32(2.0**k))
                    k += 1
                continue
            weighted, _ = self.weighted_sources(name)
            if isinstance(node, nir.Output) and weighted:
                units[weighted[0]] = k
            elif isinstance(node, nir.LIF | nir.IF | nir.CubaLIF | nir.LI):
                units[name] = k
                if not isinstance(node, nir.LI):
                    node.v_threshold = node.v_threshold * F32(2.0**k)
            else:
                continue
            for w in weighted:
                for field in ("weight", "bias"):
                    if hasattr(self.nodes[w], field):
                        setattr(self.nodes[w], field, getattr(self.nodes[w], field) * F32(2.0**k))
        populations = {name: {"exponent": k} for name, k in units.items()}
        quantization = {"bits": 8, "exact_on_chip": self.exact(), "populations": populations}
        return self.finish(quantization=json.dumps(quantization))

    def exact(self) -> bool:
        """Whether no chip decay ever truncates: few steps of 1/2 or 1/4, as even integers << 6 have 7 bits to spare."""
        states = (nir.LIF, nir.CubaLIF, nir.LI, SpikingSelfAttention)
        nodes = [n for n in self.nodes.values() if isinstance(n, states)]
        drifting = (
            any(isinstance(n, nir.IF) for n in self.nodes.values()) and self.if_dt != 1.0
        )  # its gain is no power of two
        if drifting or any(isinstance(n, nir.CubaLIF) for n in nodes):
            return False
        rates = {float(rate) for n in nodes for rate in np.unique(F32(self.dt) / np.asarray(n.tau, F32))}
        return rates <= {0.5, 0.25} and self.steps <= (7 if rates <= {0.5} else 4)


def step_gain(node: nir.NIRNode, dt: float, if_dt: float) -> np.ndarray:
    """Return the membrane potential that a current of 1 adds in one step, per neuron."""
    if isinstance(node, nir.IF):
        return np.float64(F32(if_dt)) * node.r
    if isinstance(node, nir.CubaLIF):
        return np.prod([np.float64(F32(dt) / p) for p in (node.tau_mem, node.tau_syn)], 0) * node.r * node.w_in
    rate = np.float64(F32(dt) / np.asarray(node.tau, F32))
    return rate if isinstance(node, SpikingSelfAttention) else rate * node.r


def positive(node: nir.NIRNode) -> nir.NIRNode:
    fields = {k: np.abs(v) for k, v in vars(node).items() if k in ("weight", "bias")}
    copied = type(node).__new__(type(node))
    copied.__dict__.update(vars(node) | fields)
    return copied


def draw_program(builder: IntegerBuilder) -> Network:
    builder.build()
    builder.rename()
    builder.bound()
    inputs = builder.draw_inputs()
    if not settle(builder, builder.finish(), inputs):
        reject()
    graph = builder.quantised()
    return Network(graph, inputs, builder.dt, builder.if_dt, frozenset(builder.used))


@st.composite
def random_programs(draw, allowed: Collection[str] = FEATURES, without: Collection[str] = ()) -> Network:
    """Draw quantised networks with some of the `allowed` features and none of those in `without`."""
    return draw_program(IntegerBuilder(draw, set(allowed) - set(without)))


@st.composite
def stock_compatible_programs(draw, without: Collection[str] = ()) -> Network:
    """Draw networks that Lava's stock Processes can run: LIF with scalar parameters, self loops, tiny attention.

    Weights are at most 62, so that those merged with overlapping pools stay within 8 bits.
    """
    builder = IntegerBuilder(draw, STOCK - set(without), most_weight=62)
    builder.widths = ((1, 1), (2, 1))
    return draw_program(builder)
