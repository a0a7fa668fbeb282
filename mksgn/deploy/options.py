"""Options that several commands share: what a NIR file leaves open, as for `measure`, and the chip of the placement."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mksgn.common.choices import choice, open_choice
from mksgn.deploy.choices import BACKENDS, CHIP_NAMES, PLACES, PRECISIONS
from mksgn.deploy.errors import DeployError
from mksgn.export.choices import EULER, INTEGRATIONS, RESETS, SPIKE_DELAYS, V_INITS, ZERO

if TYPE_CHECKING:
    import nir


def _choices(what: str, meanings: Mapping[Any, str]) -> str:
    return f"{what}. " + "; ".join(f"{value}: {meaning}" for value, meaning in meanings.items()) + "."


TimeStep = Annotated[float, typer.Option(metavar="SECONDS", help="Time step, for files that do not state it.")]
IfTimeStep = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS", help="Time step of IF and I; 1 reads v += r x, as most files mean it; default: --dt."
    ),
]
Backend = Annotated[
    str | None,
    choice(
        values=BACKENDS, help="What executes the network; default: lava, or the emulator where it is not installed."
    ),
]
Precision = Annotated[str, choice(values=PRECISIONS, help="Arithmetic of the execution.")]
Reset = Annotated[str, choice(values=RESETS, help=_choices("Reset where the file states none", RESETS))]
VInit = Annotated[str, choice(values=V_INITS, help=_choices("Initial state where the file states none", V_INITS))]
Integration = Annotated[
    str, choice(values=INTEGRATIONS, help=_choices("Integration of a neuron where the file states none", INTEGRATIONS))
]
SpikeDelay = Annotated[
    int, choice(values=SPIKE_DELAYS, help=_choices("Steps until a spike leaves its neuron", SPIKE_DELAYS))
]
ChipName = Annotated[
    str,
    open_choice(
        metavar="NAME",
        values=CHIP_NAMES,
        help=f"Chip of the placement: {', '.join(CHIP_NAMES)}, or one of --chip-file.",
    ),
]
Place = Annotated[str, choice(values=PLACES, help="compact: fewest cores; balanced: least work on the busiest core.")]
ChipFiles = Annotated[
    list[Path] | None,
    typer.Option("--chip-file", metavar="FILE", help="YAML file of additional chips; may be repeated."),
]
Analog = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A non-spiking input; may be repeated.")]


@dataclass(frozen=True)
class Reading:
    """How `compile_graph` is to read what a file leaves open; the fields are its arguments."""

    dt: float = 1e-4
    if_dt: float | None = None
    reset: str = ZERO
    v_init: str = ZERO
    integration: str = EULER
    spike_delay: int = 0
    analog: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def applied(self, graph: "nir.NIRGraph") -> "nir.NIRGraph":
        """Return the graph with what it leaves open written into it, as `compile_graph` reads it."""
        from mksgn.export.graph.conventions import with_conventions
        from mksgn.export.graph.standard import standard_form

        return with_conventions(
            standard_form(graph),
            self.reset,
            self.v_init,
            integration=self.integration,
            spike_delay=self.spike_delay,
            dt=self.dt,
            if_dt=self.if_dt,
        )

    def departures(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, as JSON holds them."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in values.items()
            if value != default
        }


def simulator_folder(to: str | None, out: Path | None, *, has_inputs: bool) -> Path | None:
    """Return the folder for SANA-FE's files; None without --to. Raises DeployError where it cannot be written."""
    if to is None:
        return None
    if out is None or not has_inputs:
        raise DeployError("--to sana-fe writes input spikes into a folder; give --data or --inputs, and -o FOLDER")
    return out / "sana-fe"
