"""Energy models as data (data/energy_models.yaml), and the energy of a run under each.

A total is stated only with the name of its model, its evidence and what it leaves out. A kind of
event is *unpriced* if it occurred, has no price (or a price for only a part of it), and is not
excluded by the model's own declaration. There is then no total, only the sum of the priced terms,
which is a lower bound. Two kinds always occur: memory is accessed, and static power is drawn.

A lab adds its chip by a file of the same form (docs/ENERGY.md). `python -m
mksgn.bench.energy_models` prints the JSON Schema of such a file, checked in as
data/energy_models.schema.json for editors.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ, pJ, W
from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, model_validator

from mksgn.bench.record import EnergyEntry, Totals
from mksgn.common.errors import BadInputError
from mksgn.common.schemas import Amount, Evidence, Name, Positive, StrictModel, Text, json_schema_of, read_yaml, unique

DATA = Path(__file__).parent / "data"
PJ_IN_MJ = 1e-9  # mJ per pJ
SCHEMA = "mksgn.energy_models/1"

Event = Literal[
    "host_macs",  # multiply-accumulates of the first layer, on the host; its input is not spiking
    "graded_macs",  # multiply-accumulates of graded values on the chip
    "syn_ops",  # deliveries of a spike over a synapse, or to a product unit
    "coincidences",  # product units that received two spikes: one delivery to an attention neuron each
    "neuron_updates",  # product units included
    "spike_messages",  # from core to core: messages and their hops
    "host_to_chip_spikes",
    "memory",
    "static_power",
]
EVENTS: tuple[Event, ...] = get_args(Event)
# the term of prices_pJ.time_step: unlike an event, it is never unpriced under a model without it
TIME_STEPS = "time_steps"


PRICE_OF: dict[Event, str] = {  # event -> field of Prices
    "host_macs": "mac",
    "graded_macs": "mac",
    "syn_ops": "synaptic_op",
    "coincidences": "coincidence",
    "neuron_updates": "neuron_update",
    "spike_messages": "spike_message",
    "host_to_chip_spikes": "host_to_chip_spike",
}


class Prices(StrictModel):
    """Prices in pJ per event. An event without a price is unpriced if it occurred; no price is guessed."""

    mac: Amount | None = None
    """Per multiply-accumulate, on the host or of a graded value on the chip."""
    synaptic_op: Amount | None = None
    """Per delivery of a spike over a synapse, and per delivery to a product unit."""
    coincidence: Amount | None = None
    """Per product unit that received two spikes: its delivery to the attention neuron."""
    neuron_update: Amount | None = None
    """Per update that ended without a spike; product units count as neurons."""
    neuron_update_active: Amount | None = None
    """Per update that ended in a spike, as a whole. Left out: as neuron_update."""
    spike_message: Amount | None = None
    """Per message from core to core: a spike is one message for each core that it is sent to."""
    spike_hops: dict[str, Amount] = Field(default_factory=dict)
    """Per tile crossed. For the record only: routes are not counted, so messages stay unpriced with it."""
    memory_access: dict[str, Amount] = Field(default_factory=dict)
    """By memory size. For the record only: accesses are not counted."""
    host_to_chip_spike: Amount | None = None
    """Per spike that the host sends to the chip."""
    time_step: Amount | None = None
    """Per time step of one body, of the whole chip, with or without spikes: clock, barrier, idle cores."""


class Anchor(StrictModel):
    """The measured energy of a whole network, for comparison with a sum of prices. It is not a price."""

    network: Name
    energy_per_inference_mJ: Amount
    static_power_W: Amount
    inferences_per_s: Amount


class EnergyModel(StrictModel):
    """One energy model. `name`, `evidence` and `source` are required; everything else defaults to empty."""

    name: Text
    evidence: Evidence
    source: Text
    """In full: a publication, or what was measured on which board with which workload."""
    scope: str = ""
    """What the prices include and assume."""
    prices_pJ: Prices = Prices()
    static_power_W: Positive | None = None
    """Drawn by everything that holds the network while the chip works. Needs one of the next two, for the time."""
    seconds_per_inference: Positive | None = None
    """Measured chip time of one body."""
    steps_per_second: Positive | None = None
    """Speed of the chip, with bodies streaming back to back: each takes S steps."""
    covers: tuple[Event, ...] = ()
    """Kinds of event whose cost is included in another price."""
    excludes: tuple[Event, ...] = ()
    """Kinds of event that the model leaves out by its own declaration."""
    partly: tuple[Event, ...] = ()
    """Kinds of event of which the price covers only a part: their term is a lower bound, and there is no total."""
    anchor: Anchor | None = None

    @model_validator(mode="after")
    def _consistent(self) -> EnergyModel:
        if self.prices_pJ.neuron_update_active is not None and self.prices_pJ.neuron_update is None:
            raise ValueError("neuron_update_active without neuron_update; name both")
        for one, other in (("covers", "excludes"), ("covers", "partly"), ("excludes", "partly")):
            if both := sorted(set(getattr(self, one)) & set(getattr(self, other))):
                raise ValueError(f"{both[0]} is listed in {one} and in {other}; keep one of them")
        for event in (*self.covers, *self.excludes):
            if event in self._own_prices:
                raise ValueError(f"{event} has a price and is covered or excluded as well; keep one of them")
        times = [name for name in ("seconds_per_inference", "steps_per_second") if getattr(self, name) is not None]
        if len(times) != (0 if self.static_power_W is None else 1):
            raise ValueError(
                f"static_power_W needs one of seconds_per_inference and steps_per_second, and these need it; "
                f"got {'no static_power_W' if self.static_power_W is None else 'it'} and {len(times)} of them"
            )
        return self

    @property
    def _own_prices(self) -> set[Event]:
        """Events with a price of their own. That of a MAC is not one: it holds for host and chip."""
        names = {event: name for event, name in PRICE_OF.items() if name != "mac"}
        priced: set[Event] = {event for event, name in names.items() if getattr(self.prices_pJ, name) is not None}
        return priced if self.static_power_W is None else priced | {"static_power"}


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
        Counts by kind of event; 1 for the kinds that always occur and have no count.
    """
    return {
        "host_macs": totals.host_macs,
        "graded_macs": totals.graded_macs,
        "syn_ops": totals.syn_ops,
        "coincidences": totals.coincidences,
        "neuron_updates": totals.neuron_updates,
        "spike_messages": totals.spikes if totals.axon_out is None else totals.axon_out,
        "host_to_chip_spikes": totals.host_to_chip_spikes_per_step * (steps or 1),
        "memory": 1,
        "static_power": 1,
    }


def price(model: EnergyModel, totals: Totals, *, steps: int | None = None) -> EnergyEntry:
    """Price a clip under an energy model, in mJ by kind of event.

    Messages are priced only if they were counted (`axon_out`). If the model prices hops too,
    messages are among both the terms and the unpriced events, because routes are not counted.

    Args:
        model: The energy model.
        totals: Totals of the run.
        steps: Time steps S of a clip. Without it, prices per step, per spike of the host and by the
            chip's speed stay unused.
    """
    terms = _terms(model, totals, steps)
    left_out = {*model.excludes, *model.covers}
    partly = {*model.partly, *(["spike_messages"] if model.prices_pJ.spike_hops else [])}
    unpriced: list[str] = [
        event
        for event, count in occurrences(totals, steps).items()
        if count > 0 and event not in left_out and (event not in terms or event in partly)
    ]
    if model.prices_pJ.time_step is not None and TIME_STEPS not in terms:
        unpriced.append(TIME_STEPS)
    priced = fsum(terms.values())
    extra = totals.host_macs_every_step - totals.host_macs
    every_step = extra * (model.prices_pJ.mac or 0.0) * PJ_IN_MJ if "host_macs" in terms else 0.0
    return EnergyEntry(
        model=model.name,
        evidence=model.evidence,
        source=model.source,
        terms=terms,
        total_mJ=None if unpriced else priced,
        total_every_step_mJ=None if unpriced else priced + every_step,
        priced_mJ=priced,
        unpriced=unpriced,
        excludes=list(model.excludes),
    )


def _terms(model: EnergyModel, totals: Totals, steps: int | None) -> dict[str, float]:
    """Energies in mJ of all kinds of event that have a price, even if their count is 0."""
    prices, counts = model.prices_pJ, occurrences(totals, steps)
    active_price = prices.neuron_update if prices.neuron_update_active is None else prices.neuron_update_active
    # graded MACs make no row of zeros where all values are spikes
    left_out: set[Event] = {*model.excludes, *model.covers, *(() if counts["graded_macs"] else ("graded_macs",))}
    if totals.axon_out is None:
        left_out.add("spike_messages")
    if steps is None:
        left_out.add("host_to_chip_spikes")
    picojoule: dict[str, float] = {
        event: counts[event] * price
        for event, name in PRICE_OF.items()
        if event not in left_out and (price := getattr(prices, name)) is not None
    }
    if prices.neuron_update is not None and active_price is not None:
        inactive = max(totals.neuron_updates - totals.active_updates, 0.0)
        picojoule["neuron_updates"] = inactive * prices.neuron_update + totals.active_updates * active_price
    if prices.time_step is not None and steps is not None:
        picojoule[TIME_STEPS] = totals.lanes * steps * prices.time_step
    terms = {event: picojoule[event] * PJ_IN_MJ for event in (*EVENTS, TIME_STEPS) if event in picojoule}
    seconds = model.seconds_per_inference
    if model.steps_per_second is not None and steps is not None:
        seconds = steps / model.steps_per_second
    if model.static_power_W is not None and seconds is not None:
        terms["static_power"] = totals.lanes * seconds * model.static_power_W * 1e3
    return terms


if __name__ == "__main__":
    print(json_schema_of(ModelsFile, SCHEMA, "validation"))
