"""What the folder of mksgn-deploy -o holds, and whether it may be replaced: checked before any heavy import."""

from pathlib import Path

from mksgn.common.errors import BadInputError
from mksgn.common.replacement import FileSet
from mksgn.deploy.options import simulator_folder

MANIFEST_FILE = "manifest.json"
SPIKES_FILE = "spikes.npz"
OUTPUTS_FILE, COUNTERS_FILE, CORES_FILE, SANA_FE = "outputs.npz", "counters.json", "cores.png", "sana-fe"
DEPLOYMENT = FileSet(
    "deployment",
    names=(SPIKES_FILE, OUTPUTS_FILE, COUNTERS_FILE, MANIFEST_FILE, CORES_FILE, SANA_FE),
    results=(SPIKES_FILE, MANIFEST_FILE),
    what="run",
)


def check(out: Path | None, to: str | None, *, runs: bool, overwrite: bool) -> Path | None:
    """Return the folder for a simulator's files; None without --to.

    Raises:
        DeployError: There is no folder, or there are no inputs, for the simulator.
        BadInputError: Files of `out` would be lost: all of a run's or, with --check alone, a run's picture.
    """
    simulator = simulator_folder(to, out, has_inputs=runs)
    check_replaced(out, runs=runs, overwrite=overwrite)
    return simulator


def check_replaced(out: Path | None, *, runs: bool, overwrite: bool) -> None:
    """Raise BadInputError as `check` does."""
    if out is None:
        return
    if runs:
        DEPLOYMENT.check(out, overwrite=overwrite)
    elif not overwrite and (out / CORES_FILE).exists() and (out / MANIFEST_FILE).exists():
        raise BadInputError(
            f"{out / CORES_FILE}: belongs to the run in {out}; replace it with --overwrite, or choose another folder with -o"
        )
