"""Dask's cluster for a sweep: one on this machine, or a lab's own by its scheduler's address."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster

from mksgn.common.errors import BadInputError

# Dask has workers give freed memory back at once, so that each of the emulator's arrays faults its pages in again: four times as slow.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
ALLOWED_FAILURES = 10  # deaths of a worker that held a task, before the task itself is suspected
CONNECT_S = 20.0


@contextmanager
def connected(workers: int | None, scheduler: str | None) -> Iterator[Client]:
    """A client of `workers` processes of one thread each (None: one per core), or of the scheduler at that address."""
    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
    }
    with dask.config.set(settings), warnings.catch_warnings():
        # of ten megabytes that go with a task; ours are results, and Dask cannot load them from elsewhere
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
            scheduler_kwargs={"dashboard": False},  # a page that nobody asked for
            silence_logs=logging.CRITICAL,
        )
        with cluster, Client(cluster) as client:
            yield client
