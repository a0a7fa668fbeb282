"""Third stage: compile any NIR graph into a program, and run it in the emulator or in Lava."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mksgn.deploy.compiler import compile_graph
    from mksgn.deploy.execute import run
    from mksgn.deploy.execution import Execution
    from mksgn.deploy.program.program import Program
else:  # imported on first use: the help of a command needs none of them
    from mksgn.common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__,
        {"Execution": "execution", "Program": "program.program", "compile_graph": "compiler", "run": "execute"},
    )

__all__ = ["Execution", "Program", "compile_graph", "run"]
