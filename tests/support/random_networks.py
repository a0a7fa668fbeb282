"""hypothesis strategy of random float NIR graphs with inputs, whose populations really fire and whose decisions are no ties.

The structure is drawn; the numbers come from a drawn seed. Each population's threshold is then set from what euler_oracle shows it to get,
so that it fires in about a quarter of its steps, and so that no membrane comes within Builder.clear of its threshold: two executions that
round differently must still give the same spikes.
"""

from __future__ import annotations

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
    """`inputs[name]` (clips, steps, *shape) float32; `if_dt` goes to I and IF; `features` of FEATURES that it has."""

    graph: nir.NIRGraph
    inputs: dict[str, np.ndarray]
    dt: float
    if_dt: float
    features: frozenset[str]


@st.composite
def random_networks(draw, allowed: Collection[str] = FEATURES, without: Collection[str] = ()) -> Network:
    """Float networks of the `allowed` features; those in `without` never occur."""
    builder = Builder(draw, set(allowed) - set(without))
    builder.build()
    builder.nest()
    builder.rename()
    inputs = builder.given()
    graph = builder.finish()
    if not settle(builder, graph, inputs):
        reject()
    return Network(graph, inputs, builder.dt, builder.if_dt, frozenset(builder.used))
