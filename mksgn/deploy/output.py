"""The folder of mksgn-deploy -o: a run's spikes, outputs and counters, the picture of its cores, and a simulator's files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nir

from mksgn.common.console import wrote
from mksgn.common.errors import BadInputError
from mksgn.common.replacement import FileSet, writing_into
from mksgn.deploy import run_folder
from mksgn.deploy.errors import ChipLimitError
from mksgn.deploy.execution import Execution
from mksgn.deploy.options import simulator_folder
from mksgn.deploy.program.program import Program

OUTPUTS_FILE, COUNTERS_FILE, CORES_FILE, SANA_FE = "outputs.npz", "counters.json", "cores.png", "sana-fe"
DEPLOYMENT = FileSet(
    "deployment",
    names=(run_folder.SPIKES_FILE, OUTPUTS_FILE, COUNTERS_FILE, run_folder.MANIFEST_FILE, CORES_FILE, SANA_FE),
    results=(run_folder.SPIKES_FILE, run_folder.MANIFEST_FILE),
    what="run",
)


def check(out: Path | None, to: str | None, *, runs: bool, overwrite: bool) -> Path | None:
    """Return the folder for a simulator's files; None without --to.

    Raises:
        DeployError: There is no folder or are no inputs for it.
        BadInputError: Files of `out` would be lost: all of a run's, or of --check alone a run's picture.
    """
    simulator = simulator_folder(to, out, has_inputs=runs)
    _check_replaced(out, runs=runs, overwrite=overwrite)
    return simulator


def _check_replaced(out: Path | None, *, runs: bool, overwrite: bool) -> None:
    if out is None:
        return
    if runs:
        DEPLOYMENT.check(out, overwrite=overwrite)
    elif not overwrite and (out / CORES_FILE).exists() and (out / run_folder.MANIFEST_FILE).exists():
        raise BadInputError(
            f"{out / CORES_FILE}: belongs to the run in {out}; replace it with --overwrite, or choose another folder with -o"
        )


@contextmanager
def writing(out: Path | None, *, runs: bool, overwrite: bool) -> Iterator[Path | None]:
    """Give the folder to write into, which is put into place at the end; of --check alone, `out` itself.

    Raises:
        BadInputError: As `check`, or another process writes into it.
    """
    _check_replaced(out, runs=runs, overwrite=overwrite)
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
        wrote(out, f"/{run_folder.SPIKES_FILE}, {OUTPUTS_FILE}, {COUNTERS_FILE} and {run_folder.MANIFEST_FILE}")


def write_run(
    folder: Path, model: Path, graph: nir.NIRGraph, program: Program, execution: Execution, data: dict[str, object]
) -> None:
    """Write spikes, outputs, counters and the manifest of a run on `data` into a folder."""
    run_folder.write_spikes(execution, folder / run_folder.SPIKES_FILE)
    run_folder.write_outputs(execution, folder / OUTPUTS_FILE)
    run_folder.write_counters(execution, folder / COUNTERS_FILE)
    facts = {
        "data": data,
        "execution": {"backend": execution.backend, "precision": execution.precision, "steps": execution.steps},
    }
    parent = graph.metadata.get("parent")
    names = (run_folder.SPIKES_FILE, OUTPUTS_FILE, COUNTERS_FILE, CORES_FILE)
    written = [name for name in names if (folder / name).is_file()]
    parents = [parent] if parent else []
    run_folder.write_manifest(folder, written, model=model, parents=parents, program=program, facts=facts)
