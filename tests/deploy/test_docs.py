"""docs/deploy.md's table is the code's, and the code's is true: every line of it is run, or refused
for the reason that it names.
"""

import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph, run
from mksgn.deploy.primitives import PRIMITIVES, markdown
from tests.support.euler_oracle import execute
from tests.support.graphs import (
    DT,
    F32,
    affine,
    attention,
    chain,
    conv,
    flatten,
    graph,
    graph_conv,
    inp,
    lif,
    linear,
    out,
    pool,
    ring,
)
from tests.support.paths import DOCS

PAGE = DOCS / "deploy.md"
STEPS = 5


def full(value: float, *shape: int) -> np.ndarray:
    return np.full(shape, value, F32)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 0.7, shape).astype(F32)


def li(size: int) -> nir.LI:
    return nir.LI(full(4 * DT, size), full(1, size), full(0, size))


def cubali(size: int) -> nir.CubaLI:
    return nir.CubaLI(full(2 * DT, size), full(4 * DT, size), full(1, size), full(0, size))


def cubalif(size: int, reset: float = 0.0) -> nir.CubaLIF:
    return nir.CubaLIF(
        full(2 * DT, size), full(3 * DT, size), full(2, size), full(0, size), full(0.3, size), full(reset, size)
    )


def integrate(size: int, reset: float = 0.0) -> nir.IF:
    return nir.IF(full(1, size), full(0.7, size), full(reset, size))


def between(*nodes: tuple[str, nir.NIRNode], source=(4,), target=(3,)) -> nir.NIRGraph:
    """Nodes between spikes and a population."""
    return chain(("x", inp(*source)), *nodes, ("l", lif(*target, threshold=0.3)), ("y", out(*target)))


def shown(node: nir.NIRNode) -> nir.NIRGraph:
    return chain(("x", inp(4)), ("d", linear(weights(3, 4))), ("n", node), ("y", out(3)))


def read_by_synapses(node: nir.NIRNode) -> nir.NIRGraph:
    return chain(
        ("x", inp(4)), ("d", linear(weights(3, 4))), ("n", node), ("e", linear(weights(3, 3))), ("l", lif(3)),
        ("y", out(3))
    )  # fmt: skip


def into(neuron: nir.NIRNode, node: nir.NIRNode | None = None) -> nir.NIRGraph:
    return chain(("x", inp(4)), ("d", node or linear(weights(3, 4))), ("n", neuron), ("y", out(3)))


def looped(node: nir.NIRNode) -> nir.NIRGraph:
    return graph(
        {"x": inp(4), "d": linear(weights(3, 4)), "l": lif(3, threshold=0.3), "back": node, "y": out(3)},
        [("x", "d"), ("d", "l"), ("l", "back"), ("back", "l"), ("l", "y")],
    )


def nested() -> nir.NIRGraph:
    inner = chain(("input", inp(4)), ("d", linear(weights(3, 4))), ("l", lif(3, threshold=0.3)), ("output", out(3)))
    return chain(("x", inp(4)), ("outer", inner), ("y", out(3)))


def ported(edges) -> nir.NIRGraph:
    inner = graph(
        {
            "a": inp(4),
            "b": inp(4),
            "d": linear(weights(3, 4)),
            "e": linear(weights(3, 4)),
            "l": lif(3),
            "output": out(3),
        },
        [("a", "d"), ("b", "e"), ("d", "l"), ("e", "l"), ("l", "output")],
    )
    return graph({"x": inp(4), "outer": inner, "y": out(3)}, edges)


def attended(*between: tuple[str, nir.NIRNode]) -> nir.NIRGraph:
    return chain(
        ("x", inp(2, 2, 3)),
        ("c", conv(weights(12, 2, 1, 1), full(0.2, 12))),
        ("qkv", lif(12, 2, 3, threshold=0.2)),
        *between,
        ("a", attention(2, threshold_m=0.25, threshold_z=0.25)),
        ("p", conv(weights(2, 4, 1, 1))),
        ("l", lif(2, 2, 3, threshold=0.2)),
        ("y", out(2, 2, 3)),
    )


image = {"source": (2, 4, 6), "target": (3, 4, 6)}
grouped = conv(weights(4, 1, 3, 2), full(0.1, 4), padding=(2, 1), dilation=(2, 2), groups=2)
mean = nir.AvgPool2d(np.array((2, 2)), np.array((2, 2)), np.array((0, 0)))
strided = {"source": (2, 4, 6), "target": (3, 2, 3)}
conv1d = nir.Conv1d(None, weights(3, 1, 3), 1, 1, 1, 1, full(0.1, 3))
RUNS = {
    "Input": between(("d", linear(weights(3, 4)))),
    "Output": chain(
        ("x", inp(4)), ("d", linear(weights(4, 4))), ("l", lif(4, threshold=0.3)),
        ("r", affine(weights(3, 4), full(0.1, 3))), ("y", out(3))
    ),
    "Affine": between(("d", affine(weights(3, 4), full(0.1, 3)))),
    "Linear": between(("d", linear(weights(2, 3, 4))), source=(2, 4), target=(2, 3)),
    "Scale": between(("d", nir.Scale(weights(4))), target=(4,)),
    "Conv1d": between(("d", conv1d), source=(1, 6), target=(3, 6)),
    "Conv2d": between(("d", grouped), source=(2, 4, 6), target=(4, 4, 6)),
    "SumPool2d": between(("d", conv(weights(3, 2, 1, 1))), ("p", pool((2, 2))), source=(2, 4, 6), target=(3, 2, 3)),
    "AvgPool2d": between(("d", conv(weights(3, 2, 1, 1))), ("p", mean), source=(2, 4, 6), target=(3, 2, 3)),
    "Flatten": between(("f", flatten(2, 4, 6)), ("d", linear(weights(3, 48) - F32(0.25))), source=(2, 4, 6)),
    "Delay": between(("late", nir.Delay(np.array([0, 1, 1, 3]) * F32(DT))), ("d", linear(weights(3, 4)))),
    "Threshold": read_by_synapses(nir.Threshold(full(0.3, 3))),
    "I": shown(nir.I(full(1, 3))),
    "LI": shown(li(3)),
    "IF": into(integrate(3)),
    "LIF": into(lif(3, threshold=0.3, leak=0.1, reset=0.0)),
    "CubaLI": shown(cubali(3)),
    "CubaLIF": into(cubalif(3)),
    "NIRGraph": nested(),
    "GraphConv": between(("d", graph_conv(ring(6), weights(3, 3, 2))), **image),
    "SpikingSelfAttention": attended(),
}  # fmt: skip

pooled = (("d", conv(weights(3, 2, 1, 1), full(0.1, 3))), ("p", pool((2, 2))))
in_series = (("c", conv(weights(3, 2, 1, 1))), ("f", flatten(3, 4, 6)), ("d", linear(weights(3, 72))))
biased = ("d", affine(weights(3, 4), full(0.1, 3)))
REFUSED = [  # node, precision, graph, reason
    ("Affine", "fixed", between(biased, ("late", nir.Delay(full(DT, 3)))), "bias reaches l through a delay"),
    ("Affine", "fixed", between(*pooled, **strided), "its bias is pooled before l"),
    ("Linear", "fixed", between(*in_series, source=(2, 4, 6)), "weighted nodes in series"),
    ("LIF", "fixed", into(lif(3, threshold=0.3, r=-1.0)), "r or w_in is not positive"),
    ("Conv2d", "float", between(("d", conv(weights(3, 2, 3, 3), stride=2, padding="same")), **strided),
     "padding 'same' needs stride 1"),
    ("Delay", "float", between(("late", nir.Delay(full(1.5 * DT, 4))), ("d", linear(weights(3, 4)))),
     "not a whole number of steps"),
    ("Delay", "fixed", between(("late", nir.Delay(full(1.5 * DT, 4))), ("d", linear(weights(3, 4)))),
     "not a whole number of"),
    ("Threshold", "fixed", read_by_synapses(nir.Threshold(full(0.3, 3))), "a Threshold has no memory.*4096 in 12 bits"),
    ("I", "fixed", read_by_synapses(nir.I(full(1, 3))), "I outputs its membrane, and Loihi's synapses .* take spikes"),
    ("LI", "fixed", read_by_synapses(li(3)), "LI outputs its membrane, and Loihi's synapses .* take spikes"),
    ("CubaLI", "fixed", read_by_synapses(cubali(3)), "CubaLI outputs its membrane, and Loihi's synapses .* take spikes"),
    ("LIF", "float", into(lif(3, tau=DT / 2)), "outside .0, 1.: the time step is longer than the time constant"),
    ("NIRGraph", "float", ported([("x", "outer"), ("outer", "y")]), "outer"),
    ("SpikingSelfAttention", "float", attended(("s", nir.Scale(full(1, 12, 2, 3)))),
     "attention must follow one LIF population"),
]  # fmt: skip


def clips(net: nir.NIRGraph) -> np.ndarray:
    shape = tuple(int(n) for n in net.nodes["x"].input_type["input"])
    return np.random.default_rng(5).random((6, STEPS, *shape)) < 0.5


def test_the_page_has_the_table_that_the_code_writes():
    page = PAGE.read_text()
    table = page.partition("<!-- primitives -->\n")[2].partition("\n<!-- /primitives -->")[0]
    assert table == markdown(), "put what mksgn.deploy.primitives.markdown() returns between the page's marks"


def test_the_table_has_every_primitive_of_nir_and_ours():
    stock = {cls for cls in vars(nir).values() if isinstance(cls, type) and issubclass(cls, nir.NIRNode)}
    named = {each.node.__name__ for each in PRIMITIVES}
    assert named == {cls.__name__ for cls in stock} - {"NIRNode"} | {"GraphConv", "SpikingSelfAttention"}
    assert named == set(RUNS)
    assert {each.node.__name__ for each in PRIMITIVES if each.refused} == {name for name, *_ in REFUSED}


@pytest.mark.parametrize("name", RUNS)
def test_it_runs_in_float(name):
    x = clips(RUNS[name])
    execution = run(compile_graph(RUNS[name], precision="float", if_dt=1.0), x)
    spikes, outputs, _ = execute(RUNS[name], {"x": x.astype(F32)}, DT, if_dt=1.0)
    for population, train in spikes.items():
        assert int((execution.spikes[population] != train).sum()) == 0, population
        assert 0 < train.mean() < 1, f"{population}: the test is blind"
    for output, values in outputs.items():
        np.testing.assert_allclose(execution.outputs[output], values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [each.node.__name__ for each in PRIMITIVES if each.fixed is not None])
def test_it_runs_in_fixed_point(name):
    x = clips(RUNS[name])
    program = compile_graph(RUNS[name], if_dt=1.0, calibration=x)
    floats = run(compile_graph(RUNS[name], precision="float", if_dt=1.0), x)
    execution = run(program, x)
    assert program.precision == "fixed"
    for population, train in floats.spikes.items():
        assert (execution.spikes[population] == train).mean() > 0.97, population
    for output, values in floats.outputs.items():
        if not program[next(o.population for o in program.outputs if o.name == output)].fires:
            np.testing.assert_allclose(execution.outputs[output], values, atol=0.05 * np.abs(values).max())


@pytest.mark.parametrize(("name", "precision", "net", "reason"), REFUSED)
def test_it_is_refused_by_name(name, precision, net, reason):
    with pytest.raises(BadInputError, match=reason):
        compile_graph(net, precision=precision, if_dt=1.0, calibration=clips(net) if precision == "fixed" else None)
