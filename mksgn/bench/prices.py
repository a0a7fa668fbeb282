"""Kinds of event and their prices: what an energy model states, and what a record keeps of it beside its energies."""

# ruff: noqa: N815 - units keep their own spelling: mJ, pJ, W
from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from mksgn.common.schemas import Amount, Positive, StrictModel
from mksgn.deploy.placement.mesh import Hop
from mksgn.deploy.program.program import SynapseKind

Event = Literal[
    "host_macs",  # multiply-accumulates of the first layer, on the host; its input is not spiking
    "graded_macs",  # multiply-accumulates of graded values on the chip
    "syn_ops",  # deliveries of a spike over a synapse, or to a product unit
    "coincidences",  # product units that received two spikes: one delivery to an attention neuron each
    "neuron_updates",  # product units included
    "spike_messages",  # from core to core, as they leave a core
    "spike_hops",  # tiles that the messages cross; part of the message's price under a model without prices of hops
    "host_to_chip_spikes",
    "memory",  # reads and writes of weights, states, biases and spikes
    "static_power",
]
EVENTS: tuple[Event, ...] = get_args(Event)
SYNAPSE_KINDS: tuple[SynapseKind, ...] = get_args(SynapseKind)
BYTES = {"B": 1, "KB": 2**10, "MB": 2**20}

PRICE_OF: dict[Event, str] = {  # event -> field of Prices
    "host_macs": "mac",
    "graded_macs": "mac",
    "syn_ops": "synaptic_op",
    "coincidences": "coincidence",
    "neuron_updates": "neuron_update",
    "spike_messages": "spike_message",
    "spike_hops": "spike_hops",
    "host_to_chip_spikes": "host_to_chip_spike",
}


def _size(text: str) -> str:
    bytes_of(text)
    return text


def bytes_of(size: str) -> int:
    """Return the bytes of a size such as "32 KB". Raises ValueError if it is not a size."""
    match = re.fullmatch(r"(\d+) ?(B|KB|MB)", size)
    if match is None:
        raise ValueError(f"{size!r} is not a memory size; write it as 512 B, 8 KB or 1 MB")
    return int(match[1]) * BYTES[match[2]]


class SynapticPrices(StrictModel):
    """Prices in pJ per delivery by kind of synapse (`Projection.synapse_kind` says which projection is of which)."""

    dense: Amount
    """A stored row of weights, one for each neuron of the target."""
    sparse: Amount
    """A stored list of targets with their weights."""
    convolution: Amount
    """A kernel that all places share."""

    @property
    def cheapest(self) -> float:
        """The price of an operation of unknown kind, as a lower bound."""
        return min(self.dense, self.sparse, self.convolution)


def _form(price: object) -> str:
    return "by_kind" if isinstance(price, dict | SynapticPrices) else "price"


# chosen by form, so that a fault is reported once and not for both forms
SynapticPrice = Annotated[
    Annotated[Amount, Tag("price")] | Annotated[SynapticPrices, Tag("by_kind")], Discriminator(_form)
]


class AddressPrices(StrictModel):
    """Prices in pJ of computing the addresses of what a spike reaches."""

    addition: Amount
    mac: Amount


class Prices(StrictModel):
    """Prices in pJ per event. An event without a price is unpriced if it occurred; no price is guessed."""

    mac: Amount | None = None
    """Per multiply-accumulate, on the host or of a graded value on the chip."""
    synaptic_op: SynapticPrice | None = None
    """Per delivery of a spike over a synapse, and per delivery to a product unit: one price, or one by kind of synapse."""
    coincidence: Amount | None = None
    """Per product unit that received two spikes: its delivery to the attention neuron."""
    neuron_update: Amount | None = None
    """Per update that ended without a spike; product units count as neurons."""
    neuron_update_active: Amount | None = None
    """Per update that ended in a spike, as a whole. Left out: as neuron_update."""
    spike_message: Amount | None = None
    """Per message from core to core: a spike is one message for each core that it is sent to."""
    spike_hops: dict[Hop, Amount] = Field(default_factory=dict)
    """Per message that stays within its tile, and per tile crossed. A direction left out costs nothing."""
    memory_access: dict[Annotated[str, AfterValidator(_size)], Amount] = Field(default_factory=dict)
    """Per read or write of a word by the size of the memory, such as 32 KB; interpolated in between."""
    addressing: AddressPrices | None = None
    """Of the addresses that a spike reaches. Without it, they are part of the other prices."""
    host_to_chip_spike: Amount | None = None
    """Per spike that the host sends to the chip."""
    time_step: Amount | None = None
    """Per time step of one body, of the whole chip, with or without spikes: clock, barrier, idle cores."""

    def access(self, size: float) -> float:
        """Return the price in pJ of one access to a memory of `size` bytes.

        The price is linear between the sizes that have a price, and beyond the largest. A memory smaller than
        the smallest costs as much as the smallest, since no price of one was published.
        """
        points = sorted((float(bytes_of(name)), price) for name, price in self.memory_access.items())
        if size <= points[0][0] or len(points) == 1:
            return points[0][1]
        upper = next((i for i, (at, _) in enumerate(points) if at >= size), len(points) - 1)
        (left, low), (right, high) = points[upper - 1 : upper + 1]
        return low + (high - low) * (size - left) / (right - left)


class Pricing(StrictModel):
    """Everything in an energy model that decides an energy. A record stores it with the energy."""

    prices_pJ: Prices = Prices()
    static_power_W: Positive | None = None
    """Drawn by all that holds the network while the chip works. Needs one of the next two, which give the time."""
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

    @model_validator(mode="after")
    def _consistent(self) -> Pricing:
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
                f"got {'no static_power_W' if self.static_power_W is None else 'static_power_W'} and {len(times)} of "
                "these"
            )
        return self

    @property
    def _own_prices(self) -> set[Event]:
        """Events with a price of their own. A MAC's price is not one: it applies to both host and chip."""
        # a model that covers hops and memory accesses may still state their prices
        names = {event: name for event, name in PRICE_OF.items() if name not in ("mac", "spike_hops")}
        priced: set[Event] = {event for event, name in names.items() if getattr(self.prices_pJ, name) is not None}
        return priced if self.static_power_W is None else priced | {"static_power"}
