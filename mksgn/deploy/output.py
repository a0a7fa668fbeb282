"""The folder of mksgn-deploy -o: a run's spikes, outputs and counters, the picture of its cores, and a simulator's files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nir

from mksgn.common.console import wrote
from mksgn.common.replacement import writing_into
from mksgn.deploy import run_folder
from mksgn.deploy.errors import ChipLimitError
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program
from mksgn.deploy.run_files import (
    CORES_FILE,
    COUNTERS_FILE,
    DEPLOYMENT,
    MANIFEST_FILE,
    OUTPUTS_FILE,
    SPIKES_FILE,
    check_replaced,
)


@contextmanager
def writing(out: Path | None, *, runs: bool, overwrite: bool) -> Iterator[Path | None]:
    """Yield the folder to write into, which is moved into place at the end; with --check alone, `out` itself.

    Raises:
        BadInputError: As for `check`, or another process is writing into it.
    """
    check_replaced(out, runs=runs, overwrite=overwrite)
    if out is None:
        yield None
    elif not runs:
        with writing_into(out, CORES_FILE):
            yield out
    else:
        with DEPLOYMENT.writing(out, overwrite=overwrite, old=run_folder.listed) as draft:
            try:
                yield draft
            except ChipLimitError:  # the picture shows which limit
                if (draft / CORES_FILE).exists() and not DEPLOYMENT.present(out):
                    os.replace(draft / CORES_FILE, out / CORES_FILE)
                raise
        wrote(out, f"/{SPIKES_FILE}, {OUTPUTS_FILE}, {COUNTERS_FILE} and {MANIFEST_FILE}")


def write_run(
    folder: Path, model: Path, graph: nir.NIRGraph, program: Program, execution: Execution, data: dict[str, object]
) -> None:
    """Write spikes, outputs, counters and the manifest of a run on `data` into a folder."""
    run_folder.write_spikes(execution, folder / SPIKES_FILE)
    run_folder.write_outputs(execution, folder / OUTPUTS_FILE)
    run_folder.write_counters(execution, folder / COUNTERS_FILE)
    facts = {
        "data": data,
        "execution": {"backend": execution.backend, "precision": execution.precision, "steps": execution.steps},
    }
    parent = graph.metadata.get("parent")
    names = (SPIKES_FILE, OUTPUTS_FILE, COUNTERS_FILE, CORES_FILE)
    written = [name for name in names if (folder / name).is_file()]
    parents = [parent] if parent else []
    run_folder.write_manifest(folder, written, model=model, parents=parents, program=program, facts=facts)
