"""Hand-made records to compare."""

import copy
from typing import Any

from mksgn.bench.energy_models import known_models, price
from mksgn.bench.record import Record
from tests.support.records import small_run

REFERENCE = {"totals__spikes": 300.0, "totals__syn_ops": 3000.0, "totals__host_macs": 10_000.0, "placement__cores": 5}


def record(**changes: Any) -> Record:
    """Return the hand-made run with the totals of REFERENCE, priced; `changes` are paths joined by two underscores."""
    values = copy.deepcopy(small_run())
    for path, value in {**REFERENCE, **changes}.items():
        *parents, last = path.split("__")
        parent: Any = values
        for part in parents:
            parent = parent[int(part)] if part.isdigit() else parent[part]
        parent[last] = value
    bare = Record.model_validate(values)
    energy = [price(model, bare.totals, steps=bare.execution.steps) for model in known_models()]
    return bare.model_copy(update={"energy": energy})


WORSE = {
    "accuracy__confusion": [[2, 0, 0], [1, 0, 1], [0, 0, 0]],
    "accuracy__correct": 2,
    "accuracy__top1": 0.5,
    "accuracy__per_class": {"wave": 1.0, "sit down": 0.0, "throw": None},
}
