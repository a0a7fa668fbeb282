"""Make multiprocessing fork, as the children inherit Lava's channels. Import this before anything of Lava.

Lava's own module sets 'fork' when it is imported, which raises if a method is already set, even the
same one.
"""

import multiprocessing
import sys

from mksgn.deploy.lava.guard.errors import LavaRuntimeError


def require_fork() -> None:
    """Raise LavaRuntimeError if another start method has been set."""
    method = multiprocessing.get_start_method(allow_none=True)
    if method not in (None, "fork"):
        raise LavaRuntimeError(
            f"multiprocessing is set to start processes by {method!r}, but Lava's channels are inherited through fork: "
            "call multiprocessing.set_start_method('fork', force=True) first"
        )


require_fork()
if "lava.magma.runtime.message_infrastructure.multiprocessing" not in sys.modules:
    multiprocessing.set_start_method(None, force=True)
