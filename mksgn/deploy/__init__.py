"""Third stage: compile any NIR graph into a program, and run it in the emulator or in Lava."""

from mksgn.deploy.compiler import compile_graph
from mksgn.deploy.execute import run
from mksgn.deploy.execution import Execution
from mksgn.deploy.program.program import Program

__all__ = ["Execution", "Program", "compile_graph", "run"]
