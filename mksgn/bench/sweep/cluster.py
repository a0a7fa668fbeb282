"""Connect to a Dask cluster for a sweep: local processes, or a scheduler at an address."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mksgn.common.errors import BadInputError
from mksgn.common.extras import require

if TYPE_CHECKING:
    from distributed import Client

# Replaces Dask's default MALLOC_TRIM_THRESHOLD_: with it, freed memory is returned at once, each of
# the emulator's arrays faults its pages in again, and a worker is four times slower.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ALLOWED_FAILURES = 10  # deaths of workers with the same task before the task is given up
CONNECT_S = 20.0


@contextmanager
def connected(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """Yield a client of a Dask cluster.

    Args:
        workers: Local processes to start, of one thread each; None starts one per core.
        scheduler: Address of a scheduler to use instead.

    Raises:
        BadInputError: No scheduler answers at that address.
        MissingExtraError: Dask is not installed.
    """
    require("a sweep", "sweep", "distributed")
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    }
    with dask.config.set(settings), warnings.catch_warnings():
        # Dask advises against sending 10 MB with a task, but these are results that it could not load from elsewhere
        warnings.filterwarnings("ignore", message="Sending large graph")
        if scheduler is not None:
            try:
                client = Client(scheduler, timeout=CONNECT_S)
            except (OSError, ValueError, TimeoutError) as error:
                raise BadInputError(
                    f"--scheduler {scheduler}: no scheduler answers within {CONNECT_S:g} s ({type(error).__name__}); "
                    "start one with `dask scheduler`"
                ) from error
            with client:
                yield client
            return
        cluster = LocalCluster(
            n_workers=workers or os.cpu_count(),
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster) as client:
            yield client
