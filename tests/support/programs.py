"""Small networks that several tests of deploy share, and programs compared field by field."""

import json

import nir
import numpy as np

from mksgn.deploy.program.program import Program, Projection
from tests.support import graphs as net


def simple(**metadata) -> nir.NIRGraph:
    """Two spiking neurons, one per input."""
    return net.chain(("x", net.inp(2)), ("d", net.linear(np.eye(2))), ("l", net.lif(2)), ("y", net.out(2)), **metadata)


def typed(seed: int = 0, steps: int = 4) -> tuple[nir.NIRGraph, np.random.Generator]:
    """A network whose types NIR can check, so that it can be written and read: attention, a graph
    conv, a decimating pool.
    """
    rng = np.random.default_rng(seed)
    g = net.graph(
        {
            "x": net.inp(2, 4, 3, analog=True),
            "encode": net.conv(net.lattice(rng, 4, 2, 3, 3), net.lattice(rng, 4), padding=(1, 1), input_shape=(4, 3)),
            "encoder": net.lif(4, 4, 3, threshold=0.5),
            "g": net.graph_conv(net.ring(3), net.lattice(rng, 3, 12, 4), np.abs(net.lattice(rng, 12))),
            "qkv": net.lif(12, 4, 3, threshold=0.25), "a": net.attention(2, threshold_m=0.25, threshold_z=0.25),
            "c": net.conv(net.lattice(rng, 6, 4, 3, 1), net.lattice(rng, 6), padding="same", input_shape=(4, 3)),
            "c_stride": net.pool((1, 1), (2, 1)),
            "skip": net.conv(net.lattice(rng, 6, 4, 1, 1), net.lattice(rng, 6), stride=(2, 1), input_shape=(4, 3)),
            "l": net.lif(6, 2, 3, threshold=0.25), "p": net.pool((2, 3)), "f": net.flatten(6, 1, 1),
            "classes": net.affine(net.lattice(rng, 5, 6), net.lattice(rng, 5)),
            "y": net.out(5),
        },
        [
            ("x", "encode"), ("encode", "encoder"), ("encoder", "g"), ("g", "qkv"), ("qkv", "a"), ("a", "c"),
            ("c", "c_stride"),
            ("c_stride", "l"), ("encoder", "skip"), ("skip", "l"), ("l", "p"), ("p", "f"), ("f", "classes"),
            ("classes", "y"),
        ],
        steps=steps,
    )  # fmt: skip
    g.nodes["a"].input_type = {"input": np.array([12, 4, 3])}  # else known only to files that NIR has checked
    return g, rng


def quantised_lif(threshold: int, unit: float, *shape: int) -> nir.LIF:
    """A LIF of tau = 2 dt with an integer threshold on the chip: half a sub-unit below the file's."""
    return net.lif(*shape, threshold=net.F32((threshold + 1 / 128) * unit / 2))


def quantised_metadata(**exponents: int) -> dict[str, object]:
    """Metadata of a file that was quantised: the exponent of each population's unit."""
    populations = {name: {"exponent": exponent} for name, exponent in exponents.items()}
    return {"steps": 4, "dt": net.DT, "quantization": json.dumps({"bits": 8, "populations": populations})}


def residual_chain() -> nir.NIRGraph:
    """Graph convolution spelled as two branches, a skip around it and a pooled read-out, in a
    quantised file's numbers.
    """
    rng = np.random.default_rng(0)

    def even(unit: float, *shape: int) -> np.ndarray:
        return 2 * unit * rng.integers(-20, 21, shape)

    return net.graph(
        {
            "x": net.inp(2, 2, 3), "encode": net.conv(even(1 / 8, 4, 2, 1, 1)), "first": quantised_lif(6, 1 / 8, 4, 2, 3),
            "joints_0": net.linear(net.ring(3)[0].T), "branch_0": net.conv(even(1 / 4, 4, 4, 1, 1)),
            "joints_1": net.linear(net.ring(3)[1].T), "branch_1": net.conv(even(1 / 4, 4, 4, 1, 1)),
            "second": quantised_lif(4, 1 / 4, 4, 2, 3),
            "main": net.conv(even(1 / 16, 4, 4, 2, 1)), "skip": net.conv(even(1 / 16, 4, 4, 2, 1)),
            "joined": quantised_lif(9, 1 / 16, 4, 1, 3),
            "pool": net.pool((1, 3)), "classes": net.conv(even(1 / 2, 3, 4, 1, 1), [0.5, 0.0, -1.5]), "y": net.out(3, 1, 1),
        },
        [
            ("x", "encode"), ("encode", "first"), ("first", "joints_0"), ("joints_0", "branch_0"),
            ("branch_0", "second"),
            ("first", "joints_1"), ("joints_1", "branch_1"), ("branch_1", "second"), ("second", "main"),
            ("main", "joined"),
            ("first", "skip"), ("skip", "joined"), ("joined", "pool"), ("pool", "classes"), ("classes", "y"),
        ],
        **quantised_metadata(first=-3, second=-2, joined=-4, classes=-1),
    )  # fmt: skip


def recurrent_loop() -> nir.NIRGraph:
    """Two populations in a loop, one of them also in a loop with itself, through a Delay; a delayed
    shortcut to the output's.
    """
    rng = np.random.default_rng(1)

    def even(unit: float, *shape: int) -> np.ndarray:
        return 2 * unit * rng.integers(-20, 21, shape)

    return net.graph(
        {
            "x": net.inp(3), "in": net.affine(even(1 / 4, 4, 3), [0.25, 0.5, 0.0, -0.75]), "a": quantised_lif(5, 1 / 4, 4),
            "forth": net.linear(even(1 / 2, 2, 4)), "b": quantised_lif(3, 1 / 2, 2), "back": net.linear(even(1 / 4, 4, 2)),
            "self": net.linear(even(1 / 4, 4, 4)), "late": nir.Delay(np.full(4, 2 * net.DT, net.F32)),
            "out": net.linear(even(1, 3, 2)), "c": quantised_lif(2, 1, 3), "skip": net.linear(even(1, 3, 3)),
            "wait": nir.Delay(np.full(3, net.DT, net.F32)),
            "y": net.out(3),
        },
        [
            ("x", "in"), ("in", "a"), ("a", "forth"), ("forth", "b"), ("b", "back"), ("back", "a"), ("a", "self"),
            ("self", "late"),
            ("late", "a"), ("b", "out"), ("out", "c"), ("x", "skip"), ("skip", "wait"), ("wait", "c"), ("c", "y"),
        ],
        **quantised_metadata(a=-2, b=-1, c=0),
    )  # fmt: skip


def resets() -> nir.NIRGraph:
    """Reset by subtraction in the next step and at once, a first membrane other than 0, and a bias into a current."""
    rng = np.random.default_rng(2)

    def even(unit: float, *shape: int) -> np.ndarray:
        return 2 * unit * rng.integers(-20, 21, shape)

    a, b = quantised_lif(5, 1 / 4, 4), quantised_lif(3, 1 / 2, 2)
    for node, unit, reset in ((a, 1 / 4, "subtract"), (b, 1 / 2, "subtract-at-once")):
        node.metadata["reset"] = reset
        node.v_reset = np.full_like(node.v_threshold, unit / 128 / 2)
    b.metadata["v_init"] = np.array([-1, 0.5], np.float32) / 2
    current_based = nir.CubaLIF(
        *(np.full(3, x, np.float32) for x in (2 * net.DT, 2 * net.DT, 2, 0, (4 + 1 / 128) / 2, 0, 1))
    )
    return net.graph(
        {
            "x": net.inp(3), "in": net.linear(even(1 / 4, 4, 3)), "a": a, "forth": net.linear(even(1 / 2, 2, 4)), "b": b,
            "out": net.affine(even(1, 3, 2), [2, -300, 0]), "c": current_based, "y": net.out(3),
        },
        [("x", "in"), ("in", "a"), ("a", "forth"), ("forth", "b"), ("b", "out"), ("out", "c"), ("c", "y")],
        **quantised_metadata(a=-2, b=-1, c=0),
    )  # fmt: skip


def assert_same_program(actual: Program, expected: Program) -> None:
    """Everything but the operators' geometry is equal."""
    for field in ("precision", "dt", "steps", "analog"):
        assert getattr(actual, field) == getattr(expected, field)
    assert [o.population for o in actual.outputs] == [o.population for o in expected.outputs]
    for p, q in zip(actual.populations, expected.populations, strict=True):
        for field in ("name", "shape", "kind", "location", "unit", "depth"):
            assert getattr(p, field) == getattr(q, field)
        for key, value in vars(p.neuron).items() if p.neuron else ():
            np.testing.assert_array_equal(value, getattr(q.neuron, key))
    for p, q in zip(actual.projections, expected.projections, strict=True):
        for field in ("name", "sources", "target", "compensation_delays", "kind"):
            assert getattr(p, field) == getattr(q, field)
        if isinstance(p, Projection):
            for one, other in zip(p.operators, q.operators, strict=True):
                np.testing.assert_array_equal(getattr(one, "weight", 0), getattr(other, "weight", 0))
        else:
            assert p.weight == q.weight
