"""mksgn/export/graph/membranes: v / gain integrates as the node does, in units of its weights."""

import nir
import numpy as np
import pytest

from mksgn.export.graph.membranes import membrane_of
from mksgn.export.graph.nodes import f32
from mksgn.export.reference.nodes import neuron, tensor
from tests.support.graphs import DT

STEP = np.float32(0.5)


def nodes() -> dict[str, nir.NIRNode]:
    rng = np.random.default_rng(0)
    tau, tau_syn = (f32(rng.uniform(2, 9, 5) * DT) for _ in range(2))
    r, leak, w_in = (f32(rng.uniform(0.5, 2, 5)) for _ in range(3))
    return {"LI": nir.LI(tau, r, leak), "I": nir.I(r), "CubaLI": nir.CubaLI(tau_syn, tau, r, leak, w_in)}


@pytest.mark.parametrize("kind", nodes())
def test_the_membrane_integrates_as_the_reference_does(kind):
    node = nodes()[kind]
    membrane, reference = membrane_of(node, DT, STEP), neuron(node, DT, float(STEP))
    u, v = np.zeros(5), np.zeros(5)
    for x in np.random.default_rng(1).normal(size=(20, 5)):
        u = u - membrane.current_decay * u + x
        v = v - membrane.decay * v + u + membrane.drive
        np.testing.assert_allclose(membrane.gain * v, reference.step(tensor(x[None])).numpy()[0], rtol=1e-4, atol=1e-5)


def test_the_step_of_i_and_if_decides_the_precision_of_their_gain():
    node = nir.IF(f32([0.1, 0.7]), f32([1, 1]))
    narrow, wide = (membrane_of(node, DT, step(DT)).gain for step in (np.float32, np.float64))
    np.testing.assert_array_equal(narrow, np.float32(DT) * node.r)
    np.testing.assert_array_equal(wide, DT * node.r.astype(float))
