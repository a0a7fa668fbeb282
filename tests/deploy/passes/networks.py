"""Compile and run small graphs, and compare them with an Euler integration of NIR's equations."""

import nir
import numpy as np

from mksgn.deploy import run
from mksgn.deploy.passes.balance import balance
from mksgn.deploy.passes.host_split import host_split
from mksgn.deploy.passes.ingest import ingest
from mksgn.deploy.program.program import Program
from tests.support.graphs import DT, F32, Euler, assert_same_spikes


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def compiled(g: nir.NIRGraph, **options) -> Program:
    return balance(host_split(ingest(g, **options)))


def agree(g: nir.NIRGraph, x: np.ndarray, *, analog=(), exact: bool = True, dt: float = DT) -> Euler:
    """Ingest and emulate; no decision may differ from the NIR equations, and no output."""
    (name,) = (n for n, node in g.nodes.items() if isinstance(node, nir.Input))
    expected = Euler(g, {name: x}, float(g.metadata.get("dt", dt)))
    actual = run(compiled(g, dt=dt, analog=analog), x)
    if not exact:
        assert expected.margin > 1e-4  # float32 cannot turn such a decision
    assert_same_spikes(actual.spikes, expected.spikes)
    for name, node in g.nodes.items():
        if isinstance(node, nir.Output):
            np.testing.assert_array_equal(actual.outputs[name], expected.values[name].astype(F32))
    return expected
