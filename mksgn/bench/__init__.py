"""Fourth stage: count events of a run, price them, and compare them with published figures."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mksgn.bench.energy_models import EnergyModel, known_models
    from mksgn.bench.measurement import Run, measure
    from mksgn.bench.record import Record
    from mksgn.bench.record_io import load

# imported when they are asked for: a run needs torch and numba, a record neither
_MODULES = {
    "EnergyModel": "energy_models",
    "Record": "record",
    "Run": "measurement",
    "known_models": "energy_models",
    "load": "record_io",
    "measure": "measurement",
}

__all__ = ["EnergyModel", "Record", "Run", "known_models", "load", "measure"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
