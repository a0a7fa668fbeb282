"""mksgn/export/quantization/synapses: what may lead into one population."""

import numpy as np

from tests.export.quantization.networks import populated, refused
from tests.support.graphs import lif, linear


def test_analog_and_spikes_in_one_population():
    nodes, edges = populated(lif(2))
    nodes |= {"back": linear(np.eye(2))}
    x = np.full((2, 2), 0.3, dtype=np.float32)
    refused(
        nodes,
        [*edges, ("n", "back"), ("back", "n")],
        x=x,
        message="node n: the analog input x and the spikes of n meet",
    )
