"""Write files as earlier releases of nir wrote them.

Run `python tests/support/old_nir_files.py tests/data` with that release installed; it needs nir and
NumPy only. Releases differ in what they write: 0.0.1 and 0.0.6 name nodes by number, 0.1.0 has named
nodes and no version, 0.2.0 adds the version and Flatten's input type, 1.0.0 adds SumPool2d, w_in and a
convolution's input shape, 1.0.4 adds AvgPool2d, metadata and compression, 1.0.6 adds v_reset and CubaLI.
"""

import itertools
import sys
from importlib.metadata import version
from pathlib import Path

import nir
import numpy as np

DT = 1e-4
# the shape of each graph's input
NAMES = {"image": (2, 4, 4), "line": (2, 6), "recurrent": (5,), "nested": (5,)}
# Kinds of node and fields that a release writes, besides those that all write. Up to 1.0.4 NIR's text
# says that a spike subtracts the threshold, and the files do not say; nir reads them as a reset to 0.
ADDED = {
    "0.1.0": set(),
    "0.2.0": set(),
    "1.0.0": {"SumPool2d", "w_in"},
    "1.0.4": {"SumPool2d", "w_in", "AvgPool2d"},
    "1.0.6": {"SumPool2d", "w_in", "AvgPool2d", "CubaLI", "v_reset"},
}


class Writer:
    """Nodes of this release of nir with the fields in ADDED of the release to imitate; the same numbers for each."""

    def __init__(self, added: set):
        self.added, self.rng = added, np.random.default_rng(7)

    def node(self, kind: str, **values):
        """The fields that this release knows; 0.1.0's Input and Output have a shape, later ones a type."""
        fields = set(getattr(nir, kind).__dataclass_fields__) - {"metadata"}
        if "v_reset" in fields and "v_reset" not in self.added and kind in ("IF", "LIF", "CubaLIF"):
            values["v_reset"] = np.zeros_like(values["v_threshold"])
        return getattr(nir, kind)(**{k: v for k, v in values.items() if k in fields})

    def port(self, kind: str, *shape: int):
        key = {"Input": "input", "Output": "output"}[kind]
        return self.node(kind, shape=np.array(shape), **{f"{key}_type": {key: np.array(shape)}})

    def weight(self, *shape: int) -> np.ndarray:
        """Multiples of 1/8, which float32 adds without rounding."""
        return (self.rng.integers(-3, 8, shape) / 8).astype(np.float32)

    def full(self, value: float, *shape: int) -> np.ndarray:
        return np.full(shape, value, np.float32)

    def neuron(self, kind: str, *shape: int, threshold: float = 1.0):
        """tau = 2 dt; 2**-18 over a round threshold, which no membrane meets in six steps: no ties."""
        f = self.full
        values = {
            "r": f(1 / DT if kind in ("I", "IF") else 1, *shape),
            "v_leak": f(0, *shape),
            "v_reset": f(-0.25, *shape),
        }
        values |= {"tau": f(2 * DT, *shape), "tau_mem": f(2 * DT, *shape), "tau_syn": f(2 * DT, *shape)}
        values |= {"v_threshold": f(threshold + 2.0**-18, *shape), "threshold": f(threshold, *shape)}
        values["w_in"] = f(2 if "w_in" in self.added else 1, *shape)  # before, a file held none, and read 1
        return self.node(kind, **values)

    def conv(self, weight: np.ndarray, input_shape, stride, padding):
        kind = "Conv2d" if weight.ndim == 4 else "Conv1d"
        bias = self.weight(len(weight))
        geometry = {"stride": stride, "padding": padding, "dilation": 1, "groups": 1, "input_shape": input_shape}
        return self.node(kind, weight=weight, bias=bias, **geometry)

    def flatten(self, *shape: int):
        return self.node("Flatten", start_dim=0, end_dim=-1, input_type={"input": np.array(shape)})

    # --- the graphs

    def image(self):
        chain = [
            ("input", self.port("Input", 2, 4, 4)),
            ("conv", self.conv(self.weight(3, 2, 3, 3), (4, 4), 1, 1)),
            ("lif", self.neuron("LIF", 3, 4, 4)),
            ("stride", self.conv(self.weight(2, 3, 2, 2), (4, 4), 2, 0)),
            ("if", self.neuron("IF", 2, 2, 2)),
        ]
        after = (2, 2, 2)
        pool = {"kernel_size": np.array([2, 1]), "stride": np.array([2, 1]), "padding": np.array([0, 0])}
        for kind in sorted(self.added & {"SumPool2d", "AvgPool2d"}, reverse=True):
            chain.append((kind, self.node(kind, **pool)))
            pool, after = {k: v[::-1].copy() for k, v in pool.items()}, ((2, 1, 2) if after == (2, 2, 2) else (2, 1, 1))
        size = int(np.prod(after))
        chain += [
            ("flatten", self.flatten(*after)),
            ("affine", self.node("Affine", weight=self.weight(4, size), bias=self.weight(4))),
            ("out_lif", self.neuron("LIF", 4, threshold=0.5)),
            ("output", self.port("Output", 4)),
        ]
        return self.chain(chain)

    def line(self):
        kind = "CubaLI" if "CubaLI" in self.added else "LI"
        return self.chain(
            [
                ("input", self.port("Input", 2, 6)),
                ("conv", self.conv(self.weight(3, 2, 3), 6, 1, 1)),
                ("scale", self.node("Scale", scale=self.weight(3, 6) + 1)),
                ("threshold", self.neuron("Threshold", 3, 6, threshold=0.7)),
                ("flatten", self.flatten(3, 6)),
                ("linear", self.node("Linear", weight=self.weight(4, 18))),
                ("lif", self.neuron("LIF", 4)),
                ("read", self.node("Linear", weight=self.weight(3, 4))),
                ("i", self.neuron("I", 3)),
                ("leaky", self.neuron(kind, 3)),
                ("output", self.port("Output", 3)),
            ]
        )

    def recurrent(self):
        delay = self.full(DT, 4)
        delay[1] = 2 * DT
        nodes = {
            "input": self.port("Input", 5),
            "in": self.node("Affine", weight=self.weight(4, 5), bias=self.weight(4)),
            "cuba": self.neuron("CubaLIF", 4, threshold=0.5),
            "rec": self.node("Linear", weight=self.weight(4, 4)),
            "delay": self.node("Delay", delay=delay),
            "next": self.node("Linear", weight=self.weight(3, 4)),
            "lif": self.neuron("LIF", 3, threshold=0.25),
            "output": self.port("Output", 3),
        }
        edges = [
            ("input", "in"),
            ("in", "cuba"),
            ("cuba", "rec"),
            ("rec", "cuba"),
            ("cuba", "delay"),
            ("delay", "next"),
        ]
        return nir.NIRGraph(nodes=nodes, edges=[*edges, ("next", "lif"), ("lif", "output")])

    def nested(self):
        inner = {
            "input": self.port("Input", 4),
            "lif": self.neuron("LIF", 4, threshold=0.5),
            "rec": self.node("Linear", weight=self.weight(4, 4)),
            "output": self.port("Output", 4),
        }
        edges = [("input", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "output")]
        return self.chain(
            [
                ("input", self.port("Input", 5)),
                ("affine", self.node("Affine", weight=self.weight(4, 5), bias=self.weight(4))),
                ("rnn", nir.NIRGraph(nodes=inner, edges=edges)),
                ("linear", self.node("Linear", weight=self.weight(2, 4))),
                ("lif", self.neuron("LIF", 2, threshold=0.25)),
                ("output", self.port("Output", 2)),
            ]
        )

    def chain(self, pairs):
        names = [name for name, _ in pairs]
        return nir.NIRGraph(nodes=dict(pairs), edges=list(itertools.pairwise(names)))


def numbered():
    """The releases before 0.1.0: nodes in a list, edges by their numbers."""
    f = np.ones(3, np.float32)
    weight = np.eye(3, dtype=np.float32)
    if hasattr(nir, "NIR"):  # 0.0.1
        return nir.NIR([nir.Linear(weight, 0 * f), nir.LIF(2 * DT * f, f, 0 * f, f)], [(0, 1)])
    nodes = [nir.Input(np.array([3])), nir.Affine(weight, 0 * f), nir.LIF(2 * DT * f, f, 0 * f, f), nir.Output()]
    return nir.NIRGraph(nodes, [(0, 1), (1, 2), (2, 3)])


def main(folder: str) -> None:
    release = version("nir")
    graphs = {"numbered": numbered} if release < "0.1" else {n: getattr(Writer(ADDED[release]), n) for n in NAMES}
    for name, build in graphs.items():
        path = Path(folder) / f"nir_{release}_{name}.nir"
        nir.write(str(path), build())
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1])
