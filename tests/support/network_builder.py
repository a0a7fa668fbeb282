"""A builder that draws the structure of a random NIR graph from named features, and its numbers from a drawn seed."""

from collections.abc import Collection
from dataclasses import dataclass

import nir
import numpy as np
from hypothesis import strategies as st

from tests.support import euler_oracle
from tests.support.graphs import F32, attention, flatten, graph_conv, inp, out, pool

FEATURES = frozenset(
    [
        *("conv1d", "conv2d", "stride", "dilation", "groups", "rectangular", "same", "graph_conv"),
        *("affine", "linear", "last_axis", "batched", "scale", "pool", "avgpool", "flatten"),
        *("if", "lif", "cubalif", "threshold", "i", "li", "cubali", "leak", "reset", "per_neuron", "attention"),
        *("subtract", "subtract-at-once", "v_init"),
        *("skip", "direct", "join", "delay", "delay_behind", "per_element"),
        *("self_loop", "conv_loop", "loop", "long_loop", "delay_loop", "joined_loop"),
        *("inputs", "analog", "outputs", "readout", "nested", "names"),
    ]
)
MOST = 60  # neurons in a population
NAMES = [
    "a",
    "Zürich 1",
    "0",
    "10",
    "lif",
    "input",
    "class",
    "x-y",
    "_",
    "  b",
    "B",
    "b",
    "layer_3",
    "ß",
    "nodes",
    "v+u",
    "%d",
    "a b",
    "None",
]


@dataclass
class Signal:
    name: str
    shape: tuple[int, ...]
    depth: int  # populations on the longest path to it


class Builder:
    """A graph under construction. `used` collects the features drawn."""

    clear = 2e-5  # relative distance that every membrane keeps from its threshold
    widths = ((1, 2), (2, 1), (1, 1), (2, 2))  # of attention: heads, channels of each

    def __init__(self, draw, allowed: Collection[str]):
        self.draw, self.allowed, self.used = draw, frozenset(allowed), set()
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.signals: list[Signal] = []
        self.dt = draw(st.sampled_from([1e-4, 1e-3]))
        self.if_dt = draw(st.sampled_from([1.0, self.dt]))
        self.steps = draw(st.integers(3, 8))

    # --- draws

    def may(self, feature: str, tenths: int) -> bool:
        if feature not in self.allowed or not self.draw(st.integers(0, 9)) >= 10 - tenths:
            return False
        self.used.add(feature)
        return True

    def note(self, feature: str, has: bool) -> None:
        if has:
            self.used.add(feature)

    def one_of(self, *features: str) -> str | None:
        features = tuple(f for f in features if f in self.allowed)
        if not features:
            return None
        chosen = self.draw(st.sampled_from(features))
        self.used.add(chosen)
        return chosen

    def size(self, least: int, most: int) -> int:
        return self.draw(st.integers(least, max(least, most)))

    # --- numbers; random_programs has its own

    def weight(self, *shape: int) -> np.ndarray:
        fan_in = int(np.prod(shape[1:]))
        return (self.rng.normal(0.3, 1, shape) / np.sqrt(fan_in)).astype(F32)

    def bias(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, 0.3, shape).astype(F32)

    def similar(self, weight: np.ndarray) -> np.ndarray:
        """Make the weights positive and of similar size, so that q, k and v all fire, and often together."""
        return np.maximum(np.abs(weight), np.abs(weight).max() / 2)

    def adjacency(self, joints: int) -> np.ndarray:
        subsets = self.size(1, 3)
        return (self.rng.random((subsets, joints, joints)) * (self.rng.random((subsets, joints, joints)) < 0.6)).astype(
            F32
        )

    def parameter(self, low: float, high: float, shape, per_neuron: bool) -> np.ndarray:
        return np.broadcast_to(self.rng.uniform(low, high, shape if per_neuron else ()), shape).astype(F32).copy()

    def neuron(self, kind: str, shape: tuple[int, ...]) -> nir.NIRNode:
        """Draw a neuron; its thresholds are shares of those that `settle` will choose."""
        per_neuron = self.may("per_neuron", 7)

        def between(low: float, high: float) -> np.ndarray:
            return self.parameter(low, high, shape, per_neuron)

        r, threshold, w_in = between(0.5, 2), between(0.7, 1.4), between(0.5, 2)
        tau, tau_syn = (F32(self.dt) / between(0.15, 1) for _ in range(2))
        leaks = kind not in ("if", "i", "threshold") and self.may("leak", 3)
        leak = between(-0.2, 0.2) if leaks else np.zeros(shape, F32)
        resets = kind in ("if", "lif", "cubalif") and self.may("reset", 3)
        reset = between(-0.3, 0.1) if resets else leak.copy()
        node = self.with_membrane(kind, tau, tau_syn, r, leak, threshold, reset, w_in)
        return self.with_conventions(node)

    def with_conventions(self, node: nir.NIRNode) -> nir.NIRNode:
        """Draw how a neuron resets and where it starts."""
        if isinstance(node, euler_oracle.FIRING) and self.may("subtract", 3):
            node.metadata["reset"] = self.one_of("subtract", "subtract-at-once")
        if isinstance(node, (*euler_oracle.FIRING, *euler_oracle.GRADED)) and self.may("v_init", 4):
            node.metadata["v_init"] = self.draw(st.sampled_from(["v_reset", "leak"]))
        return node

    def with_membrane(self, kind: str, tau, tau_syn, r, leak, threshold, reset, w_in) -> nir.NIRNode:
        if kind in ("i", "if"):
            r = r / F32(self.if_dt) / (self.steps if kind == "i" else 1)
            return nir.I(r) if kind == "i" else nir.IF(r, threshold, reset)
        return {
            "lif": lambda: nir.LIF(tau, r, leak, threshold, reset),
            "li": lambda: nir.LI(tau, r, leak),
            "cubalif": lambda: nir.CubaLIF(tau_syn, tau, r, leak, threshold, reset, w_in),
            "cubali": lambda: nir.CubaLI(tau_syn, tau, r, leak, w_in),
            "threshold": lambda: nir.Threshold(threshold),
        }[kind]()

    # --- nodes

    def add(self, name: str, node: nir.NIRNode, *sources: str) -> str:
        name = f"{name}{len(self.nodes)}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in sources]
        return name

    def shape_after(self, node: nir.NIRNode, shape) -> tuple[int, ...]:
        if isinstance(node, nir.Delay):
            return shape
        return euler_oracle.apply(node, np.zeros((1, *shape), F32)).shape[1:]

    def through(self, name: str, node: nir.NIRNode, *sources: Signal) -> Signal:
        (shape, *_), depth = [s.shape for s in sources], max(s.depth for s in sources)
        return Signal(self.add(name, node, *(s.name for s in sources)), self.shape_after(node, shape), depth)

    def unread(self) -> list[Signal]:
        return [s for s in self.signals if not any(a == s.name for a, _ in self.edges)]

    def kernel(self, sizes, strided: bool) -> tuple[list[int], list[int], list[int], list[int] | str]:
        """Draw kernel, stride, dilation and padding that leave at least one position along each axis."""
        kernel = [self.size(1, min(3, n)) for n in sizes]
        self.note("rectangular", len(set(kernel)) > 1)
        dilated = self.may("dilation", 4) and max(kernel) > 1
        dilation = [2 if dilated and k > 1 else 1 for k in kernel]
        if not strided and self.may("same", 4):
            return kernel, [1] * len(kernel), dilation, "same"
        stride = [self.size(1, 2) for _ in kernel] if strided else [1] * len(kernel)
        if strided:
            stride[-1] = 2
        spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
        least = [max(0, (span - n + 1) // 2) for span, n in zip(spans, sizes, strict=True)]
        padding = [self.size(low, span // 2) for low, span in zip(least, spans, strict=True)]
        return kernel, stride, dilation, padding if any(padding) or self.draw(st.booleans()) else "valid"

    def conv(self, *sources: Signal, outputs: int | None = None, plain: bool = False) -> Signal:
        channels, *sizes = sources[0].shape
        self.used.add(f"conv{len(sizes)}d")
        if plain:
            kernel, stride, dilation, padding = [1] * len(sizes), [1] * len(sizes), [1] * len(sizes), [0] * len(sizes)
        else:
            kernel, stride, dilation, padding = self.kernel(sizes, self.may("stride", 3))
        outputs = outputs or self.size(1, max(1, min(4, MOST // int(np.prod([n + 1 for n in sizes])))))
        groups = channels if channels > 1 and outputs % channels == 0 and self.may("groups", 5) else 1
        weight, bias = self.weight(outputs, channels // groups, *kernel), self.bias(outputs)
        if len(sizes) == 2:
            padding = padding if isinstance(padding, str) else tuple(padding)
            return self.through(
                "conv",
                nir.Conv2d(tuple(sizes), weight, tuple(stride), padding, tuple(dilation), groups, bias),
                *sources,
            )
        padding = padding if isinstance(padding, str) else padding[0]
        return self.through(
            "conv", nir.Conv1d(sizes[0], weight, stride[0], padding, dilation[0], groups, bias), *sources
        )

    def pooling(self, source: Signal, feature: str) -> Signal:
        _, *sizes = source.shape
        kernel = [self.size(1, min(2, n)) for n in sizes]
        stride, padding = [self.size(1, 2) for _ in kernel], [self.size(0, k - 1) for k in kernel]
        if int(np.prod([n + 1 for n in source.shape])) > MOST:
            stride, padding = kernel, [0] * len(kernel)
        node = pool(kernel, stride, padding)
        return self.through(
            "pool", node if feature == "pool" else nir.AvgPool2d(**{k: getattr(node, k) for k in POOL}), source
        )

    def dense(self, *sources: Signal, outputs: int | None = None) -> Signal:
        shape = sources[0].shape
        kind = self.one_of("last_axis", "batched", "flatten") if len(shape) > 1 and outputs is None else "flatten"
        if kind in ("last_axis", "batched"):
            most = max(1, MOST // int(np.prod(shape[:-1])))
            size = (*(shape[:-1] if kind == "batched" else ()), self.size(1, min(4, most)), shape[-1])
            return self.weighted(size, *sources)
        if len(shape) > 1:
            self.used.add("flatten")
            start = self.size(0, len(shape) - 2) if outputs is None and "last_axis" in self.allowed else 0
            flat = self.through("flat", flatten(*shape, start=start), *sources)
            return self.weighted((outputs or self.size(2, min(10, MOST // shape[0])), flat.shape[-1]), flat)
        return self.weighted((outputs or self.size(2, 12), shape[0]), *sources)

    def weighted(self, size: tuple[int, ...], *sources: Signal) -> Signal:
        if self.one_of("affine", "linear") == "affine":
            return self.through(
                "affine", nir.Affine(self.weight(*size), self.bias(*size[:-1] if len(size) > 2 else size[:1])), *sources
            )
        return self.through("linear", nir.Linear(self.weight(*size)), *sources)

    def delay(self, source: Signal) -> Signal:
        most = min(3, self.steps - 2)
        per_element = self.may("per_element", 5)
        steps = (
            self.rng.integers(0, most + 1, source.shape) if per_element else np.full(source.shape, self.size(1, most))
        )
        return self.through("delay", nir.Delay((steps * self.dt).astype(F32)), source)

    # --- projections and populations

    def projection(self, *sources: Signal) -> Signal:
        """Draw linear nodes from signals of one shape to a current."""
        signal, rest = sources[0], sources[1:]
        if not rest and self.may("delay", 2):
            signal = self.delay(signal)
        if len(signal.shape) == 3 and not rest and self.may("pool", 2):
            signal = self.pooling(signal, "pool")
        dims = len(signal.shape)
        kinds = {3: ("conv2d", "conv2d", "graph_conv", "dense"), 2: ("conv1d", "conv1d", "dense"), 1: ("dense",)}[dims]
        kind = self.draw(st.sampled_from([k for k in kinds if k in self.allowed or k == "dense"]))
        if kind == "dense":
            signal = self.dense(signal, *rest)
        elif kind == "graph_conv":
            self.used.add(kind)
            adjacency = self.adjacency(signal.shape[2])
            outputs = self.size(1, max(1, min(4, MOST // int(np.prod(signal.shape[1:])))))
            weight = self.weight(len(adjacency), outputs, signal.shape[0])
            signal = self.through("graph", graph_conv(adjacency, weight, self.bias(outputs)), signal, *rest)
        else:
            signal = self.conv(signal, *rest)
        if (
            len(signal.shape) == 3
            and (feature := self.draw(st.sampled_from([None, None, "pool", "avgpool"]))) in self.allowed
        ):
            self.used.add(feature)
            signal = self.pooling(signal, feature)
        if self.may("scale", 2):
            signal = self.through("scale", nir.Scale(self.rng.uniform(0.5, 1.5, signal.shape).astype(F32)), signal)
        if len(signal.shape) > 1 and self.may("flatten", 1):
            signal = self.through("flat", flatten(*signal.shape, start=0), signal)
        if self.may("delay_behind", 1):
            signal = self.delay(signal)
        return signal

    def skip(self, shape: tuple[int, ...], others: list[Signal]) -> Signal | None:
        """Draw a projection from any of `others` to `shape`, if one fits."""
        near = [
            s
            for s in others
            if len(shape) == 1 or (s.shape[1:] == shape[1:] and f"conv{len(shape) - 1}d" in self.allowed)
        ]
        if not near:
            return None
        twins = [s for s in near if s.shape == shape]
        if twins and self.may("direct", 6):
            return self.draw(st.sampled_from(twins))
        source = self.draw(st.sampled_from(near))
        return (
            self.dense(source, outputs=shape[0]) if len(shape) == 1 else self.conv(source, outputs=shape[0], plain=True)
        )

    def population(self, kind: str, *currents: Signal) -> Signal:
        shape = currents[0].shape
        sources = dict.fromkeys(s.name for s in currents)
        signal = Signal(self.add(kind, self.neuron(kind, shape), *sources), shape, max(s.depth for s in currents) + 1)
        self.signals.append(signal)
        return signal

    def layer(self, source: Signal) -> None:
        twins = [s for s in self.signals if s.shape == source.shape and s is not source]
        joined = [self.draw(st.sampled_from(twins))] if twins and self.may("join", 4) else []
        earlier = list(self.signals)
        current = self.projection(source, *joined)
        currents = [current]
        if "skip" in self.allowed and self.draw(st.booleans()) and (other := self.skip(current.shape, earlier)):
            self.note("skip", True)
            currents.append(other)
        kind = self.one_of("lif", "lif", "if", "cubalif", "threshold", "lif", "i", "li", "cubali")
        signal = self.population(kind, *currents)
        if self.loopable(signal, signal) and self.may("self_loop", 3):
            self.loop(signal, signal)

    def loop(self, source: Signal, target: Signal, delayed: bool = False) -> None:
        if len(target.shape) == 1:
            if len(source.shape) > 1:
                source = self.through("flat", flatten(*source.shape), source)
            back = self.through("back", nir.Linear(self.weight(target.shape[0], source.shape[0])), source)
        else:
            self.used.add("conv_loop")
            back = self.conv(source, outputs=target.shape[0], plain=True)
        if delayed:
            back = self.delay(back)
        self.edges.append((back.name, target.name))

    def loops(self) -> None:
        """Draw loops from later populations back to earlier ones: over two, over three, through a Delay."""
        for feature, apart in (("loop", (1,)), ("long_loop", (2, 3)), ("delay_loop", (0, 1))):
            pairs = [
                (s, t) for s in self.signals for t in self.signals if self.loopable(s, t) and s.depth - t.depth in apart
            ]
            if pairs and self.may(feature, 8 if feature == "long_loop" else 5):
                self.loop(*self.draw(st.sampled_from(pairs)), delayed=feature == "delay_loop")
        self.joined_loop()

    def joined_loop(self) -> None:
        """Draw a loop that enters through the weights of another signal, which perhaps lead to a second population."""
        shapes = {s.name: s.shape for s in self.signals}
        ways = [
            (s, w, t)
            for p, w in self.edges
            for s in self.signals
            for t in self.signals
            if hasattr(self.nodes[w], "weight")
            and shapes.get(p) == s.shape
            and s.name != p
            and (w, t.name) in self.edges
            if isinstance(self.nodes[t.name], euler_oracle.FIRING) and t.name in self.upstream(s.name) and s.depth
        ]
        if not ways or not self.may("joined_loop", 8):
            return
        source, weighted, target = self.draw(st.sampled_from(ways))
        if (source.name, weighted) not in self.edges:
            self.edges.append((source.name, weighted))
        others = [
            s for s in self.signals if s.shape == target.shape and isinstance(self.nodes[s.name], euler_oracle.FIRING)
        ]
        other = self.draw(st.sampled_from([None, *others]))
        if other is not None and (weighted, other.name) not in self.edges:
            self.edges.append((weighted, other.name))

    def loopable(self, source: Signal, target: Signal) -> bool:
        ends = [self.nodes[s.name] for s in (source, target)]
        if any(not isinstance(n, euler_oracle.FIRING) for n in ends) or target.name not in self.upstream(source.name):
            return False
        by_conv = (
            source.shape[1:] == target.shape[1:] and {"conv_loop", f"conv{len(source.shape) - 1}d"} <= self.allowed
        )
        return len(target.shape) == 1 or by_conv

    def upstream(self, name: str) -> set[str]:
        """Return `name` and every node upstream of it."""
        nodes, new = set(), {name}
        while new:
            nodes |= new
            new = {a for a, b in self.edges if b in new} - nodes
        return nodes

    def attend(self, source: Signal) -> None:
        """Add q, k and v of a small frame, and the two populations of attention."""
        frame = int(np.prod(source.shape[1:]))
        fits = [(h, w) for h, w in self.widths if h * frame * max(3 * w, source.shape[-1]) <= MOST]
        if len(source.shape) != 3 or frame < 4 or not fits or not self.may("attention", 6):
            return
        heads, width = self.draw(st.sampled_from(fits))
        channels = 3 * heads * width
        self.used |= {"conv2d", "lif"}
        current = self.conv(source, outputs=channels, plain=True)
        weighted = self.nodes[current.name]
        weighted.weight, weighted.bias = self.similar(weighted.weight), np.zeros_like(weighted.bias)
        qkv = self.population("lif", current)
        node = self.attention_node(heads)
        node.input_type = {"input": np.array(qkv.shape)}
        signal = Signal(self.add("attend", node, qkv.name), (channels // 3, *qkv.shape[1:]), qkv.depth + 2)
        self.signals.append(signal)

    def attention_node(self, heads: int):
        gains, thresholds = (self.rng.uniform(0.5, 2, (2, heads)) for _ in range(2))
        return attention(heads, *gains, *thresholds, tau=self.dt / self.rng.uniform(0.2, 1))

    # --- the whole

    def input(self, shape: tuple[int, ...]) -> Signal:
        analog = self.may("analog", 2)
        signal = Signal(self.add("x", inp(*shape, analog=analog)), shape, 0)
        self.signals.append(signal)
        return signal

    def shape(self) -> tuple[int, ...]:
        sizes = {"conv2d": ((1, 3), (2, 4), (2, 4)), "conv1d": ((1, 3), (3, 8)), "dense": ((2, 12),)}
        kind = self.draw(
            st.sampled_from([k for k in ("conv2d", "conv2d", "conv1d", "dense") if k in self.allowed | {"dense"}])
        )
        return tuple(self.size(*s) for s in sizes[kind])

    def outputs(self) -> None:
        for number, leaf in enumerate(
            self.unread() or self.signals[-1:]
        ):  # with loops, every signal may be read already
            self.note("outputs", number > 0)
            source = leaf
            if leaf.depth and self.may("readout", 4):
                source = self.readout(leaf)
            self.add("y", out(*source.shape), source.name)
        if len(self.signals) > 2 and self.may("outputs", 3):
            source = self.draw(st.sampled_from([s for s in self.signals if s.depth]))
            self.add("y", out(*source.shape), source.name)

    def readout(self, leaf: Signal) -> Signal:
        return self.dense(leaf, outputs=self.size(2, 5))

    def build(self) -> None:
        self.input(self.shape())
        if self.may("inputs", 5):
            self.input(self.signals[0].shape if self.draw(st.booleans()) else self.shape())
        for _ in range(self.size(2, 5)):
            recent = self.unread() or self.signals
            self.layer(self.draw(st.sampled_from(recent)))
            self.attend(self.signals[-1])
        for signal in [s for s in self.unread() if not s.depth]:
            self.layer(signal)
        self.loops()
        self.outputs()

    def nest(self) -> None:
        """Nest a population, its own loops and the node that feeds it alone in a graph, perhaps twice."""
        populations = [
            s.name for s in self.signals if s.name in self.nodes and isinstance(self.nodes[s.name], euler_oracle.FIRING)
        ]
        # nir always checks the types of nested graphs, and grouped convolutions never pass (NIR.md)
        typed = [
            p for p in populations if not any(b == p and getattr(self.nodes[a], "groups", 1) > 1 for a, b in self.edges)
        ]
        if not typed or not self.may("nested", 3):
            return
        name = self.draw(st.sampled_from(typed))
        shape = self.nodes[name].r.shape
        before = sorted({a for a, b in self.edges if b == name})
        inside = {name} | {n for n in before if self.only(n, name)}
        outside = [n for n in before if n not in inside]
        entry, fed = name, shape
        if len(outside) == len(shape) == 1 and {b for a, b in self.edges if a == outside[0]} == {name}:
            node = self.nodes[outside[0]]
            if isinstance(node, nir.Affine | nir.Linear) and node.weight.ndim == 2:
                entry, fed = outside[0], node.weight.shape[1:]
                inside.add(entry)
        for level in range(self.size(1, 2)):
            self.wrap(f"outer{level}", inside, entry, name, fed, shape)
            entry = name = f"outer{level}"
            inside = {name}

    def only(self, node: str, name: str) -> bool:
        """Whether `node` closes a self loop: it reads only `name`, and only `name` reads it."""
        return {a for a, b in self.edges if b == node} == {name} == {b for a, b in self.edges if a == node}

    def wrap(self, outer: str, inside: set[str], entry: str, leaving: str, fed, shape) -> None:
        nodes = {"i": inp(*fed), "o": out(*shape)} | {n: self.nodes.pop(n) for n in sorted(inside)}
        within = [e for e in self.edges if set(e) <= inside]
        around = [
            (outer if a in inside else a, outer if b in inside else b) for a, b in self.edges if (a, b) not in within
        ]
        self.edges = around
        self.nodes[outer] = nir.NIRGraph(nodes, [*within, ("i", entry), (leaving, "o")], type_check=False)

    def rename(self) -> dict[str, str]:
        """Give the nodes unusual names in a shuffled order; return the new names by the old."""
        names = dict(zip(self.nodes, self.nodes, strict=True))
        if self.may("names", 5):
            odd = self.rng.permutation([*NAMES, *(f"n{i}" for i in range(len(names)))][: max(len(NAMES), len(names))])
            names = dict(zip(names, (str(n) for n in odd), strict=False))
        order = self.rng.permutation(len(names))
        shuffled = [list(self.nodes.items())[i] for i in order]
        self.nodes = {names[name]: node for name, node in shuffled}
        self.edges = [(names[a], names[b]) for a, b in self.edges]
        self.edges = [self.edges[i] for i in self.rng.permutation(len(self.edges))]
        return names

    def draw_inputs(self) -> dict[str, np.ndarray]:
        clips, inputs = self.size(1, 3), {}
        for name, node in self.nodes.items():
            if isinstance(node, nir.Input):
                size = (clips, self.steps, *(int(n) for n in node.input_type["input"]))
                inputs[name] = (self.rng.random(size) < 0.5).astype(F32)
                if node.metadata.get("signal") == "analog":
                    values = self.rng.normal(0.3, 1, size).astype(F32)
                    inputs[name] = np.repeat(values[:, :1], self.steps, 1) if self.draw(st.booleans()) else values
        return inputs

    def snap(self, node: nir.NIRNode, threshold: np.ndarray) -> np.ndarray:
        """Return the nearest thresholds that the network's numbers allow."""
        return threshold.astype(F32)

    def finish(self, **metadata) -> nir.NIRGraph:
        return nir.NIRGraph(
            self.nodes, self.edges, metadata={"dt": self.dt, "steps": self.steps, **metadata}, type_check=False
        )


POOL = ("kernel_size", "stride", "padding")
