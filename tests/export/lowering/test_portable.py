"""The portable profile: stock primitives, the same network."""

import itertools
from typing import Any

import nir
import numpy as np
import pytest

from mksgn.deploy import compile_graph, run
from mksgn.deploy.program.program import Product
from mksgn.export import export_to_nir
from mksgn.export.errors import NotPortableError
from mksgn.export.graph import files
from mksgn.export.graph.nodes import GraphConv
from mksgn.export.lowering import portable_attention
from mksgn.export.lowering.portable import to_portable
from mksgn.export.lowering.portable_attention import product_units, structured_spikes
from mksgn.export.reference.execute import execute
from mksgn.export.verification.parity import compare
from mksgn.export.verification.verify import reference_spikes, verify
from tests.support.graphs import attention, chain, graph_conv, inp, lattice, lif, out, ring
from tests.support.students import calibration, tiny
from tests.support.tiers import one_in

STOCK = (nir.Input, nir.Output, nir.Affine, nir.Linear, nir.Conv2d, nir.SumPool2d, nir.Flatten, nir.LIF)
CHANGES: list[dict[str, Any]] = [
    {},
    {"attention": "token", "widths": (8,)},
    {"adjacency": "learned", "widths": (8,)},
    {"streams": ("bone",), "frames": 7, "kernel": 3},
]


@pytest.mark.parametrize(("bits", "changes"), one_in(12, list(itertools.product((None, 3, 8), CHANGES))))
def test_stock_primitives_and_the_same_spikes(changes, bits, tmp_path):
    model, inputs = tiny(**{"attention": "none", **changes})
    samples = calibration(model) if bits else None
    structured = export_to_nir(model, quantize=bits, calibration=samples)
    portable = export_to_nir(model, quantize=bits, calibration=samples, profile="portable")
    files.write(portable, tmp_path / "model.nir")
    portable = files.read(tmp_path / "model.nir")
    assert {type(node) for node in portable.nodes.values()} <= set(STOCK)
    assert portable.metadata["profile"] == "portable"
    assert all(
        isinstance(node.padding, np.ndarray | tuple) for node in portable.nodes.values() if isinstance(node, nir.Conv2d)
    )
    expected, _ = reference_spikes(structured, inputs, 4, 1e-4)
    actual, _ = reference_spikes(portable, inputs, 4, 1e-4)
    mismatches = compare("portable", expected, actual).mismatches
    if bits is None:
        assert mismatches <= 5  # sums in another order; a membrane may round across its threshold
        return
    assert mismatches == 0
    assert verify(portable, None, inputs)[0].mismatches == 0


def test_deploy_makes_the_same_program_of_both():
    """Deploy recognises one graph convolution in the branches, with the same synapses and operations."""
    model, inputs = tiny(attention="none")
    graph = export_to_nir(model, quantize=8, calibration=calibration(model))
    programs = [compile_graph(graph), compile_graph(to_portable(graph))]
    assert [p.name for p in programs[0].projections] == [p.name for p in programs[1].projections]
    repeated = np.broadcast_to(inputs[:, None], (len(inputs), 4, *inputs.shape[1:]))
    a, b = (run(program, repeated) for program in programs)
    assert compare("portable", a.spikes, b.spikes).mismatches == 0
    for name, counted in a.counters.items():
        actual = b.counters[name]
        assert (counted.spikes, counted.syn_ops, counted.updates) == (actual.spikes, actual.syn_ops, actual.updates), (
            name
        )
    assert np.array_equal(a.outputs["output"], b.outputs["output"])


def test_each_joint_gets_the_bias_once_and_a_joint_without_edges_too():
    rng = np.random.default_rng(0)
    node = graph_conv(ring(4), lattice(rng, 3, 5, 2), lattice(rng, 5))
    node.adjacency[0, 3, 3] = 0  # nothing leads to the last joint
    graph = chain(
        ("x", inp(2, 3, 4)), ("graph", node), ("y", lif(5, 3, 4, threshold=0.25)), ("out", out(5, 3, 4)), steps=4
    )
    x = rng.integers(0, 2, (6, 2, 3, 4)).astype(np.float32)
    portable = to_portable(graph)
    assert not any(isinstance(n, GraphConv) for n in portable.nodes.values())
    assert len(portable.nodes) == 3 + 3 * 4
    expected, actual = execute(graph, x, 4, 1e-4).spikes["y"], execute(portable, x, 4, 1e-4).spikes["y"]
    assert np.array_equal(expected, actual)
    assert expected[..., 3].any()


@pytest.mark.parametrize(("bits", "changes"), one_in(3, [(8, {}), (None, {}), (3, {"heads": 1, "widths": (8,)})]))
def test_attention_as_neurons_has_the_same_spikes(bits, changes, tmp_path):
    model, inputs = tiny(**changes)
    samples = calibration(model) if bits else None
    inputs = inputs[:4]
    structured = export_to_nir(model, quantize=bits, calibration=samples)
    files.write(to_portable(structured), tmp_path / "model.nir")
    portable = files.read(tmp_path / "model.nir")
    assert {type(node) for node in portable.nodes.values()} <= set(STOCK)
    expected, _ = reference_spikes(structured, inputs, 4, 1e-4)
    actual, _ = reference_spikes(portable, inputs, 4, 1e-4)
    products = sum(s[0, 0].size for name, s in actual.items() if "attention_qk" in name or "attention_mv" in name)
    assert products == product_units(structured)
    assert all(spikes.any() for name, spikes in actual.items() if "attention" in name)
    parity = compare("portable", expected, structured_spikes(structured, actual))
    assert {layer.layer for layer in parity.layers} == set(expected)
    if bits is None:
        assert parity.mismatches <= 5  # sums in another order; a membrane may round across its threshold
        return
    assert parity.mismatches == 0
    assert verify(portable, None, inputs)[0].mismatches == 0


@pytest.mark.parametrize("backend", one_in(2, ["emulator", "lava"]))
def test_attention_as_neurons_in_fixed_point(backend):
    """Without product units, as Loihi 1 has none."""
    if backend == "lava":
        pytest.importorskip("lava", reason="lava-nc is not installed: make setup")
    model, inputs = tiny(widths=(8,))
    inputs = inputs[:3]
    structured = export_to_nir(model, quantize=8, calibration=calibration(model))
    program = compile_graph(to_portable(structured))
    assert not any(isinstance(projection, Product) for projection in program.projections)
    repeated = np.broadcast_to(inputs[:, None], (len(inputs), 4, *inputs.shape[1:]))
    execution = run(program, repeated, backend=backend)
    expected, _ = reference_spikes(structured, inputs, 4, 1e-4)
    assert compare(backend, expected, structured_spikes(structured, execution.spikes)).mismatches == 0


def test_too_many_product_units_are_refused_with_their_number(monkeypatch):
    structured = export_to_nir(tiny(widths=(8,))[0])
    units = product_units(structured)
    assert units == 2 * 8 * 8 * 25**2  # products, channels, frames, joints²
    monkeypatch.setattr(portable_attention, "MOST_UNITS", units - 1)
    with pytest.raises(
        NotPortableError, match=rf"{units:,} product units, more than {units - 1:,}; export with --prof"
    ):
        to_portable(structured)


def test_attention_that_no_population_of_its_own_feeds():
    g = chain(("x", inp(6, 1, 3)), ("qkv", lif(6, 1, 3)), ("a", attention(1)), ("y", out(2, 1, 3)))
    with pytest.raises(NotPortableError, match=r"a: needs a LIF of its own for q\|k\|v, and convolutions before that"):
        to_portable(g)
