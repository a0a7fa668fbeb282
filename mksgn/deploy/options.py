"""What a NIR file leaves open, and a user says: the options of compiling, of every command and of `measure`."""

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any

import typer

TimeStep = Annotated[float, typer.Option(help="time step in seconds, for files that name none")]
IfTimeStep = Annotated[
    float | None, typer.Option(help="time step of IF and I; 1 reads v += r x, as most files mean it; default: --dt")
]
Analog = Annotated[list[str] | None, typer.Option(help="a non-spiking input; may be repeated")]


@dataclass(frozen=True)
class CompileOptions:
    """The keyword arguments of `compile_graph` that change what a graph computes."""

    dt: float = 1e-4
    if_dt: float | None = None
    analog: tuple[str, ...] = ()

    def keywords(self) -> dict[str, Any]:
        return asdict(self)

    def departures(self) -> dict[str, Any]:
        """Those that are not the default, as JSON holds them."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in values.items()
            if value != default
        }
