"""Fork Lava's processes, which inherit its channels, whatever start method the program has chosen for its own.

Import this before anything of Lava: a module of Lava sets 'fork' on import, which raises if a
method is already set, even the same one. The program's choice is restored afterwards.
"""

import multiprocessing

FORK = multiprocessing.get_context("fork")


def _import_lava() -> None:
    chosen = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    try:
        import lava.magma.compiler.channels.pypychannel as channels
        import lava.magma.runtime.runtime as runtime  # which imports the module that sets 'fork'
    finally:
        multiprocessing.set_start_method(chosen, force=True)
    # Otherwise they depend on the method set when called: those of 'spawn' have names, which an extra process removes.
    runtime.Queue, channels.Semaphore = FORK.Queue, FORK.Semaphore


_import_lava()
