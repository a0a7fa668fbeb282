"""What the Processes share: names, and the decorator of the models in `processes`, where no other code may live."""

from collections.abc import Callable

from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

TAGS = {"fixed": "fixed_pt", "float": "floating_pt"}  # by a program's precision


def process_model(process: type[AbstractProcess], precision: str, **ports: LavaPyType) -> Callable[[type], type]:
    """Return a decorator that makes a class the CPU model of a Process at a `precision`, with port types by name."""

    def declare(model: type) -> type:
        for name, value in {"precision": precision, **ports}.items():
            setattr(model, name, value)
        return implements(proc=process, protocol=LoihiProtocol)(requires(CPU)(tag(TAGS[precision])(model)))

    return declare


def process_name(name: str) -> str:
    """Turn a population's or projection's name into one that Lava accepts for a Process."""
    return name.replace(".", "_")
