"""Lava's processes are forked, as they inherit its channels, whatever start method the program has chosen for its own.

Import this before anything of Lava: its module sets 'fork' when it is imported, which raises if a
method is already set, even the same one. The program's choice is put back afterwards.
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
    # Of the method that is set when they are called: those of 'spawn' have names, which a process of their own removes.
    runtime.Queue, channels.Semaphore = FORK.Queue, FORK.Semaphore


_import_lava()
