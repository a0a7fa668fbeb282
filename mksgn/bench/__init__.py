"""Fourth stage: count events of a run, price them, and compare them with published figures."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mksgn.bench.energy_models import EnergyModel, known_models
    from mksgn.bench.measurement import Run, measure
    from mksgn.bench.record import Record
    from mksgn.bench.record_io import load
else:  # imported on first use: a run needs torch and numba, a record needs neither
    from mksgn.common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "EnergyModel": "energy_models",
            "Record": "record",
            "Run": "measurement",
            "known_models": "energy_models",
            "load": "record_io",
            "measure": "measurement",
        },
    )

__all__ = ["EnergyModel", "Record", "Run", "known_models", "load", "measure"]
