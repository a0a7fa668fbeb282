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
    """None: the energies that the record states; the figures that are known. With neither given, the record itself."""
    if models is None and claims is None:
        return record
    energy = record.energy
    if models is not None:
        energy = [price(model, record.totals, steps=record.execution.steps) for model in models]
    found = evaluate(
        energy,
        theory_of(record).energy_mJ,
        network_name(record.gcn),
        claims,
        data=record.data,
        accuracy=record.accuracy,
    )
    return record.model_copy(update={"energy": energy, "claims": found})
