"""A hypothesis strategy for random float NIR graphs with inputs, in which every population fires.

The structure is drawn; the numbers come from a drawn seed. euler_oracle then gives the current of each
population, and its threshold is set so that it fires in about a quarter of its steps. No membrane
potential comes within Builder.clear of its threshold, so that two executions that round differently
must still give the same spikes.
"""

from collections.abc import Collection
from dataclasses import dataclass

import nir
import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from tests.support.firing_thresholds import settle
from tests.support.network_builder import FEATURES, Builder


@dataclass
class Network:
    """A graph, its inputs by name, (clips, steps, *shape) in float32, and the FEATURES that it has.

    `if_dt` is the time step that I and IF integrate with.
    """

    graph: nir.NIRGraph
    inputs: dict[str, np.ndarray]
    dt: float
    if_dt: float
    features: frozenset[str]


@st.composite
def random_networks(draw, allowed: Collection[str] = FEATURES, without: Collection[str] = ()) -> Network:
    """Draw float networks with some of the `allowed` features and none of those in `without`."""
    builder = Builder(draw, set(allowed) - set(without))
    builder.build()
    builder.nest()
    builder.rename()
    inputs = builder.draw_inputs()
    graph = builder.finish()
    if not settle(builder, graph, inputs):
        reject()
    return Network(graph, inputs, builder.dt, builder.if_dt, frozenset(builder.used))
