"""What executes a program: Lava, or the emulator where Lava is neither installed nor requested."""

import warnings
from importlib.util import find_spec

from mksgn.common.errors import MksgnWarning
from mksgn.deploy.errors import LavaMissingError, how_to_install_lava


def backend_or_default(requested: str | None) -> str:
    """Return the backend to run on; None selects Lava or, with a warning, the emulator if Lava is not installed.

    Raises:
        LavaMissingError: Lava is requested by name and is not installed.
    """
    if requested == "emulator" or lava_installed():
        return requested or "lava"
    if requested == "lava":
        raise LavaMissingError(ModuleNotFoundError("No module named 'lava.magma'"))
    warnings.warn(
        f"Lava is not installed ({how_to_install_lava()}): running in the emulator, which gives the same spikes in fixed point",
        MksgnWarning,
        stacklevel=2,
    )
    return "emulator"


def lava_installed() -> bool:
    """Return whether the Processes of lava-nc can be imported."""
    try:
        return find_spec("lava.magma") is not None  # other Lava packages share the top-level name
    except ModuleNotFoundError:
        return False
