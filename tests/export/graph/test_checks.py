"""mksgn/export/graph/checks: what no graph that is run may have, in a file and in memory, is refused in one line."""

from collections.abc import Callable

import h5py
import nir
import numpy as np
import pytest

from mksgn.common.errors import BadInputError
from mksgn.deploy import compile_graph
from mksgn.export.graph import files
from tests.support.graphs import F32, chain, inp, lif, linear, out

W = np.ones((2, 3))


def ordinary() -> nir.NIRGraph:
    return chain(("x", inp(3)), ("w", linear(W)), ("n", lif(2)), ("y", out(2)))


def convolution(**changes: object) -> nir.NIRGraph:
    fields = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1} | changes
    conv = nir.Conv2d(None, np.ones((2, 3, 3, 3), F32), bias=np.zeros(2, F32), **fields)
    conv.input_shape = (4, 4)
    return nir.NIRGraph({"x": inp(3, 4, 4), "c": conv, "y": out(2, 4, 4)}, [("x", "c"), ("c", "y")], type_check=False)


def edit(change: Callable[[nir.NIRGraph], object]) -> Callable[[], nir.NIRGraph]:
    def make() -> nir.NIRGraph:
        graph = ordinary()
        change(graph)
        return graph

    return make


def without(name: str) -> Callable[[], nir.NIRGraph]:
    def change(graph: nir.NIRGraph) -> None:
        del graph.nodes[name]
        graph.edges = [edge for edge in graph.edges if name not in edge]

    return edit(change)


def shaped(*shape: float) -> Callable[[nir.NIRGraph], object]:
    return lambda g: setattr(g.nodes["x"], "input_type", {"input": np.array(shape)})


REFUSED = {
    "no Output": (without("y"), "the graph has no Output node; add one, and an edge into it"),
    "into an Input": (edit(lambda g: g.edges.append(("n", "x"))), "edge 'n' → 'x': leads into an Input, which takes no edges"),
    "out of an Output": (edit(lambda g: g.edges.append(("y", "w"))), "edge 'y' → 'w': leads out of an Output, which no edge may leave"),
    "unknown source": (edit(lambda g: g.edges.append(("z", "w"))), "edge 'z' → 'w': the graph has no node 'z'; correct"),
    "unknown target": (edit(lambda g: g.edges.append(("w", "a\nb"))), r"the graph has no node 'a\\nb'; correct the edge"),
    "NaN": (edit(lambda g: g.nodes["w"].weight.__setitem__((0, 0), np.nan)), "node w: weight holds a value that is not fin"),
    "infinite": (edit(lambda g: g.nodes["w"].weight.__setitem__((0, 0), -np.inf)), "node w: weight holds a value that is"),
    "NaN in tau": (edit(lambda g: g.nodes["n"].tau.__setitem__(0, np.nan)), "node n: tau holds a value that is not finite"),
    "infinite threshold": (edit(lambda g: g.nodes["n"].v_threshold.__setitem__(0, np.inf)), "node n: v_threshold holds a"),
    "a wide input": (edit(shaped(1 << 20, 1 << 20)), r"node x: shape \[1048576, 1048576\] has 1,099,511,627,776 numbers"),
    "an empty input": (edit(shaped(3, 0)), r"node x: shape \[3, 0\] has a size below 1"),
    "half a neuron": (edit(shaped(2.5)), r"node x: shape is .*, expected whole numbers"),
    "stride 0": (lambda: convolution(stride=(0, 1)), r"not a readable NIR file \(.*; it may be truncated"),
    "padding": (lambda: convolution(padding=(1 << 20, 0)), r"node c: padding is \[1048576, 0\], expected 0 to 131,072"),
    "groups": (lambda: convolution(groups=-1), "node c: groups is -1, expected 1 to"),
    "dilation": (lambda: convolution(dilation=(1.5, 1)), r"node c: dilation is \[1.5, 1.0\], expected whole numbers"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_a_file_is_refused(make, message, tmp_path):
    nir.write(tmp_path / "a.nir", make())
    with pytest.raises(BadInputError, match=message) as caught:
        files.read(tmp_path / "a.nir")
    assert str(caught.value).startswith(f"{tmp_path / 'a.nir'}: ")
    assert "\n" not in str(caught.value)


def test_a_graph_without_an_input_is_refused(tmp_path):
    loop = nir.NIRGraph({"n": lif(2), "y": out(2)}, [("n", "n"), ("n", "y")], type_check=False)
    nir.write(tmp_path / "a.nir", loop)
    with pytest.raises(BadInputError, match="the graph has no Input node; add one, and an edge out of it"):
        files.read(tmp_path / "a.nir")


@pytest.mark.parametrize("dtype", ["c8", "c16", "S4"])
@pytest.mark.parametrize("parameter", ["w/weight", "n/tau"])
def test_weights_that_are_no_real_numbers(dtype, parameter, tmp_path):
    nir.write(tmp_path / "a.nir", ordinary())
    with h5py.File(tmp_path / "a.nir", "r+") as file:
        values = file[f"node/nodes/{parameter}"][()]
        del file[f"node/nodes/{parameter}"]
        file[f"node/nodes/{parameter}"] = values.astype(dtype)
    with pytest.raises(BadInputError, match=r"complex numbers, expected|holds bytes values, expected real numbers"):
        files.read(tmp_path / "a.nir")


def test_complex_weights_in_memory_are_refused():
    graph = ordinary()
    graph.nodes["w"].weight = graph.nodes["w"].weight.astype(complex)
    with pytest.raises(BadInputError, match="node w: weight holds complex numbers, expected real numbers; export the"):
        compile_graph(graph, precision="float")


def test_edges_and_nodes_within_a_nested_graph(tmp_path):
    inner = chain(("in", inp(3)), ("w", linear(W)), ("out", out(2)))
    graph = nir.NIRGraph(
        {"x": inp(3), "sub": inner, "y": out(2)}, [("x", "sub.in"), ("sub.out", "y")], type_check=False
    )
    nir.write(tmp_path / "a.nir", graph)
    assert set(files.read(tmp_path / "a.nir").nodes) == {"x", "sub", "y"}
    inner.edges.append(("w", "in"))
    nir.write(tmp_path / "a.nir", graph)
    with pytest.raises(BadInputError, match=r"edge 'sub\.w' → 'sub\.in': leads into an Input"):
        files.read(tmp_path / "a.nir")


def in_one_another(levels: int) -> nir.NIRGraph:
    """A graph that holds `levels` graphs, each within the one before."""
    inner = ordinary()
    for _ in range(levels):
        inner = nir.NIRGraph({"x": inp(3), "g": inner, "y": out(2)}, [("x", "g"), ("g", "y")], type_check=False)
    return inner


def test_graphs_in_one_another_are_bounded_before_nir_reads_them(tmp_path, monkeypatch):
    """nir reads them by recursion; 31 levels are read, and no file of more reaches it."""
    nir.write(tmp_path / "a.nir", in_one_another(30))
    assert len(files.read(tmp_path / "a.nir").nodes) > 2
    nir.write(tmp_path / "a.nir", in_one_another(31))
    monkeypatch.setattr(nir, "dict2NIRNode", lambda *args: pytest.fail("nir read it"))
    monkeypatch.setattr(nir.serialization, "hdf2dict", lambda *args: pytest.fail("nir read it"))
    with pytest.raises(BadInputError, match="is nested more than 64 groups deep, the limit") as caught:
        files.read(tmp_path / "a.nir")
    assert "\n" not in str(caught.value)
