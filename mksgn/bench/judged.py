"""A record priced and judged anew: by other energy models, by other published figures; its counts stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from mksgn.bench.claims import Published, evaluate
from mksgn.bench.energy_models import EnergyModel, price
from mksgn.bench.gcn import network_name
from mksgn.bench.record import Record
from mksgn.bench.theory import theory_of


def judged(
    record: Record, models: Sequence[EnergyModel] | None = None, claims: Sequence[Published] | None = None
) -> Record:
    """What the record states of other models and figures stays. None: no further ones; with neither given, the record itself."""
    if models is None and claims is None:
        return record
    energy = record.energy
    if models is not None:
        energy = [price(model, record.totals, steps=record.execution.steps) for model in models]
        named = {model.name for model in models}
        energy += [entry for entry in record.energy if entry.model not in named]
    found = evaluate(
        energy,
        theory_of(record).energy_mJ,
        network_name(record.gcn),
        claims,
        data=record.data,
        accuracy=record.accuracy,
    )
    named = {claim.name for claim in found}
    found += [claim for claim in record.claims if claim.name not in named]
    return record.model_copy(update={"energy": energy, "claims": found})
