"""Energy models as data (data/energy_models.yaml), and the energy of a run under each.

A total is stated only with the name of its model, its evidence and what it leaves out. A kind of
event is *unpriced* if it occurred, has no price, and is not excluded by the model's own
declaration; it is a *lower bound* if its price covers only a part of it. In either case there is no
total, only the sum of the priced terms, which is a lower bound. Two kinds always occur: memory is
accessed, and static power is drawn. bench.prices has the kinds of event and the form of a price.

A lab adds its chip with a file of the same form (docs/ENERGY.md). `python -m
mksgn.bench.energy_models` prints the JSON Schema of such a file, checked in as
data/energy_models.schema.json for editors.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ, pJ, W
from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from pathlib import Path
from typing import Literal

from pydantic import Field

from mksgn.bench.choices import DATA
from mksgn.bench.prices import EVENTS, PRICE_OF, Event, Pricing, SynapticPrices
from mksgn.bench.record import EnergyEntry, Totals
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import Amount, Evidence, Name, StrictModel, Text, json_schema_of, read_yaml, unique

PJ_IN_MJ = 1e-9  # mJ per pJ
SCHEMA = "mksgn.energy_models/1"
# terms of prices_pJ.addressing and time_step: unlike an event, they are never unpriced under a model without such a price
ADDRESSING, TIME_STEPS = "addressing", "time_steps"
TERMS: tuple[str, ...] = (*EVENTS, ADDRESSING, TIME_STEPS)


class Anchor(StrictModel):
    """The measured energy of a whole network, for comparison with a sum of prices. It is not a price."""

    network: Name
    energy_per_inference_mJ: Amount
    static_power_W: Amount
    inferences_per_s: Amount


class EnergyModel(Pricing):
    """One energy model. `name`, `evidence` and `source` are required; everything else defaults to empty."""

    name: Text
    evidence: Evidence
    source: Text
    """In full: a publication, or what was measured on which board with which workload."""
    scope: str = ""
    """What the prices include and assume."""
    anchor: Anchor | None = None

    @property
    def pricing(self) -> Pricing:
        """What decides an energy, without the model's name and source."""
        return Pricing(**{name: getattr(self, name) for name in Pricing.model_fields})


class ModelsFile(StrictModel):
    """A file of energy models."""

    schema_id: Literal["mksgn.energy_models/1"] = Field(alias="schema")
    models: list[EnergyModel]


def known_models(extra_files: Iterable[Path | str] = ()) -> list[EnergyModel]:
    """Load the models of data/energy_models.yaml, then those of further files.

    Raises:
        BadInputError: A file is invalid, or a name is not unique.
    """
    paths = (DATA / "energy_models.yaml", *map(Path, extra_files))
    return unique(((path, model) for path in paths for model in read_yaml(path, ModelsFile).models), "an energy model")


def model_named(name: str, models: Sequence[EnergyModel] | None = None) -> EnergyModel:
    """Find a model by name among `models`, or among the known ones. Raises BadInputError if there is none."""
    models = known_models() if models is None else models
    for model in models:
        if model.name == name:
            return model
    raise BadInputError(f"no energy model {name!r}; known: {', '.join(model.name for model in models)}")


def occurrences(totals: Totals, steps: int | None = None) -> dict[Event, float]:
    """Count each kind of event per clip.

    Args:
        totals: Totals of the run.
        steps: Time steps S of a clip. Without it, the host's spikes are those of one step, which is
            enough to tell whether there were any.

    Returns:
        Counts by kind of event; 1 for the kinds that always occur and have no count. Hops that were
        not counted are taken as equal to messages, since each stays within its tile or crosses some.
    """
    messages = totals.spikes if totals.axon_out is None else totals.axon_out
    return {
        "host_macs": totals.host_macs,
        "graded_macs": totals.graded_macs,
        "syn_ops": totals.syn_ops,
        "coincidences": totals.coincidences,
        "neuron_updates": totals.neuron_updates,
        "spike_messages": messages,
        "spike_hops": messages if totals.hops is None else fsum(totals.hops.values()),
        "host_to_chip_spikes": totals.host_to_chip_spikes_per_step * (steps or 1),
        "memory": 1,
        "static_power": 1,
    }


def price(model: EnergyModel, totals: Totals, *, steps: int | None = None) -> EnergyEntry:
    """Price a clip under an energy model, in mJ by kind of event.

    Messages, hops and accesses to memory are priced only if they were counted. A term is a lower
    bound if its price covers only a part of the events (`partly`), or if synaptic operations have a
    price by kind and the record has no counts by kind: each is then charged at the cheapest price.
    No event is both a term and unpriced.

    Args:
        model: The energy model.
        totals: Totals of the run.
        steps: Time steps S of a clip. Without it, prices per step, per spike of the host and from the
            chip's speed are not used.
    """
    counts, left_out = occurrences(totals, steps), {*model.excludes, *model.covers}
    # without prices of hops, a message's price covers its whole route
    if not model.prices_pJ.spike_hops or "spike_messages" in left_out:
        left_out.add("spike_hops")
    terms = _terms(model, totals, steps, left_out)
    occurred = [event for event, count in counts.items() if count > 0]
    unpriced: list[str] = [event for event in occurred if event not in left_out and event not in terms]
    for term, needed in ((ADDRESSING, model.prices_pJ.addressing), (TIME_STEPS, model.prices_pJ.time_step)):
        if needed is not None and term not in terms:
            unpriced.append(term)
    bounds: dict[str, str] = {
        event: "the price covers only a part" for event in model.partly if event in occurred and event in terms
    }
    if isinstance(model.prices_pJ.synaptic_op, SynapticPrices) and totals.syn_ops_by_kind is None and totals.syn_ops:
        bounds["syn_ops"] = "no counts by kind of synapse: each at the cheapest kind's price"
    priced = fsum(terms.values())
    extra = totals.host_macs_every_step - totals.host_macs
    every_step = extra * (model.prices_pJ.mac or 0.0) * PJ_IN_MJ if "host_macs" in terms else 0.0
    complete = not (unpriced or bounds)
    return EnergyEntry(
        model=model.name,
        evidence=model.evidence,
        source=model.source,
        terms=terms,
        total_mJ=priced if complete else None,
        total_every_step_mJ=priced + every_step if complete else None,
        priced_mJ=priced,
        unpriced=unpriced,
        excludes=list(model.excludes),
        lower_bounds=bounds,
        prices=model.pricing,
    )


def _terms(model: EnergyModel, totals: Totals, steps: int | None, left_out: set[Event]) -> dict[str, float]:
    """Return the energies in mJ of all kinds of event that have a price and a count, even a count of 0."""
    prices, counts = model.prices_pJ, occurrences(totals, steps)
    # no row of zeros for graded MACs where all values are spikes
    uncounted: set[Event] = {"spike_hops", "syn_ops", *(() if counts["graded_macs"] else ("graded_macs",))}
    if totals.axon_out is None:
        uncounted.add("spike_messages")
    if steps is None:
        uncounted.add("host_to_chip_spikes")
    picojoule: dict[str, float] = {
        event: counts[event] * price
        for event, name in PRICE_OF.items()
        if event not in uncounted and (price := getattr(prices, name)) is not None
    }
    if prices.synaptic_op is not None:
        picojoule["syn_ops"] = _synaptic(prices.synaptic_op, totals)
    if prices.neuron_update is not None:
        picojoule["neuron_updates"] = _updates(model, totals)
    if totals.hops is not None and prices.spike_hops:
        picojoule["spike_hops"] = fsum(totals.hops[hop] * price for hop, price in prices.spike_hops.items())
    if totals.memory_accesses is not None and prices.memory_access:
        picojoule["memory"] = fsum(prices.access(size) * count for size, count in totals.memory_accesses.items())
    if totals.addressing is not None and prices.addressing is not None:
        additions, macs = totals.addressing.additions, totals.addressing.macs
        picojoule[ADDRESSING] = additions * prices.addressing.addition + macs * prices.addressing.mac
    if prices.time_step is not None and steps is not None:
        picojoule[TIME_STEPS] = totals.lanes * steps * prices.time_step
    terms = {event: picojoule[event] * PJ_IN_MJ for event in TERMS if event in picojoule and event not in left_out}
    seconds = model.seconds_per_inference
    if model.steps_per_second is not None and steps is not None:
        seconds = steps / model.steps_per_second
    if model.static_power_W is not None and seconds is not None:
        terms["static_power"] = totals.lanes * seconds * model.static_power_W * 1e3
    return terms


def _synaptic(price: float | SynapticPrices, totals: Totals) -> float:
    if not isinstance(price, SynapticPrices):
        return totals.syn_ops * price
    if totals.syn_ops_by_kind is None:
        return totals.syn_ops * price.cheapest
    return fsum(count * getattr(price, kind) for kind, count in totals.syn_ops_by_kind.items())


def _updates(model: EnergyModel, totals: Totals) -> float:
    inactive_price, active_price = model.prices_pJ.neuron_update, model.prices_pJ.neuron_update_active
    assert inactive_price is not None
    inactive = max(totals.neuron_updates - totals.active_updates, 0.0)
    return inactive * inactive_price + totals.active_updates * (
        inactive_price if active_price is None else active_price
    )


if __name__ == "__main__":
    print(json_schema_of(ModelsFile, SCHEMA, "validation"))
