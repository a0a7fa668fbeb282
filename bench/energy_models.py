"""Energy models as data (data/energy_models.yaml), and what a run costs under each.

A total without the name of its model, its evidence and what it leaves out is not a result. So a kind of event that
occurred, has no price and is not excluded by the model's own declaration is *unpriced*: there is then no total, only
the sum of what is priced, a lower bound. Two kinds always occur: memory is accessed, and static power is drawn.
"""

# ruff: noqa: N815 - units keep their own spelling: mJ, pJ, W
from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from pathlib import Path
from typing import Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from mksgn.bench.record import Amount, EnergyEntry, Evidence, Name, Part, Totals, one_line
from mksgn.train.errors import BadInputError

PJ_IN_MJ = 1e-9  # mJ per pJ
DATA = Path(__file__).parent / "data"

Event = Literal[
    "host_macs",  # multiply-accumulates of the analog first layer, on the host
    "syn_ops",  # deliveries of a spike over a synapse, or to a product unit
    "coincidences",  # product units that met two spikes: one delivery to an attention neuron each
    "neuron_updates",  # product units included
    "spike_messages",  # between cores: messages and their hops
    "host_to_chip_spikes",
    "memory",
    "static_power",
]
EVENTS: tuple[Event, ...] = get_args(Event)


class Prices(Part):
    """pJ per event; None where the model names no price. Coincidences without a price of their own are not guessed."""

    mac: Amount | None = None
    synaptic_op: Amount | None = None
    coincidence: Amount | None = None
    neuron_update: Amount | None = None  # ended without a spike
    neuron_update_active: Amount | None = None  # ended in a spike, all of it; None: as without
    spike_message: Amount | None = None  # per message that leaves a core
    spike_hops: dict[str, Amount] = Field(default_factory=dict)  # per tile crossed; unused: no routes
    memory_access: dict[str, Amount] = Field(default_factory=dict)  # by memory size; unused: no layout


class Anchor(Part):
    """A whole network, measured: something to hold a sum of prices against, and no price."""

    network: Name
    energy_per_inference_mJ: Amount
    static_power_W: Amount
    inferences_per_s: Amount


class EnergyModel(Part):
    name: Name
    evidence: Evidence
    source: Name  # in full words
    scope: str  # what the prices include and assume
    prices_pJ: Prices
    covers: tuple[Event, ...] = ()  # cost inside another term
    excludes: tuple[Event, ...] = ()  # left out by the model's own declaration
    anchor: Anchor | None = None

    @model_validator(mode="after")
    def _consistent(self) -> EnergyModel:
        if self.prices_pJ.neuron_update_active is not None and self.prices_pJ.neuron_update is None:
            raise ValueError(f"{self.name}: neuron_update_active without neuron_update")
        both = sorted(set(self.covers) & set(self.excludes))
        if both:
            raise ValueError(f"{self.name}: {both[0]} is covered and excluded at once")
        return self


class ModelsFile(Part):
    schema_id: Literal["mksgn.energy_models/1"] = Field(alias="schema")
    models: list[EnergyModel]


File = TypeVar("File", bound=BaseModel)


def read_yaml(path: Path, kind: type[File]) -> File:
    """Read a YAML file into its pydantic model. Raises BadInputError in one line: file, place, fault."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise BadInputError(f"{path}: {one_line(error)}") from error


def known_models(extra_files: Iterable[Path | str] = ()) -> list[EnergyModel]:
    """The models of data/energy_models.yaml, then those of further files of the same form. Names are unique."""
    models: dict[str, EnergyModel] = {}
    for path in (DATA / "energy_models.yaml", *map(Path, extra_files)):
        for model in read_yaml(path, ModelsFile).models:
            if model.name in models:
                raise BadInputError(f"{path}: an energy model named {model.name!r} exists already; choose another name")
            models[model.name] = model
    return list(models.values())


def model_named(name: str, models: Sequence[EnergyModel] | None = None) -> EnergyModel:
    """One model by name, of `models` or of the known ones."""
    models = known_models() if models is None else models
    for model in models:
        if model.name == name:
            return model
    raise BadInputError(f"no energy model {name!r}; known: {', '.join(model.name for model in models)}")


def occurrences(totals: Totals) -> dict[Event, float]:
    """How often each kind of event occurred per clip; 1 for the kinds that always occur and have no count."""
    return {
        "host_macs": totals.host_macs,
        "syn_ops": totals.syn_ops,
        "coincidences": totals.coincidences,
        "neuron_updates": totals.neuron_updates,
        "spike_messages": totals.spikes if totals.axon_out is None else totals.axon_out,
        "host_to_chip_spikes": totals.host_to_chip_spikes_per_step,
        "memory": 1,
        "static_power": 1,
    }


def price(model: EnergyModel, totals: Totals) -> EnergyEntry:
    """What a clip costs under a model, in mJ by kind of event.

    Messages are priced only where they were counted (`axon_out`); where the model prices hops besides, messages stand
    among the terms and among the unpriced, because routes are not counted.
    """
    terms = _terms(model.prices_pJ, totals)
    left_out = {*model.excludes, *model.covers}
    partly = {"spike_messages"} if model.prices_pJ.spike_hops else set()
    unpriced: list[str] = [
        event
        for event, count in occurrences(totals).items()
        if count > 0 and event not in left_out and (event not in terms or event in partly)
    ]
    priced = fsum(terms.values())
    once = terms.get("host_macs", 0.0)
    every_step = totals.host_macs_every_step * (model.prices_pJ.mac or 0.0) * PJ_IN_MJ
    return EnergyEntry(
        model=model.name,
        evidence=model.evidence,
        source=model.source,
        terms=terms,
        total_mJ=None if unpriced else priced,
        total_every_step_mJ=None if unpriced else priced - once + every_step,
        priced_mJ=priced,
        unpriced=unpriced,
        excludes=list(model.excludes),
    )


def _terms(prices: Prices, totals: Totals) -> dict[str, float]:
    """mJ of every kind of event that has a price, be its count 0."""
    active_price = prices.neuron_update if prices.neuron_update_active is None else prices.neuron_update_active
    picojoule: dict[Event, float] = {}
    if prices.mac is not None:
        picojoule["host_macs"] = totals.host_macs * prices.mac
    if prices.synaptic_op is not None:
        picojoule["syn_ops"] = totals.syn_ops * prices.synaptic_op
    if prices.coincidence is not None:
        picojoule["coincidences"] = totals.coincidences * prices.coincidence
    if prices.neuron_update is not None and active_price is not None:
        inactive = max(totals.neuron_updates - totals.active_updates, 0.0)
        picojoule["neuron_updates"] = inactive * prices.neuron_update + totals.active_updates * active_price
    if prices.spike_message is not None and totals.axon_out is not None:
        picojoule["spike_messages"] = totals.axon_out * prices.spike_message
    return {event: amount * PJ_IN_MJ for event, amount in picojoule.items()}
